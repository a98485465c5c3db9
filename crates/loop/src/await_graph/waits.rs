//! The record of who waits for what.
//!
//! The problem: a task waits on several things at once, some of them end while it does not run, and the
//! future of a wait may be dropped anywhere, or polled by one task and then by another. And nearly
//! always nobody looks.
//!
//! The trick: a future that is about to return `Pending` for the first time enters its wait in a table,
//! and keeps the key. The waits of one task are a chain through the table, whose head is in the task's
//! entry, so nothing is searched and nothing allocated once the table has grown. The record says what
//! is waited for in terms that can be asked later: a wait that is over by then is left out, so nothing
//! need be told when, say, a timer fires. Where a future keeps a waker, it records the wait with it,
//! and again when the waker is another one: then another task polls it.
//!
//! Invariants: a record belongs to one future, which ends it; a record is in the chain of its waiter,
//! or in none if that has ended.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::Location;
use std::rc::Rc;
use std::sync::Weak;
use std::time::Instant;

use tulipa_selector::{Slots, Token};
use tulipa_sync::wait::{OwnerId, ResourceId, Wait as SyncWait, WaitKind};

use crate::job::Work;

/// The end of a chain.
pub(crate) const NIL: u32 = u32::MAX;

/// What is empty and had room for more than this gives its memory back, as other tables of the loop do.
const KEPT_WHEN_EMPTY: usize = 16_384;

/// The key of a wait, kept by its future. The default is the key of no wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitId(pub(super) Token);

impl WaitId {
    pub(crate) const NONE: WaitId = WaitId(Token::from_bits(u64::MAX));

    pub(crate) fn is_none(self) -> bool {
        self == WaitId::NONE
    }
}

impl Default for WaitId {
    fn default() -> WaitId {
        WaitId::NONE
    }
}

/// Whose wait it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waiter {
    /// The main future of `run_until_complete`.
    Main,
    Task(Token),
    /// It has ended, and the future of the wait lives on.
    Nobody,
    /// There is no wait here.
    Free,
}

/// How a task waits for another one, or for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Join,
    Joined,
    Shield,
    WaitFor,
    GroupTask,
    Gather,
    TryGather,
    Wait,
    AsCompleted,
    Group,
    Start,
    Race,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Sleep,
    Timeout,
    Interval,
    WaitFor,
    Wait,
    Race,
}

/// Several tasks, asked for when somebody looks.
pub(crate) trait Targets {
    /// The keys of those that may not have ended.
    fn targets(&self) -> Vec<Token>;
}

/// What a wait is for.
#[derive(Clone)]
pub(crate) enum On {
    Plain(Plain),
    Shared(Shared),
}

/// What can be copied.
#[derive(Clone, Copy)]
pub(crate) enum Plain {
    Task(How, Token),
    Timer(Purpose, Token),
    /// The number, and whether it is for reading.
    Descriptor(Option<u64>, bool),
    Promise(&'static Location<'static>),
    #[cfg(all(unix, feature = "signal"))]
    Signal,
    Named(&'static str),
    /// In the table beside this one.
    Shared(Token),
}

/// What is large or has owners, and so goes into a table of its own: the waits for a task or for time
/// are many, and should be small and cost nothing to forget.
#[derive(Clone)]
pub(crate) enum Shared {
    Tasks(How, Rc<dyn Targets>),
    Primitive(SyncWait),
    Job(Weak<dyn Work>),
    Remote { job: Weak<dyn Work>, loop_id: u64 },
}

/// A wait, or a free place: then `older` is the next one of those.
struct Node {
    on: Plain,
    since: Instant,
    waiter: Waiter,
    /// How many waits were here before.
    generation: u32,
    /// The neighbours in the chain of the waiter.
    newer: u32,
    older: u32,
}

pub(crate) struct Waits {
    nodes: Vec<Node>,
    free: u32,
    /// The generation of places that are made.
    floor: u32,
    len: usize,
    shared: Slots<Shared>,
    /// The head of the main future's chain.
    main: Head,
    locks: HashMap<ResourceId, Held, BuildHasherDefault<AddressHasher>>,
}

/// The newest wait of a chain.
#[derive(Clone, Copy)]
pub(crate) struct Head(u32);

impl Default for Head {
    fn default() -> Head {
        Head(NIL)
    }
}

/// A lock that somebody waits for.
struct Held {
    waits: usize,
    owner: Option<OwnerId>,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits {
            nodes: Vec::new(),
            free: NIL,
            floor: 0,
            len: 0,
            shared: Slots::new(),
            main: Head::default(),
            locks: HashMap::default(),
        }
    }
}

