//! Pipes: descriptors that are only read, or only written.
#![forbid(unsafe_code)]
#![cfg(unix)]

mod common;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::rc::Rc;

use common::{assert_sleeps, cases, pattern, settle, strict_loop, unix, until};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use tulipa_loop::EventLoop;
use tulipa_protocols::{
    AfterEof, Connection, Direction, Flow, Link, PipeLink, Protocol, WriteBufferLimits, attach,
    connect_read_pipe, connect_write_pipe,
};
use tulipa_testing::{Call, Moment, Record, Recorder};

fn pipe() -> (File, File) {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

fn nonblocking(file: impl AsFd) {
    rustix::io::ioctl_fionbio(file, true).unwrap();
}

fn flags(file: impl AsFd) -> OFlags {
    rustix::fs::fcntl_getfl(file).unwrap()
}

#[track_caller]
fn reading<P: Protocol + 'static>(
    event_loop: &EventLoop,
    pipe: impl Into<OwnedFd>,
    protocol: P,
) -> Connection<P> {
    event_loop.run_until_complete(connect_read_pipe(pipe, || protocol)).unwrap().unwrap()
}

#[track_caller]
fn writing<P: Protocol + 'static>(
    event_loop: &EventLoop,
    pipe: impl Into<OwnedFd>,
    protocol: P,
) -> Connection<P> {
    event_loop.run_until_complete(connect_write_pipe(pipe, || protocol)).unwrap().unwrap()
}

#[test]
fn a_read_pipe_gives_what_comes_then_the_end() {
    for after in [AfterEof::Close, AfterEof::KeepOpen] {
        let event_loop = strict_loop();
        let (reader, mut writer) = pipe();
        let record = Record::new();
        let protocol = record.reacting(move |_, _| Ok(after));
        let connection = reading(&event_loop, reader, protocol);
        assert_eq!(record.calls(), [Call::Made]);
        assert_eq!(connection.write(b"the wrong way"), Flow::Closed);
        connection.write_eof();
        assert!(!connection.is_closing() && connection.is_reading());
        writer.write_all(b"one").unwrap();
        until(&event_loop, "it came", || record.count() == 3);
        connection.pause_reading();
        writer.write_all(b"two").unwrap();
        assert_sleeps(&event_loop);
        assert_eq!(record.count(), 3);
        connection.resume_reading();
        until(&event_loop, "the rest came", || record.count() == 6);
        drop(writer);
        until(&event_loop, "it is over", || record.is_lost());
        assert_eq!(record.calls(), [Call::Made, Call::Data(6), Call::Eof, Call::Lost(None)]);
        settle(&event_loop);
        record.assert_over();
    }
}

