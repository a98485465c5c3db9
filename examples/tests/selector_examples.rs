//! The examples over the selector alone, each run as a program of its own.

#![forbid(unsafe_code)]
#![cfg(unix)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::Signal;
use support::clients::{assert_at_end, bytes, end, flood, reset, round_trip, sip, text};
use support::{Directory, Example, connect};
use tulipa_examples::serve::{Address, Stream, raise_descriptor_limit};

const ECHO: &str = "selector_echo";

/// Both ways to listen. The directory holds the socket file.
fn serve_both(test: impl Fn(Example, Address)) {
    let (server, address) = Example::serve(ECHO, &["--bind", "127.0.0.1:0"]);
    test(server, address);

    let directory = Directory::new();
    let path = directory.file("socket");
    let (server, address) = Example::serve(ECHO, &["--unix", text(&path)]);
    test(server, address);
    assert!(!path.exists(), "the socket file is still there");
}

#[test]
fn loop_skeleton_talks_to_itself_and_ends() {
    let ended = Example::start("loop_skeleton", &[]).end();
    assert_eq!(
        ended.stdout,
        [
            "tick 1",
            "received \"greeting 1\"",
            "tick 2",
            "received \"greeting 2\"",
            "tick 3",
            "received \"greeting 3\"",
            "nobody is left to talk to",
        ]
    );
    assert!(ended.status.success(), "{:?}", ended.stderr);
}

#[test]
fn xkcd_callbacks_prints_the_first_15_characters_of_the_page() {
    let ended = Example::start("xkcd_callbacks", &[]).end();
    assert_eq!(ended.stdout, ["<!DOCTYPE html>"]);
    assert!(ended.status.success(), "{:?}", ended.stderr);
}

#[test]
fn without_arguments_the_server_takes_a_port_of_its_own() {
    let (server, address) = Example::serve(ECHO, &[]);
    let Address::Tcp(name) = &address else { panic!("{address}") };
    assert!(name.starts_with("127.0.0.1:") && !name.ends_with(":0"), "{name}");
    round_trip(&connect(&address), b"hello");
    end(server, Signal::INT);
}

#[test]
fn a_thousand_clients_at_once() {
    raise_descriptor_limit();
    serve_both(|server, address| {
        let clients: Vec<Stream> = (0..1000).map(|_| connect(&address)).collect();
        for round in 0..3 {
            for (number, mut client) in clients.iter().enumerate() {
                client.write_all(&bytes(number, round * 100, 100)).expect("the server reads");
            }
            for (number, mut client) in clients.iter().enumerate() {
                let mut echo = [0; 100];
                client.read_exact(&mut echo).expect("the server answers");
                assert_eq!(echo[..], bytes(number, round * 100, 100), "client {number}");
            }
        }
        for client in &clients {
            client.shutdown_write().expect("it is connected");
        }
        clients.iter().for_each(assert_at_end);
        end(server, Signal::TERM);
    });
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_and_loses_nothing() {
    serve_both(|server, address| {
        let slow = connect(&address);
        let other = connect(&address);
        let mut sent = flood(&slow, 1);
        round_trip(&other, b"nobody else has to wait");

        // From here on it reads a little and writes what there is room for, to a megabyte at least.
        let mut read = 0;
        while sent < 1 << 20 {
            let most = sent.min(read + 4096);
            read = sip(&slow, 1, read, most);
            assert_eq!(read, most);
            match rustix::net::send(&slow, &bytes(1, sent, 4096), SendFlags::DONTWAIT) {
                Ok(n) => sent += n,
                Err(error) => assert_eq!(error, Errno::WOULDBLOCK),
            }
        }
        slow.shutdown_write().expect("it is connected");
        assert_eq!(sip(&slow, 1, read, sent), sent);
        assert_at_end(&slow);
        end(server, Signal::TERM);
    });
}

#[test]
fn what_was_sent_before_a_half_close_comes_back() {
    serve_both(|server, address| {
        let client = connect(&address);
        let sent = flood(&client, 7);
        client.shutdown_write().expect("it is connected");
        assert_eq!(sip(&client, 7, 0, sent), sent);
        assert_at_end(&client);

        let silent = connect(&address);
        silent.shutdown_write().expect("it is connected");
        assert_at_end(&silent);
        end(server, Signal::INT);
    });
}

#[test]
fn rude_clients_end_nobody_but_themselves() {
    serve_both(|server, address| {
        let polite = connect(&address);
        round_trip(&polite, b"before");
        for number in 0..20 {
            // Gone at once, with an echo unread, with the server waiting to write, and garbage.
            reset(connect(&address));
            let unread = connect(&address);
            (&unread).write_all(&bytes(number, 0, 5000)).expect("the server reads");
            drop(unread);
            let garbage = connect(&address);
            round_trip(&garbage, b"\0\xff\xfe\r\n\r\n\x16\x03\x01 GET");
            reset(garbage);
            round_trip(&polite, b"in between");
        }
        let flooding = connect(&address);
        flood(&flooding, 3);
        reset(flooding);
        round_trip(&polite, b"after");
        end(server, Signal::TERM);
    });
}

#[test]
fn a_draining_server_closes_idle_clients_and_finishes_with_busy_ones() {
    for signal in [Signal::TERM, Signal::INT] {
        serve_both(|server, address| {
            let (idle, busy) = (connect(&address), connect(&address));
            round_trip(&idle, b"I am here");
            let sent = flood(&busy, 5);
            server.signal(signal);
            assert_at_end(&idle);
            match &address {
                Address::Tcp(name) => drop(TcpStream::connect(name).expect_err("it is closed")),
                Address::Unix(path) => {
                    drop(UnixStream::connect(path).expect_err("it is removed"));
                }
            }
            let echoed = sip(&busy, 5, 0, sent);
            match &address {
                // What TCP has not delivered by the time the server looks, it need not echo.
                Address::Tcp(_) => assert!(echoed > 0, "a clean end, but nothing before it"),
                Address::Unix(_) => assert_eq!(echoed, sent),
            }
            assert_at_end(&busy);
            (&busy).write_all(b"too late").expect("it is dropped, and resets nothing");
            drop(busy);
            let ended = server.end();
            assert_eq!(ended.status.code(), Some(0), "{:?}", ended.stderr);
        });
    }
}

#[test]
fn a_second_signal_ends_the_wait_for_clients_that_never_read() {
    serve_both(|server, address| {
        let (idle, stuck) = (connect(&address), connect(&address));
        round_trip(&idle, b"I am here");
        flood(&stuck, 9);
        server.signal(Signal::TERM);
        assert_at_end(&idle);
        end(server, Signal::TERM);
    });
}

#[test]
fn a_socket_file_of_somebody_else_is_left_alone() {
    let directory = Directory::new();
    let path = directory.file("socket");

    std::fs::write(&path, "precious").expect("the directory is ours");
    let ended = Example::start(ECHO, &["--unix", text(&path)]).end();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr[0].contains(text(&path)), "{:?}", ended.stderr);
    assert_eq!(std::fs::read(&path).expect("it is there"), b"precious");

    std::fs::remove_file(&path).expect("the directory is ours");
    let (server, _address) = Example::serve(ECHO, &["--unix", text(&path)]);
    std::fs::remove_file(&path).expect("the server made it");
    std::fs::write(&path, "precious").expect("the directory is ours");
    end(server, Signal::TERM);
    assert_eq!(std::fs::read(&path).expect("it is there"), b"precious");
}

