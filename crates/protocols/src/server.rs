//! Servers: listening sockets and the connections that came of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tulipa_loop::{LoopHandle, MarkTimer};
use tulipa_selector::Token;

use crate::network::Door;
use crate::socket::describe;
use crate::state::{Slot, State, Waiters};
use crate::unix::SocketFile;
use crate::{Address, Transport};

/// A server: it accepts connections, gives each a protocol of its own, and knows them all. Stands for
/// `asyncio.Server`.
///
/// Clones are the same server. Dropping them leaves it alone; the loop serves until it is
/// [closed](Self::close).
#[derive(Clone)]
pub struct Server {
    pub(crate) state: Rc<ServerState>,
    pub(crate) handle: LoopHandle,
}

/// What accepted connections are set up with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) nodelay: bool,
    pub(crate) keepalive: bool,
}

impl SocketOptions {
    /// Sets up an accepted connection. On Linux it has what its listener has.
    pub(crate) fn apply(self, link: &Slot, address: &Address) -> io::Result<()> {
        match link {
            Slot::Socket(link) if !cfg!(target_os = "linux") => self.set(link.socket(), address),
            _ => Ok(()),
        }
    }

    pub(crate) fn set(self, socket: BorrowedFd<'_>, address: &Address) -> io::Result<()> {
        if address.inet().is_none() {
            return Ok(());
        }
        let socket = SockRef::from(&socket);
        if self.nodelay {
            socket.set_tcp_nodelay(true)?;
        }
        if self.keepalive {
            socket.set_keepalive(true)?;
        }
        Ok(())
    }
}

/// What the clones of a server, its listeners and its connections share.
///
/// | phase | what is true | next |
/// |---|---|---|
/// | `Bound` | the sockets have their addresses, nobody can connect | `Serving` by `start_serving`; `Closed` |
/// | `Serving` | connections are accepted | `Closed` by `close`, or with the loop |
/// | `Closed` | the sockets are closed; connections live on | |
pub(crate) struct ServerState {
    phase: Cell<ServerPhase>,
    listeners: RefCell<Vec<Listening>>,
    clients: RefCell<BTreeMap<Token, Weak<State>>>,
    waiters: RefCell<Waiters>,
    forever: Cell<bool>,
    backlog: u32,
    /// How many connections there are, for another thread.
    count: Option<Arc<AtomicUsize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServerPhase {
    Bound,
    Serving,
    Closed,
}

/// One listening socket.
pub(crate) struct Listening {
    pub(crate) door: Rc<Door>,
    pub(crate) address: Address,
    pub(crate) key: Token,
    pub(crate) file: Option<SocketFile>,
    /// While it rests; or an earlier one, which is over.
    pub(crate) timer: Cell<Option<MarkTimer>>,
}

impl ServerState {
    /// One that listens nowhere: others accept for it.
    pub(crate) fn counting(count: Arc<AtomicUsize>) -> Rc<ServerState> {
        ServerState::new(0, Some(count))
    }

    pub(crate) fn new(backlog: u32, count: Option<Arc<AtomicUsize>>) -> Rc<ServerState> {
        Rc::new(ServerState {
            count,
            phase: Cell::new(ServerPhase::Bound),
            listeners: RefCell::default(),
            clients: RefCell::default(),
            waiters: RefCell::default(),
            forever: Cell::new(false),
            backlog,
        })
    }

    pub(crate) fn add_listener(&self, listener: Listening) {
        self.listeners.borrow_mut().push(listener);
    }

    pub(crate) fn key_of(&self, door: &Rc<Door>) -> Token {
        let listeners = self.listeners.borrow();
        let found = listeners.iter().find(|listener| Rc::ptr_eq(&listener.door, door));
        found.map_or(Token::from_bits(u64::MAX), |listener| listener.key)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase.get() == ServerPhase::Closed
    }

