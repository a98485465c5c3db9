//! What a wait brings back.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use crate::interest::write_flags;
use crate::{Interest, Registry};

/// The identity of one registration: an index, which is small and used again, and a generation,
/// which tells two users of the same index apart.
///
/// A token is never equal to that of a later registration, even one for the same descriptor
/// number, so an event cannot reach the wrong owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    index: u32,
    generation: u32,
}

impl Token {
    /// A token made of its two parts. For those who write a selector.
    pub const fn new(index: u32, generation: u32) -> Token {
        Token { index, generation }
    }

    /// The index: dense, below the largest number of sources that were registered at one time,
    /// so a `Vec` can be the table that goes with a selector.
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// How many registrations used this index before.
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// Both parts in one number, as a kernel carries it.
    pub const fn to_bits(self) -> u64 {
        ((self.generation as u64) << 32) | self.index as u64
    }

    /// The token of which [`to_bits`](Self::to_bits) gives `bits`.
    pub const fn from_bits(bits: u64) -> Token {
        Token { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.{})", self.index, self.generation)
    }
}

/// The state of a source: the three sides of [`Interest`], and two facts that nobody can ask not
/// to be told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Readiness(u8);

impl Readiness {
    /// Nothing.
    pub const NONE: Readiness = Readiness(0);
    /// See [`Interest::READABLE`].
    pub const READABLE: Readiness = Readiness(Interest::READABLE.bits());
    /// See [`Interest::WRITABLE`].
    pub const WRITABLE: Readiness = Readiness(Interest::WRITABLE.bits());
    /// See [`Interest::PRIORITY`].
    pub const PRIORITY: Readiness = Readiness(Interest::PRIORITY.bits());
    /// The other side is gone. There may still be data to read: the end is a read of zero bytes.
    pub const HANGUP: Readiness = Readiness(8);
    /// An error is pending; the next operation on the source tells which.
    pub const ERROR: Readiness = Readiness(16);

    /// Whether nothing at all is set.
    #[must_use = "this only asks"]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is set.
    #[must_use = "this only asks"]
    pub const fn contains(self, other: Readiness) -> bool {
        self.0 & other.0 == other.0
    }

    /// All of both.
    pub(crate) const fn with(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }

    /// Whether a hang-up or an error is set, which wake every side that is waited for.
    const fn is_final(self) -> bool {
        self.0 & (Self::HANGUP.0 | Self::ERROR.0) != 0
    }

    /// The sides of `interest` that this readiness wakes.
    ///
    /// A hang-up or an error wakes every side that is waited for, as in asyncio's epoll selector:
    /// whoever waits must learn of it from the next read or write.
    #[must_use = "this only asks"]
    pub const fn wakes(self, interest: Interest) -> Interest {
        if self.is_final() { interest } else { Interest::from_low_bits(self.0 & interest.bits()) }
    }
}

impl std::ops::BitOr for Readiness {
    type Output = Readiness;

    fn bitor(self, other: Readiness) -> Readiness {
        self.with(other)
    }
}

impl std::ops::BitOrAssign for Readiness {
    fn bitor_assign(&mut self, other: Readiness) {
        *self = *self | other;
    }
}

impl std::ops::Sub for Readiness {
    type Output = Readiness;

    /// What is in `self` and not in `other`.
    fn sub(self, other: Readiness) -> Readiness {
        Readiness(self.0 & !other.0)
    }
}

impl From<Interest> for Readiness {
    fn from(interest: Interest) -> Readiness {
        Readiness(interest.bits())
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_flags(
            f,
            &[
                (self.contains(Self::READABLE), "READABLE"),
                (self.contains(Self::WRITABLE), "WRITABLE"),
                (self.contains(Self::PRIORITY), "PRIORITY"),
                (self.contains(Self::HANGUP), "HANGUP"),
                (self.contains(Self::ERROR), "ERROR"),
            ],
        )
    }
}

