//! Coroutines that give values out and take values in, as Python's generators with `send` do.
//!
//! It shows what a task is made of. The body is a future. To give something it leaves it in a cell and is
//! pending; whoever resumes it takes that, leaves an answer in another cell, and polls again. A loop does no
//! more, except that what its tasks are pending for is the world outside, which wakes them.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

type Body<T> = Pin<Box<dyn Future<Output = T>>>;

/// A coroutine that is sent `A`s, gives `Y`s, and returns a `T`. Stands for Python's generator.
pub struct Coroutine<A, Y, T> {
    state: State<A, T>,
    wire: Rc<Wire<A, Y>>,
}

enum State<A, T> {
    Fresh(Box<dyn FnOnce(A) -> Body<T>>),
    Suspended(Body<T>),
    Ended,
}

struct Wire<A, Y> {
    sent: Cell<Option<A>>,
    given: Cell<Option<Y>>,
}

/// The body's end of the wire.
pub struct Yielder<A, Y> {
    wire: Rc<Wire<A, Y>>,
}

/// How far a coroutine went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<Y, T> {
    /// It gave this, and waits to be resumed.
    Gave(Y),
    /// It has ended with this.
    Returned(T),
}

impl<A: 'static, Y: 'static, T> Coroutine<A, Y, T> {
    /// A coroutine that has not begun. The body gets the first value that is sent.
    pub fn new<F>(body: impl FnOnce(A, Yielder<A, Y>) -> F + 'static) -> Coroutine<A, Y, T>
    where
        F: Future<Output = T> + 'static,
    {
        let wire = Rc::new(Wire { sent: Cell::new(None), given: Cell::new(None) });
        let yielder = Yielder { wire: wire.clone() };
        let begin = Box::new(move |first| -> Body<T> { Box::pin(body(first, yielder)) });
        Coroutine { state: State::Fresh(begin), wire }
    }

    /// Sends a value and runs it until it gives one or returns; `None` if it has ended before. Stands for
    /// `send`.
    ///
    /// # Panics
    /// With the body's panic, after which it has ended; if the body awaits anything but
    /// [`Yielder::give`].
    pub fn resume(&mut self, value: A) -> Option<Step<Y, T>> {
        let mut body = match mem::replace(&mut self.state, State::Ended) {
            State::Fresh(begin) => begin(value),
            State::Suspended(body) => {
                self.wire.sent.set(Some(value));
                body
            }
            State::Ended => return None,
        };
        match body.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(Step::Returned(value)),
            Poll::Pending => {
                let given = self.wire.given.take();
                let given = given.expect("the body awaits nothing but `Yielder::give`");
                self.state = State::Suspended(body);
                Some(Step::Gave(given))
            }
        }
    }
}

/// A coroutine that is sent nothing and returns nothing is a generator as most know it.
impl<Y: 'static> Iterator for Coroutine<(), Y, ()> {
    type Item = Y;

    fn next(&mut self) -> Option<Y> {
        match self.resume(())? {
            Step::Gave(value) => Some(value),
            Step::Returned(()) => None,
        }
    }
}

impl<A, Y> Yielder<A, Y> {
    /// Gives a value to whoever has resumed the coroutine, and waits to be sent the next. Stands for
    /// `yield`.
    pub async fn give(&self, value: Y) -> A {
        self.wire.given.set(Some(value));
        poll_fn(|_| self.wire.sent.take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

impl<A, Y, T> fmt::Debug for Coroutine<A, Y, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Fresh(_) => "<Coroutine, fresh>",
            State::Suspended(_) => "<Coroutine, suspended>",
            State::Ended => "<Coroutine, ended>",
        })
    }
}

impl<A, Y> fmt::Debug for Yielder<A, Y> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Yielder>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn it_does_not_begin_before_it_is_resumed() {
        let begun = Rc::new(Cell::new(false));
        let flag = begun.clone();
        let mut coroutine =
            Coroutine::new(move |(), _: Yielder<(), ()>| async move { flag.set(true) });
        assert_eq!((begun.get(), format!("{coroutine:?}").as_str()), (false, "<Coroutine, fresh>"));
        assert_eq!(coroutine.resume(()), Some(Step::Returned(())));
        assert_eq!((begun.get(), coroutine.resume(())), (true, None));
    }

    #[test]
    fn each_value_that_is_sent_is_the_value_of_its_give() {
        let mut echo = Coroutine::new(|first: u32, yielder: Yielder<u32, u32>| async move {
            let second = yielder.give(first).await;
            yielder.give(second).await
        });
        assert_eq!(echo.resume(1), Some(Step::Gave(1)));
        assert_eq!(echo.resume(2), Some(Step::Gave(2)));
        assert_eq!(echo.resume(3), Some(Step::Returned(3)));
        assert_eq!(echo.resume(4), None);
    }

    #[test]
    fn as_an_iterator_it_ends_with_its_body() {
        let body = |(), yielder: Yielder<(), u32>| async move {
            for number in 0..3 {
                yielder.give(number).await;
            }
        };
        assert_eq!(Coroutine::new(body).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn after_a_panic_it_has_ended() {
        let body = |first: u32, _: Yielder<u32, ()>| async move { assert_eq!(first, 0, "sent") };
        let mut coroutine = Coroutine::new(body);
        assert!(catch_unwind(AssertUnwindSafe(|| coroutine.resume(1))).is_err());
        assert_eq!(coroutine.resume(0), None);
    }
}
