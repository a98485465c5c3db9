//! Standard input and output as streams, in processes of their own, which are given what a shell would give them.
#![forbid(unsafe_code)]
#![cfg(all(target_os = "linux", not(miri)))]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tulipa_loop::EventLoop;
use tulipa_streams::{stderr, stdin, stdout};

/// Set in a child process; its value is what it is to do.
const CHILD: &str = "TULIPA_STDIO_CHILD";
const BEGIN: &str = "<<<";
const END: &str = ">>>";

/// What the child does: this test runs itself.
#[test]
fn child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let event_loop = EventLoop::new().unwrap();
    event_loop
        .run_until_complete(async {
            let output = stdout().unwrap();
            output.write(BEGIN.as_bytes());
            output.flush().await.unwrap();
            let mut input = stdin().unwrap();
            if what == "one line" {
                // It ends although more may come.
                let line = input.read_line().await.unwrap().to_vec();
                output.write_all(&line).await.unwrap();
            } else {
                loop {
                    let mut buffer = vec![0; 10_000];
                    let count = input.read(&mut buffer).await.unwrap();
                    if count == 0 {
                        break;
                    }
                    output.write_all(&buffer[..count]).await.unwrap();
                }
                assert_eq!(input.read(&mut [0; 8]).await.unwrap(), 0, "the end stays");
            }
            output.write_all(END.as_bytes()).await.unwrap();
            output.flush().await.unwrap();
            let errors = stderr().unwrap();
            errors.write(b"all is well\n");
            errors.flush().await.unwrap();
        })
        .unwrap();
}

fn command(what: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CHILD, what);
    command.stderr(Stdio::null());
    command
}

fn spawn(what: &str, input: impl Into<Stdio>, output: impl Into<Stdio>) -> Child {
    command(what).stdin(input).stdout(output).spawn().unwrap()
}

/// What the child has copied, of all that is on its standard output.
#[track_caller]
fn copied(output: &[u8]) -> &[u8] {
    let find = |what: &str| {
        let found = output.windows(what.len()).position(|window| window == what.as_bytes());
        found.unwrap_or_else(|| panic!("no {what} in {:?}", String::from_utf8_lossy(output)))
    };
    let (from, to) = (find(BEGIN) + BEGIN.len(), find(END));
    &output[from..to]
}

/// Reads until the child has written something.
fn read_until(mut source: impl Read, what: &str) -> Vec<u8> {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(what.as_bytes()) {
        match source.read(&mut byte) {
            Ok(0) => panic!("it ended with {:?}", String::from_utf8_lossy(&read)),
            Ok(_) => read.push(byte[0]),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&read)),
        }
    }
    read
}

fn text(size: usize) -> Vec<u8> {
    (0..size).map(|place| b'a' + (place * place / 7 % 26) as u8).collect()
}

fn temporary(name: &str) -> File {
    let path = std::env::temp_dir().join(format!("tulipa-stdio-{}-{name}", std::process::id()));
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path);
    std::fs::remove_file(&path).unwrap();
    file.unwrap()
}

fn flags(file: impl AsFd) -> OFlags {
    rustix::fs::fcntl_getfl(file).unwrap()
}

/// The two ends of a pseudo-terminal, of which nothing is echoed or changed.
fn terminal() -> (File, OwnedFd) {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let options = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let far =
        rustix::fs::open(ptsname(&near, Vec::new()).unwrap(), options, Mode::empty()).unwrap();
    let mut settings = tcgetattr(&far).unwrap();
    settings.make_raw();
    tcsetattr(&far, OptionalActions::Now, &settings).unwrap();
    (near.into(), far)
}

#[test]
fn b22_standard_input_is_a_file_the_null_device_or_closed() {
    for size in [0, 1, 1_000_000] {
        let mut file = temporary(&format!("input-{size}"));
        file.write_all(&text(size)).unwrap();
        file.rewind().unwrap();
        let output = spawn("copy", file, Stdio::piped()).wait_with_output().unwrap();
        assert!(output.status.success());
        assert!(copied(&output.stdout) == text(size), "{size} bytes");
    }
    let output = spawn("copy", Stdio::null(), Stdio::piped()).wait_with_output().unwrap();
    assert_eq!(copied(&output.stdout), b"");
    // A shell's way to close it. The runtime puts the null device in its place.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec "$0" --exact child --nocapture --test-threads=1 <&-"#]);
    shell.arg(std::env::current_exe().unwrap()).env(CHILD, "copy");
    let output = shell.output().unwrap();
    assert!(output.status.success());
    assert_eq!(copied(&output.stdout), b"");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("all is well"), "{errors}");
}

