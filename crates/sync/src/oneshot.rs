//! One value, from one task to another.
//!
//! ```
//! use futures_lite::future::{block_on, zip};
//! use tulipa_sync::oneshot;
//!
//! let (sender, receiver) = oneshot::channel();
//! let (received, sent) = block_on(zip(receiver, async { sender.send("tulip") }));
//! assert_eq!(received, Ok("tulip"));
//! assert!(sent.is_ok());
//! ```
//!
//! It is what asyncio programs use a bare `Future` for. Both ends share one allocation; sending and
//! receiving make no other.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::error::{ReceiverDropped, SenderDropped};
use crate::wait::{Label, Observed, ResourceId, WaitKind};

/// A sender and a receiver for one value.
#[must_use = "a channel does nothing until it is used"]
#[track_caller]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { value: Value::Empty, receiver_alive: true, receiver: None, sender: None };
    let shared = Rc::new(Shared { state: RefCell::new(state), label: Label::new() });
    let sender = Sender { shared: Rc::clone(&shared) };
    (sender, Receiver { shared, observed: None })
}

struct Shared<T> {
    state: RefCell<State<T>>,
    label: Label,
}

struct State<T> {
    value: Value<T>,
    receiver_alive: bool,
    /// Who waits for the value.
    receiver: Option<Waker>,
    /// Who waits for the receiver to go.
    sender: Option<Waker>,
}

/// | value | next |
/// |---|---|
/// | `Empty` | `Sent` by `send`, `Ended` when the sender is dropped |
/// | `Sent` | `Ended` when it is received |
/// | `Ended` | |
enum Value<T> {
    Empty,
    Sent(T),
    Ended,
}

impl<T> State<T> {
    fn take(&mut self) -> Poll<Result<T, SenderDropped>> {
        match self.value {
            Value::Empty => Poll::Pending,
            Value::Ended => Poll::Ready(Err(SenderDropped)),
            Value::Sent(_) => match std::mem::replace(&mut self.value, Value::Ended) {
                Value::Sent(value) => Poll::Ready(Ok(value)),
                _ => unreachable!("the value was there"),
            },
        }
    }

    /// Stores the value, unless nobody would receive it.
    fn send(&mut self, value: T) -> Result<Option<Waker>, T> {
        if !self.receiver_alive {
            return Err(value);
        }
        self.value = Value::Sent(value);
        Ok(self.receiver.take())
    }

    /// Ends the channel on the sender's side. Returns the wakers to wake and to drop.
    fn end_sender(&mut self) -> (Option<Waker>, Option<Waker>) {
        if let Value::Empty = self.value {
            self.value = Value::Ended;
        }
        (self.receiver.take(), self.sender.take())
    }

    /// Ends the channel on the receiver's side. Returns the waker to wake, and what to drop.
    fn end_receiver(&mut self) -> (Option<Waker>, Option<Waker>, Value<T>) {
        self.receiver_alive = false;
        let value = std::mem::replace(&mut self.value, Value::Ended);
        (self.sender.take(), self.receiver.take(), value)
    }
}

/// Keeps `cx`'s waker in a slot of the cell. Returns false if it was there already.
fn keep_waker<T>(
    cell: &RefCell<State<T>>,
    slot: fn(&mut State<T>) -> &mut Option<Waker>,
    cx: &Context<'_>,
) -> bool {
    let kept = slot(&mut cell.borrow_mut()).as_ref().is_some_and(|w| w.will_wake(cx.waker()));
    if kept {
        return false;
    }
    // Cloning and dropping a waker may run anything, so both happen with nothing borrowed.
    let fresh = cx.waker().clone();
    let old = slot(&mut cell.borrow_mut()).replace(fresh);
    drop(old);
    true
}

