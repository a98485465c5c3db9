//! The conformance suite for datagram endpoints: what every network has to let through.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::{ErrorContext, EventLoop, LoopHandle};
use tulipa_protocols::{
    Address, DatagramEndpoint, DatagramTransport, Flow, Unavailable, WriteBufferLimits,
};

use super::record::{DatagramCall, DatagramMoment, DatagramRecord, DatagramRecorder};

/// How a kind of datagram endpoint is made, for [`check_datagrams`]. Nothing is lost between the two unless they
/// send more than a socket holds.
pub trait DatagramBench {
    /// The loop that everything runs on.
    fn event_loop(&self) -> &EventLoop;

    /// Makes an endpoint at an address of its own, to and from anybody.
    ///
    /// # Errors
    /// What fails the check.
    fn open(&self, protocol: DatagramRecorder) -> io::Result<DatagramEndpoint<DatagramRecorder>>;

    /// Makes one that is connected to an address, and has one of its own.
    ///
    /// # Errors
    /// What fails the check.
    fn connect(
        &self,
        protocol: DatagramRecorder,
        to: &Address,
    ) -> io::Result<DatagramEndpoint<DatagramRecorder>>;
}

/// What panics say that a check makes.
const EXPECTED: &str = "a panic that the check makes";

/// A turn waits for so long at most; a check waits for so many turns before it fails.
const TURN: Duration = Duration::from_millis(20);
const MOST_TURNS: usize = 10_000;

/// How many quiet turns in a row are taken for the end of everything.
const QUIET: usize = 3;

/// Runs every check on datagram endpoints of one kind. `bench` makes a new bench for each.
///
/// # Panics
/// When a check fails, with its name.
pub fn check_datagrams<B: DatagramBench>(bench: impl Fn() -> B) {
    for (name, check) in ALL {
        let bench = bench();
        let reports = Rc::new(RefCell::new(Vec::new()));
        let journal = reports.clone();
        let handler = move |_: &LoopHandle, context: &ErrorContext| {
            journal.borrow_mut().push(context.to_string());
        };
        bench.event_loop().set_exception_handler(Some(Rc::new(handler)));
        let stage =
            Stage { bench: &bench, name, records: RefCell::default(), panics: Cell::new(0) };
        check(&stage);
        stage.end();
        let reports = reports.take();
        let (expected, others): (Vec<_>, Vec<_>) =
            reports.iter().partition(|report| report.contains(EXPECTED));
        assert!(others.is_empty(), "{name}: {others:?}");
        assert_eq!(expected.len(), stage.panics.get(), "{name}: panics that were reported");
    }
}

type Check = fn(&Stage<'_>);

const ALL: &[(&str, Check)] = &[
    ("whole_datagrams_arrive_with_their_sender", whole),
    ("empty_ones_arrive", empty),
    ("what_is_sent_in_connection_made_arrives", sent_when_made),
    ("a_connected_endpoint_needs_no_address", connected),
    ("a_burst_keeps_its_order", burst),
    ("a_close_sends_what_is_queued", close_flushes),
    ("an_abort_drops_what_is_queued", abort_drops),
    ("a_close_receives_no_more", close_receives_no_more),
    ("everything_after_the_end_does_nothing", after_the_end),
    ("pause_and_resume_alternate", alternate),
    ("ending_inside_of_every_callback_ends_once", ends_inside),
    ("errors_and_panics_of_every_callback_end_once", failures),
    ("a_misaddressed_datagram_is_told", misaddressed),
    ("the_protocol_is_reached_through_its_endpoint", reached),
    ("a_closed_loop_tells_the_end", closed_loop),
];

struct Stage<'a> {
    bench: &'a dyn DatagramBench,
    name: &'static str,
    records: RefCell<Vec<DatagramRecord>>,
    panics: Cell<usize>,
}

type Endpoint = DatagramEndpoint<DatagramRecorder>;

