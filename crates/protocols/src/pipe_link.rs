//! Pipes: descriptors that are read from, or written to, and not both. FIFOs, sockets, terminals, other character
//! devices; standard input, output and error also where they are files.
//!
//! The problem is whose the flags are. `O_NONBLOCK` belongs to the open file and not to the descriptor, and the open file
//! is shared: with the shell and every other program on the terminal, with whoever is at the other descriptors of a
//! duplicated one. A program that sets it breaks the others, and one that is killed never sets it back.
//!
//! What is done, in this order:
//!
//! | what it is | how it does not block |
//! |---|---|
//! | a socket | each call says so (`MSG_DONTWAIT`); no flag is touched |
//! | a file | it never blocks in that sense; no flag is touched |
//! | the file behind descriptor 0, 1 or 2, a pipe or a terminal, on Linux | it is opened once more through `/proc/self/fd`: an open file of our own, with flags of our own |
//! | the same where that is not allowed | carefully: each call asks `poll` first, and writes no more than there is room for |
//! | anything else | the flag is set, and set back before the descriptor is closed |
//!
//! A descriptor is taken to be behind 0, 1 or 2 if it is of the same file. That it is another open file of it does no
//! harm: it is opened once more for nothing.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer};
use tulipa_loop::LoopHandle;
use tulipa_selector::Source;

use crate::connect::made;
use crate::connection::start;
use crate::link::{SEND_NOW, retry};
use crate::state::Slot;
use crate::{Connection, Direction, Link, Protocol};

/// One end of a pipe, as a [`Link`] of one direction: a FIFO, a stream socket, a terminal or another character device.
///
/// Behind [`connect_read_pipe`] and [`connect_write_pipe`]; with [`attach`](crate::attach) and the streams' `open_link` it
/// is used where those do not fit.
///
/// No signal comes of writing where nobody reads, as Rust programs ignore `SIGPIPE` from their start.
#[derive(Debug)]
pub struct PipeLink {
    fd: Rc<OwnedFd>,
    direction: Direction,
    kind: Kind,
    blocking: Blocking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fifo,
    Socket,
    Device,
    File,
}

/// Why a call does not block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocking {
    /// Its open file does not, or each call says so.
    Never,
    /// The flag was set, and is to be set back.
    Restore,
    /// Each call asks first.
    Careful,
}

/// What is written at once where it might block: POSIX's smallest `PIPE_BUF`. A pipe that has room at all takes as much.
const CAREFUL_PIECE: usize = 512;

/// How many such pieces one call writes.
const MOST_CAREFUL: usize = 64;

/// No longer than a look.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

impl PipeLink {
    /// The end that is read from. The descriptor is taken over, and closed with the link; what belongs to other owners of
    /// the open file, its flags, is as before then.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for what is no FIFO, stream socket or character device, or not
    /// open for reading. The descriptor is closed then.
    pub fn reader(fd: impl Into<OwnedFd>) -> io::Result<PipeLink> {
        PipeLink::new(fd.into(), Direction::Read, false)
    }

    /// The end that is written to; all else is as with [`reader`](Self::reader).
    ///
    /// # Errors
    /// As there.
    pub fn writer(fd: impl Into<OwnedFd>) -> io::Result<PipeLink> {
        PipeLink::new(fd.into(), Direction::Write, false)
    }

    /// Standard input, whatever it is: also a file (`program < file`). Descriptor 0 and its flags stay as they are. It
    /// bypasses the buffer of [`std::io::stdin`]; use one of the two.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is nothing that can be read, a directory for example; what
    /// the operating system says if it is closed.
    pub fn stdin() -> io::Result<PipeLink> {
        PipeLink::standard(io::stdin().as_fd(), Direction::Read, "standard input")
    }

    /// Standard output, whatever it is: also a file. Descriptor 1 and its flags stay as they are. It bypasses the
    /// buffer of [`std::io::stdout`]: flush that before, and use one of the two.
    ///
    /// # Errors
    /// As [`stdin`](Self::stdin).
    pub fn stdout() -> io::Result<PipeLink> {
        PipeLink::standard(io::stdout().as_fd(), Direction::Write, "standard output")
    }

    /// Standard error; all else is as with [`stdout`](Self::stdout).
    ///
    /// # Errors
    /// As [`stdin`](Self::stdin).
    pub fn stderr() -> io::Result<PipeLink> {
        PipeLink::standard(io::stderr().as_fd(), Direction::Write, "standard error")
    }

    fn standard(fd: BorrowedFd<'_>, direction: Direction, name: &str) -> io::Result<PipeLink> {
        let copied = fd.try_clone_to_owned();
        let link = copied.and_then(|fd| PipeLink::new(fd, direction, true));
        link.map_err(|error| crate::socket::describe(error, &format!("cannot use {name}")))
    }

