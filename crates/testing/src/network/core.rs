//! The state of a simulated network, and everything that happens in it.
//!
//! What a program does (connect, read, write, shut down, drop) changes the state at once. What takes time is
//! an entry in the script of the virtual clock, which comes back here when the clock comes to it. After each
//! change the readiness of the sources it concerns is computed anew from the state ([`Core::refresh`]), never
//! remembered; so readiness is level triggered, as an operating system has it.
//!
//! Nothing of the program's runs in here: wakers are collected, and woken when the state is let go.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Weak;
use std::task::Waker;
use std::time::{Duration, Instant};

use tulipa_selector::{Readiness, VirtualCall, VirtualHandle, VirtualId};

use super::Inner;
use super::faults::{Fault, FaultCounts, Faults};
use super::pair::Pair;
use super::path::Path;
use crate::Random;
use crate::trace::Trace;

/// The first port that is given to those who do not ask for one, as IANA has it.
const FIRST_FREE_PORT: u16 = 49152;

/// How long an attempt to connect that nobody answers takes to fail: about what Linux takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);

/// How long after it was given up a forgotten attempt succeeds.
const FORGOTTEN: Duration = Duration::from_millis(1);

/// How many sources of closed connections are kept to be used again: a simulation has fewer connections.
const MOST_FREE_SOURCES: usize = 64;

/// The errors of an accept for which there are no kinds: EINTR and EMFILE, which are 4 and 24 wherever there are
/// descriptors, and ENOBUFS.
const EINTR: i32 = 4;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 105 } else { 55 };

/// The number of a connection.
pub(super) type PairId = u64;

pub(super) struct Core {
    pub(super) own: Weak<Inner>,
    pub(super) world: VirtualHandle,
    pub(super) start: Instant,
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) counts: FaultCounts,
    pub(super) trace: Trace,
    pub(super) hosts: BTreeMap<String, IpAddr>,
    pub(super) path: Path,
    pub(super) paths: BTreeMap<(IpAddr, IpAddr), Path>,
    /// The ways on which nothing moves.
    pub(super) stalled: Vec<(IpAddr, IpAddr)>,
    pub(super) listeners: BTreeMap<SocketAddr, Listening>,
    pub(super) pairs: BTreeMap<PairId, Pair>,
    /// The sockets for datagrams.
    pub(super) sockets: BTreeMap<SocketAddr, super::datagrams::Socket>,
    pub(super) attempts: BTreeMap<u64, Attempt>,
    /// The clients' addresses of connections that a fault has ended.
    pub(super) broken: Vec<SocketAddr>,
    pub(super) wakers: Vec<Waker>,
    /// The sources of connections that are closed, the last one at the end.
    free_sources: Vec<VirtualId>,
    created: u64,
    ports: u16,
}

/// A listening socket.
pub(super) struct Listening {
    pub(super) source: VirtualId,
    pub(super) waiting: VecDeque<PairId>,
    /// `None` until somebody listens.
    pub(super) backlog: Option<usize>,
}

/// An attempt to connect that somebody waits for.
#[derive(Default)]
pub(super) struct Attempt {
    pub(super) waker: Option<Waker>,
    /// The connection that it will be when it is given up.
    to_be_forgotten: Option<PairId>,
    pub(super) result: Option<io::Result<PairId>>,
}

impl Core {
    pub(super) fn new(own: Weak<Inner>, world: VirtualHandle, seed: u64) -> Core {
        let local = ("localhost".to_owned(), IpAddr::from(Ipv4Addr::LOCALHOST));
        Core {
            own,
            start: world.now(),
            world,
            random: Random::new(seed),
            faults: Faults::none(),
            counts: FaultCounts::default(),
            trace: Trace::new(),
            hosts: BTreeMap::from([local]),
            path: Path::new(),
            paths: BTreeMap::new(),
            stalled: Vec::new(),
            listeners: BTreeMap::new(),
            pairs: BTreeMap::new(),
            sockets: BTreeMap::new(),
            attempts: BTreeMap::new(),
            broken: Vec::new(),
            wakers: Vec::new(),
            free_sources: Vec::new(),
            created: 0,
            ports: FIRST_FREE_PORT,
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.world.now()
    }

    pub(super) fn note(&mut self, event: std::fmt::Arguments<'_>) {
        let at = self.now().saturating_duration_since(self.start);
        self.trace.note(at, event);
    }

    /// Whether a fault happens now.
    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.random.chance(self.faults.per_mille(fault));
        if strikes {
            self.counts.count(fault);
        }
        strikes
    }

