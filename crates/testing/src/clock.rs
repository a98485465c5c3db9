//! The clock of the test that runs on this thread: moving it and reading it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tulipa_loop::LoopHandle;
use tulipa_selector::VirtualHandle;

thread_local! {
    static CURRENT: RefCell<Option<TestClock>> = const { RefCell::new(None) };
}

/// What a test may ask of its clock.
#[derive(Clone)]
pub(crate) struct TestClock {
    handle: LoopHandle,
    start: Instant,
    /// `None` in real time.
    wishes: Option<Rc<Wishes>>,
}

/// Who waits for the clock to be moved.
pub(crate) struct Wishes {
    pub(crate) world: VirtualHandle,
    open: RefCell<Vec<Weak<Wish>>>,
}

/// One that wants the clock to be at `target`, and to hear of it.
pub(crate) struct Wish {
    pub(crate) target: Instant,
    fulfilled: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// Moves the clock of the test by `duration`, from now, and runs all that is due on the way, each at its
/// own time, in order, including what is scheduled meanwhile. It is over exactly at the target, when there
/// is nothing left to do there; so `advance(Duration::ZERO)` runs all that can run now.
///
/// For tests with a virtual clock, `clock = "virtual"` or `clock = "autojump"`. Stands for `advance` of
/// asynctest's `ClockedTestCase`. When several wait, the earliest target comes first.
///
/// ```
/// use std::time::Duration;
/// use tulipa_loop::{sleep, spawn};
/// use tulipa_testing::{Clock, TestRunner, advance};
///
/// TestRunner::new().clock(Clock::Virtual).run(async {
///     let task = spawn(sleep(Duration::from_secs(60)));
///     advance(Duration::from_secs(59)).await;
///     assert!(!task.is_done());
///     advance(Duration::from_secs(1)).await;
///     assert!(task.is_done());
/// });
/// ```
///
/// # Panics
/// Outside of a test, and in one whose clock is real.
///
/// # Cancel safety
/// The clock stays where it is by then.
#[track_caller]
pub fn advance(duration: Duration) -> Advance {
    let clock = TestClock::current();
    let wishes = clock.wishes.expect("a real clock cannot be advanced: use `clock = \"virtual\"`");
    let now = wishes.world.now();
    let target = now.checked_add(duration).expect("virtual time stays within an `Instant`");
    let wish = Wish { target, fulfilled: Cell::new(false), waker: Cell::new(None) };
    let wish = Rc::new(wish);
    wishes.open.borrow_mut().push(Rc::downgrade(&wish));
    Advance { wish }
}

/// The time since the test began, by the clock of its loop.
///
/// # Panics
/// Outside of a test.
#[track_caller]
pub fn elapsed() -> Duration {
    let clock = TestClock::current();
    clock.handle.time().saturating_duration_since(clock.start)
}

/// The outside world of the test's loop: sources, their readiness, and holds that keep the clock from
/// jumping while a thread is at work. A job of the loop's default executor holds it by itself.
///
/// # Panics
/// Outside of a test, and in one whose clock is real.
#[track_caller]
pub fn world() -> VirtualHandle {
    let wishes = TestClock::current().wishes;
    let wishes =
        wishes.expect("with a real clock the outside world is real: use `clock = \"virtual\"`");
    wishes.world.clone()
}

/// Waits until the clock has been moved: see [`advance`].
#[must_use = "the clock is moved while this is awaited"]
pub struct Advance {
    wish: Rc<Wish>,
}

impl Future for Advance {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.wish.fulfilled.get() {
            return Poll::Ready(());
        }
        drop(self.wish.waker.replace(Some(context.waker().clone())));
        Poll::Pending
    }
}

impl fmt::Debug for Advance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Advance to {:?}>", self.wish.target)
    }
}

impl Wishes {
    pub(crate) fn new(world: VirtualHandle) -> Wishes {
        Wishes { world, open: RefCell::default() }
    }

    /// The one with the earliest target among those that somebody still waits for.
    pub(crate) fn next(&self) -> Option<Rc<Wish>> {
        let mut open = self.open.borrow_mut();
        open.retain(|wish| wish.upgrade().is_some_and(|wish| !wish.fulfilled.get()));
        open.iter().filter_map(Weak::upgrade).min_by_key(|wish| wish.target)
    }
}

impl Wish {
    pub(crate) fn fulfil(&self) {
        self.fulfilled.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl TestClock {
    pub(crate) fn new(handle: LoopHandle, wishes: Option<Rc<Wishes>>) -> TestClock {
        TestClock { start: handle.time(), handle, wishes }
    }

    /// Makes this the clock of the test on this thread, until the guard is dropped.
    pub(crate) fn enter(self) -> Entered {
        Entered { outer: CURRENT.replace(Some(self)) }
    }

    #[track_caller]
    fn current() -> TestClock {
        let current = CURRENT.with_borrow(Clone::clone);
        current.expect("no test of a `TestRunner` runs on this thread")
    }
}

/// See [`TestClock::enter`].
pub(crate) struct Entered {
    outer: Option<TestClock>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let inner = CURRENT.replace(self.outer.take());
        drop(inner);
    }
}
