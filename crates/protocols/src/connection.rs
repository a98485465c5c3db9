//! Connections: a transport, and the way to its protocol.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tulipa_loop::{Handle, LoopHandle, SourceUnavailable};

use crate::driver::Driver;
use crate::leaf::Leaf;
use crate::server::ServerState;
use crate::state::{NO_KEY, Phase, Slot, State, closed};
use crate::{Bell, Link, Protocol, Transport};

/// A connection that runs on a loop: its [`Transport`], to which it dereferences, and the way to its protocol, which
/// the loop owns. Stands for the pair that asyncio's `create_connection` returns.
///
/// Dropping it leaves the connection alone; it lives until it is closed.
pub struct Connection<P> {
    transport: Transport,
    handle: LoopHandle,
    protocol: PhantomData<fn() -> P>,
}

/// Why a protocol cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The connection is over, and the protocol gone.
    #[error("the connection is closed")]
    Closed,
    /// Another protocol has taken its place.
    #[error("the protocol was replaced")]
    Replaced,
    /// It is being called just now: this is called from inside one of its methods.
    #[error("the protocol is being called")]
    Busy,
}

impl<P: Protocol + 'static> Connection<P> {
    /// Calls `f` with the protocol, now.
    ///
    /// # Errors
    /// Why it cannot be had; `f` is then dropped.
    ///
    /// # Panics
    /// As `f`; the connection goes on.
    pub fn with<R>(&self, f: impl FnOnce(&mut P, &Transport) -> R) -> Result<R, Unavailable> {
        // Dropped last, when the protocol is back.
        let mut away = Away(None);
        let borrowed = self.handle.borrow_source(self.transport.state.key.get());
        let mut source = borrowed.map_err(|error| match error {
            SourceUnavailable::Busy => Unavailable::Busy,
            SourceUnavailable::Gone => Unavailable::Closed,
        })?;
        let driver = source.downcast::<Driver<P>>().ok_or(Unavailable::Replaced)?;
        away.begin(&self.transport.state);
        Ok(f(&mut driver.talk.protocol, &self.transport))
    }

    /// Calls `f` with the protocol, at the loop's next turn: from anywhere, methods of the protocol
    /// included. If the protocol cannot be had then, `f` is dropped.
    #[track_caller]
    pub fn post(&self, f: impl FnOnce(&mut P, &Transport) + 'static) -> Handle {
        let connection = self.clone();
        self.handle.call_soon(move |_| {
            let _ = connection.with(f);
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
        if state.again.replace(false) || state.wants_attention() || state.is_interest_due() {
            state.mark();
        }
        if state.unflushed.get() {
            state.leaf.wires.flush_soon(state.clone());
        }
    }
}

impl<P> Connection<P> {
    /// The transport.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Waits until the protocol was told that it is connected. One whose handshake failed is an error.
    pub(crate) async fn made(self) -> io::Result<Connection<P>> {
        WaitFor { transport: self.transport.clone(), what: Moment::Made, id: None }.await;
        if self.transport.state.made.get() {
            return Ok(self);
        }
        let failed = self.transport.state.extras(|extras| extras.failed.take());
        Err(failed.unwrap_or_else(|| closed("connect")))
    }
}

impl Transport {
    /// Waits until the connection is over and the protocol was told, which it may be already.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_closed(&self) {
        WaitFor { transport: self.clone(), what: Moment::Lost, id: None }.await;
    }
}

impl Transport {
    /// Waits until what waits to be written is down to the low limit, or can be written no more because the
    /// connection has failed or is over. Completes at once if it is.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn drained(&self) {
        WaitFor { transport: self.clone(), what: Moment::Drained, id: None }.await;
    }

    /// Waits until no handshake is going on: until a filter that was put in by [`upgrade`](Self::upgrade) is open, or
    /// has failed, which ends the connection.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn opened(&self) {
        WaitFor { transport: self.clone(), what: Moment::Opened, id: None }.await;
    }

    /// Waits until a link takes more of a file that is being sent, all before it having left; or never will.
    pub(crate) async fn writable_for_file(&self) {
        WaitFor { transport: self.clone(), what: Moment::Writable, id: None }.await;
    }

    /// Waits until all is written, given to the operating system that is; or can be written no more, as
    /// with [`drained`](Self::drained).
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
    Opened,
    Writable,
}

