//! `Checked` and `Record`: every break of the order of callbacks is seen, with any protocol.

#![cfg(unix)]

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use tulipa_protocols::{AfterEof, Detached, Protocol, Transport};
use tulipa_testing::{Call, Checked, Record};

/// A user's protocol: it echoes, and knows nothing of tests.
#[derive(Default)]
struct Echo {
    lines: Rc<RefCell<Vec<u8>>>,
}

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        self.lines.borrow_mut().extend_from_slice(data);
        transport.write(data);
        Ok(())
    }

    fn eof_received(&mut self, _: &Transport) -> io::Result<AfterEof> {
        Ok(AfterEof::KeepOpen)
    }
}

#[test]
fn a_checked_protocol_does_what_it_does_without_and_its_order_is_right() {
    let record = Record::new();
    let mut connection = Detached::new(Checked::new(&record, Echo::default()));
    connection.feed(b"one");
    connection.feed(b"two");
    connection.feed_eof();
    assert_eq!(connection.written(), b"onetwo");
    connection.transport().close();
    connection.run();
    let checked = connection.protocol::<Checked<Echo>>();
    assert_eq!(checked.map(|checked| checked.get_ref().lines.borrow().len()), Some(6));
    drop(connection);
    assert_eq!(record.calls(), [Call::Made, Call::Data(6), Call::Eof, Call::Lost(None)]);
    record.assert_over();
}

/// What a transport does wrong, played by calling a checked protocol by hand.
fn violations(play: impl FnOnce(&mut Checked<Echo>, &Transport)) -> Vec<String> {
    let record = Record::new();
    let mut protocol = Checked::new(&record, Echo::default());
    let (transport, _probe) = Transport::detached();
    play(&mut protocol, &transport);
    record.violations()
}

fn made(protocol: &mut Checked<Echo>, transport: &Transport) {
    protocol.connection_made(transport).unwrap();
}

#[test]
fn every_break_of_the_order_is_seen() {
    type Play = fn(&mut Checked<Echo>, &Transport);
    let plays: [(&str, Play); 13] = [
        ("Made twice", |p, t| {
            made(p, t);
            made(p, t);
        }),
        ("before connection_made", |p, t| p.data_received(t, b"x").unwrap()),
        ("before connection_made", |p, t| drop(p.eof_received(t))),
        ("before connection_made", |p, t| p.pause_writing(t).unwrap()),
        ("before connection_made", |p, t| drop(p.timed_out(t))),
        ("empty data", |p, t| {
            made(p, t);
            p.data_received(t, b"").unwrap();
        }),
        ("data while reading is paused", |p, t| {
            made(p, t);
            t.pause_reading();
            p.data_received(t, b"x").unwrap();
        }),
        ("data after eof_received", |p, t| {
            made(p, t);
            p.eof_received(t).unwrap();
            p.data_received(t, b"x").unwrap();
        }),
        ("Eof twice", |p, t| {
            made(p, t);
            p.eof_received(t).unwrap();
            p.eof_received(t).unwrap();
        }),
        ("Pause twice", |p, t| {
            made(p, t);
            p.pause_writing(t).unwrap();
            p.pause_writing(t).unwrap();
        }),
        ("Resume twice", |p, t| {
            made(p, t);
            p.resume_writing(t).unwrap();
        }),
        ("after connection_lost", |p, t| {
            made(p, t);
            p.connection_lost(t, None);
            p.data_received(t, b"x").unwrap();
        }),
        ("Lost(None) twice", |p, t| {
            made(p, t);
            p.connection_lost(t, None);
            p.connection_lost(t, None);
        }),
    ];
    for (expected, play) in plays {
        let seen = violations(play);
        assert!(seen.iter().any(|seen| seen.contains(expected)), "{expected}: {seen:?}");
    }
    let right = violations(|p, t| {
        made(p, t);
        p.data_received(t, b"x").unwrap();
        p.pause_writing(t).unwrap();
        p.resume_writing(t).unwrap();
        p.eof_received(t).unwrap();
        p.connection_lost(t, None);
    });
    assert!(right.is_empty(), "{right:?}");
    assert!(violations(|p, t| p.connection_lost(t, None)).is_empty(), "it never came to be");
}

/// Calls itself, as a transport must not.
struct Nested(Record);

impl Protocol for Nested {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        if data != b"inner" {
            Checked::new(&self.0, Echo::default()).data_received(transport, b"inner")?;
        }
        Ok(())
    }
}

#[test]
fn a_call_inside_of_another_is_seen() {
    let record = Record::new();
    let mut protocol = Checked::new(&record, Nested(record.clone()));
    let (transport, _probe) = Transport::detached();
    protocol.connection_made(&transport).unwrap();
    protocol.data_received(&transport, b"outer").unwrap();
    let seen = record.violations();
    assert!(seen[0].contains("inside of another call"), "{seen:?}");
}

struct Panics;

impl Protocol for Panics {
    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        resume_unwind(Box::new("a panic"))
    }
}

#[test]
fn a_call_that_panics_is_over() {
    let record = Record::new();
    let mut protocol = Checked::new(&record, Panics);
    let (transport, _probe) = Transport::detached();
    protocol.connection_made(&transport).unwrap();
    let call = AssertUnwindSafe(|| protocol.data_received(&transport, b"x"));
    assert!(catch_unwind(call).is_err());
    protocol.connection_lost(&transport, None);
    drop(protocol);
    record.assert_over();
}

/// Reads by itself.
struct Reads(Rc<RefCell<Vec<u8>>>);

impl Protocol for Reads {
    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        unreachable!("it reads by itself")
    }

    fn readable(&mut self, transport: &Transport) -> io::Result<()> {
        let mut buffer = [0; 4];
        let count = transport.try_read(&mut buffer)?;
        self.0.borrow_mut().extend_from_slice(&buffer[..count]);
        Ok(())
    }
}

#[test]
fn a_protocol_that_reads_by_itself_is_left_to_read() {
    let (record, read) = (Record::new(), Rc::default());
    let protocol = Checked::reading(&record, Reads(Rc::clone(&read)));
    let mut connection = Detached::new(protocol);
    connection.feed(b"abcdef");
    connection.transport().abort();
    connection.run();
    assert_eq!(*read.borrow(), b"abcdef");
    assert_eq!(record.calls(), [Call::Made, Call::Readable, Call::Lost(None)]);
    record.assert_order();
}