impl Waits {
    /// Adds a wait to a chain: that of the main future, unless a task's is given.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        head: Option<&mut Head>,
        waiter: Waiter,
        since: Instant,
        on: On,
    ) -> WaitId {
        let on = match on {
            On::Plain(on) => on,
            On::Shared(on) => match self.enter_shared(on) {
                Some(key) => Plain::Shared(key),
                // With more than four billion waits, one more is left out.
                None => return WaitId::NONE,
            },
        };
        let Waits { nodes, main, .. } = self;
        let head = head.unwrap_or(main);
        let older = head.0;
        let index = self.free;
        let generation = match nodes.get_mut(index as usize) {
            Some(node) => {
                self.free = node.older;
                let generation = node.generation;
                *node = Node { on, since, waiter, generation, newer: NIL, older };
                head.0 = index;
                generation
            }
            None => {
                if nodes.len() >= NIL as usize {
                    return WaitId::NONE;
                }
                head.0 = nodes.len() as u32;
                let generation = self.floor;
                nodes.push(Node { on, since, waiter, generation, newer: NIL, older });
                generation
            }
        };
        if let Some(older) = nodes.get_mut(older as usize) {
            older.newer = head.0;
        }
        self.len += 1;
        WaitId(Token::new(head.0, generation))
    }

    /// Takes a wait out; `head` is that of its [`waiter`](Self::waiter). Gives back what is to be dropped
    /// with nothing borrowed.
    #[inline]
    pub(crate) fn end(&mut self, head: Option<&mut Head>, id: WaitId) -> Option<Shared> {
        let Waits { nodes, main, .. } = self;
        let node = nodes.get_mut(id.0.index()).filter(|node| node.is(id))?;
        let (newer, older, on) = (node.newer, node.older, node.on);
        let orphan = node.waiter == Waiter::Nobody;
        // A place is used four billion times before an id could be taken for a later one; the id of a
        // wait that has ended is gone long before.
        (node.generation, node.older) = (node.generation.wrapping_add(1), self.free);
        node.waiter = Waiter::Free;
        self.free = id.0.index() as u32;
        if let Some(newer) = nodes.get_mut(newer as usize) {
            newer.older = older;
        } else if !orphan {
            head.unwrap_or(main).0 = older;
        }
        if let Some(older) = nodes.get_mut(older as usize) {
            older.newer = newer;
        }
        self.len -= 1;
        if self.len == 0 && nodes.len() > KEPT_WHEN_EMPTY {
            self.give_memory_back();
        }
        match on {
            Plain::Shared(key) => self.leave_shared(key),
            _ => None,
        }
    }

    fn enter_shared(&mut self, on: Shared) -> Option<Token> {
        let lock = on.lock();
        let key = self.shared.insert(on).ok()?;
        if let Some(wait) = lock {
            let held = self.locks.entry(wait.resource()).or_insert(Held { waits: 0, owner: None });
            held.waits += 1;
            held.owner = wait.owner();
        }
        Some(key)
    }

    fn leave_shared(&mut self, key: Token) -> Option<Shared> {
        let on = self.shared.remove(key)?;
        if let Some(wait) = on.lock() {
            self.leave_lock(wait.resource());
        }
        Some(on)
    }

    #[cold]
    fn give_memory_back(&mut self) {
        let used = self.nodes.iter().map(|node| node.generation).max().unwrap_or(0);
        self.floor = used.wrapping_add(1);
        (self.nodes, self.free) = (Vec::new(), NIL);
    }

    fn leave_lock(&mut self, lock: ResourceId) {
        let Some(held) = self.locks.get_mut(&lock) else { return };
        held.waits -= 1;
        if held.waits == 0 {
            self.locks.remove(&lock);
        }
        if self.locks.is_empty() && self.locks.capacity() > KEPT_WHEN_EMPTY {
            self.locks = HashMap::default();
        }
    }

    pub(crate) fn waiter(&self, id: WaitId) -> Option<Waiter> {
        let node = self.nodes.get(id.0.index()).filter(|node| node.is(id));
        node.map(|node| node.waiter)
    }

    /// The waiter has ended: its waits are nobody's.
    pub(crate) fn orphan(&mut self, head: Option<&mut Head>) {
        let Waits { nodes, main, .. } = self;
        let head = head.unwrap_or(main);
        let mut next = std::mem::take(head).0;
        while let Some(node) = nodes.get_mut(next as usize) {
            next = node.older;
            (node.waiter, node.newer, node.older) = (Waiter::Nobody, NIL, NIL);
        }
    }

    /// The waits of a chain with their beginnings, oldest first.
    pub(crate) fn of(&self, head: Option<Head>) -> Vec<(Instant, On)> {
        let mut waits = Vec::new();
        let mut next = head.unwrap_or(self.main).0;
        while let Some(node) = self.nodes.get(next as usize) {
            let on = match node.on {
                Plain::Shared(key) => self.shared.get(key).cloned().map(On::Shared),
                on => Some(On::Plain(on)),
            };
            waits.extend(on.map(|on| (node.since, on)));
            next = node.older;
        }
        waits.reverse();
        waits
    }

    /// Who owns a lock that somebody waits for.
    pub(crate) fn owner(&self, wait: &SyncWait) -> Option<OwnerId> {
        self.locks.get(&wait.resource())?.owner
    }

    pub(crate) fn set_owner(&mut self, lock: ResourceId, owner: Option<OwnerId>) {
        if let Some(held) = self.locks.get_mut(&lock) {
            held.owner = owner;
        }
    }
}

impl Node {
    fn is(&self, id: WaitId) -> bool {
        self.generation == id.0.generation() && self.waiter != Waiter::Free
    }
}

/// Every wait has one: a cache line.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(std::mem::size_of::<Node>() <= 64);

impl Shared {
    /// The wait, if it is for something that may have an owner.
    fn lock(&self) -> Option<SyncWait> {
        let Shared::Primitive(wait) = self else { return None };
        let owned = matches!(wait.kind(), WaitKind::Lock | WaitKind::Read | WaitKind::Write);
        owned.then_some(*wait)
    }
}

/// Spreads addresses. They are the process's own, so nobody can choose them to collide.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, address: usize) {
        // The multiplier is 2^64 divided by the golden ratio; the table looks at both ends of the number.
        let product = (self.0 ^ address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ (product >> 32);
    }
}
