//! Things with events: what readers, writers and transports are to the loop.
//!
//! The loop owns each [`Source`] in a slot. To call one it moves it out of its slot, calls it with
//! nothing borrowed, and moves it back; a source is thus in exactly one of the slot and the stack.
//! While it is out it can be removed: then it is dropped instead of being moved back.
//!
//! What a source shares with the outside (a transport does) must not lead back to the loop, or it
//! would keep the loop alive. It gets the [`Wires`] instead: a leaf that holds the loop's list of
//! sources that want attention.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use tulipa_selector::{Event, Slots, Token};

use crate::core::Core;
use crate::report::{ErrorContext, Origin};
use crate::{LoopClosed, LoopHandle};

/// Something that has events. For those who write transports.
///
/// # Order
/// Calls never overlap. None comes after [`closing`](Self::closing), nor after the source was removed.
pub trait Source {
    /// The selector says that the source is ready. `event` was checked a moment ago, so its
    /// registration is alive and interested.
    fn ready(&mut self, handle: &LoopHandle, event: &Event);

    /// Somebody called [`Wires::mark`] for it: at the start of the next turn.
    fn attend(&mut self, handle: &LoopHandle) {
        let _ = handle;
    }

    /// The loop is being closed; the source is dropped next.
    fn closing(&mut self, handle: &LoopHandle) {
        let _ = handle;
    }
}

/// A slot of the loop's table: empty while its source is out.
pub(crate) type SourceSlot = Option<Box<dyn Source>>;

/// What a source may keep of its loop: a leaf that keeps nothing alive.
#[derive(Default)]
pub struct Wires {
    marked: RefCell<Vec<Token>>,
    spare: Cell<Vec<Token>>,
    closed: Cell<bool>,
}

impl Wires {
    /// Asks for [`Source::attend`] at the start of the next turn, once for each mark. A key that is no
    /// longer in use is passed over, and a closed loop passes over all.
    pub fn mark(&self, key: Token) {
        if !self.closed.get() {
            self.marked.borrow_mut().push(key);
        }
    }

    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.marked.take();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.marked.borrow().is_empty()
    }
}

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read before it is written: the writer is the program's.
        let marked = self.marked.borrow().len();
        f.debug_struct("Wires").field("marked", &marked).finish_non_exhaustive()
    }
}

impl LoopHandle {
    /// The leaf of this loop that sources share.
    pub fn wires(&self) -> Rc<Wires> {
        self.core.wires.clone()
    }

    /// Gives the loop a source and returns its key, which is to be the data of its registrations.
    ///
    /// # Errors
    /// [`LoopClosed`] when the loop is closed; the source is dropped.
    pub fn insert_source(&self, source: Box<dyn Source>) -> Result<Token, LoopClosed> {
        if self.core.is_closed() {
            return Err(LoopClosed);
        }
        let inserted = self.core.sources.borrow_mut().insert(Some(source));
        inserted.map_err(|_| LoopClosed)
    }

    /// Takes a source away from the loop and drops it, or lets it be dropped when its current call
    /// is over. Returns whether it was there. End its registrations too: events that find no source
    /// are passed over, and come again.
    pub fn remove_source(&self, key: Token) -> bool {
        let removed = self.core.sources.borrow_mut().remove(key);
        removed.is_some()
    }

    /// Runs step 1 of the turn: the sources that were marked before it.
    pub(crate) fn attend_marked(&self) {
        let wires = &self.core.wires;
        if wires.is_empty() {
            return;
        }
        let mut marked = mem::replace(&mut *wires.marked.borrow_mut(), wires.spare.take());
        for key in marked.drain(..) {
            self.with_source(key, |source| source.attend(self));
        }
        wires.spare.set(marked);
    }

    /// Calls a source outside of its slot. One that panics is dropped. What the source calls is
    /// watched by itself, so this is not.
    pub(crate) fn with_source(&self, key: Token, call: impl FnOnce(&mut dyn Source)) {
        let Some(mut source) = self.core.check_out(key) else { return };
        let called = catch_unwind(AssertUnwindSafe(|| call(&mut *source)));
        let rejected = match called {
            Ok(()) => self.core.check_in(key, source),
            Err(payload) => {
                self.remove_source(key);
                self.core.report(self, ErrorContext::panic(Origin::Source, None, payload));
                Some(source)
            }
        };
        if rejected.is_some() {
            self.core.release(self, || drop(rejected));
        }
    }

    /// Tells every source that the loop is being closed, and drops them.
    pub(crate) fn close_sources(&self) {
        let keys: Vec<_> = self.core.sources.borrow().iter().map(|(key, _)| key).collect();
        for key in keys {
            self.with_source(key, |source| source.closing(self));
        }
        // One at a time: two destructors that panic in one go would abort the process.
        let keys: Vec<_> = self.core.sources.borrow().iter().map(|(key, _)| key).collect();
        for key in keys {
            let source = self.core.sources.borrow_mut().remove(key);
            self.core.release(self, || drop(source));
        }
        let slots: Slots<SourceSlot> = mem::take(&mut *self.core.sources.borrow_mut());
        drop(slots);
    }
}

/// How many sources, each with one registration, the loop has for itself: the ear for its signals, which
/// stays once there was one.
pub fn own_sources(handle: &LoopHandle) -> usize {
    #[cfg(all(unix, feature = "signal"))]
    return usize::from(handle.core.signals.borrow().is_some());
    #[cfg(not(all(unix, feature = "signal")))]
    return {
        let _ = handle;
        0
    };
}

impl Core {
    fn check_out(&self, key: Token) -> Option<Box<dyn Source>> {
        self.sources.borrow_mut().get_mut(key)?.take()
    }

    /// Puts a source back; gives it back if it was removed meanwhile.
    fn check_in(&self, key: Token, source: Box<dyn Source>) -> Option<Box<dyn Source>> {
        match self.sources.borrow_mut().get_mut(key) {
            Some(slot) => {
                debug_assert!(slot.is_none(), "a source is either in its slot or out");
                *slot = Some(source);
                None
            }
            None => Some(source),
        }
    }
}
