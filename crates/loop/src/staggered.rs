//! [`staggered_race`]: several attempts at one thing, each begun when the one before it takes too long.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::await_graph::{How, Purpose};
use crate::gather::{CancelOnDrop, Waiting};
use crate::task::Start;
use crate::{JoinError, LoopHandle, Sleep};

/// How a [`staggered_race`] was won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Winner<T, E> {
    /// What the winner gave.
    pub value: T,
    /// Which attempt it was, from 0.
    pub index: usize,
    /// The errors of the attempts that were begun, each at its place; `None` for the winner and for
    /// those that were cancelled.
    pub errors: Vec<Option<E>>,
}

/// Runs attempts until the first one succeeds: the next attempt begins when the one begun last has
/// failed, or when `delay` is over since that began. The winner ends the race: the others are cancelled,
/// and waited for. Stands for asyncio's `staggered_race`; RFC 8305 ("happy eyeballs") is such a race
/// over the addresses of a host.
///
/// ```
/// use std::time::Duration;
/// use tulipa_loop::{EventLoop, sleep, staggered_race};
///
/// async fn connect(address: &'static str) -> Result<&'static str, std::io::Error> {
///     match address {
///         "2001:db8::1" => std::future::pending().await, // a network that swallows packets
///         address => Ok(address),
///     }
/// }
///
/// let event_loop = EventLoop::new()?;
/// let addresses = ["2001:db8::1", "192.0.2.1", "192.0.2.2"];
/// let delay = Duration::from_millis(5);
/// let race = staggered_race(addresses.into_iter().map(connect), Some(delay));
/// let winner = event_loop.run_until_complete(race)?.unwrap();
/// assert_eq!((winner.value, winner.index), ("192.0.2.1", 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The iterator is asked for an attempt when that is to begin, and for no more than are begun. Without a
/// `delay` an attempt begins only when the one before it has failed; with one of zero there is a new one in
/// each turn. Each attempt is a task; one that is
/// cancelled by others has failed, without an error.
///
/// # Order
/// Of two attempts that succeed in one turn the one that ended first wins; the other value is dropped.
///
/// # Errors
/// The errors of all attempts, in the order of the attempts; none if there was no attempt.
///
/// # Panics
/// With the panic of an attempt, when the others have ended; outside of a running loop.
///
/// # Cancel safety
/// Dropping it cancels all attempts; a winner that waits for the others' clean-up is lost.
#[track_caller]
pub fn staggered_race<T, E, F, I>(
    attempts: I,
    delay: Option<Duration>,
) -> impl Future<Output = Result<Winner<T, E>, Vec<E>>> + use<T, E, F, I>
where
    T: 'static,
    E: 'static,
    F: Future<Output = Result<T, E>> + 'static,
    I: IntoIterator<Item = F>,
{
    let location = Location::caller();
    async move {
        let race = Race::new(LoopHandle::current(), location);
        race.run(attempts.into_iter(), delay).await
    }
}

struct Race<T, E> {
    handle: LoopHandle,
    location: &'static Location<'static>,
    tasks: CancelOnDrop<Result<T, E>>,
    waiting: Waiting,
    running: usize,
    errors: Vec<Option<E>>,
    winner: Option<(usize, T)>,
    panic: Option<Box<dyn Any + Send>>,
}

/// What a race waits for.
enum Event {
    Ended(usize),
    NextIsDue,
}

impl<T: 'static, E: 'static> Race<T, E> {
    fn new(handle: LoopHandle, location: &'static Location<'static>) -> Race<T, E> {
        let (tasks, waiting) = (CancelOnDrop(Vec::new()), Waiting::new(How::Race));
        let (errors, winner, panic) = (Vec::new(), None, None);
        Race { handle, location, tasks, waiting, running: 0, errors, winner, panic }
    }

    async fn run<F>(
        mut self,
        mut attempts: impl Iterator<Item = F>,
        delay: Option<Duration>,
    ) -> Result<Winner<T, E>, Vec<E>>
    where
        F: Future<Output = Result<T, E>> + 'static,
    {
        let mut next_is_due = self.begin(attempts.next(), delay);
        while self.running > 0 && self.is_open() {
            let event = poll_fn(|context| self.poll_event(context, next_is_due.as_mut())).await;
            let next_begins = match event {
                Event::Ended(index) => self.settle(index) && index + 1 == self.errors.len(),
                Event::NextIsDue => true,
            };
            if next_begins {
                next_is_due = self.begin(attempts.next(), delay);
            }
        }
        self.finish().await
    }

    /// Begins an attempt, and gives the time at which the next one is due.
    fn begin<F>(&mut self, attempt: Option<F>, delay: Option<Duration>) -> Option<Sleep>
    where
        F: Future<Output = Result<T, E>> + 'static,
    {
        let task = self.handle.spawn_at(self.location, None, Start::Soon, attempt?);
        self.waiting.add(self.tasks.0.len(), &task);
        self.tasks.0.push(Some(task));
        self.errors.push(None);
        self.running += 1;
        // A sleep is suspended once, so that also without a delay each attempt has its turn.
        delay.map(|delay| self.handle.sleep_as(self.handle.deadline_after(delay), Purpose::Race))
    }

    fn is_open(&self) -> bool {
        self.winner.is_none() && self.panic.is_none()
    }

    fn poll_event(&mut self, context: &mut Context<'_>, due: Option<&mut Sleep>) -> Poll<Event> {
        if let Poll::Ready(index) = self.waiting.poll_next(context) {
            return Poll::Ready(Event::Ended(index));
        }
        due.map_or(Poll::Pending, |due| Pin::new(due).poll(context).map(|()| Event::NextIsDue))
    }

    /// Notes how an attempt has ended; whether it has failed.
    fn settle(&mut self, index: usize) -> bool {
        self.running -= 1;
        let task = self.tasks.0[index].take();
        match task.map_or(Err(JoinError::Cancelled), |mut task| task.take()) {
            Ok(Ok(value)) if self.is_open() => self.winner = Some((index, value)),
            // It was cancelled too late.
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                self.errors[index] = Some(error);
                return true;
            }
            Err(JoinError::Panicked(payload)) if self.panic.is_none() => self.panic = Some(payload),
            Err(JoinError::Panicked(payload)) => self.report(payload),
            Err(_) => return true,
        }
        false
    }

    /// Cancels what still runs, waits for it, and gives the result.
    async fn finish(mut self) -> Result<Winner<T, E>, Vec<E>> {
        for task in self.tasks.0.iter().flatten() {
            task.cancel();
        }
        while self.running > 0 {
            let index = poll_fn(|context| self.waiting.poll_next(context)).await;
            self.settle(index);
        }
        if let Some(payload) = self.panic {
            resume_unwind(payload);
        }
        match self.winner {
            Some((index, value)) => Ok(Winner { value, index, errors: self.errors }),
            None => Err(self.errors.into_iter().flatten().collect()),
        }
    }

    /// The race ends with one panic; nobody else would hear of this one.
    fn report(&self, payload: Box<dyn Any + Send>) {
        let (origin, location) = (crate::Origin::Task, Some(self.location));
        let context = crate::ErrorContext::panic(origin, location, payload);
        self.handle.core.report(&self.handle, context);
    }
}

impl<T, E> fmt::Debug for Race<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Race running={} of {}>", self.running, self.errors.len())
    }
}
