//! Waking a wait from another thread.
//!
//! The problem: a thread puts something into a queue and must be sure that the loop looks at the
//! queue, also when the loop is about to fall asleep in a system call; and it must not pay for a
//! system call when the loop is awake anyway, nor a thousand times when a thousand threads have
//! something to say.
//!
//! The trick is one byte that says whether the loop may be asleep and whether it has been called:
//!
//! | bit | meaning | set by | cleared by |
//! |---|---|---|---|
//! | `ASLEEP` | a wait may block, so a caller must ring | [`Doorbell::lie_down`] | [`Doorbell::get_up`] |
//! | `CALLED` | somebody called since the last `get_up` | [`Notifier::notify`] | [`Doorbell::get_up`] |
//! | `CLOSED` | nobody will ever wait again | [`Doorbell::close`] | never |
//!
//! Every access is a read-modify-write, so all threads agree on one order of them. A call that
//! comes before `lie_down` is seen by it, and the wait does not block. One that comes after it
//! sees `ASLEEP` and rings the bell, an `eventfd` for example, which ends the wait. Only the first
//! caller of a sleep rings: later ones see `CALLED`. Hence no call is lost, and there is at most one
//! ring for each sleep.
//!
//! A ring may arrive after the sleep that it was meant for has ended on its own. The next wait then
//! returns early with nothing, which every caller must allow for anyway.
//!
//! Where ringing fails, because a sandbox forbids the system call, the caller that tried is told, and
//! the next one tries again. A call that was coalesced with one that failed is told nothing.
//!
//! `notify` releases and `get_up` acquires: what a thread wrote before it notified is visible to
//! the loop after the wait that reports the notification.

use std::fmt;
use std::io;

#[cfg(all(test, loom))]
use loom::sync::{Arc as BellArc, atomic::AtomicU8};
#[cfg(not(all(test, loom)))]
use std::sync::{Arc as BellArc, atomic::AtomicU8};

use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};

use crate::error::{cannot, closed};

const ASLEEP: u8 = 1;
const CALLED: u8 = 2;
const CLOSED: u8 = 4;

/// How a sleeping wait is reached. For those who write a selector.
pub trait Ring: Send + Sync + fmt::Debug {
    /// Ends the current wait, or the next one if there is none at the moment.
    ///
    /// It may be called from any thread, also after the selector is gone.
    ///
    /// # Errors
    /// What the operating system says; the next [`Notifier::notify`] tries again.
    fn ring(&self) -> io::Result<()>;
}

#[derive(Debug)]
struct Bell<R: ?Sized> {
    state: AtomicU8,
    ring: R,
}

#[cfg(not(all(test, loom)))]
type SharedBell = BellArc<Bell<dyn Ring>>;
/// Loom's `Arc` cannot hold an unsized value.
#[cfg(all(test, loom))]
type SharedBell = BellArc<Bell<Box<dyn Ring>>>;

/// Ends the wait of one selector from any thread: the only part of a selector that others may hold.
///
/// It carries no message. Put what you have to say somewhere first, a queue or a flag, then notify.
///
/// ```
/// use tulipa_selector::{DefaultSelector, Events, Selector, Timeout};
///
/// let selector = DefaultSelector::new()?;
/// let notifier = selector.notifier();
/// let thread = std::thread::spawn(move || notifier.notify());
///
/// let mut events = Events::new();
/// while !events.is_notified() {
///     selector.select(&mut events, Timeout::Never)?;
/// }
/// thread.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Notifier {
    bell: SharedBell,
}

impl Notifier {
    /// Ends the current wait, or the next one if there is none at the moment.
    ///
    /// Calls are coalesced: any number of them before the selector's next wait count as one. One
    /// system call is made if the selector is asleep and nobody has called it yet, else none. It
    /// does not block, takes no lock with [`EpollSelector`](crate::EpollSelector), and may be
    /// called from any thread at any time.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) once the selector is closed: nobody will wake
    /// up. What the operating system says if it refuses the system call; the next call tries again.
    pub fn notify(&self) -> io::Result<()> {
        let before = self.bell.state.fetch_or(CALLED, AcqRel);
        if before & CLOSED != 0 {
            return Err(closed());
        }
        if before != ASLEEP {
            return Ok(());
        }
        self.bell.ring.ring().map_err(|cause| {
            // The next caller has to try again, or the wait would sleep through all of them.
            self.bell.state.fetch_and(!CALLED, Release);
            cannot("notify the selector", cause)
        })
    }
}

/// The selector's side of a [`Notifier`]. For those who write a selector.
///
/// Call [`lie_down`](Self::lie_down) before a wait that may block, and [`get_up`](Self::get_up)
/// after each wait.
#[derive(Debug)]
pub struct Doorbell {
    bell: SharedBell,
    /// What the state goes back to between waits: `ASLEEP` once a foreign main loop may sleep on
    /// our behalf, else 0.
    rest: std::cell::Cell<u8>,
}

