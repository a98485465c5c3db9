//! Tests for programs on an event loop.
//!
//! A [`TestRunner`] runs one test on a loop of its own, in real or in virtual time, and finds what the test
//! leaves behind; `#[tulipa::test]` of the crate `tulipa` is the short way to write that.
//!
//! ```
//! use std::time::Duration;
//! use tulipa_loop::{sleep, timeout};
//! use tulipa_testing::{Clock, TestRunner, elapsed};
//!
//! TestRunner::new().clock(Clock::Autojump).run(async {
//!     let answer = timeout(Duration::from_secs(30), sleep(Duration::from_secs(60))).await;
//!     assert!(answer.is_err());
//!     assert_eq!(elapsed(), Duration::from_secs(30)); // of virtual time: it took microseconds
//! });
//! ```
//!
//! A [`VirtualLoop`] is the loop alone, for tests that look at it from outside.
//!
//! ```
//! use std::cell::Cell;
//! use std::rc::Rc;
//! use std::time::Duration;
//! use tulipa_testing::VirtualLoop;
//!
//! let virtual_loop = VirtualLoop::new();
//! let fired = Rc::new(Cell::new(false));
//! virtual_loop.call_later(Duration::from_secs(3600), {
//!     let fired = fired.clone();
//!     move |_| fired.set(true)
//! });
//! virtual_loop.advance(Duration::from_secs(3599));
//! assert!(!fired.get());
//! virtual_loop.advance(Duration::from_secs(1));
//! assert!(fired.get());
//! ```
//!
//! Whoever writes a link or a filter runs `check_transport` on it, on unix. A `Record` writes down what protocols are told and
//! checks the order of it; a `MemoryLink` connects two of them in virtual time.
//!
//! # Limits
//! Virtual time has no descriptors: readers need a real clock, and what makes connections needs a
//! [`MemoryNetwork`]. What is about protocols is there on unix.
//!
//! # Map
//! | module | what is in it |
//! |---|---|
//! | `test_runner` | [`TestRunner`], [`Clock`]: what fails a test |
//! | `clock` | [`advance()`], [`elapsed`], [`world`]: for use inside of a test |
//! | `stage` | the loop of a test, and how it is driven |
//! | `leaks` | what is pending on a loop, in words |
//! | `virtual_loop` | [`VirtualLoop`] |
//! | `network` | [`MemoryNetwork`], [`Path`]; [`Fault`], [`Faults`] |
//! | `simulation` | [`Simulation`], [`Sim`], [`Sabotage`]: a program with many seeds |
//! | `random`, `trace` | [`Random`] numbers of a seed; the [`Trace`] of what happened |
//! | `transport` | [`check_transport`], [`Record`], [`Checked`], [`MemoryLink`], [`ToyRecords`] |
//! | `selector` | [`check_selector`], [`selector_tests!`] |
//! | `stream` | [`check_stream`]: what streams of any library have to do |
//! | `mock`, `scripted`, `test_selector` | [`AsyncMock`]; [`ScriptedSocket`]; [`TestSelector`] |
//! | `chaos` | [`chaos_proxy`]: a bad network for real sockets |

#![forbid(unsafe_code)]

#[cfg(unix)]
mod chaos;
mod clock;
#[cfg(unix)]
mod datagram;
mod leaks;
mod mock;
#[cfg(unix)]
mod network;
mod random;
#[cfg(unix)]
mod scripted;
mod selector;
#[cfg(unix)]
mod simulation;
mod stage;
mod stream;
mod test_runner;
mod test_selector;
#[cfg(unix)]
mod trace;
#[cfg(unix)]
mod transport;
mod virtual_loop;

#[cfg(unix)]
pub use chaos::{Chaos, ChaosProtocol, chaos_proxy};
pub use clock::{Advance, advance, elapsed, world};
#[cfg(unix)]
pub use datagram::{
    DatagramBench, DatagramCall, DatagramMoment, DatagramRecord, DatagramRecorder, check_datagrams,
};
pub use mock::AsyncMock;
#[cfg(unix)]
pub use network::{
    Chunking, Fault, FaultCounts, Faults, MemoryNetwork, NetworkLink, NetworkListener, Path,
};
pub use random::Random;
#[cfg(unix)]
pub use scripted::ScriptedSocket;
pub use selector::{Seen, SelectorKind, SelectorWorld, Wire, assert_not_early, check_selector};
#[cfg(unix)]
pub use simulation::{DEFAULT_SEEDS, Sabotage, Sim, Simulation, Summary, simulate};
pub use stream::{
    StreamCheck, check_half_closeable_stream, check_one_way_stream, check_stream,
    check_two_way_stream,
};
pub use test_runner::{Clock, DEFAULT_TIMEOUT, TestOutcome, TestRunner};
pub use test_selector::{Mocks, TestSelector};
#[cfg(unix)]
pub use trace::Trace;
#[cfg(unix)]
pub use transport::{
    Call, Checked, Counts, MemoryLink, Moment, Pair, Record, Recorder, ToyRecords, TransportBench,
    check_transport,
};
pub use virtual_loop::VirtualLoop;

/// For `#[tulipa::test]`. Not part of the interface: it changes with any version.
#[doc(hidden)]
pub mod __private {
    pub use crate::{Clock, TestRunner};

    /// The checks, for `selector_tests`.
    pub mod selector {
        pub use crate::selector::{behaviours, notices};
    }
}
