//! Functions that are not there yet: what they are asked, and what they answer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// An asynchronous function for tests, which answers as it was told to and remembers what it was asked.
/// Clones are the same mock. Stands for asynctest's `CoroutineMock` and `unittest.mock.AsyncMock`.
///
/// ```
/// use tulipa_testing::{AsyncMock, Clock, TestRunner};
///
/// let fetch = AsyncMock::<&str, Result<u32, String>>::new();
/// fetch.returns(Ok(200));
/// fetch.returns_once(Err("no route".to_owned()));
///
/// let mock = fetch.clone();
/// TestRunner::new().clock(Clock::Autojump).run(async move {
///     assert!(mock.call("a").await.is_err());
///     assert_eq!(mock.call("b").await, Ok(200));
/// });
/// assert_eq!(fetch.await_count(), 2);
/// fetch.assert_awaited_with(&"b");
/// ```
///
/// # What it answers
/// What was given with [`returns_once`](Self::returns_once), in that order; then what the
/// [side effect](Self::side_effect) gives; then what was given with [`returns`](Self::returns).
pub struct AsyncMock<Args, Ret> {
    inner: Rc<Inner<Args, Ret>>,
}

type Effect<Args, Ret> = Box<dyn FnMut(&Args) -> Ret>;

struct Inner<Args, Ret> {
    calls: Cell<usize>,
    awaited: RefCell<Vec<Rc<Args>>>,
    once: RefCell<VecDeque<Ret>>,
    /// Out while it is called.
    effect: Cell<Option<Effect<Args, Ret>>>,
    always: Cell<Option<Effect<Args, Ret>>>,
    waiting: RefCell<Vec<Waker>>,
}

impl<Args, Ret> AsyncMock<Args, Ret> {
    /// One that has nothing to answer yet.
    pub fn new() -> AsyncMock<Args, Ret> {
        let inner = Inner {
            calls: Cell::new(0),
            awaited: RefCell::default(),
            once: RefCell::default(),
            effect: Cell::default(),
            always: Cell::default(),
            waiting: RefCell::default(),
        };
        AsyncMock { inner: Rc::new(inner) }
    }

    /// What it answers if nothing else says so. Stands for `return_value`.
    pub fn returns(&self, value: Ret)
    where
        Ret: Clone + 'static,
    {
        let old = self.inner.always.replace(Some(Box::new(move |_| value.clone())));
        drop(old);
    }

    /// What it answers once; several of these come one after the other. Stands for an iterable
    /// `side_effect`, and asynctest's `return_once`.
    pub fn returns_once(&self, value: Ret) {
        self.inner.once.borrow_mut().push_back(value);
    }

    /// What makes its answers. Stands for a callable `side_effect`.
    pub fn side_effect(&self, effect: impl FnMut(&Args) -> Ret + 'static) {
        let old = self.inner.effect.replace(Some(Box::new(effect)));
        drop(old);
    }

    /// Calls it.
    ///
    /// # Panics
    /// When it is awaited and has no answer, or is called from inside of its own side effect.
    ///
    /// # Cancel safety
    /// It is awaited as soon as it is polled, and never waits.
    pub fn call(&self, args: Args) -> impl Future<Output = Ret> + use<Args, Ret> {
        self.inner.calls.set(self.inner.calls.get() + 1);
        let inner = self.inner.clone();
        async move { inner.answer(Rc::new(args)) }
    }

    /// How often it was called, awaited or not.
    pub fn call_count(&self) -> usize {
        self.inner.calls.get()
    }

    /// How often it was awaited.
    pub fn await_count(&self) -> usize {
        self.inner.awaited.borrow().len()
    }

    /// What it was awaited with, each time. Stands for `await_args_list`.
    pub fn await_args(&self) -> Vec<Rc<Args>> {
        self.inner.awaited.borrow().clone()
    }

    /// Waits until it has been awaited so often. Stands for asynctest's `awaited.wait(n)`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_awaited(&self, times: usize) {
        poll_fn(|context| {
            if self.await_count() >= times {
                return Poll::Ready(());
            }
            let waker = context.waker().clone();
            self.inner.waiting.borrow_mut().push(waker);
            Poll::Pending
        })
        .await;
    }

    /// Forgets what it was asked, and keeps its answers.
    pub fn reset(&self) {
        self.inner.calls.set(0);
        let awaited = self.inner.awaited.take();
        drop(awaited);
    }
}

impl<Args: Debug + PartialEq, Ret> AsyncMock<Args, Ret> {
    /// Checks that it was awaited.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_awaited(&self) {
        assert!(self.await_count() > 0, "the mock was not awaited");
    }

    /// Checks that it was not awaited.
    ///
    /// # Panics
    /// If it was.
    #[track_caller]
    pub fn assert_not_awaited(&self) {
        let awaited = self.await_args();
        assert!(awaited.is_empty(), "the mock was awaited with {awaited:?}");
    }

    /// Checks that it was awaited once, and with this.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_awaited_once_with(&self, args: &Args) {
        let awaited = self.await_args();
        assert_eq!(awaited.len(), 1, "the mock was awaited with {awaited:?}");
        assert_eq!(&*awaited[0], args, "what the mock was awaited with");
    }

    /// Checks that it was last awaited with this.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_awaited_with(&self, args: &Args) {
        let last = self.await_args().pop();
        let last = last.unwrap_or_else(|| panic!("the mock was not awaited, not with {args:?}"));
        assert_eq!(&*last, args, "what the mock was last awaited with");
    }

    /// Checks that it was awaited with this at any time.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_any_await(&self, args: &Args) {
        let awaited = self.await_args();
        let found = awaited.iter().any(|one| **one == *args);
        assert!(found, "the mock was awaited with {awaited:?}, not with {args:?}");
    }
}

impl<Args, Ret> Inner<Args, Ret> {
    fn answer(&self, args: Rc<Args>) -> Ret {
        self.awaited.borrow_mut().push(args.clone());
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
        let once = self.once.borrow_mut().pop_front();
        if let Some(value) = once {
            return value;
        }
        for place in [&self.effect, &self.always] {
            if let Some(mut effect) = place.take() {
                let value = effect(&args);
                // It may have set another one.
                let newer = place.replace(Some(effect));
                if newer.is_some() {
                    drop(place.replace(newer));
                }
                return value;
            }
        }
        panic!("the mock has no answer: call `returns`, `returns_once` or `side_effect`")
    }
}

impl<Args, Ret> Default for AsyncMock<Args, Ret> {
    fn default() -> AsyncMock<Args, Ret> {
        AsyncMock::new()
    }
}

impl<Args, Ret> Clone for AsyncMock<Args, Ret> {
    fn clone(&self) -> AsyncMock<Args, Ret> {
        AsyncMock { inner: self.inner.clone() }
    }
}

impl<Args, Ret> fmt::Debug for AsyncMock<Args, Ret> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (calls, awaits) = (self.call_count(), self.await_count());
        f.debug_struct("AsyncMock").field("calls", &calls).field("awaits", &awaits).finish()
    }
}
