//! `sendfile` on a transport: native and fallback, and what happens meanwhile. One file: its tests run over the same
//! kinds of connections, which are made at its top.
#![forbid(unsafe_code)]
#![cfg(unix)]

mod common;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use common::{connect, pattern, settle, shrink, strict_loop, tcp, unix, until};
use tulipa_loop::EventLoop;
use tulipa_protocols::{
    Connection, Filter, FilterState, Filtered, Flow, SendFileError, SocketLink, Throttle,
    TrafficLog, Transport, attach, connect_write_pipe,
};
use tulipa_testing::{Record, Recorder, ToyRecords};

/// A file that nobody else sees.
fn file_of(data: &[u8]) -> File {
    thread_local!(static NEXT: Cell<u32> = const { Cell::new(0) });
    let number = NEXT.replace(NEXT.get() + 1);
    let thread = format!("{:?}", std::thread::current().id());
    let name = format!("tulipa-sendfile-{}-{number}-{thread}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(data).unwrap();
    file
}

/// Reads all that comes, in a thread.
fn reads(mut peer: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// What is said when a file was cut off: how much was sent, and why no more.
#[track_caller]
fn cut_off(result: std::io::Result<u64>) -> (u64, ErrorKind) {
    let error = result.unwrap_err();
    let kind = error.kind();
    let inner = error.into_inner().unwrap().downcast::<SendFileError>().unwrap();
    assert_eq!(inner.error.kind(), kind);
    (inner.sent, kind)
}

/// A transport of each kind over which files go, by its name, and where the bytes come out.
fn each_kind(event_loop: &EventLoop) -> Vec<(&'static str, Record, Connection<Recorder>, Far)> {
    let mut all = Vec::new();
    let record = Record::new();
    let (near, far) = tcp();
    all.push(("tcp", record.clone(), connect(event_loop, near, record.protocol()), Far::Tcp(far)));
    let record = Record::new();
    let (near, far) = unix();
    shrink(&near);
    let connection = connect(event_loop, near, record.protocol());
    all.push(("unix", record, connection, Far::Unix(far)));
    let record = Record::new();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let connection = connect_write_pipe(writer, || record.protocol());
    let connection = event_loop.run_until_complete(connection).unwrap().unwrap();
    all.push(("pipe", record, connection, Far::Pipe(reader.into())));
    let record = Record::new();
    let (near, far) = unix();
    let connection = connect_write_pipe(near, || record.protocol());
    let connection = event_loop.run_until_complete(connection).unwrap().unwrap();
    all.push(("a socket as a pipe", record, connection, Far::Unix(far)));
    all
}

/// A filter that changes nothing.
#[derive(Default)]
struct Plain {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Filter for Plain {
    fn state(&self) -> FilterState {
        FilterState::Open
    }

    fn receive(&mut self, data: &[u8]) -> std::io::Result<()> {
        self.incoming.extend_from_slice(data);
        Ok(())
    }

    fn receive_eof(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = (&self.incoming[..]).read(buffer)?;
        self.incoming.drain(..count);
        if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.outgoing.extend_from_slice(data);
        Ok(data.len())
    }

    fn transmit(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.outgoing);
    }

    fn has_plaintext(&self) -> bool {
        !self.incoming.is_empty()
    }

    fn close(&mut self) {}
}

enum Far {
    Tcp(TcpStream),
    Unix(UnixStream),
    Pipe(File),
}

impl Read for Far {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Far::Tcp(far) => far.read(buffer),
            Far::Unix(far) => far.read(buffer),
            Far::Pipe(far) => far.read(buffer),
        }
    }
}

#[test]
fn b85_a_file_is_sent_between_what_was_written_before_and_what_is_written_meanwhile() {
    let event_loop = strict_loop();
    let data = pattern(3_000_000);
    for (name, record, connection, far) in each_kind(&event_loop) {
        let received = reads(far);
        let mut file = file_of(&data);
        let transport = connection.transport().clone();
        transport.write(&vec![1; 200_000]);
        let behind = async {
            transport.write(b"behind ");
            transport.write_bytes(vec![2; 100_000].into());
            transport.close();
        };
        let both = futures_lite::future::zip(transport.sendfile(&file, ..), behind);
        let sent = event_loop.run_until_complete(both).unwrap().0.unwrap();
        assert_eq!(sent, 3_000_000, "{name}");
        assert_eq!(file.stream_position().unwrap(), 3_000_000, "{name}");
        until(&event_loop, "it is over", || record.is_lost());
        assert_eq!(record.error(), None);
        let received = received.join().unwrap();
        let expected = [&vec![1; 200_000][..], &data, b"behind ", &vec![2; 100_000]].concat();
        assert!(received == expected, "{name}: {} bytes", received.len());
        settle(&event_loop);
        record.assert_over();
    }
}

