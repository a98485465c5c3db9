//! Real servers, where they are installed.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::support::PATIENCE;

/// Who runs a server that refuses to be run by root: nobody.
const NOBODY: u32 = 65534;

/// Says that a test did not run, past the harness, which shows only what failed.
pub(crate) fn skipped(why: &str) {
    let _ = io::stderr().write_all(format!("skipped: {why}\n").as_bytes());
}

/// A program of that name, on the path or in one of these directories.
pub(crate) fn find(name: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(directories.iter().cloned());
    places.find_map(|place| Some(place.join(name)).filter(|program| program.is_file()))
}

/// A directory that is removed at the end, and belongs to the one who runs the servers.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tulipa-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).expect("it is new");
        if geteuid().is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("we are root");
        }
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program as nobody where we are root. It ends with the test, also when that is killed. `None`
/// where that takes a tool which is not there.
pub(crate) fn command(program: &Path) -> Option<Command> {
    let Some(tool) = find("setpriv", &[]) else {
        return (!geteuid().is_root()).then(|| Command::new(program));
    };
    let mut command = Command::new(tool);
    command.args(["--pdeathsig", "INT"]);
    if geteuid().is_root() {
        command.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={NOBODY}"));
        command.arg("--clear-groups");
    }
    command.arg(program);
    Some(command)
}

/// A server of somebody else, until this is dropped.
pub(crate) struct Server {
    child: Child,
    /// What it says; closed only after it.
    log: BufReader<UnixStream>,
}

impl Server {
    /// Starts it and waits until it says that it is ready.
    pub(crate) fn start(mut command: Command, ready: &str) -> Server {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        ours.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        let theirs = OwnedFd::from(theirs);
        command.stdin(Stdio::null());
        command.stdout(theirs.try_clone().expect("a descriptor")).stderr(theirs);
        let child = command.spawn().expect("it is installed");
        // It holds the other ends of the log.
        drop(command);
        let mut server = Server { child, log: BufReader::new(ours) };
        let mut said = String::new();
        while !said.contains(ready) {
            let read = server.log.read_line(&mut said);
            assert!(matches!(read, Ok(1..)), "{read:?}: it said {said}");
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let process = Pid::from_child(&self.child);
        // It is not waited for yet, so nobody else has its number.
        let _ = kill_process(process, Signal::INT);
        let _ = self.child.wait();
    }
}
