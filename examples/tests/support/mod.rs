//! Runs an example as its users do: in a process of its own, told what to do by its command line
//! and by signals. Each test program uses a part of this.
#![allow(dead_code)]

pub(crate) mod clients;
pub(crate) mod http;
pub(crate) mod markdown;
pub(crate) mod project;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Pid, Signal, kill_process};
use tulipa_examples::serve::{Address, Stream};

/// How long anything may take before a test gives up. No test needs it to be over.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// A running example; it dies with this handle.
#[derive(Debug)]
pub(crate) struct Example {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

/// How an example ended and what it said that nobody had read yet.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
}

impl Example {
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Example {
        Example::start_with_input(name, arguments, Stdio::null())
    }

    pub(crate) fn start_with_input(name: &str, arguments: &[&str], input: Stdio) -> Example {
        Example::spawn(Command::new(built(name)).args(arguments).stdin(input))
    }

    pub(crate) fn spawn(command: &mut Command) -> Example {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program starts");
        let stdout = lines(child.stdout.take().expect("it was piped"));
        let stderr = lines(child.stderr.take().expect("it was piped"));
        Example { child, stdout, stderr }
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn serve(name: &str, arguments: &[&str]) -> (Example, Address) {
        let example = Example::start(name, arguments);
        let line = next(&example.stdout).unwrap_or_else(|| {
            panic!("{name} ended: {:?}", rest(&example.stderr));
        });
        let address = line.strip_prefix("listening on ").expect("the line says where it listens");
        let address = match address.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(address.to_owned()),
        };
        (example, address)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it has not been waited for");
    }

    /// Its next line on the standard error.
    pub(crate) fn error_line(&self) -> String {
        next(&self.stderr).expect("it goes on")
    }

    /// The end of its standard input that is written to, if that was piped.
    pub(crate) fn input(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("it was piped and not taken yet")
    }

    /// Its next line on the standard output.
    pub(crate) fn line(&self) -> String {
        next(&self.stdout).expect("it goes on")
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let (stdout, stderr) = (rest(&self.stdout), rest(&self.stderr));
        // Its outputs are closed, which it leaves to its exit.
        let status = self.child.wait().expect("it is ours");
        Ended { status, stdout, stderr }
    }
}

/// Runs an example to its end, which must be a good one.
pub(crate) fn output(name: &str) -> Vec<String> {
    let Ended { status, stdout, stderr } = Example::start(name, &[]).end();
    assert!(status.success(), "{name}: {status}, {stderr:?}");
    stdout
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Where Cargo puts an example, as seen from where it puts this test.
pub(crate) fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.parent().and_then(Path::parent).expect("a test is in target/PROFILE/deps");
    let path = target.join("examples").join(name);
    assert!(path.exists(), "{name} is not built: `cargo build -p tulipa-examples --examples`");
    path
}

fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { return };
            let _nobody_reads = sender.send(line);
        }
    });
    receiver
}

fn next(lines: &Receiver<String>) -> Option<String> {
    match lines.recv_timeout(WATCHDOG) {
        Ok(line) => Some(line),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("no line and no end for {WATCHDOG:?}"),
    }
}

fn rest(lines: &Receiver<String>) -> Vec<String> {
    std::iter::from_fn(|| next(lines)).collect()
}

/// A client of a server, whose reads and writes end with an error when they take too long.
pub(crate) fn connect(address: &Address) -> Stream {
    let stream = match address {
        Address::Tcp(name) => {
            let name = name.parse().expect("a server prints a numeric address");
            Stream::Tcp(TcpStream::connect_timeout(&name, WATCHDOG).expect("it accepts"))
        }
        Address::Unix(path) => Stream::Unix(UnixStream::connect(path).expect("it accepts")),
    };
    for side in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&stream, side, Some(WATCHDOG)).expect("a socket takes a timeout");
    }
    stream
}

/// A directory that is removed with everything in it.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tulipa-examples-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("there is a directory for temporary files");
        Directory(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}
