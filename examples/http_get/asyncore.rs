//! asyncore's way: a dispatcher for each socket, which says what it waits for and is told when it can; and a loop
//! over all dispatchers. Python's standard library had both; here they are.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use tulipa::selector::{DefaultSelector, Events, Interest, Registration, Selector, Source};
use tulipa_examples::serve::not_now;

use crate::{PATIENCE, Page, Pages, Url, collect};

/// What `asyncore.dispatcher` is.
trait Dispatcher {
    fn readable(&self) -> bool;
    fn writable(&self) -> bool;
    fn handle_read(&mut self) -> io::Result<()>;
    fn handle_write(&mut self) -> io::Result<()>;
    fn handle_error(&mut self, error: io::Error);
}

/// A dispatcher in the map of the loop.
struct Entry<D> {
    dispatcher: D,
    registration: Option<Registration>,
}

/// What `asyncore.loop()` is: until no dispatcher waits for anything, or for so long.
fn run_loop<D: Dispatcher>(
    selector: &DefaultSelector,
    map: &mut [Entry<D>],
    patience: Duration,
) -> io::Result<()> {
    let (mut events, deadline) = (Events::new(), selector.now() + patience);
    while map.iter().any(|entry| entry.registration.is_some()) && selector.now() < deadline {
        for entry in &mut *map {
            let read =
                if entry.dispatcher.readable() { Interest::READABLE } else { Interest::NONE };
            let write =
                if entry.dispatcher.writable() { Interest::WRITABLE } else { Interest::NONE };
            match &entry.registration {
                Some(watch) if read | write != Interest::NONE => {
                    watch.set_interest(read | write)?
                }
                // It waits for nothing any more.
                _ => entry.registration = None,
            }
        }
        if map.iter().any(|entry| entry.registration.is_some()) {
            selector.select(&mut events, deadline.into())?;
            dispatch(&events, map);
        }
    }
    Ok(())
}

fn dispatch<D: Dispatcher>(events: &Events, map: &mut [Entry<D>]) {
    for event in events.iter() {
        let Some(entry) = map.get_mut(event.data() as usize) else { continue };
        let dispatcher = &mut entry.dispatcher;
        let read = if event.is_readable() { dispatcher.handle_read() } else { Ok(()) };
        let written = read.and_then(|()| match event.is_writable() {
            true => dispatcher.handle_write(),
            false => Ok(()),
        });
        if let Err(error) = written {
            dispatcher.handle_error(error);
        }
    }
}

struct HttpClient {
    socket: Option<Rc<TcpStream>>,
    unsent: Vec<u8>,
    response: Vec<u8>,
    page: Option<io::Result<Page>>,
}

impl HttpClient {
    fn failed(error: io::Error) -> HttpClient {
        let (unsent, response) = (Vec::new(), Vec::new());
        HttpClient { socket: None, unsent, response, page: Some(Err(error)) }
    }

    /// What `create_socket` and `connect` do.
    fn connect(url: &Url) -> io::Result<HttpClient> {
        let address = url.host.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = TcpStream::from(rustix::net::socket(family, SocketType::STREAM, None)?);
        socket.set_nonblocking(true)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let unsent = url.request().into_bytes();
        Ok(HttpClient { socket: Some(Rc::new(socket)), unsent, response: Vec::new(), page: None })
    }

    fn socket(&self) -> io::Result<&TcpStream> {
        self.socket.as_deref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Dispatcher for HttpClient {
    fn readable(&self) -> bool {
        self.page.is_none() && self.unsent.is_empty()
    }

    fn writable(&self) -> bool {
        self.page.is_none() && !self.unsent.is_empty()
    }

    fn handle_read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        match self.socket()?.read(&mut chunk) {
            Ok(0) => self.page = Some(Page::parse(&self.response)),
            Ok(count) => collect(&mut self.response, &chunk[..count])?,
            Err(error) if not_now(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn handle_write(&mut self) -> io::Result<()> {
        if let Some(error) = self.socket()?.take_error()? {
            return Err(error);
        }
        match self.socket()?.write(&self.unsent) {
            Ok(sent) => drop(self.unsent.drain(..sent)),
            Err(error) if not_now(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn handle_error(&mut self, error: io::Error) {
        self.page = Some(Err(error));
    }
}

pub(crate) fn fetch(urls: &[Url]) -> Pages {
    let selector = DefaultSelector::new()?;
    let mut map = Vec::new();
    for (place, url) in urls.iter().enumerate() {
        let dispatcher = HttpClient::connect(url).unwrap_or_else(HttpClient::failed);
        let source = dispatcher.socket.clone().map(|socket| Source::shared(socket));
        let register = |source| selector.register(source, Interest::WRITABLE, place as u64);
        let registration = source.map(register).transpose()?;
        map.push(Entry { dispatcher, registration });
    }
    run_loop(&selector, &mut map, PATIENCE)?;
    let late = || Err(io::ErrorKind::TimedOut.into());
    Ok(map.into_iter().map(|entry| entry.dispatcher.page.unwrap_or_else(late)).collect())
}
