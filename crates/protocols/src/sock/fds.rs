//! Descriptors that are passed to another process.
//!
//! What is received is a copy in this process, which somebody has to own from the moment it is there: all that come
//! are owned before anything is decided, and closed if they are not wanted. Space for an odd number of them has
//! room for one more, and the kernel uses it, so it is the count that decides and not only the flag.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage,
};
use tulipa_loop::LoopHandle;

use super::{Sock, Wait, send_rest};
use crate::link::{SEND_NOW, retry};

/// How many descriptors one message may have: Linux's limit. Others allow as many or more.
pub const MOST_FDS: usize = 253;

const SPACE: usize = rustix::cmsg_space!(ScmRights(MOST_FDS));

/// Sends all of `data` over a Unix socket, and copies of descriptors along with its first byte. The standard library's
/// way in Python is `socket.send_fds`.
///
/// ```no_run
/// # async fn example(socket: std::os::unix::net::UnixStream, file: std::fs::File) -> std::io::Result<()> {
/// use std::os::fd::AsFd;
/// tulipa_protocols::sock_send_fds(&socket, b"a file", &[file.as_fd()]).await
/// # }
/// ```
///
/// The descriptors can be closed afterwards. Who receives is to ask for as many, with
/// [`sock_recv_fds`].
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if there are more than [`MOST_FDS`], or no data to go with, or it is
/// no Unix socket: others would take the data and drop the descriptors. As
/// [`sock_sendall`](crate::sock_sendall).
///
/// # Cancel safety
/// As `sock_sendall`; if anything was sent, the descriptors were.
///
/// # Panics
/// Outside of a running loop.
pub async fn sock_send_fds(
    socket: &impl AsFd,
    data: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_fds_on(LoopHandle::current(), socket.as_fd(), data, fds).await
}

pub(crate) async fn send_fds_on(
    handle: LoopHandle,
    socket: BorrowedFd<'_>,
    data: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut sock = Sock::new(handle, socket, "send descriptors")?;
    check(&sock, socket)?;
    if fds.len() > MOST_FDS || data.is_empty() {
        let error = format!("{} of them with {} bytes", fds.len(), data.len());
        return Err(sock.failed(io::Error::new(io::ErrorKind::InvalidInput, error)));
    }
    let sent = sock.attempt(Wait::Writable, |socket| {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut message = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let fits = message.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits, "there is space for the most");
        }
        retry(|| rustix::net::sendmsg(socket, &[IoSlice::new(data)], &mut message, SEND_NOW))
    });
    let sent = sent.await?;
    send_rest(&mut sock, data, sent).await
}

/// Receives from a Unix socket into `buffer`, and at most `most` descriptors that were sent along: how many bytes, and
/// which descriptors. They are closed on exec. In Python it is `socket.recv_fds`.
///
/// What a peer sends is bounded by what is asked for: a message with more descriptors is an error, and all of them are
/// closed.
///
/// # Errors
/// [`InvalidData`](io::ErrorKind::InvalidData) if more descriptors came than `most`, or than this process may have
/// open; the bytes they came with are lost with them. [`InvalidInput`](io::ErrorKind::InvalidInput) if `most` is more than
/// [`MOST_FDS`], `buffer` is empty, or it is no Unix socket. As [`sock_recv`](crate::sock_recv).
///
/// # Cancel safety
/// Nothing is received before this returns it.
///
/// # Panics
/// Outside of a running loop.
pub async fn sock_recv_fds(
    socket: &impl AsFd,
    buffer: &mut [u8],
    most: usize,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    recv_fds_on(LoopHandle::current(), socket.as_fd(), buffer, most).await
}

pub(crate) async fn recv_fds_on(
    handle: LoopHandle,
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    most: usize,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut sock = Sock::new(handle, socket, "receive descriptors")?;
    check(&sock, socket)?;
    if most > MOST_FDS || buffer.is_empty() {
        let error = format!("{most} of them with up to {} bytes", buffer.len());
        return Err(sock.failed(io::Error::new(io::ErrorKind::InvalidInput, error)));
    }
    sock.attempt(Wait::Readable, |socket| receive(socket, buffer, most)).await
}

fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    most: usize,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let space = &mut space[..rustix::cmsg_space!(ScmRights(most))];
    let mut control = RecvAncillaryBuffer::new(space);
    #[cfg(not(any(target_os = "macos", target_os = "ios")))]
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    let flags = RecvFlags::DONTWAIT;
    let received = retry(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    for fd in &fds {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > most {
        let error = format!(
            "more came than {most}, or than this process may have, with {} bytes; all were closed",
            received.bytes
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok((received.bytes, fds))
}

fn check(sock: &Sock<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    let address = socket2::SockRef::from(&socket).local_addr();
    if address.map_err(|error| sock.failed(error))?.is_unix() {
        return Ok(());
    }
    let error = io::Error::new(io::ErrorKind::InvalidInput, "only Unix sockets take them");
    Err(sock.failed(error))
}