#[test]
fn b85_ranges_are_kept_to_the_byte() {
    let event_loop = strict_loop();
    let data = pattern(100_000);
    let mut file = file_of(&data);
    for (name, record, connection, far) in each_kind(&event_loop) {
        let received = reads(far);
        let transport = connection.transport().clone();
        let sent = event_loop.run_until_complete(async {
            // Wherever the file itself is.
            file.seek(std::io::SeekFrom::Start(77)).unwrap();
            let mut sent = Vec::new();
            sent.push(transport.sendfile(&file, ..).await.unwrap());
            sent.push(transport.sendfile(&file, 0..1).await.unwrap());
            assert_eq!(file.stream_position().unwrap(), 1);
            sent.push(transport.sendfile(&file, 5..5).await.unwrap());
            sent.push(transport.sendfile(&file, 99_999..=99_999).await.unwrap());
            sent.push(transport.sendfile(&file, 99_000..u64::MAX).await.unwrap());
            sent.push(transport.sendfile(&file, 100_000..).await.unwrap());
            sent.push(transport.sendfile(&file, u64::MAX..).await.unwrap());
            transport.close();
            sent
        });
        assert_eq!(sent.unwrap(), [100_000, 1, 0, 1, 1000, 0, 0], "{name}");
        until(&event_loop, "it is over", || record.is_lost());
        let parts = [&data[..], &data[..1], &data[99_999..], &data[99_000..]];
        assert!(received.join().unwrap() == parts.concat(), "{name}");
    }
    let (near, _far) = unix();
    let connection = connect(&event_loop, near, Record::new().protocol());
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
    let refused = event_loop.run_until_complete(connection.sendfile(&file, 7..3)).unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn b85_a_file_that_is_cut_off_or_grows_meanwhile_is_sent_as_it_is_then() {
    let event_loop = strict_loop();
    for grows in [false, true] {
        let data = pattern(4_000_000);
        let file = file_of(&data);
        let (near, mut far) = unix();
        shrink(&near);
        let record = Record::new();
        let connection = connect(&event_loop, near, record.protocol());
        let result = Rc::new(Cell::new(None));
        let (transport, kept) = (connection.transport().clone(), result.clone());
        let changed = file.try_clone().unwrap();
        let _ = event_loop.create_task(async move {
            kept.set(Some(transport.sendfile(&file, ..).await));
            transport.close();
        });
        settle(&event_loop);
        let size = if grows { 4_500_000 } else { 1_000_000 };
        changed.set_len(size).unwrap();
        let received = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).unwrap();
            bytes
        });
        until(&event_loop, "it is over", || record.is_lost());
        let sent = result.take().unwrap().unwrap();
        assert_eq!(sent, size);
        let received = received.join().unwrap();
        assert_eq!(received.len() as u64, size);
        assert!(received.iter().zip(&data).all(|(one, other)| one == other));
    }
}

#[test]
fn a_file_goes_through_a_filter_by_the_executor() {
    let event_loop = strict_loop();
    let data = pattern(2_000_000);
    let file = file_of(&data);
    let (near, far) = unix();
    let (handle, near_record, far_record) = (event_loop.handle(), Record::new(), Record::new());
    let client = Filtered::new(SocketLink::adopt(near).unwrap(), ToyRecords::client());
    let server = Filtered::new(SocketLink::adopt(far).unwrap(), ToyRecords::server());
    let near = attach(&handle, client, near_record.protocol()).unwrap();
    let _far = attach(&handle, server, far_record.protocol()).unwrap();
    let transport = near.transport().clone();
    // Before it is open.
    transport.write(b"before ");
    let sent = event_loop.run_until_complete(async {
        let sent = transport.sendfile(&file, 1000..).await;
        transport.write(b" behind");
        transport.close();
        sent
    });
    assert_eq!(sent.unwrap().unwrap(), 1_999_000);
    until(&event_loop, "both are over", || near_record.is_lost() && far_record.is_lost());
    let expected = [&b"before "[..], &data[1000..], b" behind"].concat();
    assert!(far_record.bytes() == expected);
    settle(&event_loop);
    near_record.assert_over();
    far_record.assert_over();
}