impl Stage<'_> {
    fn record(&self) -> DatagramRecord {
        let record = DatagramRecord::new();
        self.records.borrow_mut().push(record.clone());
        record
    }

    fn open(&self) -> (DatagramRecord, Endpoint, Address) {
        self.reacting(|_, _| Ok(()))
    }

    fn reacting(
        &self,
        react: impl FnMut(DatagramMoment<'_>, &DatagramTransport) -> io::Result<()> + 'static,
    ) -> (DatagramRecord, Endpoint, Address) {
        let record = self.record();
        let endpoint = self.bench.open(record.reacting(react));
        let endpoint = endpoint.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let address = endpoint.local_addr().expect("it has an address");
        (record, endpoint, address)
    }

    fn connect(&self, to: &Address) -> (DatagramRecord, Endpoint) {
        let record = self.record();
        let endpoint = self.bench.connect(record.protocol(), to);
        (record, endpoint.unwrap_or_else(|error| panic!("{}: {error}", self.name)))
    }

    #[track_caller]
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        for _ in 0..MOST_TURNS {
            if done() {
                return;
            }
            self.bench.event_loop().run_once(TURN).expect("a turn");
        }
        panic!("{}: never {what}", self.name);
    }

    fn settle(&self) {
        let event_loop = self.bench.event_loop();
        let mut quiet = 0;
        for _ in 0..MOST_TURNS {
            let before = event_loop.statistics();
            event_loop.run_once(TURN).expect("a turn");
            let after = event_loop.statistics();
            let busy = before.events != after.events || before.callbacks != after.callbacks;
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet >= QUIET {
                return;
            }
        }
        panic!("{}: the loop is never quiet", self.name);
    }

    /// Ends what a check has left open, and looks at what everybody was told.
    fn end(&self) {
        let event_loop = self.bench.event_loop();
        if !event_loop.is_closed() {
            event_loop.close().expect("it is not running");
        }
        for record in self.records.borrow().iter() {
            record.assert_order();
            assert!(!record.is_made() || record.is_lost(), "{}: each is told the end", self.name);
            assert_eq!(record.alive(), 0, "{}: each protocol is dropped", self.name);
        }
    }
}

fn whole(stage: &Stage<'_>) {
    let ((one, near, here), (other, far, there)) = (stage.open(), stage.open());
    assert_eq!(near.send_to(b"to", &there), Flow::Ready);
    stage.until("a datagram", || other.count() == 1);
    assert_eq!((other.datagrams(), other.senders()), (vec![b"to".to_vec()], vec![here.clone()]));
    far.send_to(&[7; 1400], &here);
    stage.until("an answer", || one.count() == 1);
    assert_eq!(one.datagrams(), [vec![7; 1400]]);
    assert_eq!((near.local_addr(), near.peer_addr()), (Some(here), None));
}

fn empty(stage: &Stage<'_>) {
    let ((_, near, _), (other, _far, there)) = (stage.open(), stage.open());
    for data in [&b""[..], b"x", b"", b""] {
        near.send_to(data, &there);
    }
    stage.until("all of them", || other.count() == 4);
    assert_eq!(other.datagrams(), [&b""[..], b"x", b"", b""]);
}

fn sent_when_made(stage: &Stage<'_>) {
    let (other, _far, there) = stage.open();
    let (_one, _near, here) = stage.reacting(move |moment, transport| {
        if matches!(moment, DatagramMoment::Made) {
            transport.send_to(b"first", &there);
        }
        Ok(())
    });
    stage.until("the first", || other.count() == 1);
    assert_eq!(other.senders(), [here]);
}

fn connected(stage: &Stage<'_>) {
    let (server, _endpoint, there) = stage.reacting(|moment, transport| {
        if let DatagramMoment::Datagram(data, from) = moment {
            transport.send_to(data, from);
        }
        Ok(())
    });
    let (client, near) = stage.connect(&there);
    assert_eq!(near.peer_addr(), Some(there.clone()));
    near.send(b"one");
    near.send_to(b"two", &there);
    stage.until("both", || client.count() == 2);
    assert_eq!(client.senders(), [there.clone(), there]);
    assert_eq!(server.datagrams(), [b"one", b"two"]);
}

