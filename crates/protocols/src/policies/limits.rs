//! How many connections there are.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;

use super::around;
use crate::{AfterEof, Protocol, Transport};

/// Limits how many connections a server has, in all and from each peer. Clones are the same limits, so several servers
/// may share them. Stands for Twisted's `LimitTotalConnectionsFactory`, `LimitConnectionsByPeer`, and
/// `maxConnectionCount`.
///
/// One too many is closed before its protocol hears of it, which is then told the end only, with an error of the kind
/// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused).
///
/// ```
/// # use tulipa_protocols::{ConnectionLimits, Protocol, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, t: &Transport, d: &[u8]) -> std::io::Result<()> { t.write(d); Ok(()) }
/// # }
/// # async fn example() -> std::io::Result<()> {
/// let limits = ConnectionLimits::new().total(1000).per_peer(10).refuse_with("busy\n");
/// let server = tulipa_protocols::create_server(":7", move || limits.around(Echo)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ConnectionLimits(Rc<Limits>);

#[derive(Default)]
struct Limits {
    total: Cell<Option<usize>>,
    per_peer: Cell<Option<usize>>,
    refusal: RefCell<Bytes>,
    count: Cell<usize>,
    refused: Cell<u64>,
    peers: RefCell<BTreeMap<IpAddr, usize>>,
}

impl ConnectionLimits {
    /// Without a limit at first.
    pub fn new() -> ConnectionLimits {
        ConnectionLimits(Rc::default())
    }

    /// So many connections at a time.
    #[must_use = "it gives the limits back"]
    pub fn total(self, most: usize) -> ConnectionLimits {
        self.0.total.set(Some(most));
        self
    }

    /// So many connections at a time from each IP address. Unix sockets have no addresses and are not counted here.
    #[must_use = "it gives the limits back"]
    pub fn per_peer(self, most: usize) -> ConnectionLimits {
        self.0.per_peer.set(Some(most));
        self
    }

    /// One too many is sent this before it is closed. Without it, it is closed at once. Stands for
    /// `overflowProtocol`.
    #[must_use = "it gives the limits back"]
    pub fn refuse_with(self, words: impl Into<Bytes>) -> ConnectionLimits {
        let old = self.0.refusal.replace(words.into());
        drop(old);
        self
    }

    /// A protocol that these limits hold for.
    pub fn around<P>(&self, inner: P) -> Limited<P> {
        Limited { inner, limits: self.clone(), admitted: false }
    }

    /// How many connections there are that were let in.
    pub fn count(&self) -> usize {
        self.0.count.get()
    }

    /// How many connections were refused so far.
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }

    fn admit(&self, peer: Option<IpAddr>) -> Option<Place> {
        let limits = &self.0;
        let over = |most: Option<usize>, count: usize| most.is_some_and(|most| count >= most);
        let known = peer.and_then(|peer| limits.peers.borrow().get(&peer).copied()).unwrap_or(0);
        let too_many = peer.is_some() && over(limits.per_peer.get(), known);
        if too_many || over(limits.total.get(), limits.count.get()) {
            limits.refused.set(limits.refused.get() + 1);
            return None;
        }
        limits.count.set(limits.count.get() + 1);
        if let Some(peer) = peer {
            limits.peers.borrow_mut().insert(peer, known + 1);
        }
        Some(Place { limits: limits.clone(), peer })
    }
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits::new()
    }
}

impl fmt::Debug for ConnectionLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionLimits")
            .field("total", &self.0.total.get())
            .field("per_peer", &self.0.per_peer.get())
            .field("count", &self.count())
            .field("refused", &self.refused())
            .finish()
    }
}

/// One connection among those that are counted, until it is over.
struct Place {
    limits: Rc<Limits>,
    peer: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limits.count.set(self.limits.count.get() - 1);
        let Some(peer) = self.peer else { return };
        let mut peers = self.limits.peers.borrow_mut();
        match peers.get_mut(&peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                peers.remove(&peer);
            }
        }
    }
}

/// A protocol for which [`ConnectionLimits`] hold: see [`ConnectionLimits::around`].
#[derive(Debug)]
pub struct Limited<P> {
    inner: P,
    limits: ConnectionLimits,
    admitted: bool,
}

around!(Limited);

impl<P: Protocol> Limited<P> {
    /// What a refused connection is told is that it is refused, and nothing else.
    fn if_admitted<T>(
        &mut self,
        otherwise: T,
        call: impl FnOnce(&mut P) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.admitted { call(&mut self.inner) } else { Ok(otherwise) }
    }
}

impl<P: Protocol> Protocol for Limited<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        let peer = transport.peer_addr().and_then(|peer| peer.inet()).map(|peer| peer.ip());
        let gauge = transport.state.gauge();
        let (Some(place), Some(gauge)) = (self.limits.admit(peer), gauge) else {
            let words = self.limits.0.refusal.borrow().clone();
            if !words.is_empty() {
                transport.write_bytes(words);
            }
            transport.close();
            return Ok(());
        };
        gauge.keep(place);
        self.admitted = true;
        self.inner.connection_made(transport)
    }

    fn readable(&mut self, transport: &Transport) -> io::Result<()> {
        self.if_admitted((), |inner| inner.readable(transport))
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        let refused = || {
            let error = "the connection was refused: there are too many";
            io::Error::new(io::ErrorKind::ConnectionRefused, error)
        };
        let error = if self.admitted { error } else { error.or_else(|| Some(refused())) };
        self.inner.connection_lost(transport, error);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        self.if_admitted((), |inner| inner.data_received(transport, data))
    }

    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        self.if_admitted(AfterEof::Close, |inner| inner.eof_received(transport))
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.if_admitted((), |inner| inner.pause_writing(transport))
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.if_admitted((), |inner| inner.resume_writing(transport))
    }

    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        self.if_admitted((), |inner| inner.timed_out(transport))
    }
}