#[test]
fn what_the_operating_system_cannot_send_by_itself_is_read_and_what_cannot_be_read_is_an_error() {
    let event_loop = strict_loop();
    let (near, mut far) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, near, record.protocol());
    let transport = connection.transport().clone();
    // A pipe has no places, and a directory no bytes.
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let written = File::options().write(true).open("/dev/null").unwrap();
    event_loop
        .run_until_complete(async {
            for file in [File::from(reader), File::open("/").unwrap(), written] {
                let error = transport.sendfile(&file, ..).await.unwrap_err();
                assert!(error.to_string().contains("cannot read the file"), "{error}");
            }
            // The connection goes on.
            transport.write(b"well");
            #[cfg(target_os = "linux")]
            {
                let status = File::open("/proc/self/status").unwrap();
                assert!(transport.sendfile(&status, ..).await.unwrap() > 100);
            }
            transport.close();
        })
        .unwrap();
    until(&event_loop, "it is over", || record.is_lost());
    assert_eq!(record.error(), None);
    let mut text = String::new();
    far.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("well"), "{text}");
}

#[test]
fn b85_a_peer_that_goes_is_an_error_that_says_how_much_was_sent() {
    for filtered in [false, true] {
        let event_loop = strict_loop();
        let mut file = file_of(&pattern(8_000_000));
        let (near, far) = unix();
        shrink(&near);
        let record = Record::new();
        let connection = if filtered {
            let handle = event_loop.handle();
            let link = Filtered::new(SocketLink::adopt(near).unwrap(), Plain::default());
            attach(&handle, link, record.protocol()).unwrap()
        } else {
            connect(&event_loop, near, record.protocol())
        };
        let result = Rc::new(Cell::new(None));
        let (transport, kept) = (connection.transport().clone(), result.clone());
        let sent_file = file.try_clone().unwrap();
        let _ = event_loop.create_task(async move {
            kept.set(Some(transport.sendfile(&sent_file, 1000..).await));
        });
        settle(&event_loop);
        drop(far);
        until(&event_loop, "it is over", || record.is_lost());
        settle(&event_loop);
        let (sent, kind) = cut_off(result.take().unwrap());
        assert_eq!(kind, record.error().unwrap(), "{record:?}");
        assert!(sent > 0 && sent < 7_999_000, "{sent}");
        assert_eq!(file.stream_position().unwrap(), 1000 + sent, "its place tells it too");
        record.assert_over();
    }
}

#[test]
fn an_abort_ends_it_and_a_close_waits_for_it() {
    let event_loop = strict_loop();
    let data = pattern(5_000_000);
    let file = Rc::new(file_of(&data));
    let begin = |connection: &Connection<Recorder>| {
        let result = Rc::new(Cell::new(None));
        let (transport, kept, file) =
            (connection.transport().clone(), result.clone(), file.clone());
        let _ = event_loop.create_task(async move {
            kept.set(Some(transport.sendfile(&*file, ..).await));
        });
        settle(&event_loop);
        result
    };
    let (near, _far) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, near, record.protocol());
    let result = begin(&connection);
    connection.abort();
    settle(&event_loop);
    let (sent, kind) = cut_off(result.take().unwrap());
    assert!(sent < 5_000_000 && kind == ErrorKind::NotConnected);
    record.assert_over();

    for eof in [false, true] {
        let (near, far) = unix();
        let record = Record::new();
        let connection = connect(&event_loop, near, record.protocol());
        let result = begin(&connection);
        if eof {
            connection.write_eof();
        } else {
            connection.close();
        }
        connection.close();
        settle(&event_loop);
        assert!(!record.is_lost());
        let received = reads(far);
        until(&event_loop, "it is over", || record.is_lost());
        assert_eq!(result.take().unwrap().unwrap(), 5_000_000);
        assert_eq!(record.error(), None);
        assert!(received.join().unwrap() == data);
    }
}

#[test]
fn what_is_written_meanwhile_counts_for_the_flow_and_a_second_file_and_a_filter_are_refused() {
    let event_loop = strict_loop();
    let file = Rc::new(file_of(&pattern(2_000_000)));
    let (near, far) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, near, record.protocol());
    let transport = connection.transport().clone();
    let (sends, sent) = (transport.clone(), Rc::new(Cell::new(0)));
    let (kept, first) = (sent.clone(), file.clone());
    let _ = event_loop.create_task(async move {
        kept.set(sends.sendfile(&*first, ..).await.unwrap());
    });
    settle(&event_loop);
    assert_eq!(transport.write(&vec![1; 1000]), Flow::Ready);
    assert_eq!(transport.get_write_buffer_size(), 1000);
    assert_eq!(transport.write(&vec![1; 100_000]), Flow::Full);
    settle(&event_loop);
    assert!(record.is_paused());
    let second = event_loop.run_until_complete(transport.sendfile(&*file, ..)).unwrap();
    assert_eq!(second.unwrap_err().kind(), ErrorKind::ResourceBusy);
    let error = transport.upgrade(ToyRecords::client(), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    let received = reads(far);
    let flushed = transport.clone();
    event_loop.run_until_complete(async move { flushed.flushed().await }).unwrap();
    assert_eq!(sent.get(), 2_000_000, "the file comes first");
    until(&event_loop, "it is resumed", || !record.is_paused());
    transport.close();
    until(&event_loop, "it is over", || record.is_lost());
    assert_eq!(received.join().unwrap().len(), 2_101_000);
    let closed = event_loop.run_until_complete(transport.sendfile(&*file, ..)).unwrap();
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::NotConnected);
    record.assert_over();
}

