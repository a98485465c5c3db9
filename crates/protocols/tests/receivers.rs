//! Receivers: against models, at every cut, with pauses, and over a network with faults.

mod common;
#[path = "common/model.rs"]
mod model;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use model::{Plan, check_int_strings, check_lines, check_netstrings};
use proptest::prelude::*;
use tulipa_protocols::{
    AfterEof, CrlfLine, Detached, Flow, Int8, Int8StringReceiver, Int16, Int32,
    Int32StringReceiver, LineOnlyReceiver, LineProtocol, LineReceiver, Netstring,
    NetstringReceiver, Next, Protocol, StringProtocol, TooLong, Transport, create_connection,
    create_server,
};
use tulipa_testing::{Chunking, Path, Record, Recorder, Simulation, ToyRecords};

fn plan() -> impl Strategy<Value = Plan> {
    let cuts = prop_oneof![Just(vec![1]), prop::collection::vec(1..20_usize, 1..8)];
    let limit = prop_oneof![0..12_usize, Just(1000)];
    (cuts, 0..4_usize, any::<bool>(), limit).prop_map(|(cuts, pause_after, late, limit)| Plan {
        cuts,
        pause_after,
        late,
        limit,
    })
}

fn of_pieces(pieces: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(pieces), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(common::cases() as u32 * 4))]

    #[test]
    fn lines_and_raw_bytes_are_those_of_the_model(
        plan in plan(),
        input in of_pieces(&[b"\r\n", b"\r", b"\n", b"a", b"word", b"Rb", b"Rc\r\n", b"\r\r\n", b"long-long-long"]),
    ) {
        check_lines(&plan, &input);
    }

    #[test]
    fn netstrings_are_those_of_the_model(
        plan in plan(),
        input in of_pieces(&[b"0:,", b"3:abc,", b"5:he:,o,", b"12:", b"abc", b",", b"7", b"01:a,"]),
        good in any::<bool>(),
    ) {
        let input = if good { b"0:,3:abc,10:0123456789,".repeat(input.len() % 5) } else { input };
        check_netstrings(&plan, &input);
    }

    #[test]
    fn strings_behind_their_length_are_those_of_the_model(
        plan in plan(),
        input in of_pieces(&[&[0], &[1, 65], &[0, 0], &[0, 2, 1, 2], &[0, 0, 0, 3, 7, 8, 9], &[255], &[5, 1, 2, 3, 4, 5]]),
    ) {
        check_int_strings(&plan, &input);
    }
}

/// Writes down what it is told, in the order that is checked, and what came.
struct Kept {
    recorder: Recorder,
    messages: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Kept {
    fn new(record: &Record) -> Kept {
        Kept { recorder: record.protocol(), messages: Rc::default() }
    }

    fn message(&mut self, transport: &Transport, message: &[u8]) -> io::Result<()> {
        self.messages.borrow_mut().push(message.to_vec());
        if message.is_empty() { Ok(()) } else { self.recorder.data_received(transport, message) }
    }
}

/// Passes the calls that receivers have in common with protocols on to a record.
macro_rules! recorded {
    () => {
        fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
            self.recorder.connection_made(transport)
        }

        fn eof_received(&mut self, transport: &Transport, _: &[u8]) -> io::Result<AfterEof> {
            self.recorder.eof_received(transport)
        }

        fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
            self.recorder.pause_writing(transport)
        }

        fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
            self.recorder.resume_writing(transport)
        }

        fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
            self.recorder.timed_out(transport)
        }

        fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
            self.recorder.connection_lost(transport, error);
        }
    };
}

impl LineProtocol for Kept {
    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> io::Result<Next> {
        self.message(transport, line).map(|()| Next::Lines)
    }

    recorded!();
}

impl StringProtocol for Kept {
    fn string_received(&mut self, transport: &Transport, string: &[u8]) -> io::Result<()> {
        self.message(transport, string)
    }

    recorded!();
}

#[test]
fn a_line_that_is_too_long_ends_the_connection_with_its_limit() {
    let record = Record::new();
    let receiver = LineReceiver::new(Kept::new(&record)).max_length(4);
    let mut connection = Detached::new(receiver);
    connection.feed(b"four\r\nfive!");
    assert!(!connection.is_over(), "it may still be four and a half of an end");
    connection.feed(b"!");
    assert!(connection.is_over());
    assert_eq!(record.error(), Some(io::ErrorKind::InvalidData));
    assert_eq!(record.bytes(), b"four");
    record.assert_order();
}