#[test]
fn a_write_pipe_is_closed_by_write_eof_when_all_is_written() {
    let event_loop = strict_loop();
    let (mut reader, writer) = pipe();
    let record = Record::new();
    let connection = writing(&event_loop, writer, record.protocol());
    // More than a pipe holds, in pieces around PIPE_BUF and a page of it.
    let data = pattern(300_000);
    let mut place = 0;
    for size in [1, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537].into_iter().cycle() {
        let piece = &data[place..data.len().min(place + size)];
        connection.write(piece);
        place += piece.len();
        if place == data.len() {
            break;
        }
    }
    assert!(connection.get_write_buffer_size() > 0);
    assert_eq!(connection.try_read(&mut [0; 8]).unwrap(), 0, "there is no input");
    assert!(!connection.is_reading());
    connection.write_eof();
    connection.write_eof();
    assert_eq!(connection.write(b"more"), Flow::Closed);
    nonblocking(&reader);
    let received = Rc::new(Cell::new(0));
    let mut bytes = Vec::new();
    let mut buffer = [0; 10_000];
    while !record.is_lost() || bytes.len() < data.len() {
        match reader.read(&mut buffer) {
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        received.set(bytes.len());
        event_loop.run_once(std::time::Duration::from_millis(1)).unwrap();
    }
    assert_eq!(bytes, data);
    assert_eq!(reader.read(&mut buffer).unwrap(), 0, "the pipe is closed");
    assert_eq!(record.error(), None);
    assert!(!record.has(Call::Eof));
    record.assert_over();
}

#[test]
fn b84_the_death_of_a_reader_is_noticed_without_a_write() {
    let event_loop = strict_loop();
    let ends: [(OwnedFd, OwnedFd); 2] = [
        {
            let (reader, writer) = pipe();
            (reader.into(), writer.into())
        },
        {
            let (near, far) = unix();
            (near.into(), far.into())
        },
    ];
    for (reader, writer) in ends {
        let record = Record::new();
        let _connection = writing(&event_loop, writer, record.protocol());
        assert_sleeps(&event_loop);
        assert!(!record.is_lost());
        drop(reader);
        until(&event_loop, "it is noticed", || record.is_lost());
        assert_eq!(record.calls(), [Call::Made, Call::Lost(None)]);
        settle(&event_loop);
        record.assert_over();
    }
}

#[test]
fn b84_bytes_that_nobody_is_going_to_read_are_an_error() {
    for closing in [false, true] {
        for ends in 0..2 {
            let event_loop = strict_loop();
            let (reader, writer): (OwnedFd, OwnedFd) = if ends == 0 {
                let (reader, writer) = pipe();
                (reader.into(), writer.into())
            } else {
                let (near, far) = unix();
                (near.into(), far.into())
            };
            let record = Record::new();
            let connection = writing(&event_loop, writer, record.protocol());
            connection.write(&pattern(1_000_000));
            settle(&event_loop);
            assert!(connection.get_write_buffer_size() > 0 && record.is_paused());
            if closing {
                connection.close();
            }
            drop(reader);
            until(&event_loop, "it is noticed", || record.is_lost());
            assert_eq!(record.error(), Some(ErrorKind::BrokenPipe), "{record:?}");
            settle(&event_loop);
            record.assert_over();
        }
    }
}

#[test]
fn b83_writing_to_a_pipe_that_nobody_reads_is_an_error_and_no_signal() {
    let event_loop = strict_loop();
    let (reader, writer) = pipe();
    let record = Record::new();
    let connection = writing(&event_loop, writer, record.protocol());
    drop(reader);
    connection.write(b"into the void");
    until(&event_loop, "it is noticed", || record.is_lost());
    assert_eq!(record.error(), Some(ErrorKind::BrokenPipe));
    settle(&event_loop);
    record.assert_over();
}

#[test]
fn writing_is_resumed_at_the_low_limit_and_not_only_when_all_has_left() {
    let event_loop = strict_loop();
    let (mut reader, writer) = pipe();
    let record = Record::new();
    let connection = writing(&event_loop, writer, record.protocol());
    connection.set_write_buffer_limits(WriteBufferLimits { low: 100_000, high: 200_000 });
    // What the pipe holds leaves at once.
    let flow = connection.write(&vec![7; 400_000]);
    assert_eq!(flow, Flow::Full);
    until(&event_loop, "it is paused", || record.is_paused());
    while record.is_paused() {
        let mut buffer = [0; 4096];
        let _ = reader.read(&mut buffer).unwrap();
        event_loop.run_once(std::time::Duration::from_millis(1)).unwrap();
    }
    let left = connection.get_write_buffer_size();
    assert!((1..=100_000).contains(&left), "{left}");
    connection.abort();
    settle(&event_loop);
    record.assert_over();
}

#[test]
fn what_comes_the_wrong_way_over_a_socket_is_left_to_whoever_reads_it() {
    let event_loop = strict_loop();
    let (near, mut far) = unix();
    let mut other = near.try_clone().unwrap();
    let record = Record::new();
    let connection = writing(&event_loop, near, record.protocol());
    far.write_all(b"for another").unwrap();
    far.shutdown(std::net::Shutdown::Write).unwrap();
    assert_sleeps(&event_loop);
    connection.write(b"the right way");
    settle(&event_loop);
    let mut buffer = [0; 13];
    far.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"the right way");
    let mut read = String::new();
    other.read_to_string(&mut read).unwrap();
    assert_eq!(read, "for another");
    drop(far);
    assert_sleeps(&event_loop);
    assert!(!record.is_lost(), "that cannot be told before something is written");
    connection.write(b"into the void");
    until(&event_loop, "it is noticed", || record.is_lost());
    assert_eq!(record.error(), Some(ErrorKind::BrokenPipe));
}

