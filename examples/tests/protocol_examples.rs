//! The examples over protocols, each run as a program of its own.

#![forbid(unsafe_code)]
#![cfg(unix)]

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Barrier};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use rustix::process::{Resource, Signal, getrlimit};
use support::clients::{assert_at_end, bytes, end, flood, reset, round_trip, sip, text};
use support::{Directory, Ended, Example, WATCHDOG, connect, output};
use tulipa_examples::serve::{Address, Stream, raise_descriptor_limit};

const STYLES: [&str; 3] = ["protocol", "buffered", "streams"];

/// All styles, and both ways to listen.
fn each_echo_server(test: impl Fn(Example, Address)) {
    for style in STYLES {
        let (server, address) = Example::serve("echo_server", &["--style", style]);
        test(server, address);
        let directory = Directory::new();
        let path = directory.file("socket");
        let arguments = ["--unix", text(&path), "--style", style];
        let (server, address) = Example::serve("echo_server", &arguments);
        assert_eq!(address, Address::Unix(path.clone()));
        test(server, address);
        assert!(!path.exists(), "the socket file is still there");
    }
}

/// Writes from the place `sent` on what there is room for, and reads a little, to a megabyte at least.
fn trickle(client: &Stream, number: usize, mut sent: usize) -> (usize, usize) {
    let mut read = 0;
    while sent < 1 << 20 {
        let most = sent.min(read + 4096);
        read = sip(client, number, read, most);
        assert_eq!(read, most);
        match rustix::net::send(client, &bytes(number, sent, 4096), SendFlags::DONTWAIT) {
            Ok(n) => sent += n,
            Err(error) => assert_eq!(error, Errno::WOULDBLOCK),
        }
    }
    (read, sent)
}

#[test]
fn the_echo_server_sends_back_what_it_gets_and_ends_when_told() {
    for signal in [Signal::INT, Signal::TERM] {
        each_echo_server(|server, address| {
            let clients: Vec<_> = (0..100).map(|_| connect(&address)).collect();
            for (number, client) in clients.iter().enumerate() {
                round_trip(client, &bytes(number, 0, 10_000));
            }
            server.signal(signal);
            clients.iter().for_each(assert_at_end);
            let ended = server.end();
            assert_eq!(ended.status.code(), Some(0), "{:?}", ended.stderr);
            assert_eq!(ended.stdout, [""; 0], "it prints one line only");
        });
    }
}

#[test]
fn the_echo_server_does_not_read_from_a_client_that_does_not_read_and_loses_nothing() {
    each_echo_server(|server, address| {
        let (slow, other) = (connect(&address), connect(&address));
        let sent = flood(&slow, 1);
        round_trip(&other, b"nobody else has to wait");
        let (read, sent) = trickle(&slow, 1, sent);
        slow.shutdown_write().expect("it is connected");
        assert_eq!(sip(&slow, 1, read, sent), sent);
        assert_at_end(&slow);
        end(server, Signal::TERM);
    });
}

