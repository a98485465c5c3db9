//! Making servers.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use socket2::SockRef;
use tulipa_loop::LoopHandle;

use crate::listener::{Factory, Listener};
use crate::network::{Acceptor, Door, network};
use crate::resolve::Endpoint;
use crate::server::{Listening, Server, ServerState, SocketOptions};
use crate::socket::{adopt_listener, describe, stream_socket};
use crate::unix::{SocketFile, remove_stale};
use crate::{Address, Protocol};

/// How many connections wait to be accepted at most, unless the program says otherwise: asyncio's number.
const BACKLOG: u32 = 100;

/// How to listen. Stands for the arguments of asyncio's `create_server` and `create_unix_server`.
///
/// ```no_run
/// # use tulipa_protocols::{Listen, Protocol, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, t: &Transport, d: &[u8]) -> std::io::Result<()> { t.write(d); Ok(()) }
/// # }
/// # async fn example() -> std::io::Result<()> {
/// let server = Listen::on("localhost:0").and("[::1]:0").backlog(1000).serve(|| Echo).await?;
/// println!("listening on {:?}", server.local_addrs());
/// server.serve_forever().await
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing listens before `serve`"]
pub struct Listen {
    places: Vec<Place>,
    backlog: u32,
    reuse_address: bool,
    reuse_port: bool,
    keepalive: bool,
    nodelay: bool,
    start_serving: bool,
    remove_file: bool,
    count: Option<Arc<AtomicUsize>>,
}

#[derive(Debug)]
enum Place {
    Endpoint(Endpoint),
    Unix(Address),
    Socket(OwnedFd),
}

impl Listen {
    fn with(place: Place) -> Listen {
        Listen {
            places: vec![place],
            backlog: BACKLOG,
            reuse_address: true,
            reuse_port: false,
            keepalive: false,
            nodelay: true,
            start_serving: true,
            remove_file: true,
            count: None,
        }
    }

    /// Listens on all addresses of a host. Port 0 takes one that is free, a different one for each
    /// address; the empty host is every address of this machine. IPv6 sockets take no IPv4 connections.
    pub fn on(endpoint: impl Into<Endpoint>) -> Listen {
        Listen::with(Place::Endpoint(endpoint.into()))
    }

    /// Listens on a Unix socket. A file that an earlier server has left there is removed first; one that
    /// somebody listens on is not, nor is any other kind of file. A server that has bound its socket and does
    /// not listen yet cannot be told from one that is gone.
    pub fn on_unix(path: impl Into<PathBuf>) -> Listen {
        Listen::with(Place::Unix(Address::Path(path.into())))
    }

    /// Listens on a Unix socket with an abstract name, which has no file. Only Linux has them.
    pub fn on_abstract(name: impl Into<Vec<u8>>) -> Listen {
        Listen::with(Place::Unix(Address::Abstract(name.into())))
    }

    /// Uses a stream socket that is bound already, and perhaps listening: one that a supervisor has made. Its file,
    /// if it has one, is never removed.
    pub fn on_socket(socket: impl Into<OwnedFd>) -> Listen {
        Listen::with(Place::Socket(socket.into()))
    }

    /// Listens here as well.
    pub fn and(mut self, endpoint: impl Into<Endpoint>) -> Listen {
        self.places.push(Place::Endpoint(endpoint.into()));
        self
    }

    /// Listens on a Unix socket as well.
    pub fn and_unix(mut self, path: impl Into<PathBuf>) -> Listen {
        self.places.push(Place::Unix(Address::Path(path.into())));
        self
    }

    /// How many connections may wait to be accepted; 100 at first. The system has a limit of its own.
    pub fn backlog(mut self, backlog: u32) -> Listen {
        self.backlog = backlog;
        self
    }

    /// Whether to listen on an address whose last connections are still fading (`SO_REUSEADDR`): yes at
    /// first.
    pub fn reuse_address(mut self, reuse: bool) -> Listen {
        self.reuse_address = reuse;
        self
    }

