//! `Queue`, `LifoQueue` and `PriorityQueue`: items and slots reach those who wait for them.

mod common;

use common::Task;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use tulipa_sync::{
    Item, LifoQueue, PriorityQueue, Queue, QueueEmpty, QueueFull, QueueShutDown, TryGetError,
    TryPutError,
};

const EMPTY: TryGetError = TryGetError::Empty(QueueEmpty);
const SHUT_DOWN: TryGetError = TryGetError::ShutDown(QueueShutDown(()));

#[test]
fn items_leave_in_the_order_in_which_they_came() {
    let queue = Queue::unbounded();
    for item in 0..5 {
        Task::new(queue.put(item)).expect().unwrap();
    }
    let items: Vec<_> = (0..5).map(|_| Task::new(queue.get()).expect().unwrap()).collect();
    assert_eq!(items, [0, 1, 2, 3, 4]);
    assert_eq!(queue.try_get(), Err(EMPTY));
}

#[test]
fn sizes_are_told_and_an_unbounded_queue_is_never_full() {
    let queue = Queue::bounded(2);
    assert!(queue.is_empty() && !queue.is_full());
    queue.try_put(1).unwrap();
    queue.try_put(2).unwrap();
    assert_eq!((queue.qsize(), queue.maxsize()), (2, Some(2)));
    assert!(queue.is_full() && !queue.is_empty());

    let queue = Queue::default();
    (0..100).for_each(|item| queue.try_put(item).unwrap());
    assert_eq!((queue.is_full(), queue.maxsize()), (false, None));
}

#[test]
#[should_panic(expected = "room for at least one item")]
fn a_bounded_queue_without_room_is_refused() {
    let _ = Queue::<u8>::bounded(0);
}

#[test]
fn try_put_returns_the_item_when_there_is_no_room() {
    let queue = Queue::bounded(1);
    queue.try_put("a").unwrap();
    let error = queue.try_put("b").unwrap_err();
    assert_eq!(error, TryPutError::Full(QueueFull("b")));
    assert_eq!(error.to_string(), "the queue is full");
    assert_eq!(error.into_inner(), "b");
}

#[test]
fn putters_wait_for_room_and_are_served_in_order() {
    let queue = Queue::bounded(1);
    queue.try_put(0).unwrap();
    let mut putters: Vec<_> = (1..4).map(|item| Task::waiting(queue.put(item))).collect();
    for next in 0..3 {
        assert_eq!(queue.try_get(), Ok(next));
        let putter = &mut putters[next];
        assert!(putter.is_woken());
        assert!(matches!(queue.try_put(9), Err(TryPutError::Full(_))), "the slot is taken");
        putter.expect().unwrap();
        assert!(putters[next + 1..].iter().all(|putter| !putter.is_woken()));
    }
}

#[test]
fn getters_wait_for_items_and_are_served_in_order() {
    let queue = Queue::unbounded();
    let mut getters: Vec<_> = (0..3).map(|_| Task::waiting(queue.get())).collect();
    for (item, getter) in getters.iter_mut().enumerate() {
        queue.try_put(item).unwrap();
        assert!(getter.is_woken());
        assert_eq!(queue.try_get(), Err(EMPTY), "the item is promised");
        assert_eq!(queue.qsize(), 1);
        assert_eq!(getter.expect(), Ok(item));
    }
}

#[test]
fn one_put_wakes_one_getter() {
    let queue = Queue::unbounded();
    let getters: Vec<_> = (0..3).map(|_| Task::waiting(queue.get())).collect();
    queue.try_put(1).unwrap();
    assert_eq!(getters.iter().map(Task::wakes).sum::<usize>(), 1);
}

#[test]
fn a_dropped_put_has_put_nothing_and_its_slot_goes_on() {
    let queue = Queue::bounded(1);
    queue.try_put(0).unwrap();
    let mut first = Task::waiting(queue.put(1));
    let mut second = Task::waiting(queue.put(2));
    queue.try_get().unwrap();
    assert!(first.is_woken());
    first.cancel();
    assert!(second.is_woken());
    second.expect().unwrap();
    assert_eq!(queue.try_get(), Ok(2));
}