/// One source that is ready for something it was registered for.
///
/// Stands for the `(key, events)` pairs of Python's `select()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    token: Token,
    data: u64,
    ready: Interest,
    readiness: Readiness,
}

impl Event {
    /// As an operating system tells of it: who it is for is not looked up yet.
    #[inline]
    pub(crate) fn reported(token: Token, readiness: Readiness) -> Event {
        Event { token, data: 0, ready: Interest::NONE, readiness }
    }

    /// Enters what the registration says; nobody's event wakes nothing.
    #[inline]
    fn find(&mut self, registration: Option<(Interest, u64)>) {
        let (interest, data) = registration.unwrap_or_default();
        self.data = data;
        self.ready = self.readiness.wakes(interest);
    }

    /// Which registration it is for.
    pub const fn token(&self) -> Token {
        self.token
    }

    /// The number given at registration.
    pub const fn data(&self) -> u64 {
        self.data
    }

    /// The sides to serve now: never empty, and never more than the registration's interest at
    /// this moment.
    pub const fn ready(&self) -> Interest {
        self.ready
    }

    /// Whether reading was asked for and will not block.
    pub const fn is_readable(&self) -> bool {
        self.ready.is_readable()
    }

    /// Whether writing was asked for and will not block.
    pub const fn is_writable(&self) -> bool {
        self.ready.is_writable()
    }

    /// Whether priority was asked for and something exceptional is there.
    pub const fn is_priority(&self) -> bool {
        self.ready.is_priority()
    }

    /// Whether the other side is known to be gone. Read on until a read gives zero bytes: there
    /// may be data left.
    ///
    /// # Platform
    /// Exact with epoll and `poll(2)`. Elsewhere it may stay `false`, so use it as a hint only.
    pub const fn is_hangup(&self) -> bool {
        self.readiness.contains(Readiness::HANGUP)
    }

    /// Whether an error is known to be pending. The next operation on the source returns it.
    ///
    /// # Platform
    /// As [`is_hangup`](Self::is_hangup).
    pub const fn is_error(&self) -> bool {
        self.readiness.contains(Readiness::ERROR)
    }
}

/// How many sources one wait reports unless [`Events::with_capacity`] says otherwise.
///
/// 1024 amortises the system call to nothing and keeps the kernel's buffer at 12 KiB. What does
/// not fit is reported by the next wait: `more_ready_than_fit_starve_nobody` in the contract tests.
pub const DEFAULT_EVENTS: usize = 1024;

/// The most sources one wait reports, whatever is asked for: more saves no system call worth counting,
/// and the kernel's buffer stays below a megabyte.
pub const MAX_EVENTS: usize = 65_536;

/// The reusable buffer that a wait fills.
///
/// Iterating looks each event up *at that moment*: one whose registration has been dropped, or
/// has lost its interest since the wait, is passed over. So a callback may deregister any other
/// source of the same batch.
#[derive(Debug)]
pub struct Events {
    batch: Vec<Event>,
    /// Counts the changes of registrations; and what it was when all of the batch was looked up. While it is
    /// that, nothing has to be looked up again.
    changes: Option<(Rc<Changes>, u64)>,
    registry: Option<Rc<dyn Registry>>,
    capacity: usize,
    notified: bool,
}

/// How often registrations of a selector have changed.
#[derive(Debug, Default)]
pub(crate) struct Changes(Cell<u64>);

impl Changes {
    pub(crate) fn one(&self) {
        self.0.set(self.0.get().wrapping_add(1));
    }
}

impl Default for Events {
    fn default() -> Events {
        Events::new()
    }
}

impl Events {
    /// A buffer for [`DEFAULT_EVENTS`] events.
    pub fn new() -> Events {
        Events::with_capacity(DEFAULT_EVENTS)
    }

