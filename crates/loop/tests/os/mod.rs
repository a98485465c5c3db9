//! What the tests of descriptors, signals and threads share: processes of their own, `strace`,
//! descriptors, wakers that count.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part of it")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Wake, Waker};
use std::time::Duration;

use tulipa_loop::{EventLoop, LoopHandle};
use tulipa_selector::Timeout;

/// For how long a test waits for another thread before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Set in a child process; its value is the name of the test to run.
const CHILD: &str = "TULIPA_LOOP_CHILD";

/// Whether this process is the child that runs `test`.
pub fn is_child(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|value| value == test)
}

/// Runs `body` in a process in which no other test runs, with one thread.
pub fn alone(test: &str, body: impl FnOnce()) {
    if is_child(test) {
        body();
    } else {
        rerun(&mut Command::new(test_binary()), test);
    }
}

pub fn test_binary() -> PathBuf {
    std::env::current_exe().expect("a path")
}

/// Makes a command, which starts the test binary, run one test as the child.
pub fn select_test<'a>(program: &'a mut Command, test: &str) -> &'a mut Command {
    program.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, test)
}

fn rerun(program: &mut Command, test: &str) {
    let output = select_test(program, test).stdin(Stdio::null()).output();
    assert_passed(test, &output.expect("the test binary runs"));
}

#[track_caller]
pub fn assert_passed(test: &str, output: &std::process::Output) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let status = output.status;
    assert!(status.success(), "{test} failed in its own process, {status}:\n{text}");
    assert!(text.contains("1 passed"), "{test} is not the name of a test:\n{text}");
}

/// One system call as `strace` saw it.
#[derive(Debug)]
pub struct Call {
    pub thread: u32,
    pub name: String,
    pub line: String,
}

/// Runs `body` in a process of its own under `strace`, then `judge` on the calls of the kinds in
/// `trace` that it made between [`begin`] and [`end`], in all threads. Does nothing, and says so,
/// where there is no `strace` or it may not trace.
pub fn traced(test: &str, trace: &str, body: impl FnOnce(), judge: impl FnOnce(&[Call])) {
    if is_child(test) {
        return body();
    }
    if !has_strace() {
        return skip(test);
    }
    let log = std::env::temp_dir().join(format!("tulipa-loop-{}-{test}", std::process::id()));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-s", "64", "-e", &format!("trace={trace},{MARKS}"), "-o"]);
    rerun(strace.arg(&log).arg(test_binary()), test);
    let text = std::fs::read_to_string(&log).expect("strace has written it");
    let _ = std::fs::remove_file(&log);
    judge(&between_marks(&text));
}

#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn skip(test: &str) {
    println!("skipped: {test} needs strace");
}

fn has_strace() -> bool {
    let mut strace = Command::new("strace");
    let quiet =
        strace.args(["-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// The system calls that [`begin`] and [`end`] may be.
const MARKS: &str = "?lstat,?newfstatat,?statx";

/// Starts the part that is judged.
pub fn begin() {
    let _ = std::fs::symlink_metadata("/tulipa-begin");
}

/// Ends the part that is judged.
pub fn end() {
    let _ = std::fs::symlink_metadata("/tulipa-end");
}

fn between_marks(text: &str) -> Vec<Call> {
    let calls: Vec<_> = text.lines().filter_map(call).collect();
    let mark = |which: &str| calls.iter().position(|call| call.line.contains(which));
    let (begin, end) = (mark("/tulipa-begin"), mark("/tulipa-end"));
    let (begin, end) = (begin.expect("begin was called"), end.expect("end was called"));
    calls.into_iter().skip(begin + 1).take(end - begin - 1).collect()
}

/// Those of the thread that was the first to wait: libtest has a thread of its own.
pub fn of_the_loop(calls: &[Call]) -> Vec<&Call> {
    let wait = calls.iter().find(|call| WAITS.contains(&call.name.as_str()));
    let own = |call: &&Call| wait.is_none_or(|wait| wait.thread == call.thread);
    calls.iter().filter(own).collect()
}

/// `1234 name(arguments…) = result`; not the second half of an interrupted line.
fn call(line: &str) -> Option<Call> {
    let (thread, rest) = line.split_once(' ')?;
    let rest = rest.trim_start();
    let (name, _) = rest.split_once('(')?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then(|| Call {
        thread: thread.parse().unwrap_or(0),
        name: name.to_owned(),
        line: rest.to_owned(),
    })
}

/// How many of the calls have one of these names.
pub fn count(calls: &[Call], names: &[&str]) -> usize {
    calls.iter().filter(|call| names.contains(&call.name.as_str())).count()
}

/// The system calls with which a thread waits.
pub const WAITS: [&str; 5] = ["epoll_pwait2", "epoll_pwait", "epoll_wait", "ppoll", "poll"];

/// The open descriptors of this process and what they are.
pub fn open_descriptors() -> BTreeMap<i32, PathBuf> {
    let listing = std::fs::read_dir("/proc/self/fd").expect("a listing");
    let links = listing.filter_map(|entry| {
        let entry = entry.ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, std::fs::read_link(entry.path()).ok()?))
    });
    // Not the descriptor of the listing itself.
    links.filter(|(_, path)| !path.ends_with("fd")).collect()
}

/// How many threads this process has.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("a listing").count()
}

