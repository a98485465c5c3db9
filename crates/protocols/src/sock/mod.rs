//! asyncio's `sock_*`: operations on sockets that no transport has.
//!
//! Each tries its system call first and waits only if that would block. What it waits with is a duplicate of the
//! descriptor in an [`AsyncFd`], which lives for the one operation: the duplicate has a number of its own, so any
//! number of operations can wait for one socket, and whatever becomes of the socket's own number meanwhile cannot
//! confuse them. It is deregistered and closed when the operation ends or its future is dropped, at once.

mod fds;
mod file;
mod peer;

pub use fds::{MOST_FDS, sock_recv_fds, sock_send_fds};
pub use file::sock_sendfile;
pub use peer::SockPeer;

pub(crate) use fds::{recv_fds_on, send_fds_on};
pub(crate) use file::sendfile_on;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::net::RecvFlags;
use socket2::SockRef;
use tulipa_loop::{AsyncFd, LoopHandle, yield_now};

use crate::Address;
use crate::link::{SEND_NOW, retry};
use crate::send_file::pause;
use crate::socket::describe;

/// After so many operations in a row that had nothing to wait for, one waits for a turn of the loop, so that a task whose
/// peer is as fast as itself lets others run.
const MOST_READY: u32 = 64;

#[derive(Default)]
struct Ready(Cell<u32>);

/// Which way an operation waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Readable,
    Writable,
}

/// A socket that an operation works on.
pub(crate) struct Sock<'a> {
    handle: LoopHandle,
    fd: BorrowedFd<'a>,
    what: &'static str,
    watched: Option<AsyncFd<OwnedFd>>,
}

impl<'a> Sock<'a> {
    /// A socket for an operation of this name; one that a transport has is refused.
    pub(crate) fn new(
        handle: LoopHandle,
        fd: BorrowedFd<'a>,
        what: &'static str,
    ) -> io::Result<Sock<'a>> {
        let sock = Sock { handle, fd, what, watched: None };
        sock.handle.wires().check_unclaimed(fd.as_raw_fd()).map_err(|error| sock.failed(error))?;
        Ok(sock)
    }

    /// Says what was tried.
    pub(crate) fn failed(&self, error: impl Into<io::Error>) -> io::Error {
        describe(error.into(), &format!("cannot {}", self.what))
    }

    /// Whether its calls do not block, for those calls that cannot say so themselves.
    pub(crate) fn is_nonblocking(&self) -> io::Result<bool> {
        let flags = rustix::fs::fcntl_getfl(self.fd).map_err(|error| self.failed(error))?;
        Ok(flags.contains(OFlags::NONBLOCK))
    }

    fn require_nonblocking(&self) -> io::Result<()> {
        if self.is_nonblocking()? {
            return Ok(());
        }
        let error =
            io::Error::new(io::ErrorKind::InvalidInput, "the socket has to be non-blocking");
        Err(self.failed(error))
    }

    pub(crate) async fn wait(&mut self, wait: Wait) -> io::Result<()> {
        let watched = match self.watched.take() {
            Some(watched) => watched,
            None => {
                let copied = self.fd.try_clone_to_owned().map_err(|error| self.failed(error))?;
                AsyncFd::new(&self.handle, copied).map_err(|error| self.failed(error))?
            }
        };
        let watched = self.watched.insert(watched);
        self.handle.local(|_| Ready::default()).0.set(0);
        match wait {
            Wait::Readable => watched.readable().await,
            Wait::Writable => watched.writable().await,
        }
    }

    /// Tries a call, and waits and tries again for as long as it would block.
    pub(crate) async fn attempt<R>(
        &mut self,
        wait: Wait,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        // Before the call, so that nothing is lost when the future is dropped here.
        let ready = self.handle.local(|_| Ready::default());
        ready.0.set(ready.0.get() + 1);
        if ready.0.get() >= MOST_READY {
            ready.0.set(0);
            yield_now().await;
        }
        loop {
            match call(self.fd) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(wait).await?,
                result => return result.map_err(|error| self.failed(error)),
            }
        }
    }
}

const RECV_NOW: RecvFlags = RecvFlags::DONTWAIT;

/// Receives up to `count` bytes; none at the end. Stands for `sock_recv`.
///
/// Here and in its kin the socket may be blocking or not: the calls say that they are not to wait.
///
/// # Errors
/// What the operating system says; [`AlreadyExists`](io::ErrorKind::AlreadyExists) if a transport of the loop uses
/// the descriptor.
///
/// # Cancel safety
/// Nothing is received before this returns it. The wait ends when the future is dropped.
///
/// # Panics
/// Outside of a running loop.
pub async fn sock_recv(socket: &impl AsFd, count: usize) -> io::Result<Vec<u8>> {
    recv_on(LoopHandle::current(), socket.as_fd(), count).await
}