    /// A buffer for `capacity` events, at least one and at most [`MAX_EVENTS`].
    ///
    /// A selector that must take whatever its platform reports (`poll(2)`, always-ready files) may
    /// exceed it, by no more than the number of registered sources.
    pub fn with_capacity(capacity: usize) -> Events {
        Events {
            batch: Vec::new(),
            changes: None,
            registry: None,
            capacity: capacity.clamp(1, MAX_EVENTS),
            notified: false,
        }
    }

    /// How many events one wait reports at the most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether the last wait was ended by, or found, a [`Notifier`](crate::Notifier).
    pub fn is_notified(&self) -> bool {
        self.notified
    }

    /// How many events the last wait brought, those that have become stale included: to know whether
    /// any is left to serve, ask the iterator.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether the last wait brought no event.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// The event at a place below [`len`](Self::len), if it is still wanted: what the iterator gives, without a
    /// copy of it.
    #[inline]
    pub fn get(&mut self, place: usize) -> Option<&Event> {
        if !self.is_current() {
            let mut event = *self.batch.get(place)?;
            self.look_up_again(&mut event);
            self.batch[place] = event;
        }
        self.batch.get(place).filter(|event| !event.ready.is_none())
    }

    /// The events that are still wanted, each checked when the iterator reaches it.
    ///
    /// # Order
    /// As the platform reports them; nothing may be concluded from it.
    pub fn iter(&self) -> Iter<'_> {
        Iter { events: self, next: 0 }
    }

    /// Forgets the batch, and lets go of the selector it came from.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.changes = None;
        self.registry = None;
        self.notified = false;
    }
}

/// For those who write a selector.
impl Events {
    /// Starts a batch of events that `registry` can resolve.
    pub fn begin(&mut self, registry: &Rc<impl Registry + 'static>) {
        self.batch.clear();
        self.notified = false;
        let same = self
            .registry
            .as_ref()
            .is_some_and(|old| std::ptr::addr_eq(Rc::as_ptr(old), Rc::as_ptr(registry)));
        if !same {
            self.registry = Some(registry.clone());
            self.changes = None;
        }
    }

    /// Adds an event.
    pub fn push(&mut self, token: Token, readiness: Readiness) {
        self.batch.push(Event::reported(token, readiness));
        // It is looked up when it is asked for.
        self.changes = None;
    }

    /// Says that a [`Notifier`](crate::Notifier) was used.
    pub fn set_notified(&mut self) {
        self.notified = true;
    }

    /// The batch as it was reported, unchecked.
    pub(crate) fn batch(&mut self) -> &mut Vec<Event> {
        &mut self.batch
    }

    /// Looks all events up, for as long as `changes` stays what it is now.
    pub(crate) fn look_up(
        &mut self,
        changes: &Rc<Changes>,
        find: impl Fn(Token) -> Option<(Interest, u64)>,
    ) {
        match &mut self.changes {
            Some((_, seen)) => *seen = changes.0.get(),
            unset => *unset = Some((changes.clone(), changes.0.get())),
        }
        for event in &mut self.batch {
            event.find(find(event.token));
        }
    }

    /// Whether nothing has changed since all of the batch was looked up.
    #[inline]
    fn is_current(&self) -> bool {
        self.changes.as_ref().is_some_and(|(changes, seen)| changes.0.get() == *seen)
    }

    #[inline(never)]
    fn look_up_again(&self, event: &mut Event) {
        event.find(self.registry.as_ref().and_then(|registry| registry.lookup(event.token)));
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = Event;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The iterator of [`Events::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    events: &'a Events,
    next: usize,
}

impl Iterator for Iter<'_> {
    type Item = Event;

    #[inline]
    fn next(&mut self) -> Option<Event> {
        while let Some(event) = self.events.batch.get(self.next) {
            let mut event = *event;
            self.next += 1;
            if !self.events.is_current() {
                self.events.look_up_again(&mut event);
            }
            if !event.ready.is_none() {
                return Some(event);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.events.batch.len() - self.next))
    }
}

impl std::iter::FusedIterator for Iter<'_> {}
