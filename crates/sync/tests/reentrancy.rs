//! Wakers, destructors and comparisons that call back into the primitive they are called from.

mod common;

use common::{Task, acting_waker, lend, waker_that_acts_when_cloned, waker_that_acts_when_dropped};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;
use tulipa_sync::{
    Barrier, Condition, Event, Lock, PriorityQueue, Queue, RwLock, Semaphore, oneshot,
};

#[test]
fn a_waker_may_use_the_semaphore_that_wakes_it() {
    let semaphore = Rc::new(Semaphore::new(0));
    let inner = semaphore.clone();
    let waker = acting_waker(move || {
        assert!(inner.try_acquire().is_none(), "all permits are promised");
        inner.release();
    });
    let mut first = Task::new(semaphore.acquire());
    assert!(first.poll_with(&waker).is_pending());
    let mut second = Task::waiting(semaphore.acquire());
    let mut third = Task::waiting(semaphore.acquire());
    semaphore.add_permits(2);
    for waiter in [&mut first, &mut second, &mut third] {
        waiter.expect().forget();
    }
}

#[test]
fn a_waker_may_clear_the_event_that_wakes_it_and_all_are_released() {
    let event = Rc::new(Event::new());
    let inner = event.clone();
    let late = Rc::new(RefCell::new(None));
    let slot = late.clone();
    let waker = acting_waker(move || {
        inner.clear();
        let event: &'static Rc<Event> = lend(inner);
        *slot.borrow_mut() = Some(Task::waiting(event.wait()));
    });
    let mut first = Task::new(event.wait());
    assert!(first.poll_with(&waker).is_pending());
    let mut second = Task::waiting(event.wait());
    event.set();
    first.expect();
    second.expect();
    assert!(!late.borrow().as_ref().unwrap().is_woken());
}

#[test]
fn a_waker_may_use_the_lock_the_barrier_and_the_condition_that_wake_it() {
    let lock = Rc::new(Lock::new(0));
    let inner = lock.clone();
    let waker = acting_waker(move || assert!(inner.try_lock().is_none() && inner.is_locked()));
    let guard = lock.try_lock();
    let mut waiter = Task::new(lock.lock());
    assert!(waiter.poll_with(&waker).is_pending());
    drop(guard);
    drop(waiter.expect());

    let barrier = Rc::new(Barrier::new(2));
    let inner = barrier.clone();
    let waker = acting_waker(move || inner.abort());
    let mut party = Task::new(barrier.wait());
    assert!(party.poll_with(&waker).is_pending());
    assert_eq!(Task::new(barrier.wait()).expect(), Ok(1));
    assert_eq!(party.expect(), Ok(0));

    let condition = Rc::new(Condition::new());
    let inner = condition.clone();
    let waker = acting_waker(move || inner.notify_all());
    let mut first = Task::new(condition.wait(lock.try_lock().unwrap()));
    assert!(first.poll_with(&waker).is_pending());
    let second = Task::waiting(condition.wait(lock.try_lock().unwrap()));
    condition.notify(1);
    assert!(second.is_woken());
}

#[test]
fn a_waker_may_use_the_queue_that_wakes_it() {
    let queue = Rc::new(Queue::bounded(1));
    let inner = queue.clone();
    let waker = acting_waker(move || {
        assert!(inner.try_get().is_err() && inner.try_put(9).is_err());
        inner.shutdown(false);
    });
    let mut getter = Task::new(queue.get());
    assert!(getter.poll_with(&waker).is_pending());
    queue.try_put(1).unwrap();
    assert_eq!(getter.expect(), Ok(1));
    assert!(queue.is_shut_down());
}

