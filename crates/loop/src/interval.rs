//! Ticks at equal distances.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::LoopHandle;
use crate::await_graph::Purpose;
use crate::sleep::Deadline;

/// What an [`Interval`] does about ticks that passed while nobody asked for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissedTicks {
    /// All come at once, until the plan is caught up with.
    #[default]
    Burst,
    /// One comes at once, the others are left out, and the plan stays.
    Skip,
    /// One comes at once, and the plan begins anew from there.
    Delay,
}

/// Ticks at equal distances: see [`interval`].
pub struct Interval {
    handle: LoopHandle,
    deadline: Deadline,
    period: Duration,
    missed: MissedTicks,
}

/// Ticks every `period`, the first time at once. asyncio has no counterpart; a loop over
/// [`sleep`](crate::sleep) drifts by what its body takes.
///
/// # Panics
/// If the period is zero; outside of a running loop.
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    let now = LoopHandle::current().time();
    interval_at(now, period)
}

/// [`interval`] with the instant of its first tick.
///
/// # Panics
/// If the period is zero; outside of a running loop.
#[track_caller]
pub fn interval_at(first: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval has a period");
    let handle = LoopHandle::current();
    let deadline = Deadline::new(&handle, first, Purpose::Interval);
    Interval { handle, deadline, period, missed: MissedTicks::default() }
}

/// Ends the wait when it is given up; the interval may live on.
struct Tick<'a>(&'a mut Interval);

impl Drop for Tick<'_> {
    fn drop(&mut self) {
        self.0.deadline.end_wait();
    }
}

impl Interval {
    /// Says what to do about missed ticks; [`MissedTicks::Burst`] unless set.
    #[must_use = "it gives the interval back"]
    pub fn missed_ticks(mut self, missed: MissedTicks) -> Interval {
        self.missed = missed;
        self
    }

    /// Waits for the next tick, and gives the instant for which it was planned.
    ///
    /// # Cancel safety
    /// A tick that was not given out comes the next time.
    pub async fn tick(&mut self) -> Instant {
        let tick = Tick(self);
        poll_fn(|context| tick.0.poll_tick(context)).await
    }

    /// The poll form of [`tick`](Self::tick).
    pub fn poll_tick(&mut self, context: &mut Context<'_>) -> Poll<Instant> {
        if self.deadline.poll(context).is_pending() {
            return Poll::Pending;
        }
        let planned = self.deadline.when();
        self.deadline.set(self.next_after(planned));
        Poll::Ready(planned)
    }

    /// The distance of two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    fn next_after(&self, planned: Instant) -> Instant {
        let now = self.handle.time();
        let late = now.saturating_duration_since(planned);
        let next = match self.missed {
            MissedTicks::Burst => planned.checked_add(self.period),
            MissedTicks::Delay => now.checked_add(self.period),
            MissedTicks::Skip => {
                let into = late.as_nanos() % self.period.as_nanos();
                // Less than the period, so only of a period of 500 years it can be too large.
                let into = Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX));
                (planned + (late - into)).checked_add(self.period)
            }
        };
        next.unwrap_or_else(|| self.handle.deadline_after(Duration::MAX))
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (next, period) = (self.deadline.when(), self.period);
        write!(f, "<Interval period={period:?} next={next:?} missed={:?}>", self.missed)
    }
}
