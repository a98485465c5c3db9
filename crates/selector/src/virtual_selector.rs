//! A selector with no operating system under it: virtual sources, scripted readiness, and a clock
//! that moves only when it is told to.
//!
//! A wait ends when a source is ready, a notifier was used, or the timeout is over. Here, where
//! nothing happens by itself, "the timeout is over" is a decision, taken in this order:
//!
//! 1. While somebody has a [`Hold`], a wait really blocks, for a notification or for the end of the
//!    hold: work is going on in another thread, and time must not run away from it.
//! 2. With [`autojump`](VirtualHandle::set_autojump) the clock jumps to whatever is next, the
//!    deadline or an entry of the script. If there is neither, nothing can ever happen again, and
//!    the wait says so with an error rather than block.
//! 3. Else the wait returns with nothing, and whoever drives the clock
//!    [`advance`](VirtualHandle::advance)s it.
//!
//! One file: what a script does, what a selector says of it and what a handle sees are one state.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::closed;
use crate::notifier::{Doorbell, Notifier, Ring};
use crate::refusal::{Refusals, Refuse, VirtualCall};
use crate::table::Table;
use crate::{
    Events, Interest, Key, Readiness, Registration, Registry, Selector, Source, Timeout, Token,
    VirtualId,
};

/// A selector whose sources and whose time are simulated. Give it to a loop and keep a
/// [`handle`](Self::handle) to play the outside world.
///
/// ```
/// use std::time::Duration;
/// use tulipa_selector::{Events, Interest, Readiness, Selector, Timeout, VirtualSelector};
///
/// let selector = VirtualSelector::new();
/// let world = selector.handle();
/// world.set_autojump(true);
///
/// let wire = world.new_source();
/// let registration = selector.register(wire.into(), Interest::READABLE, 7)?;
/// let start = selector.now();
/// let in_a_year = start + Duration::from_secs(365 * 24 * 3600);
/// world.script(in_a_year, wire, Readiness::READABLE);
///
/// let mut events = Events::new();
/// selector.select(&mut events, Timeout::Never)?; // takes microseconds
/// assert_eq!(events.iter().next().unwrap().data(), 7);
/// assert_eq!(selector.now(), in_a_year);
/// # drop(registration);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Order
/// Sources are reported in the order of their creation, and a wait that has no room for all of
/// them goes on where the last one stopped, unless somebody [shuffles](VirtualHandle::set_shuffle)
/// them. The same calls give the same events, always.
#[derive(Debug)]
pub struct VirtualSelector {
    world: Rc<World>,
}

/// The other side of a [`VirtualSelector`]: what makes sources ready and moves the clock.
#[derive(Clone, Debug)]
pub struct VirtualHandle {
    world: Rc<World>,
}

/// While it lives, the clock of a [`VirtualSelector`] does not jump, and waits really block: work
/// goes on in another thread, which will use the [`Notifier`] when it is done.
#[derive(Debug)]
pub struct Hold {
    bell: Arc<Bell>,
}

/// Makes [`Hold`]s in any thread.
#[derive(Clone, Debug)]
pub struct Holder {
    bell: Arc<Bell>,
}

struct World {
    state: RefCell<State>,
    door: Doorbell,
    bell: Arc<Bell>,
    refusals: Refusals,
}

struct State {
    closed: bool,
    now: Instant,
    autojump: bool,
    table: Table<VirtualId>,
    tokens: BTreeMap<VirtualId, Token>,
    /// The sources that are ready for anything at all.
    ready: BTreeMap<VirtualId, Readiness>,
    /// What happens when, in the order in which it was scripted for equal times.
    script: BTreeMap<(Instant, u64), Scripted>,
    scripted: u64,
    created: u64,
    /// The source that the last batch ended with.
    last: Option<VirtualId>,
    /// Gives a number below the one that it is asked for. Out while it is called.
    shuffle: Option<Shuffle>,
}

