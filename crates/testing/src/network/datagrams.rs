//! Datagrams through a simulated network: each goes its own way, may be lost, come twice, late, cut, or with an
//! empty one in front of it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_protocols::{Address, DatagramLink, Received};
use tulipa_selector::{Readiness, Source, VirtualId};

use super::core::Core;
use super::faults::Fault;
use super::{Inner, MemoryNetwork};
use crate::trace::Hasher;

/// The longest datagram: what UDP over IPv4 has room for.
const LONGEST: usize = 65_507;

/// EMSGSIZE, for which there is no kind.
const EMSGSIZE: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 90 } else { 40 };

/// What an empty datagram takes of a socket's buffer.
const HEADER: usize = 64;

/// A socket for datagrams.
pub(super) struct Socket {
    source: VirtualId,
    /// From whom it receives, if not from anybody.
    peer: Option<SocketAddr>,
    inbox: VecDeque<Arrived>,
    /// What is in the inbox, headers included.
    size: usize,
    /// What the network has sent back.
    refused: bool,
    last_arrival: Option<Instant>,
}

struct Arrived {
    from: SocketAddr,
    data: Vec<u8>,
    cut: bool,
}

impl Socket {
    fn readiness(&self) -> Readiness {
        let readable = !self.inbox.is_empty() || self.refused;
        if readable { Readiness::READABLE | Readiness::WRITABLE } else { Readiness::WRITABLE }
    }
}

