//! Filters: from the start of a connection and by `upgrade`, with the toy protocol of records.

mod common;

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use common::{assert_sleeps, connect, drain, pattern, settle, strict_loop, tcp, unix, until};
use tulipa_loop::EventLoop;
use tulipa_protocols::{
    AfterEof, Connection, Detached, Filter, FilterState, Filtered, Flow, SocketLink, attach,
};
use tulipa_testing::{Call, Moment, Record, Recorder, ToyRecords};

const DATA: u8 = 2;
const CHANGE: u8 = 3;
const CHANGED: u8 = 4;
const GOODBYE: u8 = 5;

fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
    ToyRecords::record(kind, bytes)
}

/// A server whose client is the test; the key of the client is 0, so that data are what they are.
fn server(event_loop: &EventLoop, protocol: Recorder) -> (Connection<Recorder>, UnixStream) {
    let (ours, mut theirs) = unix();
    let made = protocol.record().clone();
    let link = Filtered::new(SocketLink::adopt(ours).unwrap(), ToyRecords::server());
    let connection = attach(&event_loop.handle(), link, protocol).unwrap();
    theirs.write_all(&record(0, &[0])).unwrap();
    until(event_loop, "the handshake", || made.is_made());
    assert_eq!(take(&theirs, 4), record(1, &[255]));
    theirs.set_nonblocking(true).unwrap();
    (connection, theirs)
}

fn take(mut stream: &UnixStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn connection_made_waits_for_the_handshake_however_it_is_cut() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let told = Record::new();
    let link = Filtered::new(SocketLink::adopt(ours).unwrap(), ToyRecords::server());
    let connection = attach(&event_loop.handle(), link, told.protocol()).unwrap();
    assert_eq!(connection.write(b"early"), Flow::Ready);
    for byte in record(0, &[0]) {
        assert_sleeps(&event_loop);
        assert_eq!(told.calls(), []);
        theirs.write_all(&[byte]).unwrap();
    }
    until(&event_loop, "the handshake", || told.is_made());
    let hidden: Vec<_> = b"early".iter().map(|byte| byte ^ 255).collect();
    assert_eq!(take(&theirs, 12), [record(1, &[255]), record(DATA, &hidden)].concat());
}

#[test]
fn a_handshake_that_fails_tells_only_the_end() {
    for (sent, kind) in
        [(record(9, &[]), ErrorKind::InvalidData), (vec![], ErrorKind::UnexpectedEof)]
    {
        let event_loop = strict_loop();
        let (ours, mut theirs) = unix();
        let told = Record::new();
        let link = Filtered::new(SocketLink::adopt(ours).unwrap(), ToyRecords::server());
        attach(&event_loop.handle(), link, told.protocol()).unwrap();
        theirs.write_all(&sent).unwrap();
        drop(theirs);
        until(&event_loop, "the end", || told.is_lost());
        assert_eq!(told.calls(), [Call::Lost(Some(kind))]);
        told.assert_over();
    }
}

#[test]
fn several_records_of_one_read_are_delivered_unless_reading_is_paused_between_them() {
    let event_loop = strict_loop();
    let told = Record::new();
    let (connection, mut theirs) = server(
        &event_loop,
        told.reacting(|moment, transport| {
            if let Moment::Data(_) = moment {
                transport.pause_reading();
            }
            Ok(AfterEof::KeepOpen)
        }),
    );
    // More than one read gives, so that a pause comes between two records that were decoded together.
    let bytes = pattern(600_000);
    let records: Vec<_> = bytes.chunks(1000).flat_map(|chunk| record(DATA, chunk)).collect();
    let sent = Rc::new(Cell::new(0));
    let mut rounds = 0;
    while told.count() < bytes.len() {
        sent.set(sent.get() + common::fill(&mut theirs, &records[sent.get()..]));
        let before = told.count();
        connection.resume_reading();
        until(&event_loop, "data", || told.count() > before);
        assert!(!connection.is_reading());
        if rounds < 3 {
            let after = told.count();
            assert_sleeps(&event_loop);
            assert_eq!(told.count(), after);
        }
        rounds += 1;
    }
    assert!(told.bytes() == bytes && rounds > 2);
}

#[test]
fn a_pause_holds_back_what_is_decoded_already() {
    let told = Record::new();
    // A reader of a few bytes at a time: one record is several reads.
    let mut connection = Detached::filtered(told.protocol(), ToyRecords::server());
    connection.feed(&record(0, &[0]));
    let mut few = [0; 4];
    connection.transport().pause_reading();
    connection.feed(&[record(DATA, b"first one"), record(DATA, b"second")].concat());
    assert_eq!(told.count(), 0);
    assert_eq!(connection.transport().try_read(&mut few).unwrap(), 4);
    connection.run();
    assert_eq!(told.count(), 0);
    connection.transport().resume_reading();
    connection.run();
    assert_eq!(told.bytes(), b"t onesecond");
}

