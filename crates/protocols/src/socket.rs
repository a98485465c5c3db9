//! Making sockets: non-blocking, closed on exec, and no signal for a peer that is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::Address;

/// A stream socket for addresses of one kind.
pub(crate) fn stream_socket(address: &Address) -> io::Result<Socket> {
    socket(address, Type::STREAM, Protocol::TCP)
}

/// A datagram socket for addresses of one kind.
pub(crate) fn datagram_socket(address: &Address) -> io::Result<Socket> {
    socket(address, Type::DGRAM, Protocol::UDP)
}

fn socket(address: &Address, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let (domain, protocol) = match address {
        Address::Inet(address) => (Domain::for_address(*address), Some(protocol)),
        _ => (Domain::UNIX, None),
    };
    // In one call where the platform can.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let socket = Socket::new_raw(domain, kind.nonblocking().cloexec(), protocol)?;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let socket = {
        let socket = Socket::new(domain, kind, protocol)?;
        socket.set_nonblocking(true)?;
        socket
    };
    no_signal(socket.as_fd())?;
    Ok(socket)
}

/// Where a send cannot say that it wants no `SIGPIPE`, the socket does.
fn no_signal(socket: BorrowedFd<'_>) -> io::Result<()> {
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    SockRef::from(&socket).set_nosigpipe(true)?;
    let _ = socket;
    Ok(())
}

/// Accepts one connection.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    {
        use rustix::net::SocketFlags;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(rustix::net::accept_with(listener, flags)?)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let accepted = rustix::net::accept(listener)?;
        rustix::io::fcntl_setfd(&accepted, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&accepted, true)?;
        no_signal(accepted.as_fd())?;
        Ok(accepted)
    }
}

/// Makes a descriptor that came from elsewhere fit: a stream socket that is connected.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is something else.
pub(crate) fn adopt(fd: OwnedFd) -> io::Result<OwnedFd> {
    let socket = check(&fd, Type::STREAM, "a connection")?;
    if let Err(error) = socket.peer_addr() {
        return Err(describe(error, "cannot use a socket as a connection"));
    }
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    no_signal(fd.as_fd())?;
    Ok(fd)
}

/// The same for one that others connect to, which is bound.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is something else.
pub(crate) fn adopt_listener(fd: OwnedFd) -> io::Result<OwnedFd> {
    let socket = check(&fd, Type::STREAM, "a server")?;
    let address = socket.local_addr()?;
    // Nobody could be told where to connect to.
    let anywhere = address.as_socket().is_some_and(|address| address.port() == 0);
    if anywhere || address.is_unnamed() {
        let error = "a server needs a socket that is bound to an address";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    Ok(fd)
}

/// The same for one that sends and receives datagrams, bound and connected or not.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is something else.
pub(crate) fn adopt_datagram(fd: OwnedFd) -> io::Result<OwnedFd> {
    let socket = check(&fd, Type::DGRAM, "a datagram endpoint")?;
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    no_signal(fd.as_fd())?;
    Ok(fd)
}

fn check<'a>(fd: &'a OwnedFd, wanted: Type, purpose: &str) -> io::Result<SockRef<'a>> {
    let socket = SockRef::from(fd);
    let kind = if wanted == Type::STREAM { "stream" } else { "datagram" };
    let error = match socket.r#type() {
        Ok(found) if found == wanted => return Ok(socket),
        Ok(other) => format!("{purpose} needs a {kind} socket, not one of the type {other:?}"),
        Err(error) => format!("{purpose} needs a socket: {error}"),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// An error of the same kind that says what was tried.
pub(crate) fn describe(error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Whether the system is out of what every connection needs, so that trying again at once is of no use.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    errno.is_some_and(|errno| exhausted.contains(&errno))
}

/// Whether an accept failed because of the one connection that it was about to return.
pub(crate) fn is_about_one_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    let about_one = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PROTO,
        Errno::PERM,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::TIMEDOUT,
    ];
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if errno == Some(Errno::NONET) {
        return true;
    }
    // Networks that are not the operating system's have no numbers for their errors.
    let aborted = error.kind() == std::io::ErrorKind::ConnectionAborted;
    aborted || errno.is_some_and(|errno| about_one.contains(&errno))
}
