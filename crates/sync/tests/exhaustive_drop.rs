//! Runs small programs and drops each of their tasks after each step, the steps after its own k-th
//! poll among them. Whatever was dropped, the others finish and nothing is lost.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use common::{Executor, Pairing, yield_now};
use tulipa_sync::wait::with_observer;
use tulipa_sync::{
    Barrier, Condition, Event, LifoQueue, Lock, PriorityQueue, Queue, RwLock, Semaphore, oneshot,
};

/// Runs `program` once whole, and once for each of its first `victims` tasks and each step at which
/// that task can be dropped. The program returns the tasks that are left over.
fn drop_each(victims: usize, program: impl Fn(Option<(usize, usize)>) -> usize) {
    let steps = observed(&program, None);
    for task in 0..victims {
        // Miri checks the same paths for soundness, of which a third will do.
        for step in (0..=steps).step_by(if cfg!(miri) { 3 } else { 1 }) {
            observed(&program, Some((task, step)));
        }
    }
}

fn observed(
    program: &impl Fn(Option<(usize, usize)>) -> usize,
    victim: Option<(usize, usize)>,
) -> usize {
    let pairing = Rc::new(Pairing::default());
    let steps = with_observer(pairing.clone(), || program(victim));
    assert!(pairing.begun() > 0, "the program waits for something");
    assert_eq!(pairing.open(), 0, "every beginning has an end");
    steps
}

/// Runs the tasks and checks that all but the victim finish.
fn finish(executor: &mut Executor<'_>, victim: Option<(usize, usize)>) -> usize {
    executor.run(victim);
    assert_eq!(executor.pending(), [], "everybody finishes, whoever was dropped: {victim:?}");
    executor.steps
}

