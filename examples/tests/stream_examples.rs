//! The examples over streams, each run as a program of its own.

#![forbid(unsafe_code)]
#![cfg(unix)]

mod support;

use std::io::{Read, Write};

use rustix::process::Signal;
use support::{Directory, Ended, Example, connect};

#[test]
fn tcp_echo_client_hears_what_it_has_sent() {
    let (server, address) = Example::serve("echo_server", &["--style", "streams"]);
    let address = address.to_string();
    let client = Example::start("tcp_echo_client", &[&address, "Hello World!"]);
    let Ended { status, stdout, stderr } = client.end();
    assert!(status.success(), "{stderr:?}");
    let expected = ["Send: \"Hello World!\"", "Received: \"Hello World!\"", "Close the socket"];
    assert_eq!(stdout, expected);
    server.signal(Signal::TERM);
    assert_eq!(server.end().status.code(), Some(0));
}

#[test]
fn large_csv_sends_each_row_when_it_is_known() {
    let Ended { status, stdout, stderr } =
        Example::start("large_csv", &["--virtual", "--rows", "4"]).end();
    assert!(status.success(), "{stderr:?}");
    let expected = ["at 0.0 s: 0,0.0", "at 0.1 s: 1,0.1", "at 0.2 s: 2,0.2", "at 0.3 s: 3,0.3"];
    assert_eq!(stdout, expected);
}

#[test]
fn large_csv_speaks_http() {
    let (server, address) = Example::serve("large_csv", &["--rows", "2"]);
    let client = connect(&address);
    let mut client = &client;
    client.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").expect("it reads");
    let mut response = String::new();
    client.read_to_string(&mut response).expect("it answers");
    let (head, body) = response.split_once("\r\n\r\n").expect("it has a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("chunked"), "{head}");
    assert!(body.starts_with("6\r\n0,0.0\n\r\n6\r\n1,"), "{body:?}");
    assert!(body.ends_with("\r\n0\r\n\r\n"), "{body:?}");
    server.signal(Signal::INT);
    assert_eq!(server.end().status.code(), Some(0));
}

const SORTED: &str = "BD BR CD CN DE EG ET FR ID IN IR JP MX NG PH PK RU TR US VN";

#[test]
fn flags_are_downloaded_and_saved_in_every_way() {
    for mode in ["sequential", "thread", "async"] {
        let directory = Directory::new();
        let path = directory.file("flags");
        let arguments =
            ["--mode", mode, "--latency", "2", "--directory", path.to_str().expect("it is text")];
        let Ended { status, stdout, stderr } = Example::start("flags", &arguments).end();
        assert!(status.success(), "{mode}: {stderr:?}");
        let [progress, count] = &stdout[..] else { panic!("{mode}: {stdout:?}") };
        assert_eq!(count, "20 flags downloaded");
        let mut shown: Vec<_> = progress.split_whitespace().collect();
        if mode != "sequential" {
            // They come as they come.
            shown.sort_unstable();
        }
        assert_eq!(shown.join(" "), SORTED, "{mode}");
        for country in SORTED.split(' ') {
            let file = path.join(format!("{}.txt", country.to_lowercase()));
            let flag = std::fs::read_to_string(file).expect("it was saved");
            assert_eq!(flag, format!("the flag of {country}"));
        }
    }
    assert_eq!(Example::start("flags", &["--mode", "x"]).end().status.code(), Some(1));
}
