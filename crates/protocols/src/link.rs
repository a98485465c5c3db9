//! Where a transport's bytes come from and go to.

use std::any::Any;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use tulipa_selector::Source;

use crate::Address;
use crate::state::{Phase, State};

/// Bytes to and from somewhere, without blocking: a socket, a simulated network, a device. With one, a
/// program brings a transport of its own, see [`attach`](crate::attach).
///
/// One whose bytes go one way only says so by its [`direction`](Self::direction), as a pipe does.
///
/// All of these are called by the transport, one at a time, and must not call the transport back: a link
/// has none, nor a loop, nor a waker. Where nothing can be done now the answer is
/// [`WouldBlock`](io::ErrorKind::WouldBlock), and the transport comes back when the [`source`](Self::source)
/// says so; other errors end the connection. [`Interrupted`](io::ErrorKind::Interrupted) is not expected.
pub trait Link {
    /// Which ways the bytes go. It never changes.
    fn direction(&self) -> Direction {
        Direction::Both
    }

    /// What is registered with the selector: readiness of it must follow what [`read`](Self::read) and
    /// [`write`](Self::write) would do, except for what [`has_input`](Self::has_input) tells. A link that has
    /// nothing of that kind gives [`Source::none`], and rings its [bell](Self::set_bell).
    fn source(&self) -> Source;

    /// Gives the link the bell of its transport, before anything else but [`direction`](Self::direction) is called: for links without a source.
    fn set_bell(&mut self, bell: Bell) {
        let _ = bell;
    }

    /// Reads into `buffer`, which is not empty. 0 is the end of the input.
    ///
    /// If the direction is [`Write`](Direction::Write) it is called when the source is readable, to find out whether
    /// the reader is still there: 0 says that it is gone. Nothing is read.
    ///
    /// # Errors
    /// `WouldBlock`, or what ends the connection. If the direction is `Write`, [`Unsupported`](io::ErrorKind::Unsupported)
    /// says that it cannot be told, and it is not asked again.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes the pieces, which are not all empty, in their order, or the first part of them, and returns
    /// how many bytes. Fewer than there are means that no more can be written now.
    ///
    /// # Errors
    /// `WouldBlock`, or what makes writing impossible.
    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Goes on with what has to come before the first byte of the program's, a handshake. The connection
    /// is made when this has returned `Ok`; it is called again whenever the source is ready.
    ///
    /// # Errors
    /// `WouldBlock`, or what ends the connection.
    fn open(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Sends what was written and [`held back`](Self::held_back).
    ///
    /// # Errors
    /// `WouldBlock` if something is left; or what makes writing impossible.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// How many bytes were written and are not yet on their way, encrypted ones for example. While
    /// there are any the transport waits for the source to be writable.
    fn held_back(&self) -> usize {
        0
    }

    /// Whether there is input that the source's readiness does not tell of: decrypted already, say.
    fn has_input(&self) -> bool {
        false
    }

    /// Tells the peer that nothing follows, and goes on reading. Called when all was written.
    ///
    /// # Errors
    /// What makes it impossible.
    fn shutdown(&mut self) -> io::Result<()>;

    /// Says goodbye where the link has a way to, a close alert; what it holds back then is flushed, and
    /// the link dropped. Not called on an abort.
    fn close(&mut self) {}

    /// Makes the coming drop tell the peer that the connection was broken off, where there is a way.
    fn reset(&mut self) {}

    /// Sends so many bytes of a file, or fewer, without bringing them into the program. It changes nothing of the
    /// file, its position included. 0 is the end of the file.
    ///
    /// # Errors
    /// `WouldBlock`; [`Unsupported`](io::ErrorKind::Unsupported) where there is no such way, or not for this
    /// file; what makes writing impossible.
    fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
        let _ = (file, offset, count);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The address of the peer.
    fn peer_addr(&self) -> Option<Address> {
        None
    }

    /// Our address.
    fn local_addr(&self) -> Option<Address> {
        None
    }

    /// The descriptor, to set its options. It is the same one as long as the link lives, and nobody else on the loop
    /// may wait for it meanwhile.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What else is to be known, for [`Transport::get_extra_info`](crate::Transport::get_extra_info).
    fn extra_info(&self, name: &str) -> Option<Rc<dyn Any>> {
        let _ = name;
        None
    }
}

/// How a link without a source says that it is ready again: its transport comes back in the loop's next turn. Ringing
/// calls nobody, so it may be done from anywhere on the loop's thread, also in the middle of another link's work;
/// ringing for nothing costs a turn. It keeps nothing alive, and is silent when the connection is over.
#[derive(Clone, Debug)]
pub struct Bell(Weak<State>);

impl Bell {
    pub(crate) fn of(state: &Rc<State>) -> Bell {
        Bell(Rc::downgrade(state))
    }