/// An entry of the script.
enum Scripted {
    Ready(VirtualId, Readiness),
    Call(Act),
}

/// What the outside world does at some instant.
type Act = Box<dyn FnOnce(&VirtualHandle)>;

type Shuffle = Box<dyn FnMut(usize) -> usize>;

/// A script that goes on for ever at one instant is a mistake of whoever wrote it.
const MOST_CALLS_AT_ONE_INSTANT: usize = 1_000_000;

/// What a blocked wait sleeps on.
#[derive(Debug, Default)]
struct Bell {
    state: Mutex<BellState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    rung: bool,
    holds: usize,
}

impl VirtualSelector {
    /// A selector whose clock stands at the present moment, and stays there.
    #[expect(clippy::new_without_default, reason = "two calls give clocks with different starts")]
    pub fn new() -> VirtualSelector {
        #[expect(clippy::disallowed_methods, reason = "virtual time is a real base plus an offset")]
        let now = Instant::now();
        let bell = Arc::new(Bell::default());
        let state = State {
            closed: false,
            now,
            autojump: false,
            table: Table::default(),
            tokens: BTreeMap::new(),
            ready: BTreeMap::new(),
            script: BTreeMap::new(),
            scripted: 0,
            created: 0,
            last: None,
            shuffle: None,
        };
        let door = Doorbell::new(VirtualRing(bell.clone()));
        let (state, refusals) = (RefCell::new(state), Refusals::default());
        VirtualSelector { world: Rc::new(World { state, door, bell, refusals }) }
    }

    /// A handle that plays the outside world.
    pub fn handle(&self) -> VirtualHandle {
        VirtualHandle { world: self.world.clone() }
    }
}

impl VirtualHandle {
    /// A new source, which is ready for nothing.
    pub fn new_source(&self) -> VirtualId {
        let mut state = self.world.state.borrow_mut();
        state.created += 1;
        VirtualId(state.created)
    }

    /// Sets what a source is ready for from now on, until it is set again: readiness is level
    /// triggered here too. It need not be registered yet.
    pub fn set_ready(&self, source: VirtualId, readiness: Readiness) {
        self.world.state.borrow_mut().set_ready(source, readiness);
    }

    /// What a source is ready for now.
    pub fn readiness(&self, source: VirtualId) -> Readiness {
        self.world.state.borrow().ready.get(&source).copied().unwrap_or_default()
    }

    /// Sets what a source is ready for from the instant `at` on. An instant in the past means now.
    ///
    /// # Order
    /// By time, and for equal times in the order of the calls.
    pub fn script(&self, at: Instant, source: VirtualId, readiness: Readiness) {
        let mut state = self.world.state.borrow_mut();
        let at = at.max(state.now);
        if at > state.now || state.next_scripted().is_some_and(|next| next <= at) {
            state.add(at, Scripted::Ready(source, readiness));
        } else {
            state.set_ready(source, readiness);
        }
    }

    /// Calls `act` when the clock comes to the instant `at`: what the outside world does then. For an
    /// instant that has come or gone it is called by the next wait, or when the clock is moved next.
    ///
    /// The script keeps `act`, so it should not keep this world alive: that is why it is lent a handle.
    ///
    /// # Order
    /// As [`script`](Self::script), each at its own time: the clock stands at `at`, or where it was if that
    /// is later.
    pub fn call_at(&self, at: Instant, act: impl FnOnce(&VirtualHandle) + 'static) {
        self.world.state.borrow_mut().add(at, Scripted::Call(Box::new(act)));
    }

    /// Lets `choose` decide in which order a wait reports the sources that are ready, and which of them when
    /// it has no room for all; it is given a number and returns one below it. `None` is the order of their
    /// creation, as at first.
    ///
    /// No program may depend on that order, so a seeded generator here finds the ones that do.
    pub fn set_shuffle(&self, choose: Option<Box<dyn FnMut(usize) -> usize>>) {
        let old = std::mem::replace(&mut self.world.state.borrow_mut().shuffle, choose);
        drop(old);
    }

