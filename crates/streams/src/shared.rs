//! What the two halves of a connection and its protocol share.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::mem;
use std::rc::Rc;
use std::task::{Context, Waker};

use tulipa_loop::LoopHandle;
use tulipa_protocols::Transport;

/// What a reader reads at least at once, if it does not read into the program's own buffer, and what it
/// starts with: small reads are one allocation that a loop's readers share.
pub(crate) const CHUNK: usize = 16 * 1024;

/// How many buffers a loop keeps for its readers, 2 MiB of them. Only those that hold something have one, but of a
/// hundred that answer line by line all may at a time: they let others run in the middle of what they have read.
const MOST_SPARES: usize = 128;

/// A buffer that has grown beyond this is not kept.
const LARGEST_SPARE: usize = 256 * 1024;

/// The spare buffers of a loop's readers.
#[derive(Default)]
pub(crate) struct Pool(RefCell<Vec<Vec<u8>>>);

impl Pool {
    pub(crate) fn of(handle: &LoopHandle) -> Rc<Pool> {
        handle.local(|_| Pool::default())
    }

    /// A buffer whose length is its room.
    pub(crate) fn take(&self) -> Vec<u8> {
        let spare = self.0.borrow_mut().pop();
        spare.unwrap_or_else(|| vec![0; CHUNK])
    }

    pub(crate) fn give(&self, buffer: Vec<u8>) {
        let mut spares = self.0.borrow_mut();
        if spares.len() < MOST_SPARES && (CHUNK..=LARGEST_SPARE).contains(&buffer.len()) {
            spares.push(buffer);
        }
    }
}

/// The end of a connection.
#[derive(Default)]
struct Ending {
    end: End,
    /// What came in before a failure and nobody had asked for yet.
    rescued: VecDeque<u8>,
}

impl Ending {
    fn take_rescued(&mut self, buffer: &mut [u8]) -> usize {
        let mut taken = 0;
        // It is in two pieces at most, of which one read gives one.
        while taken < buffer.len() {
            match self.rescued.read(&mut buffer[taken..]) {
                Ok(count) if count > 0 => taken += count,
                _ => break,
            }
        }
        taken
    }
}

/// How the connection has ended, as far as the protocol was told.
#[derive(Debug, Default)]
pub(crate) enum End {
    #[default]
    NotYet,
    Closed,
    Failed(io::Error),
}

/// The shared state. Wakers are moved in and out, and cloned, woken and dropped where nothing is borrowed.
pub(crate) struct Shared {
    reader: Cell<Option<Waker>>,
    /// What most connections have only when they are over. Out while it is looked at, which calls nothing.
    ending: Cell<Option<Box<Ending>>>,
    pub(crate) pool: Rc<Pool>,
    /// How often in a row `drain` had nothing to wait for.
    drains: Cell<u32>,
}

/// After so many drains that had nothing to wait for, one waits for a turn of the loop, so that a task which
/// only writes to a peer as fast as itself lets others run.
const MOST_READY_DRAINS: u32 = 64;

impl Shared {
    pub(crate) fn new(handle: &LoopHandle) -> Rc<Shared> {
        Rc::new(Shared {
            reader: Cell::default(),
            ending: Cell::default(),
            pool: Pool::of(handle),
            drains: Cell::new(0),
        })
    }

    /// Notes who is to be woken when there is something to read.
    pub(crate) fn wait_for_input(&self, context: &mut Context<'_>) {
        let known = self.reader.take();
        let waker = match known {
            Some(waker) if waker.will_wake(context.waker()) => waker,
            _ => context.waker().clone(),
        };
        self.reader.set(Some(waker));
    }

    pub(crate) fn wake_reader(&self) {
        let Some(waker) = self.reader.take() else { return };
        waker.wake_by_ref();
        // Kept: the same task will most likely wait again.
        let newer = self.reader.replace(Some(waker));
        if newer.is_some() {
            let older = self.reader.replace(newer);
            drop(older);
        }
    }

    /// Keeps what came before a failure.
    pub(crate) fn rescue(&self, data: &[u8]) {
        self.with_ending(|ending| ending.rescued.extend(data));
    }

    #[inline]
    pub(crate) fn take_rescued(&self, buffer: &mut [u8]) -> usize {
        let Some(mut ending) = self.ending.take() else { return 0 };
        let taken = ending.take_rescued(buffer);
        self.ending.set(Some(ending));
        taken
    }

    fn with_ending<R>(&self, change: impl FnOnce(&mut Ending) -> R) -> R {
        let mut ending = self.ending.take().unwrap_or_default();
        let result = change(&mut ending);
        self.ending.set(Some(ending));
        result
    }

    fn ending<R: Default>(&self, look: impl FnOnce(&Ending) -> R) -> R {
        let Some(ending) = self.ending.take() else { return R::default() };
        let result = look(&ending);
        self.ending.set(Some(ending));
        result
    }

    pub(crate) fn rescued_len(&self) -> usize {
        self.ending(|ending| ending.rescued.len())
    }

    pub(crate) fn set_end(&self, end: End) {
        let old = self.with_ending(|ending| mem::replace(&mut ending.end, end));
        drop(old);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ending(|ending| !matches!(ending.end, End::NotYet))
    }

    /// The failure that ended the connection, if one did: a new error of the same kind for each who asks.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.ending(|ending| match &ending.end {
            End::Failed(error) => Some(share(error)),
            _ => None,
        })
    }

    /// Whether a drain that has nothing to wait for should wait for a turn.
    pub(crate) fn should_yield(&self) -> bool {
        let yields = self.will_yield();
        self.drains.set(if yields { 0 } else { self.drains.get() + 1 });
        yields
    }

    /// What the next [`should_yield`](Self::should_yield) is going to say.
    pub(crate) fn will_yield(&self) -> bool {
        self.drains.get() + 1 >= MOST_READY_DRAINS
    }
}

fn share(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Closes the connection when the last of its halves goes.
pub(crate) struct Halves {
    pub(crate) transport: Transport,
    given_away: Cell<bool>,
}

impl Halves {
    pub(crate) fn new(transport: Transport) -> Rc<Halves> {
        Rc::new(Halves { transport, given_away: Cell::new(false) })
    }

    /// Somebody else has the connection now.
    pub(crate) fn give_away(&self) {
        self.given_away.set(true);
    }
}

impl Drop for Halves {
    fn drop(&mut self) {
        if !self.given_away.get() {
            self.transport.close();
        }
    }
}
