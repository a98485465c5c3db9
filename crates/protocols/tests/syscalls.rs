//! The budget of system calls, counted with `strace` in a process of its own.
#![cfg(all(target_os = "linux", not(miri)))]

mod common;
#[path = "../../loop/tests/os/mod.rs"]
mod os;

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

use common::{connect, settle, strict_loop, tcp};
use os::{Call, WAITS, begin, end, traced};
use tulipa_protocols::{
    Address, DatagramProtocol, DatagramTransport, Datagrams, Protocol, Transport,
};
use tulipa_selector::Timeout;

/// Everything that a connection could possibly call.
const ALL: &str = "epoll_pwait2,epoll_pwait,?epoll_wait,ppoll,?poll,epoll_ctl,read,write,readv,writev,\
                   recvfrom,recvmsg,sendto,sendmsg,fcntl,ioctl,getsockopt,setsockopt,getpeername,\
                   getsockname,sendmmsg,recvmmsg,clock_gettime,close,dup,dup3,eventfd2,timerfd_settime";

const MESSAGES: usize = 100;

struct Echo {
    pieces: usize,
}

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        for piece in data.chunks(data.len().div_ceil(self.pieces)) {
            transport.write(piece);
        }
        Ok(())
    }
}

/// What is made for 100 echoed messages, the peer's own calls not counted: it uses `read` and `write`.
fn echoes(test: &str, pieces: usize, size: usize) {
    traced(
        test,
        ALL,
        || {
            let event_loop = strict_loop();
            let (ours, mut peer) = tcp();
            let connection = connect(&event_loop, ours, Echo { pieces });
            settle(&event_loop);
            let (message, mut back) = (vec![7; size], vec![0; size]);
            let number = connection.with_fd(|fd| fd.as_raw_fd()).unwrap();
            assert!(number > 0);
            begin();
            for _ in 0..MESSAGES {
                peer.write_all(&message).unwrap();
                event_loop.run_once(Timeout::Never).unwrap();
                peer.read_exact(&mut back).unwrap();
            }
            end();
        },
        assert_budget,
    );
}

/// One wait, one receive and one send for each message; and the peer's two.
fn assert_budget(calls: &[Call]) {
    let of = |names: &[&str]| os::count(calls, names);
    let waits = of(&WAITS);
    assert_eq!(waits, MESSAGES, "waits");
    // std's sockets use `sendto` and `recvfrom` as well.
    assert_eq!(of(&["recvfrom", "recvmsg", "read"]), 2 * MESSAGES, "receives");
    assert_eq!(of(&["sendto", "sendmsg", "write"]), 2 * MESSAGES, "sends");
    let all = calls.len();
    assert_eq!(all, 5 * MESSAGES, "{:#?}", &calls[..calls.len().min(12)]);
}

#[test]
fn an_echoed_message_is_one_wait_one_receive_and_one_send() {
    echoes("an_echoed_message_is_one_wait_one_receive_and_one_send", 1, 100);
}

#[test]
fn many_writes_of_one_callback_leave_in_one_send() {
    echoes("many_writes_of_one_callback_leave_in_one_send", 50, 5000);
}

#[test]
fn writes_of_a_callback_of_the_loop_leave_in_one_send() {
    traced(
        "writes_of_a_callback_of_the_loop_leave_in_one_send",
        "sendto,sendmsg,epoll_ctl",
        || {
            let event_loop = strict_loop();
            let (ours, _peer) = tcp();
            let connection = connect(&event_loop, ours, Echo { pieces: 1 });
            settle(&event_loop);
            begin();
            for _ in 0..MESSAGES {
                let transport = connection.transport().clone();
                event_loop.call_soon(move |_| {
                    for _ in 0..20 {
                        transport.write(b"a line\n");
                    }
                });
                event_loop.run_once(Timeout::Immediate).unwrap();
            }
            end();
        },
        |calls| assert_eq!(calls.len(), MESSAGES, "{:#?}", &calls[..calls.len().min(12)]),
    );
}

#[test]
fn p5_connections_that_are_stuck_or_over_make_no_calls() {
    traced(
        "p5_connections_that_are_stuck_or_over_make_no_calls",
        ALL,
        || {
            let event_loop = strict_loop();
            let mut kept = Vec::new();
            for state in 0..3 {
                let (ours, peer) = tcp();
                let connection = connect(&event_loop, ours, Echo { pieces: 1 });
                connection.pause_reading();
                settle(&event_loop);
                match state {
                    0 => common::reset(peer),
                    1 => drop(connection.write(&vec![7; 16 << 20])),
                    _ => {
                        (&peer).write_all(b"unread").unwrap();
                        kept.push(peer);
                    }
                }
            }
            settle(&event_loop);
            begin();
            event_loop.run_once(std::time::Duration::from_millis(200)).unwrap();
            end();
        },
        |calls| assert!(calls.len() <= 2, "{calls:#?}"),
    );
}