pub(crate) async fn recv_on(
    handle: LoopHandle,
    fd: BorrowedFd<'_>,
    count: usize,
) -> io::Result<Vec<u8>> {
    let mut sock = Sock::new(handle, fd, "receive from a socket")?;
    // Whoever waits has no buffer.
    let received = sock.attempt(Wait::Readable, |fd| {
        let mut buffer = vec![0; count];
        let (count, _) = retry(|| rustix::net::recv(fd, &mut buffer[..], RECV_NOW))?;
        buffer.truncate(count);
        Ok(buffer)
    });
    received.await
}

/// Receives into `buffer`, and returns how many bytes; 0 at the end. Stands for `sock_recv_into`.
///
/// # Errors
/// As [`sock_recv`].
///
/// # Cancel safety
/// As [`sock_recv`].
///
/// # Panics
/// As [`sock_recv`].
pub async fn sock_recv_into(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    recv_into_on(LoopHandle::current(), socket.as_fd(), buffer).await
}

pub(crate) async fn recv_into_on(
    handle: LoopHandle,
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut sock = Sock::new(handle, fd, "receive from a socket")?;
    let received = sock.attempt(Wait::Readable, |fd| {
        retry(|| rustix::net::recv(fd, &mut *buffer, RECV_NOW)).map(|(count, _)| count)
    });
    received.await
}

/// Receives up to `count` bytes, of a datagram socket one datagram, and says who sent them, if the socket tells. What a
/// datagram has beyond that is lost. Stands for `sock_recvfrom`.
///
/// # Errors
/// As [`sock_recv`].
///
/// # Cancel safety
/// As [`sock_recv`].
///
/// # Panics
/// As [`sock_recv`].
pub async fn sock_recvfrom(
    socket: &impl AsFd,
    count: usize,
) -> io::Result<(Vec<u8>, Option<Address>)> {
    recvfrom_on(LoopHandle::current(), socket.as_fd(), count).await
}

pub(crate) async fn recvfrom_on(
    handle: LoopHandle,
    fd: BorrowedFd<'_>,
    count: usize,
) -> io::Result<(Vec<u8>, Option<Address>)> {
    let mut sock = Sock::new(handle, fd, "receive from a socket")?;
    let received = sock.attempt(Wait::Readable, |fd| {
        let mut buffer = vec![0; count];
        let (count, from) = recvfrom(fd, &mut buffer)?;
        buffer.truncate(count);
        Ok((buffer, from))
    });
    received.await
}

/// Receives into `buffer`, and says how many bytes and who sent them; all else is as with [`sock_recvfrom`]. Stands
/// for `sock_recvfrom_into`.
///
/// # Errors
/// As [`sock_recv`].
///
/// # Cancel safety
/// As [`sock_recv`].
///
/// # Panics
/// As [`sock_recv`].
pub async fn sock_recvfrom_into(
    socket: &impl AsFd,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<Address>)> {
    recvfrom_into_on(LoopHandle::current(), socket.as_fd(), buffer).await
}

pub(crate) async fn recvfrom_into_on(
    handle: LoopHandle,
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<Address>)> {
    let mut sock = Sock::new(handle, fd, "receive from a socket")?;
    sock.attempt(Wait::Readable, |fd| recvfrom(fd, buffer)).await
}

fn recvfrom(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<Address>)> {
    let (count, _, from) = retry(|| rustix::net::recvfrom(fd, &mut *buffer, RECV_NOW))?;
    Ok((count, from.and_then(|from| peer::address(&from))))
}

/// Sends all of `data`. None is none. Stands for `sock_sendall`.
///
/// # Errors
/// A [`SendAllError`] inside of the [`io::Error`], of the same kind, says how much was sent before it. Others as
/// [`sock_recv`].
///
/// # Cancel safety
/// Some may have been sent, how much cannot be told. Not safe to begin again.
///
/// # Panics
/// As [`sock_recv`].
pub async fn sock_sendall(socket: &impl AsFd, data: &[u8]) -> io::Result<()> {
    sendall_on(LoopHandle::current(), socket.as_fd(), data).await
}

pub(crate) async fn sendall_on(
    handle: LoopHandle,
    fd: BorrowedFd<'_>,
    data: &[u8],
) -> io::Result<()> {
    let mut sock = Sock::new(handle, fd, "send to a socket")?;
    send_rest(&mut sock, data, 0).await
}

/// Sends what is left of `data`, of which so many bytes were sent.
pub(crate) async fn send_rest(sock: &mut Sock<'_>, data: &[u8], from: usize) -> io::Result<()> {
    let (mut sent, mut calls) = (from, 0);
    while sent < data.len() {
        let rest = &data[sent..];
        let call = |fd: BorrowedFd<'_>| retry(|| rustix::net::send(fd, rest, SEND_NOW));
        match sock.attempt(Wait::Writable, call).await {
            Ok(count) => sent += count,
            Err(error) => {
                let kind = error.kind();
                return Err(io::Error::new(kind, SendAllError { sent, error }));
            }
        }
        if sent < data.len() {
            calls = pause(calls + 1).await;
        }
    }
    Ok(())
}

