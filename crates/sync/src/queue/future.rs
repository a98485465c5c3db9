//! The futures of a queue.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::BaseQueue;
use super::order::Order;
use super::state::{Due, GetGrant, NoPut, Nothing, State};
use crate::error::QueueShutDown;
use crate::wait::{Observed, ResourceId, WaitKind};
use crate::wait_list::{Waiting, poll_turn};

fn observe<O: Order>(queue: &BaseQueue<O>, kind: WaitKind) -> Option<Observed> {
    queue.label.begin(kind, ResourceId::of(queue), None)
}

/// The future of [`BaseQueue::get`].
#[must_use = "futures do nothing unless awaited"]
pub struct QueueGet<'a, O: Order> {
    queue: &'a BaseQueue<O>,
    waiting: Option<Waiting>,
}

impl<'a, O: Order> QueueGet<'a, O> {
    pub(super) fn new(queue: &'a BaseQueue<O>) -> Self {
        Self { queue, waiting: None }
    }

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<O::Item, QueueShutDown>> {
        let queue = self.queue;
        // Cloning a waker may run anything, so the second try is not idle.
        let waker = cx.waker().clone();
        let taken = end(queue.take());
        if taken.is_ready() {
            return taken;
        }
        let ticket = queue.state.borrow_mut().getters.join(waker, GetGrant::ShutDown);
        let waiting = self.waiting.insert(Waiting::unobserved(ticket));
        waiting.observed = observe(queue, WaitKind::Get);
        Poll::Pending
    }

    /// Takes the item a released getter has a claim on. `None` if it has none.
    fn take_granted(&mut self) -> Option<Result<O::Item, Nothing>> {
        let Waiting { ticket, observed: _observed } = self.waiting.take()?;
        let (_left, take) = self.queue.state.borrow_mut().take_granted(ticket);
        take.map(|take| self.queue.finish(take))
    }
}

fn end<T>(taken: Result<T, Nothing>) -> Poll<Result<T, QueueShutDown>> {
    match taken {
        Ok(item) => Poll::Ready(Ok(item)),
        Err(Nothing::AnyMore) => Poll::Ready(Err(QueueShutDown(()))),
        Err(Nothing::Yet) => Poll::Pending,
    }
}

impl<O: Order> Future for QueueGet<'_, O> {
    type Output = Result<O::Item, QueueShutDown>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let queue = self.queue;
        if let Some(waiting) = &self.waiting {
            if !poll_turn(
                &queue.state,
                State::getters_mut,
                &waiting.ticket,
                waiting.observed.as_ref(),
                cx.waker(),
            ) {
                return Poll::Pending;
            }
            if O::PREPARES && queue.state.borrow().is_checked_out() {
                // Polled from within a comparison. The claim is good once that has returned.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(taken) = self.take_granted() {
                return end(taken);
            }
        }
        let taken = end(queue.take());
        if taken.is_ready() { taken } else { self.begin(cx) }
    }
}

impl<O: Order> Drop for QueueGet<'_, O> {
    #[inline]
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.cancel(waiting);
        }
    }
}

impl<O: Order> QueueGet<'_, O> {
    fn cancel(&self, waiting: Waiting) {
        let Waiting { ticket, observed: _observed } = waiting;
        let (_left, due) = self.queue.state.borrow_mut().cancel_get(ticket);
        self.queue.wake(due);
    }
}

impl<O: Order> fmt::Debug for QueueGet<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueGet").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// The future of [`BaseQueue::put`].
#[must_use = "futures do nothing unless awaited"]
pub struct QueuePut<'a, O: Order> {
    queue: &'a BaseQueue<O>,
    item: Option<O::Item>,
    waiting: Option<Waiting>,
}

// The item is only ever moved, never pinned.
impl<O: Order> Unpin for QueuePut<'_, O> {}

impl<'a, O: Order> QueuePut<'a, O> {
    pub(super) fn new(queue: &'a BaseQueue<O>, item: O::Item) -> Self {
        Self { queue, item: Some(item), waiting: None }
    }
}