    pub(crate) fn add(&self, transport: &Transport) {
        let (key, state) = (transport.state.key.get(), Rc::downgrade(&transport.state));
        self.clients.borrow_mut().insert(key, state);
        if let Some(count) = &self.count {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Closes the sockets, and removes their files while these are still known to be ours.
    pub(crate) fn close(&self, handle: &LoopHandle) {
        if self.phase.replace(ServerPhase::Closed) == ServerPhase::Closed {
            return;
        }
        let listeners = self.listeners.take();
        for Listening { key, file, timer, door, .. } in listeners {
            if let Some(timer) = timer.take() {
                handle.cancel_mark(timer);
            }
            // The last one drops the program's factory.
            handle.release(|| {
                handle.remove_source(key);
            });
            if let Some(file) = file {
                file.remove();
            }
            // As long as it was open nobody else could have a file of the same number.
            drop(door);
        }
        for waker in self.take_waiters() {
            handle.release(|| waker.wake());
        }
    }

    /// Sets the timer of a listener; there was none, or it is over.
    pub(crate) fn set_timer(&self, door: &Rc<Door>, timer: MarkTimer) {
        let listeners = self.listeners.borrow();
        let found = listeners.iter().find(|listener| Rc::ptr_eq(&listener.door, door));
        if let Some(listener) = found {
            listener.timer.set(Some(timer));
        }
    }

    fn take_waiters(&self) -> Vec<Waker> {
        let waiters = self.waiters.borrow_mut().take();
        waiters.into_iter().map(|(_, waker)| waker).collect()
    }

    fn is_over(&self) -> bool {
        self.is_closed() && self.clients.borrow().is_empty()
    }

    fn clients(&self) -> Vec<Transport> {
        let clients = self.clients.borrow();
        let live = clients.values().filter_map(Weak::upgrade);
        live.map(|state| Transport { state }).collect()
    }
}

impl ServerState {
    /// A connection has ended and its protocol was told. Gives back whom to wake.
    pub(crate) fn lost(&self, key: Token) -> Vec<Waker> {
        let client = self.clients.borrow_mut().remove(&key);
        if let (Some(count), Some(_)) = (&self.count, &client) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        drop(client);
        if self.is_over() { self.take_waiters() } else { Vec::new() }
    }
}

impl Server {
    /// The addresses it listens on, with the real ports; none once it is closed. Stands for
    /// `sockets[i].getsockname()`.
    pub fn local_addrs(&self) -> Vec<Address> {
        self.state.listeners.borrow().iter().map(|listener| listener.address.clone()).collect()
    }

    /// Lends each listening socket, to set its options or to hand it on. Stands for `sockets`.
    pub fn with_sockets<R>(&self, mut f: impl FnMut(BorrowedFd<'_>) -> R) -> Vec<R> {
        let listeners = self.state.listeners.borrow();
        let doors: Vec<_> = listeners.iter().map(|listener| listener.door.clone()).collect();
        drop(listeners);
        doors.iter().filter_map(|door| door.fd()).map(&mut f).collect()
    }

    /// Starts to accept connections, if it does not yet. Stands for `start_serving`.
    ///
    /// # Errors
    /// What `listen` says, with the address; [`NotConnected`](io::ErrorKind::NotConnected) if the
    /// server is closed.
    pub fn start_serving(&self) -> io::Result<()> {
        match self.state.phase.get() {
            ServerPhase::Serving => return Ok(()),
            ServerPhase::Closed => return Err(closed()),
            ServerPhase::Bound => {}
        }
        // Copied: what the program's logs and networks do may close the server.
        let copy =
            |listener: &Listening| (listener.door.clone(), listener.address.clone(), listener.key);
        let listeners: Vec<_> = self.state.listeners.borrow().iter().map(copy).collect();
        for (door, address, _) in &listeners {
            let listening = door.listen(self.state.backlog);
            listening.map_err(|error| describe(error, &format!("cannot listen on {address}")))?;
        }
        if self.state.is_closed() {
            return Err(closed());
        }
        self.state.phase.set(ServerPhase::Serving);
        for (_, address, key) in listeners {
            self.handle.wires().mark(key);
            tracing::debug!(target: "tulipa::net", %address, "listening");
        }
        Ok(())
    }

    /// The loop that it is on. Stands for `get_loop`.
    pub fn get_loop(&self) -> LoopHandle {
        self.handle.clone()
    }

    /// Whether connections are accepted. Stands for `is_serving`.
    pub fn is_serving(&self) -> bool {
        self.state.phase.get() == ServerPhase::Serving
    }

    /// Serves until the server is closed, or this future is dropped, which closes it. Connections are left
    /// alone: [`shutdown`](Self::shutdown) ends them too. Stands for `serve_forever`, which waits for
    /// them.
    ///
    /// # Errors
    /// As [`start_serving`](Self::start_serving); [`AlreadyExists`](io::ErrorKind::AlreadyExists) if it is
    /// being awaited already.
    ///
    /// # Cancel safety
    /// Dropping the future closes the server, as cancelling does in asyncio.
    pub async fn serve_forever(&self) -> io::Result<()> {
        if self.state.forever.replace(true) {
            let error = "the server is being served already";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, error));
        }
        let _serving = Serving(self);
        self.start_serving()?;
        self.wait_until(|state| state.is_closed()).await;
        Ok(())
    }

    /// Stops to accept, at once: the sockets are closed, and the file of a Unix socket is removed if it is still the
    /// one that was made. Connections are left alone. Doing it twice is doing it once. Stands for `close`.
    pub fn close(&self) {
        self.state.close(&self.handle);
    }

    /// Closes each connection: what is queued is written first. Stands for `close_clients`.
    pub fn close_clients(&self) {
        for client in self.state.clients() {
            client.close();
        }
    }

    /// Aborts each connection. Stands for `abort_clients`.
    pub fn abort_clients(&self) {
        for client in self.state.clients() {
            client.abort();
        }
    }

    /// How many connections it has.
    pub fn client_count(&self) -> usize {
        self.state.clients.borrow().len()
    }

    /// Waits until it is closed and its last connection is over. Stands for `wait_closed`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_closed(&self) {
        self.wait_until(ServerState::is_over).await;
    }