struct DatagramEcho;

impl DatagramProtocol for DatagramEcho {
    fn datagram_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        from: &Address,
    ) -> io::Result<()> {
        transport.send_to(data, from);
        Ok(())
    }
}

#[test]
fn an_echoed_datagram_is_one_wait_two_receives_and_one_send() {
    traced(
        "an_echoed_datagram_is_one_wait_two_receives_and_one_send",
        ALL,
        || {
            let event_loop = strict_loop();
            let how = Datagrams::at("127.0.0.1:0");
            let endpoint = event_loop.run_until_complete(how.open(|| DatagramEcho));
            let endpoint = endpoint.unwrap().unwrap();
            settle(&event_loop);
            let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            peer.connect(endpoint.local_addr().unwrap().inet().unwrap()).unwrap();
            let mut back = [0; 100];
            begin();
            for _ in 0..MESSAGES {
                peer.send(&[7; 100]).unwrap();
                event_loop.run_once(Timeout::Never).unwrap();
                assert_eq!(peer.recv(&mut back).unwrap(), 100);
            }
            end();
        },
        |calls| {
            let of = |names: &[&str]| os::count(calls, names);
            assert_eq!(of(&WAITS), MESSAGES, "waits");
            // The second one finds nothing. std's socket receives by `recvfrom`, once.
            assert_eq!(of(&["recvmsg"]), 2 * MESSAGES, "receives");
            assert_eq!(of(&["sendto", "sendmsg", "sendmmsg"]), 2 * MESSAGES, "sends");
            assert_eq!(calls.len(), 6 * MESSAGES, "{:#?}", &calls[..calls.len().min(12)]);
        },
    );
}

#[test]
fn datagrams_of_one_callback_leave_in_one_call() {
    traced(
        "datagrams_of_one_callback_leave_in_one_call",
        "sendto,sendmsg,sendmmsg,epoll_ctl",
        || {
            let event_loop = strict_loop();
            let how = Datagrams::at("127.0.0.1:0");
            let endpoint = event_loop.run_until_complete(how.open(|| DatagramEcho));
            let endpoint = endpoint.unwrap().unwrap();
            let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let to = peer.local_addr().unwrap();
            settle(&event_loop);
            begin();
            for _ in 0..MESSAGES {
                let transport = endpoint.transport().clone();
                event_loop.call_soon(move |_| {
                    for number in 0..20_u8 {
                        transport.send_to(&[number], to);
                    }
                });
                event_loop.run_once(Timeout::Immediate).unwrap();
            }
            end();
        },
        |calls| assert_eq!(calls.len(), MESSAGES, "{:#?}", &calls[..calls.len().min(12)]),
    );
}

/// Set for the child: what the call for many is made to say.
const ERROR: &str = "TULIPA_SENDMMSG_ERROR";

/// Runs the test again with each of these injections into `sendmmsg`.
fn with_failing_batches(test: &str, injections: &[&str], body: impl FnOnce(&str)) {
    use std::process::{Command, Stdio};
    if let Ok(error) = std::env::var(ERROR)
        && os::is_child(test)
    {
        return body(&error);
    }
    for injection in injections {
        let mut strace = Command::new("strace");
        let inject = format!("inject=sendmmsg:error={injection}");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=sendmmsg", "-e", &inject]);
        os::select_test(strace.arg(os::test_binary()).env(ERROR, injection), test);
        // Without a strace that makes calls fail there is nothing to see.
        let Ok(output) = strace.stdin(Stdio::null()).output() else { return };
        let refused = String::from_utf8_lossy(&output.stderr).contains("strace:");
        if !refused {
            os::assert_passed(&format!("{test} ({injection})"), &output);
        }
    }
}

#[test]
fn b116_a_batch_that_fails_costs_one_datagram_at_most() {
    let test = "b116_a_batch_that_fails_costs_one_datagram_at_most";
    let injections = ["ENOSYS", "EIO:when=1", "ENOBUFS:when=1", "EAGAIN:when=1", "EINTR:when=1"];
    with_failing_batches(test, &injections, |injection| {
        let event_loop = strict_loop();
        let record = tulipa_testing::DatagramRecord::new();
        let how = Datagrams::at("127.0.0.1:0");
        let endpoint = event_loop.run_until_complete(how.open(|| record.protocol()));
        let endpoint = endpoint.unwrap().unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_nonblocking(true).unwrap();
        for number in 0..40_u8 {
            endpoint.send_to(&[number], peer.local_addr().unwrap());
        }
        settle(&event_loop);
        let lost = u8::from(injection.starts_with("EIO") || injection.starts_with("ENOBUFS"));
        let mut buffer = [0; 10];
        for number in lost..40 {
            assert_eq!(peer.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number, "the order is kept");
        }
        assert_eq!(record.errors().len(), usize::from(lost), "{:?}", record.errors());
        assert!(!endpoint.is_closing());
    });
}