impl Moment {
    fn has_come(self, state: &State) -> bool {
        let settled = !matches!(state.phase(), Phase::Opening | Phase::Open | Phase::Closing);
        match self {
            Moment::Made => state.made.get() || state.lost.get(),
            Moment::Lost => state.lost.get(),
            Moment::Drained => settled || state.buffered() <= state.limits().low,
            Moment::Flushed => settled || (state.buffered() == 0 && !state.is_held()),
            Moment::Writable => settled || state.is_writable_for_file(),
            Moment::Opened => state.phase() != Phase::Opening,
        }
    }
}

/// Waits until something is true of a connection.
struct WaitFor {
    transport: Transport,
    what: Moment,
    id: Option<u64>,
}

impl Future for WaitFor {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let state = self.transport.state.clone();
        if matches!(self.what, Moment::Drained | Moment::Flushed | Moment::Writable) {
            // What this task has written need not wait for the end of its step.
            state.flush_if_asked();
        }
        if self.what.has_come(&state) {
            return Poll::Ready(());
        }
        // Cloned and dropped where nothing is borrowed.
        let waker = context.waker().clone();
        let known = self.id;
        let (id, old) = state.with_extras(|extras| extras.waiters.set(known, waker));
        if !matches!(self.what, Moment::Made | Moment::Lost) {
            // Those two are told by themselves, others at every change.
            state.awaited.set(true);
            state.plain.set(false);
        }
        self.id = Some(id);
        drop(old);
        Poll::Pending
    }
}

impl Drop for WaitFor {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let waker = self.transport.state.extras(|extras| extras.waiters.remove(id));
        drop(waker);
    }
}

impl<P> Clone for Connection<P> {
    fn clone(&self) -> Connection<P> {
        let (transport, handle) = (self.transport.clone(), self.handle.clone());
        Connection { transport, handle, protocol: PhantomData }
    }
}

impl<P> Deref for Connection<P> {
    type Target = Transport;

    fn deref(&self) -> &Transport {
        &self.transport
    }
}

impl<P> fmt::Debug for Connection<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// Puts a protocol on a link of one's own. `connection_made` comes at the loop's next turn, or when the
/// link is [open](Link::open).
///
/// # Errors
/// [`NotConnected`](io::ErrorKind::NotConnected) if the loop is closed;
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if another transport of the loop uses the descriptor. Link and
/// protocol are dropped.
pub fn attach<P: Protocol + 'static>(
    handle: &LoopHandle,
    link: impl Link + 'static,
    protocol: P,
) -> io::Result<Connection<P>> {
    let link: Box<dyn Link> = Box::new(link);
    start(handle, Slot::Any(link), protocol, None)
}

/// A connection over a link of any kind; a socket is connected and does not block.
pub(crate) fn start<P: Protocol + 'static>(
    handle: &LoopHandle,
    link: Slot,
    protocol: P,
    server: Option<Rc<ServerState>>,
) -> io::Result<Connection<P>> {
    let owned = matches!(link, Slot::Socket(_));
    let transport = Transport { state: Rc::new(State::new(Leaf::of(handle), link)) };
    claim(&transport.state, owned).inspect_err(|_| transport.state.phase.set(Phase::Ended))?;
    transport.state.server.set(server);
    let driver = Driver::new(transport.clone(), protocol);
    let key = handle.insert_source(Box::new(driver)).map_err(|closed| {
        transport.state.end_claim();
        transport.state.phase.set(Phase::Ended);
        io::Error::new(io::ErrorKind::NotConnected, closed)
    })?;
    transport.state.key.set(key);
    transport.state.set_bell(Bell::of(&transport.state));
    transport.state.mark();
    Ok(Connection { transport, handle: handle.clone(), protocol: PhantomData })
}

/// Claims the descriptor of a link, if it has one: a socket of ours is nobody else's.
fn claim(state: &State, owned: bool) -> io::Result<()> {
    let Some(number) = state.descriptor() else { return Ok(()) };
    let wires = &state.leaf.wires;
    if owned {
        wires.claim_own(number);
    } else {
        wires.claim(number)?;
    }
    Ok(())
}

impl State {
    /// Lets others use the descriptor's number again, which they may have when it is closed.
    pub(crate) fn end_claim(&self) {
        if let Some(number) = self.descriptor() {
            self.leaf.wires.end_claim(number);
        }
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.with_link(|link| link.fd().map(|fd| fd.as_raw_fd())).flatten()
    }
}

/// A driver that was dropped without being asked leaves its link to whoever has the transport.
impl Drop for State {
    fn drop(&mut self) {
        if self.key.get() != NO_KEY {
            self.end_claim();
        }
    }
}