    /// Ends it in order: accepts nothing more, closes the connections, waits for what they have to
    /// write, for at most `grace`, aborts the rest, and returns how many that were.
    ///
    /// # Cancel safety
    /// Dropping the future leaves connections that are still writing to go on.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.close();
        self.close_clients();
        if tulipa_loop::timeout(grace, self.wait_closed()).await.is_ok() {
            return 0;
        }
        let rest = self.client_count();
        self.abort_clients();
        self.wait_closed().await;
        rest
    }

    fn wait_until(&self, done: fn(&ServerState) -> bool) -> WaitServer<'_> {
        WaitServer { state: &self.state, done, id: None }
    }
}

/// While it lives the server is being served; its end is the server's.
struct Serving<'a>(&'a Server);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.state.forever.set(false);
        self.0.close();
    }
}

/// Waits for something that is true of a server.
struct WaitServer<'a> {
    state: &'a ServerState,
    done: fn(&ServerState) -> bool,
    id: Option<u64>,
}

impl Future for WaitServer<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if (self.done)(self.state) {
            return Poll::Ready(());
        }
        // Cloned and dropped where nothing is borrowed.
        let waker = context.waker().clone();
        let (id, old) = self.state.waiters.borrow_mut().set(self.id, waker);
        self.id = Some(id);
        drop(old);
        Poll::Pending
    }
}

impl Drop for WaitServer<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let waker = self.state.waiters.borrow_mut().remove(id);
        drop(waker);
    }
}

pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the server is closed")
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read before it is written: the writer is the program's.
        let sockets: Vec<_> = self
            .state
            .listeners
            .borrow()
            .iter()
            .filter_map(|listener| listener.door.fd().map(|fd| fd.as_raw_fd()))
            .collect();
        let (phase, addresses) = (self.state.phase.get(), self.local_addrs());
        write!(f, "<Server {phase:?} on [")?;
        for (place, address) in addresses.iter().enumerate() {
            write!(f, "{}{address}", if place > 0 { ", " } else { "" })?;
        }
        write!(f, "] sockets={sockets:?} clients={}>", self.client_count())
    }
}
