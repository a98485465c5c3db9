//! Linux: epoll without detours.
//!
//! One system call for each wait, with or without a timeout, and timeouts in nanoseconds. `polling`
//! needs five (a `timerfd` and its re-arming), which is why this module exists beside
//! [`PollingSelector`](crate::PollingSelector), the reference it is tested against.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::{DupFlags, Errno};

use crate::engine::{Backend, Engine};
use crate::error::cannot;
use crate::notifier::{Doorbell, Ring};
use crate::table::Table;
use crate::{Event, Interest, RawSource, Readiness, Token, sys};

/// Watches descriptors with epoll. Stands for Python's `EpollSelector`.
///
/// # Platform
/// Linux and Android. Timeouts are exact to the nanosecond from Linux 5.11 on; before, and where a
/// sandbox forbids `epoll_pwait2`, they are rounded up to the next millisecond.
#[derive(Debug)]
pub struct EpollSelector {
    engine: Rc<Engine<Epoll>>,
}

impl EpollSelector {
    /// An empty selector: two descriptors, for epoll and for the doorbell.
    ///
    /// # Errors
    /// Where the process has no descriptor left, or a sandbox forbids epoll or `eventfd`.
    pub fn new() -> io::Result<EpollSelector> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| cannot("create an eventfd", errno.into()))?;
        let bell = Arc::new(bell);
        let epoll = new_epoll(&bell).map_err(|cause| cannot("create an epoll instance", cause))?;
        let door = Doorbell::new(EventFd(bell.clone()));
        let backend = Epoll { epoll, bell, buffer: Vec::new(), clock: Clock::Nanoseconds };
        Ok(EpollSelector { engine: Engine::new(backend, door) })
    }
}

crate::engine::delegate_selector!(EpollSelector);

pub(crate) struct Epoll {
    epoll: OwnedFd,
    bell: Arc<OwnedFd>,
    buffer: Vec<epoll::Event>,
    clock: Clock,
}

/// How exact a wait can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// `epoll_pwait2`, until it turns out to be missing.
    Nanoseconds,
    /// `epoll_pwait`.
    Milliseconds,
}

/// The data of the doorbell's events; no token has this value.
const BELL: u64 = u64::MAX;

fn new_epoll(bell: &OwnedFd) -> io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
    Ok(epoll)
}

/// The doorbell: rung by writing to an `eventfd`, which never blocks and keeps no more than a count.
#[derive(Debug)]
struct EventFd(Arc<OwnedFd>);

impl Ring for EventFd {
    fn ring(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            // A full counter is as readable as a counter gets.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Epoll {
    fn wait_once(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let waited = match timeout {
            Some(timeout) if !timeout.is_zero() && self.clock == Clock::Nanoseconds => {
                match sys::epoll_pwait2(self.epoll.as_fd(), &mut self.buffer, timeout) {
                    Err(error) if is_missing(&error) => {
                        self.clock = Clock::Milliseconds;
                        return self.wait_once(Some(timeout));
                    }
                    waited => waited,
                }
            }
            timeout => {
                let timeout = timeout.map(whole_milliseconds);
                epoll::wait(&self.epoll, spare_capacity(&mut self.buffer), timeout.as_ref())
                    .map(drop)
                    .map_err(io::Error::from)
            }
        };
        match waited {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            waited => waited,
        }
    }

    fn drain_bell(&self) -> io::Result<()> {
        match rustix::io::read(&self.bell, &mut [0u8; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Backend for Epoll {
    const NAME: &'static str = "epoll";

    fn add(&mut self, raw: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.to_bits());
        Ok(sys::with_raw(raw, |fd| epoll::add(&self.epoll, fd, data, flags(interest)))?)
    }

    fn modify(&mut self, raw: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.to_bits());
        Ok(sys::with_raw(raw, |fd| epoll::modify(&self.epoll, fd, data, flags(interest)))?)
    }

    fn delete(&mut self, raw: RawSource) -> io::Result<()> {
        Ok(sys::with_raw(raw, |fd| epoll::delete(&self.epoll, fd))?)
    }

    fn wait(
        &mut self,
        _table: &Table<RawSource>,
        timeout: Option<Duration>,
        capacity: usize,
        batch: &mut Vec<Event>,
    ) -> io::Result<()> {
        // The kernel fills all the room it is given, so it gets what the caller has. The doorbell
        // takes a place of it, but nobody's turn: what was reported goes to the end of the queue.
        if self.buffer.capacity() != capacity {
            self.buffer = Vec::with_capacity(capacity);
        }
        self.buffer.clear();
        self.wait_once(timeout)?;
        let mut rung = false;
        let events = self.buffer.iter().map(|event| (event.data.u64(), event.flags));
        batch.extend(events.map(|(data, flags)| {
            rung |= data == BELL;
            Event::reported(Token::from_bits(data), readiness(flags))
        }));
        if rung {
            batch.retain(|event| event.token().to_bits() != BELL);
        }
        if rung { self.drain_bell() } else { Ok(()) }
    }

    fn renew(&mut self) -> io::Result<()> {
        let fresh = new_epoll(&self.bell)?;
        // The number stays the same, for foreign main loops that poll it.
        Ok(rustix::io::dup3(&fresh, &mut self.epoll, DupFlags::CLOEXEC)?)
    }

    fn is_always_ready(error: &io::Error) -> bool {
        error.raw_os_error() == Some(Errno::PERM.raw_os_error())
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.epoll.as_raw_fd())
    }
}

/// Whether an error says that there is no such system call: an old kernel, another architecture,
/// or a sandbox that was written before it.
fn is_missing(error: &io::Error) -> bool {
    let missing = [Errno::NOSYS, Errno::PERM].map(|errno| Some(errno.raw_os_error()));
    error.kind() == io::ErrorKind::Unsupported || missing.contains(&error.raw_os_error())
}

/// A timeout that `epoll_pwait` can express and that is not shorter, unless it is longer than 24
/// days: then the wait ends early with nothing.
fn whole_milliseconds(timeout: Duration) -> Timespec {
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i64;
    Timespec { tv_sec: milliseconds / 1000, tv_nsec: (milliseconds % 1000 * 1_000_000) as _ }
}

fn flags(interest: Interest) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, interest.is_readable());
    flags.set(epoll::EventFlags::OUT, interest.is_writable());
    flags.set(epoll::EventFlags::PRI, interest.is_priority());
    flags
}