#[test]
fn a_pipe_that_is_open_for_both_never_ends_and_never_spins() {
    let event_loop = strict_loop();
    let directory = std::env::temp_dir().join(format!("tulipa-fifo-{}", std::process::id()));
    let _ = std::fs::remove_file(&directory);
    rustix::fs::mkfifoat(rustix::fs::CWD, &directory, rustix::fs::Mode::from_raw_mode(0o600))
        .unwrap();
    let both = File::options().read(true).write(true).open(&directory).unwrap();
    let reader = both.try_clone().unwrap();
    std::fs::remove_file(&directory).unwrap();
    let record = Record::new();
    let connection = writing(&event_loop, both, record.protocol());
    connection.write(b"for ourselves");
    assert_sleeps(&event_loop);
    assert!(!record.is_lost());
    let other = Record::new();
    let _reading = reading(&event_loop, reader, other.protocol());
    until(&event_loop, "it came", || other.bytes() == b"for ourselves");
    connection.write(b" again");
    until(&event_loop, "it came", || other.bytes() == b"for ourselves again");
    assert_sleeps(&event_loop);
}

#[test]
fn a_fifo_is_read_by_one_program_and_written_by_the_next() {
    let event_loop = strict_loop();
    let path = std::env::temp_dir().join(format!("tulipa-fifo-two-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let opened =
        |flags| rustix::fs::open(&path, flags | OFlags::NONBLOCK, rustix::fs::Mode::empty());
    let reader = opened(OFlags::RDONLY).unwrap();
    let writer = opened(OFlags::WRONLY).unwrap();
    std::fs::remove_file(&path).unwrap();
    let (near, far) = (Record::new(), Record::new());
    let _reading = reading(&event_loop, reader, near.protocol());
    let writing = writing(&event_loop, writer, far.protocol());
    let data = pattern(200_000);
    writing.write(&data);
    writing.close();
    until(&event_loop, "both are over", || near.is_lost() && far.is_lost());
    assert_eq!(near.bytes(), data);
    assert_eq!((near.error(), far.error()), (None, None));
    settle(&event_loop);
    near.assert_over();
    far.assert_over();
}

/// The two ends of a pseudo-terminal, of which nothing is echoed or changed.
fn terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let name = ptsname(&near, Vec::new()).unwrap();
    let options = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let far = rustix::fs::open(name, options, rustix::fs::Mode::empty()).unwrap();
    let mut settings = rustix::termios::tcgetattr(&far).unwrap();
    settings.make_raw();
    rustix::termios::tcsetattr(&far, rustix::termios::OptionalActions::Now, &settings).unwrap();
    (near, far)
}

#[test]
fn the_far_end_of_a_pseudo_terminal_that_was_closed_is_the_end() {
    let event_loop = strict_loop();
    let (near, far) = terminal();
    let record = Record::new();
    let _connection = reading(&event_loop, near, record.protocol());
    rustix::io::write(&far, b"a line\n").unwrap();
    until(&event_loop, "it came", || record.count() == 7);
    drop(far);
    until(&event_loop, "it is over", || record.is_lost());
    assert_eq!(record.calls(), [Call::Made, Call::Data(7), Call::Eof, Call::Lost(None)]);
    settle(&event_loop);
    record.assert_over();
}

#[test]
fn a_pseudo_terminal_is_written_to_and_input_that_nobody_reads_does_not_spin() {
    let event_loop = strict_loop();
    let (near, far) = terminal();
    let record = Record::new();
    let connection = writing(&event_loop, near.try_clone().unwrap(), record.protocol());
    rustix::io::write(&far, b"typed by nobody").unwrap();
    assert_sleeps(&event_loop);
    connection.write(b"hello");
    settle(&event_loop);
    let mut buffer = [0; 16];
    assert_eq!(rustix::io::read(&far, &mut buffer).unwrap(), 5);
    connection.write_eof();
    until(&event_loop, "it is over", || record.is_lost());
    assert_eq!(record.calls(), [Call::Made, Call::Lost(None)]);
}

#[test]
fn the_null_device_ends_at_once_and_takes_everything() {
    let event_loop = strict_loop();
    let (near, far) = (Record::new(), Record::new());
    reading(&event_loop, File::open("/dev/null").unwrap(), near.protocol());
    let null = File::options().write(true).open("/dev/null").unwrap();
    let connection = writing(&event_loop, null, far.protocol());
    connection.write(&pattern(1_000_000));
    connection.close();
    until(&event_loop, "both are over", || near.is_lost() && far.is_lost());
    assert_eq!(near.calls(), [Call::Made, Call::Eof, Call::Lost(None)]);
    assert!(far.error().is_none() && !far.has(Call::Eof));
}

#[test]
fn a_device_that_takes_nothing_is_an_error() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let event_loop = strict_loop();
    let record = Record::new();
    let connection = writing(&event_loop, full, record.protocol());
    connection.write(b"x");
    until(&event_loop, "it is over", || record.is_lost());
    assert_eq!(record.error(), Some(ErrorKind::StorageFull));
}