#[test]
fn a_dropped_get_leaves_the_item_where_it_was() {
    let queue = Queue::unbounded();
    let mut getter = Task::waiting(queue.get());
    queue.try_put(1).unwrap();
    queue.try_put(2).unwrap();
    getter.cancel();
    assert_eq!((queue.try_get(), queue.try_get()), (Ok(1), Ok(2)));
}

#[test]
fn join_is_ready_when_all_that_was_put_is_done() {
    let queue = Queue::unbounded();
    Task::new(queue.join()).expect();
    queue.try_put(1).unwrap();
    queue.try_put(2).unwrap();
    let mut joiner = Task::waiting(queue.join());
    queue.try_get().unwrap();
    queue.try_get().unwrap();
    assert!(joiner.poll().is_pending(), "taken is not done");
    queue.task_done();
    assert!(joiner.poll().is_pending());
    queue.task_done();
    assert!(joiner.is_woken());
    queue.try_put(3).unwrap();
    joiner.expect();
}

#[test]
fn task_done_more_often_than_put_panics() {
    let queue = Queue::unbounded();
    queue.try_put(1).unwrap();
    queue.task_done();
    assert!(catch_unwind(AssertUnwindSafe(|| queue.task_done())).is_err());
    queue.try_put(1).unwrap();
    assert_eq!(queue.unfinished(), 1);
}

#[test]
fn an_item_counts_as_done_when_it_is_dropped() {
    let queue = Queue::unbounded();
    (1..=3).for_each(|item| queue.try_put(item).unwrap());
    let mut item = Task::new(queue.get_item()).expect().unwrap();
    *item += 10;
    assert_eq!((*item, queue.unfinished()), (11, 3));
    drop(item);
    assert_eq!(queue.unfinished(), 2);
    let item = Task::new(queue.get_item()).expect().unwrap();
    assert_eq!(Item::into_inner(item), 2);
    assert_eq!(queue.unfinished(), 2);
    let item = Task::new(queue.get_item()).expect().unwrap();
    queue.task_done();
    queue.task_done();
    drop(item);
    assert_eq!(queue.unfinished(), 0);
}

#[test]
fn a_shut_down_queue_refuses_puts_and_drains() {
    let queue = Queue::bounded(2);
    queue.try_put(1).unwrap();
    queue.try_put(2).unwrap();
    let mut putter = Task::waiting(queue.put(3));
    queue.shutdown(false);
    assert!(queue.is_shut_down());
    assert!(putter.is_woken());
    assert_eq!(putter.expect(), Err(QueueShutDown(3)));
    assert_eq!(queue.try_put(4), Err(TryPutError::ShutDown(QueueShutDown(4))));
    assert_eq!(Task::new(queue.put(5)).expect(), Err(QueueShutDown(5)));
    assert_eq!((queue.try_get(), Task::new(queue.get()).expect()), (Ok(1), Ok(2)));
    assert_eq!(queue.try_get(), Err(SHUT_DOWN));
    assert_eq!(Task::new(queue.get()).expect(), Err(QueueShutDown(())));
    assert_eq!(queue.unfinished(), 2);
}

#[test]
fn shutdown_wakes_the_getters_that_wait_in_vain() {
    let queue = Queue::<u8>::unbounded();
    let mut getters = [Task::waiting(queue.get()), Task::waiting(queue.get())];
    queue.shutdown(false);
    for getter in &mut getters {
        assert!(getter.is_woken());
        assert_eq!(getter.expect(), Err(QueueShutDown(())));
    }
}

