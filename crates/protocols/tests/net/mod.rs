//! What the tests of connecting and serving share: loops whose reports fail the test, a clock that
//! leaps, protocols that note what they are told, resolvers that answer as told.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part of it")]

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use tulipa_loop::{ErrorContext, EventLoop, LoopHandle, sleep, timeout};
use tulipa_protocols::{
    AfterEof, Connect, Connection, Endpoint, Protocol, Resolved, Resolver, Server, Transport,
    set_resolver,
};
use tulipa_selector::{
    DefaultSelector, Events, Interest, Key, Notifier, Registration, Selector, Source, Timeout,
    Token,
};

/// For how long a test waits before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A loop on the operating system that fails the test if it reports anything that the test does not
/// [take](Self::reports).
pub struct Rig {
    event_loop: EventLoop,
    reports: Notes,
    leaps: Rc<Cell<Duration>>,
}

impl Rig {
    pub fn new() -> Rig {
        let leaps = Rc::new(Cell::new(Duration::ZERO));
        let selector = DefaultSelector::new().expect("a selector");
        let selector = Leaping { inner: selector, ahead: leaps.clone() };
        let reports = Notes::default();
        let notes = reports.clone();
        let builder = EventLoop::builder().selector(selector).exception_handler(
            move |_: &LoopHandle, context: &ErrorContext| notes.add(context.to_string()),
        );
        Rig { event_loop: builder.build().expect("a loop"), reports, leaps }
    }

    /// Runs a future to its end, which must come.
    #[track_caller]
    pub fn run<F: IntoFuture>(&self, future: F) -> F::Output {
        let future = future.into_future();
        let limited = async { timeout(PATIENCE, future).await.expect("it does not hang") };
        self.event_loop.run_until_complete(limited).expect("the loop runs")
    }

    /// One turn that does not wait.
    #[track_caller]
    pub fn turn(&self) {
        self.event_loop.run_once(Timeout::Immediate).expect("a turn");
    }

    /// Makes the loop's clock leap.
    pub fn leap(&self, duration: Duration) {
        self.leaps.set(self.leaps.get() + duration);
    }

    /// What was reported since the last look.
    pub fn reports(&self) -> Vec<String> {
        self.reports.take()
    }
}

impl Deref for Rig {
    type Target = EventLoop;

    fn deref(&self) -> &EventLoop {
        &self.event_loop
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.event_loop.close().expect("it is not running");
            let reports = self.reports.take();
            assert!(reports.is_empty(), "{reports:#?}");
        }
    }
}

/// The operating system's selector with a clock that is ahead of its own.
#[derive(Debug)]
struct Leaping {
    inner: DefaultSelector,
    ahead: Rc<Cell<Duration>>,
}

impl Selector for Leaping {
    fn register(&self, source: Source, interest: Interest, data: u64) -> io::Result<Registration> {
        self.inner.register(source, interest, data)
    }

    fn select(&self, events: &mut Events, timeout: Timeout) -> io::Result<()> {
        let timeout = match timeout.remaining(|| self.now()) {
            None => Timeout::Never,
            Some(Duration::ZERO) => Timeout::Immediate,
            Some(left) => Timeout::After(left),
        };
        self.inner.select(events, timeout)
    }

    fn now(&self) -> Instant {
        self.inner.now() + self.ahead.get()
    }

    fn notifier(&self) -> Notifier {
        self.inner.notifier()
    }

    fn get_key(&self, token: Token) -> Option<Key> {
        self.inner.get_key(token)
    }

    fn keys(&self) -> Vec<Key> {
        self.inner.keys()
    }

    fn close(&self) {
        self.inner.close();
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn name(&self) -> &'static str {
        "leaping"
    }
}

/// A list that protocols write and the test reads.
#[derive(Clone, Default)]
pub struct Notes(Rc<RefCell<Vec<String>>>);

impl Notes {
    pub fn add(&self, note: impl Into<String>) {
        self.0.borrow_mut().push(note.into());
    }

    pub fn take(&self) -> Vec<String> {
        self.0.take()
    }

    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Waits until there are so many.
    pub async fn wait_for(&self, count: usize) -> Vec<String> {
        eventually(|| self.len() >= count).await;
        self.take()
    }

    /// A protocol that notes what it is told.
    pub fn tape(&self) -> Tape {
        Tape(self.clone())
    }
}

/// Notes what it is told.
pub struct Tape(Notes);

impl Protocol for Tape {
    fn connection_made(&mut self, _: &Transport) -> io::Result<()> {
        self.0.add("made");
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        self.0.add(String::from_utf8_lossy(data));
        Ok(())
    }

    fn eof_received(&mut self, _: &Transport) -> io::Result<AfterEof> {
        self.0.add("eof");
        Ok(AfterEof::Close)
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        self.0.add(error.map_or("lost".to_owned(), |error| format!("lost: {error}")));
    }
}

