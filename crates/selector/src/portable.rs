//! Every platform that the `polling` crate knows, and its surprises absorbed.
//!
//! `polling` is used in level mode. What it leaves open, and what is done here:
//!
//! - `wait` appends, and clears everything when a signal interrupts it: a fresh list each time.
//! - A descriptor that was closed behind our back makes `poll(2)` report nothing at all, over and
//!   over: it is reported as an error.
//! - Out-of-band data is reported as readable: `poll(2)` is asked which of the two it was.
//! - Without level mode (event ports) a source is re-armed before the next wait.
//! - A wait that reports an error may have brought events: the engine keeps them.
//! - `add` is unsafe: the engine's table keeps the source open.

use std::io;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use polling::{PollMode, Poller};

use crate::engine::{Backend, Engine};
use crate::error::cannot;
use crate::notifier::{Doorbell, Ring};
use crate::table::{Table, Watch};
use crate::{Event, Interest, RawSource, Readiness, Token, sys};

/// Watches sources with whatever the platform has, through the `polling` crate: epoll, kqueue,
/// event ports, IOCP or `poll(2)`. Stands for Python's `KqueueSelector`, `DevpollSelector`,
/// `PollSelector` and `SelectSelector`.
///
/// # Platform
/// Tested on Linux, with epoll and with `poll(2)`; compile-checked on macOS, FreeBSD and Windows.
/// [`Interest::PRIORITY`] needs epoll. `polling` always asks for urgent data along with readability, so
/// urgent data that a peer sends and nobody reads makes waits return at once with nothing, which costs
/// processor time; `EpollSelector` does not ask for what nobody wants. On 32-bit targets a source that was closed behind the
/// selector's back may cause a spurious event for another one. A doorbell that cannot be rung is
/// not reported, because `polling` does not.
#[derive(Debug)]
pub struct PollingSelector {
    engine: Rc<Engine<Polling>>,
}

impl PollingSelector {
    /// An empty selector.
    ///
    /// # Errors
    /// Where the process has no descriptor left.
    pub fn new() -> io::Result<PollingSelector> {
        PollingSelector::with_mode(None)
    }

    /// A selector that works as on a platform without level mode. It is slower and does the same.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[doc(hidden)]
    pub fn oneshot() -> io::Result<PollingSelector> {
        PollingSelector::with_mode(Some(PollMode::Oneshot))
    }

    fn with_mode(mode: Option<PollMode>) -> io::Result<PollingSelector> {
        let poller = Arc::new(Poller::new().map_err(|cause| cannot("create a poller", cause))?);
        let native = if poller.supports_level() { PollMode::Level } else { PollMode::Oneshot };
        let bell = Arc::new(Mutex::new(Arc::downgrade(&poller)));
        let door = Doorbell::new(PollerBell(bell.clone()));
        let mode = mode.unwrap_or(native);
        let backend = Polling { poller, bell, mode, fired: Vec::new(), events: None };
        Ok(PollingSelector { engine: Engine::new(backend, door) })
    }
}

crate::engine::delegate_selector!(PollingSelector);

pub(crate) struct Polling {
    poller: Arc<Poller>,
    /// Where callers find the poller, which changes when it is made anew.
    bell: Arc<Mutex<Weak<Poller>>>,
    mode: PollMode,
    /// What a mode that is not level has reported and forgotten since.
    fired: Vec<Token>,
    /// The list that `polling` fills, and how many it was made for.
    events: Option<(usize, polling::Events)>,
}

/// Keeps no poller alive: its descriptors and what it watches go when the selector closes.
#[derive(Debug)]
struct PollerBell(Arc<Mutex<Weak<Poller>>>);

impl Ring for PollerBell {
    fn ring(&self) -> io::Result<()> {
        let poller = self.0.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        // Without a poller nobody waits.
        poller.map_or(Ok(()), |poller| poller.notify())
    }
}

/// Whether `polling` uses epoll here. Elsewhere it cannot ask for priority events by themselves.
const IS_EPOLL: bool =
    cfg!(all(any(target_os = "linux", target_os = "android"), not(polling_test_poll_backend)));

impl Polling {
    fn events(&mut self, capacity: usize) -> &mut polling::Events {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        let fresh = || (capacity.get(), polling::Events::with_capacity(capacity));
        let (had, events) = self.events.get_or_insert_with(fresh);
        if *had != capacity.get() {
            (*had, *events) = fresh();
        }
        events.clear();
        events
    }

    /// Watches again what a mode that is not level has forgotten. What cannot be watched any more is
    /// reported with an error, as `poll(2)` would, and keeps nobody else from being watched.
    fn rearm(&mut self, table: &Table<RawSource>, batch: &mut Vec<Event>) {
        while let Some(token) = self.fired.pop() {
            let entry = table.get(token).filter(|entry| entry.watch == Watch::Watched);
            if entry.is_some_and(|entry| self.modify(entry.raw, token, entry.interest).is_err()) {
                batch.push(Event::reported(token, Readiness::ERROR));
            }
        }
    }