fn burst(stage: &Stage<'_>) {
    let ((one, near, _), (other, _far, there)) = (stage.open(), stage.open());
    for number in 0..100_u8 {
        near.send_to(&[number; 10], &there);
    }
    stage.until("all of them", || other.count() == 100);
    let expected: Vec<_> = (0..100_u8).map(|number| vec![number; 10]).collect();
    assert_eq!(other.datagrams(), expected);
    assert!(one.errors().is_empty());
    assert_eq!(near.get_write_buffer_size(), 0);
}

fn close_flushes(stage: &Stage<'_>) {
    let ((one, near, here), (other, _far, there)) = (stage.open(), stage.open());
    for number in 0..50_u8 {
        near.send_to(&[number], &there);
    }
    near.close();
    assert!(near.is_closing());
    assert_eq!(near.send_to(b"late", &there), Flow::Closed);
    stage.until("the end", || one.is_lost());
    stage.until("all of them", || other.count() == 50);
    assert_eq!(one.calls(), [DatagramCall::Made, DatagramCall::Lost(None)]);
    assert_eq!(near.local_addr(), Some(here));
}

fn abort_drops(stage: &Stage<'_>) {
    let ((one, near, _), (other, _far, there)) = (stage.open(), stage.open());
    near.send_to(b"dropped", &there);
    near.abort();
    assert_eq!(near.get_write_buffer_size(), 0);
    stage.until("the end", || one.is_lost());
    stage.settle();
    assert_eq!(other.count(), 0);
}

fn close_receives_no_more(stage: &Stage<'_>) {
    let (other, _far, there) = stage.reacting(|moment, transport| {
        if matches!(moment, DatagramMoment::Datagram(..)) {
            transport.close();
        }
        Ok(())
    });
    let (_, near, _) = stage.open();
    for _ in 0..3 {
        near.send_to(b"x", &there);
    }
    stage.until("the end", || other.is_lost());
    stage.settle();
    assert_eq!(other.count(), 1);
}

