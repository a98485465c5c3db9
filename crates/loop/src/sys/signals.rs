//! Signal dispositions.
//!
//! The problem: a handler may do next to nothing, it can come in any thread at any instruction, and
//! several loops may want the same signal. `signal-hook-registry` solves this, but never gives a
//! disposition back, and asyncio's users expect that removing a handler does.
//!
//! The trick: everything the handler touches is static and atomic. Each loop that wants signals has
//! one of [`MAX_LOOPS`] places with a set of wanted signals, a set of pending ones, and the
//! descriptor of a doorbell. The handler sets a bit in each place that wants the signal and rings its
//! bell. A place and its bell are used again, never freed, so that a handler that is late in another
//! thread writes into a bell and not into somebody's file.
//!
//! Signals coalesce, as they do in the kernel, and never vanish: the bit is set before the bell rings,
//! and the loop empties the bell before it takes the bits.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::io;
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{mem, ptr};

/// How many loops may listen to signals at one time. The handler goes through all of them, so this is
/// what bounds it.
pub(crate) const MAX_LOOPS: usize = 64;

struct Place {
    taken: AtomicBool,
    wanted: AtomicU64,
    pending: AtomicU64,
    /// The signals of which the second one ends the process, also when the loop is stuck.
    last_chance: AtomicU64,
    /// Those of them that have come once.
    struck: AtomicU64,
    /// The end of the bell that is written to, or −1 before its first use.
    bell: AtomicI32,
    /// The end that is read from, likewise.
    ear: AtomicI32,
    /// The process that made the bell; a forked child must not listen to the bells of its parent.
    process: AtomicU32,
}

static PLACES: [Place; MAX_LOOPS] = [const {
    Place {
        taken: AtomicBool::new(false),
        wanted: AtomicU64::new(0),
        pending: AtomicU64::new(0),
        last_chance: AtomicU64::new(0),
        struck: AtomicU64::new(0),
        bell: AtomicI32::new(-1),
        ear: AtomicI32::new(-1),
        process: AtomicU32::new(0),
    }
}; MAX_LOOPS];

/// What was there before us, and how many places want the signal.
struct Disposition {
    users: usize,
    before: libc::sigaction,
}

static DISPOSITIONS: Mutex<BTreeMap<c_int, Disposition>> = Mutex::new(BTreeMap::new());

/// One loop's place among those who want signals.
#[derive(Debug)]
pub(crate) struct Listener {
    place: usize,
}

/// The bit of a signal, whose number is from 1 to 64.
fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