#[test]
fn what_is_no_pipe_is_refused_with_a_reason_and_closed() {
    let event_loop = strict_loop();
    let (datagram, _other) = UnixDatagram::pair().unwrap();
    let (reader, writer) = pipe();
    let file = std::env::current_exe().unwrap();
    let cases: [(OwnedFd, &str); 4] = [
        (File::open(&file).unwrap().into(), "stream socket or a character device, not a file"),
        (File::open("/").unwrap().into(), "stream socket or a character device, not a directory"),
        (datagram.into(), "not a socket of the type"),
        (writer.into(), "a pipe that is not open for reading"),
    ];
    for (descriptor, why) in cases {
        let refused = connect_read_pipe(descriptor, || -> Recorder { panic!("not called") });
        let error = event_loop.run_until_complete(refused).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(why), "{error}");
    }
    let refused = connect_write_pipe(reader, || -> Recorder { panic!("not called") });
    let error = event_loop.run_until_complete(refused).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "a pipe that is not open for writing");
}

#[test]
fn the_flags_that_other_owners_see_are_as_before_when_a_pipe_is_closed() {
    let event_loop = strict_loop();
    let (reader, writer) = pipe();
    let (kept, far) = (reader.try_clone().unwrap(), writer.try_clone().unwrap());
    let before = (flags(&kept), flags(&far));
    let record = Record::new();
    let reads = reading(&event_loop, reader, record.protocol());
    let writes = writing(&event_loop, writer, record.clone().reacting(|_, _| Ok(AfterEof::Close)));
    assert!(flags(&kept).contains(OFlags::NONBLOCK) && flags(&far).contains(OFlags::NONBLOCK));
    reads.abort();
    writes.abort();
    settle(&event_loop);
    assert_eq!((flags(&kept), flags(&far)), before);
    // One that was non-blocking stays so.
    nonblocking(&kept);
    let record = Record::new();
    reading(&event_loop, kept.try_clone().unwrap(), record.protocol()).abort();
    settle(&event_loop);
    assert!(flags(&kept).contains(OFlags::NONBLOCK));
    // No flag of a socket is touched.
    let (near, far) = unix();
    let kept = near.try_clone().unwrap();
    let before = flags(&kept);
    let record = Record::new();
    let connection = writing(&event_loop, near, record.protocol());
    connection.write(&pattern(1_000_000));
    settle(&event_loop);
    assert_eq!(flags(&kept), before);
    drop(far);
}