impl<O: Order> QueuePut<'_, O> {
    /// Puts the item, or keeps it if there is no room.
    #[inline]
    fn put(&mut self) -> Poll<Result<(), QueueShutDown<O::Item>>> {
        let put = self.queue.state.borrow_mut().put(&mut self.item);
        self.end(put)
    }

    fn put_reserved(&mut self, waiting: Waiting) -> Poll<Result<(), QueueShutDown<O::Item>>> {
        let Waiting { ticket, observed: _observed } = waiting;
        let (_left, put) = self.queue.state.borrow_mut().put_reserved(ticket, &mut self.item);
        self.end(put)
    }

    #[inline]
    fn end(&mut self, put: Result<Due, NoPut>) -> Poll<Result<(), QueueShutDown<O::Item>>> {
        match put {
            Ok(due) => {
                self.queue.wake(due);
                Poll::Ready(Ok(()))
            }
            Err(NoPut::Full) => Poll::Pending,
            Err(NoPut::ShutDown) => {
                let item = self.item.take().expect("`QueuePut` polled after completion");
                Poll::Ready(Err(QueueShutDown(item)))
            }
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), QueueShutDown<O::Item>>> {
        let queue = self.queue;
        // Cloning a waker may run anything, so the second try is not idle.
        let waker = cx.waker().clone();
        let put = self.put();
        if put.is_ready() {
            return put;
        }
        let ticket = queue.state.borrow_mut().putters.join(waker, ());
        let waiting = self.waiting.insert(Waiting::unobserved(ticket));
        waiting.observed = observe(queue, WaitKind::Put);
        Poll::Pending
    }
}

impl<O: Order> Future for QueuePut<'_, O> {
    type Output = Result<(), QueueShutDown<O::Item>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let queue = self.queue;
        let Some(waiting) = &self.waiting else {
            let put = self.put();
            return if put.is_ready() { put } else { self.begin(cx) };
        };
        if !poll_turn(
            &queue.state,
            State::putters_mut,
            &waiting.ticket,
            waiting.observed.as_ref(),
            cx.waker(),
        ) {
            return Poll::Pending;
        }
        self.waiting.take().map_or(Poll::Pending, |waiting| self.put_reserved(waiting))
    }
}

impl<O: Order> Drop for QueuePut<'_, O> {
    #[inline]
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.cancel(waiting);
        }
    }
}

impl<O: Order> QueuePut<'_, O> {
    fn cancel(&self, waiting: Waiting) {
        let Waiting { ticket, observed: _observed } = waiting;
        let (_left, due) = self.queue.state.borrow_mut().cancel_put(ticket);
        self.queue.wake(due);
    }
}

impl<O: Order> fmt::Debug for QueuePut<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePut").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// The future of [`BaseQueue::join`].
#[must_use = "futures do nothing unless awaited"]
pub struct QueueJoin<'a, O: Order> {
    queue: &'a BaseQueue<O>,
    waiting: Option<Waiting>,
}

impl<'a, O: Order> QueueJoin<'a, O> {
    pub(super) fn new(queue: &'a BaseQueue<O>) -> Self {
        Self { queue, waiting: None }
    }

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let queue = self.queue;
        // Cloning a waker may run anything, so the count is read again.
        let waker = cx.waker().clone();
        if queue.unfinished() == 0 {
            return Poll::Ready(());
        }
        let ticket = queue.state.borrow_mut().joiners.join(waker, ());
        let waiting = self.waiting.insert(Waiting::unobserved(ticket));
        waiting.observed = observe(queue, WaitKind::Join);
        Poll::Pending
    }

    fn leave(&mut self) {
        let Some(Waiting { ticket, observed: _observed }) = self.waiting.take() else { return };
        let _left = self.queue.state.borrow_mut().joiners.leave(ticket);
    }
}

impl<O: Order> Future for QueueJoin<'_, O> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let queue = self.queue;
        let Some(waiting) = &self.waiting else {
            return if queue.unfinished() == 0 { Poll::Ready(()) } else { self.begin(cx) };
        };
        if !poll_turn(
            &queue.state,
            State::joiners_mut,
            &waiting.ticket,
            waiting.observed.as_ref(),
            cx.waker(),
        ) {
            return Poll::Pending;
        }
        self.leave();
        Poll::Ready(())
    }
}

impl<O: Order> Drop for QueueJoin<'_, O> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<O: Order> fmt::Debug for QueueJoin<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueJoin").field("queue", &self.queue).finish_non_exhaustive()
    }
}
