//! What allocates, counted.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use common::{connect, settle, strict_loop, unix};
use tulipa_loop::EventLoop;
use tulipa_protocols::{
    Address, Buffered, BufferedProtocol, Connection, DatagramProtocol, DatagramTransport,
    Datagrams, Filtered, Protocol, SocketLink, Transport, attach,
};
use tulipa_selector::Timeout;
use tulipa_testing::{Record, ToyRecords};

/// Counts the allocations and the bytes in use of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
    static IN_USE: Cell<i64> = const { Cell::new(0) };
}

fn count(allocated: usize, freed: usize) {
    let _ = ALLOCATED.try_with(|cell| cell.set(cell.get() + allocated as u64));
    let _ = ALLOCATIONS.try_with(|cell| cell.set(cell.get() + u64::from(allocated > 0)));
    let _ = IN_USE.try_with(|cell| cell.set(cell.get() + allocated as i64 - freed as i64));
}

// SAFETY: everything is passed on to `System`; counting touches thread-local cells that need neither
// allocation nor destruction.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `f` makes on this thread.
fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

struct Echo {
    /// Whether it sets a timeout for each message, as servers do.
    timeout: bool,
}

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        if self.timeout {
            transport.set_timeout(Some(Duration::from_secs(60)));
        }
        transport.write(data);
        Ok(())
    }
}

struct BufferedEcho(Vec<u8>);

