//! What the selectors over an operating system have in common: registrations, their interests, the
//! doorbell, sources that are always ready, and the recovery from orphans.
//!
//! # Orphans
//! An operating system forgets a descriptor when its *file* is closed, not when the number is. If
//! somebody closes the number behind our back while a duplicate keeps the file open (a child
//! process does that), the watch stays in the kernel and there is no number left to delete it by.
//! Once the file becomes ready it is reported by every wait, for ever.
//!
//! The trick: that case always announces itself by a `delete` that fails. From then on
//! ([`State::suspicious`]) tokens are checked as they arrive; one that nobody owns is an orphan, and
//! the backend is made anew from the table. Nobody pays for the check otherwise.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::{cannot, cannot_with, closed};
use crate::event::Changes;
use crate::notifier::{Doorbell, Notifier};
use crate::table::{Entry, Table, Watch};
use crate::{
    Event, Events, Interest, Key, RawSource, Readiness, Registration, Registry, Source, Timeout,
    Token,
};

/// One mechanism of an operating system.
pub(crate) trait Backend: Sized + 'static {
    const NAME: &'static str;

    /// Starts to report a source, which stays open until it is deleted or the backend is dropped.
    fn add(&mut self, raw: RawSource, token: Token, interest: Interest) -> io::Result<()>;

    /// Changes what is reported.
    fn modify(&mut self, raw: RawSource, token: Token, interest: Interest) -> io::Result<()>;

    /// Stops to report a source.
    fn delete(&mut self, raw: RawSource) -> io::Result<()>;

    /// Waits once (`None`: for ever) and appends what is ready. An interrupted wait is over. The
    /// doorbell is drained here and not appended.
    fn wait(
        &mut self,
        table: &Table<RawSource>,
        timeout: Option<Duration>,
        capacity: usize,
        batch: &mut Vec<Event>,
    ) -> io::Result<()>;

    /// Forgets all sources, those included that cannot be deleted. The doorbell stays as it is.
    fn renew(&mut self) -> io::Result<()>;

    /// Whether an error of `add` means that the source never blocks.
    fn is_always_ready(error: &io::Error) -> bool;

    #[cfg(unix)]
    fn descriptor(&self) -> Option<std::os::fd::RawFd>;
}

/// A selector over a [`Backend`].
pub(crate) struct Engine<B> {
    state: RefCell<State<B>>,
    /// Counts what changes the answers of [`Registry::lookup`].
    changes: Rc<Changes>,
    door: Doorbell,
}

struct State<B> {
    /// `None` once closed. Before the table, so that it is dropped before the sources it watches.
    backend: Option<B>,
    table: Table<RawSource>,
    registered: RawSet,
    /// Whether a `delete` has failed, so that the kernel may report what nobody owns.
    suspicious: bool,
}

impl<B: Backend> Engine<B> {
    pub(crate) fn new(backend: B, door: Doorbell) -> Rc<Engine<B>> {
        let state = State {
            backend: Some(backend),
            table: Table::default(),
            registered: RawSet::default(),
            suspicious: false,
        };
        Rc::new(Engine { state: RefCell::new(state), changes: Rc::default(), door })
    }

    pub(crate) fn register(
        self: &Rc<Self>,
        source: Source,
        interest: Interest,
        data: u64,
    ) -> io::Result<Registration> {
        // User code, so before the state is borrowed.
        let raw = source.raw().ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "a virtual source needs a virtual selector")
        })?;
        // By reference: a source that is refused is dropped, which is user code, after the borrow.
        let token = self.state.borrow_mut().insert(&source, raw, data)?;
        // From here on dropping the registration undoes it all.
        let registration = Registration::new(self.clone(), token);
        registration.set_interest(interest)?;
        Ok(registration)
    }

    pub(crate) fn select(
        self: &Rc<Self>,
        events: &mut Events,
        timeout: Timeout,
        now: impl FnOnce() -> Instant,
    ) -> io::Result<()> {
        events.begin(self);
        let mut state = self.state.borrow_mut();
        let State { backend, table, suspicious, .. } = &mut *state;
        let backend = backend.as_mut().ok_or_else(closed)?;

        let mut timeout = timeout.remaining(now);
        if table.ready_now().next().is_some() {
            timeout = Some(Duration::ZERO);
        }
        if timeout != Some(Duration::ZERO) && !self.door.lie_down() {
            timeout = Some(Duration::ZERO);
        }
        let capacity = events.capacity();
        let result = backend.wait(table, timeout, capacity, events.batch());
        if self.door.get_up() {
            events.set_notified();
        }
        let batch = events.batch();
        match result {
            // Events that came along with an error are as good as any.
            Err(cause) if batch.is_empty() => return Err(cannot("wait for readiness", cause)),
            _ => {}
        }
        if *suspicious && drop_orphans(batch, table) {
            match state.rebuild(batch) {
                // Out of descriptors, most likely: the next wait tries again, and those that are
                // ready do not have to wait for it.
                Err(error) if batch.is_empty() => return Err(error),
                _ => {}
            }
        }
        state.report_always_ready(batch, capacity);
        let table = &state.table;
        events.look_up(&self.changes, |token| {
            table.get(token).map(|entry| (entry.interest, entry.data))
        });
        Ok(())
    }

    pub(crate) fn notifier(&self) -> Notifier {
        self.door.notifier()
    }

    pub(crate) fn name(&self) -> &'static str {
        B::NAME
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.state.borrow().table.keys()
    }

    pub(crate) fn is_always_ready(&self) -> bool {
        self.state.borrow().table.ready_now().next().is_some()
    }

    pub(crate) fn close(&self) {
        self.door.close();
        self.changes.one();
        let (backend, table) = {
            let mut state = self.state.borrow_mut();
            state.registered = RawSet::default();
            (state.backend.take(), std::mem::take(&mut state.table))
        };
        // The backend first: what it watches must stay open for as long as it is there. And
        // neither under the borrow: the drop of a source is user code.
        drop(backend);
        drop(table);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.borrow().backend.is_none()
    }

    #[cfg(unix)]
    pub(crate) fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        let descriptor = self.state.borrow().backend.as_ref()?.descriptor()?;
        // A bell that cannot ring is reported by the notifier to whoever uses it next.
        let _ = self.door.expose();
        Some(descriptor)
    }
}

