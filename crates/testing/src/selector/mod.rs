//! The conformance suite for selectors.

#[expect(missing_docs, reason = "a check is named after what it checks")]
pub mod behaviours;
#[expect(missing_docs, reason = "a check is named after what it checks")]
pub mod notices;

use std::io;
use std::time::{Duration, Instant};

use tulipa_selector::{
    Events, Hold, Interest, Readiness, Registration, Selector, Source, Timeout, VirtualHandle,
    VirtualId,
};

/// How long something may take that should take no time. No check passes because of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A selector to be checked: see [`check_selector`].
pub trait SelectorKind {
    /// Whether it never reports more than an [`Events`] has room for. `poll(2)` does.
    const BOUNDED: bool = true;

    /// A new selector, with nothing registered.
    fn world() -> SelectorWorld;
}

/// A selector, and what is needed to make something happen: made by a [`SelectorKind`].
#[derive(Debug)]
pub struct SelectorWorld {
    /// The selector under test.
    pub selector: Box<dyn Selector>,
    handle: Option<VirtualHandle>,
    /// What the last wait brought.
    pub events: Events,
}

/// What one event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What was registered with the source.
    pub data: u64,
    /// What it is ready for, of what was asked for.
    pub ready: Interest,
    /// Whether the peer is gone.
    pub hangup: bool,
    /// Whether there is an error to be fetched.
    pub error: bool,
}

impl SelectorWorld {
    /// One for a selector that watches sources of the operating system.
    ///
    /// # Limits
    /// Unix only: elsewhere no source can be made.
    pub fn new(selector: impl Selector + 'static) -> SelectorWorld {
        SelectorWorld { selector: Box::new(selector), handle: None, events: Events::new() }
    }

    /// One for a selector of virtual sources, and whoever plays its outside world. Its clock has to jump.
    pub fn simulated(selector: impl Selector + 'static, handle: VirtualHandle) -> SelectorWorld {
        SelectorWorld { handle: Some(handle), ..SelectorWorld::new(selector) }
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

    /// Waits.
    ///
    /// # Errors
    /// As [`Selector::select`].
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
    pub fn until(&mut self, mut enough: impl FnMut(&SelectorWorld) -> bool) {
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
    pub fn next_seen(&mut self) -> Seen {
        self.until(|world| !world.seen().is_empty());
        self.seen()[0]
    }
}

/// One source and the means to make it ready.
#[derive(Debug)]
pub struct Wire(Kind);

#[derive(Debug)]
enum Kind {
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
    /// One of the operating system: a pair of connected Unix sockets.
    ///
    /// # Panics
    /// If it has none, as elsewhere than on unix.
    #[cfg(unix)]
    pub fn real() -> Wire {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("a non-blocking socket");
        theirs.set_nonblocking(true).expect("a non-blocking socket");
        Wire(Kind::Real { ours: std::rc::Rc::new(ours), theirs })
    }

    /// One of the operating system: there is none here.
    ///
    /// # Panics
    /// Always.
    #[cfg(not(unix))]
    pub fn real() -> Wire {
        unreachable!("these tests of real selectors are for unix")
    }

    /// A virtual one.
    pub fn virtual_in(handle: &VirtualHandle) -> Wire {
        let id = handle.new_source();
        handle.set_ready(id, Readiness::WRITABLE);
        Wire(Kind::Virtual { handle: handle.clone(), id })
    }

    /// What is registered.
    pub fn source(&self) -> Source {
        match &self.0 {
            #[cfg(unix)]
            Kind::Real { ours, .. } => ours.clone().into(),
            Kind::Virtual { id, .. } => (*id).into(),
        }
    }

    /// The other side sends something.
    pub fn send(&self) {
        match &self.0 {
            #[cfg(unix)]
            Kind::Real { theirs, .. } => {
                io::Write::write_all(&mut &*theirs, b"!").expect("room for one byte");
            }
            Kind::Virtual { handle, id } => {
                handle.set_ready(*id, handle.readiness(*id) | Readiness::READABLE);
            }
        }
    }

    /// We read all that the other side has sent.
    pub fn receive(&self) {
        match &self.0 {
            #[cfg(unix)]
            Kind::Real { ours, .. } => {
                let mut buffer = [0; 64];
                while io::Read::read(&mut &**ours, &mut buffer).is_ok_and(|count| count > 0) {}
            }
            Kind::Virtual { handle, id } => {
                handle.set_ready(*id, handle.readiness(*id) - Readiness::READABLE);
            }
        }
    }

    /// The other side goes away.
    pub fn hang_up(self) -> Source {
        let source = self.source();
        if let Kind::Virtual { handle, id } = &self.0 {
            let gone = Readiness::READABLE | Readiness::WRITABLE | Readiness::HANGUP;
            handle.set_ready(*id, gone);
        }
        source
    }
}

/// Whether `now` has not come before `deadline`.
#[track_caller]
pub fn assert_not_early(now: Instant, deadline: Instant) {
    let early = deadline.saturating_duration_since(now);
    assert!(early.is_zero(), "the wait ended {early:?} early");
}

/// Calls a macro with the names of all checks.
#[doc(hidden)]
#[macro_export]
macro_rules! __selector_checks {
    ([$($then:tt)*] $($arguments:tt)*) => {
        $($then)*! {
            $($arguments)*;
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

/// Makes a test of each check of [`check_selector`](crate::check_selector), in a module of its own, so that each is
/// named, run and seen to fail by itself.
///
/// ```
/// use tulipa_selector::VirtualSelector;
/// use tulipa_testing::{SelectorKind, SelectorWorld, selector_tests};
///
/// struct Virtual;
/// impl SelectorKind for Virtual {
///     fn world() -> SelectorWorld {
///         let selector = VirtualSelector::new();
///         let handle = selector.handle();
///         handle.set_autojump(true);
///         SelectorWorld::simulated(selector, handle)
///     }
/// }
///
/// selector_tests!(contract for crate::Virtual);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! selector_tests {
    ($module:ident for $kind:ty) => {
        $crate::__selector_checks! { [$crate::__selector_tests] $module $kind }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __selector_tests {
    ($module:ident $kind:ty; $($path:ident { $($name:ident,)* })*) => {
        mod $module {
            $($(
                #[test]
                fn $name() {
                    $crate::__private::selector::$path::$name::<$kind>();
                }
            )*)*
        }
    };
}

macro_rules! list {
    ($kind:ty; $($path:ident { $($name:ident,)* })*) => {
        [$($((stringify!($name), $path::$name::<$kind> as fn())),*),*]
    };
}

/// Checks that a selector does what [`Selector`] says: registrations, interests, batches, notifications, timeouts,
/// closing. What only an operating system has is left out: descriptors, hangups of its own, interruptions.
///
/// ```
/// use tulipa_selector::DefaultSelector;
/// use tulipa_testing::{SelectorKind, SelectorWorld, check_selector};
///
/// struct Real;
/// impl SelectorKind for Real {
///     fn world() -> SelectorWorld {
///         SelectorWorld::new(DefaultSelector::new().unwrap())
///     }
/// }
///
/// # #[cfg(unix)]
/// check_selector::<Real>();
/// ```
///
/// [`selector_tests`](crate::selector_tests) makes a test of each check instead.
///
/// # Panics
/// When a check fails; its name is on the standard error.
pub fn check_selector<K: SelectorKind>() {
    for (name, check) in __selector_checks!([list] K) {
        let _named = crate::stream::Named(name);
        check();
    }
}
