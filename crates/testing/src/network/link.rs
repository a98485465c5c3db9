//! What a program holds of a simulated network: streams, and listening sockets.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tulipa_protocols::{Address, Link};
use tulipa_selector::{Source, VirtualId};

use super::core::{CLIENT, PairId, SERVER};
use super::{Inner, MemoryNetwork};

impl MemoryNetwork {
    /// Connects to an address, from the host that the code at hand runs on.
    ///
    /// # Errors
    /// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) if nobody listens there;
    /// [`TimedOut`](io::ErrorKind::TimedOut), after two minutes of virtual time, if nobody answers.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up; a server that has accepted it already sees a reset.
    pub async fn connect_link(&self, to: SocketAddr) -> io::Result<NetworkLink> {
        let (from, to) = (self.here(), self.meant(to));
        let inner = self.inner.clone();
        let id = inner.with(|core| core.connect(from, to));
        Connecting { inner, id }.await
    }

    /// Takes an address of the host that the code at hand runs on; port 0 is any that is free. Nobody can connect
    /// before [`NetworkListener::listen`].
    ///
    /// # Errors
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if it is taken;
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) if no host has it.
    pub fn bind(&self, address: SocketAddr) -> io::Result<NetworkListener> {
        let address = self.meant(address);
        let (address, source) = self.inner.with(|core| core.bind(address))?;
        Ok(NetworkListener { inner: self.inner.clone(), address, source })
    }
}

/// Waits for the answer to an attempt to connect.
struct Connecting {
    inner: Rc<Inner>,
    id: u64,
}

impl Future for Connecting {
    type Output = io::Result<NetworkLink>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloned and dropped where nothing is borrowed.
        let waker = context.waker().clone();
        let (result, unused) = self.inner.with(|core| match core.attempts.get_mut(&self.id) {
            Some(attempt) => match attempt.result.take() {
                Some(result) => (Some(result), Some(waker)),
                None => (None, attempt.waker.replace(waker)),
            },
            None => (Some(Err(io::ErrorKind::NotConnected.into())), Some(waker)),
        });
        drop(unused);
        match result {
            Some(Ok(pair)) => Poll::Ready(Ok(NetworkLink::new(&self.inner, pair, CLIENT))),
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        let waker = self.inner.with(|core| core.forget(self.id));
        drop(waker);
    }
}

/// A listening socket of a [`MemoryNetwork`]. Dropping it closes it: who waits to be accepted is reset.
pub struct NetworkListener {
    inner: Rc<Inner>,
    address: SocketAddr,
    source: VirtualId,
}

impl NetworkListener {
    /// Lets others connect; so many of them may wait to be accepted, and those beyond get no answer.
    pub fn listen(&self, backlog: usize) {
        self.inner.with(|core| core.listen(self.address, backlog));
    }

    /// The address, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What is readable when a connection can be accepted.
    pub fn source(&self) -> Source {
        self.source.into()
    }

    /// Accepts a connection.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if none waits; what faults have it say.
    pub fn accept(&self) -> io::Result<NetworkLink> {
        let pair = self.inner.with(|core| core.accept(self.address))?;
        Ok(NetworkLink::new(&self.inner, pair, SERVER))
    }
}

impl Drop for NetworkListener {
    fn drop(&mut self) {
        self.inner.with(|core| core.unbind(self.address));
    }
}

impl fmt::Debug for NetworkListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkListener").field("address", &self.address).finish_non_exhaustive()
    }
}

/// One end of a stream through a [`MemoryNetwork`]. It behaves as a TCP socket does.
pub struct NetworkLink {
    inner: Rc<Inner>,
    pair: PairId,
    side: usize,
    source: VirtualId,
    addresses: [SocketAddr; 2],
    reset: bool,
}

impl NetworkLink {
    fn new(inner: &Rc<Inner>, pair: PairId, side: usize) -> NetworkLink {
        let found = inner.with(|core| {
            let ends = &core.pairs.get(&pair)?.ends;
            Some((ends[side].source, [ends[CLIENT].address, ends[SERVER].address]))
        });
        let (source, addresses) = found.expect("a connection is there until its ends are dropped");
        NetworkLink { inner: inner.clone(), pair, side, source, addresses, reset: false }
    }
}

impl Link for NetworkLink {
    fn source(&self) -> Source {
        self.source.into()
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.with(|core| core.read(self.pair, self.side, buffer))
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.inner.with(|core| core.write(self.pair, self.side, pieces))
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.inner.with(|core| core.shutdown(self.pair, self.side))
    }

    fn reset(&mut self) {
        self.reset = true;
    }

    fn peer_addr(&self) -> Option<Address> {
        Some(self.addresses[1 - self.side].into())
    }

    fn local_addr(&self) -> Option<Address> {
        Some(self.addresses[self.side].into())
    }
}

impl Drop for NetworkLink {
    fn drop(&mut self) {
        self.inner.with(|core| core.drop_end(self.pair, self.side, self.reset));
    }
}

impl fmt::Debug for NetworkLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkLink").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