#[test]
fn cloning_and_dropping_a_waker_may_release_what_is_waited_for() {
    let semaphore = Rc::new(Semaphore::new(0));
    let inner = semaphore.clone();
    let waker = waker_that_acts_when_cloned(move || inner.release());
    let polled = Task::new(semaphore.acquire()).poll_with(&waker);
    assert!(polled.map(|permit| permit.forget()).is_ready());
    assert_eq!(semaphore.available_permits(), 0, "the permit was taken in the same poll");

    let mut waiter = Task::waiting(semaphore.acquire());
    let inner = semaphore.clone();
    let waker = waker_that_acts_when_cloned(move || inner.release());
    assert!(waiter.poll_with(&waker).is_ready());

    let mut waiter = Task::new(semaphore.acquire_many(2));
    let inner = semaphore.clone();
    let waker = waker_that_acts_when_dropped(move || inner.release());
    assert!(waiter.poll_with(&waker).is_pending());
    drop(waker);
    assert!(waiter.poll_with(Waker::noop()).is_pending(), "the old waker goes, and releases one");
    assert_eq!(waiter.expect().count(), 2);
}

#[test]
fn cloning_a_waker_may_put_get_and_arrive() {
    let queue = Rc::new(Queue::bounded(1));
    let inner = queue.clone();
    let waker = waker_that_acts_when_cloned(move || inner.try_put(1).unwrap());
    assert!(Task::new(queue.get()).poll_with(&waker).is_ready());

    queue.try_put(2).unwrap();
    let inner = queue.clone();
    let waker = waker_that_acts_when_cloned(move || assert!(inner.try_get().is_ok()));
    assert!(Task::new(queue.put(3)).poll_with(&waker).is_ready());

    let inner = queue.clone();
    let waker = waker_that_acts_when_cloned(move || (0..3).for_each(|_| inner.task_done()));
    assert!(Task::new(queue.join()).poll_with(&waker).is_ready());

    let barrier: &'static Barrier = lend(Barrier::new(2));
    let waiting = Rc::new(RefCell::new(None));
    let slot = waiting.clone();
    let waker = waker_that_acts_when_cloned(move || {
        *slot.borrow_mut() = Some(Task::waiting(barrier.wait()));
    });
    let mut party = Task::new(barrier.wait());
    assert!(party.poll_with(&waker).is_ready());
    assert!(waiting.borrow().as_ref().unwrap().is_woken());
}

#[test]
fn a_waker_that_drops_other_waiters_is_harmless() {
    let semaphore: &'static Semaphore = lend(Semaphore::new(0));
    let others = Rc::new(RefCell::new(Vec::new()));
    let inner = others.clone();
    let waker = acting_waker(move || drop(inner.take()));
    let mut first = Task::new(semaphore.acquire());
    assert!(first.poll_with(&waker).is_pending());
    others.borrow_mut().extend((0..3).map(|_| Task::waiting(semaphore.acquire())));
    let mut last = Task::waiting(semaphore.acquire());
    semaphore.add_permits(2);
    assert!(last.is_woken());
    first.expect().forget();
    last.expect().forget();
    assert_eq!(semaphore.available_permits(), 0);
}

#[test]
fn a_waker_that_panics_strands_nobody() {
    let semaphore = Semaphore::new(0);
    let mut first = Task::new(semaphore.acquire());
    assert!(first.poll_with(&acting_waker(|| panic!("waker"))).is_pending());
    let mut second = Task::waiting(semaphore.acquire());
    let mut third = Task::waiting(semaphore.acquire());
    assert!(catch_unwind(AssertUnwindSafe(|| semaphore.add_permits(3))).is_err());
    assert!(second.is_woken() && third.is_woken());
    for waiter in [&mut first, &mut second, &mut third] {
        waiter.expect().forget();
    }
}

#[test]
fn a_waker_that_panics_under_a_guard_leaves_the_lock_released() {
    let lock = RwLock::new(0);
    let guard = lock.try_write().unwrap();
    let mut reader = Task::new(lock.read());
    assert!(reader.poll_with(&acting_waker(|| panic!("waker"))).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(guard))).is_err());
    drop(reader.expect());
    assert!(lock.try_write().is_some());
}