    /// Lets `refuse` decide what the simulated operating system does not do. `None` refuses nothing, as at first.
    pub fn set_refusal(&self, refuse: Option<Refuse>) {
        self.world.refusals.set(refuse);
    }

    /// How many waits were interrupted. Such a wait tells nothing, whatever is ready.
    pub fn interruptions(&self) -> u64 {
        self.world.refusals.interruptions()
    }

    /// Moves the clock forward and makes ready what the script says, in order.
    ///
    /// # Panics
    /// Where the clock would leave what an `Instant` can express.
    pub fn advance(&self, by: Duration) {
        let target = self.now().checked_add(by).expect("virtual time stays within an Instant");
        self.advance_to(target);
    }

    /// Moves the clock to `target`, or leaves it where it is if that is in the past.
    ///
    /// # Panics
    /// If the script goes on for ever at one instant; and as what it [calls](Self::call_at).
    pub fn advance_to(&self, target: Instant) {
        self.play_until(target);
        let mut state = self.world.state.borrow_mut();
        state.now = state.now.max(target);
    }

    /// Plays the script up to an instant, with the clock at each entry's time. Returns whether it has called
    /// anybody.
    fn play_until(&self, target: Instant) -> bool {
        let mut calls = 0;
        loop {
            let Some(act) = self.world.state.borrow_mut().next_call(target) else {
                return calls > 0;
            };
            calls += 1;
            assert!(
                calls < MOST_CALLS_AT_ONE_INSTANT,
                "the script goes on for ever at one instant"
            );
            act(self);
        }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.world.state.borrow().now
    }

    /// When the next entry of the script is due.
    pub fn next_scripted(&self) -> Option<Instant> {
        self.world.state.borrow().next_scripted()
    }

    /// Whether a source is ready for what is wanted of it, so that a wait ends at once and time must not move.
    pub fn has_events(&self) -> bool {
        !self.world.state.borrow().wanted().is_empty()
    }

    /// Whether a wait that finds nothing jumps to what is next. Off at first.
    pub fn set_autojump(&self, autojump: bool) {
        self.world.state.borrow_mut().autojump = autojump;
    }

    /// Keeps the clock from jumping while work goes on in another thread.
    pub fn hold(&self) -> Hold {
        self.holder().hold()
    }

    /// Whether somebody has a hold.
    pub fn is_held(&self) -> bool {
        self.world.bell.lock().holds > 0
    }

    /// Makes holds in any thread.
    pub fn holder(&self) -> Holder {
        Holder { bell: self.world.bell.clone() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.bell.lock().holds -= 1;
        self.bell.changed.notify_one();
    }
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, BellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody rang since the last look, and whether there is a hold.
    fn look(&self) -> (bool, bool) {
        let mut state = self.lock();
        (std::mem::take(&mut state.rung), state.holds > 0)
    }

    /// Blocks while there is a hold and nobody rings. Returns whether somebody rang.
    fn wait(&self) -> bool {
        let waiting = |state: &mut BellState| state.holds > 0 && !state.rung;
        let state = self.changed.wait_while(self.lock(), waiting);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.rung)
    }
}

impl Holder {
    /// Keeps the clock from jumping until the hold is dropped.
    pub fn hold(&self) -> Hold {
        self.bell.lock().holds += 1;
        Hold { bell: self.bell.clone() }
    }
}

#[derive(Debug)]
struct VirtualRing(Arc<Bell>);

impl Ring for VirtualRing {
    fn ring(&self) -> io::Result<()> {
        self.0.lock().rung = true;
        self.0.changed.notify_one();
        Ok(())
    }
}

impl State {
    fn set_ready(&mut self, source: VirtualId, readiness: Readiness) {
        if readiness.is_none() {
            self.ready.remove(&source);
        } else {
            self.ready.insert(source, readiness);
        }
    }

