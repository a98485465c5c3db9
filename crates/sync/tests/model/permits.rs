//! `Lock`, `RwLock` and the semaphores: one model, because all of them hand out permits in order.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use proptest::prelude::*;
use tulipa_sync::{BoundedSemaphore, Lock, RwLock, Semaphore};

use crate::common::Task;
use crate::{config, length, pick};

#[derive(Clone, Debug)]
enum Step {
    Acquire(usize),
    Try(usize),
    Poll(u8),
    Cancel(u8),
    Release(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..4).prop_map(Step::Acquire),
        1 => (0usize..4).prop_map(Step::Try),
        4 => any::<u8>().prop_map(Step::Poll),
        2 => any::<u8>().prop_map(Step::Cancel),
        3 => any::<u8>().prop_map(Step::Release),
    ];
    prop::collection::vec(step, 0..length(80))
}

/// Anything that is released by dropping it.
trait Held {}
impl<T> Held for T {}
type Guard<'a> = Box<dyn Held + 'a>;
type Acquiring<'a> = Pin<Box<dyn Future<Output = Guard<'a>> + 'a>>;

/// A primitive seen as permits.
struct Subject<'a> {
    permits: usize,
    /// Maps an arbitrary number to how many permits to ask for.
    wanted: fn(usize) -> usize,
    acquire: Box<dyn Fn(usize) -> Acquiring<'a> + 'a>,
    try_acquire: Box<dyn Fn(usize) -> Option<Guard<'a>> + 'a>,
    is_idle: Box<dyn Fn() -> bool + 'a>,
}

#[derive(Default)]
struct Model {
    free: usize,
    waiting: VecDeque<(usize, usize)>,
    granted: Vec<usize>,
}

impl Model {
    fn try_acquire(&mut self, wanted: usize) -> bool {
        let fits = self.waiting.is_empty() && wanted <= self.free;
        self.free -= if fits { wanted } else { 0 };
        fits
    }

    fn give(&mut self, permits: usize) {
        self.free += permits;
        while let Some(&(id, wanted)) = self.waiting.front() {
            if wanted > self.free {
                break;
            }
            self.free -= wanted;
            self.waiting.pop_front();
            self.granted.push(id);
        }
    }

    fn cancel(&mut self, id: usize, wanted: usize) {
        if self.granted.contains(&id) {
            self.granted.retain(|&granted| granted != id);
            self.give(wanted);
        } else {
            self.waiting.retain(|&(waiting, _)| waiting != id);
            self.give(0);
        }
    }
}

struct Waiter<'a> {
    id: usize,
    wanted: usize,
    task: Task<'a, Guard<'a>>,
}

fn check(subject: &Subject<'_>, steps: Vec<Step>) {
    let mut model = Model { free: subject.permits, ..Model::default() };
    let mut waiters: Vec<Waiter<'_>> = Vec::new();
    let mut held = Vec::new();
    for (id, step) in steps.into_iter().enumerate() {
        match step {
            Step::Acquire(choice) => {
                let wanted = (subject.wanted)(choice);
                let mut task = Task::new((subject.acquire)(wanted));
                let polled = task.poll();
                assert_eq!(polled.is_ready(), model.try_acquire(wanted));
                match polled {
                    std::task::Poll::Ready(guard) => held.push((wanted, guard)),
                    std::task::Poll::Pending => {
                        model.waiting.push_back((id, wanted));
                        waiters.push(Waiter { id, wanted, task });
                    }
                }
            }
            Step::Try(choice) => {
                let wanted = (subject.wanted)(choice);
                let taken = (subject.try_acquire)(wanted);
                assert_eq!(taken.is_some(), model.try_acquire(wanted));
                held.extend(taken.map(|guard| (wanted, guard)));
            }
            Step::Poll(choice) => {
                let Some(index) = pick(choice, waiters.len()) else { continue };
                let id = waiters[index].id;
                let polled = waiters[index].task.poll();
                assert_eq!(polled.is_ready(), model.granted.contains(&id));
                if let std::task::Poll::Ready(guard) = polled {
                    model.granted.retain(|&granted| granted != id);
                    held.push((waiters.remove(index).wanted, guard));
                }
            }
            Step::Cancel(choice) => {
                let Some(index) = pick(choice, waiters.len()) else { continue };
                let Waiter { id, wanted, task } = waiters.remove(index);
                drop(task);
                model.cancel(id, wanted);
            }
            Step::Release(choice) => {
                let Some(index) = pick(choice, held.len()) else { continue };
                let (wanted, guard) = held.remove(index);
                drop(guard);
                model.give(wanted);
            }
        }
        for waiter in &waiters {
            assert_eq!(waiter.task.is_woken(), model.granted.contains(&waiter.id));
        }
    }
    for (wanted, guard) in held {
        drop(guard);
        model.give(wanted);
    }
    for Waiter { id, wanted, mut task } in waiters {
        drop(task.expect());
        model.cancel(id, wanted);
    }
    assert!((subject.is_idle)());
}

fn boxed<'a, T: 'a>(future: impl Future<Output = T> + 'a) -> Acquiring<'a> {
    Box::pin(async { Box::new(future.await) as Guard<'a> })
}

fn guard<'a>(held: impl Held + 'a) -> Guard<'a> {
    Box::new(held)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn lock_follows_the_model(steps in steps()) {
        let lock = Lock::new(());
        check(&Subject {
            permits: 1,
            wanted: |_| 1,
            acquire: Box::new(|_| boxed(lock.lock())),
            try_acquire: Box::new(|_| lock.try_lock().map(guard)),
            is_idle: Box::new(|| !lock.is_locked()),
        }, steps);
    }

    #[test]
    fn rwlock_follows_the_model(steps in steps()) {
        const ALL: usize = 1000;
        let lock = RwLock::new(());
        check(&Subject {
            permits: ALL,
            wanted: |choice| if choice == 0 { ALL } else { 1 },
            acquire: Box::new(|wanted| match wanted {
                ALL => boxed(lock.write()),
                _ => boxed(lock.read()),
            }),
            try_acquire: Box::new(|wanted| match wanted {
                ALL => lock.try_write().map(guard),
                _ => lock.try_read().map(guard),
            }),
            is_idle: Box::new(|| !lock.is_locked()),
        }, steps);
    }

    #[test]
    fn semaphore_follows_the_model(steps in steps()) {
        let semaphore = Semaphore::new(4);
        check(&Subject {
            permits: 4,
            wanted: |choice| 1 + choice,
            acquire: Box::new(|wanted| boxed(semaphore.acquire_many(wanted))),
            try_acquire: Box::new(|wanted| semaphore.try_acquire_many(wanted).map(guard)),
            is_idle: Box::new(|| !semaphore.is_locked() && semaphore.available_permits() == 4),
        }, steps);
    }

    #[test]
    fn bounded_semaphore_follows_the_model(steps in steps()) {
        let semaphore = BoundedSemaphore::new(5);
        check(&Subject {
            permits: 5,
            wanted: |choice| choice,
            acquire: Box::new(|wanted| boxed(semaphore.acquire_many(wanted))),
            try_acquire: Box::new(|wanted| semaphore.try_acquire_many(wanted).map(guard)),
            is_idle: Box::new(|| semaphore.available_permits() == 5),
        }, steps);
    }
}