extern "C" fn handler(signal: c_int) {
    let errno = errno();
    // SAFETY: `errno()` points to this thread's errno for as long as the thread lives.
    let saved = unsafe { *errno };
    for place in &PLACES {
        if place.wanted.load(Ordering::Acquire) & bit(signal) != 0 {
            let last_chance = place.last_chance.load(Ordering::Acquire) & bit(signal) != 0;
            if last_chance
                && place.struck.fetch_or(bit(signal), Ordering::AcqRel) & bit(signal) != 0
            {
                // SAFETY: both may be called in a handler. The signal ends the process, as if nobody
                // had listened, when this handler returns and does not block it any more.
                unsafe {
                    libc::signal(signal, libc::SIG_DFL);
                    libc::raise(signal);
                }
            }
            place.pending.fetch_or(bit(signal), Ordering::Release);
            let bell = place.bell.load(Ordering::Acquire);
            // SAFETY: a bell is never closed. `write` may be called in a handler. A full bell is one
            // that will be heard.
            let _ = rustix::io::write(unsafe { BorrowedFd::borrow_raw(bell) }, &1u64.to_ne_bytes());
        }
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

fn errno() -> *mut c_int {
    // SAFETY: these functions have no preconditions.
    #[cfg(any(target_os = "linux", target_os = "l4re", target_os = "emscripten"))]
    return unsafe { libc::__errno_location() };
    // SAFETY: as above.
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    return unsafe { libc::__error() };
    // SAFETY: as above.
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    return unsafe { libc::__errno() };
}

impl Listener {
    /// Takes a place.
    pub(crate) fn new() -> io::Result<Listener> {
        let free = |place: &&Place| !place.taken.swap(true, Ordering::AcqRel);
        let place = PLACES.iter().position(|place| free(&place)).ok_or_else(|| {
            io::Error::other("64 event loops listen to signals, and that is all there can be")
        })?;
        let listener = Listener { place };
        let process = std::process::id();
        if listener.place().process.load(Ordering::Acquire) != process {
            let (ear, bell) = new_bell()?;
            listener.place().ear.store(ear.into_raw_fd(), Ordering::Release);
            listener.place().bell.store(bell.into_raw_fd(), Ordering::Release);
            listener.place().process.store(process, Ordering::Release);
        }
        // What came for whoever had the place before is not for us.
        drop(listener.take_pending());
        Ok(listener)
    }

    /// The descriptor that is readable when a signal is pending. It is never closed.
    pub(crate) fn ear(&self) -> BorrowedFd<'static> {
        // SAFETY: an ear is never closed once it is there, and `new` has made it.
        unsafe { BorrowedFd::borrow_raw(self.place().ear.load(Ordering::Acquire)) }
    }

    /// Starts to listen to a signal; the first listener of the process takes its disposition over.
    pub(crate) fn listen(&self, signal: c_int) -> io::Result<()> {
        if self.place().wanted.load(Ordering::Acquire) & bit(signal) != 0 {
            return Ok(());
        }
        let mut dispositions = DISPOSITIONS.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the handler is there, so that the first signal it gets is not lost.
        self.place().wanted.fetch_or(bit(signal), Ordering::AcqRel);
        match dispositions.get_mut(&signal) {
            Some(disposition) => disposition.users += 1,
            None => match install(signal) {
                Ok(before) => drop(dispositions.insert(signal, Disposition { users: 1, before })),
                Err(error) => {
                    self.place().wanted.fetch_and(!bit(signal), Ordering::AcqRel);
                    return Err(error);
                }
            },
        }
        Ok(())
    }

    /// Has the second of these signals, from now on, end the process, whatever the loop is doing.
    pub(crate) fn end_at_second(&self, signal: c_int) {
        self.place().struck.fetch_and(!bit(signal), Ordering::AcqRel);
        self.place().last_chance.fetch_or(bit(signal), Ordering::AcqRel);
    }

    /// Takes [`end_at_second`](Self::end_at_second) back.
    pub(crate) fn end_never(&self, signal: c_int) {
        self.place().last_chance.fetch_and(!bit(signal), Ordering::AcqRel);
    }

    /// Stops to listen to a signal; the last listener gives the disposition back.
    pub(crate) fn ignore(&self, signal: c_int) {
        if self.place().wanted.load(Ordering::Acquire) & bit(signal) == 0 {
            return;
        }
        let mut dispositions = DISPOSITIONS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(disposition) = dispositions.get_mut(&signal) {
            disposition.users -= 1;
            if disposition.users == 0 {
                // SAFETY: `before` is what `sigaction` gave for this signal.
                unsafe { libc::sigaction(signal, &disposition.before, ptr::null_mut()) };
                dispositions.remove(&signal);
            }
        }
        // After the handler is gone, so that what it got last finds a taker.
        self.place().wanted.fetch_and(!bit(signal), Ordering::AcqRel);
    }

    /// Empties the bell and takes the signals that came, in ascending order.
    pub(crate) fn take_pending(&self) -> impl Iterator<Item = c_int> + use<> {
        while rustix::io::read(self.ear(), &mut [0u8; 64]).is_ok_and(|count| count == 64) {}
        let pending = self.place().pending.swap(0, Ordering::AcqRel);
        (1..=64).filter(move |signal| pending & bit(*signal) != 0)
    }

    fn place(&self) -> &'static Place {
        &PLACES[self.place]
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        for signal in 1..=64 {
            self.end_never(signal);
            self.ignore(signal);
        }
        self.place().taken.store(false, Ordering::Release);
    }
}

/// Whether a signal does what it does in a program that never asked for anything else, our own
/// handlers aside.
pub(crate) fn is_default(signal: c_int) -> bool {
    let dispositions = DISPOSITIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(disposition) = dispositions.get(&signal) {
        return disposition.before.sa_sigaction == libc::SIG_DFL;
    }
    // SAFETY: all zeros is a valid `sigaction` to fill in; the pointer is valid.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_DFL
    }
}

fn install(signal: c_int) -> io::Result<libc::sigaction> {
    // SAFETY: all zeros is a valid `sigaction` to fill in; the handler only does what a handler may;
    // both pointers are valid.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        let mut before: libc::sigaction = mem::zeroed();
        match libc::sigaction(signal, &action, &mut before) {
            0 => Ok(before),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The two ends of a non-blocking bell.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn new_bell() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::event::{EventfdFlags, eventfd};
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let ear = bell.try_clone()?;
    Ok((ear, bell))
}

/// The two ends of a non-blocking bell.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn new_bell() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ear, bell) = std::os::unix::net::UnixStream::pair()?;
    ear.set_nonblocking(true)?;
    bell.set_nonblocking(true)?;
    Ok((ear.into(), bell.into()))
}
