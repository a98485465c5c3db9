//! What the tests of streams share: loops that fail a test at any report, and pairs of streams over
//! everything that carries bytes.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part of it")]

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::zip;
use tulipa_loop::{ErrorContext, EventLoop, LoopHandle, timeout};
use tulipa_protocols::{Filtered, Link, SocketLink};
use tulipa_selector::VirtualHandle;
use tulipa_streams::{DEFAULT_LIMIT, Streams, open_link};
use tulipa_testing::{
    Chunking, MemoryLink, MemoryNetwork, NetworkLink, Path, ToyRecords, VirtualLoop,
};

/// For how long a test over sockets waits before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a loop reported.
#[derive(Clone, Default)]
pub struct Reports(Rc<RefCell<Vec<String>>>);

impl Reports {
    pub fn take(&self) -> Vec<String> {
        self.0.take()
    }

    fn install(&self, handle: &LoopHandle) {
        let reports = self.0.clone();
        let note = move |_: &LoopHandle, context: &ErrorContext| {
            reports.borrow_mut().push(context.to_string());
        };
        handle.set_exception_handler(Some(Rc::new(note)));
    }

    #[track_caller]
    fn assert_none(&self) {
        let reports = self.take();
        assert!(reports.is_empty(), "{reports:#?}");
    }
}

/// The loop of a test, as the test sees it.
pub struct Rig {
    pub reports: Reports,
    world: Option<VirtualHandle>,
}

impl Rig {
    /// Two links through memory that holds so many bytes.
    pub fn memory(&self, capacity: usize) -> (MemoryLink, MemoryLink) {
        MemoryLink::pair(capacity)
    }
}

impl Rig {
    /// Two ends of a connection through a simulated network.
    async fn network(&self, seed: u64) -> (NetworkLink, NetworkLink) {
        let network = MemoryNetwork::new(self.world.as_ref().expect("virtual time"), seed);
        let latency = Duration::ZERO..=Duration::from_millis(5);
        network.set_default_path(Path::new().latency(latency).chunking(Chunking::Random));
        let address = SocketAddr::new(network.host("localhost"), 0);
        let listener = network.bind(address).expect("a port");
        listener.listen(1);
        let near = network.connect_link(listener.local_addr()).await.expect("it listens");
        (near, listener.accept().expect("it has connected"))
    }
}

/// Runs a test in virtual time; what it does not end by itself is a deadlock, and what it leaves reported fails it.
#[track_caller]
pub fn in_virtual_time<T>(test: impl AsyncFnOnce(Rig) -> T) -> T {
    let virtual_loop = VirtualLoop::new();
    let reports = Reports::default();
    reports.install(&virtual_loop);
    let rig = Rig { reports: reports.clone(), world: Some(virtual_loop.world().clone()) };
    let result = virtual_loop.run_until_complete(test(rig)).expect("it does not hang");
    virtual_loop.close().expect("it is not running");
    reports.assert_none();
    result
}

/// The same over sockets; it may take a minute.
#[track_caller]
pub fn in_real_time<T>(test: impl AsyncFnOnce(Rig) -> T) -> T {
    let event_loop = EventLoop::new().expect("a loop");
    let reports = Reports::default();
    reports.install(&event_loop);
    let rig = Rig { reports: reports.clone(), world: None };
    let limited = async { timeout(PATIENCE, test(rig)).await.expect("it does not hang") };
    let result = event_loop.run_until_complete(limited).expect("the loop runs");
    event_loop.close().expect("it is not running");
    reports.assert_none();
    result
}

/// What carries the bytes between the two ends of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Memory that holds so many bytes, in virtual time; with 1 every byte comes alone.
    Memory(usize),
    /// The same through a toy filter.
    Filtered(usize),
    /// A simulated network with this seed, which delays the bytes and cuts them into random pieces.
    Simulated(u64),
    Tcp,
    Unix,
}

pub const WAYS: [Way; 10] = [
    Way::Memory(1),
    Way::Memory(7),
    Way::Memory(64 * 1024),
    Way::Filtered(3),
    Way::Filtered(64 * 1024),
    Way::Simulated(1),
    Way::Simulated(2),
    Way::Simulated(3),
    Way::Tcp,
    Way::Unix,
];

impl Way {
    /// Runs a test on a loop of its own with the two ends of a connection.
    #[track_caller]
    pub fn run<T>(self, limit: usize, test: impl AsyncFnOnce(Streams, Streams) -> T) -> T {
        match self {
            Way::Memory(capacity) => in_virtual_time(async |rig| {
                let (near, far) = rig.memory(capacity);
                let (near, far) = over(near, far, limit).await;
                test(near, far).await
            }),
            Way::Filtered(capacity) => in_virtual_time(async |rig| {
                let (near, far) = rig.memory(capacity);
                let near = Filtered::new(near, ToyRecords::client());
                let far = Filtered::new(far, ToyRecords::server());
                let (near, far) = over(near, far, limit).await;
                test(near, far).await
            }),
            Way::Simulated(seed) => in_virtual_time(async |rig| {
                let (near, far) = rig.network(seed).await;
                let (near, far) = over(near, far, limit).await;
                test(near, far).await
            }),
            Way::Tcp | Way::Unix => in_real_time(async |_| {
                let (near, far) = if self == Way::Tcp { tcp() } else { unix() };
                let (near, far) = over(near, far, limit).await;
                test(near, far).await
            }),
        }
    }
}

/// Runs a test over everything that carries bytes.
#[track_caller]
pub fn each_way(test: impl AsyncFn(Streams, Streams)) {
    for way in WAYS {
        #[allow(clippy::print_stderr, reason = "it is shown when the test fails")]
        {
            eprintln!("over {way:?}");
        }
        way.run(DEFAULT_LIMIT, &test);
    }
}

/// Runs a test over memory of 64 KiB in virtual time.
#[track_caller]
pub fn in_memory<T>(test: impl AsyncFnOnce(Streams, Streams) -> T) -> T {
    Way::Memory(64 * 1024).run(DEFAULT_LIMIT, test)
}

/// Streams over the two ends of a link.
pub async fn over(
    near: impl Link + 'static,
    far: impl Link + 'static,
    limit: usize,
) -> (Streams, Streams) {
    let (near, far) = zip(open_link(near, limit), open_link(far, limit)).await;
    (near.expect("it opens"), far.expect("it opens"))
}

pub fn tcp() -> (SocketLink, SocketLink) {
    let (near, far) = tcp_sockets();
    (adopt(near), adopt(far))
}

pub fn unix() -> (SocketLink, SocketLink) {
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    (adopt(near), adopt(far))
}

pub fn tcp_sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().unwrap()).expect("it listens");
    let (far, _) = listener.accept().expect("it has connected");
    (near, far)
}

fn adopt(socket: impl Into<OwnedFd>) -> SocketLink {
    SocketLink::adopt(socket).expect("it is connected")
}

/// How many random cases a property runs.
pub fn cases() -> u32 {
    std::env::var("TULIPA_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256)
}
