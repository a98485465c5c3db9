//! The conformance suite for transports: what every link and every filter has to let through.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::{ErrorContext, EventLoop, LoopHandle};
use tulipa_protocols::{AfterEof, Connection};

use super::checks;
use super::record::{Moment, Record, Recorder};

/// Two connected protocols.
pub type Pair = (Connection<Recorder>, Connection<Recorder>);

/// How a kind of transport is made, for [`check_transport`].
pub trait TransportBench {
    /// The loop that everything runs on.
    fn event_loop(&self) -> &EventLoop;

    /// Connects two protocols to each other. The connections need not be made yet.
    ///
    /// # Errors
    /// What fails the check.
    fn connect(&self, near: Recorder, far: Recorder) -> io::Result<Pair>;

    /// Lets time go by. The default is for a loop in real time.
    fn pass(&self, duration: Duration) {
        let event_loop = self.event_loop();
        event_loop.call_later(duration, LoopHandle::stop);
        event_loop.run_forever().expect("the loop runs");
    }

    /// Whether the peer of a transport that is [`reset`](tulipa_protocols::Transport::reset) sees an error
    /// rather than an end.
    fn shows_resets(&self) -> bool {
        true
    }
}

/// Runs every check on transports of one kind, from both sides. `bench` makes a new bench for each.
///
/// ```
/// use std::io;
/// use std::os::unix::net::UnixStream;
/// use tulipa_loop::EventLoop;
/// use tulipa_protocols::{SocketLink, attach};
/// use tulipa_testing::{Pair, Recorder, TransportBench, check_transport};
///
/// struct Sockets(EventLoop);
///
/// impl TransportBench for Sockets {
///     fn event_loop(&self) -> &EventLoop {
///         &self.0
///     }
///
///     fn connect(&self, near: Recorder, far: Recorder) -> io::Result<Pair> {
///         let (one, other) = UnixStream::pair()?;
///         let handle = self.0.handle();
///         let near = attach(&handle, SocketLink::adopt(one)?, near)?;
///         let far = attach(&handle, SocketLink::adopt(other)?, far)?;
///         Ok((near, far))
///     }
///
///     fn shows_resets(&self) -> bool {
///         false // Unix sockets have none
///     }
/// }
///
/// check_transport(|| Sockets(EventLoop::new().unwrap()));
/// ```
///
/// # Panics
/// When a check fails, with its name.
pub fn check_transport<B: TransportBench>(bench: impl Fn() -> B) {
    for (name, check) in checks::ALL {
        for swapped in [false, true] {
            run(&bench(), swapped, name, *check);
        }
    }
}

/// A check.
pub(crate) type Check = fn(&Stage<'_>);

fn run(bench: &dyn TransportBench, swapped: bool, name: &'static str, check: Check) {
    let reports = Rc::new(RefCell::new(Vec::new()));
    let journal = reports.clone();
    let event_loop = bench.event_loop();
    event_loop.set_exception_handler(Some(Rc::new(
        move |_: &LoopHandle, context: &ErrorContext| {
            journal.borrow_mut().push(context.to_string());
        },
    )));
    let stage = Stage { bench, swapped, name, records: RefCell::default(), panics: Cell::new(0) };
    check(&stage);
    stage.end();
    let reports = reports.take();
    let (expected, others): (Vec<_>, Vec<_>) =
        reports.iter().partition(|report| report.contains(EXPECTED));
    assert!(others.is_empty(), "{name}: {others:?}");
    assert_eq!(expected.len(), stage.panics.get(), "{name}: panics that were reported");
}

/// What panics say that a check makes.
const EXPECTED: &str = "a panic that the check makes";

/// A turn waits for so long at most; a check waits for so long before it fails.
const TURN: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_TURNS: usize = 3_000_000;

/// How often it is looked whether the loop sleeps.
const MOST_LOOKS: usize = 10;

/// What a check works with.
pub(crate) struct Stage<'a> {
    bench: &'a dyn TransportBench,
    swapped: bool,
    name: &'static str,
    records: RefCell<Vec<Record>>,
    panics: Cell<usize>,
}

/// One end of a connection.
pub(crate) struct End {
    pub(crate) record: Record,
    pub(crate) connection: Connection<Recorder>,
}

impl std::ops::Deref for End {
    type Target = Connection<Recorder>;

    fn deref(&self) -> &Connection<Recorder> {
        &self.connection
    }
}