#[test]
fn a_sendfile_that_is_dropped_at_any_poll_lets_follow_what_was_written() {
    let event_loop = strict_loop();
    let data = pattern(600_000);
    for times in 0..12 {
        for filtered in [false, true] {
            let file = file_of(&data);
            let (near, far) = unix();
            shrink(&near);
            let record = Record::new();
            let connection = if filtered {
                let link = Filtered::new(SocketLink::adopt(near).unwrap(), Plain::default());
                attach(&event_loop.handle(), link, record.protocol()).unwrap()
            } else {
                connect(&event_loop, near, record.protocol())
            };
            let transport = connection.transport().clone();
            let received = reads(far);
            let polled = Rc::new(Cell::new(0));
            let counted = polled.clone();
            event_loop
                .run_until_complete(async {
                    let mut future = pin!(transport.sendfile(&file, ..));
                    std::future::poll_fn(|context| {
                        if counted.get() == times {
                            return Poll::Ready(());
                        }
                        counted.set(counted.get() + 1);
                        future.as_mut().poll(context).map(drop)
                    })
                    .await;
                })
                .unwrap();
            let place = (&file).stream_position().unwrap();
            transport.write(b"behind");
            transport.close();
            until(&event_loop, "it is over", || record.is_lost());
            assert_eq!(record.error(), None);
            let received = received.join().unwrap();
            if !filtered {
                // Before the first poll the file's own place is where it was.
                let place = if times == 0 { 0 } else { usize::try_from(place).unwrap() };
                assert!(received == [&data[..place], b"behind"].concat(), "{times}: {place}");
            }
            settle(&event_loop);
            record.assert_over();
        }
    }
}

#[test]
fn a_large_file_lets_other_connections_live() {
    let event_loop = strict_loop();
    let file = file_of(&pattern(16_000_000));
    let (near, far) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, near, record.protocol());
    let received = reads(far);
    let (other, peer) = unix();
    let log = Rc::new(RefCell::new(Vec::new()));
    let kept = log.clone();
    let echo = Record::new();
    let echoed = echo.reacting(move |moment, transport: &Transport| {
        if let tulipa_testing::Moment::Data(data) = moment {
            transport.write(data);
            kept.borrow_mut().push(data.len());
        }
        Ok(tulipa_protocols::AfterEof::Close)
    });
    let _other = connect(&event_loop, other, echoed);
    let transport = connection.transport().clone();
    let turns = Rc::new(Cell::new(0));
    let (counted, done) = (turns.clone(), Rc::new(Cell::new(false)));
    let over = done.clone();
    let _ = event_loop.create_task(async move {
        transport.sendfile(&file, ..).await.unwrap();
        over.set(true);
        transport.close();
    });
    peer.set_nonblocking(true).unwrap();
    until(&event_loop, "the file is sent", || {
        counted.set(counted.get() + 1);
        let _ = (&peer).write(b"x");
        let _ = (&peer).read(&mut [0; 64]);
        done.get()
    });
    assert!(turns.get() >= 15, "{} turns", turns.get());
    assert!(log.borrow().len() >= 8, "{} messages", log.borrow().len());
    until(&event_loop, "it is over", || record.is_lost());
    assert_eq!(received.join().unwrap().len(), 16_000_000);
}

#[test]
fn a_transport_without_a_loop_sends_nothing_by_itself() {
    let (transport, _probe) = Transport::detached();
    let file = file_of(b"x");
    let mut future = pin!(transport.sendfile(&file, 0..0));
    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(0))));
}

