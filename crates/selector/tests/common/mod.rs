//! What the test suites share: the selectors under test, wires that can be made ready, and waits
//! that cannot hang.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part of it")]

pub mod behaviours;
#[cfg(all(unix, not(miri)))]
pub mod child;
pub mod notices;
#[cfg(all(unix, not(miri)))]
pub mod os;

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tulipa_selector::{
    Events, Hold, Interest, Readiness, Registration, Selector, Source, Timeout, VirtualHandle,
    VirtualId, VirtualSelector,
};

/// How long something may take that should take no time. No test passes because of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A selector under test.
pub trait Kind {
    /// The module in which its tests are.
    const NAME: &'static str;
    /// Whether epoll is what it stands on: priority events, a descriptor of its own.
    const EPOLL: bool = false;
    /// Whether it never reports more than an [`Events`] has room for.
    const BOUNDED: bool = true;

    fn world() -> World;
}

/// A selector, and what is needed to make something happen.
pub struct World {
    pub selector: Box<dyn Selector>,
    handle: Option<VirtualHandle>,
    pub events: Events,
}

/// What one event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub data: u64,
    pub ready: Interest,
    pub hangup: bool,
    pub error: bool,
}

impl World {
    pub fn new(selector: impl Selector + 'static) -> World {
        World { selector: Box::new(selector), handle: None, events: Events::new() }
    }

    /// A source that is writable and can be made readable.
    pub fn wire(&self) -> Wire {
        match &self.handle {
            Some(handle) => Wire::virtual_in(handle),
            None => Wire::real(),
        }
    }

    /// Makes the wire's source known to the selector.
    pub fn register(&self, wire: &Wire, interest: Interest, data: u64) -> Registration {
        self.selector.register(wire.source(), interest, data).expect("a wire can be registered")
    }

    /// Keeps virtual time from jumping while another thread is at work.
    pub fn hold(&self) -> Option<Hold> {
        self.handle.as_ref().map(VirtualHandle::hold)
    }

    pub fn select(&mut self, timeout: impl Into<Timeout>) -> io::Result<()> {
        self.selector.select(&mut self.events, timeout.into())
    }

    /// What is ready at this moment, by data.
    pub fn look(&mut self) -> Vec<Seen> {
        self.select(Timeout::Immediate).expect("looking never fails");
        self.seen()
    }

    /// What is ready at this moment, nothing but the data.
    pub fn who(&mut self) -> Vec<u64> {
        self.look().iter().map(|seen| seen.data).collect()
    }

    /// What the last wait brought and is still wanted, by data.
    pub fn seen(&self) -> Vec<Seen> {
        let mut seen: Vec<_> = self
            .events
            .iter()
            .map(|event| Seen {
                data: event.data(),
                ready: event.ready(),
                hangup: event.is_hangup(),
                error: event.is_error(),
            })
            .collect();
        seen.sort_by_key(|seen| seen.data);
        seen
    }

    /// Waits until something that is asked for has come, for things that the kernel does in its
    /// own time.
    pub fn until(&mut self, mut enough: impl FnMut(&World) -> bool) {
        let deadline = self.selector.now() + PATIENCE;
        while self.selector.now() < deadline {
            self.select(Timeout::At(deadline)).expect("waiting never fails");
            if enough(self) {
                return;
            }
        }
        panic!("it did not happen: {:?}", self.seen());
    }

    /// Waits for one event and returns it.
    pub fn next(&mut self) -> Seen {
        self.until(|world| !world.seen().is_empty());
        self.seen()[0]
    }
}

/// One source and the means to make it ready.
pub enum Wire {
    #[cfg(unix)]
    Real {
        ours: std::rc::Rc<std::os::unix::net::UnixStream>,
        theirs: std::os::unix::net::UnixStream,
    },
    Virtual {
        handle: VirtualHandle,
        id: VirtualId,
    },
}

impl Wire {
    #[cfg(unix)]
    pub fn real() -> Wire {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("a non-blocking socket");
        theirs.set_nonblocking(true).expect("a non-blocking socket");
        Wire::Real { ours: std::rc::Rc::new(ours), theirs }
    }

    #[cfg(not(unix))]
    pub fn real() -> Wire {
        unreachable!("these tests of real selectors are for unix")
    }

    pub fn virtual_in(handle: &VirtualHandle) -> Wire {
        let id = handle.new_source();
        handle.set_ready(id, Readiness::WRITABLE);
        Wire::Virtual { handle: handle.clone(), id }
    }

    pub fn source(&self) -> Source {
        match self {
            #[cfg(unix)]
            Wire::Real { ours, .. } => ours.clone().into(),
            Wire::Virtual { id, .. } => (*id).into(),
        }
    }