    /// Whether others may listen on the same address, to share its connections (`SO_REUSEPORT`): no at
    /// first.
    pub fn reuse_port(mut self, reuse: bool) -> Listen {
        self.reuse_port = reuse;
        self
    }

    /// Whether connections are probed when idle (`SO_KEEPALIVE`): no at first.
    pub fn keepalive(mut self, keepalive: bool) -> Listen {
        self.keepalive = keepalive;
        self
    }

    /// Whether small writes leave at once (`TCP_NODELAY`): yes at first.
    pub fn nodelay(mut self, nodelay: bool) -> Listen {
        self.nodelay = nodelay;
        self
    }

    /// Whether to accept at once: yes at first. If not, nobody can connect before
    /// [`Server::start_serving`].
    pub fn start_serving(mut self, start: bool) -> Listen {
        self.start_serving = start;
        self
    }

    /// Whether the file of a Unix socket is removed when the server closes: yes at first. Stands for
    /// `cleanup_socket`.
    pub fn remove_file(mut self, remove: bool) -> Listen {
        self.remove_file = remove;
        self
    }

    /// Counts the connections for another thread.
    pub(crate) fn counting(mut self, count: Arc<AtomicUsize>) -> Listen {
        self.count = Some(count);
        self
    }

    /// Makes the server on the current loop. `factory` makes the protocol of each connection. Stands for
    /// `create_server`.
    ///
    /// # Errors
    /// The first address that cannot be had, by name; none is kept then. An address that this machine does not
    /// have is passed over if the host has others. [`NotConnected`](io::ErrorKind::NotConnected) if the loop is closed.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn serve<P: Protocol + 'static>(
        self,
        factory: impl FnMut() -> P + 'static,
    ) -> io::Result<Server> {
        self.serve_on(LoopHandle::current(), factory).await
    }

    pub(crate) async fn serve_on<P: Protocol + 'static>(
        mut self,
        handle: LoopHandle,
        factory: impl FnMut() -> P + 'static,
    ) -> io::Result<Server> {
        let mut bound = Vec::new();
        for place in std::mem::take(&mut self.places) {
            match place {
                Place::Endpoint(endpoint) => {
                    let addresses = endpoint.resolve(&handle).await?;
                    self.bind_all(&handle, &endpoint, addresses, &mut bound)?;
                }
                Place::Unix(address) => bound.push(self.bind_unix(&handle, &address)?),
                Place::Socket(socket) => bound.push(Bound::new(adopt_listener(socket)?, None)?),
            }
        }
        let options = SocketOptions { nodelay: self.nodelay, keepalive: self.keepalive };
        let server = Server { state: ServerState::new(self.backlog, self.count.take()), handle };
        let factory = Factory::new(factory);
        let closer = CloseOnError(&server);
        for bound in bound {
            add(&server, bound, options, factory.clone())?;
        }
        if self.start_serving {
            server.start_serving()?;
        }
        std::mem::forget(closer);
        Ok(server)
    }

    /// Binds every address of a host once.
    fn bind_all(
        &self,
        handle: &LoopHandle,
        endpoint: &Endpoint,
        mut addresses: Vec<SocketAddr>,
        bound: &mut Vec<Bound>,
    ) -> io::Result<()> {
        let (mut missing, before) = (None, bound.len());
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(*address));
        for address in addresses {
            match self.bind(handle, address) {
                Ok(new) => bound.push(new),
                // A name may have addresses that this machine does not, or a family it lacks.
                Err(error) if is_missing(&error) => missing = Some((address, error)),
                Err(error) => return Err(cannot_bind(error, &address.into())),
            }
        }
        match missing {
            Some((address, error)) if bound.len() == before => {
                Err(cannot_bind(error, &address.into()))
            }
            _ if bound.len() == before => {
                let error = format!("cannot listen on {endpoint}: no address");
                Err(io::Error::new(io::ErrorKind::AddrNotAvailable, error))
            }
            _ => Ok(()),
        }
    }

    fn bind(&self, handle: &LoopHandle, address: SocketAddr) -> io::Result<Bound> {
        if let Some(network) = network(handle) {
            return Ok(Bound::of(network.bind(&address.into())?));
        }
        let socket = stream_socket(&address.into())?;
        socket.set_reuse_address(self.reuse_address)?;
        if self.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        Bound::new(socket, None)
    }

    fn bind_unix(&self, handle: &LoopHandle, address: &Address) -> io::Result<Bound> {
        if let Some(network) = network(handle) {
            let bound = network.bind(address).map_err(|error| cannot_bind(error, address))?;
            return Ok(Bound::of(bound));
        }
        if let Some(path) = address.path() {
            remove_stale(path)?;
        }
        let socket = stream_socket(address)?;
        let name = address.to_socket().map_err(|error| cannot_bind(error, address))?;
        socket.bind(&name).map_err(|error| cannot_bind(error, address))?;
        let file = address.path().filter(|_| self.remove_file).map(SocketFile::of).transpose()?;
        Bound::new(socket, file)
    }
}

