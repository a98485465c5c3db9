//! What transports promise beyond the catalogue of known bugs.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use common::{
    assert_sleeps, connect, descriptors, pattern, reset, settle, strict_loop, tcp, unix, until,
};
use tulipa_protocols::{
    AfterEof, Buffered, BufferedProtocol, Detached, Filtered, Protocol, SocketLink, Transport,
    WriteBufferLimits, attach,
};
use tulipa_testing::{Call, Moment, Record, ToyRecords};

#[test]
fn after_a_reset_while_reading_is_paused_the_data_come_first_and_then_the_error() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = tcp();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    connection.pause_reading();
    settle(&event_loop);
    theirs.write_all(&pattern(50_000)).unwrap();
    reset(theirs);
    // P5: nothing is watched, so nothing is told again and again.
    assert_sleeps(&event_loop);
    assert_eq!(record.calls(), [Call::Made]);
    connection.resume_reading();
    until(&event_loop, "the end", || record.is_lost());
    assert!(record.bytes() == pattern(50_000));
    assert_eq!(record.error(), Some(ErrorKind::ConnectionReset));
}

/// A protocol that has room for a few bytes at a time.
struct Small {
    buffer: [u8; 16],
    got: Rc<RefCell<Vec<u8>>>,
    lost: Rc<Cell<Option<Option<ErrorKind>>>>,
}

impl BufferedProtocol for Small {
    fn get_buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn buffer_updated(&mut self, _: &Transport, count: usize) -> io::Result<()> {
        self.got.borrow_mut().extend_from_slice(&self.buffer[..count]);
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        self.lost.set(Some(error.map(|error| error.kind())));
    }
}

#[test]
fn what_came_before_writing_failed_is_delivered_whole_however_small_the_buffer() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let (got, lost) = (Rc::default(), Rc::default());
    let small = Small { buffer: [0; 16], got: Rc::clone(&got), lost: Rc::clone(&lost) };
    let connection = connect(&event_loop, ours, Buffered(small));
    theirs.write_all(&pattern(5000)).unwrap();
    drop(theirs);
    connection.write(b"nobody reads this");
    until(&event_loop, "the end", || lost.get().is_some());
    assert_eq!(lost.get(), Some(Some(ErrorKind::BrokenPipe)));
    assert!(*got.borrow() == pattern(5000), "{} bytes", got.borrow().len());
}

#[test]
fn a_timeout_set_while_data_is_received_fires() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let record = Record::new();
    let _connection = connect(
        &event_loop,
        ours,
        record.reacting(|moment, transport| {
            if let Moment::Data(_) = moment {
                transport.set_timeout(Some(Duration::from_millis(5)));
            }
            Ok(AfterEof::Close)
        }),
    );
    settle(&event_loop);
    theirs.write_all(b"x").unwrap();
    until(&event_loop, "the timeout", || record.has(Call::TimedOut));
}

#[test]
fn a_timeout_made_shorter_while_data_is_received_fires_in_time() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let record = Record::new();
    let connection = connect(
        &event_loop,
        ours,
        record.reacting(|moment, transport| {
            if let Moment::Data(_) = moment {
                transport.set_timeout(Some(Duration::from_millis(5)));
            }
            Ok(AfterEof::Close)
        }),
    );
    connection.set_timeout(Some(Duration::from_secs(3600)));
    settle(&event_loop);
    theirs.write_all(b"x").unwrap();
    until(&event_loop, "the timeout", || record.has(Call::TimedOut));
}

#[test]
fn a_timeout_during_the_handshake_ends_the_connection_and_tells_nothing_before_it_is_made() {
    let event_loop = strict_loop();
    let (ours, _theirs) = unix();
    let record = Record::new();
    let link = Filtered::new(SocketLink::adopt(ours).unwrap(), ToyRecords::client());
    let connection = attach(&event_loop.handle(), link, record.protocol()).unwrap();
    connection.set_timeout(Some(Duration::from_millis(5)));
    until(&event_loop, "the end", || record.is_lost());
    record.assert_order();
    assert_eq!(record.calls(), [Call::Lost(Some(ErrorKind::TimedOut))]);
}

