//! Connecting: to one address, or to the fastest of several.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockAddr, Socket};
use tulipa_loop::{AsyncFd, LoopHandle};

use crate::connection::start;
use crate::link::SocketLink;
use crate::network::network;
use crate::resolve::Endpoint;
use crate::server::SocketOptions;
use crate::socket::{adopt, stream_socket};
use crate::state::Slot;
use crate::{Address, Connection, Protocol, Transport};

/// How long an attempt may take before the next address is tried beside it: what RFC 8305 recommends.
const HAPPY_EYEBALLS_DELAY: Duration = Duration::from_millis(250);

/// A Unix socket whose queue is full says so at once and nobody tells when it has room: it is tried again
/// after these times, the last of them again and again for so many times, about six seconds in all.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(100);
const MOST_RETRIES: usize = 64;

/// How to connect. Stands for the arguments of asyncio's `create_connection` and `create_unix_connection`.
///
/// ```no_run
/// # use tulipa_protocols::{Connect, Protocol, Transport};
/// # struct Client;
/// # impl Protocol for Client {
/// #     fn data_received(&mut self, _: &Transport, _: &[u8]) -> std::io::Result<()> { Ok(()) }
/// # }
/// # async fn example() -> std::io::Result<()> {
/// let connection = Connect::to("localhost:8080")
///     .timeout(std::time::Duration::from_secs(5))
///     .open(|| Client)
///     .await?;
/// connection.write(b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing connects before `open`"]
pub struct Connect {
    target: Target,
    local: Option<Endpoint>,
    timeout: Option<Duration>,
    delay: Option<Duration>,
    nodelay: bool,
    keepalive: bool,
}

#[derive(Debug)]
enum Target {
    Endpoint(Endpoint),
    Unix(Address),
}

impl Connect {
    fn with(target: Target) -> Connect {
        let (local, timeout, delay) = (None, None, Some(HAPPY_EYEBALLS_DELAY));
        Connect { target, local, timeout, delay, nodelay: true, keepalive: false }
    }

    /// Connects to a host, over whichever of its addresses answers first.
    pub fn to(endpoint: impl Into<Endpoint>) -> Connect {
        Connect::with(Target::Endpoint(endpoint.into()))
    }

    /// Connects to a Unix socket.
    pub fn to_unix(path: impl Into<PathBuf>) -> Connect {
        Connect::with(Target::Unix(Address::Path(path.into())))
    }

    /// Connects to a Unix socket with an abstract name, which only Linux has.
    pub fn to_abstract(name: impl Into<Vec<u8>>) -> Connect {
        Connect::with(Target::Unix(Address::Abstract(name.into())))
    }

    /// Connects from this address of our own, or from the one of its addresses that fits the peer's.
    pub fn local_addr(mut self, endpoint: impl Into<Endpoint>) -> Connect {
        self.local = Some(endpoint.into());
        self
    }

    /// How long everything may take, the question for the addresses included. Without it the operating
    /// system decides, which takes minutes.
    pub fn timeout(mut self, timeout: Duration) -> Connect {
        self.timeout = Some(timeout);
        self
    }

    /// How long one address is tried before the next is tried beside it: 250 ms at first. `None` tries one
    /// after the other.
    pub fn happy_eyeballs_delay(mut self, delay: Option<Duration>) -> Connect {
        self.delay = delay;
        self
    }

    /// Whether small writes leave at once (`TCP_NODELAY`): yes at first.
    pub fn nodelay(mut self, nodelay: bool) -> Connect {
        self.nodelay = nodelay;
        self
    }

    /// Whether the connection is probed when idle (`SO_KEEPALIVE`): no at first.
    pub fn keepalive(mut self, keepalive: bool) -> Connect {
        self.keepalive = keepalive;
        self
    }