/// Why not all was sent. It is inside of the [`io::Error`] that [`sock_sendall`] returns.
#[derive(Debug)]
#[non_exhaustive]
pub struct SendAllError {
    /// How many bytes were sent before.
    pub sent: usize,
    /// Why no more were.
    pub error: io::Error,
}

impl fmt::Display for SendAllError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, after {} bytes", self.error, self.sent)
    }
}

impl std::error::Error for SendAllError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Sends a datagram to an address, and returns how many bytes of it, which is all. Stands for `sock_sendto`.
///
/// # Errors
/// As [`sock_recv`]; [`InvalidInput`](io::ErrorKind::InvalidInput) for an address that no socket can have.
///
/// # Cancel safety
/// Nothing is sent before this returns it.
///
/// # Panics
/// As [`sock_recv`].
pub async fn sock_sendto(socket: &impl AsFd, data: &[u8], address: &Address) -> io::Result<usize> {
    sendto_on(LoopHandle::current(), socket.as_fd(), data, address).await
}

pub(crate) async fn sendto_on(
    handle: LoopHandle,
    fd: BorrowedFd<'_>,
    data: &[u8],
    address: &Address,
) -> io::Result<usize> {
    let mut sock = Sock::new(handle, fd, "send to a socket")?;
    let to = address.to_socket().map_err(|error| sock.failed(error))?;
    let flags = i32::try_from(SEND_NOW.bits()).expect("a few bits");
    let sent = sock.attempt(Wait::Writable, |fd| {
        let socket = SockRef::from(&fd);
        retry_io(|| socket.send_to_with_flags(data, &to, flags))
    });
    sent.await.map_err(|error| describe(error, &format!("to {address}")))
}

/// As [`retry`], for calls of the sort of the standard library's.
fn retry_io<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut failed = None;
    let result = retry(|| {
        call().map_err(|error| {
            let errno = rustix::io::Errno::from_io_error(&error);
            failed = Some(error);
            errno.unwrap_or(rustix::io::Errno::IO)
        })
    });
    result.map_err(|error| match failed {
        Some(failed) if error.kind() != io::ErrorKind::WouldBlock => failed,
        _ => error,
    })
}

/// Connects a socket: to a host, of whose addresses the first of the socket's family counts, to an address, or to a
/// Unix socket. Stands for `sock_connect`. [`Connect`](crate::Connect) tries all addresses, and makes the socket.
///
/// # Errors
/// What the operating system says, with the address in the message; what the resolver says;
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if the socket is blocking; as [`sock_recv`].
///
/// # Cancel safety
/// The attempt goes on without anybody waiting for it; close the socket.
///
/// # Panics
/// As [`sock_recv`].
pub async fn sock_connect(socket: &impl AsFd, peer: impl Into<SockPeer>) -> io::Result<()> {
    connect_on(LoopHandle::current(), socket.as_fd(), peer.into()).await
}

pub(crate) async fn connect_on(
    handle: LoopHandle,
    fd: BorrowedFd<'_>,
    peer: SockPeer,
) -> io::Result<()> {
    let sock = Sock::new(handle, fd, "connect a socket")?;
    sock.require_nonblocking()?;
    let socket = SockRef::from(&fd);
    let address = peer.resolve(&sock.handle, &socket).await.map_err(|error| sock.failed(error))?;
    let name = address.to_socket().map_err(|error| sock.failed(error))?;
    let connected = crate::connect::connect(&sock.handle, &socket, &name).await;
    connected.map_err(|error| describe(error, &format!("cannot connect a socket to {address}")))
}

/// Accepts a connection, and says from where: a socket that is non-blocking and closed on exec. Stands for
/// `sock_accept`. Servers are made with [`Listen`](crate::Listen).
///
/// # Errors
/// What the operating system says; [`InvalidInput`](io::ErrorKind::InvalidInput) if the socket is blocking; as
/// [`sock_recv`].
///
/// # Cancel safety
/// No connection is accepted before this returns it.
///
/// # Panics
/// As [`sock_recv`].
pub async fn sock_accept(socket: &impl AsFd) -> io::Result<(OwnedFd, Address)> {
    accept_on(LoopHandle::current(), socket.as_fd()).await
}

pub(crate) async fn accept_on(
    handle: LoopHandle,
    fd: BorrowedFd<'_>,
) -> io::Result<(OwnedFd, Address)> {
    let mut sock = Sock::new(handle, fd, "accept from a socket")?;
    sock.require_nonblocking()?;
    let accepted = sock.attempt(Wait::Readable, |fd| match crate::socket::accept(fd) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        accepted => accepted,
    });
    let accepted = accepted.await?;
    // One that is gone again has no address any more; reading it says so.
    let peer = SockRef::from(&accepted).peer_addr().ok();
    let peer = peer.and_then(|peer| Address::from_socket(&peer)).unwrap_or(Address::Unnamed);
    Ok((accepted, peer))
}
