//! Where the known bugs of other transports are tested, by their number in the catalogue that the test
//! names use, and those that are tested nowhere else. What these tests found here is in `transport`. One file, so that
//! a number of the catalogue has one place.
//!
//! | bugs | where |
//! |---|---|
//! | B63–B65, B70, B76, B77 | `automaton`, over random scripts; here, as they happened elsewhere |
//! | B66–B68, B71–B75, B83, B87 | here, and for every kind of transport in `conformance` |
//! | B65 | `states`: every method in every state |
//! | B69 | `allocations`: counted, not timed |

mod common;

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use common::{
    Strict, assert_sleeps, connect, drain, pattern, reset, settle, shrink, strict_loop, tcp, unix,
    until,
};
use tulipa_protocols::{AfterEof, Connection, Detached, Flow, Transport, WriteBufferLimits};
use tulipa_testing::{Call, Moment, Record, Recorder, ToyRecords};

/// A connection whose peer reads nothing, with so much to be written that it waits.
fn stuck(
    record: &Record,
    react: impl FnMut(Moment<'_>, &Transport) + 'static,
) -> (Strict, Connection<Recorder>, UnixStream) {
    let event_loop = strict_loop();
    let (ours, theirs) = unix();
    theirs.set_nonblocking(true).unwrap();
    let mut react = react;
    let protocol = record.reacting(move |moment, transport| {
        react(moment, transport);
        Ok(AfterEof::KeepOpen)
    });
    let connection = connect(&event_loop, ours, protocol);
    (event_loop, connection, theirs)
}

#[test]
fn b63_connection_lost_comes_once_when_resume_writing_closes() {
    let record = Record::new();
    let (event_loop, connection, theirs) = stuck(&record, |moment, transport| {
        if matches!(moment, Moment::Resume) {
            transport.close();
        }
    });
    connection.write(&pattern(4 << 20));
    until(&event_loop, "a pause", || record.is_paused());
    let received = Cell::new(0);
    until(&event_loop, "the end", || {
        received.set(received.get() + drain(&theirs).unwrap().0.len());
        record.is_lost()
    });
    record.assert_over();
    assert_eq!(record.calls(), [Call::Made, Call::Pause, Call::Resume, Call::Lost(None)]);
    received.set(received.get() + drain(&theirs).unwrap().0.len());
    assert_eq!(received.get(), 4 << 20);
}

#[test]
fn b64_a_writer_that_never_yields_hears_of_a_reset() {
    let event_loop = strict_loop();
    let (ours, theirs) = tcp();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    connection.pause_reading();
    settle(&event_loop);
    reset(theirs);
    let mut writes = 0;
    // Not one turn of the loop in between.
    while connection.write(&[7; 30_000]) != Flow::Closed {
        writes += 1;
        assert!(writes < 1000, "writing goes on for ever");
    }
    assert_eq!(connection.get_write_buffer_size(), 0);
    assert!(!record.is_lost());
    until(&event_loop, "the end", || record.is_lost());
    record.assert_over();
    assert!(record.error().is_some());
}

#[test]
fn b64_half_closing_and_then_closing_ends_it() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = tcp();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    connection.write_eof();
    settle(&event_loop);
    connection.close();
    until(&event_loop, "the end", || record.is_lost());
    assert_eq!(record.error(), None);
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn b66_64_megabytes_and_a_close_arrive_whole() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = tcp();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).unwrap();
        received
    });
    let data = pattern(64 << 20);
    connection.write_bytes(Bytes::from(data.clone()));
    connection.close();
    until(&event_loop, "the end", || record.is_lost());
    assert_eq!(record.error(), None);
    assert!(reader.join().unwrap() == data);
}

#[test]
fn b67_short_writes_of_one_byte_lose_and_double_nothing() {
    let record = Record::new();
    let mut connection = Detached::new(record.protocol());
    connection.set_room(Some(0));
    let data = pattern(5000);
    let (pieces, rest) = data.split_at(2500);
    let pieces: Vec<_> = pieces.chunks(7).map(IoSlice::new).collect();
    connection.transport().write_vectored(&pieces);
    connection.transport().write_bytes(Bytes::copy_from_slice(rest));
    connection.transport().close();
    let mut received = Vec::new();
    while !connection.is_over() {
        connection.set_room(Some(1));
        received.extend(connection.probe().written());
        assert!(received.len() <= data.len());
    }
    assert!(received == data);
    assert_eq!(record.error(), None);
}

