//! Servers in processes of their own.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::cores;
use crate::servers::{Mode, Peer, Start};

/// The Python servers; see the file.
const PYTHON: &str = include_str!("servers/peers.py");

/// A server that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Whether Python has this module.
#[must_use]
pub fn python_has(module: &str) -> bool {
    let mut command = Command::new("python3");
    command.args(["-c", &format!("import {module}")]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether there is a program of this name, asked for its version.
#[must_use]
pub fn has(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// This program, as a process of its own.
///
/// # Errors
///
/// When it does not know where it is.
pub fn this_program(wrapper: &[&str]) -> io::Result<Command> {
    let program = std::env::current_exe()?;
    Ok(match wrapper {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    })
}

impl Server {
    /// Starts a server, inside of another program (`strace -c`) if one is given.
    ///
    /// # Errors
    ///
    /// When it does not start or does not say where it listens.
    pub fn start(peer: &Peer, mode: Mode, wrapper: &[&str]) -> io::Result<Server> {
        let mut command = match peer.start {
            Start::Rust(_) => {
                let mut command = this_program(wrapper)?;
                command.args(["--serve", peer.name, mode.name()]);
                command
            }
            Start::Python(library, layer) => {
                let core = thread::spawn(|| cores::pin(cores::SERVER)).join().ok().flatten();
                let core = core.map_or_else(|| "any".to_owned(), |core| core.to_string());
                let mut command = Command::new("python3");
                command.args(["-c", PYTHON, library, layer, mode.name(), &core]);
                command
            }
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = &mut child.stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().strip_prefix("listening on ").and_then(|text| text.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other(format!("{} said {line:?}", peer.name)));
        };
        Ok(Server { child, stdin, address })
    }

    /// The processor time that its threads have used.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let nanos = tasks.into_iter().flatten().flatten().filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// The bytes of its memory that are resident.
    #[must_use]
    pub fn resident(&self) -> u64 {
        resident(&self.child.id().to_string())
    }

    /// Waits until it has nothing to do.
    pub fn settle(&self) {
        const STEP: Duration = Duration::from_millis(4);
        const MOST: usize = 1000;
        let mut before = self.cpu();
        for _ in 0..MOST {
            thread::sleep(STEP);
            let now = self.cpu();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// Tells it to end, and waits until it has.
    pub fn finish(mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The resident bytes of a process, `self` for this one.
#[must_use]
pub fn resident(process: &str) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{process}/statm")).ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