/// Where a log goes that is itself a queue.
struct Log<F: FnMut()>(F);

impl<F: FnMut()> std::fmt::Write for Log<F> {
    fn write_str(&mut self, _: &str) -> std::fmt::Result {
        (self.0)();
        Ok(())
    }
}

#[test]
fn a_formatter_may_use_what_it_is_formatting() {
    use std::fmt::Write;

    let (queue, event, condition) = (Queue::unbounded(), Event::new(), Condition::new());
    let (barrier, semaphore, lock) = (Barrier::new(1), Semaphore::new(1), Lock::new(()));
    let rwlock = RwLock::new(());
    let mut log = Log(|| {
        queue.try_put(()).unwrap();
        event.set();
        condition.notify_all();
        barrier.reset();
        semaphore.release();
        drop((lock.try_lock(), rwlock.try_write()));
    });
    write!(log, "{queue:?}{event:?}{condition:?}{barrier:?}{semaphore:?}{lock:?}{rwlock:?}")
        .unwrap();
    assert!(queue.qsize() > 7);
}

/// Calls back when it is dropped.
struct OnDrop(Option<Box<dyn FnOnce()>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(action) = self.0.take() {
            action();
        }
    }
}

#[test]
fn an_items_destructor_may_use_the_queue_it_was_in() {
    let queue = Rc::new(Queue::unbounded());
    let inner = queue.clone();
    let item = OnDrop(Some(Box::new(move || {
        assert!(inner.try_put(OnDrop(None)).is_err());
        assert!(inner.try_get().is_err());
        assert_eq!(inner.unfinished(), 0);
        inner.shutdown(true);
    })));
    queue.try_put(item).unwrap();
    let mut joiner = Task::waiting(queue.join());
    queue.shutdown(true);
    joiner.expect();
}

#[test]
fn a_destructor_that_panics_in_a_shutdown_strands_nobody() {
    let queue = Queue::unbounded();
    queue.try_put(OnDrop(Some(Box::new(|| panic!("destructor"))))).unwrap();
    let mut joiner = Task::waiting(queue.join());
    assert!(catch_unwind(AssertUnwindSafe(|| queue.shutdown(true))).is_err());
    joiner.expect();
    assert!(queue.is_shut_down() && queue.is_empty());
}

#[test]
fn a_values_destructor_may_use_the_channel_it_was_sent_through() {
    let (sender, receiver) = oneshot::channel();
    let (other, mut observer) = oneshot::channel();
    let item = OnDrop(Some(Box::new(move || other.send(1).unwrap())));
    assert!(sender.send(item).is_ok());
    drop(receiver);
    assert_eq!(observer.try_recv(), Ok(Some(1)));
}

type Question = Rc<RefCell<Option<Box<dyn FnOnce()>>>>;

/// An item whose comparison calls back into the queue, once.
struct Curious {
    key: u32,
    question: Question,
}

