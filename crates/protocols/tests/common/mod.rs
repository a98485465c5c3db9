//! What the tests share: strict loops, pairs of sockets, waiting with an end, leak checks.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::{ErrorContext, EventLoop, LoopHandle};
use tulipa_protocols::{
    Connection, Protocol, SocketLink, Transport, attach, connect_accepted_socket,
};

/// A loop that fails the test if it reports anything.
pub struct Strict {
    event_loop: EventLoop,
    reports: Rc<RefCell<Vec<String>>>,
}

pub fn strict_loop() -> Strict {
    let event_loop = EventLoop::new().expect("a loop");
    let reports = Rc::new(RefCell::new(Vec::new()));
    let journal = reports.clone();
    event_loop.set_exception_handler(Some(Rc::new(
        move |_: &LoopHandle, context: &ErrorContext| {
            journal.borrow_mut().push(context.to_string())
        },
    )));
    Strict { event_loop, reports }
}

impl Strict {
    /// What was reported so far, which then does not fail the test.
    pub fn take_reports(&self) -> Vec<String> {
        self.reports.take()
    }
}

impl Deref for Strict {
    type Target = EventLoop;

    fn deref(&self) -> &EventLoop {
        &self.event_loop
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        let reports = self.reports.take();
        if !std::thread::panicking() {
            assert!(reports.is_empty(), "{reports:?}");
        }
    }
}

/// For how many turns, each of which waits for so long at most, a test goes on before it fails.
const MOST_TURNS: usize = 2_000_000;
const WAIT: Duration = Duration::from_millis(5);

/// How many quiet waits in a row are taken for the end of everything.
const QUIET: usize = 4;

/// Runs the loop until something is true.
#[track_caller]
pub fn until(event_loop: &EventLoop, what: &str, done: impl Fn() -> bool) {
    let began = event_loop.time();
    for _ in 0..MOST_TURNS {
        if done() {
            return;
        }
        event_loop.run_once(WAIT).expect("a turn");
        if event_loop.time() - began > Duration::from_secs(10) {
            break;
        }
    }
    panic!("never: {what}");
}

/// Runs the loop until nothing happens any more.
#[track_caller]
pub fn settle(event_loop: &EventLoop) {
    let mut quiet = 0;
    for _ in 0..MOST_TURNS {
        let before = event_loop.statistics();
        event_loop.run_once(WAIT).expect("a turn");
        let after = event_loop.statistics();
        let busy = before.events != after.events || before.callbacks != after.callbacks;
        quiet = if busy { 0 } else { quiet + 1 };
        if quiet >= QUIET {
            return;
        }
    }
    panic!("the loop is never quiet");
}

/// Checks that the loop sleeps: of a wait of this length one turn is made, or two.
#[track_caller]
pub fn assert_sleeps(event_loop: &EventLoop) {
    // The operating system may be late with something; a loop that spins is never quiet.
    let mut seen = (0, 0);
    for _ in 0..10 {
        settle(event_loop);
        let before = event_loop.statistics();
        event_loop.call_later(Duration::from_millis(30), LoopHandle::stop);
        event_loop.run_forever().expect("a run");
        let after = event_loop.statistics();
        seen = (after.turns - before.turns, after.events - before.events);
        if seen.0 <= 3 && seen.1 == 0 {
            return;
        }
    }
    panic!("{} turns, {} events of an idle loop", seen.0, seen.1);
}

pub fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a peer");
    let (far, _) = listener.accept().expect("a connection");
    near.set_nodelay(true).expect("a socket");
    far.set_nodelay(true).expect("a socket");
    (near, far)
}

pub fn unix() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("a pair of sockets")
}

/// A connection over a socket, made.
pub fn connect<P: Protocol + 'static>(
    event_loop: &EventLoop,
    socket: impl Into<OwnedFd>,
    protocol: P,
) -> Connection<P> {
    let connected = connect_accepted_socket(socket, || protocol);
    event_loop.run_until_complete(connected).expect("a run").expect("a connection")
}

/// The same through the path of links that are no sockets.
pub fn connect_link<P: Protocol + 'static>(
    event_loop: &EventLoop,
    socket: impl Into<OwnedFd>,
    protocol: P,
) -> Connection<P> {
    let link = SocketLink::adopt(socket).expect("a socket");
    attach(&event_loop.handle(), link, protocol).expect("a connection")
}

/// A small buffer for what is sent. The receiver's stays: the window of a tiny one opens by timers of seconds.
pub fn shrink(socket: &impl AsFd) {
    socket2::SockRef::from(socket).set_send_buffer_size(2048).expect("a socket");
}

/// Makes the drop of a socket a reset.
pub fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("a socket");
}

/// What a non-blocking socket has to read now.
pub fn drain(mut stream: impl Read) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok((bytes, true)),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((bytes, false)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes what a non-blocking socket takes now.
pub fn fill(mut stream: impl Write, data: &[u8]) -> usize {
    let mut sent = 0;
    while sent < data.len() {
        match stream.write(&data[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

/// Bytes of which no two stretches are alike.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// How many descriptors this process has.
pub fn descriptors() -> usize {
    std::fs::read_dir("/dev/fd").expect("a listing").count()
}

/// Whether a transport is over, for tests that keep only that.
pub fn is_over(transport: &Transport) -> bool {
    transport.is_closing() && transport.with_fd(|_| ()).is_err()
}

pub fn cases() -> u64 {
    std::env::var("TULIPA_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256)
}