impl Doorbell {
    /// A bell that rings `ring`.
    pub fn new(ring: impl Ring + 'static) -> Doorbell {
        #[cfg(all(test, loom))]
        let ring: Box<dyn Ring> = Box::new(ring);
        let bell = BellArc::new(Bell { state: AtomicU8::new(0), ring });
        Doorbell { bell, rest: std::cell::Cell::new(0) }
    }

    /// A handle for other threads.
    pub fn notifier(&self) -> Notifier {
        Notifier { bell: self.bell.clone() }
    }

    /// Says that a wait is about to block. If it returns `false` the wait must not block, because
    /// somebody has already called.
    #[must_use = "a wait that blocks after it was called misses the call"]
    pub fn lie_down(&self) -> bool {
        self.bell.state.fetch_or(ASLEEP, AcqRel) & CALLED == 0
    }

    /// Says that the wait is over, and whether somebody called since the last time.
    pub fn get_up(&self) -> bool {
        // A wait that did not block, with nobody calling, leaves nothing to change. A call that
        // this load misses is found by the next wait.
        if self.bell.state.load(Relaxed) == self.rest.get() {
            return false;
        }
        self.bell.state.swap(self.rest.get(), AcqRel) & CALLED != 0
    }

    /// From now on callers ring also between waits, because somebody else sleeps for us.
    ///
    /// # Errors
    /// What [`Ring::ring`] says, if there is a call to pass on.
    pub fn expose(&self) -> io::Result<()> {
        if self.rest.replace(ASLEEP) == ASLEEP {
            return Ok(());
        }
        if self.bell.state.fetch_or(ASLEEP, AcqRel) == CALLED {
            return self.bell.ring.ring();
        }
        Ok(())
    }

    /// Says that there will be no wait any more.
    pub fn close(&self) {
        self.bell.state.fetch_or(CLOSED, AcqRel);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug, Default, Clone)]
    struct Counter {
        rings: Arc<AtomicUsize>,
        refuse: Arc<std::sync::atomic::AtomicBool>,
    }

    impl Ring for Counter {
        fn ring(&self) -> io::Result<()> {
            if self.refuse.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.rings.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    fn bell() -> (Doorbell, Counter) {
        let counter = Counter::default();
        (Doorbell::new(counter.clone()), counter)
    }

    #[test]
    fn a_call_while_awake_rings_nothing_and_keeps_the_next_wait_from_blocking() {
        let (door, counter) = bell();
        door.notifier().notify().unwrap();
        assert!(!door.lie_down());
        assert!(door.get_up());
        assert!(door.lie_down(), "one call counts once");
        assert_eq!(counter.rings.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn b37_many_calls_in_one_sleep_ring_once() {
        let (door, counter) = bell();
        assert!(door.lie_down());
        for _ in 0..100 {
            door.notifier().notify().unwrap();
        }
        assert_eq!(counter.rings.load(Ordering::SeqCst), 1);
        assert!(door.get_up());
        assert!(!door.get_up());
    }

    #[test]
    fn b38_a_bell_that_cannot_ring_is_reported_by_every_call_and_tried_again() {
        let (door, counter) = bell();
        counter.refuse.store(true, Ordering::SeqCst);
        assert!(door.lie_down());
        for _ in 0..2 {
            let error = door.notifier().notify().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("notify the selector"), "{error}");
        }
        counter.refuse.store(false, Ordering::SeqCst);
        door.notifier().notify().unwrap();
        assert_eq!(counter.rings.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn b39_a_call_after_close_is_an_error_and_rings_nothing() {
        let (door, counter) = bell();
        let notifier = door.notifier();
        door.close();
        drop(door);
        for _ in 0..2 {
            assert_eq!(notifier.notify().unwrap_err().kind(), io::ErrorKind::NotConnected);
        }
        assert_eq!(counter.rings.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn an_exposed_bell_rings_between_waits_and_passes_an_earlier_call_on() {
        let (door, counter) = bell();
        door.notifier().notify().unwrap();
        door.expose().unwrap();
        assert_eq!(counter.rings.load(Ordering::SeqCst), 1);
        assert!(!door.lie_down());
        assert!(door.get_up());
        door.notifier().notify().unwrap();
        door.notifier().notify().unwrap();
        assert_eq!(counter.rings.load(Ordering::SeqCst), 2);
        door.expose().unwrap();
        assert_eq!(counter.rings.load(Ordering::SeqCst), 2);
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p tulipa-selector --lib loom`
#[cfg(all(test, loom))]
mod loom_tests;
