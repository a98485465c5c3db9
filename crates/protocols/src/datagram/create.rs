//! Making endpoints.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use socket2::Socket;
use tulipa_loop::LoopHandle;

use super::endpoint::start;
use super::link::{DatagramSocket, Slot};
use super::state::Fixed;
use crate::leaf::READ_BUFFER;
use crate::network::network;
use crate::resolve::Endpoint;
use crate::socket::{adopt_datagram, datagram_socket, describe};
use crate::unix::{SocketFile, remove_stale_datagram};
use crate::{Address, DatagramEndpoint, DatagramProtocol, Family};

/// How to make a datagram endpoint. Stands for the arguments of asyncio's `create_datagram_endpoint`.
///
/// ```no_run
/// # use tulipa_protocols::{Address, Datagrams, DatagramProtocol, DatagramTransport};
/// # struct Client;
/// # impl DatagramProtocol for Client {
/// #     fn datagram_received(&mut self, _: &DatagramTransport, _: &[u8], _: &Address) -> std::io::Result<()> { Ok(()) }
/// # }
/// # async fn example() -> std::io::Result<()> {
/// let endpoint = Datagrams::to("localhost:9999").open(|| Client).await?;
/// endpoint.send(b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "there is no endpoint before `open`"]
pub struct Datagrams {
    local: Option<Place>,
    remote: Option<Place>,
    socket: Option<OwnedFd>,
    family: Option<Family>,
    broadcast: bool,
    reuse_port: bool,
    remove_file: bool,
    max_datagram: usize,
}

#[derive(Clone, Debug)]
enum Place {
    Endpoint(Endpoint),
    Unix(Address),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Endpoint(endpoint) => endpoint.fmt(f),
            Place::Unix(address) => address.fmt(f),
        }
    }
}

/// The two ends of a socket that is to be made.
#[derive(Debug)]
struct Pair {
    local: Option<Address>,
    remote: Option<Address>,
}

impl Datagrams {
    fn with(local: Option<Place>, remote: Option<Place>) -> Datagrams {
        Datagrams {
            local,
            remote,
            socket: None,
            family: None,
            broadcast: false,
            reuse_port: false,
            remove_file: true,
            max_datagram: READ_BUFFER,
        }
    }

    /// Receives what is sent to this address, from anybody. Port 0 takes one that is free. Of a host with several
    /// addresses the first is taken that can be had. The empty host is every address of this machine: one IPv6 socket,
    /// which takes IPv4 datagrams too where the operating system has it so, as Linux mostly has; or every IPv4 address
    /// if there is no IPv6.
    pub fn at(endpoint: impl Into<Endpoint>) -> Datagrams {
        Datagrams::with(Some(Place::Endpoint(endpoint.into())), None)
    }

    /// Sends to this address, and receives from it only. Of a host with several addresses the first is taken to which there is a
    /// way. Nothing is sent, so nobody knows whether anybody listens there.
    pub fn to(endpoint: impl Into<Endpoint>) -> Datagrams {
        Datagrams::with(None, Some(Place::Endpoint(endpoint.into())))
    }

    /// Receives what is sent to a Unix datagram socket of this name. A file that an earlier one has left there is removed
    /// first; one that is in use is not, nor is any other kind of file.
    pub fn at_unix(path: impl Into<PathBuf>) -> Datagrams {
        Datagrams::with(Some(Place::Unix(Address::Path(path.into()))), None)
    }

    /// Sends to a Unix datagram socket, and receives from it only. It can answer if this end has a name too, see
    /// [`local_unix`](Self::local_unix).
    pub fn to_unix(path: impl Into<PathBuf>) -> Datagrams {
        Datagrams::with(None, Some(Place::Unix(Address::Path(path.into()))))
    }

    /// Has no address of its own before it sends: the operating system picks one then. Stands for `family=`.
    pub fn unbound(family: Family) -> Datagrams {
        Datagrams { family: Some(family), ..Datagrams::with(None, None) }
    }

    /// Uses a datagram socket that exists, bound or not, connected or not. Its file, if it has one, is never removed.
    pub fn on_socket(socket: impl Into<OwnedFd>) -> Datagrams {
        Datagrams { socket: Some(socket.into()), ..Datagrams::with(None, None) }
    }

    /// Our address beside the peer's; the two are of one family.
    pub fn local(mut self, endpoint: impl Into<Endpoint>) -> Datagrams {
        self.local = Some(Place::Endpoint(endpoint.into()));
        self
    }

    /// Our Unix address beside the peer's.
    pub fn local_unix(mut self, path: impl Into<PathBuf>) -> Datagrams {
        self.local = Some(Place::Unix(Address::Path(path.into())));
        self
    }

    /// Only addresses of this family.
    pub fn family(mut self, family: Family) -> Datagrams {
        self.family = Some(family);
        self
    }

    /// Whether to send to broadcast addresses (`SO_BROADCAST`): no at first. An endpoint [to](Self::to) an address is
    /// then not connected to it: answers come from anybody, and [`send`](crate::DatagramTransport::send) goes to that address.
    /// Stands for `allow_broadcast`.
    pub fn broadcast(mut self, broadcast: bool) -> Datagrams {
        self.broadcast = broadcast;
        self
    }