#[test]
fn a_throttled_connection_sends_a_file_at_its_pace_and_does_not_spin() {
    let data = pattern(300_000);
    let file = file_of(&data);
    for logged in [false, true] {
        let event_loop = strict_loop();
        let (near, far) = unix();
        let record = Record::new();
        let throttled = Throttle::new(record.protocol()).write_limit(2_000_000).burst(20_000);
        // Who logs the bytes has to see them: they are read then.
        let handle = event_loop.handle();
        let transport = if logged {
            connect(&event_loop, near, TrafficLog::new(throttled, "a file")).transport().clone()
        } else {
            connect(&event_loop, near, throttled).transport().clone()
        };
        let received = reads(far);
        let before = event_loop.statistics();
        let began = handle.time();
        let sent = event_loop.run_until_complete(async {
            let sent = transport.sendfile(&file, ..).await;
            transport.close();
            sent
        });
        assert_eq!(sent.unwrap().unwrap(), 300_000);
        until(&event_loop, "it is over", || record.is_lost());
        // All but what may come at once takes its time.
        assert!(handle.time() - began >= std::time::Duration::from_millis(135));
        let turns = event_loop.statistics().turns - before.turns;
        assert!(turns < 3000, "{turns} turns");
        assert!(received.join().unwrap() == data);
    }
}

#[test]
fn a_loop_that_closes_in_the_middle_of_a_file_ends_all_of_it() {
    let event_loop = strict_loop();
    let file = file_of(&pattern(5_000_000));
    let (near, _far) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, near, record.protocol());
    let transport = connection.transport().clone();
    let (sends, over) = (transport.clone(), Rc::new(Cell::new(false)));
    struct Note(Rc<Cell<bool>>);
    impl Drop for Note {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let note = Note(over.clone());
    let task = event_loop.create_task(async move {
        let _note = note;
        let _cut_off = sends.sendfile(&file, ..).await;
    });
    settle(&event_loop);
    transport.write(b"behind");
    drop(task);
    event_loop.close().unwrap();
    let reports = event_loop.take_reports();
    assert!(reports.len() == 1 && reports[0].contains("pending"), "{reports:?}");
    assert!(over.get());
    assert_eq!(record.error(), Some(ErrorKind::ConnectionAborted));
    record.assert_over();
    assert_eq!(transport.write(b"more"), Flow::Closed);
    assert_eq!(transport.get_write_buffer_size(), 0);
}

#[test]
fn b85_writes_and_files_from_many_tasks_arrive_in_the_order_of_their_calls() {
    let data = Rc::new(pattern(700_000));
    for seed in 0..24u64 {
        let event_loop = strict_loop();
        let file = Rc::new(file_of(&data));
        let random = Rc::new(Cell::new(seed));
        let below = move |limit: usize| {
            random.set(random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99));
            (random.get() >> 33) as usize % limit
        };
        let (near, far) = unix();
        shrink(&near);
        let record = Record::new();
        let connection = if seed % 3 == 0 {
            let link = Filtered::new(SocketLink::adopt(near).unwrap(), Plain::default());
            attach(&event_loop.handle(), link, record.protocol()).unwrap()
        } else {
            connect(&event_loop, near, record.protocol())
        };
        let received = reads(far);
        let expected = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let (transport, file, data) =
                (connection.transport().clone(), file.clone(), data.clone());
            let (expected, below) = (expected.clone(), below.clone());
            tasks.push(event_loop.create_task(async move {
                for _ in 0..6 {
                    match below(4) {
                        0 => {
                            let piece = vec![below(256) as u8; 1 + below(40_000)];
                            expected.borrow_mut().extend_from_slice(&piece);
                            transport.write(&piece);
                        }
                        1 => {
                            let piece = vec![below(256) as u8; 1 + below(3000)];
                            expected.borrow_mut().extend_from_slice(&piece);
                            transport.write_bytes(piece.into());
                        }
                        2 => {
                            let (from, to) = (below(300_000), 300_000 + below(400_000));
                            let mut sends = pin!(transport.sendfile(&*file, from as u64..to as u64));
                            let begun = futures_lite::future::poll_once(sends.as_mut()).await;
                            let is_busy = matches!(&begun, Some(Err(error)) if error.kind() == ErrorKind::ResourceBusy);
                            if !is_busy {
                                expected.borrow_mut().extend_from_slice(&data[from..to]);
                            }
                            if begun.is_none() {
                                assert_eq!(sends.await.unwrap(), (to - from) as u64);
                            }
                        }
                        _ => tulipa_loop::yield_now().await,
                    }
                }
            }));
        }
        event_loop
            .run_until_complete(async {
                for task in tasks {
                    task.await.unwrap();
                }
            })
            .unwrap();
        connection.close();
        until(&event_loop, "it is over", || record.is_lost());
        assert_eq!(record.error(), None);
        assert!(received.join().unwrap() == *expected.borrow(), "seed {seed}");
        settle(&event_loop);
        record.assert_over();
    }
}