#[test]
fn a_getter_that_was_promised_an_item_gets_it_after_a_shutdown() {
    let queue = Queue::unbounded();
    let mut getter = Task::waiting(queue.get());
    let mut other = Task::waiting(queue.get());
    queue.try_put(1).unwrap();
    queue.shutdown(false);
    assert_eq!(other.expect(), Err(QueueShutDown(())));
    assert_eq!(getter.expect(), Ok(1));
}

#[test]
fn an_item_handed_on_after_a_shutdown_reaches_a_getter_that_was_woken() {
    let queue = Queue::unbounded();
    let mut getter = Task::waiting(queue.get());
    let mut other = Task::waiting(queue.get());
    queue.try_put(1).unwrap();
    queue.shutdown(false);
    getter.cancel();
    assert_eq!(other.expect(), Ok(1));
}

#[test]
fn a_putter_that_was_promised_a_slot_is_refused_after_a_shutdown() {
    let queue = Queue::bounded(1);
    queue.try_put(1).unwrap();
    let mut putter = Task::waiting(queue.put(2));
    queue.try_get().unwrap();
    queue.shutdown(false);
    assert_eq!(putter.expect(), Err(QueueShutDown(2)));
    assert!(queue.is_empty());
}

#[test]
fn an_immediate_shutdown_drops_the_items_and_counts_them_as_done() {
    let alive = Rc::new(());
    let queue = Queue::unbounded();
    let mut getter = Task::waiting(queue.get());
    queue.try_put(alive.clone()).unwrap();
    queue.try_put(alive.clone()).unwrap();
    let mut joiner = Task::waiting(queue.join());
    queue.shutdown(true);
    assert_eq!(Rc::strong_count(&alive), 1);
    assert_eq!((queue.qsize(), queue.unfinished()), (0, 0));
    assert!(joiner.is_woken() && getter.is_woken());
    joiner.expect();
    assert_eq!(getter.expect(), Err(QueueShutDown(())));
}

#[test]
fn an_immediate_shutdown_does_not_finish_what_was_taken() {
    let queue = Queue::unbounded();
    queue.try_put(1).unwrap();
    queue.try_put(2).unwrap();
    queue.try_get().unwrap();
    queue.shutdown(false);
    queue.shutdown(true);
    let mut joiner = Task::waiting(queue.join());
    queue.task_done();
    joiner.expect();
}

#[test]
fn a_lifo_queue_gives_the_most_recent_item_first() {
    let queue = LifoQueue::bounded(3);
    (1..=3).for_each(|item| queue.try_put(item).unwrap());
    let mut putter = Task::waiting(queue.put(4));
    assert_eq!(queue.try_get(), Ok(3));
    putter.expect().unwrap();
    let items: Vec<_> = (0..3).map(|_| queue.try_get().unwrap()).collect();
    assert_eq!(items, [4, 2, 1]);
}

#[test]
fn a_priority_queue_gives_the_smallest_first() {
    let queue = PriorityQueue::unbounded();
    for item in [5, 1, 4, 1, 3] {
        queue.try_put(item).unwrap();
    }
    assert_eq!(queue.try_get(), Ok(1));
    queue.try_put(0).unwrap();
    queue.try_put(9).unwrap();
    let items: Vec<_> = std::iter::from_fn(|| queue.try_get().ok()).collect();
    assert_eq!(items, [0, 1, 3, 4, 5, 9]);
}