    /// Whether others may be bound to the same address, to share what comes (`SO_REUSEPORT`): no at first.
    pub fn reuse_port(mut self, reuse: bool) -> Datagrams {
        self.reuse_port = reuse;
        self
    }

    /// Whether the file of a Unix socket is removed at the end: yes at first.
    pub fn remove_file(mut self, remove: bool) -> Datagrams {
        self.remove_file = remove;
        self
    }

    /// The most that is received of one datagram, in bytes: 256 KiB at first, which is also the most that it can be. Longer
    /// ones are [truncated](DatagramProtocol::truncated_received). Those of UDP have 64 KiB at most.
    pub fn max_datagram_size(mut self, bytes: usize) -> Datagrams {
        self.max_datagram = bytes.min(READ_BUFFER);
        self
    }

    /// Makes the endpoint on the current loop and gives it to a new protocol, whose `connection_made` has run when this
    /// returns. Stands for `create_datagram_endpoint`.
    ///
    /// # Errors
    /// What the last address said that was tried, by name. [`InvalidInput`](io::ErrorKind::InvalidInput) if the two ends
    /// are of different families, or if options are given for a socket that exists already, or if that is no datagram socket. What the
    /// resolver says. `factory` is then not called. [`NotConnected`](io::ErrorKind::NotConnected) if the loop is closed.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn open<P: DatagramProtocol + 'static>(
        self,
        factory: impl FnOnce() -> P,
    ) -> io::Result<DatagramEndpoint<P>> {
        self.open_on(LoopHandle::current(), factory).await
    }

    pub(crate) async fn open_on<P: DatagramProtocol + 'static>(
        mut self,
        handle: LoopHandle,
        factory: impl FnOnce() -> P,
    ) -> io::Result<DatagramEndpoint<P>> {
        let (link, fixed) = match self.socket.take() {
            Some(socket) => self.adopt(socket)?,
            None => self.make(&handle).await?,
        };
        start(&handle, link, fixed, factory())?.made().await
    }

    fn adopt(&self, socket: OwnedFd) -> io::Result<(Slot, Fixed)> {
        let others = self.local.is_some() || self.remote.is_some() || self.family.is_some();
        if others || self.broadcast || self.reuse_port {
            let error = "a socket that exists already takes no addresses and no options";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let socket = DatagramSocket::new(adopt_datagram(socket)?);
        let (peer, max_datagram) = (socket.peer_addr(), self.max_datagram);
        Ok((Slot::Socket(socket), Fixed { peer, max_datagram, ..Fixed::default() }))
    }

    async fn make(&self, handle: &LoopHandle) -> io::Result<(Slot, Fixed)> {
        let mut failed = None;
        for pair in self.pairs(handle).await? {
            match self.open_pair(handle, &pair) {
                Ok(made) => return Ok(made),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| {
            let what = match (&self.local, &self.remote) {
                (Some(local), Some(remote)) => format!("from {local} to {remote}"),
                (Some(only), None) | (None, Some(only)) => only.to_string(),
                (None, None) => "without a family".to_owned(),
            };
            let error =
                format!("cannot open a datagram endpoint {what}: no addresses of one family");
            io::Error::new(io::ErrorKind::InvalidInput, error)
        }))
    }

    /// The pairs of addresses of one family, best first.
    async fn pairs(&self, handle: &LoopHandle) -> io::Result<Vec<Pair>> {
        let locals = self.addresses(handle, self.local.as_ref()).await?;
        let remotes = self.addresses(handle, self.remote.as_ref()).await?;
        let pair = |local: Option<&Address>, remote: Option<&Address>| Pair {
            local: local.cloned(),
            remote: remote.cloned(),
        };
        Ok(match (locals, remotes) {
            (None, None) => self.family.map(|_| pair(None, None)).into_iter().collect(),
            (Some(locals), None) => locals.iter().map(|local| pair(Some(local), None)).collect(),
            (None, Some(remotes)) => {
                remotes.iter().map(|remote| pair(None, Some(remote))).collect()
            }
            (Some(locals), Some(remotes)) => {
                let mut pairs = Vec::new();
                for remote in &remotes {
                    let fitting = locals.iter().filter(|local| family(local) == family(remote));
                    pairs.extend(fitting.map(|local| pair(Some(local), Some(remote))));
                }
                pairs
            }
        })
    }

    async fn addresses(
        &self,
        handle: &LoopHandle,
        place: Option<&Place>,
    ) -> io::Result<Option<Vec<Address>>> {
        let found: Vec<SocketAddr> = match place {
            None => return Ok(None),
            Some(Place::Unix(address)) => return Ok(Some(vec![address.clone()])),
            Some(Place::Endpoint(endpoint)) => endpoint.resolve(handle).await?,
        };
        let mut wanted: Vec<Address> = found
            .into_iter()
            .filter(|address| match self.family {
                None => true,
                Some(family) => (family == Family::V6) == address.is_ipv6(),
            })
            .map(Address::Inet)
            .collect();
        wanted.dedup();
        Ok(Some(wanted))
    }

    fn open_pair(&self, handle: &LoopHandle, pair: &Pair) -> io::Result<(Slot, Fixed)> {
        let connects = pair.remote.is_some() && !self.broadcast;
        let (peer, default_to) = match connects {
            true => (pair.remote.clone(), None),
            false => (None, pair.remote.clone()),
        };
        let max_datagram = self.max_datagram;
        let mut fixed = Fixed { peer, default_to, max_datagram, ..Fixed::default() };
        if let Some(network) = network(handle) {
            let made = network.bind_datagrams(pair.local.as_ref(), fixed.peer.as_ref());
            let link = made.map_err(|error| describe(error, &pair.to_string()))?;
            return Ok((Slot::Any(link), fixed));
        }
        let (socket, file) = self.open_socket(pair, connects)?;
        fixed.file.set(file);
        let socket = DatagramSocket::new(socket.into());
        if let Some(peer) = socket.peer_addr() {
            // As the operating system has it: a name for every address becomes one of them.
            fixed.peer = Some(peer);
        }
        Ok((Slot::Socket(socket), fixed))
    }

    fn open_socket(&self, pair: &Pair, connects: bool) -> io::Result<(Socket, Option<SocketFile>)> {
        let some = pair.local.as_ref().or(pair.remote.as_ref());
        let any = match self.family {
            Some(Family::V6) => SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)),
            _ => SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, 0)),
        };
        let socket = datagram_socket(some.unwrap_or(&Address::Inet(any)))?;
        if self.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if self.broadcast {
            socket.set_broadcast(true)?;
        }
        let mut file = None;
        if let Some(local) = &pair.local {
            file = self.bind(&socket, local).map_err(|error| describe(error, &pair.to_string()))?;
        }
        if let Some(remote) = pair.remote.as_ref().filter(|_| connects) {
            let connected = remote.to_socket().and_then(|remote| socket.connect(&remote));
            if let Err(error) = connected {
                if let Some(file) = file {
                    file.remove();
                }
                return Err(describe(error, &pair.to_string()));
            }
        }
        Ok((socket, file))
    }

    fn bind(&self, socket: &Socket, local: &Address) -> io::Result<Option<SocketFile>> {
        if let Some(path) = local.path() {
            remove_stale_datagram(path)?;
        }
        socket.bind(&local.to_socket()?)?;
        local.path().filter(|_| self.remove_file).map(SocketFile::of).transpose()
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot open a datagram endpoint")?;
        if let Some(local) = &self.local {
            write!(f, " at {local}")?;
        }
        if let Some(remote) = &self.remote {
            write!(f, " to {remote}")?;
        }
        Ok(())
    }
}