    /// The other side sends something.
    pub fn send(&self) {
        match self {
            #[cfg(unix)]
            Wire::Real { theirs, .. } => {
                io::Write::write_all(&mut &*theirs, b"!").expect("room for one byte");
            }
            Wire::Virtual { handle, id } => {
                handle.set_ready(*id, handle.readiness(*id) | Readiness::READABLE);
            }
        }
    }

    /// We read all that the other side has sent.
    pub fn receive(&self) {
        match self {
            #[cfg(unix)]
            Wire::Real { ours, .. } => {
                let mut buffer = [0; 64];
                while io::Read::read(&mut &**ours, &mut buffer).is_ok_and(|count| count > 0) {}
            }
            Wire::Virtual { handle, id } => {
                handle.set_ready(*id, handle.readiness(*id) - Readiness::READABLE);
            }
        }
    }

    /// The other side goes away.
    pub fn hang_up(self) -> Source {
        let source = self.source();
        if let Wire::Virtual { handle, id } = &self {
            let gone = Readiness::READABLE | Readiness::WRITABLE | Readiness::HANGUP;
            handle.set_ready(*id, gone);
        }
        source
    }
}

/// Runs something that could hang in a thread of its own and panics when it does.
pub fn with_watchdog<T: Send + 'static>(
    patience: Duration,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || {
        let _ = done.send(f());
    });
    match result.recv_timeout(patience) {
        Ok(value) => {
            thread.join().expect("it has ended");
            value
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a thread that ends without a result has panicked"),
        },
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
    }
}

/// Whether `now` has not come before `deadline`.
#[track_caller]
pub fn assert_not_early(now: Instant, deadline: Instant) {
    let early = deadline.saturating_duration_since(now);
    assert!(early.is_zero(), "the wait ended {early:?} early");
}

/// [`VirtualSelector`] with a clock that jumps.
pub struct Virtual;

impl Kind for Virtual {
    const NAME: &'static str = "virtual_time";

    fn world() -> World {
        let selector = VirtualSelector::new();
        let handle = selector.handle();
        handle.set_autojump(true);
        World { handle: Some(handle), ..World::new(selector) }
    }
}

/// Makes a test of each behaviour, for one kind of selector.
#[macro_export]
macro_rules! suite {
    ($module:ident for $kind:ty: $($path:ident { $($name:ident,)* })*) => {
        mod $module {
            $($(
                #[test]
                fn $name() {
                    $crate::$path::$name::<$kind>();
                }
            )*)*
        }
    };
}

/// The behaviours of every selector, real or virtual, as tests.
#[macro_export]
macro_rules! behaviours_of_every_selector {
    ($module:ident for $kind:ty) => {
        $crate::suite! { $module for $kind:
            behaviours {
                a_ready_source_is_reported_with_its_data_and_its_token,
                every_interest_can_be_registered_and_read_back,
                no_interest_reports_nothing_and_stays_registered,
                a_source_is_reported_until_it_is_served,
                registering_twice_is_an_error_and_changes_nothing,
                a_deregistered_source_can_be_registered_again_under_another_token,
                deregistering_gives_the_source_back,
                dropping_a_registration_ends_the_watch,
                a_changed_interest_changes_what_is_reported,
                the_same_interest_again_changes_nothing,
                changed_data_is_reported_at_once,
                keys_tell_what_is_registered,
                indices_are_dense_and_tokens_are_never_used_again,
                after_close_everything_is_an_error,
                closing_twice_does_nothing,
                registrations_and_events_outlive_their_selector,
                selectors_on_one_thread_are_independent,
                one_batch_may_be_used_with_several_selectors,
                b05_no_event_surfaces_after_deregistration_not_even_from_the_batch_at_hand,
                b06_a_later_user_of_an_index_gets_no_event_of_the_earlier_one,
                an_interest_taken_back_in_the_middle_of_a_batch_is_masked,
                a_hangup_wakes_every_interested_side,
                b07_a_hangup_without_interest_costs_no_wakeup,
                a_wait_replaces_the_batch_of_the_one_before,
                a_batch_is_no_larger_than_its_capacity,
                more_ready_than_fit_starve_nobody,
                debug_output_names_what_it_is,
            }
            notices {
                a_call_before_the_wait_ends_it,
                calls_are_coalesced,
                a_call_from_another_thread_ends_a_blocked_wait,
                calls_of_many_threads_all_arrive,
                a_call_and_events_come_together,
                b39_a_call_after_close_or_drop_is_an_error,
                a_call_ends_the_longest_wait_there_is,
                no_timeout_and_a_past_deadline_do_not_wait,
                b25_a_timeout_below_a_millisecond_is_not_early_and_not_busy,
                a_deadline_is_never_early_and_nothing_is_reported,
                the_clock_never_goes_back,
            }
        }
    };
}
