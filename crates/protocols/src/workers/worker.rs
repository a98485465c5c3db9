//! The worker's side: a loop in a thread of its own.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tulipa_loop::{EventLoop, LoopHandle, Promise, Remote};

use crate::connection::start as start_connection;
use crate::link::SocketLink;
use crate::listener::Factory;
use crate::server::ServerState;
use crate::socket::{describe, stream_socket};
use crate::state::Slot;
use crate::{Address, Listen, Protocol, Server};

/// Where a worker's connections come from.
pub(super) enum Source {
    Listens(Address, u32),
    IsHanded,
}

/// What a worker is given when its thread begins.
pub(super) struct Assignment {
    pub(super) source: Source,
    pub(super) connections: Arc<AtomicUsize>,
    /// Tells the supervisor that it listens; `false` if that is gone.
    pub(super) up: Box<dyn FnOnce(Remote) -> bool + Send>,
}

/// What is to be started, on the worker's loop.
pub(super) struct Starting {
    handle: LoopHandle,
    source: Source,
    connections: Arc<AtomicUsize>,
}

type Started = Pin<Box<dyn Future<Output = io::Result<(Server, Option<Take>)>>>>;

/// Takes over a connection.
type Take = Rc<dyn Fn(OwnedFd)>;

/// Makes a factory and serves with it: the program's part, whose types only it knows.
pub(super) type Make = Arc<dyn Fn(Starting) -> Started + Send + Sync>;

/// What a worker's loop is told by the supervisor.
#[derive(Default)]
struct Inbox {
    take: RefCell<Option<Take>>,
    end: RefCell<Option<Promise<Duration>>>,
}

/// A socket that is bound, and listens if the supervisor accepts.
pub(super) struct Door {
    pub(super) socket: socket2::Socket,
    pub(super) address: Address,
}

/// Takes an address; with others who listen on it, or to listen itself.
pub(super) fn bind(address: SocketAddr, shares: bool, backlog: u32) -> io::Result<Door> {
    let bound = || {
        let socket = stream_socket(&address.into())?;
        socket.set_reuse_address(true)?;
        if shares {
            socket.set_reuse_port(true)?;
        }
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        if !shares {
            socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
            // Accepted sockets have it from here, where the platform does so.
            socket.set_tcp_nodelay(true)?;
        }
        let real = socket.local_addr()?;
        let address = Address::from_socket(&real).unwrap_or(Address::Inet(address));
        Ok(Door { socket, address })
    };
    bound().map_err(|error| describe(error, &format!("cannot listen on {address}")))
}

/// Serves with a factory. It is called on the worker's loop, which does not run yet.
pub(super) fn start<F, P>(starting: Starting, factory: F) -> Started
where
    F: FnMut() -> P + 'static,
    P: Protocol + 'static,
{
    let Starting { handle, source, connections } = starting;
    Box::pin(async move {
        match source {
            Source::Listens(address, backlog) => {
                let address = address.inet().expect("workers listen on internet addresses");
                let listen = Listen::on(address).reuse_port(true).backlog(backlog);
                Ok((listen.counting(connections).serve(factory).await?, None))
            }
            Source::IsHanded => {
                let state = ServerState::counting(connections);
                let (served, factory) = (state.clone(), Factory::new(factory));
                let server = Server { state, handle: handle.clone() };
                let take = move |socket: OwnedFd| {
                    let Some(protocol) = factory.make(&handle) else { return };
                    let link = Slot::Socket(SocketLink::new(socket));
                    // It fails only on a loop that is closed.
                    if let Ok(connection) =
                        start_connection(&handle, link, protocol, Some(served.clone()))
                    {
                        served.add(connection.transport());
                    }
                };
                Ok((server, Some(Rc::new(take) as Take)))
            }
        }
    })
}

/// A worker's life, in its thread. How many connections were aborted at its end.
pub(super) fn run(assignment: Assignment, make: &Make) -> io::Result<usize> {
    let Assignment { source, connections, up } = assignment;
    let event_loop = EventLoop::new()?;
    let handle = event_loop.handle();
    let make = make.clone();
    let life = async move {
        let (server, take) = make(Starting { handle: handle.clone(), source, connections }).await?;
        let (promise, end) = handle.create_future();
        let inbox = handle.local(|_| Inbox::default());
        inbox.take.replace(take);
        inbox.end.replace(Some(promise));
        let grace = match up(handle.remote()) {
            true => end.await.unwrap_or_default(),
            false => Duration::ZERO,
        };
        Ok(server.shutdown(grace).await)
    };
    event_loop.run_until_complete(life).map_err(io::Error::other)?
}

/// Takes over a connection, on the worker's loop.
pub(super) fn take(handle: &LoopHandle, socket: OwnedFd) {
    let take = handle.local(|_| Inbox::default()).take.borrow().clone();
    // One that ends takes nothing more, which the peer sees.
    if let Some(take) = take {
        take(socket);
    }
}

/// Ends the worker, on its loop.
pub(super) fn end(handle: &LoopHandle, grace: Duration) {
    let inbox = handle.local(|_| Inbox::default());
    let (end, take) = (inbox.end.take(), inbox.take.take());
    drop(take);
    if let Some(end) = end {
        let _ = end.set(grace);
    }
}
