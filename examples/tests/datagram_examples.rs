//! The examples over datagrams, each run as a program of its own.

#![forbid(unsafe_code)]
#![cfg(unix)]

mod support;

use std::net::UdpSocket;

use rustix::process::Signal;
use support::{Example, WATCHDOG, output};
use tulipa_examples::serve::Address;

fn serve(at: &str) -> (Example, String) {
    let (server, address) = Example::serve("udp_echo", &["--bind", at]);
    let Address::Tcp(address) = address else { panic!("it is an internet address") };
    (server, address)
}

#[test]
fn udp_echo_sends_back_each_datagram_and_ends_when_told() {
    for (at, signal) in [("127.0.0.1:0", Signal::INT), ("[::1]:0", Signal::TERM)] {
        let (server, address) = serve(at);
        let client = UdpSocket::bind(at).unwrap();
        client.set_read_timeout(Some(WATCHDOG)).unwrap();
        client.connect(&address).unwrap();
        let mut buffer = vec![0; 65_536];
        for length in [0, 1, 1000, 60_000] {
            client.send(&vec![7; length]).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), length);
        }
        // Somebody who leaves before the answer comes ends nothing.
        let gone = UdpSocket::bind(at).unwrap();
        gone.send_to(b"anybody?", &address).unwrap();
        drop(gone);
        client.send(b"still there").unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 11);
        server.signal(signal);
        let ended = server.end();
        assert_eq!(ended.status.code(), Some(0), "{:?}", ended.stderr);
        assert_eq!(ended.stdout, [""; 0]);
    }
}

#[test]
fn udp_echo_is_its_own_client() {
    let lines = output("udp_echo");
    assert!(lines[0].starts_with("listening on 127.0.0.1:"), "{lines:?}");
    assert_eq!(lines[1..], ["hello"]);
    let (server, address) = serve("127.0.0.1:0");
    let asked = Example::start("udp_echo", &["--connect", &address, "over there"]).end();
    assert!(asked.status.success(), "{:?}", asked.stderr);
    assert_eq!(asked.stdout, ["over there"]);
    server.signal(Signal::INT);
    assert_eq!(server.end().status.code(), Some(0));
    let refused = Example::start("udp_echo", &["--connect", &address, "gone"]).end();
    assert_eq!(refused.status.code(), Some(1));
}