impl Core {
    fn bind_datagrams(
        &mut self,
        mut address: SocketAddr,
        peer: Option<SocketAddr>,
    ) -> io::Result<(SocketAddr, VirtualId)> {
        if !self.hosts.values().any(|host| *host == address.ip()) {
            let error = format!("no host has the address {}", address.ip());
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, error));
        }
        let any = address.port() == 0;
        while address.port() == 0 || (any && self.sockets.contains_key(&address)) {
            address.set_port(self.free_port());
        }
        if self.sockets.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let source = self.new_source();
        self.world.set_ready(source, Readiness::WRITABLE);
        let (inbox, last_arrival) = (VecDeque::new(), None);
        let new = Socket { source, peer, inbox, size: 0, refused: false, last_arrival };
        self.sockets.insert(address, new);
        self.note(format_args!("bind datagrams {address}"));
        Ok((address, source))
    }

    fn unbind_datagrams(&mut self, address: SocketAddr) {
        self.note(format_args!("unbind datagrams {address}"));
        if let Some(socket) = self.sockets.remove(&address) {
            self.free_source(socket.source);
        }
    }

    fn send_datagram(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) -> io::Result<()> {
        if data.len() > LONGEST {
            return Err(io::Error::from_raw_os_error(EMSGSIZE));
        }
        if !self.hosts.values().any(|host| *host == to.ip()) {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        if to.port() == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.random.chance(self.faults.per_mille(Fault::ShortWrite)) {
            self.counts.count(Fault::ShortWrite);
            self.note(format_args!("send {from} to {to}: nothing now"));
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut hash = Hasher::new();
        hash.bytes(data);
        let length = data.len();
        self.note(format_args!("send {from} to {to}: {length} bytes {:x}", hash.0));
        if self.is_stalled(from.ip(), to.ip()) || self.strikes(Fault::DatagramLost) {
            self.note(format_args!("lost {from} to {to}"));
            return Ok(());
        }
        if self.strikes(Fault::DatagramEmpty) {
            self.carry(from, to, Vec::new());
        }
        if self.strikes(Fault::DatagramDuplicated) {
            self.carry(from, to, data.to_vec());
        }
        self.carry(from, to, data.to_vec());
        Ok(())
    }

    /// Puts a datagram on its way, on which it stays behind those before it unless it is to be overtaken.
    fn carry(&mut self, from: SocketAddr, to: SocketAddr, mut data: Vec<u8>) {
        let now = self.now();
        let path = self.path_between(from.ip(), to.ip());
        let mut arrives = now + self.random.duration(path.latency.clone());
        let late = self.strikes(Fault::DatagramReordered);
        if late {
            arrives += self.random.duration(Duration::from_millis(1)..=Duration::from_secs(2));
        }
        if let Some(socket) = self.sockets.get_mut(&from).filter(|_| !late) {
            arrives = arrives.max(socket.last_arrival.unwrap_or(now));
            socket.last_arrival = Some(arrives);
        }
        let cut = !data.is_empty() && self.strikes(Fault::DatagramTruncated);
        if cut {
            let left = self.random.index(data.len());
            data.truncate(left);
        }
        let arrived = Arrived { from, data, cut };
        if arrives <= now {
            self.arrive(to, arrived);
        } else {
            self.at(arrives, move |core| core.arrive(to, arrived));
        }
    }

    fn arrive(&mut self, to: SocketAddr, arrived: Arrived) {
        let (from, length) = (arrived.from, arrived.data.len());
        let room = self.path_between(from.ip(), to.ip()).buffer;
        let Some(socket) = self.sockets.get_mut(&to) else {
            self.note(format_args!("refused {from} to {to}"));
            // Only who is connected hears of it.
            let sender = self.sockets.get_mut(&from).filter(|sender| sender.peer == Some(to));
            if let Some(sender) = sender {
                sender.refused = true;
                self.refresh_datagrams(from);
            }
            return;
        };
        let stranger = socket.peer.is_some_and(|peer| peer != from);
        // One that is alone may be larger than the buffer.
        let full = socket.size > 0 && socket.size + length + HEADER > room;
        if stranger || full {
            let why = if stranger { "a stranger's" } else { "no room" };
            return self.note(format_args!("dropped {from} to {to}: {why}"));
        }
        socket.size += length + HEADER;
        socket.inbox.push_back(arrived);
        self.note(format_args!("arrive {from} to {to}: {length} bytes"));
        self.refresh_datagrams(to);
    }

    fn receive_datagram(&mut self, own: SocketAddr, buffer: &mut [u8]) -> io::Result<Received> {
        let Some(socket) = self.sockets.get_mut(&own) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if std::mem::take(&mut socket.refused) {
            self.refresh_datagrams(own);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let Some(Arrived { from, data, cut }) = socket.inbox.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        socket.size -= data.len() + HEADER;
        let length = data.len().min(buffer.len());
        buffer[..length].copy_from_slice(&data[..length]);
        self.refresh_datagrams(own);
        let truncated = cut || length < data.len();
        self.note(format_args!("receive {own}: {length} bytes"));
        Ok(Received::new(length, from.into()).truncated(truncated))
    }

    fn refresh_datagrams(&self, address: SocketAddr) {
        if let Some(socket) = self.sockets.get(&address) {
            self.world.set_ready(socket.source, socket.readiness());
        }
    }
}

impl MemoryNetwork {
    /// Makes a socket for datagrams, at an address of the host that the code at hand runs on.
    pub(super) fn datagrams(
        &self,
        local: Option<SocketAddr>,
        peer: Option<SocketAddr>,
    ) -> io::Result<NetworkDatagrams> {
        let local = local.unwrap_or_else(|| SocketAddr::new(self.here(), 0));
        let (local, peer) = (self.meant(local), peer.map(|peer| self.meant(peer)));
        let (address, source) = self.inner.with(|core| core.bind_datagrams(local, peer))?;
        Ok(NetworkDatagrams { network: self.clone(), address, source, peer })
    }
}

/// A socket for datagrams in a [`MemoryNetwork`]. Dropping it closes it.
pub(super) struct NetworkDatagrams {
    network: MemoryNetwork,
    address: SocketAddr,
    source: VirtualId,
    peer: Option<SocketAddr>,
}

impl NetworkDatagrams {
    fn inner(&self) -> &Rc<Inner> {
        &self.network.inner
    }
}

impl DatagramLink for NetworkDatagrams {
    fn source(&self) -> Source {
        self.source.into()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        self.inner().with(|core| core.receive_datagram(self.address, buffer))
    }

    fn send(&mut self, data: &[u8], to: Option<&Address>) -> io::Result<()> {
        let to = match to {
            Some(address) => address.inet(),
            None => self.peer,
        };
        let Some(to) = to else {
            let error = "it goes to no internet address";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        };
        if !to.is_ipv4() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // As its own host means it, whoever sends just now.
        let own = to.ip().is_loopback() || to.ip().is_unspecified();
        let to = if own { SocketAddr::new(self.address.ip(), to.port()) } else { to };
        self.inner().with(|core| core.send_datagram(self.address, to, data))
    }

    fn peer_addr(&self) -> Option<Address> {
        self.peer.map(Address::from)
    }

    fn local_addr(&self) -> Option<Address> {
        Some(self.address.into())
    }
}

impl Drop for NetworkDatagrams {
    fn drop(&mut self) {
        self.inner().with(|core| core.unbind_datagrams(self.address));
    }
}

impl fmt::Debug for NetworkDatagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkDatagrams").field("address", &self.address).finish_non_exhaustive()
    }
}
