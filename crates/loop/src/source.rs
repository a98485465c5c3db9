//! Things with events: what readers, writers and transports are to the loop.
//!
//! The loop owns each [`Source`] in a slot. To call one it moves it out of its slot, calls it with
//! nothing borrowed, and moves it back; a source is thus in exactly one of the slot and the stack.
//! While it is out it can be removed: then it is dropped instead of being moved back.
//!
//! What a source shares with the outside (a transport does) must not lead back to the loop, or it
//! would keep the loop alive. It gets the [`Wires`] instead: a leaf that holds the loop's list of
//! sources that want attention.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use tulipa_selector::{Event, Events, Slots, Token};

use crate::claims::Claims;
use crate::core::Core;
use crate::report::{ErrorContext, Origin};
use crate::timers::Alarm;
use crate::{LoopClosed, LoopHandle};

/// Something that has events. For those who write transports.
///
/// # Order
/// Calls never overlap. None comes after [`closing`](Self::closing), nor after the source was removed.
pub trait Source {
    /// The selector says that the source is ready. `event` was checked a moment ago, so its
    /// registration is alive and interested.
    fn ready(&mut self, handle: &LoopHandle, event: &Event);

    /// Somebody called [`Wires::mark`] for it: at the start of the next turn. Or the time of a
    /// [`LoopHandle::mark_at`] has come.
    fn attend(&mut self, handle: &LoopHandle) {
        let _ = handle;
    }

    /// The source itself, for those who find it by its key and know its type.
    fn as_any(&mut self) -> Option<&mut dyn Any> {
        None
    }

    /// The loop is being closed; the source is dropped next.
    fn closing(&mut self, handle: &LoopHandle) {
        let _ = handle;
    }
}

/// What gathers output while a callback or a task step runs, and sends it when that has returned. A source
/// shares it with the program: it needs no slot, and nobody who is told anything.
pub trait Flush {
    /// Somebody called [`Wires::flush_soon`], and the callback or task step that did has returned. It calls
    /// nothing of the program's; what is to be told waits for [`Source::attend`].
    fn flush(&self);
}

/// A slot of the loop's table: empty while its source is out.
pub(crate) type SourceSlot = Option<Box<dyn Source>>;

/// What a source may keep of its loop: a leaf that keeps nothing alive.
#[derive(Default)]
pub struct Wires {
    marked: RefCell<Vec<Token>>,
    /// The first that is to be flushed, mostly the only one; the others are in `unflushed`.
    first_unflushed: Cell<Option<Rc<dyn Flush>>>,
    unflushed: RefCell<Vec<Rc<dyn Flush>>>,
    /// Whether anything is unflushed, which is asked after each callback.
    flush: Cell<bool>,
    spare: Cell<Vec<Token>>,
    spare_unflushed: Cell<Vec<Rc<dyn Flush>>>,
    closed: Cell<bool>,
    pub(crate) claims: Claims,
}

impl Wires {
    /// Wires that lead to no loop, and pass over all they are asked for: for sources that are tried without one.
    pub fn cut() -> Wires {
        Wires { closed: Cell::new(true), ..Wires::default() }
    }

    /// Asks for [`Source::attend`] at the start of the next turn, once for each mark. A key that is no
    /// longer in use is passed over, and a closed loop passes over all.
    pub fn mark(&self, key: Token) {
        if !self.closed.get() {
            self.marked.borrow_mut().push(key);
        }
    }

    /// Asks for [`Flush::flush`] as soon as the callback or task step that is running has returned;
    /// outside of the loop, at the start of its next turn. Once for each call.
    #[inline]
    pub fn flush_soon(&self, output: Rc<dyn Flush>) {
        if self.flush.get() || self.closed.get() {
            return self.flush_later(output);
        }
        self.flush.set(true);
        // It is empty while nothing is to be flushed.
        self.first_unflushed.set(Some(output));
    }

