//! `sock_sendfile`.

use std::io;
use std::ops::RangeBounds;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{SockRef, Type};
use tulipa_loop::LoopHandle;

use super::{Sock, Wait};
use crate::link::{SEND_NOW, retry};
use crate::send_file::{
    FALLBACK_CHUNK, NATIVE_CHUNK, Part, Progress, Reader, SendFileError, native, pause,
};

/// Sends a part of a file over a stream socket, or all of it with `..`, and returns how many bytes that was: fewer than
/// the range has if the file ends before. Stands for `sock_sendfile`.
///
/// The operating system copies the bytes itself where it can and the socket is non-blocking; else they are read in the
/// loop's executor. All else, the file's position and the limits too, is as with
/// [`Transport::sendfile`](crate::Transport::sendfile).
///
/// # Errors
/// A [`SendFileError`] inside of the [`io::Error`], of the same kind, says how much was sent before it.
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for what is no stream socket, and for a range that ends before it
/// begins; [`AlreadyExists`](io::ErrorKind::AlreadyExists) if a transport of the loop uses the descriptor.
///
/// # Cancel safety
/// Dropping the future leaves the file cut off where it was; its position tells where.
///
/// # Panics
/// Outside of a running loop.
pub async fn sock_sendfile(
    socket: &impl AsFd,
    file: &impl AsFd,
    range: impl RangeBounds<u64>,
) -> io::Result<u64> {
    let part = Part::of(range)?;
    sendfile_on(LoopHandle::current(), socket.as_fd(), file.as_fd(), part).await
}

pub(crate) async fn sendfile_on(
    handle: LoopHandle,
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    part: Part,
) -> io::Result<u64> {
    let mut sock = Sock::new(handle, socket, "send a file")?;
    let kind = SockRef::from(&socket).r#type().map_err(|error| sock.failed(error))?;
    if kind != Type::STREAM {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it needs a stream socket");
        return Err(sock.failed(error));
    }
    let mut progress = Progress::begin(file, part);
    let result = send(&mut sock, &mut progress).await;
    let sent = progress.end();
    result.map_err(|error| SendFileError::with(sent, error))?;
    Ok(sent)
}

async fn send(sock: &mut Sock<'_>, progress: &mut Progress<'_>) -> io::Result<()> {
    let mut calls = 0;
    while sock.is_nonblocking()? {
        let (file, place, count) = (progress.file, progress.place(), progress.next(NATIVE_CHUNK));
        if count == 0 {
            return Ok(());
        }
        // Not by `attempt`: that it is not supported is no error yet.
        match native(sock.fd, file, place, count) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                progress.add(count);
                calls = pause(calls + 1).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sock.wait(Wait::Writable).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => break,
            Err(error) => return Err(sock.failed(error)),
        }
    }
    let mut reader = Reader::new(progress.file)?;
    loop {
        let (place, count) = (progress.place(), progress.next(FALLBACK_CHUNK));
        let mut rest = reader.read(place, count).await?;
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            let call = |fd: BorrowedFd<'_>| retry(|| rustix::net::send(fd, rest, SEND_NOW));
            let count = sock.attempt(Wait::Writable, call).await?;
            progress.add(count);
            rest = &rest[count..];
        }
    }
}
