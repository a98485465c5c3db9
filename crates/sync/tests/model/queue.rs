//! The queues: a list of items, of which some are promised, and lists of those who wait.

use std::task::Poll;

use proptest::prelude::*;
use tulipa_sync::{
    BaseQueue, LifoQueue, Order, PriorityQueue, Queue, QueueShutDown, TryGetError, TryPutError,
};

use crate::common::Task;
use crate::{config, length, pick};

#[derive(Clone, Debug)]
enum Step {
    Put,
    TryPut,
    Get,
    TryGet,
    Join,
    PollPut(u8),
    PollGet(u8),
    CancelPut(u8),
    CancelGet(u8),
    TaskDone,
    Shutdown(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => Just(Step::Put),
        6 => Just(Step::TryPut),
        12 => Just(Step::Get),
        6 => Just(Step::TryGet),
        2 => Just(Step::Join),
        12 => any::<u8>().prop_map(Step::PollPut),
        12 => any::<u8>().prop_map(Step::PollGet),
        6 => any::<u8>().prop_map(Step::CancelPut),
        6 => any::<u8>().prop_map(Step::CancelGet),
        8 => Just(Step::TaskDone),
        1 => any::<bool>().prop_map(Step::Shutdown),
    ];
    prop::collection::vec(step, 0..length(120))
}

/// The items are the numbers of the steps that put them, so a small range of priorities is made by
/// dividing them.
type Number = (usize, usize);

type Putting<'a> = Task<'a, Result<(), QueueShutDown<Number>>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    Granted,
    /// Was woken by a shutdown.
    Released,
}

struct Model {
    items: Vec<Number>,
    next: fn(&[Number]) -> usize,
    capacity: usize,
    unfinished: usize,
    open: bool,
    getters: Vec<(usize, State)>,
    putters: Vec<(usize, State)>,
}

impl Model {
    fn granted(waiters: &[(usize, State)]) -> usize {
        waiters.iter().filter(|(_, state)| *state == State::Granted).count()
    }

    fn available(&self) -> usize {
        self.items.len() - Self::granted(&self.getters)
    }

    fn has_room(&self) -> bool {
        self.items.len() + Self::granted(&self.putters) < self.capacity
    }

    /// Grants what can be granted, to the first who wait.
    fn settle(&mut self) {
        while self.available() > 0 {
            let Some(first) = self.getters.iter_mut().find(|(_, at)| *at == State::Waiting) else {
                break;
            };
            first.1 = State::Granted;
        }
        while self.open && self.has_room() {
            let Some(first) = self.putters.iter_mut().find(|(_, at)| *at == State::Waiting) else {
                break;
            };
            first.1 = State::Granted;
        }
    }

    fn put(&mut self, item: Number) {
        self.items.push(item);
        self.unfinished += 1;
        self.settle();
    }

    fn take(&mut self) -> Number {
        let index = (self.next)(&self.items);
        let item = self.items.remove(index);
        self.settle();
        item
    }

    fn shut_down(&mut self, immediate: bool) {
        self.open = false;
        let release = |waiters: &mut Vec<(usize, State)>, all: bool| {
            for (_, state) in waiters.iter_mut() {
                if all || *state == State::Waiting {
                    *state = State::Released;
                }
            }
        };
        release(&mut self.putters, true);
        release(&mut self.getters, immediate);
        if immediate {
            self.unfinished = self.unfinished.saturating_sub(self.items.len());
            self.items.clear();
        }
    }
}