fn after_the_end(stage: &Stage<'_>) {
    let (one, near, here) = stage.open();
    near.close();
    stage.until("the end", || one.is_lost());
    let before = one.calls();
    near.close();
    near.abort();
    assert_eq!((near.send(b"x"), near.send_to(b"x", &here)), (Flow::Closed, Flow::Closed));
    near.set_write_buffer_limits(WriteBufferLimits { low: 0, high: 0 });
    let error = near.try_receive(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    assert!(near.is_closing() && near.is_readable());
    assert_eq!(near.with_fd(|_| ()).unwrap_err().kind(), io::ErrorKind::NotConnected);
    assert!(matches!(near.with(|_, _| ()), Err(Unavailable::Closed)));
    stage.settle();
    assert_eq!((one.calls(), near.get_write_buffer_size()), (before, 0));
}

fn alternate(stage: &Stage<'_>) {
    let ((one, near, _), (_other, _far, there)) = (stage.open(), stage.open());
    near.set_write_buffer_limits(WriteBufferLimits { low: 0, high: 0 });
    for _ in 0..20 {
        // Some find no room, and are lost where a network loses them.
        for _ in 0..20 {
            near.send_to(&[1; 500], &there);
        }
        stage.settle();
    }
    stage.until("rest", || near.get_write_buffer_size() == 0);
    stage.settle();
    assert!(!one.is_paused());
}

/// Each callback that an endpoint can be told in the check, with what makes it come.
const MOMENTS: [&str; 4] = ["made", "datagram", "error", "lost"];

fn name_of(moment: &DatagramMoment<'_>) -> &'static str {
    match moment {
        DatagramMoment::Made => "made",
        DatagramMoment::Datagram(..) => "datagram",
        DatagramMoment::Error(_) => "error",
        DatagramMoment::Lost(_) => "lost",
        _ => "other",
    }
}

/// Runs an endpoint through all of its callbacks, with one of them doing something.
fn in_each(
    stage: &Stage<'_>,
    act: impl Fn(&DatagramTransport) -> io::Result<()> + Clone + 'static,
) -> Vec<(&'static str, DatagramRecord)> {
    let mut records = Vec::new();
    for wanted in MOMENTS {
        let act = act.clone();
        let (record, endpoint, own) =
            stage.reacting(
                move |moment, transport| {
                    if name_of(&moment) == wanted { act(transport) } else { Ok(()) }
                },
            );
        endpoint.send_to(b"to itself", &own);
        // Longer than any network takes.
        endpoint.send_to(&vec![0; 1 << 20], &own);
        stage.settle();
        endpoint.close();
        stage.until("the end", || record.is_lost());
        stage.settle();
        let lost = |call: &&DatagramCall| matches!(call, DatagramCall::Lost(_));
        assert_eq!(record.calls().iter().filter(lost).count(), 1, "{}: {wanted}", stage.name);
        records.push((wanted, record));
    }
    records
}

fn ends_inside(stage: &Stage<'_>) {
    for abort in [false, true] {
        let records = in_each(stage, move |transport| {
            let own = transport.local_addr().unwrap_or(Address::Unnamed);
            transport.send_to(b"more", &own);
            if abort {
                transport.abort()
            } else {
                transport.close()
            }
            transport.send_to(b"too late", &own);
            transport.close();
            transport.abort();
            Ok(())
        });
        for (wanted, record) in records {
            let last = record.calls().last().cloned();
            assert_eq!(last, Some(DatagramCall::Lost(None)), "{}: {wanted}", stage.name);
        }
    }
}

fn failures(stage: &Stage<'_>) {
    let failed = in_each(stage, |_| Err(io::Error::other("the check's")));
    for (wanted, record) in failed {
        let error = (wanted != "lost").then_some(io::ErrorKind::Other);
        assert_eq!(record.calls().last(), Some(&DatagramCall::Lost(error)), "{wanted}");
    }
    let panicked = in_each(stage, |_| panic!("{EXPECTED}"));
    stage.panics.set(panicked.len());
    for (wanted, record) in panicked {
        let error = (wanted != "lost").then_some(io::ErrorKind::Other);
        assert_eq!(record.calls().last(), Some(&DatagramCall::Lost(error)), "{wanted}");
    }
}

fn misaddressed(stage: &Stage<'_>) {
    let ((one, near, _), (other, _far, there)) = (stage.open(), stage.open());
    near.send(b"to whom");
    near.send_to(b"to nobody", &Address::Unnamed);
    near.send_to(b"to somebody", &there);
    stage.until("the good one", || other.count() == 1);
    stage.until("two errors", || one.errors().len() == 2);
    assert!(one.errors()[1].contains("cannot send to unix:"), "{:?}", one.errors());
    assert!(!near.is_closing());
}

fn reached(stage: &Stage<'_>) {
    let ((_, near, here), (other, _far, there)) = (stage.open(), stage.open());
    let inner = Rc::new(RefCell::new(None));
    let own = near.clone();
    let seen = inner.clone();
    near.post(move |_, transport| {
        *seen.borrow_mut() = Some(own.with(|_, _| ()));
        transport.send_to(b"posted", &there);
    });
    stage.until("what was posted", || other.count() == 1);
    assert!(matches!(*inner.borrow(), Some(Err(Unavailable::Busy))));
    assert_eq!(near.with(|_, transport| transport.local_addr()), Ok(Some(here)));
}

fn closed_loop(stage: &Stage<'_>) {
    let (one, near, here) = stage.open();
    near.send_to(b"x", &here);
    stage.bench.event_loop().close().expect("it is not running");
    let last = one.calls().last().cloned();
    assert_eq!(last, Some(DatagramCall::Lost(Some(io::ErrorKind::ConnectionAborted))));
    assert_eq!(near.send(b"x"), Flow::Closed);
}