#[test]
fn rude_clients_of_the_echo_server_end_nobody_but_themselves() {
    each_echo_server(|server, address| {
        let polite = connect(&address);
        for number in 0..20 {
            reset(connect(&address));
            let unread = connect(&address);
            (&unread).write_all(&bytes(number, 0, 5000)).expect("the server reads");
            drop(unread);
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
fn a_second_signal_ends_the_wait_for_clients_of_the_echo_server_that_never_read() {
    each_echo_server(|server, address| {
        let (idle, stuck) = (connect(&address), connect(&address));
        round_trip(&idle, b"I am here");
        flood(&stuck, 9);
        server.signal(Signal::TERM);
        assert_at_end(&idle);
        end(server, Signal::TERM);
    });
}

#[test]
fn a_bad_command_line_of_a_server_is_explained() {
    for arguments in [["--style", "baroque"], ["--to", "here"]] {
        let ended = Example::start("echo_server", &arguments).end();
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.stderr.iter().any(|line| line.contains("--style protocol|buffered|streams")));
    }
    let ended = Example::start("echo_server", &["--bind", "256.0.0.1:0"]).end();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr[0].contains("256.0.0.1"), "{:?}", ended.stderr);
    assert_eq!(Example::start("proxy", &[]).end().status.code(), Some(2));
}

/// What the talks promise of one thread.
const MANY: usize = 9_900;

/// Whether this process and its children may have so many connections.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn may_have_many() -> bool {
    raise_descriptor_limit();
    let limit = getrlimit(Resource::Nofile).current;
    let enough = limit.is_none_or(|limit| limit >= MANY as u64 + 1000);
    if !enough {
        println!("skipped: {MANY} connections need `ulimit -n` of {}", MANY + 1000);
    }
    enough
}

#[test]
fn the_echo_server_serves_9900_connections_at_once() {
    if !may_have_many() {
        return;
    }
    for style in STYLES {
        let (server, address) = Example::serve("echo_server", &["--style", style]);
        let clients: Vec<Stream> = (0..MANY).map(|_| connect(&address)).collect();
        for round in 0..2 {
            for (number, mut client) in clients.iter().enumerate() {
                client.write_all(&bytes(number, round * 100, 100)).expect("the server reads");
            }
            for (number, mut client) in clients.iter().enumerate() {
                let mut echo = [0; 100];
                client.read_exact(&mut echo).expect("the server answers");
                assert_eq!(echo[..], bytes(number, round * 100, 100), "client {number}");
            }
        }
        server.signal(Signal::TERM);
        clients.iter().for_each(assert_at_end);
        let ended = server.end();
        assert_eq!(ended.status.code(), Some(0), "{:?}", ended.stderr);
    }
}

#[test]
fn lovely_protocol_hears_what_it_has_said() {
    let expected = ["it came back: What a lovely day!", "connection lost: as it should"];
    assert_eq!(output("lovely_protocol"), expected);
}

/// A client of the chat, who has been greeted.
struct Guest(Stream);

impl Guest {
    fn enter(address: &Address, number: usize, others: usize) -> Guest {
        let guest = Guest(connect(address));
        assert_eq!(guest.line(), format!("you are #{number}, with {others} others"));
        guest
    }

    fn say(&self, text: &str) {
        (&self.0).write_all(text.as_bytes()).expect("the chat reads");
    }

    fn line(&self) -> String {
        let (mut line, mut byte) = (Vec::new(), [0]);
        // One byte at a time, so that nothing of the next line is lost.
        loop {
            (&self.0).read_exact(&mut byte).expect("somebody says something");
            if byte == *b"\n" {
                break;
            }
            line.extend(byte);
        }
        String::from_utf8(line).expect("it is text")
    }
}

#[test]
fn chat_tells_everybody_else() {
    let (server, address) = Example::serve("chat", &[]);
    let first = Guest::enter(&address, 1, 0);
    let second = Guest::enter(&address, 2, 1);
    assert_eq!(first.line(), "#2 is here");
    let third = Guest::enter(&address, 3, 2);
    assert_eq!([first.line(), second.line()], ["#3 is here", "#3 is here"]);
    first.say("hel");
    first.say("lo\nall\n");
    for other in [&second, &third] {
        assert_eq!([other.line(), other.line()], ["#1: hello", "#1: all"]);
    }
    second.say("bye\n");
    drop(second);
    for other in [&first, &third] {
        assert_eq!([other.line(), other.line()], ["#2: bye", "#2 is gone"]);
    }
    third.say(&"x".repeat(5000));
    assert_eq!(first.line(), "#3 is gone");
    end(server, Signal::INT);
}

#[test]
fn chat_lets_go_of_one_who_never_reads() {
    let (server, address) = Example::serve("chat", &[]);
    let _silent = Guest::enter(&address, 1, 0);
    let speaker = Guest::enter(&address, 2, 1);
    let block = format!("{}\n", "y".repeat(4000)).repeat(16);
    let mut buffer = [0; 64];
    for _ in 0..2000 {
        speaker.say(&block);
        match rustix::net::recv(&speaker.0, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((count, _)) => {
                assert_eq!(&buffer[..count], b"#1 is gone\n");
                return end(server, Signal::TERM);
            }
            Err(error) => assert_eq!(error, Errno::WOULDBLOCK),
        }
    }
    panic!("the chat keeps all of it");
}

/// A proxy in front of an echo server.
fn proxied(test: impl Fn(Address)) {
    let (echo, far) = Example::serve("echo_server", &[]);
    let (proxy, address) = Example::serve("proxy", &["--to", &far.to_string()]);
    test(address);
    end(proxy, Signal::TERM);
    end(echo, Signal::TERM);
}

#[test]
fn the_proxy_passes_on_in_both_directions() {
    proxied(|address| {
        let clients: Vec<_> = (0..50).map(|_| connect(&address)).collect();
        for (number, client) in clients.iter().enumerate() {
            round_trip(client, &bytes(number, 0, 3000));
        }
        // The end of one direction comes back as the end of the other, after everything else.
        for client in &clients {
            (&mut &*client).write_all(b"last words").expect("it is connected");
            client.shutdown_write().expect("it is connected");
        }
        for client in &clients {
            let mut rest = String::new();
            (&mut &*client).read_to_string(&mut rest).expect("an end");
            assert_eq!(rest, "last words");
        }
    });
}

#[test]
fn the_proxy_does_not_read_what_nobody_takes_and_loses_nothing() {
    proxied(|address| {
        let (slow, other) = (connect(&address), connect(&address));
        let sent = flood(&slow, 4);
        round_trip(&other, b"nobody else has to wait");
        let (read, sent) = trickle(&slow, 4, sent);
        slow.shutdown_write().expect("it is connected");
        assert_eq!(sip(&slow, 4, read, sent), sent);
        assert_at_end(&slow);
        reset(other);
    });
}

#[test]
fn the_proxy_resets_a_client_for_whom_there_is_no_server() {
    let (_held, nobody) = refusing();
    let (proxy, address) = Example::serve("proxy", &["--to", &nobody]);
    // It may be so fast that connecting fails already.
    let read = TcpStream::connect(address.to_string()).and_then(|mut client| {
        client.set_read_timeout(Some(WATCHDOG))?;
        client.read(&mut [0])
    });
    assert_eq!(read.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    assert!(proxy.error_line().starts_with(&format!("cannot connect to {nobody}: ")));
    end(proxy, Signal::TERM);
}

#[test]
fn the_chaos_proxy_cuts_and_delays_and_loses_nothing_unless_it_resets() {
    let (echo, far) = Example::serve("echo_server", &[]);
    let far = far.to_string();
    let arguments = ["--to", &far, "--seed", "7", "--delay", "2", "--stall", "1"];
    let (calm, address) = Example::serve("chaos_proxy", &arguments);
    let clients: Vec<_> = (0..10).map(|_| connect(&address)).collect();
    for (number, client) in clients.iter().enumerate() {
        round_trip(client, &bytes(number, 0, 3000));
    }
    drop(clients);
    end(calm, Signal::TERM);
    let (wild, address) = Example::serve("chaos_proxy", &["--to", &far, "--reset", "1000"]);
    let client = connect(&address);
    // More than it lets through in either direction.
    let _refused = (&client).write_all(&[7; 100_000]);
    let mut rest = Vec::new();
    (&client).read_to_end(&mut rest).expect_err("a reset");
    end(wild, Signal::TERM);
    end(echo, Signal::TERM);
}

/// An address that nobody listens on, and nobody else can have as long as the socket is held.
fn refusing() -> (OwnedFd, String) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
    let socket = socket.expect("a socket");
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let name = rustix::net::getsockname(&socket).expect("it is bound");
    let address = SocketAddr::try_from(name).expect("an internet address");
    (socket, address.to_string())
}

/// A web server for `count` requests, which answers when that many have come if they come together.
fn web_server(count: usize, together: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let all_are_here = Arc::new(Barrier::new(if together { count } else { 1 }));
    std::thread::spawn(move || {
        for _ in 0..count {
            let (client, _) = listener.accept().expect("it listens");
            let all_are_here = all_are_here.clone();
            std::thread::spawn(move || answer(&client, &all_are_here));
        }
    });
    address
}

fn answer(mut client: &TcpStream, all_are_here: &Barrier) {
    client.set_read_timeout(Some(WATCHDOG)).expect("a socket takes a timeout");
    let mut lines = BufReader::new(client).lines().map(|line| line.expect("a line"));
    let first = lines.next().expect("a request");
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    all_are_here.wait();
    let path = first.split(' ').nth(1).expect("a path");
    let (status, page) = match path.strip_prefix("/bytes/") {
        Some(count) => ("200 OK", "b".repeat(count.parse().expect("a number"))),
        None => ("404 Not Found", "no such page".to_owned()),
    };
    let head = format!("HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n", page.len());
    // In two parts, the second of which may be long.
    client.write_all(head.as_bytes()).expect("the client reads");
    client.write_all(page.as_bytes()).expect("the client reads");
}

#[test]
fn http_get_fetches_pages_in_every_way_and_all_but_one_at_the_same_time() {
    let modes = [
        ("sync", false),
        ("thread", true),
        ("selector", true),
        ("asyncore", true),
        ("twisted", true),
        ("protocol", true),
        ("streams", true),
    ];
    for (mode, together) in modes {
        let address = web_server(4, together);
        let urls = ["/bytes/5", "/bytes/300000", "", "/bytes/0"]
            .map(|path| format!("http://{address}{path}"));
        let arguments = ["--mode", mode, &urls[0], &urls[1], &urls[2], &urls[3]];
        let Ended { status, stdout, stderr } = Example::start("http_get", &arguments).end();
        let results = ["200 5 bytes", "200 300000 bytes", "404 12 bytes", "200 0 bytes"];
        let expected: Vec<_> =
            urls.iter().zip(results).map(|(url, result)| format!("{url}: {result}")).collect();
        assert_eq!(stdout, expected, "{mode}");
        assert!(status.success(), "{mode}: {stderr:?}");
    }
}

#[test]
fn http_get_says_which_page_could_not_be_had() {
    for mode in ["sync", "thread", "selector", "asyncore", "twisted", "protocol", "streams"] {
        let address = web_server(1, false);
        let (_held, nobody) = refusing();
        let dead = format!("http://{nobody}/");
        let good = format!("http://{address}/bytes/1");
        let ended = Example::start("http_get", &["--mode", mode, &dead, &good]).end();
        assert_eq!(ended.status.code(), Some(1), "{mode}");
        let [first, second] = &ended.stdout[..] else { panic!("{mode}: {:?}", ended.stdout) };
        assert!(first.starts_with(&dead) && first.contains("refused"), "{mode}: {first}");
        assert_eq!(second, &format!("{good}: 200 1 bytes"));
    }
    assert_eq!(Example::start("http_get", &["https://x/"]).end().status.code(), Some(2));
    assert_eq!(Example::start("http_get", &["--mode", "y"]).end().status.code(), Some(2));
}