#[test]
fn a_change_of_keys_is_answered_while_the_program_only_reads() {
    let event_loop = strict_loop();
    let told = Record::new();
    let (_connection, mut theirs) = server(&event_loop, told.protocol());
    theirs.write_all(&record(CHANGE, &[7])).unwrap();
    let answered = || drain(&theirs).unwrap().0;
    let answer = std::cell::RefCell::new(Vec::new());
    until(&event_loop, "the answer", || {
        answer.borrow_mut().extend(answered());
        answer.borrow().len() >= 4
    });
    assert_eq!(*answer.borrow(), record(CHANGED, &[7]));
    assert_eq!(told.calls(), [Call::Made]);
    let hidden: Vec<_> = b"with the new one".iter().map(|byte| byte ^ 7).collect();
    (&theirs).write_all(&record(DATA, &hidden)).unwrap();
    until(&event_loop, "data", || told.count() == 16);
    assert_eq!(told.bytes(), b"with the new one");
}

#[test]
fn changes_of_keys_during_a_large_transfer_are_all_answered() {
    let event_loop = strict_loop();
    let (one, other) = tcp();
    let (near, far) = (Record::new(), Record::new());
    let client = ToyRecords::client().change_after(20_000);
    let counts = client.counts();
    let handle = event_loop.handle();
    let client = Filtered::new(SocketLink::adopt(one).unwrap(), client);
    let server = Filtered::new(SocketLink::adopt(other).unwrap(), ToyRecords::server());
    let near_end = attach(&handle, client, near.protocol()).unwrap();
    attach(&handle, server, far.protocol()).unwrap();
    let data = pattern(12 << 20);
    near_end.write(&data);
    until(&event_loop, "all data", || far.count() == data.len());
    assert!(far.bytes() == data);
    until(&event_loop, "the answers", || counts.answered.get() == counts.asked.get());
    assert!(counts.asked.get() > 300, "{counts:?}");
}

#[test]
fn a_goodbye_is_an_end_and_its_absence_an_error() {
    let event_loop = strict_loop();
    let told = Record::new();
    let (_connection, theirs) = server(&event_loop, told.protocol());
    (&theirs).write_all(&[record(DATA, b"last"), record(GOODBYE, &[])].concat()).unwrap();
    drop(theirs);
    until(&event_loop, "the end", || told.is_lost());
    assert_eq!(told.calls(), [Call::Made, Call::Data(4), Call::Eof, Call::Lost(None)]);

    let told = Record::new();
    let (_connection, theirs) = server(&event_loop, told.protocol());
    (&theirs).write_all(&record(DATA, b"not the last")).unwrap();
    drop(theirs);
    until(&event_loop, "the end", || told.is_lost());
    let lost = Call::Lost(Some(ErrorKind::UnexpectedEof));
    assert_eq!(told.calls(), [Call::Made, Call::Data(12), lost]);
}

#[test]
fn closing_says_goodbye_after_all_that_was_written() {
    let event_loop = strict_loop();
    let told = Record::new();
    let (connection, theirs) = server(&event_loop, told.protocol());
    let data = pattern(500_000);
    connection.write(&data);
    connection.close();
    let received = std::cell::RefCell::new((Vec::new(), false));
    until(&event_loop, "the end", || {
        let (bytes, end) = drain(&theirs).unwrap();
        let mut received = received.borrow_mut();
        received.0.extend(bytes);
        received.1 |= end;
        received.1
    });
    let records: Vec<_> = data
        .chunks(16 * 1024)
        .flat_map(|chunk| record(DATA, &chunk.iter().map(|byte| byte ^ 255).collect::<Vec<_>>()))
        .collect();
    let received = received.take().0;
    assert!(received.ends_with(&record(GOODBYE, &[])));
    assert_eq!(received.len() / 1000, records.len() / 1000, "chunks may be cut otherwise");
    assert_eq!(told.error(), None);
}

#[test]
fn an_abort_says_no_goodbye() {
    let event_loop = strict_loop();
    let told = Record::new();
    let (connection, theirs) = server(&event_loop, told.protocol());
    connection.abort();
    until(&event_loop, "the end", || told.is_lost());
    assert_eq!(drain(&theirs).unwrap(), (vec![], true));
}

#[test]
fn an_upgrade_in_the_middle_sends_what_was_written_in_clear_first() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let told = Record::new();
    let _connection = connect(
        &event_loop,
        ours,
        told.reacting(|moment, transport| {
            match moment {
                Moment::Data(b"STARTTLS\n") => {
                    transport.write(b"go ahead\n");
                    transport.upgrade(ToyRecords::server(), b"").unwrap();
                    transport.write(b"hidden");
                }
                Moment::Data(data) => drop(transport.write(data)),
                _ => {}
            }
            Ok(AfterEof::Close)
        }),
    );
    theirs.write_all(b"STARTTLS\n").unwrap();
    until(&event_loop, "the request", || told.count() == 9);
    settle(&event_loop);
    assert_eq!(take(&theirs, 9), b"go ahead\n");
    theirs.write_all(&record(0, &[0])).unwrap();
    settle(&event_loop);
    let hidden: Vec<_> = b"hidden".iter().map(|byte| byte ^ 255).collect();
    assert_eq!(take(&theirs, 13), [record(1, &[255]), record(DATA, &hidden)].concat());
    assert!(!told.has(Call::Lost(None)));
    assert_eq!(told.calls().iter().filter(|call| **call == Call::Made).count(), 1);
}