    #[cold]
    fn flush_later(&self, output: Rc<dyn Flush>) {
        if !self.closed.get() {
            self.unflushed.borrow_mut().push(output);
        }
    }

    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.marked.take();
        self.flush.set(false);
        let unflushed = (self.first_unflushed.take(), self.unflushed.take());
        drop(unflushed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.marked.borrow().is_empty() && !self.flush.get()
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

    /// Puts another source in the place of one that is being called just now, under the same key; the
    /// old one is dropped when its call is over. Gives the new one back where nothing is being called
    /// under that key.
    ///
    /// # Errors
    /// Only then.
    pub fn replace_source(
        &self,
        key: Token,
        source: Box<dyn Source>,
    ) -> Result<(), Box<dyn Source>> {
        match self.core.sources.borrow_mut().get_mut(key) {
            Some(slot) if slot.is_none() => {
                *slot = Some(source);
                Ok(())
            }
            _ => Err(source),
        }
    }

    /// Takes a source out of its slot, for as long as the guard lives; it is not called meanwhile.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn borrow_source(&self, key: Token) -> Result<BorrowedSource<'_>, SourceUnavailable> {
        let mut sources = self.core.sources.borrow_mut();
        let slot = sources.get_mut(key).ok_or(SourceUnavailable::Gone)?;
        let source = slot.take().ok_or(SourceUnavailable::Busy)?;
        Ok(BorrowedSource { handle: self, key, source: Some(source) })
    }

    /// Calls [`Source::attend`] at an instant of the loop's clock, or at the next turn if that is in
    /// the past, unless it is cancelled with [`cancel_mark`](Self::cancel_mark) before. It costs no
    /// allocation. A closed loop does nothing.
    ///
    /// # Order
    /// That of [`call_at`](Self::call_at).
    pub fn mark_at(&self, key: Token, when: Instant) -> MarkTimer {
        if self.is_closed() {
            return MarkTimer(None);
        }
        let inserted = self.core.timers.borrow_mut().insert(when, Alarm::Mark(key));
        MarkTimer(inserted.ok())
    }

    /// Removes what [`mark_at`](Self::mark_at) has set, if it has not come yet.
    pub fn cancel_mark(&self, timer: MarkTimer) {
        if let Some(timer) = timer.0 {
            let alarm = self.core.timers.borrow_mut().remove(timer);
            drop(alarm);
        }
    }

    /// Runs the program's code as the loop does: timed, and with a panic reported and going no further;
    /// `None` says that there was one. For those who write sources.
    #[inline]
    pub fn call_user<R>(
        &self,
        origin: Origin,
        location: Option<&'static Location<'static>>,
        code: impl FnOnce() -> R,
    ) -> Option<R> {
        let result = self.core.run_user(self, origin, location, code);
        self.flush_marked();
        result
    }

    /// Drops something of the program's, or wakes a waker; a panic is reported. For those who write
    /// sources.
    pub fn release(&self, release: impl FnOnce()) {
        self.core.release(self, release);
    }

