//! The budget of system calls of streams, counted with `strace` in a process of its own.
#![cfg(all(target_os = "linux", not(miri)))]

#[path = "../../loop/tests/os/mod.rs"]
mod os;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use os::{Call, WAITS, begin, end, traced};
use tulipa_loop::{EventLoop, spawn};
use tulipa_protocols::SocketLink;
use tulipa_selector::Timeout;
use tulipa_streams::{DEFAULT_LIMIT, open_link};

/// Everything that a connection could possibly call.
const ALL: &str = "epoll_pwait2,epoll_pwait,?epoll_wait,ppoll,?poll,epoll_ctl,read,write,readv,writev,\
                   recvfrom,recvmsg,sendto,sendmsg,fcntl,ioctl,getsockopt,setsockopt,getpeername,\
                   getsockname,clock_gettime,close,dup,dup3,eventfd2,timerfd_settime";

const MESSAGES: usize = 100;

/// What is called for messages of so many lines, each answered by itself.
fn echoes(test: &str, lines: usize) {
    traced(
        test,
        ALL,
        || {
            let event_loop = EventLoop::new().unwrap();
            let (ours, mut peer) = UnixStream::pair().unwrap();
            let started = event_loop.run_until_complete(async move {
                let link = SocketLink::adopt(ours).unwrap();
                let (mut reader, writer) = open_link(link, DEFAULT_LIMIT).await.unwrap();
                drop(spawn(async move {
                    loop {
                        let line = reader.read_line().await.unwrap();
                        writer.write(line);
                        writer.drain().await?;
                    }
                    #[allow(unreachable_code, reason = "it says what the error is")]
                    io::Result::Ok(())
                }));
            });
            started.unwrap();
            let message = b"a line\n".repeat(lines);
            let mut back = vec![0; message.len()];
            let mut exchange = || {
                peer.write_all(&message).unwrap();
                event_loop.run_once(Timeout::Never).unwrap();
                peer.read_exact(&mut back).unwrap();
            };
            for _ in 0..3 {
                exchange();
            }
            begin();
            for _ in 0..MESSAGES {
                exchange();
            }
            end();
        },
        assert_budget,
    );
}

/// One wait, one receive and one send for each message; and the peer's two.
fn assert_budget(calls: &[Call]) {
    let of = |names: &[&str]| os::count(calls, names);
    assert_eq!(of(&WAITS), MESSAGES, "waits");
    assert_eq!(of(&["recvfrom", "recvmsg", "read"]), 2 * MESSAGES, "receives");
    assert_eq!(of(&["sendto", "sendmsg", "write"]), 2 * MESSAGES, "sends");
    assert_eq!(calls.len(), 5 * MESSAGES, "{:#?}", &calls[..calls.len().min(12)]);
}

#[test]
fn an_echo_over_streams_is_one_wait_one_receive_and_one_send() {
    echoes("an_echo_over_streams_is_one_wait_one_receive_and_one_send", 1);
}

#[test]
fn lines_that_came_together_are_answered_by_one_send() {
    echoes("lines_that_came_together_are_answered_by_one_send", 16);
}