#[test]
fn b67_a_small_send_buffer_splits_pieces_and_loses_none() {
    let event_loop = strict_loop();
    let (ours, theirs) = unix();
    shrink(&ours);
    theirs.set_nonblocking(true).unwrap();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    let data = pattern(300_000);
    let pieces: Vec<_> = data.chunks(11).map(IoSlice::new).collect();
    connection.write_vectored(&pieces);
    connection.write_eof();
    let received = RefCell::new((Vec::new(), false));
    until(&event_loop, "all bytes", || {
        let (bytes, end) = drain(&theirs).unwrap();
        let mut received = received.borrow_mut();
        received.0.extend(bytes);
        received.1 |= end;
        received.1
    });
    assert!(received.take().0 == data);
}

#[test]
fn b68_every_kind_of_write_pauses_the_protocol() {
    let kinds: [fn(&Transport, &[u8]) -> Flow; 3] = [
        |transport, data| transport.write(data),
        |transport, data| {
            transport.write_vectored(&data.chunks(100).map(IoSlice::new).collect::<Vec<_>>())
        },
        |transport, data| transport.write_bytes(Bytes::copy_from_slice(data)),
    ];
    for kind in kinds {
        let record = Record::new();
        let mut connection = Detached::new(record.protocol());
        connection.set_room(Some(0));
        assert_eq!(kind(connection.transport(), &[7; 64 * 1024]), Flow::Ready);
        connection.run();
        assert!(!record.is_paused(), "at the limit is not above it");
        assert_eq!(kind(connection.transport(), b"x"), Flow::Full);
        connection.run();
        assert_eq!(record.calls(), [Call::Made, Call::Pause]);
        connection.set_room(Some(48 * 1024));
        assert!(record.is_paused(), "16 KiB and a byte are above the low limit");
        connection.set_room(Some(1));
        assert_eq!(record.calls(), [Call::Made, Call::Pause, Call::Resume]);
    }
}

#[test]
fn b70_resume_writing_may_write_to_another_transport_and_to_its_own() {
    let event_loop = strict_loop();
    let lines: Vec<_> = (0..2).map(|_| unix()).collect();
    let records = [Record::new(), Record::new()];
    let transports = Rc::new(RefCell::new(Vec::<Transport>::new()));
    let mut peers = Vec::new();
    for ((ours, theirs), record) in lines.into_iter().zip(&records) {
        theirs.set_nonblocking(true).unwrap();
        peers.push(theirs);
        let (all, left) = (transports.clone(), Cell::new(20));
        let protocol = record.reacting(move |moment, _| {
            if matches!(moment, Moment::Resume | Moment::Pause) && left.get() > 0 {
                left.set(left.get() - 1);
                for transport in all.borrow().iter() {
                    transport.write(&[7; 300_000]);
                }
            }
            Ok(AfterEof::KeepOpen)
        });
        let connection = connect(&event_loop, ours, protocol);
        transports.borrow_mut().push(connection.transport().clone());
    }
    transports.borrow()[0].write(&[7; 1 << 20]);
    until(&event_loop, "rest", || {
        peers.iter().for_each(|peer| drop(drain(peer).unwrap()));
        transports.borrow().iter().all(|transport| transport.get_write_buffer_size() == 0)
            && records.iter().all(|record| !record.is_paused())
    });
    records.iter().for_each(Record::assert_order);
    let calls = records[0].calls();
    assert!(calls.len() > 6, "{calls:?}");
}

#[test]
fn b71_nothing_of_the_batch_at_hand_comes_after_a_pause() {
    let event_loop = strict_loop();
    let (one, mut one_peer) = unix();
    let (other, mut other_peer) = unix();
    let (first, second) = (Record::new(), Record::new());
    let transports = Rc::new(RefCell::new(Vec::<Transport>::new()));
    for (socket, record) in [(one, &first), (other, &second)] {
        let all = transports.clone();
        let connection = connect(
            &event_loop,
            socket,
            record.reacting(move |moment, _| {
                if let Moment::Data(_) = moment {
                    all.borrow().iter().for_each(Transport::pause_reading);
                }
                Ok(AfterEof::KeepOpen)
            }),
        );
        transports.borrow_mut().push(connection.transport().clone());
    }
    settle(&event_loop);
    one_peer.write_all(b"x").unwrap();
    other_peer.write_all(b"x").unwrap();
    // Both are ready in one batch; whoever is first pauses the other.
    settle(&event_loop);
    assert_eq!(first.count() + second.count(), 1);
    transports.borrow().iter().for_each(Transport::resume_reading);
    settle(&event_loop);
    assert_eq!(first.count() + second.count(), 2);
}

