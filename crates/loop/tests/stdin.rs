//! Standard input as a source of events, of every kind. Each test is in a process of its own.
#![cfg(all(target_os = "linux", not(miri)))]

mod os;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::rc::Rc;

use os::{assert_passed, is_child, select_test, test_binary, threads};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tulipa_loop::{EventLoop, Stdin};

/// How much is sent where there is room for it.
const LEN: usize = 300_000;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| b'a' + (index % 23) as u8).collect()
}

fn flags(fd: impl AsFd) -> (OFlags, rustix::io::FdFlags) {
    (fcntl_getfl(&fd).unwrap(), rustix::io::fcntl_getfd(&fd).unwrap())
}

/// In the child: reads standard input to its end, and compares.
fn read_all(expected: &[u8]) {
    let (before, crew) = (flags(std::io::stdin()), threads());
    let event_loop = EventLoop::new().unwrap();
    let input = Stdin::new(&event_loop).unwrap();
    let mut all = Vec::new();
    let read = async {
        let mut buffer = [0; 8192];
        loop {
            match input.read(&mut buffer).await? {
                0 => return std::io::Result::Ok(()),
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    };
    event_loop.run_until_complete(read).unwrap().unwrap();
    assert!(all == expected, "{} bytes instead of {}", all.len(), expected.len());
    assert_eq!((flags(std::io::stdin()), threads()), (before, crew), "with a reader");
    drop(input);
    event_loop.close().unwrap();
    assert_eq!((flags(std::io::stdin()), threads()), (before, crew), "afterwards");
}

/// Runs `test` in a child with this standard input, while `feed` runs here; the flags of the open
/// file, which the child shares with us, are the same afterwards.
fn run(test: &str, input: OwnedFd, feed: impl FnOnce()) {
    let ours = input.try_clone().unwrap();
    let before = flags(&ours);
    let mut command = Command::new(test_binary());
    select_test(&mut command, test).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(command);
    feed();
    assert_passed(test, &child.wait_with_output().unwrap());
    assert_eq!(flags(&ours), before, "they belong to everybody who shares the file");
}

#[test]
fn b22_a_pipe() {
    if is_child("b22_a_pipe") {
        return read_all(&pattern(LEN));
    }
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    run("b22_a_pipe", ours, || File::from(theirs).write_all(&pattern(LEN)).unwrap());
}

#[test]
fn b22_a_pipe_that_is_closed_without_a_byte() {
    if is_child("b22_a_pipe_that_is_closed_without_a_byte") {
        return read_all(b"");
    }
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    run("b22_a_pipe_that_is_closed_without_a_byte", ours, || drop(theirs));
}

#[test]
fn b22_a_socket() {
    if is_child("b22_a_socket") {
        return read_all(&pattern(LEN));
    }
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    run("b22_a_socket", ours.into(), || {
        theirs.write_all(&pattern(LEN)).unwrap();
        drop(theirs);
    });
}

#[test]
fn b22_a_regular_file() {
    if is_child("b22_a_regular_file") {
        return read_all(&pattern(LEN));
    }
    let path = std::env::temp_dir().join(format!("tulipa-stdin-{}", std::process::id()));
    std::fs::write(&path, pattern(LEN)).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    run("b22_a_regular_file", file.into(), || ());
}

#[test]
fn b22_the_null_device() {
    if is_child("b22_the_null_device") {
        return read_all(b"");
    }
    run("b22_the_null_device", File::open("/dev/null").unwrap().into(), || ());
}

#[test]
fn b22_a_terminal() {
    if is_child("b22_a_terminal") {
        return read_all(b"one\ntwo\nthree");
    }
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    assert!(rustix::termios::isatty(&terminal));
    let mut master = File::from(master);
    // Ctrl-D ends a line without a newline, and on an empty line it is the end.
    run("b22_a_terminal", terminal, || {
        master.write_all(b"one\ntwo\n").unwrap();
        let mut echo = [0; 10];
        master.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"one\r\ntwo\r\n", "the terminal echoes it");
        master.write_all(b"three\x04\x04").unwrap();
    });
}

#[test]
fn b22_a_closed_descriptor() {
    if is_child("b22_a_closed_descriptor") {
        // Rust's runtime opens the null device in its place.
        return read_all(b"");
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" <&-"]).arg(test_binary());
    let output = select_test(&mut shell, "b22_a_closed_descriptor").output().unwrap();
    assert_passed("b22_a_closed_descriptor", &output);
}

#[test]
fn b22_a_reader_of_standard_input() {
    if is_child("b22_a_reader_of_standard_input") {
        let event_loop = EventLoop::new().unwrap();
        let (stdin, mut all) = (Rc::new(std::io::stdin()), Vec::new());
        let source = stdin.clone();
        let read = move |handle: &tulipa_loop::LoopHandle| {
            let mut buffer = [0; 8192];
            match rustix::io::read(&*stdin, &mut buffer).unwrap() {
                0 => {
                    assert!(all == pattern(LEN));
                    assert!(handle.remove_reader(&*stdin));
                    handle.stop();
                }
                count => all.extend_from_slice(&buffer[..count]),
            }
        };
        event_loop.add_reader(source, read).unwrap();
        return event_loop.run_forever().unwrap();
    }
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let test = "b22_a_reader_of_standard_input";
    run(test, ours, || File::from(theirs).write_all(&pattern(LEN)).unwrap());
}

#[test]
fn a_read_that_is_given_up_takes_no_input() {
    if is_child("a_read_that_is_given_up_takes_no_input") {
        let event_loop = EventLoop::new().unwrap();
        let input = Stdin::new(&event_loop).unwrap();
        let mut byte = [0];
        let given_up = futures_lite::future::poll_once(input.read(&mut byte));
        assert!(event_loop.run_until_complete(given_up).unwrap().is_none());
        drop((input, event_loop));
        return read_all(b"input");
    }
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let test = "a_read_that_is_given_up_takes_no_input";
    run(test, ours, || File::from(theirs).write_all(b"input").unwrap());
}
