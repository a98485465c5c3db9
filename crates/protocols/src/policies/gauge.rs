//! What policies measure and decide of a connection's bytes: a link around its link.
//!
//! A protocol writes to its transport directly, and one that is pulled from reads from it directly, so whoever wants to
//! know of all bytes has to stand below. The first policy of a connection puts a [`GaugedLink`] around its link; all
//! share it, and what it counts is in a [`Gauge`], which the state has too.
//!
//! # Pace
//! A bucket fills with the rate, up to its size; what is read or written is taken out. An empty one is *held*: the link
//! says that it would block, nothing asks the selector for that direction, and a timer of the driver's comes when there
//! is enough for a piece worth a system call. Only settling fills buckets, which knows the time.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_selector::Source;

use crate::state::{Slot, State};
use crate::{Address, Bell, Link};

/// A bucket that was empty is used again when it has what comes in a twentieth of a second, so that a paced
/// connection makes 20 system calls in a second and not one for each byte; or when it is full.
const PIECES_PER_SECOND: u64 = 20;

/// Parts of a byte: levels are exact in nanoseconds.
const PARTS: u128 = 1_000_000_000;

/// The number of small pieces that one write looks at; the rest comes with the next.
const MOST_PIECES: usize = 16;

#[derive(Default)]
pub(crate) struct Gauge {
    read: Cell<u64>,
    written: Cell<u64>,
    pub(crate) input: Bucket,
    pub(crate) output: Bucket,
    /// Whether a bucket has become empty since the state last looked.
    emptied: Cell<bool>,
    log: RefCell<Option<Log>>,
    /// What ends with the connection.
    guards: RefCell<Vec<Box<dyn Any>>>,
}

/// What is told of each piece.
pub(crate) type Log = Rc<dyn Fn(Direction, &[u8])>;

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
}

impl Gauge {
    /// How many bytes were read and written.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.read.get(), self.written.get())
    }

    /// Adds to what is told of each piece.
    pub(crate) fn add_log(&self, log: Log) {
        let known = self.log.take();
        let both: Log = match known {
            Some(known) => Rc::new(move |direction, data| {
                known(direction, data);
                log(direction, data);
            }),
            None => log,
        };
        self.log.replace(Some(both));
    }

    /// Keeps something until the connection is over, whatever becomes of the protocol.
    pub(crate) fn keep(&self, guard: impl Any) {
        self.guards.borrow_mut().push(Box::new(guard));
    }

    fn log(&self, direction: Direction, data: &[u8]) {
        let log = self.log.borrow().clone();
        if let Some(log) = log {
            log(direction, data);
        }
    }

    fn spend(&self, bucket: &Bucket, count: usize) {
        if bucket.take(count) {
            self.emptied.set(true);
        }
    }
}

/// How much may be read or written at a time. Without a rate there is no limit.
#[derive(Default)]
pub(crate) struct Bucket {
    rate: Cell<u64>,
    /// In bytes.
    size: Cell<u64>,
    /// In parts of a byte.
    level: Cell<u128>,
    filled: Cell<Option<Instant>>,
    held: Cell<bool>,
}

impl Bucket {
    /// Sets the rate in bytes per second and the size in bytes; it is full.
    pub(crate) fn set(&self, rate: u64, size: u64) {
        self.rate.set(rate);
        self.size.set(size);
        self.level.set(u128::from(size) * PARTS);
        self.filled.set(None);
        self.held.set(false);
    }

    /// How much may be taken out now.
    fn available(&self) -> usize {
        if self.rate.get() == 0 {
            return usize::MAX;
        }
        if self.held.get() {
            return 0;
        }
        usize::try_from(self.level.get() / PARTS).unwrap_or(usize::MAX)
    }

    /// Whether it has become empty.
    fn take(&self, count: usize) -> bool {
        if self.rate.get() == 0 {
            return false;
        }
        self.level.set(self.level.get().saturating_sub(count as u128 * PARTS));
        let empty = self.level.get() < PARTS;
        self.held.set(empty);
        empty
    }

    /// What it has to have to be used again, in parts.
    fn enough(&self) -> u128 {
        let piece = (self.rate.get() / PIECES_PER_SECOND).max(1);
        u128::from(piece.min(self.size.get())) * PARTS
    }

    /// Whether it is of use again, that was not.
    fn fill(&self, now: Instant) -> bool {
        if self.rate.get() == 0 {
            return false;
        }
        let since = self.filled.replace(Some(now)).unwrap_or(now);
        let more = now.saturating_duration_since(since).as_nanos() * u128::from(self.rate.get());
        let full = u128::from(self.size.get()) * PARTS;
        self.level.set((self.level.get() + more).min(full));
        let released = self.held.get() && self.level.get() >= self.enough();
        if released {
            self.held.set(false);
        }
        released
    }