    /// Reading would no longer block.
    pub fn ring_readable(&self) {
        self.ring(|state| state.readable.set(true));
    }

    /// Writing would no longer block.
    pub fn ring_writable(&self) {
        self.ring(|state| state.set_blocked(false));
    }

    fn ring(&self, change: impl FnOnce(&State)) {
        let Some(state) = self.0.upgrade() else { return };
        if state.phase() != Phase::Ended {
            change(&state);
            state.read_again();
        }
    }
}

/// Which ways the bytes of a [`Link`] go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both: a socket.
    Both,
    /// Only to the program: the reading end of a pipe. Nothing can be written, and the end of the input is the end
    /// of the connection.
    Read,
    /// Only from the program: the writing end of a pipe. There is no input and no end of it; the end of the
    /// output is the end of the connection, and so is that of its reader.
    Write,
}

/// A stream socket, TCP or Unix, as a [`Link`]: what a [`Filtered`](crate::Filtered) link is made of.
#[derive(Debug)]
pub struct SocketLink {
    fd: Rc<OwnedFd>,
}

impl SocketLink {
    /// One attempt to read. An error is told once: whoever asks again does not hear of it.
    #[inline]
    pub(crate) fn read_once(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        rustix::net::recv(&*self.fd, buffer, RecvFlags::empty()).map(|(count, _)| count)
    }

    /// One attempt to write. An error is told once: whoever asks again does not hear of it.
    #[inline]
    pub(crate) fn write_once(&self, piece: &[u8]) -> rustix::io::Result<usize> {
        rustix::net::send(&*self.fd, piece, SEND)
    }
}

/// How often a call that a signal has interrupted is made again; non-blocking ones hardly ever are.
const MOST_INTERRUPTS: usize = 16;

impl SocketLink {
    /// Takes a stream socket that is connected, whoever connected or accepted it, and makes it non-blocking.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is no stream socket;
    /// [`NotConnected`](io::ErrorKind::NotConnected) if it is not connected. The socket is closed then.
    pub fn adopt(socket: impl Into<OwnedFd>) -> io::Result<SocketLink> {
        Ok(SocketLink::new(crate::socket::adopt(socket.into())?))
    }

    pub(crate) fn new(fd: OwnedFd) -> SocketLink {
        SocketLink { fd: Rc::new(fd) }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes a call again when a signal has interrupted it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    for _ in 0..MOST_INTERRUPTS {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// No signal for a peer that is gone. Platforms without the flag have `SO_NOSIGPIPE`, set when the socket
/// is made.
#[cfg(not(any(target_os = "macos", target_os = "ios")))]
pub(crate) const SEND: SendFlags = SendFlags::NOSIGNAL;
#[cfg(any(target_os = "macos", target_os = "ios"))]
pub(crate) const SEND: SendFlags = SendFlags::empty();

/// The same, whatever the flags of the socket are.
pub(crate) const SEND_NOW: SendFlags = SEND.union(SendFlags::DONTWAIT);

impl Link for SocketLink {
    fn source(&self) -> Source {
        Source::shared(self.fd.clone())
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| self.read_once(&mut *buffer))
    }

    #[inline]
    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match pieces {
            [piece] => retry(|| self.write_once(piece)),
            pieces => retry(|| {
                rustix::net::sendmsg(&*self.fd, pieces, &mut SendAncillaryBuffer::default(), SEND)
            }),
        }
    }

    fn shutdown(&mut self) -> io::Result<()> {
        socket2::SockRef::from(&*self.fd).shutdown(Shutdown::Write)
    }

    fn reset(&mut self) {
        // A platform that refuses closes it the usual way.
        let _ = socket2::SockRef::from(&*self.fd).set_linger(Some(std::time::Duration::ZERO));
    }

    fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
        crate::send_file::native(self.fd.as_fd(), file, offset, count)
    }

    fn peer_addr(&self) -> Option<Address> {
        Address::from_socket(&socket2::SockRef::from(&*self.fd).peer_addr().ok()?)
    }

    fn local_addr(&self) -> Option<Address> {
        Address::from_socket(&socket2::SockRef::from(&*self.fd).local_addr().ok()?)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
}
