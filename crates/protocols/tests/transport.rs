//! What transports promise beyond the catalogue of known bugs.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Write};
use std::rc::Rc;
use std::time::Duration;

use common::{assert_sleeps, connect, pattern, reset, settle, strict_loop, tcp, unix, until};
use tulipa_protocols::{
    AfterEof, Buffered, BufferedProtocol, Detached, Filtered, Protocol, SocketLink, Transport,
    attach,
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