/// Sends the value. Dropping it unsent tells the receiver so.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Hands the value over.
    ///
    /// `Ok` means that the receiver was there to take it; it may still be dropped before it does.
    ///
    /// # Errors
    ///
    /// [`ReceiverDropped`], with the value, when nobody will receive it.
    pub fn send(self, value: T) -> Result<(), ReceiverDropped<T>> {
        let sent = self.shared.state.borrow_mut().send(value);
        let waker = sent.map_err(ReceiverDropped)?;
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Waits until the receiver is gone, so that nobody needs the value any more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only stops waiting.
    pub fn closed(&mut self) -> Closed<'_, T> {
        Closed { sender: self, observed: None }
    }

    /// Whether the receiver is gone.
    ///
    /// ```
    /// let (sender, receiver) = tulipa_sync::oneshot::channel::<u8>();
    /// assert!(!sender.is_closed());
    /// drop(receiver);
    /// assert!(sender.is_closed());
    /// assert_eq!(sender.send(1).unwrap_err().0, 1);
    /// ```
    #[must_use = "asking has no effect"]
    pub fn is_closed(&self) -> bool {
        !self.shared.state.borrow().receiver_alive
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let (wake, _unused) = self.shared.state.borrow_mut().end_sender();
        if let Some(waker) = wake {
            waker.wake();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// The future of [`Sender::closed`].
#[must_use = "futures do nothing unless awaited"]
pub struct Closed<'a, T> {
    sender: &'a mut Sender<T>,
    observed: Option<Observed>,
}

impl<T> Future for Closed<'_, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { sender, observed } = &mut *self;
        let Shared { state, label } = &*sender.shared;
        let other = keep_waker(state, |state| &mut state.sender, cx);
        if sender.is_closed() {
            drop(observed.take());
            return Poll::Ready(());
        }
        match observed {
            Some(observed) if other => observed.moved(),
            Some(_) => {}
            None => {
                let resource = ResourceId::of(&*sender.shared);
                *observed = label.begin(WaitKind::OneshotClosed, resource, None);
            }
        }
        Poll::Pending
    }
}

impl<T> Drop for Closed<'_, T> {
    fn drop(&mut self) {
        let unused = self.sender.shared.state.borrow_mut().sender.take();
        drop(unused);
    }
}

impl<T> fmt::Debug for Closed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closed").field("sender", &self.sender).finish_non_exhaustive()
    }
}

/// Receives the value: a future of it.
///
/// # Cancel safety
///
/// It can be polled by reference and dropped at any time; a value that was sent and not received is
/// dropped with it.
#[must_use = "futures do nothing unless awaited"]
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    observed: Option<Observed>,
}

impl<T> Receiver<T> {
    /// Takes the value if it was sent already. `Ok(None)` says that it may still come.
    ///
    /// ```
    /// use tulipa_sync::oneshot;
    ///
    /// let (sender, mut receiver) = oneshot::channel();
    /// assert_eq!(receiver.try_recv(), Ok(None));
    /// sender.send(7).unwrap();
    /// assert_eq!(receiver.try_recv(), Ok(Some(7)));
    /// ```
    ///
    /// # Errors
    ///
    /// [`SenderDropped`] when no value will come: the sender was dropped, or the value was taken.
    pub fn try_recv(&mut self) -> Result<Option<T>, SenderDropped> {
        let taken = self.shared.state.borrow_mut().take();
        match taken {
            Poll::Ready(result) => result.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    /// Whether a value is there to be received, or none will come any more.
    #[must_use = "asking has no effect"]
    pub fn is_ready(&self) -> bool {
        !matches!(self.shared.state.borrow().value, Value::Empty)
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, SenderDropped>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, observed } = &mut *self;
        let Shared { state, label } = &**shared;
        let mut taken = state.borrow_mut().take();
        let other = taken.is_pending() && keep_waker(state, |state| &mut state.receiver, cx);
        if other {
            taken = state.borrow_mut().take();
        }
        match observed {
            _ if taken.is_ready() => drop(observed.take()),
            Some(observed) if other => observed.moved(),
            Some(_) => {}
            None => *observed = label.begin(WaitKind::Oneshot, ResourceId::of(&**shared), None),
        }
        taken
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (wake, _unused, _value) = self.shared.state.borrow_mut().end_receiver();
        if let Some(waker) = wake {
            waker.wake();
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}
