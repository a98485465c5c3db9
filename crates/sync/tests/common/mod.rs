//! Futures polled by hand with wakers that count, and an executor that can drop a task at any step.

#![allow(dead_code, unreachable_pub, reason = "shared by test files that each use a part")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use tulipa_sync::wait::{Observer, OwnerId, Wait, WaitToken};

/// How many random cases a property runs: `TULIPA_CASES`, or 256, or a few under Miri.
pub fn cases() -> u32 {
    let chosen = std::env::var("TULIPA_CASES").ok().and_then(|cases| cases.parse().ok());
    chosen.unwrap_or(if cfg!(miri) { 2 } else { 256 })
}

/// A large number of waiters, smaller under Miri.
pub fn many() -> usize {
    if cfg!(miri) { 100 } else { 10_000 }
}

#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One future with its waker.
pub struct Task<'a, T> {
    future: Option<Pin<Box<dyn Future<Output = T> + 'a>>>,
    wakes: Arc<Wakes>,
}

impl<'a, T> Task<'a, T> {
    pub fn new(future: impl Future<Output = T> + 'a) -> Self {
        Self { future: Some(Box::pin(future)), wakes: Arc::default() }
    }

    /// A future that is polled once and has to wait.
    pub fn waiting(future: impl Future<Output = T> + 'a) -> Self {
        let mut task = Self::new(future);
        assert!(task.poll().is_pending(), "the future has to wait");
        task
    }

    pub fn poll(&mut self) -> Poll<T> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.poll_with(&waker)
    }

    pub fn poll_with(&mut self, waker: &Waker) -> Poll<T> {
        let future = self.future.as_mut().expect("polled after completion");
        let polled = future.as_mut().poll(&mut Context::from_waker(waker));
        if polled.is_ready() {
            self.future = None;
        }
        polled
    }

    pub fn expect(&mut self) -> T {
        match self.poll() {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("the future should be ready"),
        }
    }

    pub fn cancel(&mut self) {
        self.future = None;
    }

    pub fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }

    pub fn is_woken(&self) -> bool {
        self.wakes() > 0
    }
}

type Deed = Option<Box<dyn FnOnce()>>;

thread_local! {
    /// What wakers do. They are `Send`, so a closure over `Rc`s cannot be inside of one.
    static ACTIONS: RefCell<Vec<Deed>> = const { RefCell::new(Vec::new()) };
}

struct Action(usize);

impl Wake for Action {
    fn wake(self: Arc<Self>) {
        take_action(self.0);
    }
}

fn add_action(action: impl FnOnce() + 'static) -> usize {
    ACTIONS.with_borrow_mut(|actions| {
        actions.push(Some(Box::new(action)));
        actions.len() - 1
    })
}

fn take_action(index: usize) {
    let action = ACTIONS.with_borrow_mut(|actions| actions[index].take());
    if let Some(action) = action {
        action();
    }
}

/// A pointer that keeps what it points to reachable, and is never followed.
struct Kept(*const ());

// SAFETY: nobody reads the pointer.
unsafe impl Send for Kept {}

static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// Lends `value` for the rest of the program, where a leak check can see that it is meant.
pub fn lend<T>(value: T) -> &'static T {
    let lent: &'static T = Box::leak(Box::new(value));
    KEPT.lock().unwrap().push(Kept(std::ptr::from_ref(lent).cast()));
    lent
}

/// A waker that runs `action` on this thread when it is first woken.
pub fn acting_waker(action: impl FnOnce() + 'static) -> Waker {
    Waker::from(Arc::new(Action(add_action(action))))
}

/// Returns `Pending` once, and wakes itself.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

struct Schedule {
    task: usize,
    queued: AtomicBool,
    ready: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for Schedule {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap().push_back(self.task);
        }
    }
}

/// Runs tasks in the order in which they are woken.
#[derive(Default)]
pub struct Executor<'a> {
    tasks: Vec<Option<Pin<Box<dyn Future<Output = ()> + 'a>>>>,
    schedules: Vec<Arc<Schedule>>,
    ready: Arc<Mutex<VecDeque<usize>>>,
    pub finished: Vec<usize>,
    pub steps: usize,
}

impl<'a> Executor<'a> {
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'a) {
        let task = self.tasks.len();
        self.tasks.push(Some(Box::pin(future)));
        let ready = Arc::clone(&self.ready);
        let schedule = Arc::new(Schedule { task, queued: AtomicBool::new(false), ready });
        Arc::clone(&schedule).wake();
        self.schedules.push(schedule);
    }

    /// Polls until nothing is ready. After step `victim.1`, task `victim.0` is dropped.
    pub fn run(&mut self, victim: Option<(usize, usize)>) {
        loop {
            if let Some((task, step)) = victim
                && step == self.steps
            {
                self.tasks[task] = None;
            }
            let next = self.ready.lock().unwrap().pop_front();
            let Some(task) = next else { return };
            let schedule = Arc::clone(&self.schedules[task]);
            schedule.queued.store(false, Ordering::Relaxed);
            self.steps += 1;
            assert!(self.steps < 100_000, "the tasks go round in circles");
            let Some(future) = &mut self.tasks[task] else { continue };
            let waker = Waker::from(schedule);
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                self.tasks[task] = None;
                self.finished.push(task);
            }
        }
    }

    pub fn pending(&self) -> Vec<usize> {
        (0..self.tasks.len()).filter(|&task| self.tasks[task].is_some()).collect()
    }
}

/// Checks that every `begin` has one `end`.
#[derive(Default)]
pub struct Pairing {
    next: Cell<u64>,
    open: Cell<usize>,
    owner: Cell<Option<OwnerId>>,
}

impl Pairing {
    pub fn open(&self) -> usize {
        self.open.get()
    }

    pub fn begun(&self) -> u64 {
        self.next.get()
    }
}

impl Observer for Pairing {
    fn begin(&self, _: &Wait) -> WaitToken {
        self.open.set(self.open.get() + 1);
        self.next.set(self.next.get() + 1);
        WaitToken::new(self.next.get())
    }

    fn end(&self, _: WaitToken) {
        self.open.set(self.open.get().checked_sub(1).expect("an end has a beginning"));
    }

    fn current_owner(&self) -> Option<OwnerId> {
        self.owner.get()
    }
}

/// A waker whose first clone runs `action` on this thread. The standard library's `Wake` has no say
/// in cloning, so this one has a table of its own.
pub fn waker_that_acts_when_cloned(action: impl FnOnce() + 'static) -> Waker {
    let data = std::ptr::without_provenance(add_action(action) + 1);
    // SAFETY: the data is a number and no function of the table dereferences it.
    unsafe { Waker::from_raw(RawWaker::new(data, &ACTS_WHEN_CLONED)) }
}

static ACTS_WHEN_CLONED: RawWakerVTable = RawWakerVTable::new(
    |data| {
        take_action(data.addr() - 1);
        RawWaker::new(data, &ACTS_WHEN_CLONED)
    },
    |_| {},
    |_| {},
    |_| {},
);

/// A waker that runs `action` on this thread when its last handle is dropped.
pub fn waker_that_acts_when_dropped(action: impl FnOnce() + 'static) -> Waker {
    struct OnDrop(usize);
    impl Wake for OnDrop {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for OnDrop {
        fn drop(&mut self) {
            take_action(self.0);
        }
    }
    Waker::from(Arc::new(OnDrop(add_action(action))))
}
