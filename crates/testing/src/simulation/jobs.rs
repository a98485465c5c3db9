//! The default executor of a simulated loop, and futures whose tasks are cancelled at any time.
//!
//! There are no threads: between two turns of the loop the run takes the jobs that came and does each at some
//! instant of virtual time, so that the same seed always does the same.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tulipa_loop::{Executor, ExecutorError, Job, Stragglers, TaskRef, current_task};

use super::{Shared, Sim};
use crate::{Fault, Random};

/// How long a job takes at most.
const LONGEST_JOB: Duration = Duration::from_secs(2);

/// The jobs that were submitted and not yet taken.
#[derive(Clone, Default)]
pub(crate) struct Jobs(Arc<Mutex<Submitted>>);

#[derive(Default)]
struct Submitted {
    closed: bool,
    jobs: VecDeque<(u64, Job)>,
    count: u64,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Submitted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> VecDeque<(u64, Job)> {
        std::mem::take(&mut self.lock().jobs)
    }
}

impl Executor for Jobs {
    fn execute(&self, job: Job) -> Result<(), ExecutorError> {
        let mut submitted = self.lock();
        if submitted.closed {
            drop(submitted);
            drop(job);
            return Err(ExecutorError::ShutDown);
        }
        submitted.count += 1;
        let number = submitted.count;
        submitted.jobs.push_back((number, job));
        Ok(())
    }

    fn shutdown(&self) {
        self.lock().closed = true;
    }

    fn shutdown_and_wait(&self, _: Option<Duration>) -> Result<(), Stragglers> {
        self.shutdown();
        // Its only thread is this one, so what is left is done here.
        for (_, job) in self.take() {
            job.run();
        }
        Ok(())
    }
}

/// Who waits for a job and may be cancelled.
pub(crate) struct Owner {
    task: TaskRef,
    alive: Rc<Cell<bool>>,
}

/// The owners of jobs, by the jobs' numbers.
pub(crate) type Owners = BTreeMap<u64, Owner>;

impl Shared {
    /// Begins the jobs that came since the last turn. Returns whether there were any.
    pub(super) fn begin_jobs(self: &Rc<Shared>, random: &mut Random, calm: bool) {
        for (number, job) in self.jobs.take() {
            let late = !calm && random.chance(500);
            let takes =
                if late { random.duration(Duration::ZERO..=LONGEST_JOB) } else { Duration::ZERO };
            let shared = Rc::downgrade(self);
            self.at_once_or_after(takes, move || match shared.upgrade() {
                Some(shared) => shared.end_job(number, job),
                None => drop(job),
            });
        }
    }

    fn at_once_or_after(&self, delay: Duration, act: impl FnOnce() + 'static) {
        let world = self.network.world();
        world.call_at(world.now() + delay, move |_| act());
    }

    fn end_job(&self, number: u64, job: Job) {
        let owner = self.owners.borrow_mut().remove(&number);
        let owner = owner.filter(|owner| owner.alive.get() && !owner.task.is_done());
        let Some(owner) = owner else { return job.run() };
        if self.network.strikes(Fault::JobBeforeCancel) {
            job.run();
            owner.task.cancel();
        } else if self.network.strikes(Fault::JobAfterCancel) {
            owner.task.cancel();
            if self.network.draw(|random| random.chance(500)) {
                return job.run();
            }
            // By then nobody waits for it, so it is not begun.
            self.at_once_or_after(Duration::from_millis(1), move || job.run());
        } else {
            job.run();
        }
    }
}

/// A future whose task may be cancelled at each of its polls.
pub(super) struct Endangered<F> {
    sim: Sim,
    future: Pin<Box<F>>,
    alive: Rc<Cell<bool>>,
}

impl<F> Endangered<F> {
    pub(super) fn new(sim: Sim, future: F) -> Endangered<F> {
        Endangered { sim, future: Box::pin(future), alive: Rc::new(Cell::new(true)) }
    }
}

impl<F: Future> Future for Endangered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let shared = self.sim.shared.clone();
        let before = shared.jobs.lock().count;
        let result = self.future.as_mut().poll(context);
        let Some(task) = current_task() else { return result };
        if result.is_ready() {
            return result;
        }
        for number in before + 1..=shared.jobs.lock().count {
            let owner = Owner { task: task.clone(), alive: self.alive.clone() };
            shared.owners.borrow_mut().insert(number, owner);
        }
        if shared.network.strikes(Fault::TaskCancelled) {
            shared.network.note(&format!("cancel {}", task.name()));
            task.cancel();
        }
        result
    }
}

impl<F> Drop for Endangered<F> {
    fn drop(&mut self) {
        self.alive.set(false);
    }
}
