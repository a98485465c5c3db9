//! Datagrams for tasks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tulipa_protocols::{
    Address, DatagramProtocol, DatagramTransport, Datagrams, Destination, Endpoint, Received,
};

/// How many errors of a stream wait for somebody to ask; the first ones are kept.
const MOST_ERRORS: usize = 16;

/// A datagram endpoint for tasks: what [`StreamReader`](crate::StreamReader) and
/// [`StreamWriter`](crate::StreamWriter) are for connections. asyncio has none.
///
/// Nothing is kept here: a datagram is taken from the operating system by whoever receives it, so an idle
/// stream has no buffer, and one that nobody receives from is limited by the socket's own. Several tasks may send and
/// receive; dropping the stream sends what is queued and closes it.
///
/// ```
/// use std::io;
/// use tulipa_loop::EventLoop;
/// use tulipa_streams::DatagramStream;
///
/// let event_loop = EventLoop::new()?;
/// event_loop.run_until_complete(async {
///     let server = DatagramStream::bind("127.0.0.1:0").await?;
///     let address = server.local_addr().and_then(|address| address.inet()).expect("it is bound");
///     let client = DatagramStream::connect(address).await?;
///     client.send(b"hello").await?;
///     let mut buffer = [0; 100];
///     let received = server.recv_from(&mut buffer).await?;
///     server.send_to(&buffer[..received.length], &received.from).await?;
///     assert_eq!(client.recv(&mut buffer).await?, 5);
///     io::Result::Ok(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DatagramStream {
    transport: DatagramTransport,
    shared: Rc<Shared>,
}

/// What a stream and its protocol share.
#[derive(Default)]
struct Shared {
    /// Who waits for a datagram, by number.
    receivers: RefCell<Vec<(u64, Waker)>>,
    next: Cell<u64>,
    /// What the network has said.
    errors: RefCell<VecDeque<io::Error>>,
    /// Why the endpoint ended, if not because it was closed.
    failed: RefCell<Option<(io::ErrorKind, String)>>,
}

impl DatagramStream {
    /// Receives what is sent to this address, from anybody.
    ///
    /// # Errors
    /// As [`Datagrams::open`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn bind(endpoint: impl Into<Endpoint>) -> io::Result<DatagramStream> {
        DatagramStream::open(Datagrams::at(endpoint)).await
    }

    /// Sends to this address, and receives from it only.
    ///
    /// # Errors
    /// As [`Datagrams::open`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn connect(endpoint: impl Into<Endpoint>) -> io::Result<DatagramStream> {
        DatagramStream::open(Datagrams::to(endpoint)).await
    }

    /// The same with all options: Unix sockets, broadcast, sockets that exist already.
    ///
    /// # Errors
    /// As [`Datagrams::open`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn open(datagrams: Datagrams) -> io::Result<DatagramStream> {
        let shared = Rc::new(Shared::default());
        let protocol = StreamProtocol(shared.clone());
        let endpoint = datagrams.open(|| protocol).await?;
        Ok(DatagramStream { transport: endpoint.transport().clone(), shared })
    }

    /// Receives a datagram into `buffer`: how long it is, who has sent it, and whether it was longer than the buffer, so that
    /// its rest is lost.
    ///
    /// # Errors
    /// What the network has said of a datagram that was sent; the stream goes on after it. When it is closed, why:
    /// [`NotConnected`](io::ErrorKind::NotConnected) if it was closed here.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: a datagram is taken in the step that gives it.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut place = Place { shared: &self.shared, id: None };
        poll_fn(|context| self.poll_receive(context, buffer, &mut place)).await
    }

    /// Receives a datagram into `buffer`, and gives its length.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from); [`InvalidData`](io::ErrorKind::InvalidData) if it was longer than the
    /// buffer, which has its beginning then.
    ///
    /// # Cancel safety
    /// As [`recv_from`](Self::recv_from).
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let received = self.recv_from(buffer).await?;
        if received.truncated {
            let error = format!("a datagram is longer than {} bytes", received.length);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(received.length)
    }

    fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        place: &mut Place<'_>,
    ) -> Poll<io::Result<Received>> {
        if let Some(error) = self.take_error() {
            return Poll::Ready(Err(error));
        }
        match self.transport.try_receive(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) if self.transport.is_closing() => return Poll::Ready(Err(self.closed())),
            received => return Poll::Ready(received),
        }
        // Cloned and dropped where nothing is borrowed.
        let old = place.set(context.waker().clone());
        drop(old);
        Poll::Pending
    }

    /// Waits until no more than the high limit waits to be sent, then sends a datagram to an address. That it
    /// was taken says nothing of its arrival; what goes wrong is told by the next receive, or
    /// [`take_error`](Self::take_error).
    ///
    /// # Errors
    /// When the stream is closed, why.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready sends nothing.
    pub async fn send_to<'a>(&self, data: &[u8], to: impl Into<Destination<'a>>) -> io::Result<()> {
        let to = to.into();
        self.ready().await?;
        self.transport.send_to(data, to);
        Ok(())
    }

    /// The same to the peer that it is connected to.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to).
    ///
    /// # Cancel safety
    /// As [`send_to`](Self::send_to).
    pub async fn send(&self, data: &[u8]) -> io::Result<()> {
        self.ready().await?;
        self.transport.send(data);
        Ok(())
    }

    async fn ready(&self) -> io::Result<()> {
        if self.transport.get_write_buffer_size() > self.transport.get_write_buffer_limits().high {
            self.transport.drained().await;
        }
        if self.transport.is_closing() { Err(self.closed()) } else { Ok(()) }
    }

    /// Waits until all is sent, or lost.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn flush(&self) {
        self.transport.flushed().await;
    }

    /// What the network has said of a datagram, if that was not told yet.
    pub fn take_error(&self) -> Option<io::Error> {
        self.shared.errors.borrow_mut().pop_front()
    }

    /// Sends what is queued and closes the stream; who waits to receive gets an error.
    pub fn close(&self) {
        self.transport.close();
    }

    /// Waits until it is over.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_closed(&self) {
        self.transport.wait_closed().await;
    }

    /// The transport under it: for options, groups, limits.
    pub fn transport(&self) -> &DatagramTransport {
        &self.transport
    }

    /// Our address, also when it is over.
    pub fn local_addr(&self) -> Option<Address> {
        self.transport.local_addr()
    }

    /// The address of the peer that it is connected to, if it is.
    pub fn peer_addr(&self) -> Option<Address> {
        self.transport.peer_addr()
    }

    fn closed(&self) -> io::Error {
        match &*self.shared.failed.borrow() {
            Some((kind, text)) => io::Error::new(*kind, text.clone()),
            None => io::Error::new(io::ErrorKind::NotConnected, "the datagram stream is closed"),
        }
    }
}