    /// When it is of use again; it was filled just now.
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        if !self.held.get() {
            return None;
        }
        let missing = self.enough().saturating_sub(self.level.get());
        let nanos = missing.div_ceil(u128::from(self.rate.get()));
        now.checked_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

impl State {
    /// The gauge of the connection, which has one from now on. `None` if its link is gone.
    pub(crate) fn gauge(&self) -> Option<Rc<Gauge>> {
        if let Some(known) = self.extras(|extras| extras.gauge.clone()) {
            return Some(known);
        }
        let slot = mem::replace(&mut *self.link.borrow_mut(), Slot::Out);
        let inner: Box<dyn Link> = match slot {
            Slot::Socket(socket) => Box::new(socket),
            Slot::Any(link) => link,
            other => {
                self.link.replace(other);
                return None;
            }
        };
        let gauge = Rc::new(Gauge::default());
        self.link.replace(Slot::Any(Box::new(GaugedLink { inner, gauge: gauge.clone() })));
        self.with_extras(|extras| extras.gauge = Some(gauge.clone()));
        Some(gauge)
    }

    /// Whether reading and writing are held back by their pace.
    pub(crate) fn held_by_pace(&self) -> (bool, bool) {
        self.extras(|extras| {
            let gauge = extras.gauge.as_ref();
            gauge.map_or((false, false), |gauge| (gauge.input.held.get(), gauge.output.held.get()))
        })
    }

    /// Sees to it that the driver hears of a bucket that has become empty.
    pub(crate) fn look_at_pace(&self) {
        let emptied = self.extras(|extras| {
            extras.gauge.as_ref().is_some_and(|gauge| gauge.emptied.replace(false))
        });
        if emptied {
            self.read_again();
        }
    }

    /// Fills the buckets; `now` is asked only if there are any.
    pub(crate) fn fill_buckets(&self, now: impl FnOnce() -> Instant) {
        let Some(gauge) = self.extras(|extras| extras.gauge.clone()) else { return };
        let now = now();
        if gauge.output.fill(now) {
            self.blocked.set(false);
        }
        if gauge.input.fill(now) && self.has_input() {
            // No event tells of it.
            self.readable.set(true);
        }
    }

    /// When a bucket is of use again.
    pub(crate) fn paced_until(&self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        if self.held_by_pace() == (false, false) {
            return None;
        }
        let gauge = self.extras(|extras| extras.gauge.clone())?;
        let now = now();
        gauge.input.ready_at(now).into_iter().chain(gauge.output.ready_at(now)).min()
    }
}

/// Counts, logs, and paces what goes through a link.
struct GaugedLink {
    inner: Box<dyn Link>,
    gauge: Rc<Gauge>,
}

impl Link for GaugedLink {
    fn direction(&self) -> crate::Direction {
        self.inner.direction()
    }

    fn source(&self) -> Source {
        self.inner.source()
    }

    fn set_bell(&mut self, bell: Bell) {
        self.inner.set_bell(bell);
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.gauge.input.available().min(buffer.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.inner.read(&mut buffer[..room])?;
        self.gauge.read.set(self.gauge.read.get() + count as u64);
        self.gauge.spend(&self.gauge.input, count);
        if count > 0 {
            self.gauge.log(Direction::In, &buffer[..count]);
        }
        Ok(count)
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut room = self.gauge.output.available();
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut few = [IoSlice::new(&[]); MOST_PIECES];
        let mut used = 0;
        for piece in pieces.iter().filter(|piece| !piece.is_empty()).take(MOST_PIECES) {
            let fits = piece.len().min(room);
            few[used] = IoSlice::new(&piece[..fits]);
            (used, room) = (used + 1, room - fits);
            if room == 0 {
                break;
            }
        }
        let count = self.inner.write(&few[..used])?;
        self.gauge.written.set(self.gauge.written.get() + count as u64);
        self.gauge.spend(&self.gauge.output, count);
        let mut left = count;
        for piece in &few[..used] {
            let part = piece.len().min(left);
            if part > 0 {
                self.gauge.log(Direction::Out, &piece[..part]);
            }
            left -= part;
        }
        Ok(count)
    }

    fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
        if self.gauge.log.borrow().is_some() {
            // Who wants to see the bytes has to have them read.
            return Err(io::ErrorKind::Unsupported.into());
        }
        let room = self.gauge.output.available().min(count);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.inner.send_file(file, offset, room)?;
        self.gauge.written.set(self.gauge.written.get() + count as u64);
        self.gauge.spend(&self.gauge.output, count);
        Ok(count)
    }

    fn open(&mut self) -> io::Result<()> {
        self.inner.open()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    fn held_back(&self) -> usize {
        self.inner.held_back()
    }

    fn has_input(&self) -> bool {
        self.gauge.input.available() > 0 && self.inner.has_input()
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.inner.shutdown()
    }

    fn close(&mut self) {
        self.inner.close();
    }

    fn reset(&mut self) {
        self.inner.reset();
    }

    fn peer_addr(&self) -> Option<Address> {
        self.inner.peer_addr()
    }

    fn local_addr(&self) -> Option<Address> {
        self.inner.local_addr()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }

    fn extra_info(&self, name: &str) -> Option<Rc<dyn Any>> {
        self.inner.extra_info(name)
    }
}

impl Drop for GaugedLink {
    fn drop(&mut self) {
        let guards = self.gauge.guards.take();
        let log = self.gauge.log.take();
        drop((guards, log));
    }
}
