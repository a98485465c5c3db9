//! Endpoints: a transport, and the way to its protocol.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tulipa_loop::{Handle, LoopHandle, SourceUnavailable};

use super::driver::Driver;
use super::link::Slot;
use super::state::{Fixed, Phase, State, closed};
use crate::leaf::Leaf;
use crate::{DatagramProtocol, DatagramTransport, Unavailable};

/// A datagram endpoint that runs on a loop: its [`DatagramTransport`], to which it dereferences, and the way to its
/// protocol, which the loop owns. Stands for the pair that asyncio's `create_datagram_endpoint` returns.
///
/// Dropping it leaves the endpoint alone; it lives until it is closed.
pub struct DatagramEndpoint<P> {
    transport: DatagramTransport,
    handle: LoopHandle,
    protocol: PhantomData<fn() -> P>,
}

impl<P: DatagramProtocol + 'static> DatagramEndpoint<P> {
    /// Calls `f` with the protocol, now.
    ///
    /// # Errors
    /// Why it cannot be had; `f` is then dropped.
    ///
    /// # Panics
    /// As `f`; the endpoint goes on.
    pub fn with<R>(
        &self,
        f: impl FnOnce(&mut P, &DatagramTransport) -> R,
    ) -> Result<R, Unavailable> {
        // Dropped last, when the protocol is back.
        let mut away = Away(None);
        let borrowed = self.handle.borrow_source(self.transport.state.key.get());
        let mut source = borrowed.map_err(|error| match error {
            SourceUnavailable::Busy => Unavailable::Busy,
            SourceUnavailable::Gone => Unavailable::Closed,
        })?;
        let driver = source.downcast::<Driver<P>>().ok_or(Unavailable::Replaced)?;
        away.begin(&self.transport.state);
        Ok(f(&mut driver.protocol, &self.transport))
    }

    /// Calls `f` with the protocol, at the loop's next turn: from anywhere, methods of the protocol
    /// included. If the protocol cannot be had then, `f` is dropped.
    #[track_caller]
    pub fn post(&self, f: impl FnOnce(&mut P, &DatagramTransport) + 'static) -> Handle {
        let endpoint = self.clone();
        self.handle.call_soon(move |_| {
            let _ = endpoint.with(f);
        })
    }
}

/// While a protocol is borrowed its driver cannot be called, so nothing asks for that: whatever is to be done is asked
/// for when it is back.
struct Away<'a>(Option<&'a Rc<State>>);

impl<'a> Away<'a> {
    fn begin(&mut self, state: &'a Rc<State>) {
        state.dispatching.set(true);
        self.0 = Some(state);
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        let Some(state) = self.0 else { return };
        state.dispatching.set(false);
        if state.attention.get() || state.is_interest_due() {
            state.mark();
        }
        if state.unflushed.get() {
            state.leaf.wires.flush_soon(state.clone());
        }
    }
}

impl<P> DatagramEndpoint<P> {
    /// The transport.
    pub fn transport(&self) -> &DatagramTransport {
        &self.transport
    }

    /// Waits until the protocol was told that it is there. Nobody else has the endpoint yet, so it ends with
    /// whoever waits.
    pub(crate) async fn made(self) -> io::Result<DatagramEndpoint<P>> {
        let guard = AbortOnDrop(&self.transport);
        WaitFor { transport: self.transport.clone(), what: Moment::Made, id: None }.await;
        std::mem::forget(guard);
        if self.transport.state.made.get() { Ok(self) } else { Err(closed("open")) }
    }
}

struct AbortOnDrop<'a>(&'a DatagramTransport);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl DatagramTransport {
    /// Waits until the endpoint is over and the protocol was told, which it may be already.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_closed(&self) {
        WaitFor { transport: self.clone(), what: Moment::Lost, id: None }.await;
    }

    /// Waits until what waits to be sent is down to the low limit, or can be sent no more because the endpoint is
    /// over. Completes at once if it is.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn drained(&self) {
        WaitFor { transport: self.clone(), what: Moment::Drained, id: None }.await;
    }

    /// Waits until all is sent, given to the operating system that is, or lost; or can be sent no more.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn flushed(&self) {
        WaitFor { transport: self.clone(), what: Moment::Flushed, id: None }.await;
    }
}

/// What somebody waits for.
#[derive(Clone, Copy)]
enum Moment {
    Made,
    Lost,
    Drained,
    Flushed,
}

impl Moment {
    fn has_come(self, state: &State) -> bool {
        let ended = state.phase.get() == Phase::Ended;
        match self {
            Moment::Made => state.made.get() || state.lost.get(),
            Moment::Lost => state.lost.get(),
            Moment::Drained => ended || state.queued.get() <= state.limits.get().low,
            Moment::Flushed => ended || state.queued.get() == 0,
        }
    }
}

/// Waits until something is true of an endpoint.
struct WaitFor {
    transport: DatagramTransport,
    what: Moment,
    id: Option<u64>,
}

impl Future for WaitFor {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let state = self.transport.state.clone();
        let of_output = matches!(self.what, Moment::Drained | Moment::Flushed);
        if of_output && state.unflushed.get() {
            // What this task has sent need not wait for the end of its step.
            state.flush_queue();
        }
        if self.what.has_come(&state) {
            return Poll::Ready(());
        }
        // Cloned and dropped where nothing is borrowed.
        let waker = context.waker().clone();
        let (id, old) = state.waiters.borrow_mut().set(self.id, waker);
        if of_output {
            // The other two are told by themselves, these at every change.
            state.awaited.set(true);
        }
        self.id = Some(id);
        drop(old);
        Poll::Pending
    }
}

impl Drop for WaitFor {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let waker = self.transport.state.waiters.borrow_mut().remove(id);
        drop(waker);
    }
}

impl<P> Clone for DatagramEndpoint<P> {
    fn clone(&self) -> DatagramEndpoint<P> {
        let (transport, handle) = (self.transport.clone(), self.handle.clone());
        DatagramEndpoint { transport, handle, protocol: PhantomData }
    }
}

impl<P> Deref for DatagramEndpoint<P> {
    type Target = DatagramTransport;

    fn deref(&self) -> &DatagramTransport {
        &self.transport
    }
}

impl<P> fmt::Debug for DatagramEndpoint<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramEndpoint")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl State {
    /// The number of its socket, which is the endpoint's alone.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match &*self.link.borrow() {
            Slot::Socket(socket) => Some(socket.fd().as_raw_fd()),
            _ => None,
        }
    }
}

/// An endpoint over a link of any kind; a socket does not block.
pub(crate) fn start<P: DatagramProtocol + 'static>(
    handle: &LoopHandle,
    link: Slot,
    fixed: Fixed,
    protocol: P,
) -> io::Result<DatagramEndpoint<P>> {
    let state = Rc::new(State::new(Leaf::of(handle), link, fixed));
    let transport = DatagramTransport { state };
    let driver = Driver::new(transport.clone(), protocol);
    let key = handle.insert_source(Box::new(driver)).map_err(|closed| {
        transport.state.phase.set(Phase::Ended);
        if let Some(file) = transport.state.fixed.file.take() {
            file.remove();
        }
        io::Error::new(io::ErrorKind::NotConnected, closed)
    })?;
    transport.state.key.set(key);
    if let Some(number) = transport.state.descriptor() {
        transport.state.leaf.wires.claim_own(number);
    }
    transport.state.mark();
    Ok(DatagramEndpoint { transport, handle: handle.clone(), protocol: PhantomData })
}