/// The error that a connection ends with.
#[derive(Clone, Default)]
struct Errors(Rc<RefCell<Option<io::Error>>>);

impl StringProtocol for Errors {
    fn string_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        *self.0.borrow_mut() = error;
    }
}

#[test]
fn what_is_wrong_with_a_message_is_said() {
    fn said(make: impl FnOnce(Errors) -> Detached, input: &[u8]) -> String {
        let errors = Errors::default();
        make(errors.clone()).feed(input);
        let error = errors.0.take().expect("it ends the connection");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        error.to_string()
    }
    let netstring = |errors| Detached::new(NetstringReceiver::new(errors));
    let int32 = |errors| Detached::new(Int32StringReceiver::new(errors));
    let int8 = |errors| Detached::new(Int8StringReceiver::new(errors).max_length(4));
    let line = |errors| Detached::new(LineOnlyReceiver::new(errors).max_length(3));
    let announced =
        "a netstring of 99999999999999999999 bytes or more has come; the limit is 99999";
    for (found, expected) in [
        (said(netstring, b":,"), "what came is no netstring: it begins with no length"),
        (said(netstring, b"01:a,"), "what came is no netstring: its length begins with a zero"),
        (said(netstring, b"1;a,"), "what came is no netstring: no colon follows its length"),
        (said(netstring, b"1:ab"), "what came is no netstring: no comma follows it"),
        (
            said(netstring, b"100000"),
            "a netstring of 100000 bytes or more has come; the limit is 99999",
        ),
        (
            said(int32, &[255; 4]),
            "a string of 4294967295 bytes or more has come; the limit is 99999",
        ),
        (said(int8, &[5]), "a string of 5 bytes or more has come; the limit is 4"),
        (said(line, b"12345"), "a line of 5 bytes or more has come; the limit is 3"),
    ] {
        assert_eq!(found, expected);
    }
    let huge = said(netstring, b"99999999999999999999");
    assert!(huge.starts_with("a netstring of 18446744073709551615"), "{huge}, not {announced}");
    let errors = Errors::default();
    int8(errors.clone()).feed(&[5]);
    let error = errors.0.take().expect("it ends the connection");
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TooLong>());
    assert_eq!(inner.map(|inner| (inner.length, inner.limit)), Some((5, 4)));
}

#[test]
fn what_is_kept_while_reading_is_paused_comes_before_the_end() {
    let record = Record::new();
    let kept = Kept {
        recorder: record.reacting(|moment, transport| {
            if matches!(moment, tulipa_testing::Moment::Data(b"stop")) {
                transport.pause_reading();
            }
            Ok(AfterEof::Close)
        }),
        messages: Rc::default(),
    };
    let messages = kept.messages.clone();
    let mut connection = Detached::new(LineReceiver::new(kept));
    connection.feed(b"one\r\nstop\r\ntwo\r\nstop\r\nthr");
    connection.feed(b"ee\r\n");
    connection.feed_eof();
    assert_eq!(*messages.borrow(), [&b"one"[..], b"stop"]);
    connection.transport().resume_reading();
    connection.run();
    assert_eq!(*messages.borrow(), [&b"one"[..], b"stop", b"two", b"stop"]);
    assert!(!record.is_eof(), "the end waits too");
    connection.transport().resume_reading();
    connection.run();
    assert_eq!(messages.borrow().last().map(Vec::as_slice), Some(&b"three"[..]));
    assert!(record.is_eof() && connection.is_over());
    record.assert_order();
}

#[test]
fn what_is_kept_comes_before_the_error_of_a_failed_write() {
    let record = Record::new();
    let mut connection = Detached::new(LineReceiver::new(Kept {
        recorder: record.reacting(|moment, transport| {
            if matches!(moment, tulipa_testing::Moment::Data(b"one")) {
                // It fails while it is being told, which is no reason to keep the rest from it.
                transport.write(&[0; 100_000]);
            }
            Ok(AfterEof::Close)
        }),
        messages: Rc::default(),
    }));
    connection.probe().feed(b"one\r\ntwo\r\nthree\r\n");
    connection.fail(io::ErrorKind::BrokenPipe.into());
    assert_eq!(record.bytes(), b"onetwothree");
    assert_eq!(record.error(), Some(io::ErrorKind::BrokenPipe));
    record.assert_order();
}