#[derive(PartialEq)]
enum Kind {
    Inet(Family),
    Unix,
}

fn family(address: &Address) -> Kind {
    match address.inet() {
        Some(inet) if inet.is_ipv6() => Kind::Inet(Family::V6),
        Some(_) => Kind::Inet(Family::V4),
        None => Kind::Unix,
    }
}

/// Makes a datagram endpoint on the current loop that receives what is sent to `local_addr`, and gives it to a new
/// protocol. Stands for `create_datagram_endpoint`; [`Datagrams`] has the other kinds, and the options.
///
/// ```
/// use std::io;
/// use tulipa_loop::EventLoop;
/// use tulipa_protocols::{Address, DatagramProtocol, DatagramTransport, Datagrams, create_datagram_endpoint};
///
/// struct Echo;
/// impl DatagramProtocol for Echo {
///     fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], from: &Address) -> io::Result<()> {
///         transport.send_to(data, from);
///         Ok(())
///     }
/// }
///
/// struct Asks;
/// impl DatagramProtocol for Asks {
///     fn connection_made(&mut self, transport: &DatagramTransport) -> io::Result<()> {
///         transport.send(b"hello");
///         Ok(())
///     }
///
///     fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], _: &Address) -> io::Result<()> {
///         assert_eq!(data, b"hello");
///         transport.close();
///         Ok(())
///     }
/// }
///
/// let event_loop = EventLoop::new()?;
/// event_loop.run_until_complete(async {
///     let server = create_datagram_endpoint("127.0.0.1:0", || Echo).await?;
///     let address = server.local_addr().and_then(|address| address.inet()).expect("it is bound");
///     let client = Datagrams::to(address).open(|| Asks).await?;
///     client.wait_closed().await;
///     server.close();
///     io::Result::Ok(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Datagrams::open`].
///
/// # Cancel safety
/// As [`Datagrams::open`].
///
/// # Panics
/// Outside of a running loop.
pub async fn create_datagram_endpoint<P: DatagramProtocol + 'static>(
    local_addr: impl Into<Endpoint>,
    factory: impl FnOnce() -> P,
) -> io::Result<DatagramEndpoint<P>> {
    Datagrams::at(local_addr).open(factory).await
}