#[test]
fn a_bad_command_line_is_explained() {
    let ended = Example::start(ECHO, &["--port", "80"]).end();
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.iter().any(|line| line.contains("--unix PATH")), "{:?}", ended.stderr);

    let ended = Example::start(ECHO, &["--help"]).end();
    assert!(ended.status.success());
    assert!(ended.stdout.iter().any(|line| line.contains("--bind ADDR")), "{:?}", ended.stdout);

    let ended = Example::start(ECHO, &["--bind", "256.0.0.1:0"]).end();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr[0].contains("256.0.0.1:0"), "{:?}", ended.stderr);
}

/// Only Linux can change the limits of another process, and tells how much it has worked.
#[cfg(target_os = "linux")]
mod at_the_limit {
    use super::*;
    use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

    /// Room for the server's own descriptors and a few clients.
    const FEW: u64 = 20;
    const CLIENTS: usize = 40;

    fn allow(server: &Example, descriptors: u64) {
        let limit = Rlimit { current: Some(descriptors), ..getrlimit(Resource::Nofile) };
        prlimit(Some(server.pid()), Resource::Nofile, limit).expect("it is our child");
    }

    /// A server that has run out of descriptors, and clients who have asked, most of them in vain.
    fn crowd() -> (Example, Vec<Stream>) {
        let (server, address) = Example::serve(ECHO, &[]);
        allow(&server, FEW);
        let clients: Vec<Stream> = (0..CLIENTS).map(|_| connect(&address)).collect();
        for mut client in &clients {
            client.write_all(b"?").expect("the kernel takes it");
        }
        assert!(server.error_line().contains("cannot accept"));
        (server, clients)
    }

    /// The processor time of a server, in the kernel's ticks.
    fn work(server: &Example) -> u64 {
        let path = format!("/proc/{}/stat", server.pid());
        let stat = std::fs::read_to_string(path).expect("it runs");
        let (_name, fields) = stat.rsplit_once(')').expect("a name in brackets");
        // The 14th and the 15th of all fields, the 2nd of which is the name.
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.map(|field| field.parse::<u64>().expect("a number")).sum()
    }

    /// Looks at the server for one interval after the other, until it does nothing in one of them.
    /// One that waits gets there on any machine, one that spins does not.
    fn assert_comes_to_rest(server: &Example) {
        let (silent, _held) = UnixStream::pair().expect("there are descriptors");
        silent.set_read_timeout(Some(support::clients::BLOCKED)).expect("a socket takes a timeout");
        let comes_to_rest = (0..40).any(|_| {
            let before = work(server);
            (&silent).read(&mut [0]).expect_err("nobody writes");
            work(server) == before
        });
        assert!(comes_to_rest, "it spins");
    }

    #[test]
    fn waiting_for_a_client_that_does_not_read_takes_no_processor_time() {
        serve_both(|server, address| {
            let stuck = connect(&address);
            flood(&stuck, 11);
            assert_comes_to_rest(&server);
            reset(stuck);
            end(server, Signal::TERM);
        });
    }

    fn assert_served(mut client: &Stream) {
        let mut answer = [0];
        client.read_exact(&mut answer).expect("its turn comes");
    }

    #[test]
    fn those_who_wait_are_served_as_others_leave() {
        let (server, clients) = crowd();
        for client in clients {
            assert_served(&client);
        }
        end(server, Signal::TERM);
    }

    #[test]
    fn those_who_wait_are_served_later_if_nobody_leaves() {
        let (server, clients) = crowd();
        assert_comes_to_rest(&server);
        allow(&server, 1000);
        clients.iter().for_each(assert_served);
        end(server, Signal::TERM);
    }
}