impl Stage<'_> {
    pub(crate) fn event_loop(&self) -> &EventLoop {
        self.bench.event_loop()
    }

    pub(crate) fn is_swapped(&self) -> bool {
        self.swapped
    }

    pub(crate) fn shows_resets(&self) -> bool {
        self.bench.shows_resets()
    }

    /// A record that is checked at the end.
    pub(crate) fn record(&self) -> Record {
        let record = Record::new();
        self.records.borrow_mut().push(record.clone());
        record
    }

    /// A connection between two protocols that were made of records.
    pub(crate) fn connect(&self, near: Recorder, far: Recorder) -> (End, End) {
        let records = (near.record().clone(), far.record().clone());
        let connected = if self.swapped {
            self.bench.connect(far, near).map(|(far, near)| (near, far))
        } else {
            self.bench.connect(near, far)
        };
        let (near, far) = match connected {
            Ok(pair) => pair,
            Err(error) => panic!("{}: cannot connect: {error}", self.name),
        };
        (End { record: records.0, connection: near }, End { record: records.1, connection: far })
    }

    /// A connection that is made, with two protocols that only write down.
    pub(crate) fn quiet(&self) -> (End, End) {
        self.with(|_, _| Ok(AfterEof::KeepOpen))
    }

    /// A connection that is made, with a protocol that reacts and one that keeps its side open.
    pub(crate) fn with(
        &self,
        react: impl FnMut(Moment<'_>, &tulipa_protocols::Transport) -> io::Result<AfterEof> + 'static,
    ) -> (End, End) {
        let (near, far) = (self.record(), self.record());
        let near = near.reacting(react);
        let far = far.reacting(|_, _| Ok(AfterEof::KeepOpen));
        let (near, far) = self.connect(near, far);
        self.until("both are connected", || near.record.is_made() && far.record.is_made());
        (near, far)
    }

    /// Runs the loop until something is true.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, done: impl Fn() -> bool) {
        let event_loop = self.event_loop();
        let started = event_loop.time();
        for _ in 0..MOST_TURNS {
            if done() {
                return;
            }
            event_loop.run_once(TURN).expect("the loop runs");
            if event_loop.time() - started > PATIENCE {
                break;
            }
        }
        let records = self.records.borrow();
        panic!("{}: it never comes to be that {what}: {records:?}", self.name);
    }

    /// Runs the loop until nothing happens any more.
    #[track_caller]
    pub(crate) fn settle(&self) {
        let event_loop = self.event_loop();
        let mut quiet = 0;
        for _ in 0..MOST_TURNS {
            let before = event_loop.statistics();
            event_loop.run_once(Duration::from_millis(2)).expect("the loop runs");
            let after = event_loop.statistics();
            let now = event_loop.time();
            let at_work = event_loop.next_deadline().is_some_and(|next| next <= now);
            let same = !at_work && before.events == after.events;
            quiet = if same { quiet + 1 } else { 0 };
            if quiet >= 3 {
                return;
            }
        }
        panic!("{}: the loop is never quiet", self.name);
    }

    /// Checks that the loop sleeps when nothing happens.
    #[track_caller]
    pub(crate) fn assert_sleeps(&self) {
        // The operating system may be late with something; a loop that spins is never quiet.
        let mut seen = (0, 0);
        for _ in 0..MOST_LOOKS {
            self.settle();
            let before = self.event_loop().statistics();
            self.bench.pass(Duration::from_millis(10));
            let after = self.event_loop().statistics();
            seen = (after.turns - before.turns, after.events - before.events);
            if seen.0 <= 4 && seen.1 == 0 {
                return;
            }
        }
        let (turns, events) = seen;
        panic!("{}: {turns} turns and {events} events while nothing happens", self.name);
    }

    pub(crate) fn pass(&self, duration: Duration) {
        self.bench.pass(duration);
    }

    /// Panics in a way that the check expects to be reported.
    pub(crate) fn expect_panics(&self, count: usize) {
        self.panics.set(self.panics.get() + count);
    }

    /// Everything that was connected is over, or is ended now; its order was right.
    fn end(&self) {
        for record in self.records.borrow().iter() {
            let violations = record.violations();
            assert!(violations.is_empty(), "{}: {violations:?} in {record:?}", self.name);
        }
    }
}

/// Panics without the message on the standard error.
pub(crate) fn panic_as_expected() -> ! {
    std::panic::resume_unwind(Box::new(EXPECTED))
}

/// Bytes of which no two stretches are alike.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(8) as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes: Vec<_> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(length);
    bytes
}

impl fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("name", &self.name).finish_non_exhaustive()
    }
}