/// The descriptors that are in the epoll set of a loop, without its doorbell.
pub fn watched(event_loop: &EventLoop, descriptors: &[&dyn AsFd]) -> usize {
    let epoll = event_loop.backend_fd().expect("the loop is on epoll");
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{epoll}")).expect("its set");
    let numbers: Vec<_> = info
        .lines()
        .filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok())
        .collect();
    let is_watched = |fd: &&&dyn AsFd| numbers.contains(&fd.as_fd().as_raw_fd());
    descriptors.iter().filter(is_watched).count()
}

/// Two ends of a non-blocking stream.
pub fn pair() -> (Rc<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    ours.set_nonblocking(true).expect("a socket");
    theirs.set_nonblocking(true).expect("a socket");
    (Rc::new(ours), theirs)
}

/// Reads what there is and says how much it was.
pub fn drain(mut stream: &UnixStream) -> usize {
    let mut total = 0;
    loop {
        match std::io::Read::read(&mut stream, &mut [0; 4096]) {
            Ok(0) => return total,
            Ok(count) => total += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return total,
            Err(error) => panic!("{error}"),
        }
    }
}

pub fn send(mut stream: &UnixStream) {
    std::io::Write::write_all(&mut stream, b"x").expect("there is room");
}

/// One turn that does not wait.
#[track_caller]
pub fn turn(event_loop: &EventLoop) {
    event_loop.run_once(Timeout::Immediate).expect("a turn");
}

/// A place where callbacks note what happened.
#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub fn add(&self, what: impl ToString) {
        self.0.borrow_mut().push(what.to_string());
    }

    pub fn take(&self) -> Vec<String> {
        self.0.take()
    }

    /// A callback that notes its name.
    pub fn callback(&self, name: &str) -> impl FnMut(&LoopHandle) + use<> {
        let (log, name) = (self.clone(), name.to_owned());
        move |_| log.add(&name)
    }
}

/// A loop whose failures are noted instead of being logged.
pub fn reporting() -> (EventLoop, Log) {
    let log = Log::default();
    let reports = log.clone();
    let builder = EventLoop::builder().exception_handler(move |_, context| reports.add(context));
    (builder.build().expect("a loop"), log)
}

/// Runs a closure when it is dropped.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Counts how often it is dropped, in any thread.
#[derive(Clone, Default)]
pub struct Drops(Arc<AtomicUsize>);

impl Drops {
    pub fn count(&self) -> usize {
        self.0.load(SeqCst)
    }

    /// Something that counts when it is dropped.
    pub fn guard(&self) -> impl Send + Sync + use<> {
        struct Guard(Arc<AtomicUsize>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        Guard(self.0.clone())
    }
}

/// A waker that counts.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn new() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (wakes.clone(), Waker::from(wakes))
    }

    pub fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A counter for callbacks.
#[derive(Clone, Default)]
pub struct Counter(Rc<Cell<usize>>);

impl Counter {
    pub fn get(&self) -> usize {
        self.0.get()
    }

    pub fn callback(&self) -> impl FnMut(&LoopHandle) + use<> {
        let own = self.clone();
        move |_| own.0.set(own.0.get() + 1)
    }
}

/// Makes a closure own something.
pub fn keep<T>(_: &T) {}
