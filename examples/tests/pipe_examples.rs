//! The examples of pipes, terminals, and sockets that are handed over.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use support::{Directory, Ended, Example, WATCHDOG};
use tulipa_examples::serve::Address;

#[test]
fn stdin_lines_numbers_the_lines_of_a_pipe_as_they_come_and_of_a_file() {
    let mut example = Example::start_with_input("stdin_lines", &[], Stdio::piped());
    let mut input = example.input();
    for (line, answer) in [("one\n", "     1 one"), ("two\n", "     2 two")] {
        input.write_all(line.as_bytes()).expect("it reads");
        assert_eq!(example.line(), answer);
    }
    input.write_all(&[b'x'; 100_000]).expect("it reads");
    input.write_all(b"\nthe last, without an end").expect("it reads");
    drop(input);
    let Ended { status, stdout, .. } = example.end();
    assert!(status.success());
    assert_eq!(stdout.last().map(String::as_str), Some("     4 the last, without an end"));
    assert_eq!(stdout[0], "     3 (a line that is too long)");

    let directory = Directory::new();
    let path = directory.file("lines");
    let lines: String = (0..5000).map(|line| format!("line {line}\n")).collect();
    std::fs::write(&path, lines).expect("the directory is ours");
    let file = File::open(&path).expect("it was written");
    let ended = Example::start_with_input("stdin_lines", &[], file.into()).end();
    assert!(ended.status.success());
    assert_eq!(ended.stdout.len(), 5000);
    assert_eq!(ended.stdout[4999], "  5000 line 4999");
}

#[test]
fn stdin_lines_ends_with_the_null_device() {
    let ended = Example::start("stdin_lines", &[]).end();
    assert!(ended.status.success() && ended.stdout.is_empty(), "{ended:?}");
}

#[test]
fn serial_echo_talks_to_itself_over_a_terminal() {
    let ended = Example::start("serial_echo", &["across the wire"]).end();
    assert!(ended.status.success(), "{:?}", ended.stderr);
    let expected = [
        "echo: across the wire",
        "timed out: true",
        "waiting: true",
        "second reader: resource busy",
    ];
    assert_eq!(ended.stdout, expected);
}

fn client(address: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("nobody is refused");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a socket");
    BufReader::new(stream)
}

/// What a server answers: the number of its process.
fn ask(client: &mut BufReader<TcpStream>, question: &str) -> u32 {
    writeln!(client.get_mut(), "{question}").expect("it reads");
    let mut line = String::new();
    client.read_line(&mut line).expect("it answers");
    let (number, rest) = line.split_once(' ').expect("a number and the line");
    assert_eq!(rest, format!("{question}\n"));
    number.parse().expect("a number")
}

fn start(control: &str, address: &str) -> (Example, Address) {
    Example::serve("hot_restart", &["--control", control, "--bind", address])
}

#[test]
fn hot_restart_refuses_nobody_and_lets_clients_end_what_they_do() {
    let directory = Directory::new();
    let control = directory.file("control");
    let control = support::clients::text(&control);
    let (mut old, address) = start(control, "127.0.0.1:0");
    let Address::Tcp(name) = &address else { panic!("it listens on {address}") };
    // Somebody connects and asks all the time.
    let (over, target) = (Arc::new(AtomicBool::new(false)), name.clone());
    let asking = std::thread::spawn({
        let over = over.clone();
        move || {
            let (mut served, mut by) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                let number = ask(&mut client(&target), "who are you?");
                served += 1;
                if by.last() != Some(&number) {
                    by.push(number);
                }
            }
            (served, by)
        }
    });
    for _ in 0..3 {
        let before = u32::try_from(old.pid().as_raw_pid()).expect("it is positive");
        let mut early = client(name);
        assert_eq!(ask(&mut early, "before"), before);
        let (new, same) = start(control, "127.0.0.1:1");
        assert_eq!(same, address);
        // The old one has ended its accepting, or does so soon, and still serves its client.
        assert_eq!(ask(&mut early, "meanwhile"), before);
        drop(early);
        let Ended { status, stderr, .. } = old.end();
        assert!(status.success(), "{stderr:?}");
        old = new;
        let after = u32::try_from(old.pid().as_raw_pid()).expect("it is positive");
        assert_eq!(ask(&mut client(name), "after"), after);
    }
    over.store(true, Ordering::Relaxed);
    let (served, by) = asking.join().expect("nobody was refused");
    assert!(served >= 4 && by.len() >= 2, "{served} by {by:?}");
    support::clients::end(old, Signal::TERM);
    assert!(!std::path::Path::new(control).exists(), "it has tidied up");
}

#[test]
fn hot_restart_goes_on_when_the_next_one_fails_before_it_is_ready() {
    let directory = Directory::new();
    let control = directory.file("control");
    let (old, address) = start(support::clients::text(&control), "127.0.0.1:0");
    let Address::Tcp(name) = &address else { panic!("it listens on {address}") };
    let before = u32::try_from(old.pid().as_raw_pid()).expect("it is positive");
    for _ in 0..3 {
        // It comes, and goes.
        drop(std::os::unix::net::UnixStream::connect(&control).expect("it accepts"));
    }
    assert_eq!(ask(&mut client(name), "still there?"), before);
    support::clients::end(old, Signal::TERM);
}