    /// What the loop keeps for a crate above it, one for each type, made when it is first asked for. It is
    /// let go when the loop closes, so it may hold handles of the loop.
    pub fn local<T: 'static>(&self, make: impl FnOnce(&LoopHandle) -> T) -> Rc<T> {
        let find = || {
            let locals = self.core.locals.borrow();
            locals.iter().find_map(|local| local.clone().downcast::<T>().ok())
        };
        if let Some(known) = find() {
            return known;
        }
        let new = Rc::new(make(self));
        // Making it may have asked for it.
        if let Some(known) = find() {
            return known;
        }
        if !self.is_closed() {
            self.core.locals.borrow_mut().push(new.clone());
        }
        new
    }

    /// Flushes what the code that has just run has marked.
    #[inline]
    pub(crate) fn flush_marked(&self) {
        if self.core.wires.flush.get() {
            self.flush_all();
        }
    }

    #[inline(never)]
    fn flush_all(&self) {
        let wires = &self.core.wires;
        let first = wires.first_unflushed.take();
        wires.flush.set(false);
        if let Some(first) = first {
            self.core.release(self, move || first.flush());
        }
        if !wires.unflushed.borrow().is_empty() {
            self.flush_more();
        }
    }

    #[cold]
    fn flush_more(&self) {
        let wires = &self.core.wires;
        let mut unflushed =
            mem::replace(&mut *wires.unflushed.borrow_mut(), wires.spare_unflushed.take());
        for output in unflushed.drain(..) {
            self.core.release(self, move || output.flush());
        }
        wires.spare_unflushed.set(unflushed);
    }

    /// Runs step 1 of the turn: the sources that were marked before it.
    pub(crate) fn attend_marked(&self) {
        self.flush_marked();
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

    /// Tells the sources of a batch of events, each outside of its slot, as [`with_source`](Self::with_source)
    /// does. What that does for each call is done once for the batch, and again after a panic.
    pub(crate) fn dispatch(&self, events: &mut Events) {
        let mut place = 0;
        let mut out = Out { key: Token::from_bits(u64::MAX), source: None };
        while let Err(payload) = self.core.isolated(self, || {
            catch_unwind(AssertUnwindSafe(|| {
                while place < events.len() {
                    place += 1;
                    if let Some(event) = events.get(place - 1) {
                        self.tell_ready(event, &mut out);
                    }
                }
            }))
        }) {
            let broken = out.source.take();
            if broken.is_some() {
                self.remove_source(out.key);
            }
            self.core.report(self, ErrorContext::panic(Origin::Source, None, payload));
            self.core.release(self, || drop(broken));
        }
    }

    /// Tells one source of its event. It is in `out` while it is called, and stays there if it panics.
    #[inline]
    fn tell_ready(&self, event: &Event, out: &mut Out) {
        let key = Token::from_bits(event.data());
        let Some(source) = self.core.check_out(key) else { return };
        out.key = key;
        out.source.insert(source).ready(self, event);
        if let Some(source) = out.source.take() {
            let rejected = self.core.check_in(key, source);
            if rejected.is_some() {
                self.core.release(self, || drop(rejected));
            }
        }
        self.flush_marked();
    }

    /// Calls a source outside of its slot. One that panics is dropped. What the source calls is
    /// watched by itself, so this is not.
    pub(crate) fn with_source(&self, key: Token, call: impl FnOnce(&mut dyn Source)) {
        let Some(mut source) = self.core.check_out(key) else { return };
        let called =
            self.core.isolated(self, || catch_unwind(AssertUnwindSafe(|| call(&mut *source))));
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

/// The source that is being called.
struct Out {
    key: Token,
    source: SourceSlot,
}

/// How many sources, each with one registration, the loop has for itself: the ear for its signals, which
/// stays once there was one.
pub fn own_sources(handle: &LoopHandle) -> usize {
    #[cfg(all(unix, feature = "signal"))]
    {
        let signals = handle.core.signals.borrow();
        usize::from(signals.as_ref().is_some_and(|signals| signals.is_registered()))
    }
    #[cfg(not(all(unix, feature = "signal")))]
    {
        let _ = handle;
        0
    }
}

impl Core {
    fn check_out(&self, key: Token) -> Option<Box<dyn Source>> {
        self.sources.borrow_mut().get_mut(key)?.take()
    }

    /// Puts a source back; gives it back if it was removed or replaced meanwhile.
    fn check_in(&self, key: Token, source: Box<dyn Source>) -> Option<Box<dyn Source>> {
        match self.sources.borrow_mut().get_mut(key) {
            Some(slot) if slot.is_none() => {
                *slot = Some(source);
                None
            }
            _ => Some(source),
        }
    }
}

/// A source that was taken out of its slot with [`LoopHandle::borrow_source`], and goes back when this
/// is dropped.
pub struct BorrowedSource<'a> {
    handle: &'a LoopHandle,
    key: Token,
    source: Option<Box<dyn Source>>,
}

impl BorrowedSource<'_> {
    /// The source, if it is of this type and says so by [`Source::as_any`].
    pub fn downcast<T: 'static>(&mut self) -> Option<&mut T> {
        self.source.as_mut()?.as_any()?.downcast_mut()
    }
}

impl Drop for BorrowedSource<'_> {
    fn drop(&mut self) {
        let Some(source) = self.source.take() else { return };
        let core = &self.handle.core;
        let Some(mut rejected) = core.check_in(self.key, source) else { return };
        if self.handle.is_closed() {
            // It was away when all others were told.
            core.release(self.handle, || rejected.closing(self.handle));
        }
        core.release(self.handle, || drop(rejected));
    }
}

impl fmt::Debug for BorrowedSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BorrowedSource").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Why a source cannot be taken out of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceUnavailable {
    /// It is being called, further up the stack.
    Busy,
    /// It is no longer there.
    Gone,
}

/// A timer of [`LoopHandle::mark_at`]. Dropping it leaves the timer alone.
#[derive(Clone, Copy, Debug)]
pub struct MarkTimer(Option<Token>);