#[test]
fn what_was_left_over_at_the_end_of_the_input_goes_to_the_next_protocol() {
    let (first, second) = (Record::new(), Record::new());
    let next = second.clone();
    let mut connection = Detached::new(first.reacting(move |moment, transport| {
        if let Moment::Eof = moment {
            transport.set_protocol(next.protocol(), b"the rest");
        }
        Ok(AfterEof::KeepOpen)
    }));
    connection.feed(b"some");
    connection.feed_eof();
    assert_eq!(first.calls(), [Call::Made, Call::Data(4), Call::Eof]);
    assert_eq!(second.bytes(), b"the rest");
    assert!(!connection.is_over());
}

#[test]
fn a_goodbye_that_comes_with_the_last_record_is_told_while_the_peer_keeps_its_socket_open() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let record = Record::new();
    let link = Filtered::new(SocketLink::adopt(ours).unwrap(), ToyRecords::server());
    attach(&event_loop.handle(), link, record.protocol()).unwrap();
    theirs.write_all(&ToyRecords::record(0, &[0])).unwrap();
    until(&event_loop, "the handshake", || record.is_made());
    let last = [ToyRecords::record(2, b"last"), ToyRecords::record(5, &[])].concat();
    theirs.write_all(&last).unwrap();
    until(&event_loop, "the end", || record.is_lost());
    assert_eq!(record.calls(), [Call::Made, Call::Data(4), Call::Eof, Call::Lost(None)]);
}

#[test]
fn a_goodbye_that_comes_with_the_handshake_is_told() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let record = Record::new();
    let link = Filtered::new(SocketLink::adopt(ours).unwrap(), ToyRecords::server());
    attach(&event_loop.handle(), link, record.protocol()).unwrap();
    theirs.write_all(&[ToyRecords::record(0, &[0]), ToyRecords::record(5, &[])].concat()).unwrap();
    until(&event_loop, "the end", || record.is_lost());
    assert_eq!(record.calls(), [Call::Made, Call::Eof, Call::Lost(None)]);
}

#[test]
fn data_behind_a_filter_is_delivered_although_the_answer_to_it_cannot_be_sent() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let record = Record::new();
    let link = Filtered::new(SocketLink::adopt(ours).unwrap(), ToyRecords::server());
    attach(&event_loop.handle(), link, record.protocol()).unwrap();
    theirs.write_all(&ToyRecords::record(0, &[0])).unwrap();
    until(&event_loop, "the handshake", || record.is_made());
    let last = [ToyRecords::record(3, &[0]), ToyRecords::record(2, b"last")].concat();
    theirs.write_all(&last).unwrap();
    drop(theirs);
    until(&event_loop, "the end", || record.is_lost());
    assert_eq!(record.bytes(), b"last");
    record.assert_over();
}

#[test]
fn a_protocol_that_does_not_read_is_at_rest() {
    struct Puller;
    impl Protocol for Puller {
        fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
            unreachable!("it is pulled from")
        }

        fn readable(&mut self, _: &Transport) -> io::Result<()> {
            Ok(())
        }
    }
    let mut connection = Detached::new(Puller);
    connection.feed(b"later");
    let mut buffer = [0; 10];
    assert_eq!(connection.transport().try_read(&mut buffer).unwrap(), 5);
}

#[test]
fn data_come_in_pieces_of_at_most_256_kib_and_are_never_empty() {
    let (record, largest) = (Record::new(), Rc::new(Cell::new(0)));
    let seen = largest.clone();
    let mut connection = Detached::new(record.reacting(move |moment, _| {
        if let Moment::Data(data) = moment {
            seen.set(seen.get().max(data.len()));
        }
        Ok(AfterEof::Close)
    }));
    connection.feed(b"");
    connection.feed(&pattern(1 << 20));
    assert_eq!(largest.get(), 256 * 1024);
    assert!(record.bytes() == pattern(1 << 20));
    record.assert_order();
}

/// Needs nothing but `data_received`.
struct Least;

impl Protocol for Least {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        transport.write(data);
        Ok(())
    }
}