/// Compares by `key` alone.
struct Keyed {
    key: u32,
    number: u32,
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Keyed {}
impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Keyed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

#[test]
fn equal_items_of_a_priority_queue_leave_in_the_order_in_which_they_came() {
    let queue = PriorityQueue::unbounded();
    for number in 0..60 {
        queue.try_put(Keyed { key: number % 3, number }).unwrap();
        if number % 7 == 6 {
            let taken = queue.try_get().unwrap();
            assert_eq!(taken.key, 0);
        }
    }
    let mut before: Option<Keyed> = None;
    while let Ok(item) = queue.try_get() {
        if let Some(before) = before {
            assert!((before.key, before.number) < (item.key, item.number));
        }
        before = Some(item);
    }
}

#[test]
fn a_waiting_getter_of_a_priority_queue_gets_what_is_smallest_when_it_runs() {
    let queue = PriorityQueue::unbounded();
    let mut getter = Task::waiting(queue.get());
    queue.try_put(5).unwrap();
    queue.try_put(2).unwrap();
    assert_eq!(getter.expect(), Ok(2));
    assert_eq!(queue.try_get(), Ok(5));
}

thread_local! {
    /// How many comparisons to allow before one panics.
    static PATIENCE: Cell<Option<u32>> = const { Cell::new(None) };
}

struct Touchy(u32);

impl PartialEq for Touchy {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Touchy {}
impl PartialOrd for Touchy {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Touchy {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        if let Some(patience) = PATIENCE.get() {
            PATIENCE.set(Some(patience.checked_sub(1).expect("patience is lost")));
        }
        self.0.cmp(&other.0)
    }
}

#[test]
fn a_comparison_that_panics_loses_no_item_at_whatever_step() {
    for patience in 0.. {
        let queue = PriorityQueue::unbounded();
        for item in [7, 3, 9, 1, 8, 2, 6, 4, 5, 0] {
            queue.try_put(Touchy(item)).unwrap();
        }
        PATIENCE.set(Some(patience));
        let mut items = Vec::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            while let Ok(item) = queue.try_get() {
                items.push(item.0);
            }
        }));
        PATIENCE.set(None);
        assert_eq!(queue.qsize() + items.len(), 10);
        while let Ok(item) = queue.try_get() {
            items.push(item.0);
        }
        assert_eq!(items, (0..10).collect::<Vec<_>>());
        if outcome.is_ok() {
            break;
        }
    }
}

#[test]
fn a_priority_queue_makes_few_comparisons_for_each_item() {
    let count: u32 = if cfg!(miri) { 64 } else { 4096 };
    let queue = PriorityQueue::unbounded();
    (0..count).for_each(|item| assert!(queue.try_put(Touchy(item * 7919 % count)).is_ok()));
    PATIENCE.set(Some(u32::MAX));
    for item in 0..count {
        assert_eq!(queue.try_get().map(|item| item.0), Ok(item));
    }
    let made = u32::MAX - PATIENCE.take().unwrap();
    assert!(made <= 3 * count * count.ilog2(), "{made} comparisons for {count} items");
}

#[test]
fn a_getter_whose_comparison_panics_leaves_its_item_to_the_next() {
    let queue = PriorityQueue::unbounded();
    let mut first = Task::waiting(queue.get());
    let mut second = Task::waiting(queue.get());
    let mut third = Task::waiting(queue.get());
    queue.try_put(Touchy(2)).unwrap();
    queue.try_put(Touchy(1)).unwrap();
    PATIENCE.set(Some(0));
    assert!(catch_unwind(AssertUnwindSafe(|| first.poll().is_ready())).is_err());
    PATIENCE.set(None);
    assert!(third.is_woken());
    assert_eq!(third.expect().map(|item| item.0), Ok(1));
    assert_eq!(second.expect().map(|item| item.0), Ok(2));
}

#[test]
fn errors_say_what_happened_and_not_what_was_in_them() {
    struct Opaque;
    let queue = Queue::bounded(1);
    queue.try_put(Opaque).unwrap();
    let full = queue.try_put(Opaque).unwrap_err();
    assert_eq!(
        (format!("{full:?}"), full.to_string()),
        ("QueueFull(..)".into(), "the queue is full".into())
    );
    queue.shutdown(true);
    let refused = Task::new(queue.put(Opaque)).expect().unwrap_err();
    assert_eq!(format!("{refused:?}: {refused}"), "QueueShutDown(..): the queue was shut down");
    assert_eq!(EMPTY.to_string(), "the queue is empty");
    assert!(format!("{queue:?}").contains("phase: Closed"));
}