    /// Connects on the current loop and gives the connection to a new protocol, whose `connection_made`
    /// has run when this returns. Stands for `create_connection`.
    ///
    /// # Errors
    /// A [`ConnectError`] inside of the [`io::Error`], with every attempt; the kind is that of the last
    /// one. [`TimedOut`](io::ErrorKind::TimedOut) after the timeout. What the resolver says. `factory` is
    /// then not called.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn open<P: Protocol + 'static>(
        self,
        factory: impl FnOnce() -> P,
    ) -> io::Result<Connection<P>> {
        self.open_on(LoopHandle::current(), factory).await
    }

    pub(crate) async fn open_on<P: Protocol + 'static>(
        self,
        handle: LoopHandle,
        factory: impl FnOnce() -> P,
    ) -> io::Result<Connection<P>> {
        let link = self.link(&handle).await?;
        made(start(&handle, link, factory(), None)?).await
    }

    /// The same for who makes the protocol with care: `None` is a factory that has failed.
    pub(crate) async fn open_once<P: Protocol + 'static>(
        self,
        handle: &LoopHandle,
        make: impl FnOnce(&LoopHandle) -> Option<P>,
    ) -> io::Result<Connection<P>> {
        let link = self.link(handle).await?;
        let protocol = make(handle).ok_or_else(|| io::Error::other("the factory panicked"))?;
        made(start(handle, link, protocol, None)?).await
    }

    async fn link(self, handle: &LoopHandle) -> io::Result<Slot> {
        let what = self.name();
        let connected = match self.timeout {
            None => return self.connect(handle).await,
            Some(timeout) => tulipa_loop::timeout(timeout, self.connect(handle)).await,
        };
        connected.unwrap_or_else(|_| {
            let error = format!("cannot connect to {what}: no answer in time");
            Err(io::Error::new(io::ErrorKind::TimedOut, error))
        })
    }

    fn name(&self) -> String {
        match &self.target {
            Target::Endpoint(endpoint) => endpoint.to_string(),
            Target::Unix(address) => address.to_string(),
        }
    }

    async fn connect(self, handle: &LoopHandle) -> io::Result<Slot> {
        let options = SocketOptions { nodelay: self.nodelay, keepalive: self.keepalive };
        let (peers, delay) = match &self.target {
            Target::Unix(address) => (vec![address.clone()], None),
            Target::Endpoint(endpoint) => {
                let found = endpoint.resolve(handle).await?;
                let peers = if self.delay.is_some() { interleave(found) } else { found };
                (peers.into_iter().map(Address::Inet).collect(), self.delay)
            }
        };
        let local = match &self.local {
            Some(local) => local.resolve(handle).await?,
            None => Vec::new(),
        };
        let attempt = |peer: Address| {
            let (handle, local) = (handle.clone(), local.clone());
            async move {
                let result = attempt(&handle, &peer, &local, options).await;
                result.map_err(|error| (peer, error))
            }
        };
        let connected = if let [peer] = &peers[..] {
            // No race, no task.
            attempt(peer.clone()).await.map_err(|failed| vec![failed])
        } else {
            let race = tulipa_loop::staggered_race(peers.into_iter().map(attempt), delay);
            race.await.map(|winner| winner.value)
        };
        connected.map_err(|attempts| ConnectError::from(self.name(), attempts))
    }
}

/// Sorts addresses so that the families take turns, beginning with the first one's (RFC 8305, section 4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (mut preferred, mut others) = (Vec::new(), Vec::new());
    for address in addresses {
        if address.is_ipv6() == first { &mut preferred } else { &mut others }.push(address);
    }
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut sorted = Vec::new();
    loop {
        let before = sorted.len();
        sorted.extend(preferred.next());
        sorted.extend(others.next());
        if sorted.len() == before {
            return sorted;
        }
    }
}

/// Connects to one address.
async fn attempt(
    handle: &LoopHandle,
    peer: &Address,
    local: &[SocketAddr],
    options: SocketOptions,
) -> io::Result<Slot> {
    if let Some(network) = network(handle) {
        return network.connect(peer, local).await.map(Slot::Any);
    }
    let socket = stream_socket(peer)?;
    if !local.is_empty() {
        bind(&socket, peer, local)?;
    }
    // Some platforms refuse it when the peer is gone already.
    options.set(socket.as_fd(), peer)?;
    let address = peer.to_socket()?;
    connect(handle, &socket, &address).await?;
    refuse_oneself(&socket, peer)?;
    tracing::debug!(target: "tulipa::net", %peer, "connected");
    Ok(Slot::Socket(SocketLink::new(socket.into())))
}

/// Where nobody listens on a port of this machine the operating system may pick that very port for our end, and TCP
/// then connects it to itself. Whoever tries again and again until a server is there meets this some day.
fn refuse_oneself(socket: &Socket, peer: &Address) -> io::Result<()> {
    let Some(peer) = peer.inet() else { return Ok(()) };
    if socket.local_addr()?.as_socket() != Some(peer) {
        return Ok(());
    }
    let error = "nobody listens there, and it was connected to itself";
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, error))
}

/// Waits until the protocol of a new connection was told of it. Nobody else has the connection yet, so it
/// ends with whoever waits.
pub(crate) async fn made<P: Protocol + 'static>(
    connection: Connection<P>,
) -> io::Result<Connection<P>> {
    let guard = AbortOnDrop(connection.transport());
    let connection_made = connection.clone().made().await;
    std::mem::forget(guard);
    connection_made
}

struct AbortOnDrop<'a>(&'a Transport);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn bind(socket: &Socket, peer: &Address, local: &[SocketAddr]) -> io::Result<()> {
    let family = peer.inet().map(|peer| peer.is_ipv4());
    let mut failed = None;
    for address in local.iter().filter(|address| Some(address.is_ipv4()) == family) {
        match socket.bind(&(*address).into()) {
            Ok(()) => return Ok(()),
            Err(error) => {
                failed = Some(crate::socket::describe(error, &format!("cannot bind to {address}")));
            }
        }
    }
    Err(failed.unwrap_or_else(|| {
        let error = "none of the local addresses is of its family";
        io::Error::new(io::ErrorKind::AddrNotAvailable, error)
    }))
}