#[test]
fn nothing_comes_behind_a_close() {
    struct Closes(Rc<Cell<usize>>);
    impl LineProtocol for Closes {
        fn line_received(&mut self, transport: &Transport, _: &[u8]) -> io::Result<Next> {
            self.0.set(self.0.get() + 1);
            transport.close();
            Ok(Next::Lines)
        }
    }
    let count = Rc::new(Cell::new(0));
    let mut connection = Detached::new(LineReceiver::new(Closes(count.clone())));
    connection.feed(b"one\r\ntwo\r\n");
    assert!(connection.is_over());
    assert_eq!(count.get(), 1);
}

#[test]
fn the_next_protocol_gets_what_is_behind_the_line_at_which_it_takes_over() {
    struct HandsOn(Record);
    impl LineProtocol for HandsOn {
        fn line_received(&mut self, transport: &Transport, line: &[u8]) -> io::Result<Next> {
            assert_eq!(line, b"switch");
            transport.set_protocol(self.0.protocol(), &[]);
            Ok(Next::Lines)
        }
    }
    for size in [1, 3, 100] {
        let record = Record::after_made();
        let mut connection = Detached::new(LineReceiver::new(HandsOn(record.clone())));
        b"switch\r\nmore\r\nand more".chunks(size).for_each(|piece| connection.feed(piece));
        assert_eq!(record.bytes(), b"more\r\nand more");
        record.assert_order();
    }
}

/// A protocol that is asked to go on through a filter.
struct Secure {
    by_hand: bool,
    lines: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl LineProtocol for Secure {
    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> io::Result<Next> {
        self.lines.borrow_mut().push(line.to_vec());
        if line != b"STARTTLS" {
            return Ok(Next::Lines);
        }
        if self.by_hand {
            transport.upgrade(ToyRecords::server(), &[])?;
            return Ok(Next::Lines);
        }
        Ok(Next::Filter(Box::new(ToyRecords::server())))
    }
}

#[test]
fn what_is_behind_the_line_that_asks_for_a_filter_goes_through_the_filter() {
    for by_hand in [false, true] {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let protocol = Secure { by_hand, lines: lines.clone() };
        let mut connection = Detached::new(LineReceiver::new(protocol));
        // Somebody puts a line behind the other, in clear.
        connection.feed(b"STARTTLS\r\nINJECTED\r\n");
        connection.feed_eof();
        assert!(connection.is_over(), "it is no handshake");
        assert_eq!(*lines.borrow(), [b"STARTTLS"], "by hand: {by_hand}");
    }
}

#[test]
fn raw_bytes_that_nobody_takes_are_an_error() {
    struct Lines;
    impl LineProtocol for Lines {
        fn line_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<Next> {
            Ok(Next::Raw)
        }
    }
    let mut connection = Detached::new(LineReceiver::new(Lines).delimiter("|"));
    connection.feed(b"raw|");
    assert!(!connection.is_over());
    connection.feed(b"x");
    assert!(connection.is_over());
}

#[test]
fn the_mode_can_be_set_and_the_rest_taken_from_outside() {
    let mut connection = Detached::new(LineReceiver::new(Kept::new(&Record::new())));
    connection.feed(b"one\r\nrest");
    let receiver = connection.protocol::<LineReceiver<Kept>>().unwrap();
    assert_eq!(receiver.clear_line_buffer(), b"rest");
    assert_eq!(receiver.clear_line_buffer(), b"");
    receiver.set_raw_mode();
    receiver.set_line_mode();
    connection.feed(b"two\r\n");
    let receiver = connection.protocol::<LineReceiver<Kept>>().unwrap();
    assert_eq!(*receiver.get_mut().messages.borrow(), [&b"one"[..], b"two"]);
}

#[test]
fn what_is_sent_is_what_the_receivers_take() {
    let (transport, probe) = Transport::detached();
    CrlfLine::send(&transport, b"line");
    Netstring::send(&transport, b"");
    Int8::send(&transport, b"ab").unwrap();
    Int16::send(&transport, b"c").unwrap();
    Int32::send(&transport, b"").unwrap();
    assert_eq!(probe.written(), b"line\r\n0:,\x02ab\x00\x01c\x00\x00\x00\x00");
    let refused = Int8::send(&transport, &[0; 256]).unwrap_err();
    assert_eq!(refused.to_string(), "a string of 256 bytes is too long for a length of 1 bytes");
    assert_eq!(probe.written(), b"");
}

/// What a client sends, numbered so that a hole shows.
fn script(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("message {n} {}", "x".repeat(n * 7 % 90)).into_bytes()).collect()
}

