//! The servers that are compared. Each is written as a program for its library would be.
//!
//! | mode | what it does |
//! |---|---|
//! | `echo` | gives back what it reads |
//! | `lines` | answers each line by itself, as a server that has to understand them does |
//! | `http` | answers each request with a few bytes |
//! | `idle` | as `echo`, and keeps no buffer for a connection that says nothing, where the library can |
//!
//! A server is a process of its own that says on standard output where it listens, and ends when its
//! standard input does.

mod bare;
mod calloop;
mod http;
mod mio;
mod pending;
mod smol;
mod tokio;
mod tulipa;

use std::io::Read;
use std::net::SocketAddr;

use crate::cores;

/// How much a server reads at once. The same for all whose choice it is.
pub const BUFFER: usize = 256 * 1024;

/// How many connections may wait to be accepted.
pub const BACKLOG: u32 = 1024;

/// What is sent as the answer to an HTTP request.
pub const HTTP_BODY: &str = "Hello, world!";

/// What a server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Gives back what comes.
    Echo,
    /// Answers line by line.
    Lines,
    /// Answers HTTP/1.1 requests.
    Http,
    /// Gives back what comes, and keeps no buffers.
    Idle,
}

impl Mode {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Echo => "echo",
            Mode::Lines => "lines",
            Mode::Http => "http",
            Mode::Idle => "idle",
        }
    }

    /// The mode of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Mode> {
        [Mode::Echo, Mode::Lines, Mode::Http, Mode::Idle]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

/// How a server is started.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// A function of this program, which runs in a process of its own.
    Rust(fn(Mode)),
    /// A Python program: the library that makes the loop, and the layer.
    Python(&'static str, &'static str),
}

/// One of those that are compared.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its name in the tables.
    pub name: &'static str,
    /// The modes that it has.
    pub modes: &'static [Mode],
    /// What it is.
    pub start: Start,
}

/// The loop without a library, which the others are compared with.
pub const BARE: &str = "bare epoll";
/// tulipa's protocols.
pub const PROTOCOL: &str = "tulipa protocol";
/// tulipa's protocols that are read into their own buffer.
pub const BUFFERED: &str = "tulipa buffered";
/// tulipa's streams.
pub const STREAMS: &str = "tulipa streams";
/// tokio's current-thread runtime.
pub const TOKIO: &str = "tokio";

const ECHO_ONLY: &[Mode] = &[Mode::Echo, Mode::Idle];
const WITH_LINES: &[Mode] = &[Mode::Echo, Mode::Idle, Mode::Lines];
const ALL_MODES: &[Mode] = &[Mode::Echo, Mode::Idle, Mode::Lines, Mode::Http];

/// All of them, in the order of the tables.
pub const ALL: &[Peer] = &[
    Peer { name: BARE, modes: WITH_LINES, start: Start::Rust(bare::serve) },
    Peer { name: PROTOCOL, modes: WITH_LINES, start: Start::Rust(tulipa::protocol) },
    Peer { name: BUFFERED, modes: &[Mode::Echo], start: Start::Rust(tulipa::buffered) },
    Peer { name: STREAMS, modes: ALL_MODES, start: Start::Rust(tulipa::streams) },
    Peer { name: TOKIO, modes: ALL_MODES, start: Start::Rust(tokio::current_thread) },
    Peer { name: "tokio LocalSet", modes: ALL_MODES, start: Start::Rust(tokio::local_set) },
    Peer { name: "smol", modes: WITH_LINES, start: Start::Rust(smol::serve) },
    Peer { name: "mio", modes: ECHO_ONLY, start: Start::Rust(mio::serve) },
    Peer { name: "calloop", modes: ECHO_ONLY, start: Start::Rust(calloop::serve) },
    Peer {
        name: "asyncio protocol",
        modes: WITH_LINES,
        start: Start::Python("asyncio", "protocol"),
    },
    Peer { name: "asyncio streams", modes: WITH_LINES, start: Start::Python("asyncio", "streams") },
    Peer { name: "uvloop protocol", modes: WITH_LINES, start: Start::Python("uvloop", "protocol") },
    Peer { name: "uvloop streams", modes: WITH_LINES, start: Start::Python("uvloop", "streams") },
];

/// The peer of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Peer> {
    ALL.iter().find(|peer| peer.name == name)
}

/// Is a server, until standard input ends.
///
/// # Panics
///
/// When there is no such server.
pub fn serve(name: &str, mode: Mode) {
    cores::pin(cores::SERVER);
    std::thread::spawn(|| {
        // What comes is of no interest; that it ends is.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    match named(name).map(|peer| peer.start) {
        Some(Start::Rust(start)) => start(mode),
        _ => panic!("there is no server {name}"),
    }
}

/// Says where a server listens.
fn announce(address: SocketAddr) {
    println!("listening on {address}");
}

/// Reads what there is into a buffer that all connections share, and gives a copy of what came: for servers
/// that keep no buffer of their own.
fn read_shared(read: impl FnOnce(&mut [u8]) -> std::io::Result<usize>) -> std::io::Result<Vec<u8>> {
    use std::cell::RefCell;
    thread_local! {
        static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
    }
    SHARED.with_borrow_mut(|buffer| {
        let count = read(buffer)?;
        Ok(buffer[..count].to_vec())
    })
}

/// A listening socket that does not block.
fn listen() -> std::net::TcpListener {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("an address");
    listen(&socket, BACKLOG as i32).expect("it listens");
    socket.into()
}