#[test]
fn what_came_behind_the_request_in_the_same_read_goes_through_the_filter() {
    for together in [true, false] {
        let event_loop = strict_loop();
        let (ours, mut theirs) = unix();
        let told = Record::new();
        let _connection = connect(
            &event_loop,
            ours,
            told.reacting(|moment, transport| {
                if let Moment::Data(data) = moment
                    && let Some(leftover) = data.strip_prefix(b"STARTTLS\n")
                {
                    transport.upgrade(ToyRecords::server(), leftover).unwrap();
                }
                Ok(AfterEof::Close)
            }),
        );
        let behind = [record(0, &[0]), record(DATA, b"in one go")].concat();
        let (now, later) = behind.split_at(if together { behind.len() } else { 2 });
        theirs.write_all(&[b"STARTTLS\n", now].concat()).unwrap();
        until(&event_loop, "the request", || told.count() >= 9);
        theirs.write_all(later).unwrap();
        // The clear text is counted too: the protocol was given all of it.
        until(&event_loop, "the data", || told.count() == 9 + now.len() + 9);
        assert!(told.bytes().ends_with(b"in one go"));
    }
}

#[test]
fn an_upgrade_before_connection_made_is_a_filter_from_the_start() {
    let event_loop = strict_loop();
    let (ours, theirs) = unix();
    let (near, far) = (Record::new(), Record::new());
    let near_end = common::connect_link(&event_loop, ours, near.protocol());
    until(&event_loop, "it is open", || near.is_made());
    // In connection_made, which is the place for it where a socket is connected by name.
    let _far = connect(
        &event_loop,
        theirs,
        far.reacting(|moment, transport| {
            if let Moment::Made = moment {
                transport.upgrade(ToyRecords::client(), &[])?;
                transport.write(b"hidden");
            }
            Ok(AfterEof::Close)
        }),
    );
    near_end.upgrade(ToyRecords::server(), &[]).unwrap();
    until(&event_loop, "the data", || near.count() == 6);
    assert_eq!(near.bytes(), b"hidden");
}

#[test]
fn two_upgrades_put_one_filter_in_front_of_the_other() {
    let event_loop = strict_loop();
    let (one, other) = unix();
    let (near, far) = (Record::new(), Record::new());
    let near_end = connect(&event_loop, one, near.protocol());
    let far_end = connect(&event_loop, other, far.protocol());
    for round in [5, 10] {
        near_end.upgrade(ToyRecords::client(), &[]).unwrap();
        far_end.upgrade(ToyRecords::server(), &[]).unwrap();
        near_end.write(b"there");
        far_end.write(b"and back");
        until(&event_loop, "both", || far.count() == round && near.count() == round / 5 * 8);
    }
    near_end.close();
    until(&event_loop, "the end", || near.is_lost() && far.is_lost());
    assert_eq!((near.error(), far.error()), (None, None));
}

/// A filter that panics at some point.
struct Fragile(&'static str);

impl Fragile {
    fn at(&self, point: &'static str) {
        if self.0 == point {
            std::panic::resume_unwind(Box::new("a fragile filter"));
        }
    }
}

impl Filter for Fragile {
    fn state(&self) -> FilterState {
        self.at("state");
        FilterState::Open
    }

    fn receive(&mut self, _: &[u8]) -> io::Result<()> {
        self.at("receive");
        Ok(())
    }

    fn receive_eof(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.at("read");
        Err(ErrorKind::WouldBlock.into())
    }

    fn has_plaintext(&self) -> bool {
        self.at("has_plaintext");
        false
    }

    fn write(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        self.at("write");
        Ok(plaintext.len())
    }

    fn transmit(&mut self, _: &mut Vec<u8>) {
        self.at("transmit");
    }

    fn close(&mut self) {
        self.at("close");
    }
}

#[test]
fn p9_a_filter_that_panics_ends_its_connection_and_no_other() {
    for point in ["state", "receive", "read", "has_plaintext", "write", "transmit", "close"] {
        let event_loop = strict_loop();
        let (ours, mut theirs) = unix();
        let told = Record::new();
        let connection = connect(&event_loop, ours, told.protocol());
        connection.upgrade(Fragile(point), &[]).unwrap();
        theirs.write_all(b"x").unwrap();
        settle(&event_loop);
        connection.write(b"x");
        settle(&event_loop);
        connection.close();
        until(&event_loop, "the end", || told.is_lost());
        assert_eq!(told.error(), Some(ErrorKind::Other), "{point}");
        told.assert_over();
    }
}