#[test]
fn b72_an_error_in_connection_made_closes_the_socket() {
    for panics in [false, true] {
        let event_loop = strict_loop();
        let (ours, mut theirs) = unix();
        let record = Record::new();
        let connection = connect(
            &event_loop,
            ours,
            record.reacting(move |moment, _| match moment {
                Moment::Made if panics => std::panic::resume_unwind(Box::new("in connection_made")),
                Moment::Made => Err(ErrorKind::InvalidData.into()),
                _ => Ok(AfterEof::Close),
            }),
        );
        until(&event_loop, "the end", || record.is_lost());
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "the peer sees the end");
        let kind = if panics { ErrorKind::Other } else { ErrorKind::InvalidData };
        assert_eq!(record.calls(), [Call::Made, Call::Lost(Some(kind))]);
        assert_eq!(event_loop.take_reports().len(), usize::from(panics));
        record.assert_over();
        drop(connection);
    }
}

#[test]
fn b73_after_an_error_in_data_received_no_data_come() {
    for panics in [false, true] {
        let event_loop = strict_loop();
        let (ours, mut theirs) = unix();
        let record = Record::new();
        let connection = connect(
            &event_loop,
            ours,
            record.reacting(move |moment, _| match moment {
                Moment::Data(_) if panics => {
                    std::panic::resume_unwind(Box::new("in data_received"))
                }
                Moment::Data(_) => Err(ErrorKind::InvalidData.into()),
                _ => Ok(AfterEof::Close),
            }),
        );
        // More than one read.
        theirs.set_nonblocking(true).unwrap();
        common::fill(&mut theirs, &pattern(1 << 20));
        until(&event_loop, "the end", || record.is_lost());
        let kind = if panics { ErrorKind::Other } else { ErrorKind::InvalidData };
        let Call::Data(count) = record.calls()[1] else { panic!("{record:?}") };
        assert!(count <= 256 * 1024);
        assert_eq!(record.calls(), [Call::Made, Call::Data(count), Call::Lost(Some(kind))]);
        assert_eq!(event_loop.take_reports().len(), usize::from(panics));
        drop(connection);
    }
}

#[test]
fn b74_a_connection_that_is_closed_on_both_sides_does_not_spin_whatever_is_left_to_do() {
    for ours_first in [true, false] {
        let event_loop = strict_loop();
        let (ours, theirs) = tcp();
        let record = Record::new();
        let connection = connect(&event_loop, ours, record.reacting(|_, _| Ok(AfterEof::KeepOpen)));
        if ours_first {
            connection.write_eof();
            assert_sleeps(&event_loop);
        }
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        if ours_first {
            until(&event_loop, "the end", || record.is_lost());
        } else {
            until(&event_loop, "the peer's end", || record.is_eof());
            assert_sleeps(&event_loop);
            drop(theirs);
            assert_sleeps(&event_loop);
            connection.write_eof();
            until(&event_loop, "the end", || record.is_lost());
        }
        assert_eq!(record.calls(), [Call::Made, Call::Eof, Call::Lost(None)]);
    }
}

#[test]
fn b75_the_end_follows_the_last_byte() {
    let record = Record::new();
    let (event_loop, connection, theirs) = stuck(&record, |_, _| {});
    let data = pattern(3 << 20);
    connection.write(&data);
    connection.write_eof();
    assert_eq!(connection.write(b"too late"), Flow::Closed);
    let received = RefCell::new((Vec::new(), false));
    until(&event_loop, "the end", || {
        let (bytes, end) = drain(&theirs).unwrap();
        let mut received = received.borrow_mut();
        received.0.extend(bytes);
        received.1 |= end;
        received.1
    });
    assert!(received.take().0 == data && !record.is_lost());
}

#[test]
fn b76_an_abort_frees_the_socket_in_the_next_turn_although_the_peer_is_stuck() {
    let record = Record::new();
    let (event_loop, connection, mut theirs) = stuck(&record, |moment, transport| {
        // Once more, in the middle of it.
        if matches!(moment, Moment::Pause | Moment::Lost(_)) {
            transport.abort();
        }
    });
    connection.set_write_buffer_limits(WriteBufferLimits { low: 0, high: 8 << 20 });
    connection.write(&pattern(4 << 20));
    settle(&event_loop);
    assert!(connection.get_write_buffer_size() > 0);
    connection.abort();
    event_loop.run_once(tulipa_selector::Timeout::Immediate).unwrap();
    record.assert_over();
    assert_eq!(event_loop.statistics().sources, 0);
    let (received, end) = drain(&mut theirs).unwrap();
    assert!(end && received.len() < 4 << 20);
}

