//! A network in memory, in virtual time, with a seed.

mod core;
mod datagrams;
mod faults;
mod link;
mod pair;
mod path;
mod programs;

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use tulipa_loop::{ContextScope, ContextVar};
use tulipa_protocols::Address;
use tulipa_selector::{Refuse, VirtualHandle};

pub use self::faults::{Fault, FaultCounts, Faults};
pub use self::link::{NetworkLink, NetworkListener};
pub use self::path::{Chunking, Path};

use self::core::{Core, ordered};
use crate::trace::Trace;

/// The host that the code at hand runs on.
static HOST: ContextVar<IpAddr> = ContextVar::new("simulated host");

/// A simulated network for the programs of one virtual loop: hosts with names and addresses, streams and datagrams
/// between them that take their time, and everything that can go wrong with either. Clones are the same network.
///
/// The same seed and the same program give the same run, event by event: see [`trace`](Self::trace).
///
/// # Hosts
/// A host is a name and an address. Code runs on the host that it was [put](Self::on) on, and so do the tasks and
/// callbacks that it starts; everything else runs on `localhost`.
///
/// # Limits
/// IPv4 only. Datagrams know no bandwidth, and are lost while nothing comes through between two hosts. A program that asks for its sockets' descriptors finds none.
#[derive(Clone)]
pub struct MemoryNetwork {
    inner: Rc<Inner>,
}

struct Inner {
    core: RefCell<Core>,
}

impl Inner {
    /// Changes the state, then wakes whom that concerns.
    fn with<R>(&self, change: impl FnOnce(&mut Core) -> R) -> R {
        let result = change(&mut self.core.borrow_mut());
        let wakers = self.core.borrow_mut().take_wakers();
        for waker in wakers {
            waker.wake();
        }
        result
    }
}

impl MemoryNetwork {
    /// A network in the world of a virtual loop, with one host, `localhost`, without faults, and without
    /// latency.
    pub fn new(world: &VirtualHandle, seed: u64) -> MemoryNetwork {
        let inner = Rc::new_cyclic(|own| Inner {
            core: RefCell::new(Core::new(own.clone(), world.clone(), seed)),
        });
        MemoryNetwork { inner }
    }

    /// The address of a host, which there is from now on if there was none of this name.
    pub fn host(&self, name: &str) -> IpAddr {
        self.inner.with(|core| core.host(name))
    }

    /// The address of a host, if there is one of this name.
    pub fn lookup(&self, name: &str) -> Option<IpAddr> {
        self.inner.core.borrow().hosts.get(name).copied()
    }

    /// A future that runs on a host, with all that it starts. The host is made if there is none of this
    /// name.
    pub fn on<F: IntoFuture>(&self, host: &str, future: F) -> ContextScope<F::IntoFuture> {
        HOST.scope(self.host(host), future)
    }

    /// What the way between any two hosts is like that have none of their own. Connections keep what they
    /// began with.
    pub fn set_default_path(&self, path: Path) {
        self.inner.with(|core| core.path = path);
    }

    /// What the way between two hosts is like, in both directions.
    pub fn set_path(&self, one: &str, other: &str, path: Path) {
        let hosts = ordered(self.host(one), self.host(other));
        self.inner.with(|core| core.paths.insert(hosts, path));
    }

    /// Nothing comes through between two hosts from now on, and nothing is lost.
    pub fn stall(&self, one: &str, other: &str) {
        let hosts = ordered(self.host(one), self.host(other));
        self.inner.with(|core| {
            core.note(format_args!("stall {} and {}", hosts.0, hosts.1));
            core.stalled.push(hosts);
        });
    }

    /// What was stalled between two hosts comes through.
    pub fn resume(&self, one: &str, other: &str) {
        let hosts = ordered(self.host(one), self.host(other));
        self.inner.with(|core| {
            core.note(format_args!("resume {} and {}", hosts.0, hosts.1));
            core.stalled.retain(|stalled| *stalled != hosts);
            core.pump_all();
        });
    }

    /// Resets every connection between two hosts, for both sides, now.
    pub fn break_connections(&self, one: &str, other: &str) {
        let hosts = ordered(self.host(one), self.host(other));
        self.inner.with(|core| {
            let between = core.pairs.iter().filter(|(_, pair)| {
                ordered(pair.ends[0].address.ip(), pair.ends[1].address.ip()) == hosts
            });
            let ids: Vec<_> = between.map(|(id, _)| *id).collect();
            ids.into_iter().for_each(|id| core.break_off(id));
        });
    }

