//! Tests that need a process to themselves, or one under `strace`: the test binary runs itself.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Kind;

/// Set in the child; its value is the name of the test to run.
const CHILD: &str = "TULIPA_SELECTOR_CHILD";

/// Whether this process is the child that runs `test`.
fn is_child(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|value| value == test)
}

fn rerun(program: &mut Command, test: &str) {
    program.args(["--exact", test, "--nocapture"]).env(CHILD, test);
    let output = program.stdin(Stdio::null()).output().expect("the test binary runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{test} failed in its own process:\n{text}");
    assert!(text.contains("1 passed"), "{test} is not the name of a test:\n{text}");
}

fn test_binary() -> PathBuf {
    std::env::current_exe().expect("a path")
}

/// The full name of a behaviour's test.
pub fn name_of<K: Kind>(behaviour: &str) -> String {
    format!("real::{}::{behaviour}", K::NAME)
}

/// Runs `body` in a process in which no other test runs.
pub fn alone(test: &str, body: impl FnOnce()) {
    if is_child(test) {
        body();
    } else {
        rerun(&mut Command::new(test_binary()), test);
    }
}

/// One system call as `strace` saw it.
#[derive(Debug)]
pub struct Call {
    pub thread: u32,
    pub name: String,
    pub line: String,
}

/// Runs `body` in a process of its own under `strace`, once for each of `injections` (or once with
/// none), then `judge` on the calls of the kinds in `trace` that it made between [`begin`] and
/// [`end`], in all threads. An injection is what `strace -e inject=` takes, and ` on PATH` behind it
/// makes it one for that file. Does nothing, and says so, where there is no `strace` or it may not
/// trace.
pub fn traced(
    test: &str,
    trace: &str,
    injections: &[&str],
    body: impl FnOnce(),
    judge: impl Fn(&[Call]),
) {
    if is_child(test) {
        return body();
    }
    if !has_strace() {
        return skip(test);
    }
    let log = format!("tulipa-selector-{}-{}", std::process::id(), test.replace("::", "-"));
    let log = std::env::temp_dir().join(log);
    let trace = format!("trace={trace},{MARKS}");
    for injection in if injections.is_empty() { &[""] } else { injections } {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-s", "64", "-e", &trace, "-o"]).arg(&log);
        let (injection, path) = injection.split_once(" on ").unwrap_or((injection, ""));
        if !injection.is_empty() {
            strace.args(["-e", &format!("inject={injection}")]);
        }
        if !path.is_empty() {
            strace.args(["-P", path]);
        }
        rerun(strace.arg(test_binary()), test);
        let text = std::fs::read_to_string(&log).expect("strace has written it");
        judge(&between_marks(&text));
    }
    let _ = std::fs::remove_file(&log);
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
    match (begin, end) {
        (Some(begin), Some(end)) => {
            calls.into_iter().skip(begin + 1).take(end - begin - 1).collect()
        }
        _ => Vec::new(),
    }
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