impl BufferedProtocol for BufferedEcho {
    fn get_buffer(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn buffer_updated(&mut self, transport: &Transport, count: usize) -> io::Result<()> {
        transport.write(&self.0[..count]);
        Ok(())
    }
}

/// Sends a message of this size and waits for it to come back.
fn echoed(event_loop: &EventLoop, mut peer: &UnixStream, message: &[u8], back: &mut [u8]) {
    peer.write_all(message).unwrap();
    let mut received = 0;
    while received < message.len() {
        event_loop.run_once(Timeout::Immediate).unwrap();
        match peer.read(&mut back[received..message.len()]) {
            Ok(count) => received += count,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    assert!(back[..received] == *message);
}

fn allocations_of_echoes<P: Protocol + 'static>(protocol: P, size: usize) -> u64 {
    let event_loop = strict_loop();
    let (ours, peer) = unix();
    peer.set_nonblocking(true).unwrap();
    let _connection = connect(&event_loop, ours, protocol);
    let (message, mut back) = (vec![7; size], vec![0; size]);
    let mut echoes = |times| {
        for _ in 0..times {
            echoed(&event_loop, &peer, &message, &mut back);
        }
    };
    echoes(100);
    allocations(|| echoes(1000))
}

#[test]
fn i10_an_echoed_message_allocates_nothing() {
    for size in [1, 100, 10_000, 100_000] {
        assert_eq!(allocations_of_echoes(Echo { timeout: false }, size), 0, "{size}");
        assert_eq!(allocations_of_echoes(Echo { timeout: true }, size), 0, "{size} with timeouts");
        let buffered = Buffered(BufferedEcho(vec![0; 5000]));
        assert_eq!(allocations_of_echoes(buffered, size), 0, "{size} buffered");
    }
}

#[test]
fn i10_a_queue_that_fills_and_drains_allocates_nothing() {
    let event_loop = strict_loop();
    let (ours, mut peer) = unix();
    common::shrink(&ours);
    peer.set_nonblocking(true).unwrap();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    let chunk = [7; 3000];
    let mut buffer = vec![0; 100_000];
    let mut round = |times| {
        for _ in 0..times {
            for _ in 0..100 {
                connection.write(&chunk);
            }
            while connection.get_write_buffer_size() > 0 {
                event_loop.run_once(Timeout::Immediate).unwrap();
                let _ = peer.read(&mut buffer);
            }
        }
    };
    round(20);
    let made = allocations(|| round(50));
    // The record of the calls grows now and then.
    assert!(made <= 4, "{made} allocations");
}

/// How often memory was allocated, and how much, while so many bytes were written one by one.
fn one_byte_writes(many: usize) -> (u64, u64) {
    let event_loop = strict_loop();
    let (ours, _peer) = unix();
    let connection: Connection<Echo> = connect(&event_loop, ours, Echo { timeout: false });
    connection.pause_reading();
    settle(&event_loop);
    let before = (ALLOCATIONS.get(), ALLOCATED.get());
    for _ in 0..many {
        connection.write(b"x");
    }
    assert!(connection.get_write_buffer_size() > many / 2);
    (ALLOCATIONS.get() - before.0, ALLOCATED.get() - before.1)
}

#[test]
fn b69_a_million_writes_of_a_byte_cost_linear_work() {
    let (few, little) = one_byte_writes(1_000_000);
    let (more, much) = one_byte_writes(2_000_000);
    // Chunks that double up to 64 KiB: each byte is copied two times at most.
    assert!(few < 600 && more < 2 * few + 50, "{few} and {more} allocations");
    assert!(little < 3_500_000 && much < 2 * little + 500_000, "{little} and {much} bytes");
}

#[test]
fn an_idle_connection_keeps_few_bytes() {
    const MANY: usize = 200;
    let event_loop = strict_loop();
    let sockets: Vec<_> = (0..MANY).map(|_| unix()).collect();
    let (ours, peers): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
    let mut ours = ours.into_iter();
    let mut open = |count| {
        for socket in ours.by_ref().take(count) {
            drop(connect(&event_loop, socket, Echo { timeout: false }));
        }
        settle(&event_loop);
    };
    open(MANY / 2);
    let before = IN_USE.get();
    open(MANY / 2);
    let each = (IN_USE.get() - before) / (MANY as i64 / 2);
    // A source in its slot, the state, the registration and its key; no buffer.
    assert!(each <= 300, "{each} bytes");
    drop(peers);
}

#[test]
fn a_connection_that_was_used_gives_its_buffers_back() {
    let event_loop = strict_loop();
    let mut used = Vec::new();
    let mut measure = || {
        let before = IN_USE.get();
        let (ours, peer) = unix();
        peer.set_nonblocking(true).unwrap();
        let connection = connect(&event_loop, ours, Echo { timeout: false });
        let message = vec![7; 300_000];
        connection.write(&message);
        let mut back = vec![0; message.len()];
        let mut received = 0;
        while received < message.len() {
            event_loop.run_once(Timeout::Immediate).unwrap();
            received += (&peer).read(&mut back[received..]).unwrap_or(0);
        }
        drop((message, back, connection));
        settle(&event_loop);
        used.push(peer);
        IN_USE.get() - before
    };
    for _ in 0..40 {
        measure();
    }
    // Grown tables apart: `measure` also keeps the peer.
    let least = (0..10).map(|_| measure()).min().unwrap();
    assert!(least < 1000, "{least} bytes are kept");
}

#[test]
fn a_connection_that_is_over_leaves_nothing() {
    let event_loop = strict_loop();
    let round = || {
        let (ours, peer) = unix();
        let connection = connect(&event_loop, ours, Echo { timeout: true });
        connection.set_timeout(Some(Duration::from_secs(3600)));
        connection.write(&[7; 1000]);
        settle(&event_loop);
        drop(peer);
        common::until(&event_loop, "the end", || common::is_over(&connection));
        settle(&event_loop);
    };
    (0..20).for_each(|_| round());
    let before = IN_USE.get();
    (0..20).for_each(|_| round());
    let left = IN_USE.get() - before;
    assert!(left < 256, "{left} bytes are left by 20 connections");
}

#[test]
fn a_filter_that_is_idle_keeps_no_buffer() {
    let event_loop = strict_loop();
    let (one, other) = unix();
    let (near, far) = (Record::new(), Record::new());
    let handle = event_loop.handle();
    let client = Filtered::new(SocketLink::adopt(one).unwrap(), ToyRecords::client());
    let server = Filtered::new(SocketLink::adopt(other).unwrap(), ToyRecords::server());
    let connection = attach(&handle, client, near.protocol()).unwrap();
    attach(&handle, server, far.protocol()).unwrap();
    settle(&event_loop);
    let before = IN_USE.get();
    connection.write(&vec![7; 3 << 20]);
    common::until(&event_loop, "all data", || far.count() == 3 << 20);
    settle(&event_loop);
    // The record has what was received, with room to grow; the loop has its spares.
    let kept = IN_USE.get() - before - far.bytes().capacity() as i64 * 2;
    assert!(kept < 2 << 20, "{kept} bytes are kept");
    assert_eq!(connection.get_write_buffer_size(), 0);
}

struct DatagramEcho;

impl DatagramProtocol for DatagramEcho {
    fn datagram_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        from: &Address,
    ) -> io::Result<()> {
        transport.send_to(data, from);
        Ok(())
    }
}

/// Sends so many datagrams at a time, and waits for all of them to come back.
fn allocations_of_datagrams(
    how: Datagrams,
    send: impl Fn(&[u8], &Address),
    receive: impl Fn(&mut [u8]) -> io::Result<usize>,
    many: usize,
    size: usize,
) -> u64 {
    let event_loop = strict_loop();
    let endpoint = event_loop.run_until_complete(how.open(|| DatagramEcho)).unwrap().unwrap();
    let address = endpoint.local_addr().unwrap();
    let (message, mut back) = (vec![7; size], vec![0; size + 1]);
    let mut echoes = |times| {
        for _ in 0..times {
            (0..many).for_each(|_| send(&message, &address));
            let mut received = 0;
            while received < many {
                event_loop.run_once(Timeout::Immediate).unwrap();
                while let Ok(count) = receive(&mut back) {
                    assert_eq!(count, size);
                    received += 1;
                }
            }
        }
    };
    echoes(100);
    allocations(|| echoes(1000))
}

#[test]
fn i10_an_echoed_datagram_allocates_nothing() {
    let directory = std::env::temp_dir().join(format!("tulipa-dg-alloc-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).unwrap();
    for (many, size) in [(1, 0), (1, 100), (5, 100), (1, 10_000)] {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_nonblocking(true).unwrap();
        let send = |data: &[u8], to: &Address| {
            peer.send_to(data, to.inet().unwrap()).unwrap();
        };
        let receive = |buffer: &mut [u8]| peer.recv(buffer);
        let how = Datagrams::at("127.0.0.1:0");
        let made = allocations_of_datagrams(how, send, receive, many, size);
        assert_eq!(made, 0, "{many} of {size} bytes");
        let peer = UnixDatagram::bind(directory.join("peer")).unwrap();
        peer.set_nonblocking(true).unwrap();
        let send = |data: &[u8], to: &Address| {
            peer.send_to(data, to.path().unwrap()).unwrap();
        };
        let receive = |buffer: &mut [u8]| peer.recv(buffer);
        let how = Datagrams::at_unix(directory.join("own"));
        let made = allocations_of_datagrams(how, send, receive, many, size);
        assert_eq!(made, 0, "{many} of {size} bytes over Unix sockets");
        std::fs::remove_file(directory.join("peer")).unwrap();
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn an_idle_datagram_endpoint_keeps_no_buffer() {
    const MANY: usize = 50;
    let event_loop = strict_loop();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    let mut kept = Vec::new();
    let mut open = |count| {
        for _ in 0..count {
            let how = Datagrams::at("127.0.0.1:0");
            let endpoint = event_loop.run_until_complete(how.open(|| DatagramEcho));
            let endpoint = endpoint.unwrap().unwrap();
            // It has sent something once.
            endpoint.send_to(&[7; 10_000], to);
            kept.push(endpoint);
            event_loop.run_once(Timeout::Immediate).unwrap();
        }
        settle(&event_loop);
    };
    open(MANY);
    let before = IN_USE.get();
    open(MANY);
    let each = (IN_USE.get() - before) / MANY as i64;
    // The state with its addresses, a source in its slot, a registration.
    assert!(each <= 1000, "{each} bytes");
    drop(kept);
}

#[test]
fn a_datagram_endpoint_that_is_over_leaves_nothing() {
    let event_loop = strict_loop();
    let round = || {
        let how = Datagrams::at("127.0.0.1:0");
        let endpoint = event_loop.run_until_complete(how.open(|| DatagramEcho)).unwrap().unwrap();
        endpoint.send_to(&[7; 1000], "127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap());
        endpoint.close();
        event_loop.run_until_complete(endpoint.wait_closed()).unwrap();
    };
    (0..20).for_each(|_| round());
    let before = IN_USE.get();
    (0..20).for_each(|_| round());
    let left = IN_USE.get() - before;
    assert!(left < 256, "{left} bytes are left by 20 endpoints");
}
