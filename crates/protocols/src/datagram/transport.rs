//! What the program holds of an endpoint.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::link::{Received, Slot};
use super::protocol::Datagram;
use super::queue::Place;
use super::state::{Phase, State, closed};
use crate::leaf::Lent;
use crate::{Address, Flow, WriteBufferLimits};

/// Where a datagram is to go: an [`Address`], or a [`SocketAddr`] of either kind.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a>(Kind<'a>);

#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Inet(SocketAddr),
    Address(&'a Address),
}

impl<'a> From<&'a Address> for Destination<'a> {
    fn from(address: &'a Address) -> Destination<'a> {
        Destination(Kind::Address(address))
    }
}

impl From<SocketAddr> for Destination<'_> {
    fn from(address: SocketAddr) -> Self {
        Destination(Kind::Inet(address))
    }
}

impl From<SocketAddrV4> for Destination<'_> {
    fn from(address: SocketAddrV4) -> Self {
        SocketAddr::from(address).into()
    }
}

impl From<SocketAddrV6> for Destination<'_> {
    fn from(address: SocketAddrV6) -> Self {
        SocketAddr::from(address).into()
    }
}

/// What sends datagrams. Clones are the same transport: protocols, tasks and streams may all have one. Stands for
/// `asyncio.DatagramTransport`.
///
/// Every method may be called in every state and from anywhere on the loop's thread, any callback included. None
/// calls the program's code: what has to be told is told by the loop later.
///
/// | | open | closing | over |
/// |---|---|---|---|
/// | [`send_to`](Self::send_to), [`send`](Self::send) | takes all | [`Flow::Closed`], drops it | the same |
/// | [`close`](Self::close) | begins to close | nothing | nothing |
/// | [`abort`](Self::abort) | ends | ends | nothing |
/// | [`is_closing`](Self::is_closing) | `false` | `true` | `true` |
/// | [`get_write_buffer_size`](Self::get_write_buffer_size) | what waits | what waits | 0 |
/// | [`try_receive`](Self::try_receive) | receives, or `WouldBlock` | error, `NotConnected` | the same |
/// | limits | set | set | nothing |
/// | options, multicast | set | set | error, `NotConnected` |
/// | addresses | from the socket | from the socket | as they were |
///
/// # Order
/// Datagrams leave in the order in which they were sent; what the network makes of it is its business. Those of one callback or
/// task step leave together when it returns, in few system calls; more than the high limit leaves at once.
#[derive(Clone)]
pub struct DatagramTransport {
    pub(crate) state: Rc<State>,
}