    fn next_scripted(&self) -> Option<Instant> {
        self.script.keys().next().map(|(at, _)| *at)
    }

    fn add(&mut self, at: Instant, entry: Scripted) {
        self.scripted += 1;
        let place = (at, self.scripted);
        self.script.insert(place, entry);
    }

    /// Plays the script up to an instant, or to the next call in it.
    fn next_call(&mut self, target: Instant) -> Option<Act> {
        loop {
            let entry = self.script.first_entry().filter(|entry| entry.key().0 <= target)?;
            self.now = self.now.max(entry.key().0);
            match entry.remove() {
                Scripted::Ready(source, readiness) => self.set_ready(source, readiness),
                Scripted::Call(act) => return Some(act),
            }
        }
    }

    /// All sources that are ready for what is wanted of them.
    fn wanted(&self) -> Vec<(Token, Readiness)> {
        let wanted = self.ready.iter().filter_map(|(id, readiness)| {
            let token = *self.tokens.get(id)?;
            let interest = self.table.get(token)?.interest;
            (!readiness.wakes(interest).is_none()).then_some((token, *readiness))
        });
        wanted.collect()
    }

    /// Reports what is ready, starting behind the source that the last batch ended with.
    fn report(&mut self, events: &mut Events) {
        let from = self.last.map_or(Unbounded, Excluded);
        let behind = self.ready.range((from, Unbounded));
        let upto =
            self.ready.iter().take_while(|(id, _)| self.last.is_some_and(|last| **id <= last));
        let wanted = behind.chain(upto).filter_map(|(id, readiness)| {
            let token = *self.tokens.get(id)?;
            let interest = self.table.get(token)?.interest;
            (!readiness.wakes(interest).is_none()).then_some((*id, token, *readiness))
        });
        let mut last = None;
        for (id, token, readiness) in wanted.take(events.capacity()) {
            events.push(token, readiness);
            last = Some(id);
        }
        // Only a full batch leaves somebody out.
        self.last = last.filter(|_| events.len() == events.capacity());
    }

    fn check_open(&self) -> io::Result<()> {
        if self.closed { Err(closed()) } else { Ok(()) }
    }

    /// Where a wait that finds nothing goes next; `None` if it is over.
    fn jump(&self, deadline: Option<Instant>) -> io::Result<Option<Instant>> {
        let over = deadline.is_some_and(|deadline| deadline <= self.now);
        if over || !self.autojump {
            return Ok(None);
        }
        let next = [deadline, self.next_scripted()].into_iter().flatten().min();
        next.map(Some).ok_or_else(|| {
            let message = "nothing can make progress: no source is ready, no timeout is set, \
                           nothing is scripted and nobody else is at work";
            io::Error::new(io::ErrorKind::Deadlock, message)
        })
    }
}

impl World {
    /// Reports what is ready, in the order that somebody's code chooses, or in that of creation.
    fn report(&self, events: &mut Events) {
        let shuffle = self.state.borrow_mut().shuffle.take();
        let Some(mut shuffle) = shuffle else { return self.state.borrow_mut().report(events) };
        let mut wanted = self.state.borrow().wanted();
        for place in (1..wanted.len()).rev() {
            let other = shuffle(place + 1).min(place);
            wanted.swap(place, other);
        }
        for (token, readiness) in wanted.into_iter().take(events.capacity()) {
            events.push(token, readiness);
        }
        // Its own code may have set another one.
        let other = self.state.borrow_mut().shuffle.replace(shuffle);
        if other.is_some() {
            let own = std::mem::replace(&mut self.state.borrow_mut().shuffle, other);
            drop(own);
        }
    }
}