#[test]
fn every_method_but_data_received_has_a_default_and_boxes_are_protocols() {
    let boxed: Box<dyn Protocol> = Box::new(Least);
    let mut connection = Detached::new(boxed);
    connection.transport().set_write_buffer_limits(WriteBufferLimits { low: 0, high: 0 });
    connection.set_room(Some(0));
    connection.feed(b"paused and resumed");
    connection.set_room(None);
    assert_eq!(connection.written(), b"paused and resumed");
    connection.feed_eof();
    assert!(connection.is_over());
    let mut connection = Detached::new(Least);
    connection.transport().set_timeout(Some(Duration::from_secs(1)));
    connection.advance(Duration::from_secs(1));
    assert!(connection.is_over(), "a timeout that nobody handles is an error");
}

/// A protocol whose buffer may be empty.
struct Roomy(Vec<u8>, Record);

impl BufferedProtocol for Roomy {
    fn get_buffer(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn buffer_updated(&mut self, transport: &Transport, count: usize) -> io::Result<()> {
        let mut recorder = self.1.protocol();
        recorder.data_received(transport, &self.0[..count])
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        self.1.protocol().connection_lost(transport, error);
    }
}

#[test]
fn a_buffered_protocol_gets_what_fits_and_an_empty_buffer_is_an_error() {
    let told = Record::after_made();
    let mut connection = Detached::new(Buffered(Roomy(vec![0; 10], told.clone())));
    connection.feed(&pattern(105));
    assert_eq!(told.bytes(), pattern(105));
    let told = Record::after_made();
    let mut connection = Detached::new(Buffered(Roomy(Vec::new(), told.clone())));
    connection.feed(b"x");
    assert!(connection.is_over());
    assert_eq!(told.calls(), [Call::Lost(Some(ErrorKind::InvalidInput))]);
}

#[test]
fn a_buffered_protocol_takes_over_with_what_was_left_over_and_hands_on() {
    let told = Record::after_made();
    let first = Record::new();
    let next = told.clone();
    let mut connection = Detached::new(first.reacting(move |moment, transport| {
        if let Moment::Data(data) = moment {
            transport.set_protocol(Buffered(Roomy(vec![0; 4], next.clone())), &data[3..]);
        }
        Ok(AfterEof::Close)
    }));
    connection.feed(b"abcdefghijkl");
    connection.feed(b"mno");
    assert_eq!(told.bytes(), b"defghijklmno");
    let last = Record::after_made();
    connection.transport().set_protocol(last.protocol(), b"");
    connection.feed(b"pqr");
    assert_eq!(last.bytes(), b"pqr");
}

#[test]
fn a_reset_makes_the_peer_see_a_reset_and_an_abort_an_end() {
    for is_reset in [true, false] {
        let event_loop = strict_loop();
        let (ours, mut theirs) = tcp();
        let record = Record::new();
        let connection = connect(&event_loop, ours, record.protocol());
        if is_reset {
            connection.reset()
        } else {
            connection.abort()
        }
        until(&event_loop, "the end", || record.is_lost());
        let seen = theirs.read(&mut [0; 8]).map_err(|error| error.kind());
        let expected = if is_reset { Err(ErrorKind::ConnectionReset) } else { Ok(0) };
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_dropped_connection_lives_on_and_a_dropped_loop_ends_it() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let record = Record::new();
    drop(connect(&event_loop, ours, record.protocol()));
    theirs.write_all(b"still there").unwrap();
    until(&event_loop, "data", || record.count() == 11);
    drop(event_loop);
    record.assert_over();
    assert_eq!(record.error(), Some(ErrorKind::ConnectionAborted));
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn an_error_of_a_callback_is_delivered_and_not_reported_and_a_panic_is_both() {
    for panics in [false, true] {
        let event_loop = strict_loop();
        let (ours, mut theirs) = unix();
        let record = Record::new();
        let _connection = connect(
            &event_loop,
            ours,
            record.reacting(move |moment, _| match moment {
                Moment::Data(_) if panics => std::panic::resume_unwind(Box::new("a mistake")),
                Moment::Data(_) => Err(io::Error::new(ErrorKind::InvalidData, "a mistake")),
                _ => Ok(AfterEof::Close),
            }),
        );
        theirs.write_all(b"x").unwrap();
        until(&event_loop, "the end", || record.is_lost());
        let reports = event_loop.take_reports();
        if panics {
            let [report] = &reports[..] else { panic!("{reports:?}") };
            assert!(report.contains("data_received") && report.contains("a mistake"), "{report}");
        } else {
            assert_eq!(reports, [""; 0]);
            assert_eq!(record.error(), Some(ErrorKind::InvalidData));
        }
    }
}

#[test]
fn p5_input_that_comes_while_a_connection_closes_does_not_spin() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let record = Record::new();
    let closing = record.reacting(|moment, transport| {
        if let Moment::Data(_) = moment {
            transport.close();
        }
        Ok(AfterEof::Close)
    });
    let connection = connect(&event_loop, ours, closing);
    connection.write(&pattern(4 << 20));
    assert_sleeps(&event_loop);
    theirs.write_all(b"close").unwrap();
    until(&event_loop, "it closes", || connection.is_closing());
    theirs.write_all(b"nobody reads this").unwrap();
    assert_sleeps(&event_loop);
    assert!(!record.is_lost());
    // And the end of the input, which can be read for ever.
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    assert_sleeps(&event_loop);
}

#[test]
fn p10_connections_leave_no_descriptor_and_no_thread_behind() {
    const CHILD: &str = "TULIPA_PROTOCOLS_ALONE";
    if std::env::var_os(CHILD).is_none() {
        // Where no other test opens anything.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "p10_connections_leave_no_descriptor_and_no_thread_behind"]);
        let output = child.env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let before = (descriptors(), threads());
    for round in 0..8 {
        let event_loop = strict_loop();
        let (ours, theirs) = tcp();
        let mut theirs = Some(theirs);
        let record = Record::new();
        let connection = connect(&event_loop, ours, record.reacting(|_, _| Ok(AfterEof::KeepOpen)));
        // Transports that outlive the loop keep no socket.
        let transport = connection.transport().clone();
        match round {
            0 => connection.close(),
            1 => connection.abort(),
            2 => connection.reset(),
            3 => theirs.take().into_iter().for_each(reset),
            4 => drop(theirs.take()),
            5 => connection.upgrade(ToyRecords::client(), &[]).unwrap(),
            6 => {}
            _ => {
                connection.write(&pattern(16 << 20));
            }
        }
        drop(connection);
        settle(&event_loop);
        drop(event_loop);
        drop(theirs);
        record.assert_over();
        assert!(transport.with_fd(|_| ()).is_err());
        assert_eq!((descriptors(), threads()), before, "round {round}");
    }
}

#[test]
fn p5_idle_connections_in_every_fault_state_do_not_spin() {
    let event_loop = strict_loop();
    let keep = |_: Moment<'_>, _: &Transport| Ok(AfterEof::KeepOpen);
    let records: Vec<_> = (0..5).map(|_| Record::new()).collect();
    let mut kept = Vec::new();
    let mut peers = Vec::new();
    for (n, record) in records.iter().enumerate() {
        let (ours, mut theirs) = tcp();
        let connection = connect(&event_loop, ours, record.reacting(keep));
        theirs.set_nonblocking(true).unwrap();
        match n {
            0 => {
                connection.pause_reading();
                settle(&event_loop);
                reset(theirs);
            }
            1 => {
                theirs.shutdown(std::net::Shutdown::Write).unwrap();
                peers.push(theirs);
            }
            2 => {
                connection.write(&pattern(16 << 20));
                peers.push(theirs);
            }
            3 => {
                connection.pause_reading();
                settle(&event_loop);
                common::fill(&mut theirs, &pattern(1 << 20));
                peers.push(theirs);
            }
            _ => {
                connection.write(&pattern(16 << 20));
                connection.close();
                peers.push(theirs);
            }
        }
        kept.push(connection);
    }
    assert_sleeps(&event_loop);
    assert!(records.iter().all(|record| !record.is_lost()));
}
