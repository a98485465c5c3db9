//! Loops for the tests, and the proof that nothing else drives what runs on them.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::DirEntry;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use tulipa::testing::VirtualLoop;
use tulipa::{
    DEFAULT_LIMIT, ErrorContext, EventLoop, LoopHandle, SocketLink, Streams, open_link, timeout,
    yield_now,
};

/// For how long a test over sockets waits before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Set for the run in which threads and selectors are counted: no other test runs beside.
const COUNTING: &str = "TULIPA_ECOSYSTEM_COUNTS";

/// Whether it is free of tokio's runtime here: libraries that want one would find it, or panic.
#[track_caller]
pub(crate) fn assert_no_tokio() {
    let runtime = tokio::runtime::Handle::try_current();
    assert!(runtime.is_err(), "this is inside of a runtime of tokio");
}

/// Runs a test on a loop of its own, by the real clock. It must leave no tasks and no reports.
#[track_caller]
pub(crate) fn in_real_time<T>(test: impl AsyncFnOnce() -> T) -> T {
    let event_loop = EventLoop::new().expect("a loop");
    let reports = record(&event_loop);
    let limited = async { timeout(PATIENCE, to_the_end(test)).await.expect("it does not hang") };
    let result = event_loop.run_until_complete(limited).expect("the loop runs");
    event_loop.close().expect("it is not running");
    assert!(reports.borrow().is_empty(), "{:#?}", reports.borrow());
    result
}

/// The same by a clock that jumps to the next timer; what hangs is a deadlock, which fails it.
#[track_caller]
pub(crate) fn in_virtual_time<T>(test: impl AsyncFnOnce() -> T) -> T {
    let virtual_loop = VirtualLoop::new();
    let reports = record(&virtual_loop);
    let result = virtual_loop.run_until_complete(to_the_end(test)).expect("it does not hang");
    virtual_loop.close().expect("it is not running");
    assert!(reports.borrow().is_empty(), "{:#?}", reports.borrow());
    result
}

async fn to_the_end<T>(test: impl AsyncFnOnce() -> T) -> T {
    assert_no_tokio();
    let result = test().await;
    while !LoopHandle::current().all_tasks().is_empty() {
        yield_now().await;
    }
    assert_no_tokio();
    if std::env::var_os(COUNTING).is_some() {
        assert_eq!(other_threads(), Vec::<String>::new());
        // The one of this loop; a virtual one has none.
        assert!(selectors() <= 1, "{} selectors", selectors());
    }
    result
}

/// Both ends of a connection over TCP.
pub(crate) async fn tcp_pair() -> (Streams, Streams) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (far, _) = listener.accept().expect("it has connected");
    let adopt = async |socket: TcpStream| {
        let link = SocketLink::adopt(socket).expect("it is a socket");
        open_link(link, DEFAULT_LIMIT).await.expect("it is connected")
    };
    (adopt(near).await, adopt(far).await)
}

fn record(handle: &LoopHandle) -> Rc<RefCell<Vec<String>>> {
    let reports = Rc::new(RefCell::new(Vec::new()));
    let note = reports.clone();
    handle.set_exception_handler(Some(Rc::new(move |_: &LoopHandle, context: &ErrorContext| {
        note.borrow_mut().push(context.to_string());
    })));
    reports
}

/// The names of all threads but this one, and the first, in which the harness waits for it.
fn other_threads() -> Vec<String> {
    let this = std::fs::read_link("/proc/thread-self").expect("this is Linux");
    let known = [this.file_name(), Some(OsStr::new(&std::process::id().to_string()))]
        .map(|name| name.expect("a number").to_owned());
    let tasks = std::fs::read_dir("/proc/self/task").expect("this is Linux");
    let tasks = tasks.map(|task| task.expect("it is read"));
    let name = |task: DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).unwrap_or_default().trim().to_owned()
    };
    tasks.filter(|task| !known.contains(&task.file_name())).map(name).collect()
}

/// How many instances of epoll this process has.
fn selectors() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("this is Linux");
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().contains("[eventpoll]")).count()
}

/// All the tests again, one after the other and on one thread, each of which counts at its end.
#[cfg(target_os = "linux")]
#[test]
fn the_libraries_start_no_thread_and_no_other_reactor() {
    let this = std::env::current_exe().expect("it has a path");
    let mut command = Command::new(this);
    command.env(COUNTING, "1").args(["--test-threads=1", "--skip", "the_libraries_start"]);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains("running 0 tests"), "{said}");
}

/// That the count above would notice.
#[cfg(target_os = "linux")]
#[test]
fn a_thread_with_a_reactor_would_be_counted() {
    let selectors_before = selectors();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let (started, start) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("reactor".to_owned()).spawn(move || {
        let event_loop = EventLoop::new().expect("a loop");
        started.send(()).expect("somebody waits");
        let _ = wait.recv();
        drop(event_loop);
    });
    start.recv().expect("it has started");
    let (threads, selectors) = (other_threads(), selectors());
    drop(done);
    thread.expect("a thread").join().expect("it does not panic");
    assert!(threads.contains(&"reactor".to_owned()), "{threads:?}");
    if std::env::var_os(COUNTING).is_some() {
        assert_eq!((&threads[..], selectors), (&["reactor".to_owned()][..], selectors_before + 1));
    }
}
