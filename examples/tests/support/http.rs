//! A web server for tests, written by hand so that it can behave badly.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::net::sockopt::set_socket_linger;

use super::WATCHDOG;

/// Serves until the test ends, each client in a thread of its own.
#[derive(Debug)]
pub(crate) struct Web {
    pub(crate) url: String,
    clients: Arc<AtomicUsize>,
}

/// What a server does after it has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It waits for the next request.
    Stay,
    /// It closes the connection, in order.
    Close,
    /// It breaks the connection off.
    Reset,
}

impl Web {
    /// `answer` gets the number of each request, from 0, and what to write to.
    pub(crate) fn new(
        answer: impl Fn(usize, &mut TcpStream) -> After + Send + Sync + 'static,
    ) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
        let (clients, requests) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let (counted, shared) = (clients.clone(), Arc::new((answer, requests)));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("it listens");
                counted.fetch_add(1, Ordering::SeqCst);
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let (answer, requests) = &*shared;
                    serve(client, || requests.fetch_add(1, Ordering::SeqCst), answer);
                });
            }
        });
        Web { url, clients }
    }

    /// How many connections there have been.
    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::SeqCst)
    }
}

fn serve(
    mut client: TcpStream,
    next: impl Fn() -> usize,
    answer: &impl Fn(usize, &mut TcpStream) -> After,
) {
    client.set_read_timeout(Some(WATCHDOG)).expect("a socket takes a timeout");
    let mut lines = BufReader::new(client.try_clone().expect("a descriptor")).lines();
    loop {
        let mut is_a_request = false;
        loop {
            match lines.next() {
                Some(Ok(line)) if line.is_empty() => break,
                Some(Ok(_)) => is_a_request = true,
                Some(Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                    return;
                }
                None => return,
            }
        }
        assert!(is_a_request, "there is something before the empty line");
        match answer(next(), &mut client) {
            After::Stay => {}
            After::Close => return,
            After::Reset => {
                set_socket_linger(&client, Some(std::time::Duration::ZERO)).expect("it lingers");
                return;
            }
        }
    }
}

/// Writes a whole response.
pub(crate) fn respond(client: &mut TcpStream, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    // Who was interrupted does not read any more.
    let _gone = client.write_all((head + body).as_bytes());
}