    /// Does something when the clock comes to an instant.
    pub(super) fn at(&self, when: Instant, act: impl FnOnce(&mut Core) + 'static) {
        let own = self.own.clone();
        self.world.call_at(when, move |_| {
            if let Some(inner) = own.upgrade() {
                inner.with(act);
            }
        });
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.created += 1;
        self.created
    }

    /// A source that is ready for nothing: a new one, or one that was used before.
    pub(super) fn new_source(&mut self) -> VirtualId {
        if self.free_sources.is_empty() || !self.strikes(Fault::DescriptorReused) {
            return self.world.new_source();
        }
        self.free_sources.pop().unwrap_or_else(|| self.world.new_source())
    }

    /// Nobody uses a source any more.
    pub(super) fn free_source(&mut self, source: VirtualId) {
        self.world.set_ready(source, Readiness::NONE);
        if self.free_sources.len() < MOST_FREE_SOURCES {
            self.free_sources.push(source);
        }
    }

    pub(super) fn free_port(&mut self) -> u16 {
        let port = self.ports;
        self.ports = self.ports.checked_add(1).unwrap_or(FIRST_FREE_PORT);
        port
    }

    /// The address of a host, and a new one for a new host.
    pub(super) fn host(&mut self, name: &str) -> IpAddr {
        if let Some(known) = self.hosts.get(name) {
            return *known;
        }
        let number = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let address = IpAddr::from(Ipv4Addr::from((10 << 24) + number));
        self.hosts.insert(name.to_owned(), address);
        address
    }

    pub(super) fn path_between(&self, one: IpAddr, other: IpAddr) -> Path {
        let found = self.paths.get(&ordered(one, other));
        found.unwrap_or(&self.path).clone()
    }

    pub(super) fn is_stalled(&self, one: IpAddr, other: IpAddr) -> bool {
        self.stalled.contains(&ordered(one, other))
    }
}

/// Two hosts, whichever way round they are named.
pub(super) fn ordered(one: IpAddr, other: IpAddr) -> (IpAddr, IpAddr) {
    (one.min(other), one.max(other))
}

