//! Fetches a page with callbacks and nothing else: connect, wait until the socket is writable, send
//! the request, wait until it is readable, read until the end.
//!
//! Each callback says what to wait for next and who is to be called then. That is how servers for
//! ten thousand clients were written before coroutines, and what a coroutine turns into. The web
//! server is a thread of this program, so no network is needed.
//!
//! `cargo run --example xkcd_callbacks` prints the first 15 characters of the page.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use tulipa_examples::serve::not_now;
use tulipa_selector::{DefaultSelector, Events, Interest, Registration, Selector, Source, Timeout};

/// The number that a registration carries is the place of its callback in here.
const CALLBACKS: [fn(&mut Fetch) -> io::Result<()>; 2] = [Fetch::connected, Fetch::read];
const CONNECTED: u64 = 0;
const READ: u64 = 1;

const REQUEST: &str = "GET /353/ HTTP/1.0\r\nHost: xkcd.com\r\n\r\n";
const PAGE: &str = "<!DOCTYPE html>\n<title>xkcd: Python</title>\n<p>I wrote 20 short programs\n";
/// A server that never stops sending is not our friend; a page is a few kilobytes.
const LONGEST_RESPONSE: usize = 1 << 20;
/// Neither is one that never answers; far more than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

struct Fetch {
    socket: Rc<TcpStream>,
    /// `None` once there is nothing left to wait for.
    watch: Option<Registration>,
    unsent: &'static [u8],
    response: Vec<u8>,
}

impl Fetch {
    fn start(selector: &dyn Selector, address: SocketAddr) -> io::Result<Fetch> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        let socket = Rc::new(TcpStream::from(socket));
        socket.set_nonblocking(true)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let source = Source::shared(socket.clone());
        let watch = Some(selector.register(source, Interest::WRITABLE, CONNECTED)?);
        Ok(Fetch { socket, watch, unsent: REQUEST.as_bytes(), response: Vec::new() })
    }

    /// The attempt to connect has ended, well or badly, or there is room for more of the request.
    fn connected(&mut self) -> io::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match (&*self.socket).write(self.unsent) {
            Ok(sent) => self.unsent = &self.unsent[sent..],
            Err(error) if not_now(&error) => {}
            Err(error) => return Err(error),
        }
        if let (Some(watch), true) = (&self.watch, self.unsent.is_empty()) {
            watch.modify(Interest::READABLE, READ)?;
        }
        Ok(())
    }

    /// A part of the response has come, or its end.
    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        match (&*self.socket).read(&mut chunk) {
            Ok(0) => self.watch = None,
            Ok(n) if self.response.len() + n > LONGEST_RESPONSE => {
                return Err(io::Error::other("the response is too long"));
            }
            Ok(n) => self.response.extend_from_slice(&chunk[..n]),
            Err(error) if not_now(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = std::thread::spawn(move || serve_one(&listener));

    let selector = DefaultSelector::new()?;
    let give_up = selector.now() + PATIENCE;
    let mut fetch = Fetch::start(&selector, address)?;
    let mut events = Events::new();
    while fetch.watch.is_some() {
        selector.select(&mut events, Timeout::At(give_up))?;
        if selector.now() >= give_up {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for event in &events {
            CALLBACKS[event.data() as usize](&mut fetch)?;
        }
    }
    server.join().expect("the server does not panic")?;

    let response = String::from_utf8_lossy(&fetch.response);
    let (_head, page) = response.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    println!("{}", page.chars().take(15).collect::<String>());
    Ok(())
}

/// A web server for one request; whatever it is, there is only one page.
fn serve_one(listener: &TcpListener) -> io::Result<()> {
    let (mut client, _address) = listener.accept()?;
    let mut lines = BufReader::new(&client).lines();
    // The empty line ends the request. To close with some of it unread would reset the connection.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{PAGE}", PAGE.len())
}