#[test]
fn lock() {
    drop_each(4, |victim| {
        let lock = Lock::new(());
        let inside = Cell::new(0);
        let mut executor = Executor::default();
        for _ in 0..4 {
            executor.spawn(async {
                for _ in 0..2 {
                    let guard = lock.lock().await;
                    assert_eq!(inside.replace(1), 0, "one at a time");
                    let leave = OnDrop(|| inside.set(0));
                    yield_now().await;
                    drop(leave);
                    drop(guard);
                }
            });
        }
        let steps = finish(&mut executor, victim);
        assert!(!lock.is_locked());
        steps
    });
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn rwlock() {
    drop_each(5, |victim| {
        let lock = RwLock::new(0);
        let mut executor = Executor::default();
        for task in 0..5 {
            let lock = &lock;
            executor.spawn(async move {
                for _ in 0..2 {
                    if task % 2 == 0 {
                        let guard = lock.read().await;
                        yield_now().await;
                        drop(guard);
                    } else {
                        let mut guard = lock.write().await;
                        yield_now().await;
                        *guard += 1;
                    }
                }
            });
        }
        let steps = finish(&mut executor, victim);
        assert!(!lock.is_locked());
        steps
    });
}

#[test]
fn semaphore() {
    drop_each(5, |victim| {
        let semaphore = Semaphore::new(3);
        let mut executor = Executor::default();
        for task in 0..5 {
            let semaphore = &semaphore;
            executor.spawn(async move {
                for turn in 0..2 {
                    let permit = semaphore.acquire_many(1 + (task + turn) % 3).await;
                    yield_now().await;
                    drop(permit);
                }
            });
        }
        let steps = finish(&mut executor, victim);
        assert_eq!(semaphore.available_permits(), 3);
        steps
    });
}

#[test]
fn event() {
    drop_each(3, |victim| {
        let event = Event::new();
        let mut executor = Executor::default();
        for _ in 0..3 {
            executor.spawn(event.wait());
        }
        executor.spawn(async {
            yield_now().await;
            event.set();
            event.clear();
        });
        finish(&mut executor, victim)
    });
}

#[test]
fn condition() {
    drop_each(3, |victim| {
        let (items, arrived) = (Lock::new(0), Condition::new());
        let mut executor = Executor::default();
        for _ in 0..3 {
            executor.spawn(async {
                let guard = items.lock().await;
                let mut guard = arrived.wait_for(guard, |items| *items > 0).await;
                yield_now().await;
                *guard -= 1;
            });
        }
        for _ in 0..3 {
            executor.spawn(async {
                yield_now().await;
                let mut guard = items.lock().await;
                yield_now().await;
                *guard += 1;
                arrived.notify(1);
            });
        }
        let steps = finish(&mut executor, victim);
        assert!(!items.is_locked());
        steps
    });
}

#[test]
fn barrier() {
    drop_each(4, |victim| {
        let barrier = Barrier::new(3);
        let released = RefCell::new(Vec::new());
        let mut executor = Executor::default();
        for _ in 0..4 {
            executor.spawn(async {
                if let Ok(index) = barrier.wait().await {
                    released.borrow_mut().push(index);
                }
            });
        }
        executor.run(victim);
        // Three go through, or two if the third was dropped on its way out.
        let through = released.borrow().len();
        assert!(through == 3 || (through == 2 && victim.is_some()));
        assert_eq!(barrier.n_waiting(), executor.pending().len());
        barrier.abort();
        finish(&mut executor, None)
    });
}

/// Two producers and two consumers over one slot; then the queue is shut down and drained.
macro_rules! queue_program {
    ($queue:expr, $victim:expr) => {{
        let queue = $queue;
        let (put, got) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let mut executor = Executor::default();
        for consumer in 0..2 {
            let (queue, got) = (&queue, &got);
            executor.spawn(async move {
                while let Ok(item) = queue.get().await {
                    got.borrow_mut().push(item);
                    queue.task_done();
                    if consumer == 0 {
                        yield_now().await;
                    }
                }
            });
        }
        for producer in 0..2 {
            let (queue, put) = (&queue, &put);
            executor.spawn(async move {
                for item in 0..3 {
                    let item = producer * 10 + item;
                    if queue.put(item).await.is_ok() {
                        put.borrow_mut().push(item);
                    }
                }
            });
        }
        executor.spawn(queue.join());
        executor.run($victim);
        assert!(executor.pending().iter().all(|&task| task < 2), "only consumers wait");
        queue.shutdown(false);
        executor.run(None);
        assert_eq!(executor.pending(), []);
        let (mut put, mut got) = (put.take(), got.take());
        put.sort_unstable();
        got.sort_unstable();
        assert_eq!(put, got, "what was put was got, once");
        assert_eq!((queue.qsize(), queue.unfinished()), (0, 0));
        executor.steps
    }};
}

#[test]
fn queue() {
    drop_each(5, |victim| queue_program!(Queue::bounded(1), victim));
    drop_each(5, |victim| queue_program!(Queue::bounded(2), victim));
}

#[test]
fn lifo_queue() {
    drop_each(5, |victim| queue_program!(LifoQueue::bounded(1), victim));
}

#[test]
fn priority_queue() {
    drop_each(5, |victim| queue_program!(PriorityQueue::bounded(2), victim));
}

#[test]
fn oneshot() {
    drop_each(3, |victim| {
        let (sender, receiver) = oneshot::channel();
        let (reply, mut answer) = oneshot::channel();
        let mut executor = Executor::default();
        executor.spawn(async move {
            let got: Result<u8, _> = receiver.await;
            let _ = reply.send(got.is_ok());
        });
        executor.spawn(async move {
            yield_now().await;
            let _ = sender.send(1);
        });
        executor.spawn(async {
            let _ = (&mut answer).await;
        });
        let steps = finish(&mut executor, victim);
        let (mut other, receiver) = oneshot::channel::<u8>();
        let mut executor = Executor::default();
        executor.spawn(async move { other.closed().await });
        executor.spawn(async move {
            yield_now().await;
            drop(receiver);
        });
        finish(&mut executor, None);
        steps
    });
}
