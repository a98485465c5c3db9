//! Where datagrams come from and go to: a socket, or what a program brings.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, RecvMsg, ReturnFlags, SocketAddrAny, SocketAddrUnix,
};
use socket2::SockRef;
use tulipa_selector::Source;

use super::queue::{Place, SendQueue};
use crate::Address;
use crate::link::{SEND, retry};

/// What was received into a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// How many bytes of the buffer are the datagram's.
    pub length: usize,
    /// Who has sent it.
    pub from: Address,
    /// Whether it was longer than the buffer: its rest is lost.
    pub truncated: bool,
}

impl Received {
    /// A whole datagram of so many bytes.
    pub fn new(length: usize, from: Address) -> Received {
        Received { length, from, truncated: false }
    }

    /// The same for the beginning of one.
    pub fn truncated(mut self, truncated: bool) -> Received {
        self.truncated = truncated;
        self
    }
}

/// Datagrams to and from somewhere, without blocking: what a [`Network`](crate::Network) makes. It is called as a
/// [`Link`](crate::Link) is, and must not call the transport back. Errors other than
/// [`WouldBlock`](io::ErrorKind::WouldBlock) are told to the protocol and end nothing.
pub trait DatagramLink {
    /// What is registered with the selector: readiness of it must follow what [`receive`](Self::receive) and
    /// [`send`](Self::send) would do.
    fn source(&self) -> Source;

    /// Receives one datagram, or its beginning if the buffer is too short for it.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or what the network says.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received>;

    /// Sends one datagram, whole; to the peer that it is connected to if no address is given.
    ///
    /// # Errors
    /// `WouldBlock` if it takes none now; it is tried again when the source is writable. Others mean that it is lost.
    fn send(&mut self, data: &[u8], to: Option<&Address>) -> io::Result<()>;

    /// The address of the peer, if it is connected to one.
    fn peer_addr(&self) -> Option<Address> {
        None
    }

    /// Our address.
    fn local_addr(&self) -> Option<Address> {
        None
    }
}

/// Where the link is.
pub(crate) enum Slot {
    Socket(DatagramSocket),
    Any(Box<dyn DatagramLink>),
    /// At work, further up the stack.
    Out,
    Gone,
}

/// How many datagrams one system call sends.
#[cfg(target_os = "linux")]
const BATCH: usize = 32;

/// A datagram socket that does not block.
pub(crate) struct DatagramSocket {
    fd: Rc<OwnedFd>,
    /// Who has sent the last one, if that was a Unix socket with a name.
    last: Option<(SocketAddrUnix, Rc<Address>)>,
    unnamed: Option<Rc<Address>>,
}

/// What came of a batch: how many were sent, and what the first one that was not has met.
pub(crate) type Sent = (usize, io::Result<()>);

impl DatagramSocket {
    pub(crate) fn new(fd: OwnedFd) -> DatagramSocket {
        DatagramSocket { fd: Rc::new(fd), last: None, unnamed: None }
    }

    pub(crate) fn source(&self) -> Source {
        Source::shared(self.fd.clone())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn local_addr(&self) -> Option<Address> {
        Address::from_socket(&SockRef::from(&*self.fd).local_addr().ok()?)
    }

    pub(crate) fn peer_addr(&self) -> Option<Address> {
        Address::from_socket(&SockRef::from(&*self.fd).peer_addr().ok()?)
    }

    /// Receives one datagram: its length, its sender, and whether it was cut.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Place, bool)> {
        let RecvMsg { bytes, flags, address, .. } = retry(|| {
            // Descriptors that a Unix socket sends along find no room, and are closed.
            let mut none = RecvAncillaryBuffer::default();
            let pieces = &mut [IoSliceMut::new(&mut *buffer)];
            rustix::net::recvmsg(&*self.fd, pieces, &mut none, RecvFlags::empty())
        })?;
        let from = self.place(address);
        Ok((bytes.min(buffer.len()), from, flags.contains(ReturnFlags::TRUNC)))
    }

    fn place(&mut self, address: Option<SocketAddrAny>) -> Place {
        let Some(address) = address else { return Place::Other(self.unnamed()) };
        if let Ok(inet) = SocketAddr::try_from(address.clone()) {
            return Place::Inet(inet);
        }
        let Ok(unix) = SocketAddrUnix::try_from(address) else {
            return Place::Other(self.unnamed());
        };
        match &self.last {
            Some((known, address)) if *known == unix => Place::Other(address.clone()),
            _ => {
                let address = Rc::new(address_of(&unix));
                self.last = Some((unix, address.clone()));
                Place::Other(address)
            }
        }
    }

