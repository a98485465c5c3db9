//! What streams allocate and keep, counted.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tulipa_loop::{EventLoop, spawn};
use tulipa_protocols::SocketLink;
use tulipa_selector::Timeout;
use tulipa_streams::{DEFAULT_LIMIT, StreamReader, StreamWriter, open_link};

/// Counts the allocations and the bytes in use of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static IN_USE: Cell<i64> = const { Cell::new(0) };
}

fn count(allocations: u64, bytes: i64) {
    let _ = ALLOCATIONS.try_with(|cell| cell.set(cell.get() + allocations));
    let _ = IN_USE.try_with(|cell| cell.set(cell.get() + bytes));
}

// SAFETY: everything is passed on to `System`; counting touches thread-local cells that need neither
// allocation nor destruction.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a handler does with its streams.
#[derive(Clone, Copy)]
enum Handler {
    /// Reads into a buffer of its own.
    Read,
    /// Uses what the reader lends.
    Fill,
    /// Answers line by line.
    Lines,
}

async fn serve(handler: Handler, mut reader: StreamReader, writer: StreamWriter) -> io::Result<()> {
    let mut buffer = vec![0; if matches!(handler, Handler::Read) { 4096 } else { 0 }];
    loop {
        let count = match handler {
            Handler::Read => {
                let count = reader.read(&mut buffer).await?;
                writer.write_all(&buffer[..count]).await?;
                count
            }
            Handler::Fill => {
                let data = reader.fill().await?;
                writer.write_all(data).await?;
                let count = data.len();
                reader.consume(count);
                count
            }
            Handler::Lines => {
                let line = reader.read_line().await?;
                writer.write(line);
                let count = line.len();
                writer.drain().await?;
                count
            }
        };
        if count == 0 {
            return Ok(());
        }
    }
}

/// Starts a handler; gives the other end, which does not block.
fn start(event_loop: &EventLoop, handler: Handler) -> UnixStream {
    let (ours, peer) = UnixStream::pair().unwrap();
    peer.set_nonblocking(true).unwrap();
    let started = event_loop.run_until_complete(async move {
        let link = SocketLink::adopt(ours).unwrap();
        let (reader, writer) = open_link(link, DEFAULT_LIMIT).await.unwrap();
        spawn(serve(handler, reader, writer)).detach();
    });
    started.unwrap();
    peer
}

/// Sends a message and waits for it to come back.
fn echoed(event_loop: &EventLoop, mut peer: &UnixStream, message: &[u8], back: &mut [u8]) {
    peer.write_all(message).unwrap();
    let mut received = 0;
    while received < message.len() {
        event_loop.run_once(Timeout::Immediate).unwrap();
        match peer.read(&mut back[received..message.len()]) {
            Ok(count) => received += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert!(back[..received] == *message);
}

#[test]
fn i10_an_echo_over_streams_allocates_nothing() {
    for handler in [Handler::Read, Handler::Fill, Handler::Lines] {
        for size in [2, 64, 3000] {
            let event_loop = EventLoop::new().unwrap();
            let peer = start(&event_loop, handler);
            let mut message = vec![b'x'; size];
            message[size - 1] = b'\n';
            let mut back = vec![0; size];
            let mut echoes = |times: usize| {
                let before = ALLOCATIONS.get();
                (0..times).for_each(|_| echoed(&event_loop, &peer, &message, &mut back));
                ALLOCATIONS.get() - before
            };
            echoes(100);
            assert_eq!(echoes(1000), 0, "{size} bytes");
            drop(peer);
            event_loop.run_once(Duration::ZERO).unwrap();
        }
    }
}

/// What the loop keeps for each of many connections whose handlers wait, tables included.
fn bytes_each(used: bool) -> i64 {
    const MANY: usize = 200;
    let event_loop = EventLoop::new().unwrap();
    let mut back = [0; 64];
    let mut open = |count: usize| {
        let mut peers = Vec::with_capacity(count);
        for _ in 0..count {
            let peer = start(&event_loop, Handler::Fill);
            event_loop.run_once(Timeout::Immediate).unwrap();
            if used {
                echoed(&event_loop, &peer, &[b'x'; 64], &mut back);
            }
            event_loop.run_once(Timeout::Immediate).unwrap();
            peers.push(peer);
        }
        peers
    };
    let first = open(MANY / 2);
    let before = IN_USE.get();
    let more = open(MANY / 2);
    let each = (IN_USE.get() - before) / (MANY as i64 / 2);
    drop((first, more));
    each
}

/// The connection, its task, and what both halves share; no buffer. The bound is today's figure, with what
/// the tables' growth adds.
#[test]
fn an_idle_connection_with_streams_keeps_few_bytes() {
    let (fresh, used) = (bytes_each(false), bytes_each(true));
    assert!(fresh <= MOST_IDLE, "{fresh} bytes, {used} after a message");
    assert!(used <= MOST_IDLE, "{used} bytes after a message");
}

/// Bytes for an idle connection: 700 without what the handler's future keeps for `write_all` and `drain`.
const MOST_IDLE: i64 = 1320;
