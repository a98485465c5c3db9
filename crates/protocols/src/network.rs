//! Whose network the connections and servers of a loop are made in: the operating system's, or one that a
//! program brings, as the simulated one for tests.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;

use socket2::SockRef;
use tulipa_loop::LoopHandle;
use tulipa_selector::Source;

use crate::link::SocketLink;
use crate::socket::accept;
use crate::state::Slot;
use crate::{Address, DatagramLink, Link};

/// The future of [`Network::connect`].
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Link>>>>>;

/// A network other than the operating system's. With one [set](set_network), whatever makes connections and
/// servers on that loop makes them there: the programs are the same. Names are asked of the loop's
/// [`Resolver`](crate::Resolver), as ever.
///
/// It is engine code, as a [`Link`] is. Options of sockets mean nothing to it.
pub trait Network {
    /// Connects to one address; from one of `local`, unless that is empty. Dropping the future gives the
    /// attempt up.
    fn connect(&self, peer: &Address, local: &[SocketAddr]) -> Dialing;

    /// Takes an address to listen on, where nobody can connect yet. Port 0 is any that is free.
    ///
    /// # Errors
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) for an address that is not one's own: it is
    /// passed over if the host has others. Whatever else makes it impossible.
    fn bind(&self, address: &Address) -> io::Result<Rc<dyn Acceptor>>;

    /// Makes what sends and receives datagrams: at this address of one's own, or at any; and to and from this peer only, or any.
    ///
    /// # Errors
    /// What makes it impossible; [`Unsupported`](io::ErrorKind::Unsupported) if the network has no datagrams, as
    /// without this method.
    fn bind_datagrams(
        &self,
        local: Option<&Address>,
        peer: Option<&Address>,
    ) -> io::Result<Box<dyn DatagramLink>> {
        let _ = (local, peer);
        Err(io::Error::new(io::ErrorKind::Unsupported, "the network has no datagrams"))
    }
}

/// What accepts the connections of a [`Network`]. Dropping it closes it.
pub trait Acceptor {
    /// What is registered with the selector: readable when there is a connection.
    fn source(&self) -> Source;

    /// Its address, with the real port.
    fn local_addr(&self) -> Address;

    /// Lets others connect; so many of them may wait to be accepted.
    ///
    /// # Errors
    /// What makes it impossible.
    fn listen(&self, backlog: u32) -> io::Result<()>;

    /// Accepts a connection.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none;
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if that one is gone again; after any other
    /// nothing is accepted for a second.
    fn accept(&self) -> io::Result<Box<dyn Link>>;
}

#[derive(Default)]
struct Networking(RefCell<Option<Rc<dyn Network>>>);

/// Sets whose network the connections and servers of a loop are made in from now on; `None` is the operating
/// system's. Descriptors that programs bring stay what they are.
pub fn set_network(handle: &LoopHandle, network: Option<Rc<dyn Network>>) {
    let networking = handle.local(|_| Networking::default());
    let old = networking.0.replace(network);
    drop(old);
}

/// The network of a loop, unless it is the operating system's.
pub(crate) fn network(handle: &LoopHandle) -> Option<Rc<dyn Network>> {
    handle.local(|_| Networking::default()).0.borrow().clone()
}

/// Where connections come in.
pub(crate) enum Door {
    Socket(Rc<OwnedFd>),
    Other(Rc<dyn Acceptor>),
}

impl Door {
    pub(crate) fn source(&self) -> Source {
        match self {
            Door::Socket(socket) => Source::shared(socket.clone()),
            Door::Other(acceptor) => acceptor.source(),
        }
    }

    pub(crate) fn listen(&self, backlog: u32) -> io::Result<()> {
        match self {
            Door::Socket(socket) => {
                SockRef::from(&**socket).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
            }
            Door::Other(acceptor) => acceptor.listen(backlog),
        }
    }

    pub(crate) fn accept(&self) -> io::Result<Slot> {
        match self {
            Door::Socket(socket) => Ok(Slot::Socket(SocketLink::new(accept(socket.as_fd())?))),
            Door::Other(acceptor) => acceptor.accept().map(Slot::Any),
        }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Door::Socket(socket) => Some(socket.as_fd()),
            Door::Other(_) => None,
        }
    }
}