impl PartialEq for Curious {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Curious {}
impl PartialOrd for Curious {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Curious {
    fn cmp(&self, other: &Self) -> Ordering {
        let question = self.question.take();
        if let Some(question) = question {
            question();
        }
        self.key.cmp(&other.key)
    }
}

/// A queue with the items 3, 1 and 2 whose first comparison does what is asked.
fn curious_queue(
    ask: impl FnOnce(&'static PriorityQueue<Curious>, Box<dyn Fn(u32) -> Curious>) + 'static,
) -> &'static PriorityQueue<Curious> {
    let queue: &'static PriorityQueue<Curious> = lend(PriorityQueue::unbounded());
    let question = Question::default();
    let shared = question.clone();
    let item = move |key| Curious { key, question: shared.clone() };
    for key in [3, 1, 2] {
        queue.try_put(item(key)).ok().unwrap();
    }
    *question.borrow_mut() = Some(Box::new(move || ask(queue, Box::new(item))));
    queue
}

fn keys(queue: &PriorityQueue<Curious>) -> Vec<u32> {
    std::iter::from_fn(|| queue.try_get().ok()).map(|item| item.key).collect()
}

#[test]
fn a_comparison_may_put_and_finds_nothing_to_get() {
    let queue = curious_queue(|queue, item| {
        assert!(queue.try_get().is_err());
        assert_eq!(queue.qsize(), 3);
        queue.try_put(item(0)).ok().unwrap();
        assert_eq!(queue.qsize(), 4);
    });
    assert_eq!(queue.try_get().ok().unwrap().key, 1, "the item of this get was among the three");
    assert_eq!(keys(queue), [0, 2, 3]);
}

#[test]
fn a_getter_that_begins_to_wait_during_a_comparison_is_served_after_it() {
    let waiting = Rc::new(RefCell::new(None));
    let slot = waiting.clone();
    let queue = curious_queue(move |queue, _| {
        *slot.borrow_mut() = Some(Task::waiting(queue.get()));
    });
    assert_eq!(queue.try_get().ok().unwrap().key, 1);
    let mut waiter = waiting.take().unwrap();
    assert!(waiter.is_woken());
    assert_eq!(waiter.expect().ok().unwrap().key, 2);
    assert_eq!(keys(queue), [3]);
}

#[test]
fn a_granted_getter_polled_during_a_comparison_comes_back() {
    let granted = Rc::new(RefCell::new(None::<Task<'_, _>>));
    let inner = granted.clone();
    let queue: &'static PriorityQueue<Curious> = lend(PriorityQueue::unbounded());
    let question = Question::default();
    *granted.borrow_mut() = Some(Task::waiting(queue.get()));
    for key in [3, 1, 2] {
        queue.try_put(Curious { key, question: question.clone() }).ok().unwrap();
    }
    *question.borrow_mut() = Some(Box::new(move || {
        let mut granted = inner.borrow_mut();
        let waiter = granted.as_mut().unwrap();
        let wakes = waiter.wakes();
        assert!(waiter.poll().is_pending());
        assert_eq!(waiter.wakes(), wakes + 1, "it asks to be polled again");
    }));
    assert_eq!(queue.try_get().ok().unwrap().key, 1);
    assert_eq!(granted.take().unwrap().expect().ok().unwrap().key, 2);
}

#[test]
fn a_comparison_may_shut_the_queue_down() {
    let queue = curious_queue(|queue, _| queue.shutdown(false));
    assert_eq!(keys(queue), [1, 2, 3]);
    let queue = curious_queue(|queue, _| queue.shutdown(true));
    assert!(queue.try_get().is_err(), "all items were dropped, this one too");
    assert_eq!((queue.qsize(), queue.unfinished()), (0, 0));
}

#[test]
fn getters_that_begin_to_wait_during_a_shutdown_in_a_comparison_are_all_answered() {
    let waiting = Rc::new(RefCell::new(Vec::new()));
    let slot = waiting.clone();
    let queue = curious_queue(move |queue, _| {
        queue.shutdown(false);
        slot.borrow_mut().extend((0..3).map(|_| Task::waiting(queue.get())));
    });
    assert_eq!(queue.try_get().ok().unwrap().key, 1);
    let answers: Vec<_> = waiting
        .take()
        .iter_mut()
        .map(|waiter| {
            assert!(waiter.is_woken());
            waiter.expect().ok().map(|item| item.key)
        })
        .collect();
    assert_eq!(answers, [Some(2), Some(3), None]);
}

#[test]
fn a_comparison_that_puts_and_panics_loses_nothing() {
    let queue = curious_queue(|queue, item| {
        queue.try_put(item(0)).ok().unwrap();
        panic!("comparison");
    });
    assert!(catch_unwind(AssertUnwindSafe(|| drop(queue.try_get()))).is_err());
    assert_eq!(keys(queue), [0, 1, 2, 3]);
}