    fn unnamed(&mut self) -> Rc<Address> {
        self.unnamed.get_or_insert_with(|| Rc::new(Address::Unnamed)).clone()
    }

    /// Sends the first ones of a queue in as few system calls as the platform can: one.
    #[cfg(target_os = "linux")]
    pub(crate) fn send(&self, queue: &SendQueue) -> Sent {
        if queue.is_single() { self.send_first(queue) } else { self.send_batch(queue) }
    }

    #[cfg(target_os = "linux")]
    #[inline(never)]
    fn send_batch(&self, queue: &SendQueue) -> Sent {
        use rustix::io::Errno;
        use rustix::net::{MMsgHdr, SendAncillaryBuffer, sendmmsg};
        use std::io::IoSlice;
        let mut addresses = [const { None }; BATCH];
        let mut pieces = [[IoSlice::new(&[])]; BATCH];
        let mut count = 0;
        for (data, to) in queue.iter().take(BATCH) {
            match encoded(to) {
                Ok(address) => addresses[count] = address,
                Err(error) if count == 0 => return (0, Err(error)),
                // It is met again when it is the first.
                Err(_) => break,
            }
            pieces[count] = [IoSlice::new(data)];
            count += 1;
        }
        let mut controls = [const { None }; BATCH];
        let mut parts = addresses.iter().zip(&pieces).zip(&mut controls);
        let mut headers: [MMsgHdr<'_>; BATCH] = std::array::from_fn(|_| {
            let ((address, piece), control) = parts.next().expect("there are as many of each");
            let control = control.insert(SendAncillaryBuffer::default());
            match address {
                Some(address) => MMsgHdr::new_with_addr(address, piece, control),
                None => MMsgHdr::new(piece, control),
            }
        });
        match retry(|| sendmmsg(&*self.fd, &mut headers[..count], SEND)) {
            // An old kernel, or a filter of system calls.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOSYS) => {
                self.send_first(queue)
            }
            Err(error) => (0, Err(error)),
            Ok(sent) => (sent.min(count), Ok(())),
        }
    }

    /// The same where there is no call for many.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn send(&self, queue: &SendQueue) -> Sent {
        self.send_first(queue)
    }

    fn send_first(&self, queue: &SendQueue) -> Sent {
        let Some((data, to)) = queue.first() else { return (0, Ok(())) };
        match self.send_one(data, to) {
            Ok(()) => (1, Ok(())),
            Err(error) => (0, Err(error)),
        }
    }

    fn send_one(&self, data: &[u8], to: &Place) -> io::Result<()> {
        let sent = match encoded(to)? {
            None => retry(|| rustix::net::send(&*self.fd, data, SEND)),
            Some(address) => retry(|| rustix::net::sendto(&*self.fd, data, SEND, &address)),
        };
        sent.map(drop)
    }
}

/// An address as the operating system has it; none for the peer of a connected socket.
fn encoded(place: &Place) -> io::Result<Option<SocketAddrAny>> {
    match place {
        Place::Peer => Ok(None),
        Place::Inet(address) => Ok(Some(SocketAddrAny::from(*address))),
        Place::Other(address) => Ok(Some(unix_address(address)?.into())),
    }
}

fn unix_address(address: &Address) -> io::Result<SocketAddrUnix> {
    match address {
        Address::Path(path) => Ok(SocketAddrUnix::new(&**path)?),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Address::Abstract(name) => Ok(SocketAddrUnix::new_abstract_name(name)?),
        _ => {
            let error = "it has no name that could be sent to";
            Err(io::Error::new(io::ErrorKind::InvalidInput, error))
        }
    }
}

fn address_of(unix: &SocketAddrUnix) -> Address {
    use std::os::unix::ffi::OsStrExt;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = unix.abstract_name() {
        return Address::Abstract(name.to_owned());
    }
    match unix.path() {
        Some(path) if !path.is_empty() => {
            Address::Path(std::ffi::OsStr::from_bytes(path.to_bytes()).into())
        }
        _ => Address::Unnamed,
    }
}