fn check<O: Order<Item = Number>>(
    queue: &BaseQueue<O>,
    capacity: usize,
    next: fn(&[Number]) -> usize,
    steps: Vec<Step>,
) {
    let mut model = Model {
        items: Vec::new(),
        next,
        capacity,
        unfinished: 0,
        open: true,
        getters: Vec::new(),
        putters: Vec::new(),
    };
    let mut putters: Vec<(Number, Putting<'_>)> = Vec::new();
    let mut getters: Vec<Task<'_, Result<Number, QueueShutDown>>> = Vec::new();
    let mut joiners: Vec<Task<'_, ()>> = Vec::new();
    for (id, step) in steps.into_iter().enumerate() {
        let item = (id % 3, id);
        match step {
            Step::Put => {
                let mut task = Task::new(queue.put(item));
                match task.poll() {
                    Poll::Ready(Err(QueueShutDown(returned))) => {
                        assert_eq!((returned, model.open), (item, false));
                    }
                    Poll::Ready(Ok(())) => {
                        assert!(model.open && model.has_room());
                        model.put(item);
                    }
                    Poll::Pending => {
                        assert!(model.open && !model.has_room());
                        model.putters.push((id, State::Waiting));
                        putters.push((item, task));
                    }
                }
            }
            Step::TryPut => match queue.try_put(item) {
                Ok(()) => {
                    assert!(model.open && model.has_room());
                    model.put(item);
                }
                Err(TryPutError::Full(_)) => assert!(model.open && !model.has_room()),
                Err(TryPutError::ShutDown(_)) => assert!(!model.open),
            },
            Step::Get => {
                let mut task = Task::new(queue.get());
                match task.poll() {
                    Poll::Ready(Ok(item)) => {
                        assert!(model.available() > 0);
                        assert_eq!(item, model.take());
                    }
                    Poll::Ready(Err(_)) => assert!(!model.open && model.available() == 0),
                    Poll::Pending => {
                        assert!(model.open && model.available() == 0);
                        model.getters.push((id, State::Waiting));
                        getters.push(task);
                    }
                }
            }
            Step::TryGet => match queue.try_get() {
                Ok(item) => {
                    assert!(model.available() > 0);
                    assert_eq!(item, model.take());
                }
                Err(TryGetError::Empty(_)) => assert!(model.open && model.available() == 0),
                Err(TryGetError::ShutDown(_)) => assert!(!model.open && model.available() == 0),
            },
            Step::Join => {
                let mut task = Task::new(queue.join());
                let ready = task.poll().is_ready();
                assert_eq!(ready, model.unfinished == 0);
                if !ready {
                    joiners.push(task);
                }
            }
            Step::PollPut(choice) => {
                let Some(index) = pick(choice, putters.len()) else { continue };
                let polled = putters[index].1.poll();
                let (_, state) = model.putters[index];
                match polled {
                    Poll::Pending => assert_eq!(state, State::Waiting),
                    Poll::Ready(result) => {
                        assert_eq!(result.is_ok(), state == State::Granted);
                        model.putters.remove(index);
                        let (item, _) = putters.remove(index);
                        match result {
                            Ok(()) => model.put(item),
                            Err(QueueShutDown(returned)) => assert_eq!(returned, item),
                        }
                    }
                }
            }
            Step::PollGet(choice) => {
                let Some(index) = pick(choice, getters.len()) else { continue };
                let polled = getters[index].poll();
                let (_, state) = model.getters[index];
                // Who was woken by a shutdown takes what somebody else gave up meanwhile.
                let takes =
                    state == State::Granted || (state == State::Released && model.available() > 0);
                match polled {
                    Poll::Pending => assert_eq!(state, State::Waiting),
                    Poll::Ready(result) => {
                        assert_eq!(result.is_ok(), takes);
                        model.getters.remove(index);
                        drop(getters.remove(index));
                        if let Ok(item) = result {
                            assert_eq!(item, model.take());
                        }
                    }
                }
            }
            Step::CancelPut(choice) => {
                let Some(index) = pick(choice, putters.len()) else { continue };
                drop(putters.remove(index));
                model.putters.remove(index);
                model.settle();
            }
            Step::CancelGet(choice) => {
                let Some(index) = pick(choice, getters.len()) else { continue };
                drop(getters.remove(index));
                model.getters.remove(index);
                model.settle();
            }
            Step::TaskDone => {
                if model.unfinished > 0 {
                    queue.task_done();
                    model.unfinished -= 1;
                }
            }
            Step::Shutdown(immediate) => {
                queue.shutdown(immediate);
                model.shut_down(immediate);
            }
        }
        if model.unfinished == 0 {
            joiners.drain(..).for_each(|mut joiner| {
                assert!(joiner.is_woken());
                joiner.expect();
            });
        }
        assert_eq!(queue.qsize(), model.items.len());
        assert_eq!(queue.unfinished(), model.unfinished);
        assert_eq!(queue.is_shut_down(), !model.open);
        for ((_, task), (_, state)) in putters.iter().zip(&model.putters) {
            assert_eq!(task.is_woken(), *state != State::Waiting);
        }
        for (task, (_, state)) in getters.iter().zip(&model.getters) {
            assert_eq!(task.is_woken(), *state != State::Waiting);
        }
        assert!(joiners.iter().all(|joiner| !joiner.is_woken()));
    }
}

fn first(_: &[Number]) -> usize {
    0
}

fn last(items: &[Number]) -> usize {
    items.len() - 1
}

fn smallest(items: &[Number]) -> usize {
    (0..items.len()).min_by_key(|&index| items[index]).unwrap()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn queue_follows_the_model(capacity in 1usize..4, steps in steps()) {
        check(&Queue::bounded(capacity), capacity, first, steps);
    }

    #[test]
    fn unbounded_queue_follows_the_model(steps in steps()) {
        check(&Queue::unbounded(), usize::MAX, first, steps);
    }

    #[test]
    fn lifo_queue_follows_the_model(capacity in 1usize..4, steps in steps()) {
        check(&LifoQueue::bounded(capacity), capacity, last, steps);
    }

    #[test]
    fn priority_queue_follows_the_model(capacity in 1usize..9, steps in steps()) {
        check(&PriorityQueue::bounded(capacity), capacity, smallest, steps);
    }
}