impl<B: Backend> fmt::Debug for Engine<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = self.state.borrow().table.len();
        f.debug_struct(B::NAME).field("sources", &sources).finish_non_exhaustive()
    }
}

impl<B: Backend> Registry for Engine<B> {
    fn lookup(&self, token: Token) -> Option<(Interest, u64)> {
        self.state.borrow().table.get(token).map(|entry| (entry.interest, entry.data))
    }

    fn key(&self, token: Token) -> Option<Key> {
        self.state.borrow().table.key(token)
    }

    fn set_interest(&self, token: Token, interest: Interest) -> io::Result<()> {
        self.changes.one();
        self.state.borrow_mut().set_interest(token, interest)
    }

    fn set_data(&self, token: Token, data: u64) -> io::Result<()> {
        self.changes.one();
        let mut state = self.state.borrow_mut();
        state.check_open()?;
        state.table.get_mut(token)?.data = data;
        Ok(())
    }

    fn deregister(&self, token: Token) -> io::Result<Source> {
        self.changes.one();
        // The entry leaves the borrow before it is dropped by whoever gets it.
        let entry = self.state.borrow_mut().remove(token)?;
        Ok(entry.source)
    }
}

impl<B: Backend> State<B> {
    fn check_open(&self) -> io::Result<()> {
        if self.backend.is_none() { Err(closed()) } else { Ok(()) }
    }

    fn insert(&mut self, source: &Source, raw: RawSource, data: u64) -> io::Result<Token> {
        self.check_open()?;
        if self.registered.contains(raw) {
            return Err(cannot_with("register", raw, io::ErrorKind::AlreadyExists.into()));
        }
        let token = self.table.insert(source.clone(), raw, data)?;
        self.registered.insert(raw);
        Ok(token)
    }

    fn remove(&mut self, token: Token) -> io::Result<Entry<RawSource>> {
        self.check_open()?;
        let entry = self.table.remove(token)?;
        self.registered.remove(entry.raw);
        if entry.watch == Watch::Watched {
            self.delete(entry.raw);
        }
        Ok(entry)
    }

    /// Takes a source out of the operating system's set. That it is not in there any more means
    /// that its number was closed behind our back.
    fn delete(&mut self, raw: RawSource) {
        if let Some(backend) = &mut self.backend {
            self.suspicious |= backend.delete(raw).is_err();
        }
    }

    fn set_interest(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.check_open()?;
        let entry = self.table.get_mut(token)?;
        let before = std::mem::replace(&mut entry.interest, interest);
        let (raw, watch) = (entry.raw, entry.watch);
        match watch {
            Watch::Unwatched if !interest.is_none() => self.watch(token, raw, interest),
            Watch::Watched if interest.is_none() => {
                entry.watch = Watch::Unwatched;
                self.delete(raw);
                Ok(())
            }
            Watch::Watched if interest != before => self.rewatch(token, raw, interest),
            _ => Ok(()),
        }
    }

