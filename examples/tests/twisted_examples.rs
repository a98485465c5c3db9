//! The examples of the Twisted kit and of several loops, each run as a program of its own.

#![forbid(unsafe_code)]
#![cfg(unix)]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::clients::{assert_at_end, bytes, end, round_trip, text};
use support::{Directory, Ended, Example, connect, output};
use tulipa_examples::serve::{Address, Stream};

/// Says something to a server, and hears so many lines.
fn converse(client: &Stream, words: &str, lines: usize) -> Vec<String> {
    let mut client: &Stream = client;
    client.write_all(words.as_bytes()).expect("it reads");
    let mut heard = Vec::new();
    while heard.iter().filter(|byte| **byte == b'\n').count() < lines {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("it answers");
        heard.push(byte[0]);
    }
    String::from_utf8(heard).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn the_line_server_answers_lines_and_counts_raw_bytes_however_they_come() {
    let (server, address) = Example::serve("line_server", &[]);
    let client = connect(&address);
    let words = "upper tulip\r\nreverse tulip\r\nbytes 5\r\n\r\n\x01\r\nupper x\r\nwhat\r\n";
    let answers = ["TULIP", "pilut", "their sum is 47", "X"];
    assert_eq!(converse(&client, words, 5)[..4], answers);
    let slow = connect(&address);
    for byte in words.as_bytes().chunks(1) {
        (&slow).write_all(byte).expect("it reads");
    }
    assert_eq!(converse(&slow, "", 5)[..4], answers);
    let long = format!("upper {}\r\nupper y\r\n", "x".repeat(2000));
    assert_eq!(converse(&client, &long, 2), ["? a line has at most 1000 bytes", "Y"]);
    assert_eq!(converse(&client, "quit\r\nupper z\r\n", 1), ["bye"]);
    assert_at_end(&client);
    end(server, Signal::TERM);
    assert_at_end(&slow);
}

#[test]
fn the_line_server_refuses_too_many_and_ends_the_idle() {
    let (server, address) = Example::serve("line_server", &["--clients", "1", "--idle", "0.5"]);
    let idle = connect(&address);
    assert_eq!(converse(&idle, "upper a\r\n", 1), ["A"]);
    let refused = connect(&address);
    assert_eq!(converse(&refused, "", 1), ["? too many clients"]);
    // It ends by itself.
    assert_at_end(&idle);
    end(server, Signal::INT);
}

#[test]
fn the_line_server_listens_on_any_endpoint() {
    let (server, address) = Example::serve("line_server", &["--endpoint", "tcp:0:127.0.0.1"]);
    assert_eq!(converse(&connect(&address), "upper a\r\n", 1), ["A"]);
    end(server, Signal::TERM);
    let directory = Directory::new();
    let path = directory.file("lines");
    let endpoint = format!("unix:{}:mode=600", text(&path));
    let (server, address) = Example::serve("line_server", &["--endpoint", &endpoint]);
    assert_eq!(address, Address::Unix(path.clone()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(converse(&connect(&address), "upper a\r\n", 1), ["A"]);
    end(server, Signal::TERM);
    let ended = Example::start("line_server", &["--endpoint", "tcp:eighty"]).end();
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr[0].contains("'port' is 'eighty'"), "{:?}", ended.stderr);
    for (endpoint, why) in [
        ("fd:99", "cannot take the descriptor 99: there is none of this number"),
        ("fd:2", "cannot take the descriptor 2"),
        ("systemd:index=0", "LISTEN_FDS is not set"),
    ] {
        let ended = Example::start("line_server", &["--endpoint", endpoint]).end();
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr[0].contains(why), "{endpoint}: {:?}", ended.stderr);
    }
}

#[test]
fn the_line_server_takes_sockets_that_it_was_started_with() {
    for (endpoint, pid) in [("fd:3", "1"), ("systemd:index=0", "$$"), ("systemd:name=lines", "$$")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = listener.local_addr().expect("an address");
        // The shell has the process id that its program will have.
        let script = format!(
            "LISTEN_PID={pid} LISTEN_FDS=1 LISTEN_FDNAMES=lines exec \"$0\" --endpoint {endpoint} 3<&0 0</dev/null"
        );
        let mut child = Command::new("sh")
            .args(["-c", &script, text(&support::built("line_server"))])
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut said = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut said).expect("it says where it listens");
        assert_eq!(said.trim_end(), format!("listening on {address}"), "{endpoint}");
        let client = connect(&Address::Tcp(address.to_string()));
        assert_eq!(converse(&client, "upper a\r\n", 1), ["A"]);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
        assert!(child.wait().expect("it is ours").success(), "{endpoint}");
    }
}

