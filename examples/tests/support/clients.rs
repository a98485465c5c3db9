//! What the tests of echo servers do as clients.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use rustix::process::Signal;
use tulipa_examples::serve::{Stream, not_now};

use super::{Example, WATCHDOG};

/// More than a client that does not read can ever get rid of: many times what the kernel buffers.
pub(crate) const FLOOD: usize = 64 << 20;
/// How long a write may block before a client concludes that the server has stopped reading. If it
/// concludes so too early, the test only becomes easier.
pub(crate) const BLOCKED: Duration = Duration::from_millis(300);

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("the names of temporary files are plain")
}

/// The byte at a place of a client's stream: different for neighbours in either direction.
pub(crate) fn byte(client: usize, place: usize) -> u8 {
    ((client * 131 + place).wrapping_mul(0x9E37_79B1) >> 13) as u8
}

pub(crate) fn bytes(client: usize, from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|place| byte(client, place)).collect()
}

pub(crate) fn round_trip(mut client: &Stream, message: &[u8]) {
    client.write_all(message).expect("the server reads");
    let mut echo = vec![0; message.len()];
    client.read_exact(&mut echo).expect("the server answers");
    assert_eq!(echo, message);
}

pub(crate) fn assert_at_end(mut client: &Stream) {
    assert_eq!(client.read(&mut [0]).expect("an end, not an error"), 0);
}

/// Writes without reading until the server does not read any more. Returns how much that was.
pub(crate) fn flood(mut client: &Stream, number: usize) -> usize {
    set_socket_timeout(client, Timeout::Send, Some(BLOCKED)).expect("a socket takes a timeout");
    let mut sent = 0;
    loop {
        assert!(sent < FLOOD, "the server reads from a client that does not read");
        match client.write(&bytes(number, sent, 16 * 1024)) {
            Ok(n) => sent += n,
            Err(error) if not_now(&error) => break,
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
    set_socket_timeout(client, Timeout::Send, Some(WATCHDOG)).expect("a socket takes a timeout");
    sent
}

/// Reads a part of the echo a few bytes at a time. Returns where it ended.
pub(crate) fn sip(mut client: &Stream, number: usize, from: usize, to: usize) -> usize {
    let mut buffer = [0; 509];
    let mut place = from;
    while place < to {
        let most = buffer.len().min(to - place);
        let n = client.read(&mut buffer[..most]).expect("an answer or an end");
        if n == 0 {
            break;
        }
        assert_eq!(buffer[..n], bytes(number, place, n), "at {place}");
        place += n;
    }
    place
}

pub(crate) fn reset(client: Stream) {
    set_socket_linger(&client, Some(Duration::ZERO)).expect("a socket lingers");
    drop(client);
}

/// Asks the server to end and expects that it does so as it should.
pub(crate) fn end(server: Example, signal: Signal) {
    server.signal(signal);
    let ended = server.end();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.stderr);
    assert_eq!(ended.stdout, [""; 0], "it prints one line only");
}