/// Pauses now and then, and resumes itself later.
struct Moody(Kept);

impl Moody {
    fn mood(&self, transport: &Transport) {
        if self.0.messages.borrow().len() % 5 == 3 {
            transport.pause_reading();
            let transport = transport.clone();
            let handle = tulipa_loop::LoopHandle::current();
            handle.call_later(Duration::from_millis(20), move |_| transport.resume_reading());
        }
    }
}

impl LineProtocol for Moody {
    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> io::Result<Next> {
        self.0.message(transport, line)?;
        self.mood(transport);
        Ok(Next::Lines)
    }

    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        LineProtocol::connection_made(&mut self.0, transport)
    }

    fn eof_received(&mut self, transport: &Transport, rest: &[u8]) -> io::Result<AfterEof> {
        LineProtocol::eof_received(&mut self.0, transport, rest)
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        LineProtocol::connection_lost(&mut self.0, transport, error);
    }
}

impl StringProtocol for Moody {
    fn string_received(&mut self, transport: &Transport, string: &[u8]) -> io::Result<()> {
        self.0.message(transport, string)?;
        self.mood(transport);
        Ok(())
    }

    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        StringProtocol::connection_made(&mut self.0, transport)
    }

    fn eof_received(&mut self, transport: &Transport, rest: &[u8]) -> io::Result<AfterEof> {
        StringProtocol::eof_received(&mut self.0, transport, rest)
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        StringProtocol::connection_lost(&mut self.0, transport, error);
    }
}

/// A client that only talks.
struct Quiet;

impl Protocol for Quiet {
    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

type Send = fn(&Transport, &[u8]) -> Flow;

/// Sends a script to a receiver over many bad networks: what comes is the script, or the beginning of it if the
/// connection was broken.
fn arrives<P: Protocol + 'static>(make: fn(Moody) -> P, send: Send, one_byte: bool) {
    Simulation::new().seeds(60).run(move |sim| async move {
        if one_byte {
            sim.network().set_default_path(Path::new().chunking(Chunking::OneByte));
        }
        let (record, script) = (Record::new(), script(40));
        let messages = Rc::new(RefCell::new(Vec::new()));
        let factory = {
            let (record, messages) = (record.clone(), messages.clone());
            move || make(Moody(Kept { recorder: record.protocol(), messages: messages.clone() }))
        };
        let serving = sim.network().on("server", create_server(":7", factory));
        let server = serving.await.expect("an address");
        let client = create_connection("server:7", || Quiet).await;
        let mut broken = client.is_err();
        if let Ok(client) = client {
            for message in &script {
                // It may be broken already.
                let _ = send(client.transport(), message);
            }
            client.close();
            client.wait_closed().await;
            let address = client.local_addr().and_then(|address| address.inet());
            broken |= address.is_some_and(|address| sim.network().is_broken(address));
        }
        // Who has connected is accepted some day, when all is calm.
        sim.calm();
        tulipa_loop::sleep(Duration::from_secs(600)).await;
        server.close();
        server.wait_closed().await;
        let found = messages.borrow();
        assert!(script.starts_with(&found), "{} came", found.len());
        assert!(broken || found.len() == script.len(), "{} came of {}", found.len(), script.len());
        record.assert_order();
    });
}

#[test]
fn lines_arrive_over_bad_networks() {
    for one_byte in [false, true] {
        let send: Send = |transport, line| CrlfLine::send(transport, line);
        arrives(LineReceiver::new, send, one_byte);
        arrives(LineOnlyReceiver::new, send, one_byte);
    }
}

#[test]
fn netstrings_arrive_over_bad_networks() {
    for one_byte in [false, true] {
        let send: Send = |transport, s| Netstring::send(transport, s);
        arrives(NetstringReceiver::new, send, one_byte);
    }
}

#[test]
fn strings_behind_their_length_arrive_over_bad_networks() {
    for one_byte in [false, true] {
        let send: Send = |transport, s| Int8::send(transport, s).unwrap();
        arrives(Int8StringReceiver::new, send, one_byte);
        let send: Send = |transport, s| Int32::send(transport, s).unwrap();
        arrives(Int32StringReceiver::new, send, one_byte);
    }
}