#[test]
fn the_echo_server_serves_with_several_loops_and_ends_when_told() {
    for style in ["protocol", "buffered", "streams"] {
        let arguments = ["--workers", "3", "--style", style];
        let (server, address) = Example::serve("echo_server", &arguments);
        let clients: Vec<_> = (0..30).map(|_| connect(&address)).collect();
        for (number, client) in clients.iter().enumerate() {
            round_trip(client, &bytes(number, 0, 10_000));
        }
        server.signal(Signal::TERM);
        clients.iter().for_each(assert_at_end);
        let ended = server.end();
        assert_eq!(ended.status.code(), Some(0), "{style}: {:?}", ended.stderr);
        assert_eq!(ended.stdout, [""; 0]);
    }
    assert_eq!(Example::start("echo_server", &["--workers", "0"]).end().status.code(), Some(2));
}

#[test]
fn deferreds_chain_fail_time_out_and_are_cancelled() {
    let lines = output("deferred");
    assert_eq!(
        lines,
        [
            "twice 21 is 42",
            "and twice that is 84",
            "an errback: 184 is too much for me",
            "the chain ends with 0",
            "nobody waits any more",
            "silence: the deferred has timed out",
            "a task: the deferred was cancelled",
            "there was a lot of ticking",
        ]
    );
}

/// Serves one client in the language of Redis, for as long as it stays. Answers leave in pieces.
fn small_redis() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let (client, _) = listener.accept().expect("a client");
        serve_redis(&client);
    });
    address
}

fn serve_redis(client: &TcpStream) {
    let mut requests = BufReader::new(client);
    let mut store: HashMap<String, String> = HashMap::new();
    while let Some(words) = request(&mut requests) {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let bulk = |value: Option<&String>| match value {
            Some(value) => format!("${}\r\n{value}\r\n", value.len()),
            None => "$-1\r\n".to_owned(),
        };
        let answer = match words[..] {
            ["SET", key, value] => {
                store.insert(key.to_owned(), value.to_owned());
                "+OK\r\n".to_owned()
            }
            ["GET", key] => bulk(store.get(key)),
            ["MGET", ref keys @ ..] => {
                let values = keys.iter().map(|key| bulk(store.get(*key)));
                format!("*{}\r\n{}", keys.len(), values.collect::<String>())
            }
            ["DEL", key] => format!(":{}\r\n", u8::from(store.remove(key).is_some())),
            ["INCR", key] => {
                let count = store.get(key).map_or(0, |count| count.parse().expect("a number")) + 1;
                store.insert(key.to_owned(), i32::to_string(&count));
                format!(":{count}\r\n")
            }
            ["NONSENSE"] => "?what\r\n".to_owned(),
            _ => "-ERR unknown command\r\n".to_owned(),
        };
        for piece in answer.as_bytes().chunks(3) {
            if (&*client).write_all(piece).is_err() {
                return;
            }
        }
    }
}

fn request(requests: &mut impl BufRead) -> Option<Vec<String>> {
    let mut line = || {
        let mut line = String::new();
        requests.read_line(&mut line).ok().filter(|count| *count > 0)?;
        Some(line.trim_end().to_owned())
    };
    let count: usize = line()?.strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        line()?;
        words.push(line()?);
    }
    Some(words)
}

const TOUR: [&str; 6] = [
    "SET: OK",
    "a thousand INCRs at once: in order",
    "GET: \"tulip\"",
    "GET: (nil)",
    "MGET: 1) \"tulip\"",
    "2) \"1000\"",
];

#[test]
fn the_redis_protocol_asks_without_waiting_and_gets_its_answers_in_order() {
    let ended = Example::start("redis_protocol", &["--connect", &small_redis()]).end();
    assert!(ended.status.success(), "{:?}", ended.stderr);
    assert_eq!(ended.stdout, TOUR);
    let run = |words: &[&str]| -> Ended {
        let address = small_redis();
        let arguments = [&["--connect", &address], words].concat();
        Example::start("redis_protocol", &arguments).end()
    };
    let ended = run(&["SING"]);
    assert_eq!(ended.stdout, ["(error) ERR unknown command"]);
    assert_eq!(ended.status.code(), Some(1));
    let ended = run(&["NONSENSE"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr[0].contains("that is not RESP"), "{:?}", ended.stderr);
}

#[test]
fn the_redis_protocol_talks_to_a_real_server_where_there_is_one() {
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").expect("an address");
        free.local_addr().expect("an address").port().to_string()
    };
    let directory = Directory::new();
    std::fs::create_dir(directory.file("data")).expect("a directory");
    let data = directory.file("data");
    let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", text(&data)];
    let server = Command::new("redis-server").args(arguments).stdout(Stdio::piped()).spawn();
    // Without one there is nothing to be tested.
    let Ok(mut server) = server else { return };
    let stdout = BufReader::new(server.stdout.take().expect("it is piped"));
    let ready = stdout.lines().map_while(Result::ok).any(|line| line.contains("Ready to accept"));
    let address = format!("127.0.0.1:{port}");
    let ended = ready.then(|| Example::start("redis_protocol", &["--connect", &address]).end());
    server.kill().expect("it is ours");
    server.wait().expect("it is ours");
    let ended = ended.expect("the server starts");
    assert!(ended.status.success(), "{:?}", ended.stderr);
    assert_eq!(ended.stdout, TOUR);
}
