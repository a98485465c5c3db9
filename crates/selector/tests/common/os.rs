//! The real selectors under test, and sources of the operating system to test them with.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tulipa_selector::{DefaultSelector, EpollSelector, PollingSelector};

use super::{Kind, SelectorKind, World};

/// Whether `polling` uses epoll in this build.
pub const POLLING_IS_EPOLL: bool = cfg!(not(polling_test_poll_backend));

pub struct Epoll;
pub struct Polling;
pub struct PollingOneshot;
pub struct Default;

impl Kind for Epoll {
    const NAME: &'static str = "epoll";
    const EPOLL: bool = true;
}

impl SelectorKind for Epoll {
    fn world() -> World {
        World::new(EpollSelector::new().expect("epoll works"))
    }
}

impl Kind for Polling {
    const NAME: &'static str = "polling";
    const EPOLL: bool = POLLING_IS_EPOLL;
}

impl SelectorKind for Polling {
    const BOUNDED: bool = POLLING_IS_EPOLL;

    fn world() -> World {
        World::new(PollingSelector::new().expect("polling works"))
    }
}

impl Kind for PollingOneshot {
    const NAME: &'static str = "polling_oneshot";
    const EPOLL: bool = POLLING_IS_EPOLL;
}

impl SelectorKind for PollingOneshot {
    const BOUNDED: bool = POLLING_IS_EPOLL;

    fn world() -> World {
        World::new(PollingSelector::oneshot().expect("polling works"))
    }
}

impl Kind for Default {
    const NAME: &'static str = "default";
    const EPOLL: bool = true;
}

impl SelectorKind for Default {
    fn world() -> World {
        World::new(DefaultSelector::new().expect("one of the two works"))
    }
}

/// A connection over the loopback device.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("a peer");
    let (server, _) = listener.accept().expect("a connection");
    for stream in [&client, &server] {
        stream.set_nonblocking(true).expect("non-blocking");
        stream.set_nodelay(true).expect("no delay");
    }
    (client, server)
}

/// A pair of connected Unix sockets, of which the first is to be registered.
pub fn unix_pair() -> (Rc<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    for stream in [&ours, &theirs] {
        stream.set_nonblocking(true).expect("a non-blocking socket");
    }
    (Rc::new(ours), theirs)
}

/// Ends a connection with a reset.
pub fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).expect("SO_LINGER");
}

/// An `eventfd`, always writable, and readable when `count` is not zero.
pub fn eventfd(count: u32) -> OwnedFd {
    use rustix::event::EventfdFlags;
    rustix::event::eventfd(count, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("eventfd")
}

/// The two ends of a pipe, both non-blocking: (reader, writer).
pub fn pipe() -> (OwnedFd, OwnedFd) {
    use rustix::pipe::PipeFlags;
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe")
}

/// Reads until there is nothing left; returns the bytes and how it ended.
pub fn read_all(fd: impl AsFd) -> (usize, Result<(), rustix::io::Errno>) {
    let mut buffer = [0u8; 4096];
    let mut total = 0;
    loop {
        match rustix::io::read(&fd, &mut buffer) {
            Ok(0) => return (total, Ok(())),
            Ok(count) => total += count,
            Err(errno) => return (total, Err(errno)),
        }
    }
}

/// Writes until there is no room left.
pub fn fill(fd: impl AsFd) {
    while rustix::io::write(&fd, &[0; 4096]).is_ok() {}
}

/// Whether a descriptor is readable now, as somebody else would find out.
pub fn is_readable(fd: RawFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // SAFETY: the selector that the number belongs to is alive in every test that asks.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut asked = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll(2)") > 0
}

/// A source that says it owns a descriptor, which somebody closes all the same.
pub struct Careless(RawFd);

impl Careless {
    pub fn new(fd: impl Into<OwnedFd>) -> Careless {
        Careless(fd.into().into_raw_fd())
    }

    pub fn raw(&self) -> RawFd {
        self.0
    }
}

impl AsFd for Careless {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: wrong on purpose once `close_behind_its_back` was called. No memory depends on
        // it, and the tests that do so run alone in their process.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

/// Closes a number that a selector may be watching.
pub fn close_behind_its_back(raw: RawFd) {
    // SAFETY: the number came out of `Careless::new`, so that nobody else closes it.
    unsafe { rustix::io::close(raw) }
}

/// A source that runs something when it is asked for its descriptor and when it is dropped.
pub struct Hooked {
    fd: OwnedFd,
    asked: Cell<Option<Box<dyn FnOnce()>>>,
    dropped: Cell<Option<Box<dyn FnOnce()>>>,
}

impl Hooked {
    pub fn new(fd: impl Into<OwnedFd>) -> Hooked {
        Hooked { fd: fd.into(), asked: Cell::new(None), dropped: Cell::new(None) }
    }

    pub fn when_asked(self, f: impl FnOnce() + 'static) -> Hooked {
        self.asked.set(Some(Box::new(f)));
        self
    }

    pub fn when_dropped(self, f: impl FnOnce() + 'static) -> Hooked {
        self.dropped.set(Some(Box::new(f)));
        self
    }

    /// Counts how often it is dropped.
    pub fn counting(fd: impl Into<OwnedFd>, drops: &Rc<Cell<usize>>) -> Hooked {
        let drops = drops.clone();
        Hooked::new(fd).when_dropped(move || drops.set(drops.get() + 1))
    }
}

impl AsFd for Hooked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if let Some(f) = self.asked.take() {
            f();
        }
        self.fd.as_fd()
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        if let Some(f) = self.dropped.take() {
            f();
        }
    }
}

/// The open descriptors of this process and what they are, without the one that looks.
pub fn open_descriptors() -> Vec<(RawFd, String)> {
    let numbers: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .expect("procfs")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // The number of the directory itself is closed again, so that it has no link.
    let mut open: Vec<_> = numbers.into_iter().filter_map(|fd| Some((fd, link(fd)?))).collect();
    open.sort();
    open
}

fn link(fd: RawFd) -> Option<String> {
    let target = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    Some(target.to_string_lossy().into_owned())
}

/// The `O_` flags of a descriptor, close-on-exec among them.
pub fn flags(fd: RawFd) -> io::Result<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("a flags line");
    u32::from_str_radix(flags.trim(), 8).map_err(io::Error::other)
}

/// `O_CLOEXEC`, on every architecture these tests run on.
pub const CLOEXEC: u32 = 0o2000000;