/// Listening.
impl Core {
    pub(super) fn bind(&mut self, address: SocketAddr) -> io::Result<(SocketAddr, VirtualId)> {
        let mut address = address;
        if !self.hosts.values().any(|host| *host == address.ip()) {
            let error = format!("no host has the address {}", address.ip());
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, error));
        }
        if address.port() == 0 {
            address.set_port(self.free_port());
        }
        if self.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let source = self.new_source();
        let listening = Listening { source, waiting: VecDeque::new(), backlog: None };
        self.listeners.insert(address, listening);
        self.note(format_args!("bind {address}"));
        Ok((address, source))
    }

    pub(super) fn listen(&mut self, address: SocketAddr, backlog: usize) {
        if let Some(listening) = self.listeners.get_mut(&address) {
            listening.backlog = Some(backlog);
        }
        self.note(format_args!("listen {address}"));
    }

    /// Takes a connection that waits, as the side that accepts it.
    pub(super) fn accept(&mut self, address: SocketAddr) -> io::Result<PairId> {
        let Some(listening) = self.listeners.get(&address) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if listening.waiting.is_empty() {
            self.ready_to_accept(address);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (fault, errno) in [
            (Fault::AcceptExhausted, EMFILE),
            (Fault::AcceptNoBuffers, ENOBUFS),
            (Fault::Interrupted, EINTR),
        ] {
            if self.strikes(fault) {
                self.note(format_args!("accept {address}: {fault:?}"));
                return Err(io::Error::from_raw_os_error(errno));
            }
        }
        let listening = self.listeners.get_mut(&address);
        let pair = listening.and_then(|listening| listening.waiting.pop_front());
        self.ready_to_accept(address);
        let Some(pair) = pair else { return Err(io::ErrorKind::WouldBlock.into()) };
        if self.strikes(Fault::AcceptAborted) {
            self.note(format_args!("accept {address}: aborted {pair}"));
            self.break_off(pair);
            self.drop_end(pair, SERVER, false);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.note(format_args!("accept {address}: {pair}"));
        Ok(pair)
    }

    fn ready_to_accept(&mut self, address: SocketAddr) {
        if let Some(listening) = self.listeners.get(&address) {
            let empty = listening.waiting.is_empty();
            let ready = if empty { Readiness::NONE } else { Readiness::READABLE };
            self.world.set_ready(listening.source, ready);
        }
    }

    /// The listening socket is closed: who waits to be accepted is reset.
    pub(super) fn unbind(&mut self, address: SocketAddr) {
        self.note(format_args!("unbind {address}"));
        let Some(listening) = self.listeners.remove(&address) else { return };
        self.free_source(listening.source);
        for pair in listening.waiting {
            self.drop_end(pair, SERVER, true);
        }
    }
}

/// The side of a pair that has connected, and the one that accepts.
pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;

/// Connecting.
impl Core {
    /// Begins to connect; the result comes to the attempt of this number.
    pub(super) fn connect(&mut self, from: IpAddr, to: SocketAddr) -> u64 {
        let id = self.next_id();
        self.attempts.insert(id, Attempt::default());
        self.note(format_args!("connect {id} from {from} to {to}"));
        if self.strikes(Fault::ConnectTimeout) {
            self.give_up_later(id);
            return id;
        }
        let path = self.path_between(from, to.ip());
        let mut there = self.random.duration(path.latency.clone());
        if self.strikes(Fault::LateConnect) {
            there += self.random.duration(Duration::from_millis(100)..=Duration::from_secs(10));
        }
        self.after(there, move |core| core.knock(id, from, to));
        id
    }

    /// Does something after a while, and at once if that is no time at all.
    fn after(&mut self, delay: Duration, act: impl FnOnce(&mut Core) + 'static) {
        if delay.is_zero() { act(self) } else { self.at(self.now() + delay, act) }
    }

    fn give_up_later(&mut self, id: u64) {
        self.at(self.now() + CONNECT_TIMEOUT, move |core| {
            core.answer(id, Err(io::ErrorKind::TimedOut.into()));
        });
    }

    /// The attempt comes to the other host.
    fn knock(&mut self, id: u64, from: IpAddr, to: SocketAddr) {
        if self.is_stalled(from, to.ip()) {
            return self.give_up_later(id);
        }
        let path = self.path_between(from, to.ip());
        let back = self.random.duration(path.latency.clone());
        let backlog = self.listeners.get(&to).and_then(|listening| listening.backlog);
        let refused = match backlog {
            Some(_) => self.strikes(Fault::ConnectRefused),
            None => true,
        };
        if refused {
            let refused = move |core: &mut Core| {
                core.answer(id, Err(io::ErrorKind::ConnectionRefused.into()));
            };
            return self.after(back, refused);
        }
        let full = |listening: &Listening| listening.backlog <= Some(listening.waiting.len());
        if self.listeners.get(&to).is_some_and(full) {
            return self.give_up_later(id);
        }
        let client = SocketAddr::new(from, self.free_port());
        let pair = self.next_id();
        let sources = [self.new_source(), self.new_source()];
        let new = Pair::new(path, [client, to], sources);
        self.pairs.insert(pair, new);
        self.doom(pair);
        if let Some(listening) = self.listeners.get_mut(&to) {
            listening.waiting.push_back(pair);
        }
        self.ready_to_accept(to);
        self.refresh(pair, SERVER);
        if self.random.chance(self.faults.per_mille(Fault::ForgottenConnect)) {
            return self.answer_when_forgotten(id, pair);
        }
        self.after(back, move |core| core.answer(id, Ok(pair)));
    }

    /// The answer is held back until nobody waits for it.
    fn answer_when_forgotten(&mut self, id: u64, pair: PairId) {
        match self.attempts.get_mut(&id) {
            Some(attempt) => attempt.to_be_forgotten = Some(pair),
            None => return self.answer(id, Ok(pair)),
        }
        self.at(self.now() + CONNECT_TIMEOUT, move |core| {
            let attempt = core.attempts.get_mut(&id);
            if attempt.is_some_and(|attempt| attempt.to_be_forgotten.take().is_some()) {
                core.answer(id, Ok(pair));
            }
        });
    }

    /// The answer comes to the one who wants to connect.
    fn answer(&mut self, id: u64, result: io::Result<PairId>) {
        match &result {
            Ok(pair) => self.note(format_args!("connected {id}: {pair}")),
            Err(error) => self.note(format_args!("not connected {id}: {:?}", error.kind())),
        }
        if let Ok(pair) = &result {
            self.refresh(*pair, CLIENT);
        }
        match self.attempts.get_mut(&id) {
            Some(attempt) => {
                attempt.result = Some(result);
                self.wakers.extend(attempt.waker.take());
            }
            // Nobody waits any more.
            None => {
                if let Ok(pair) = result {
                    self.drop_end(pair, CLIENT, true);
                }
            }
        }
    }

    /// Who wanted to connect does not wait any more.
    pub(super) fn forget(&mut self, id: u64) -> Option<Waker> {
        let attempt = self.attempts.remove(&id)?;
        if let Some(pair) = attempt.to_be_forgotten {
            self.counts.count(Fault::ForgottenConnect);
            self.at(self.now() + FORGOTTEN, move |core| core.answer(id, Ok(pair)));
        }
        if let Some(Ok(pair)) = attempt.result {
            self.drop_end(pair, CLIENT, true);
        }
        attempt.waker
    }
}

/// Faults from outside.
impl Core {
    /// What the operating system does not do.
    pub(super) fn refuse_call(&mut self, call: VirtualCall) -> Option<io::Error> {
        let (VirtualCall::Register(source) | VirtualCall::SetInterest(source)) = call else {
            let interrupted = call == VirtualCall::Select && self.strikes(Fault::Interrupted);
            return interrupted.then(|| io::ErrorKind::Interrupted.into());
        };
        if !self.strikes(Fault::RegistrationRefused) {
            return None;
        }
        self.note(format_args!("{call:?} refused"));
        let is_its = |pair: &&Pair| pair.ends.iter().any(|end| end.source == source && !end.gone);
        let client = self.pairs.values().find(is_its).map(|pair| pair.ends[CLIENT].address);
        if let Some(client) = client {
            self.mark_broken(client);
        }
        Some(io::ErrorKind::OutOfMemory.into())
    }

    /// Sets after which byte a new connection breaks, if it is to.
    fn doom(&mut self, pair: PairId) {
        for fault in [Fault::Reset, Fault::Fin, Fault::HalfClose] {
            if !self.random.chance(self.faults.per_mille(fault)) {
                continue;
            }
            // As often among the first bytes as far behind.
            let most = 1 << self.random.within(0..=14);
            let (side, after) = (self.random.index(2), self.random.below(most));
            if let Some(pair) = self.pairs.get_mut(&pair) {
                pair.ends[side].doom.get_or_insert((after, fault));
            }
        }
    }

    /// Ends all faults: nothing new goes wrong, and what stands still moves again.
    pub(super) fn calm(&mut self) {
        self.note(format_args!("calm"));
        self.faults = Faults::none();
        self.stalled.clear();
        let ids: Vec<_> = self.pairs.keys().copied().collect();
        for id in ids {
            for side in [CLIENT, SERVER] {
                if let Some(pair) = self.pairs.get_mut(&id) {
                    pair.ends[side].doom = None;
                    pair.ends[side].stalled_until = None;
                    pair.ends[side].hidden_until = None;
                    pair.ends[side].spurious = Readiness::NONE;
                }
                self.pump(id, side);
                self.refresh(id, side);
            }
        }
    }

    /// Moves what stood still between two hosts.
    pub(super) fn pump_all(&mut self) {
        let ids: Vec<_> = self.pairs.keys().copied().collect();
        for id in ids {
            self.pump(id, CLIENT);
            self.pump(id, SERVER);
        }
    }

    /// Resets a connection for both sides, now.
    pub(super) fn break_off(&mut self, id: PairId) {
        self.note(format_args!("break {id}"));
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let client = pair.ends[CLIENT].address;
        for end in &mut pair.ends {
            end.be_reset();
        }
        self.mark_broken(client);
        self.refresh(id, CLIENT);
        self.refresh(id, SERVER);
    }

    pub(super) fn mark_broken(&mut self, client: SocketAddr) {
        if !self.broken.contains(&client) {
            self.broken.push(client);
        }
    }

    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        mem::take(&mut self.wakers)
    }
}
