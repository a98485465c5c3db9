//! Bare sockets and a selector: all pages in one thread, and everything by hand.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::rc::Rc;

use rustix::net::{AddressFamily, SocketType};
use tulipa::selector::{DefaultSelector, Events, Interest, Registration, Selector, Source};
use tulipa_examples::serve::not_now;

use crate::{PATIENCE, Page, Pages, Url, collect};

/// Connecting and sending, then receiving, then over: with a page or an error.
enum Fetching {
    Sending(Rc<TcpStream>, Registration, Vec<u8>),
    Receiving(Rc<TcpStream>, Registration, Vec<u8>),
    Over(io::Result<Page>),
}

impl Fetching {
    /// `place` is the data of its registration.
    fn start(selector: &DefaultSelector, url: &Url, place: usize) -> io::Result<Fetching> {
        let address = url.host.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket =
            Rc::new(TcpStream::from(rustix::net::socket(family, SocketType::STREAM, None)?));
        socket.set_nonblocking(true)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let source = Source::shared(socket.clone());
        let watch = selector.register(source, Interest::WRITABLE, place as u64)?;
        Ok(Fetching::Sending(socket, watch, url.request().into_bytes()))
    }

    /// Its socket is ready.
    fn step(self) -> io::Result<Fetching> {
        match self {
            Fetching::Sending(socket, watch, mut unsent) => {
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                match (&*socket).write(&unsent) {
                    Ok(sent) => drop(unsent.drain(..sent)),
                    Err(error) if not_now(&error) => {}
                    Err(error) => return Err(error),
                }
                if !unsent.is_empty() {
                    return Ok(Fetching::Sending(socket, watch, unsent));
                }
                watch.set_interest(Interest::READABLE)?;
                Ok(Fetching::Receiving(socket, watch, Vec::new()))
            }
            Fetching::Receiving(socket, watch, mut response) => {
                let mut chunk = [0; 4096];
                match (&*socket).read(&mut chunk) {
                    Ok(0) => return Ok(Fetching::Over(Page::parse(&response))),
                    Ok(n) => collect(&mut response, &chunk[..n])?,
                    Err(error) if not_now(&error) => {}
                    Err(error) => return Err(error),
                }
                Ok(Fetching::Receiving(socket, watch, response))
            }
            over => Ok(over),
        }
    }
}

pub(crate) fn fetch(urls: &[Url]) -> Pages {
    let selector = DefaultSelector::new()?;
    let failed = |error| Fetching::Over(Err(error));
    let start = |(place, url)| Fetching::start(&selector, url, place).unwrap_or_else(failed);
    let mut all: Vec<Fetching> = urls.iter().enumerate().map(start).collect();
    let give_up = selector.now() + PATIENCE;
    let mut events = Events::new();
    while all.iter().any(|one| !matches!(one, Fetching::Over(_))) && selector.now() < give_up {
        selector.select(&mut events, give_up.into())?;
        for event in &events {
            let one = &mut all[event.data() as usize];
            let ready = std::mem::replace(one, failed(io::ErrorKind::TimedOut.into()));
            *one = ready.step().unwrap_or_else(failed);
        }
    }
    let page = |one| match one {
        Fetching::Over(page) => page,
        _ => Err(io::ErrorKind::TimedOut.into()),
    };
    Ok(all.into_iter().map(page).collect())
}
