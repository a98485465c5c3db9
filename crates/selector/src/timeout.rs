//! How long a wait may last.

use std::time::{Duration, Instant};

/// How long [`select`](crate::Selector::select) may wait when nothing is ready.
///
/// No wait ends early because of rounding: a timeout is rounded up to what the platform can
/// express, nanoseconds with epoll on Linux 5.11 and later. A duration or an instant too far away
/// to express means [`Never`](Self::Never).
///
/// ```
/// use std::time::{Duration, Instant};
/// use tulipa_selector::Timeout;
///
/// assert_eq!(Timeout::from(Duration::from_micros(300)), Timeout::After(Duration::from_micros(300)));
/// assert_eq!(Timeout::from(None::<Instant>), Timeout::Never);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Wait until something is ready or a [`Notifier`](crate::Notifier) is used.
    Never,
    /// Look, and do not wait.
    Immediate,
    /// Wait for at most this long from now.
    After(Duration),
    /// Wait until this instant of the selector's own clock at the latest.
    At(Instant),
}

impl Timeout {
    /// What is left at the time `now` gives: `None` is for ever, zero is not at all.
    ///
    /// The clock is read only where the answer depends on it.
    pub fn remaining(self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        match self {
            Timeout::Never => None,
            Timeout::Immediate => Some(Duration::ZERO),
            Timeout::After(duration) => Some(duration),
            Timeout::At(deadline) => Some(deadline.saturating_duration_since(now())),
        }
    }

    /// The instant at which the wait ends: `None` is never.
    pub fn deadline(self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        match self {
            Timeout::Never => None,
            Timeout::Immediate => Some(now()),
            Timeout::After(duration) => now().checked_add(duration),
            Timeout::At(deadline) => Some(deadline),
        }
    }
}

impl From<Duration> for Timeout {
    fn from(duration: Duration) -> Timeout {
        Timeout::After(duration)
    }
}

impl From<Instant> for Timeout {
    fn from(deadline: Instant) -> Timeout {
        Timeout::At(deadline)
    }
}

impl From<Option<Duration>> for Timeout {
    /// `None` waits for ever, as Python's `select(None)` does.
    fn from(duration: Option<Duration>) -> Timeout {
        duration.map_or(Timeout::Never, Timeout::After)
    }
}

impl From<Option<Instant>> for Timeout {
    /// `None` waits for ever.
    fn from(deadline: Option<Instant>) -> Timeout {
        deadline.map_or(Timeout::Never, Timeout::At)
    }
}