/// A socket with an address, on which nobody listens yet.
struct Bound {
    door: Rc<Door>,
    address: Address,
    file: Option<SocketFile>,
}

impl Bound {
    fn new(socket: impl Into<OwnedFd>, file: Option<SocketFile>) -> io::Result<Bound> {
        let socket = socket.into();
        let address = address_of(&socket)?;
        Ok(Bound { door: Rc::new(Door::Socket(Rc::new(socket))), address, file })
    }

    fn of(acceptor: Rc<dyn Acceptor>) -> Bound {
        let address = acceptor.local_addr();
        Bound { door: Rc::new(Door::Other(acceptor)), address, file: None }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            file.remove();
        }
    }
}

fn address_of(socket: &OwnedFd) -> io::Result<Address> {
    let address = SockRef::from(socket).local_addr()?;
    Ok(Address::from_socket(&address).unwrap_or(Address::Unnamed))
}

fn is_missing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let no_family = Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT);
    no_family || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn cannot_bind(error: io::Error, address: &Address) -> io::Error {
    describe(error, &format!("cannot listen on {address}"))
}

/// Gives a server one more socket.
fn add<F, P>(
    server: &Server,
    mut bound: Bound,
    options: SocketOptions,
    factory: Rc<Factory<F>>,
) -> io::Result<()>
where
    F: FnMut() -> P + 'static,
    P: Protocol + 'static,
{
    let (door, address) = (bound.door.clone(), bound.address.clone());
    if let Some(socket) = door.fd() {
        options.set(socket, &address)?;
    }
    let listener = Listener {
        door: door.clone(),
        address: address.clone(),
        options,
        factory,
        server: server.state.clone(),
        registration: None,
        resting: false,
    };
    let key = server.handle.insert_source(Box::new(listener));
    let key = key.map_err(|closed| io::Error::new(io::ErrorKind::NotConnected, closed))?;
    let file = bound.file.take();
    let listening = Listening { door, address, key, file, timer: Cell::default() };
    server.state.add_listener(listening);
    Ok(())
}

/// Closes a server that was not finished.
struct CloseOnError<'a>(&'a Server);

impl Drop for CloseOnError<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Makes a server on the current loop that accepts connections from the network. Stands for
/// `create_server`; [`Listen`] has its options.
///
/// # Errors
/// As [`Listen::serve`].
///
/// # Cancel safety
/// As [`Listen::serve`].
///
/// # Panics
/// Outside of a running loop.
pub async fn create_server<P: Protocol + 'static>(
    endpoint: impl Into<Endpoint>,
    factory: impl FnMut() -> P + 'static,
) -> io::Result<Server> {
    Listen::on(endpoint).serve(factory).await
}

/// Makes a server on the current loop that accepts connections to a Unix socket. Stands for
/// `create_unix_server`; [`Listen`] has its options.
///
/// # Errors
/// As [`Listen::serve`].
///
/// # Cancel safety
/// As [`Listen::serve`].
///
/// # Panics
/// Outside of a running loop.
pub async fn create_unix_server<P: Protocol + 'static>(
    path: impl AsRef<Path>,
    factory: impl FnMut() -> P + 'static,
) -> io::Result<Server> {
    Listen::on_unix(path.as_ref()).serve(factory).await
}
