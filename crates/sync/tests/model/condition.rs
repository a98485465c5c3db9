//! `Condition` with its lock: who waits for a notification, and who waits for the lock.

use std::collections::VecDeque;

use proptest::prelude::*;
use tulipa_sync::{Condition, Lock, LockGuard};

use crate::common::Task;
use crate::{config, length, pick};

#[derive(Clone, Debug)]
enum Step {
    Wait,
    Take,
    Release,
    Poll(u8),
    Cancel(u8),
    Notify(usize),
    NotifyAll,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Condition,
    /// Notified, with whether the notification has to reach somebody, and not polled since.
    Notified(bool),
    /// In the queue of the lock, with the same.
    Lock(bool),
    /// Was handed the lock, with the same.
    Granted(bool),
}

#[derive(Default)]
struct Model {
    locked: bool,
    lock_queue: VecDeque<usize>,
    /// All waiters, in the order in which they joined the condition.
    waiters: Vec<(usize, At)>,
}

impl Model {
    fn at(&mut self, id: usize) -> &mut At {
        &mut self.waiters.iter_mut().find(|(waiter, _)| *waiter == id).unwrap().1
    }

    fn notify(&mut self, count: usize, passes_on: bool) {
        let waiting = self.waiters.iter_mut().filter(|(_, at)| *at == At::Condition);
        waiting.take(count).for_each(|(_, at)| *at = At::Notified(passes_on));
    }

    fn unlock(&mut self) {
        match self.lock_queue.pop_front() {
            None => self.locked = false,
            Some(id) => {
                let at = self.at(id);
                let At::Lock(passes_on) = *at else { unreachable!() };
                *at = At::Granted(passes_on);
            }
        }
    }

    /// Returns whether the waiter now has the lock.
    fn poll(&mut self, id: usize) -> bool {
        let at = *self.at(id);
        match at {
            At::Condition | At::Lock(_) => false,
            At::Notified(passes_on) if self.locked => {
                *self.at(id) = At::Lock(passes_on);
                self.lock_queue.push_back(id);
                false
            }
            At::Notified(_) | At::Granted(_) => {
                self.locked = true;
                self.waiters.retain(|&(waiter, _)| waiter != id);
                true
            }
        }
    }

    fn cancel(&mut self, id: usize) {
        let at = *self.at(id);
        self.waiters.retain(|&(waiter, _)| waiter != id);
        self.lock_queue.retain(|&waiter| waiter != id);
        if let At::Granted(_) = at {
            self.unlock();
        }
        if let At::Notified(true) | At::Lock(true) | At::Granted(true) = at {
            self.notify(1, true);
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn condition_follows_the_model(steps in prop::collection::vec(prop_oneof![
        4 => Just(Step::Wait),
        2 => Just(Step::Take),
        3 => Just(Step::Release),
        5 => any::<u8>().prop_map(Step::Poll),
        2 => any::<u8>().prop_map(Step::Cancel),
        2 => (0usize..4).prop_map(Step::Notify),
        1 => Just(Step::NotifyAll),
    ], 0..length(100))) {
        let (lock, condition) = (Lock::new(()), Condition::new());
        let mut model = Model::default();
        let mut held: Option<LockGuard<'_, ()>> = None;
        let mut tasks: Vec<(usize, Task<'_, LockGuard<'_, ()>>)> = Vec::new();
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Step::Wait => {
                    // The holder of the lock begins to wait, or somebody who can take it.
                    let Some(guard) = held.take().or_else(|| lock.try_lock()) else { continue };
                    tasks.push((id, Task::waiting(condition.wait(guard))));
                    model.waiters.push((id, At::Condition));
                    model.unlock();
                }
                Step::Take => {
                    let taken = lock.try_lock();
                    prop_assert_eq!(taken.is_some(), !model.locked);
                    model.locked = true;
                    held = taken.or(held);
                }
                Step::Release => {
                    if let Some(guard) = held.take() {
                        drop(guard);
                        model.unlock();
                    }
                }
                Step::Poll(choice) => {
                    let Some(index) = pick(choice, tasks.len()) else { continue };
                    let polled = tasks[index].1.poll();
                    prop_assert_eq!(polled.is_ready(), model.poll(tasks[index].0));
                    if let std::task::Poll::Ready(guard) = polled {
                        held = Some(guard);
                        tasks.remove(index);
                    }
                }
                Step::Cancel(choice) => {
                    let Some(index) = pick(choice, tasks.len()) else { continue };
                    let (id, task) = tasks.remove(index);
                    drop(task);
                    model.cancel(id);
                }
                Step::Notify(count) => {
                    condition.notify(count);
                    model.notify(count, true);
                }
                Step::NotifyAll => {
                    condition.notify_all();
                    model.notify(usize::MAX, false);
                }
            }
            prop_assert_eq!(lock.is_locked(), model.locked);
            for (id, task) in &tasks {
                let expected = match *model.at(*id) {
                    At::Condition => 0,
                    At::Notified(_) | At::Lock(_) => 1,
                    At::Granted(_) => 2,
                };
                prop_assert_eq!(task.wakes(), expected);
            }
        }
    }
}