    fn new(fd: OwnedFd, direction: Direction, files: bool) -> io::Result<PipeLink> {
        let kind = kind_of(&fd, files)?;
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        let (useless, what) = match direction {
            Direction::Write => (OFlags::RDONLY, "writing"),
            _ => (OFlags::WRONLY, "reading"),
        };
        if flags & OFlags::RWMODE == useless {
            let error = format!("a pipe that is not open for {what}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let (fd, blocking) = match kind {
            Kind::Socket | Kind::File => (fd, Blocking::Never),
            Kind::Fifo | Kind::Device if is_standard(&fd) => match reopen(&fd, direction, kind) {
                Some(own) => (own, Blocking::Never),
                None => (fd, Blocking::Careful),
            },
            _ if flags.contains(OFlags::NONBLOCK) => (fd, Blocking::Never),
            _ => {
                rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
                (fd, Blocking::Restore)
            }
        };
        Ok(PipeLink { fd: Rc::new(fd), direction, kind, blocking })
    }

    /// Whether a call would not block, if that has to be asked.
    fn is_ready(&self, what: PollFlags) -> bool {
        self.blocking != Blocking::Careful || looks(&self.fd, what) != PollFlags::empty()
    }

    /// Whether the reader at the other end is gone: 0 if so.
    fn look_for_reader(&self) -> io::Result<usize> {
        let looked = looks(&self.fd, PollFlags::IN);
        match self.kind {
            // A terminal that hangs up may come back.
            Kind::Device | Kind::File => Err(io::ErrorKind::Unsupported.into()),
            _ if looked.intersects(PollFlags::ERR | PollFlags::HUP) => Ok(0),
            // Input is somebody else's: of whoever has the same socket to read from, or of ourselves if a FIFO is
            // open for both. Nobody tells of anything else until it is read.
            _ if looked.contains(PollFlags::IN) => Err(io::ErrorKind::Unsupported.into()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = RecvFlags::DONTWAIT;
        retry(|| rustix::net::recv(&*self.fd, &mut *buffer, flags)).map(|(count, _)| count)
    }

    fn write_carefully(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        let parts = pieces.iter().flat_map(|piece| piece.chunks(CAREFUL_PIECE));
        for part in parts.take(MOST_CAREFUL) {
            if !self.is_ready(PollFlags::OUT) {
                break;
            }
            match retry(|| rustix::io::write(&*self.fd, part)) {
                Ok(count) if count == part.len() => written += count,
                Ok(count) => {
                    written += count;
                    break;
                }
                Err(error) if written == 0 => return Err(error),
                // It says so again.
                Err(_) => break,
            }
        }
        if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }
}

/// What `poll` says now; errors and hang-ups it says unasked.
fn looks(fd: &OwnedFd, what: PollFlags) -> PollFlags {
    let mut looked = [PollFd::new(fd, what)];
    match rustix::event::poll(&mut looked, Some(&AT_ONCE)) {
        Ok(_) => looked[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

fn kind_of(fd: &OwnedFd, files: bool) -> io::Result<Kind> {
    let file_type = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    let found = match file_type {
        FileType::Fifo => return Ok(Kind::Fifo),
        FileType::CharacterDevice => return Ok(Kind::Device),
        FileType::RegularFile if files => return Ok(Kind::File),
        FileType::Socket => match socket2::SockRef::from(fd).r#type()? {
            socket2::Type::STREAM => return Ok(Kind::Socket),
            other => format!("a socket of the type {other:?}"),
        },
        FileType::RegularFile => "a file".to_owned(),
        FileType::Directory => "a directory".to_owned(),
        FileType::BlockDevice => "a block device".to_owned(),
        _ => "something else".to_owned(),
    };
    let error =
        format!("a pipe has to be a FIFO, a stream socket or a character device, not {found}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Whether it is the file behind descriptor 0, 1 or 2.
fn is_standard(fd: &OwnedFd) -> bool {
    let Ok(ours) = rustix::fs::fstat(fd) else { return false };
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().any(|standard| {
        let other = rustix::fs::fstat(standard);
        other.is_ok_and(|other| (other.st_dev, other.st_ino) == (ours.st_dev, ours.st_ino))
    })
}

/// An open file of our own behind the same pipe or terminal, which does not block.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn reopen(fd: &OwnedFd, direction: Direction, kind: Kind) -> Option<OwnedFd> {
    // Another device may mean something by being opened. The multiplexer of terminals does: it makes a new one.
    if kind == Kind::Device && (!rustix::termios::isatty(fd) || is_multiplexer(fd)) {
        return None;
    }
    let way = if direction == Direction::Write { OFlags::WRONLY } else { OFlags::RDONLY };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = way | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let own = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).ok()?;
    // A FIFO that was opened when its last writer had gone does not tell of that. Reading the other one does not block.
    let ended = kind == Kind::Fifo && looks(fd, PollFlags::IN).contains(PollFlags::HUP);
    (!ended).then_some(own)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_multiplexer(fd: &OwnedFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(fd) else { return true };
    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (5, 2)
}

/// Elsewhere there is no way to another open file.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn reopen(fd: &OwnedFd, direction: Direction, kind: Kind) -> Option<OwnedFd> {
    let _ = (fd.as_raw_fd(), direction, kind);
    None
}

impl Link for PipeLink {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn source(&self) -> Source {
        Source::shared(self.fd.clone())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.direction == Direction::Write {
            return self.look_for_reader();
        }
        if self.kind == Kind::Socket {
            return self.receive(buffer);
        }
        if !self.is_ready(PollFlags::IN) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match retry(|| rustix::io::read(&*self.fd, &mut *buffer)) {
            // So a pseudo-terminal says that nobody has the other end open any more.
            Err(error) if self.kind == Kind::Device && is(&error, Errno::IO) => Ok(0),
            read => read,
        }
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self.kind, pieces) {
            (Kind::Socket, [piece]) => retry(|| rustix::net::send(&*self.fd, piece, SEND_NOW)),
            (Kind::Socket, pieces) => retry(|| {
                let mut nothing = SendAncillaryBuffer::default();
                rustix::net::sendmsg(&*self.fd, pieces, &mut nothing, SEND_NOW)
            }),
            _ if self.blocking == Blocking::Careful => self.write_carefully(pieces),
            (_, [piece]) => retry(|| rustix::io::write(&*self.fd, piece)),
            (_, pieces) => retry(|| rustix::io::writev(&*self.fd, pieces)),
        }
    }

    fn shutdown(&mut self) -> io::Result<()> {
        // The link is dropped next, and that is the end.
        Ok(())
    }

    fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
        // The call has no flag by which it would not block.
        let blocks = matches!(self.kind, Kind::Socket | Kind::File);
        if blocks || self.blocking == Blocking::Careful {
            return Err(io::ErrorKind::Unsupported.into());
        }
        crate::send_file::native(self.fd.as_fd(), file, offset, count)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}

impl Drop for PipeLink {
    fn drop(&mut self) {
        if self.blocking != Blocking::Restore {
            return;
        }
        if let Ok(flags) = rustix::fs::fcntl_getfl(&self.fd) {
            // It cannot fail where it was set.
            let _ = rustix::fs::fcntl_setfl(&self.fd, flags - OFlags::NONBLOCK);
        }
    }
}

/// Reads from a pipe on the current loop: gives the reading end of a FIFO, a stream socket, a terminal or another character
/// device to a new protocol, whose `connection_made` has run when this returns. Stands for `connect_read_pipe`.
///
/// The transport writes nothing: [`write`](crate::Transport::write) says [`Flow::Closed`](crate::Flow::Closed). The
/// end of the input, as which the far end of a pseudo-terminal that was closed counts too, is told by
/// [`eof_received`](Protocol::eof_received) and ends the connection, whatever that returns.
///
/// The descriptor is owned, made non-blocking where it is not, and what other owners of the open file see of that is
/// as before when it is closed: see [`PipeLink`].
///
/// # Errors
/// As [`PipeLink::reader`]; [`NotConnected`](io::ErrorKind::NotConnected) if the loop is closed. The descriptor is
/// closed then, and `factory` is not called.
///
/// # Cancel safety
/// Dropping the future closes the descriptor.
///
/// # Panics
/// Outside of a running loop.
pub async fn connect_read_pipe<P: Protocol + 'static>(
    pipe: impl Into<OwnedFd>,
    factory: impl FnOnce() -> P,
) -> io::Result<Connection<P>> {
    connect_on(LoopHandle::current(), PipeLink::reader(pipe), factory).await
}

/// Writes to a pipe on the current loop; all else is as with [`connect_read_pipe`]. Stands for `connect_write_pipe`.
///
/// The transport reads nothing: [`try_read`](crate::Transport::try_read) gives 0 at once, and `eof_received` is not
/// called. [`write_eof`](crate::Transport::write_eof) closes it when all is written. That the reader is
/// gone ends the connection, without anything being written: with an error of the kind
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if bytes are left that nobody is going to read, else with none. Where that
/// cannot be told it is noticed when something is written: with terminals and other devices, and with sockets from
/// which there is something to read, which is left to whoever reads it.
///
/// # Errors
/// As there, and [`PipeLink::writer`].
///
/// # Cancel safety
/// Dropping the future closes the descriptor.
///
/// # Panics
/// Outside of a running loop.
pub async fn connect_write_pipe<P: Protocol + 'static>(
    pipe: impl Into<OwnedFd>,
    factory: impl FnOnce() -> P,
) -> io::Result<Connection<P>> {
    connect_on(LoopHandle::current(), PipeLink::writer(pipe), factory).await
}

pub(crate) async fn connect_on<P: Protocol + 'static>(
    handle: LoopHandle,
    link: io::Result<PipeLink>,
    factory: impl FnOnce() -> P,
) -> io::Result<Connection<P>> {
    let link = link?;
    made(start(&handle, Slot::Any(Box::new(link)), factory(), None)?).await
}