    fn watch(&mut self, token: Token, raw: RawSource, interest: Interest) -> io::Result<()> {
        let backend = self.backend.as_mut().ok_or_else(closed)?;
        let added = match backend.add(raw, token, interest) {
            // An orphan that has got its number back: nobody else of ours can have this one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                backend.modify(raw, token, interest)
            }
            added => added,
        };
        match added {
            Ok(()) => self.table.get_mut(token)?.watch = Watch::Watched,
            Err(error) if B::is_always_ready(&error) => self.table.set_always_ready(token)?,
            Err(cause) => {
                self.table.get_mut(token)?.interest = Interest::NONE;
                return Err(cannot_with("watch", raw, cause));
            }
        }
        Ok(())
    }

    fn rewatch(&mut self, token: Token, raw: RawSource, interest: Interest) -> io::Result<()> {
        let backend = self.backend.as_mut().ok_or_else(closed)?;
        let Err(cause) = backend.modify(raw, token, interest) else { return Ok(()) };
        let entry = self.table.get_mut(token)?;
        entry.interest = Interest::NONE;
        entry.watch = Watch::Unwatched;
        self.delete(raw);
        Err(cannot_with("change the interest in", raw, cause))
    }

    /// Makes the backend anew from the table. A source that it does not take any more is reported
    /// once with an error, so that its owner learns of it.
    fn rebuild(&mut self, batch: &mut Vec<Event>) -> io::Result<()> {
        let backend = self.backend.as_mut().ok_or_else(closed)?;
        backend.renew().map_err(|cause| cannot("rebuild the set of sources", cause))?;
        let watched: Vec<_> = self
            .table
            .iter()
            .filter(|(_, entry)| entry.watch == Watch::Watched)
            .map(|(token, entry)| (token, entry.raw, entry.interest))
            .collect();
        for (token, raw, interest) in watched {
            if backend.add(raw, token, interest).is_err() {
                self.table.get_mut(token)?.watch = Watch::Unwatched;
                batch.push(Event::reported(token, Readiness::ERROR));
            }
        }
        self.suspicious = false;
        Ok(())
    }

    fn report_always_ready(&mut self, batch: &mut Vec<Event>, capacity: usize) {
        // At least one, or sockets that are always ready too would starve them.
        let room = capacity.saturating_sub(batch.len()).max(1);
        let before = batch.len();
        let ready = self.table.ready_now().take(room);
        batch.extend(ready.map(|(token, interest)| Event::reported(token, interest.into())));
        self.table.rotate_always_ready(batch.len() - before);
    }
}

/// Removes the events that nobody owns; returns whether there were any.
fn drop_orphans(batch: &mut Vec<Event>, table: &Table<RawSource>) -> bool {
    let before = batch.len();
    batch.retain(|event| table.get(event.token()).is_some());
    batch.len() < before
}

/// The descriptors that are registered: one bit for each number up to the largest, since
/// descriptors are small and dense.
#[cfg(unix)]
#[derive(Debug, Default)]
struct RawSet(Vec<u64>);

#[cfg(unix)]
impl RawSet {
    fn place(raw: RawSource) -> (usize, u64) {
        let raw = usize::try_from(raw).unwrap_or(usize::MAX);
        (raw / 64, 1 << (raw % 64))
    }

    fn contains(&self, raw: RawSource) -> bool {
        let (word, bit) = RawSet::place(raw);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn insert(&mut self, raw: RawSource) {
        let (word, bit) = RawSet::place(raw);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    fn remove(&mut self, raw: RawSource) {
        let (word, bit) = RawSet::place(raw);
        self.0[word] &= !bit;
    }
}

/// The sockets that are registered.
#[cfg(windows)]
#[derive(Debug, Default)]
struct RawSet(std::collections::HashSet<RawSource>);

#[cfg(windows)]
impl RawSet {
    fn contains(&self, raw: RawSource) -> bool {
        self.0.contains(&raw)
    }

    fn insert(&mut self, raw: RawSource) {
        self.0.insert(raw);
    }

    fn remove(&mut self, raw: RawSource) {
        self.0.remove(&raw);
    }
}

/// Makes a struct with a field `engine` a selector.
macro_rules! delegate_selector {
    ($selector:ty) => {
        impl crate::Selector for $selector {
            fn register(
                &self,
                source: crate::Source,
                interest: crate::Interest,
                data: u64,
            ) -> std::io::Result<crate::Registration> {
                self.engine.register(source, interest, data)
            }

            fn select(
                &self,
                events: &mut crate::Events,
                timeout: crate::Timeout,
            ) -> std::io::Result<()> {
                self.engine.select(events, timeout, || self.now())
            }

            fn now(&self) -> std::time::Instant {
                #[expect(clippy::disallowed_methods, reason = "a selector is the clock")]
                std::time::Instant::now()
            }

            fn notifier(&self) -> crate::Notifier {
                self.engine.notifier()
            }

            fn get_key(&self, token: crate::Token) -> Option<crate::Key> {
                crate::Registry::key(&*self.engine, token)
            }

            fn keys(&self) -> Vec<crate::Key> {
                self.engine.keys()
            }

            fn is_always_ready(&self) -> bool {
                self.engine.is_always_ready()
            }

            fn close(&self) {
                self.engine.close();
            }

            fn is_closed(&self) -> bool {
                self.engine.is_closed()
            }

            fn name(&self) -> &'static str {
                self.engine.name()
            }

            #[cfg(unix)]
            fn backend_fd(&self) -> Option<std::os::fd::RawFd> {
                self.engine.descriptor()
            }
        }

        impl Drop for $selector {
            fn drop(&mut self) {
                self.engine.close();
            }
        }
    };
}
pub(crate) use delegate_selector;