impl Drop for DatagramStream {
    fn drop(&mut self) {
        self.transport.close();
    }
}

impl fmt::Debug for DatagramStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramStream").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl Shared {
    fn wake(&self) {
        let receivers = self.receivers.take();
        for (_, waker) in receivers {
            waker.wake();
        }
    }
}

/// One who waits for a datagram.
struct Place<'a> {
    shared: &'a Shared,
    id: Option<u64>,
}

impl Place<'_> {
    /// Sets the waker, and gives back the one before it.
    fn set(&mut self, waker: Waker) -> Option<Waker> {
        let mut receivers = self.shared.receivers.borrow_mut();
        let own = receivers.iter_mut().find(|(id, _)| Some(*id) == self.id);
        if let Some((_, known)) = own {
            return Some(std::mem::replace(known, waker));
        }
        let id = self.shared.next.get();
        self.shared.next.set(id + 1);
        receivers.push((id, waker));
        self.id = Some(id);
        None
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut receivers = self.shared.receivers.borrow_mut();
        let place = receivers.iter().position(|(id, _)| Some(*id) == self.id);
        let own = place.map(|place| receivers.swap_remove(place));
        drop(receivers);
        drop(own);
    }
}

/// The protocol under a stream: it receives nothing, it wakes those who do.
struct StreamProtocol(Rc<Shared>);

impl DatagramProtocol for StreamProtocol {
    fn datagram_received(
        &mut self,
        _: &DatagramTransport,
        _: &[u8],
        _: &Address,
    ) -> io::Result<()> {
        // `readable` receives nothing.
        Ok(())
    }

    fn readable(&mut self, _: &DatagramTransport) -> io::Result<()> {
        self.0.wake();
        Ok(())
    }

    fn error_received(&mut self, _: &DatagramTransport, error: io::Error) -> io::Result<()> {
        let mut errors = self.0.errors.borrow_mut();
        if errors.len() < MOST_ERRORS {
            errors.push_back(error);
        }
        drop(errors);
        self.0.wake();
        Ok(())
    }

    fn connection_lost(&mut self, _: &DatagramTransport, error: Option<io::Error>) {
        let failed = error.map(|error| (error.kind(), error.to_string()));
        self.0.failed.replace(failed);
        self.0.wake();
    }
}