#[test]
fn standard_output_is_a_file_that_is_appended_to_or_the_null_device() {
    for append in [false, true] {
        let path = std::env::temp_dir().join(format!("tulipa-append-{}", std::process::id()));
        std::fs::write(&path, "before ").unwrap();
        let mut options = File::options();
        options.read(true).append(append).write(true);
        let mut file = options.open(&path).unwrap();
        let start = if append { 0 } else { file.seek(std::io::SeekFrom::End(0)).unwrap() };
        assert_eq!(start > 0, !append);
        let mut child = spawn("copy", Stdio::piped(), file.try_clone().unwrap());
        child.stdin.take().unwrap().write_all(&text(200_000)).unwrap();
        assert!(child.wait().unwrap().success());
        let written = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(written.starts_with(b"before "));
        assert!(copied(&written) == text(200_000));
    }
    let mut child = spawn("copy", Stdio::piped(), Stdio::null());
    child.stdin.take().unwrap().write_all(&text(200_000)).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_flags_of_pipes_are_as_before_also_while_the_program_runs() {
    let (input, far_input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (far_output, output) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let before = (flags(&input), flags(&output));
    let mut child = spawn("copy", input.try_clone().unwrap(), output.try_clone().unwrap());
    let (mut far_input, mut far_output) = (File::from(far_input), File::from(far_output));
    read_until(&mut far_output, BEGIN);
    far_input.write_all(b"a line\n").unwrap();
    read_until(&mut far_output, "a line\n");
    // Killed now it could set nothing back.
    assert_eq!((flags(&input), flags(&output)), before);
    // The pipe stays open: the child's test harness has something to say too.
    let reader = std::thread::spawn(move || (read_until(&mut far_output, END), far_output));
    far_input.write_all(&text(500_000)).unwrap();
    drop(far_input);
    let (copied, _far_output) = reader.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(copied.starts_with(&text(500_000)));
    assert_eq!((flags(&input), flags(&output)), before);
}

#[test]
fn the_flags_of_a_terminal_are_as_before_also_while_the_program_runs() {
    let (near, far) = terminal();
    let before = flags(&far);
    let mut child = spawn("one line", far.try_clone().unwrap(), far.try_clone().unwrap());
    read_until(&near, BEGIN);
    assert_eq!(flags(&far), before);
    (&near).write_all(b"typed\n").unwrap();
    let line = read_until(&near, END);
    assert_eq!(String::from_utf8_lossy(&line), "typed\n>>>");
    assert!(child.wait().unwrap().success(), "nobody has closed its input");
    assert_eq!(flags(&far), before);
}

#[test]
fn b22_a_terminal_that_is_hung_up_is_the_end_of_the_input() {
    let (near, far) = terminal();
    let mut child = spawn("copy", far, Stdio::piped());
    let mut output = child.stdout.take().unwrap();
    read_until(&mut output, BEGIN);
    (&near).write_all(b"before it\n").unwrap();
    read_until(&mut output, "before it\n");
    drop(near);
    read_until(&mut output, END);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_cannot_be_opened_once_more_is_used_carefully() {
    // The near end of a terminal is such a thing: opening it makes another terminal.
    let (near, far) = terminal();
    let before = flags(&near);
    let mut child = spawn("copy", near.try_clone().unwrap(), near.try_clone().unwrap());
    let mut peer = File::from(far);
    read_until(&mut peer, BEGIN);
    assert_eq!(flags(&near), before);
    let mut writer = peer.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&text(100_000)).unwrap());
    let mut echo = vec![0; 100_000];
    peer.read_exact(&mut echo).unwrap();
    assert!(echo == text(100_000));
    writing.join().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(flags(&near), before);
}

#[test]
fn a_device_that_is_no_terminal_is_standard_input() {
    let mut child = spawn("copy", File::open("/dev/zero").unwrap(), Stdio::piped());
    let mut output = child.stdout.take().unwrap();
    read_until(&mut output, BEGIN);
    let mut zeros = vec![1; 1_000_000];
    output.read_exact(&mut zeros).unwrap();
    assert!(zeros.iter().all(|byte| *byte == 0));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_fifo_whose_last_writer_was_gone_before_ends_at_once() {
    let path = std::env::temp_dir().join(format!("tulipa-stdin-fifo-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
    let both = File::options().read(true).write(true).open(&path).unwrap();
    let reader = File::open(&path).unwrap();
    (&both).write_all(b"the last words").unwrap();
    drop(both);
    std::fs::remove_file(&path).unwrap();
    let output = spawn("copy", reader, Stdio::piped()).wait_with_output().unwrap();
    assert_eq!(copied(&output.stdout), b"the last words");
}

#[test]
fn a_socket_is_standard_input_and_output() {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let shared = OwnedFd::from(far);
    let mut child = spawn("copy", shared.try_clone().unwrap(), shared.try_clone().unwrap());
    read_until(&near, BEGIN);
    assert!(!flags(&shared).contains(OFlags::NONBLOCK));
    let mut writer = near.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&text(1_000_000)).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut echo = vec![0; 1_000_000];
    (&near).read_exact(&mut echo).unwrap();
    assert!(echo == text(1_000_000));
    writing.join().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn b83_a_reader_that_is_gone_is_an_error_and_no_signal() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut child = spawn("copy", Stdio::piped(), writer);
    let mut reader = File::from(reader);
    read_until(&mut reader, BEGIN);
    drop(reader);
    let mut input = child.stdin.take().unwrap();
    // It may be gone already when more is written.
    let _ = input.write_all(&text(1_000_000));
    drop(input);
    let status = child.wait().unwrap();
    // Its `unwrap` has met an error: a test that fails, not one that was killed.
    assert_eq!(status.code(), Some(101), "{status}");
}