    fn request(&self, token: Token, interest: Interest) -> io::Result<polling::Event> {
        if interest.is_priority() && !IS_EPOLL {
            let message = "this platform has no priority events";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        let mut event =
            polling::Event::new(key(token), interest.is_readable(), interest.is_writable());
        event.set_priority(interest.is_priority());
        Ok(event)
    }
}

impl Backend for Polling {
    const NAME: &'static str = "polling";

    fn add(&mut self, raw: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        let event = self.request(token, interest)?;
        sys::polling_add(&self.poller, raw, event, self.mode)
    }

    fn modify(&mut self, raw: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        let event = self.request(token, interest)?;
        sys::with_raw(raw, |source| self.poller.modify_with_mode(source, event, self.mode))
    }

    fn delete(&mut self, raw: RawSource) -> io::Result<()> {
        sys::with_raw(raw, |source| self.poller.delete(source))
    }

    fn wait(
        &mut self,
        table: &Table<RawSource>,
        timeout: Option<Duration>,
        capacity: usize,
        batch: &mut Vec<Event>,
    ) -> io::Result<()> {
        self.rearm(table, batch);
        let timeout = if batch.is_empty() { timeout } else { Some(Duration::ZERO) };
        let poller = self.poller.clone();
        let events = self.events(capacity);
        let waited = poller.wait(events, timeout);
        batch.extend(events.iter().map(|event| {
            let token = token(event.key, table);
            let raw = table.get(token).map(|entry| entry.raw);
            Event::reported(token, readiness(&event, raw))
        }));
        if self.mode != PollMode::Level {
            self.fired.extend(batch.iter().map(Event::token));
        }
        match waited {
            // With `poll(2)`, a ring whose byte is not in the pipe yet.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            waited => waited.map(drop),
        }
    }

    fn renew(&mut self) -> io::Result<()> {
        self.poller = Arc::new(Poller::new()?);
        let mut bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        // A call that rang the old poller has been seen: this comes after its wait.
        *bell = Arc::downgrade(&self.poller);
        self.fired.clear();
        Ok(())
    }

    #[cfg(unix)]
    fn is_always_ready(error: &io::Error) -> bool {
        let never_blocks = rustix::io::Errno::PERM.raw_os_error();
        IS_EPOLL && error.raw_os_error() == Some(never_blocks)
    }

    #[cfg(windows)]
    fn is_always_ready(_error: &io::Error) -> bool {
        false
    }

    #[cfg(unix)]
    fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        descriptor(&self.poller)
    }
}

#[cfg(all(
    any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly",
    ),
    not(polling_test_poll_backend)
))]
fn descriptor(poller: &Poller) -> Option<std::os::fd::RawFd> {
    Some(std::os::fd::AsRawFd::as_raw_fd(poller))
}

#[cfg(all(
    unix,
    not(all(
        any(
            target_os = "linux",
            target_os = "android",
            target_vendor = "apple",
            target_os = "freebsd",
            target_os = "netbsd",
            target_os = "openbsd",
            target_os = "dragonfly",
        ),
        not(polling_test_poll_backend)
    ))
))]
fn descriptor(_poller: &Poller) -> Option<std::os::fd::RawFd> {
    None
}

/// The key under which `polling` knows a token.
#[cfg(target_pointer_width = "64")]
fn key(token: Token) -> usize {
    token.to_bits() as usize
}

#[cfg(target_pointer_width = "64")]
fn token(key: usize, _table: &Table<RawSource>) -> Token {
    Token::from_bits(key as u64)
}

/// The key under which `polling` knows a token: the index alone, where a key has 32 bits.
#[cfg(not(target_pointer_width = "64"))]
fn key(token: Token) -> usize {
    token.index()
}

#[cfg(not(target_pointer_width = "64"))]
fn token(key: usize, table: &Table<RawSource>) -> Token {
    // A vacant index is nobody's: a token that no entry can have.
    table.token_at(key).unwrap_or(Token::from_bits(u64::MAX))
}

fn readiness(event: &polling::Event, raw: Option<RawSource>) -> Readiness {
    let readable = event.readable && (!event.is_priority() || is_readable(raw));
    let flags = [
        (readable, Readiness::READABLE),
        (event.writable, Readiness::WRITABLE),
        (event.is_priority(), Readiness::PRIORITY),
        (event.is_interrupt(), Readiness::HANGUP),
        (event.is_err() == Some(true), Readiness::ERROR),
        // All that `poll(2)` says of a descriptor that is not open is a flag that `polling` drops.
        (!event.readable && !event.writable, Readiness::ERROR),
    ];
    let set = flags.into_iter().filter(|(set, _)| *set);
    set.fold(Readiness::NONE, |all, (_, one)| all | one)
}

/// Whether there is data, and not only something exceptional.
#[cfg(unix)]
fn is_readable(raw: Option<RawSource>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Some(raw) = raw else { return false };
    sys::with_raw(raw, |source| {
        let mut asked = [PollFd::from_borrowed_fd(source, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Where it cannot be told, a needless read does no harm.
        poll(&mut asked, Some(&now)).is_err() || !asked[0].revents().is_empty()
    })
}

#[cfg(windows)]
fn is_readable(_raw: Option<RawSource>) -> bool {
    true
}