    /// What goes wrong from now on. [`Faults::none`] also ends what goes wrong already, as far as it can be
    /// mended: nothing stands still any more.
    pub fn set_faults(&self, faults: Faults) {
        let world = self.world();
        self.inner.with(|core| match faults == Faults::none() {
            true => core.calm(),
            false => core.faults = faults.clone(),
        });
        let shuffles = faults.per_mille(Fault::ShuffledEvents) > 0;
        let own = Rc::downgrade(&self.inner);
        world.set_shuffle(shuffles.then(|| -> Box<dyn FnMut(usize) -> usize> {
            Box::new(move |limit| own.upgrade().map_or(limit - 1, |inner| choose(&inner, limit)))
        }));
        let refuses = faults.per_mille(Fault::Interrupted) > 0
            || faults.per_mille(Fault::RegistrationRefused) > 0;
        let own = Rc::downgrade(&self.inner);
        world.set_refusal(refuses.then(|| -> Refuse {
            Box::new(move |call| own.upgrade()?.with(|core| core.refuse_call(call)))
        }));
    }

    /// Whether a fault happens now, for those who make something else go wrong.
    pub fn strikes(&self, fault: Fault) -> bool {
        self.inner.with(|core| core.strikes(fault))
    }

    /// The same for those who do not know yet whether they can make it go wrong: it does not count.
    pub(crate) fn would_strike(&self, fault: Fault) -> bool {
        self.inner.with(|core| core.random.chance(core.faults.per_mille(fault)))
    }

    /// A random choice of somebody who makes something go wrong.
    pub(crate) fn draw<R>(&self, draw: impl FnOnce(&mut crate::Random) -> R) -> R {
        self.inner.with(|core| draw(&mut core.random))
    }

    /// The world that it is in.
    pub(crate) fn world(&self) -> VirtualHandle {
        self.inner.core.borrow().world.clone()
    }

    /// A fault has happened.
    pub(crate) fn count(&self, fault: Fault) {
        self.inner.with(|core| {
            core.note(format_args!("{fault:?}"));
            core.counts.count(fault);
        });
    }

    /// A fault has ended the connection between two addresses.
    pub(crate) fn mark_broken(&self, addresses: [Option<Address>; 2]) {
        let addresses = addresses.into_iter().flatten().filter_map(|address| address.inet());
        self.inner.with(|core| addresses.for_each(|address| core.mark_broken(address)));
    }

    /// How often each fault has happened.
    pub fn fault_counts(&self) -> FaultCounts {
        self.inner.core.borrow().counts.clone()
    }

    /// Whether a fault has ended the connection that has this address at its client's side, so that bytes may be
    /// lost.
    pub fn is_broken(&self, client: SocketAddr) -> bool {
        self.inner.core.borrow().broken.contains(&client)
    }

    /// How many connections there are that at least one side holds.
    pub fn connections(&self) -> usize {
        self.inner.core.borrow().pairs.len()
    }

    /// What has happened so far.
    pub fn trace(&self) -> Trace {
        self.inner.core.borrow().trace.clone()
    }

    /// Keeps what happens as text, for [`trace`](Self::trace).
    pub fn keep_trace(&self) {
        self.inner.with(|core| core.trace.keep_lines());
    }

    /// Writes something of the program's into the trace.
    pub fn note(&self, event: &str) {
        self.inner.with(|core| core.note(format_args!("{event}")));
    }

    /// The host that the code at hand runs on.
    fn here(&self) -> IpAddr {
        HOST.get().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// An address as the code at hand means it: its own host has several.
    fn meant(&self, mut address: SocketAddr) -> SocketAddr {
        let is_own = address.ip().is_loopback() || address.ip().is_unspecified();
        if address.is_ipv4() && is_own {
            address.set_ip(self.here());
        }
        address
    }
}

fn choose(inner: &Inner, limit: usize) -> usize {
    inner.with(|core| match core.strikes(Fault::ShuffledEvents) {
        true => core.random.index(limit),
        false => limit - 1,
    })
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork")
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}