impl VirtualHandle {
    fn wait(&self, events: &mut Events, deadline: Option<Instant>) -> io::Result<()> {
        let world = &*self.world;
        let mut awake = !world.door.lie_down();
        loop {
            // Who was called may have given the loop something to do without a notification.
            awake |= self.play_until(self.now());
            world.report(events);
            if awake || !events.is_empty() {
                return Ok(());
            }
            // At one look: who ends a hold rings before it, and what it has to say must not be jumped over.
            let (rung, held) = world.bell.look();
            if rung {
                return Ok(());
            }
            let over = deadline.is_some_and(|deadline| deadline <= self.now());
            if held && !over {
                awake = world.bell.wait();
                continue;
            }
            let Some(next) = world.state.borrow().jump(deadline)? else { return Ok(()) };
            awake |= self.play_until(next);
            let mut state = world.state.borrow_mut();
            state.now = state.now.max(next);
        }
    }
}

impl Selector for VirtualSelector {
    fn register(&self, source: Source, interest: Interest, data: u64) -> io::Result<Registration> {
        let id = source.virtual_id().ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "a descriptor needs a real selector")
        })?;
        self.world.state.borrow().check_open()?;
        self.world.refusals.ask(VirtualCall::Register(id))?;
        let mut state = self.world.state.borrow_mut();
        state.check_open()?;
        if state.tokens.contains_key(&id) {
            let message = format!("cannot register virtual source {}: it is registered", id.0);
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let token = state.table.insert(source, id, data)?;
        state.table.get_mut(token)?.interest = interest;
        state.tokens.insert(id, token);
        Ok(Registration::new(self.world.clone(), token))
    }

    fn select(&self, events: &mut Events, timeout: Timeout) -> io::Result<()> {
        events.begin(&self.world);
        self.world.state.borrow().check_open()?;
        if !self.world.refusals.ask_to_wait()? {
            return Ok(());
        }
        let deadline = timeout.deadline(|| self.now());
        let result = self.handle().wait(events, deadline);
        if self.world.door.get_up() {
            events.set_notified();
        }
        result
    }

    fn now(&self) -> Instant {
        self.world.state.borrow().now
    }

    fn notifier(&self) -> Notifier {
        self.world.door.notifier()
    }

    fn get_key(&self, token: Token) -> Option<Key> {
        self.world.key(token)
    }

    fn keys(&self) -> Vec<Key> {
        self.world.state.borrow().table.keys()
    }

    fn close(&self) {
        self.world.door.close();
        let mut state = self.world.state.borrow_mut();
        state.closed = true;
        state.table = Table::default();
        state.tokens.clear();
    }

    fn is_closed(&self) -> bool {
        self.world.state.borrow().closed
    }

    fn name(&self) -> &'static str {
        "virtual"
    }
}

impl Drop for VirtualSelector {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = self.state.borrow().table.len();
        f.debug_struct("virtual").field("sources", &sources).finish_non_exhaustive()
    }
}

impl Registry for World {
    fn lookup(&self, token: Token) -> Option<(Interest, u64)> {
        self.state.borrow().table.get(token).map(|entry| (entry.interest, entry.data))
    }

    fn key(&self, token: Token) -> Option<Key> {
        self.state.borrow().table.key(token)
    }

    fn set_interest(&self, token: Token, interest: Interest) -> io::Result<()> {
        let id = {
            let mut state = self.state.borrow_mut();
            state.check_open()?;
            let entry = state.table.get_mut(token)?;
            // What is refused leaves none, as with the real selectors.
            entry.interest = Interest::NONE;
            entry.raw
        };
        if !interest.is_none() {
            self.refusals.ask(VirtualCall::SetInterest(id))?;
        }
        self.state.borrow_mut().table.get_mut(token)?.interest = interest;
        Ok(())
    }

    fn set_data(&self, token: Token, data: u64) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.check_open()?;
        state.table.get_mut(token)?.data = data;
        Ok(())
    }

    fn deregister(&self, token: Token) -> io::Result<Source> {
        let mut state = self.state.borrow_mut();
        state.check_open()?;
        let entry = state.table.remove(token)?;
        state.tokens.remove(&entry.raw);
        Ok(entry.source)
    }
}