#[test]
fn every_method_in_every_callback_of_a_pipe() {
    for seed in 0..usize::try_from(cases() / 4).unwrap() {
        let event_loop = strict_loop();
        let (reader, writer) = pipe();
        let records = [Record::new(), Record::new()];
        let count = Rc::new(Cell::new(seed));
        let react = |count: Rc<Cell<usize>>| {
            move |_: Moment<'_>, transport: &tulipa_protocols::Transport| -> io::Result<AfterEof> {
                count.set(
                    count
                        .get()
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407),
                );
                match (count.get() >> 33) % 14 {
                    0 => transport.close(),
                    1 => transport.abort(),
                    2 => transport.reset(),
                    3 => transport.write_eof(),
                    4 => transport.pause_reading(),
                    5 => transport.resume_reading(),
                    6 => {
                        let _ = transport.try_read(&mut [0; 64]);
                    }
                    7 => {
                        transport.write_vectored(&[IoSlice::new(b"a"), IoSlice::new(&[0; 5000])]);
                    }
                    8 => transport.set_write_buffer_limits(WriteBufferLimits { low: 0, high: 10 }),
                    9 => return Err(io::Error::other("a callback's")),
                    _ => {
                        transport.write(&[7; 3000]);
                    }
                }
                Ok(if count.get().is_multiple_of(2) { AfterEof::Close } else { AfterEof::KeepOpen })
            }
        };
        let near = records[0].reacting(react(count.clone()));
        let far = records[1].reacting(react(count.clone()));
        let handle = event_loop.handle();
        let near = attach(&handle, PipeLink::reader(reader).unwrap(), near).unwrap();
        let far = attach(&handle, PipeLink::writer(writer).unwrap(), far).unwrap();
        for _ in 0..20 {
            event_loop.run_once(std::time::Duration::ZERO).unwrap();
            far.write(&[1; 100]);
        }
        near.resume_reading();
        far.close();
        settle(&event_loop);
        near.abort();
        far.abort();
        settle(&event_loop);
        for record in records {
            record.assert_over();
        }
        assert_eq!(event_loop.statistics().sources, 0, "seed {seed}");
    }
}

#[test]
fn a_pipe_changes_its_protocol_and_what_was_left_over_comes_first() {
    let event_loop = strict_loop();
    let (reader, mut writer) = pipe();
    let first = Record::new();
    let connection = reading(&event_loop, reader, first.protocol());
    writer.write_all(b"one").unwrap();
    until(&event_loop, "it came", || first.count() == 3);
    let second = Record::after(&first);
    connection.set_protocol(second.protocol(), b"left ");
    writer.write_all(b"two").unwrap();
    drop(writer);
    until(&event_loop, "it is over", || second.is_lost());
    assert_eq!(second.bytes(), b"left two");
    second.assert_order();
    // One that only writes has no input, but what is given to it.
    let (reader, writer) = pipe();
    let first = Record::new();
    let connection = writing(&event_loop, writer, first.protocol());
    let second = Record::after(&first);
    connection.set_protocol(second.protocol(), b"left");
    assert_sleeps(&event_loop);
    assert_eq!(second.count(), 0, "nothing can be left over where nothing has come");
    drop(reader);
    until(&event_loop, "it is over", || second.is_lost());
    assert!(!second.has(Call::Eof));
    second.assert_order();
}

#[test]
fn a_loop_that_closes_tells_its_pipes() {
    let (reader, writer) = pipe();
    let records = [Record::new(), Record::new()];
    let event_loop = strict_loop();
    let _near = reading(&event_loop, reader, records[0].protocol());
    let _far = writing(&event_loop, writer, records[1].protocol());
    drop(event_loop);
    for record in records {
        assert_eq!(record.error(), Some(ErrorKind::ConnectionAborted));
        record.assert_over();
    }
}

#[test]
fn a_link_says_which_ways_its_bytes_go() {
    let (reader, writer) = pipe();
    assert_eq!(PipeLink::reader(reader).unwrap().direction(), Direction::Read);
    assert_eq!(PipeLink::writer(writer).unwrap().direction(), Direction::Write);
    let (near, _far): (UnixStream, UnixStream) = unix();
    assert_eq!(tulipa_protocols::SocketLink::adopt(near).unwrap().direction(), Direction::Both);
}