#[test]
fn b77_a_close_while_reading_survives_that_writing_is_ready_too() {
    for abort in [false, true] {
        let record = Record::new();
        let (event_loop, connection, mut theirs) = stuck(&record, move |moment, transport| {
            if let Moment::Data(_) = moment {
                if abort { transport.abort() } else { transport.close() }
            }
        });
        connection.write(&pattern(1 << 20));
        settle(&event_loop);
        assert!(connection.get_write_buffer_size() > 0);
        // Both sides become ready before the loop looks.
        let received = Cell::new(drain(&theirs).unwrap().0.len());
        theirs.write_all(b"x").unwrap();
        until(&event_loop, "the end", || {
            received.set(received.get() + drain(&theirs).unwrap().0.len());
            record.is_lost()
        });
        record.assert_over();
        assert_eq!(record.error(), None);
        assert_eq!(received.get() == 1 << 20, !abort);
    }
}

#[test]
fn b83_writing_to_a_peer_that_is_gone_is_an_error_and_no_signal() {
    const CHILD: &str = "TULIPA_PROTOCOLS_SIGPIPE";
    if std::env::var_os(CHILD).is_none() {
        // In a process of its own, where the signal kills: the test harness ignores it.
        let mut child = std::process::Command::new("sh");
        child
            .arg("-c")
            .arg("trap - PIPE; exec \"$0\" \"$@\"")
            .arg(std::env::current_exe().unwrap());
        child.args(["--exact", "b83_writing_to_a_peer_that_is_gone_is_an_error_and_no_signal"]);
        let output = child.env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    for vectored in [false, true] {
        let event_loop = strict_loop();
        let (ours, theirs) = unix();
        let record = Record::new();
        let connection = connect(&event_loop, ours, record.protocol());
        connection.pause_reading();
        settle(&event_loop);
        drop(theirs);
        if vectored {
            connection.write_vectored(&[IoSlice::new(&[7; 20_000]), IoSlice::new(&[7; 20_000])]);
        } else {
            connection.write(b"x");
        }
        until(&event_loop, "the end", || record.is_lost());
        assert_eq!(record.error(), Some(ErrorKind::BrokenPipe));
    }
}

#[test]
fn b87_a_buffer_that_was_handed_out_is_not_overwritten_by_another_read() {
    let event_loop = strict_loop();
    let (one, mut one_peer) = unix();
    let (other, mut other_peer) = unix();
    let inner = connect(&event_loop, other, Record::new().reacting(|_, _| Ok(AfterEof::KeepOpen)));
    inner.pause_reading();
    let nested = inner.transport().clone();
    let (record, seen) = (Record::new(), Rc::new(Cell::new(0)));
    let checked = seen.clone();
    let _outer = connect(
        &event_loop,
        one,
        record.reacting(move |moment, transport| {
            if let Moment::Data(data) = moment {
                let before = data.to_vec();
                // Reading from others, and from itself, while `data` is lent.
                let _ = nested.try_read(&mut [0; 10]);
                let _ = transport.read_with(|more| more.len());
                nested.resume_reading();
                let _ = nested.read_with(|more| assert_ne!(more, data));
                assert_eq!(data, before);
                checked.set(checked.get() + 1);
            }
            Ok(AfterEof::KeepOpen)
        }),
    );
    one_peer.write_all(&[1; 1000]).unwrap();
    other_peer.write_all(&[2; 1000]).unwrap();
    until(&event_loop, "data", || seen.get() > 0);
}

#[test]
fn b74_the_peers_end_is_told_also_when_our_side_was_ended_before() {
    let event_loop = strict_loop();
    let (ours, theirs) = tcp();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    connection.write_eof();
    settle(&event_loop);
    drop(theirs);
    until(&event_loop, "the end", || record.is_lost());
    assert_eq!(record.calls(), [Call::Made, Call::Eof, Call::Lost(None)]);
}

#[test]
fn b67_empty_pieces_in_front_of_a_large_one_do_no_harm() {
    let mut connection = Detached::new(Record::new().protocol());
    let large = pattern(100_000);
    let mut pieces = vec![IoSlice::new(&[]); 200];
    pieces.push(IoSlice::new(&large));
    let flow = connection.transport().write_vectored(&pieces);
    assert_ne!(flow, Flow::Closed);
    assert!(connection.written() == large);
    let event_loop = strict_loop();
    let (ours, theirs) = unix();
    theirs.set_nonblocking(true).unwrap();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    connection.write_vectored(&pieces);
    let got = RefCell::new(Vec::new());
    until(&event_loop, "all bytes", || {
        got.borrow_mut().extend(drain(&theirs).unwrap().0);
        got.borrow().len() == large.len()
    });
    assert!(*got.borrow() == large && !record.is_lost());
}

#[test]
fn b68_writes_that_wait_for_a_handshake_in_the_middle_pause_the_protocol() {
    let record = Record::new();
    let mut connection = Detached::new(record.protocol());
    connection.transport().upgrade(ToyRecords::client(), &[]).unwrap();
    assert_eq!(connection.transport().write(&pattern(100_000)), Flow::Full);
    connection.run();
    assert_eq!(record.calls(), [Call::Made, Call::Pause]);
    connection.feed(&ToyRecords::record(1, &[9]));
    assert_eq!(record.calls(), [Call::Made, Call::Pause, Call::Resume]);
}

#[test]
fn b87_bytes_given_to_write_bytes_are_dropped_when_they_were_written() {
    let event_loop = strict_loop();
    let (ours, _theirs) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    settle(&event_loop);
    for size in [10, 2000, 20_000] {
        let flag = std::sync::Arc::new(());
        let weak = std::sync::Arc::downgrade(&flag);
        let bytes = Bytes::from_owner(Kept(vec![7; size], flag));
        connection.write_bytes(bytes);
        until(&event_loop, "the drop", || weak.strong_count() == 0);
    }
}

/// A buffer that tells of its drop.
struct Kept(Vec<u8>, #[expect(dead_code, reason = "its drop counts")] std::sync::Arc<()>);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[test]
fn b70_writing_is_resumed_at_the_low_limit_also_when_a_filter_holds_the_bytes() {
    let record = Record::new();
    let mut connection = Detached::filtered(record.protocol(), ToyRecords::client());
    connection.feed(&ToyRecords::record(1, &[9]));
    connection.written();
    connection.set_room(Some(0));
    connection.transport().set_write_buffer_limits(WriteBufferLimits { low: 50_000, high: 80_000 });
    connection.transport().write(&pattern(100_000));
    connection.run();
    assert_eq!(record.calls(), [Call::Made, Call::Pause]);
    connection.set_room(Some(60_000));
    assert_eq!(record.calls(), [Call::Made, Call::Pause, Call::Resume]);
}

#[test]
fn b74_closing_in_a_callback_while_more_input_comes_and_output_waits_does_not_spin() {
    let record = Record::new();
    let (event_loop, connection, theirs) = stuck(&record, |moment, transport| {
        if matches!(moment, Moment::Data(_)) {
            transport.close();
        }
    });
    connection.write(&pattern(4 << 20));
    settle(&event_loop);
    (&theirs).write_all(b"close").unwrap();
    settle(&event_loop);
    // It closes, its output waits for a peer that does not read, and this is not wanted any more.
    (&theirs).write_all(b"more").unwrap();
    assert_sleeps(&event_loop);
    assert!(!record.is_lost());
}

#[test]
fn an_error_that_a_socket_tells_once_is_told_by_a_connection_at_rest_too() {
    for writes in [false, true] {
        let event_loop = strict_loop();
        let (ours, mut theirs) = tcp();
        let record = Record::new();
        let connection = connect(&event_loop, ours, record.protocol());
        theirs.write_all(b"x").unwrap();
        until(&event_loop, "a byte", || record.count() == 1);
        settle(&event_loop);
        reset(theirs);
        if writes {
            connection.write(b"y");
        }
        until(&event_loop, "the end", || record.is_lost());
        assert_eq!(record.error(), Some(ErrorKind::ConnectionReset), "writes: {writes}");
    }
}

#[test]
fn a_future_that_waited_before_takes_no_other_ones_place() {
    let record = Record::new();
    let (event_loop, connection, theirs) = stuck(&record, |_, _| ());
    let drain_all = || {
        until(&event_loop, "room", || {
            drain(&theirs).unwrap();
            connection.get_write_buffer_size() == 0
        });
        settle(&event_loop);
    };
    connection.write(&pattern(4 << 20));
    let mut first = Box::pin(connection.drained());
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drain_all();
    connection.write(&pattern(4 << 20));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut second = Box::pin(connection.drained());
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(first);
    drain_all();
    assert!(woken.0.load(Ordering::Relaxed));
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
}

/// Whether it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