pub(crate) async fn connect(
    handle: &LoopHandle,
    socket: &Socket,
    address: &SockAddr,
) -> io::Result<()> {
    use rustix::io::Errno;
    let mut pause = FIRST_RETRY;
    for _ in 0..MOST_RETRIES {
        let Err(error) = socket.connect(address) else { return Ok(()) };
        match Errno::from_io_error(&error) {
            Some(Errno::INPROGRESS | Errno::INTR) => return established(handle, socket).await,
            Some(Errno::AGAIN) if address.is_unix() => {
                tulipa_loop::sleep(pause).await;
                pause = (pause * 2).min(LAST_RETRY);
            }
            _ => return Err(error),
        }
    }
    let error = "the server's queue of connections stays full";
    Err(io::Error::new(io::ErrorKind::WouldBlock, error))
}

/// Waits until a connection that is being made is there.
async fn established(handle: &LoopHandle, socket: &Socket) -> io::Result<()> {
    let watched = AsyncFd::new(handle, socket.try_clone()?)?;
    loop {
        watched.writable().await?;
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Ok(_) => return Ok(()),
            // It was not what the socket is ready for.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => return Err(error),
        }
    }
}

/// No address of a host could be connected to. It is inside of the [`io::Error`] that
/// [`create_connection`] returns.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectError {
    /// What was to be connected to.
    pub target: String,
    /// Each address that was tried, and what it said. Fewer than the host has, if attempts were cancelled.
    pub attempts: Vec<(Address, io::Error)>,
}

impl ConnectError {
    fn from(target: String, attempts: Vec<(Address, io::Error)>) -> io::Error {
        let kind = attempts.last().map_or(io::ErrorKind::Other, |(_, error)| error.kind());
        io::Error::new(kind, ConnectError { target, attempts })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}", self.target)?;
        match &self.attempts[..] {
            [(address, error)] if address.to_string() == self.target => write!(f, ": {error}"),
            attempts => {
                for (place, (address, error)) in attempts.iter().enumerate() {
                    write!(f, "{} {address}: {error}", if place == 0 { ":" } else { ";" })?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConnectError {}

/// Connects to a host on the current loop and gives the connection to a new protocol. Stands for
/// `create_connection`; [`Connect`] has its options.
///
/// # Errors
/// As [`Connect::open`].
///
/// # Cancel safety
/// As [`Connect::open`].
///
/// # Panics
/// Outside of a running loop.
pub async fn create_connection<P: Protocol + 'static>(
    endpoint: impl Into<Endpoint>,
    factory: impl FnOnce() -> P,
) -> io::Result<Connection<P>> {
    Connect::to(endpoint).open(factory).await
}

/// Connects to a Unix socket on the current loop and gives the connection to a new protocol. Stands for
/// `create_unix_connection`.
///
/// # Errors
/// As [`Connect::open`].
///
/// # Cancel safety
/// As [`Connect::open`].
///
/// # Panics
/// Outside of a running loop.
pub async fn create_unix_connection<P: Protocol + 'static>(
    path: impl AsRef<Path>,
    factory: impl FnOnce() -> P,
) -> io::Result<Connection<P>> {
    Connect::to_unix(path.as_ref()).open(factory).await
}

/// Gives a stream socket that is connected, whoever connected or accepted it, to a protocol on the current
/// loop. A blocking one is made non-blocking. Stands for `connect_accepted_socket`, and for
/// `create_connection(sock=…)`.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is no stream socket;
/// [`NotConnected`](io::ErrorKind::NotConnected) if it is not connected, or the loop is closed. The socket is
/// closed then.
///
/// # Cancel safety
/// Dropping the future closes the socket.
///
/// # Panics
/// Outside of a running loop.
pub async fn connect_accepted_socket<P: Protocol + 'static>(
    socket: impl Into<OwnedFd>,
    factory: impl FnOnce() -> P,
) -> io::Result<Connection<P>> {
    adopt_on(LoopHandle::current(), socket.into(), factory).await
}

pub(crate) async fn adopt_on<P: Protocol + 'static>(
    handle: LoopHandle,
    socket: OwnedFd,
    factory: impl FnOnce() -> P,
) -> io::Result<Connection<P>> {
    let socket = adopt(socket)?;
    let link = Slot::Socket(SocketLink::new(socket));
    made(start(&handle, link, factory(), None)?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|address| format!("{address}:1").parse().unwrap()).collect()
        };
        let sorted = interleave(parse("[::1] [::2] [::3] 1.1.1.1 1.1.1.2"));
        assert_eq!(sorted, parse("[::1] 1.1.1.1 [::2] 1.1.1.2 [::3]"));
        assert_eq!(interleave(parse("1.1.1.1 [::1]")), parse("1.1.1.1 [::1]"));
        assert_eq!(interleave(Vec::new()), Vec::new());
    }
}