impl DatagramTransport {
    /// Sends a datagram, which may be empty, to an address: queues it, and returns at once. Stands for `sendto`.
    ///
    /// What goes wrong comes to [`error_received`](crate::DatagramProtocol::error_received), and the next
    /// datagrams are sent: one that is too long, an address of another family, another address than that to which
    /// the endpoint is connected. If the operating system takes no more now (`EAGAIN`) the datagram waits; if it has no memory
    /// for it (`ENOBUFS`) it is lost, as nobody says when there is some. A Unix socket that is full is waited
    /// for about a second, then the datagram is lost; the same if it stays full, at once.
    pub fn send_to<'a>(&self, data: &[u8], to: impl Into<Destination<'a>>) -> Flow {
        let to = match to.into().0 {
            Kind::Inet(inet) => Place::Inet(inet),
            Kind::Address(address) => self.state.place(address),
        };
        self.state.send(data, to)
    }

    /// Sends a datagram to the peer to which the endpoint [is connected](crate::Datagrams::to). Otherwise as
    /// [`send_to`](Self::send_to).
    pub fn send(&self, data: &[u8]) -> Flow {
        self.state.send(data, Place::Peer)
    }

    /// Receives nothing more, sends what is queued, and ends the endpoint. Stands for `close`.
    pub fn close(&self) {
        self.state.close();
    }

    /// Ends the endpoint and drops what is queued. Stands for `abort`.
    pub fn abort(&self) {
        self.state.end(None);
    }

    /// Whether the endpoint is closing or over. Stands for `is_closing`.
    pub fn is_closing(&self) -> bool {
        self.state.phase.get() != Phase::Open
    }

    /// What waits to be sent: the bytes, and 64 more for each datagram, so that empty ones count too. Stands for
    /// `get_write_buffer_size`.
    pub fn get_write_buffer_size(&self) -> usize {
        if self.state.phase.get() == Phase::Ended { 0 } else { self.state.queued.get() }
    }

    /// Sets the sizes above which writing is paused and at which it is resumed, as
    /// [`Transport::set_write_buffer_limits`](crate::Transport::set_write_buffer_limits).
    ///
    /// # Panics
    /// If `low` is above `high`.
    #[track_caller]
    pub fn set_write_buffer_limits(&self, limits: WriteBufferLimits) {
        let WriteBufferLimits { low, high } = limits;
        assert!(low <= high, "the low limit ({low}) must not be above the high one ({high})");
        self.state.limits.set(limits);
        self.state.attend();
    }

    /// The limits in use. Stands for `get_write_buffer_limits`.
    pub fn get_write_buffer_limits(&self) -> WriteBufferLimits {
        self.state.limits.get()
    }

    /// Receives a datagram that is there into `buffer`, for protocols that [are
    /// pulled from](crate::DatagramProtocol::readable).
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is known to be there;
    /// [`NotConnected`](io::ErrorKind::NotConnected) when the endpoint is closed. Others are what
    /// [`error_received`](crate::DatagramProtocol::error_received) gets, and end nothing.
    pub fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.state.try_receive(buffer)
    }

    /// Receives a datagram into the loop's own buffer of 256 KiB and gives it to `take`.
    ///
    /// # Errors
    /// As [`try_receive`](Self::try_receive).
    pub fn receive_with<R>(&self, take: impl FnOnce(Datagram<'_>) -> R) -> io::Result<R> {
        if !self.state.is_to_be_read() {
            // Says why, without a buffer.
            return self.state.receive(&mut []).map(|_| unreachable!("nothing is received"));
        }
        let mut lent = Lent::of(&self.state.leaf);
        self.state.receive_with(lent.buffer(), take)
    }

    /// Whether [`try_receive`](Self::try_receive) would do anything but say that it would block, as far as is known.
    pub fn is_readable(&self) -> bool {
        self.state.readable.get() || self.is_closing()
    }

    /// Our address, also when the endpoint is over. Stands for `get_extra_info('sockname')`.
    pub fn local_addr(&self) -> Option<Address> {
        self.state.addresses().0
    }

    /// The address of the peer that it is connected to, if it is, also when the endpoint is over. Stands for
    /// `get_extra_info('peername')`.
    pub fn peer_addr(&self) -> Option<Address> {
        self.state.addresses().1
    }

    /// Lends the socket, to set options of it.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) when the endpoint is over;
    /// [`Unsupported`](io::ErrorKind::Unsupported) if it has no descriptor.
    pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        // A duplicate, so that nothing is borrowed while the program's code runs.
        let copied = match &*self.state.link.borrow() {
            Slot::Socket(socket) => socket.fd().try_clone_to_owned()?,
            Slot::Any(_) | Slot::Out => {
                let error = "the transport has no descriptor";
                return Err(io::Error::new(io::ErrorKind::Unsupported, error));
            }
            Slot::Gone => return Err(closed("use its socket")),
        };
        Ok(f(copied.as_fd()))
    }
}

/// Two are equal if they are the same endpoint.
impl PartialEq for DatagramTransport {
    fn eq(&self, other: &DatagramTransport) -> bool {
        Rc::ptr_eq(&self.state, &other.state)
    }
}

impl Eq for DatagramTransport {}

impl Hash for DatagramTransport {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        Rc::as_ptr(&self.state).cast::<()>().hash(hasher);
    }
}

impl fmt::Debug for DatagramTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read before it is written: the writer is the program's.
        let (phase, waiting) = (self.state.phase.get(), self.get_write_buffer_size());
        let (local, peer) = self.state.addresses();
        write!(f, "<DatagramTransport {phase:?}")?;
        if let Some(local) = local {
            write!(f, " local={local}")?;
        }
        if let Some(peer) = peer {
            write!(f, " peer={peer}")?;
        }
        write!(f, " waiting={waiting}>")
    }
}