/// What each combination of the kernel's five flags means here: there are 32 of them.
const READINESS: [Readiness; 32] = {
    const MAP: [(epoll::EventFlags, Readiness); 5] = [
        (epoll::EventFlags::IN, Readiness::READABLE),
        (epoll::EventFlags::OUT, Readiness::WRITABLE),
        (epoll::EventFlags::PRI, Readiness::PRIORITY),
        (epoll::EventFlags::HUP, Readiness::HANGUP),
        (epoll::EventFlags::ERR, Readiness::ERROR),
    ];
    let mut all = [Readiness::NONE; 32];
    let mut flags = 0;
    while flags < all.len() {
        let mut one = 0;
        while one < MAP.len() {
            if flags & MAP[one].0.bits() as usize != 0 {
                all[flags] = all[flags].with(MAP[one].1);
            }
            one += 1;
        }
        flags += 1;
    }
    all
};

#[inline]
fn readiness(flags: epoll::EventFlags) -> Readiness {
    READINESS[flags.bits() as usize % READINESS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b25_milliseconds_are_rounded_up_and_never_to_zero() {
        let cases = [
            (Duration::from_nanos(1), (0, 1_000_000)),
            (Duration::from_micros(1_000), (0, 1_000_000)),
            (Duration::from_micros(1_001), (0, 2_000_000)),
            (Duration::from_millis(1_999), (1, 999_000_000)),
            (Duration::MAX, (2_147_483, 647_000_000)),
        ];
        for (timeout, (seconds, nanoseconds)) in cases {
            let rounded = whole_milliseconds(timeout);
            assert_eq!((rounded.tv_sec, rounded.tv_nsec), (seconds, nanoseconds));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no level-triggered epoll")]
    fn timeouts_work_where_epoll_pwait2_is_missing() {
        use crate::{Events, Selector, Timeout};
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let epoll = new_epoll(&bell).unwrap();
        let door = Doorbell::new(EventFd(bell.clone()));
        let backend = Epoll { epoll, bell, buffer: Vec::new(), clock: Clock::Milliseconds };
        let selector = EpollSelector { engine: Engine::new(backend, door) };
        let mut events = Events::new();
        let deadline = selector.now() + Duration::from_micros(300);
        while selector.now() < deadline {
            selector.select(&mut events, Timeout::At(deadline)).unwrap();
            assert!(events.is_empty());
        }
        assert!(is_missing(&Errno::NOSYS.into()));
        assert!(!is_missing(&Errno::INTR.into()));
    }
}