/// Sends back what it gets.
pub struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// A server of `Echo`s on a free port of 127.0.0.1.
pub async fn echo_server() -> (Server, SocketAddr) {
    let server = tulipa_protocols::create_server("127.0.0.1:0", || Echo).await.expect("it listens");
    let address = inet(&server);
    (server, address)
}

/// The first address of a server.
pub fn inet(server: &Server) -> SocketAddr {
    server.local_addrs()[0].inet().expect("an internet address")
}

/// Connects, sends a word and waits for it to come back.
pub async fn assert_served(connect: Connect) {
    let notes = Notes::default();
    let connection = connect.open(|| notes.tape()).await.expect("it is served");
    assert_eq!(notes.take(), ["made"]);
    connection.write(b"ping");
    assert_eq!(notes.wait_for(1).await, ["ping"]);
    connection.close();
    connection.wait_closed().await;
}

/// Waits until something is true that other threads or the operating system make true.
pub async fn eventually(mut is_true: impl FnMut() -> bool) {
    let wait = async {
        while !is_true() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it becomes true");
}

/// A name and its addresses.
type Entry = (String, Vec<SocketAddr>);

/// A resolver that knows a few names, and notes which were asked for.
#[derive(Clone, Default)]
pub struct Book {
    pub asked: Notes,
    entries: Rc<RefCell<Vec<Entry>>>,
}

impl Book {
    /// A book that the loop resolves with.
    pub fn of(handle: &LoopHandle) -> Book {
        let book = Book::default();
        set_resolver(handle, Some(Rc::new(book.clone())));
        book
    }

    pub fn enter(&self, name: &str, addresses: &[SocketAddr]) {
        self.entries.borrow_mut().push((name.to_owned(), addresses.to_vec()));
    }
}

impl Resolver for Book {
    /// With the port that was entered.
    fn resolve(&self, _: &LoopHandle, name: &str, _: u16) -> Resolved {
        self.asked.add(name);
        let entries = self.entries.borrow();
        let found = entries.iter().find(|(known, _)| known == name);
        let found = found.map(|(_, addresses)| addresses.clone());
        Box::pin(async move {
            // It takes a while.
            tulipa_loop::yield_now().await;
            found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name"))
        })
    }
}

/// An address at which nobody answers: the listener's queue is full.
pub struct Blackhole {
    pub address: SocketAddr,
    _listener: TcpListener,
    _clients: Vec<TcpStream>,
}

impl Blackhole {
    pub fn new() -> Blackhole {
        Blackhole::at("127.0.0.1:0".parse().expect("an address"))
    }

    pub fn at(address: SocketAddr) -> Blackhole {
        let listener = TcpListener::bind(address).expect("the address is ours");
        // One waits at most; the others' attempts are not answered.
        rustix::net::listen(&listener, 0).expect("it listens");
        let address = listener.local_addr().expect("it is bound");
        let mut clients = Vec::new();
        while clients.len() < 64 {
            match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
                Ok(client) => clients.push(client),
                Err(_) => return Blackhole { address, _listener: listener, _clients: clients },
            }
        }
        panic!("the queue is never full");
    }
}

/// A port of 127.0.0.1 that nobody listens on, and nobody else can have.
pub fn refusing() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("a port");
    let address = socket.local_addr().expect("it is bound").as_socket();
    // It stays bound to the end of the process.
    std::mem::forget(socket);
    address.expect("an internet address")
}

/// Polls a future a number of times, then drops it. Whether it was pending to the end.
pub async fn poll_times(future: impl Future, times: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        let ready = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await;
        if ready {
            return false;
        }
        // Whatever it waits for has time to happen.
        sleep(Duration::from_millis(1)).await;
    }
    true
}

/// Opens a connection to an endpoint, with a protocol that notes what it is told.
pub async fn open(to: impl Into<Endpoint>, notes: &Notes) -> io::Result<Connection<Tape>> {
    Connect::to(to).open(|| notes.tape()).await
}

/// A directory that is removed with everything in it.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let name = format!("tulipa-net-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("there is a directory for temporary files");
        Directory(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// What this thread logs for `tulipa::…` while `f` runs: the messages and their fields.
pub fn logged<T>(f: impl FnOnce() -> T) -> (T, Vec<String>) {
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let result = tracing::subscriber::with_default(Capture(lines.clone()), f);
    let lines = std::mem::take(&mut *lines.lock().expect("nobody panicked"));
    (result, lines)
}

struct Capture(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Capture {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("tulipa::")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().expect("nobody panicked").push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.0 += &format!(" {value:?}"),
            name => self.0 += &format!(" {name}={value:?}"),
        }
    }
}
