//! The output of a connection: one way into the queue, and one way out of it.
//!
//! Small writes are queued and leave together: a flush is asked for, and comes when the callback or task
//! step at hand returns. What is large and finds the queue empty goes to the link at once, and so does all
//! that waits when it is more than the high limit. When the link takes no more the output is `blocked`, and
//! nothing is tried until the selector says that the source is writable.

use std::io::{self, IoSlice};
use std::rc::Rc;

use bytes::Bytes;
use rustix::io::Errno;
use tulipa_loop::Flush;

use crate::Flow;
use crate::leaf::Leaf;
use crate::state::{Input, Output, Phase, Slot, State};
use crate::write_queue::{MOST_PIECES, WriteQueue};

/// The limits of the write queue, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteBufferLimits {
    /// At this size or below writing is resumed.
    pub low: usize,
    /// Above this size it is paused.
    pub high: usize,
}

/// asyncio's: 64 KiB, and a quarter of it.
pub(crate) const LIMITS: WriteBufferLimits = WriteBufferLimits { low: 16 * 1024, high: 64 * 1024 };

/// A write of this size or more on an empty queue goes to the link at once: copying it would cost as much
/// as the system call that gathering may save.
const LARGE: usize = 16 * 1024;

/// How many writes one flush makes: a link that always takes everything must not keep the loop.
const MOST_WRITES: usize = 16;

impl Flush for State {
    fn flush(&self) {
        self.flush_if_asked();
    }
}

impl State {
    #[inline]
    pub(crate) fn limits(&self) -> WriteBufferLimits {
        self.extras(|extras| extras.limits).unwrap_or(LIMITS)
    }

    pub(crate) fn set_limits(&self, limits: WriteBufferLimits) {
        self.with_extras(|extras| extras.limits = Some(limits));
        self.attend();
    }

    #[inline]
    fn cap(&self) -> Option<usize> {
        self.extras(|extras| extras.cap)
    }

    pub(crate) fn set_cap(&self, cap: Option<usize>) {
        self.with_extras(|extras| extras.cap = cap);
    }

    /// What waits to be written, in bytes.
    pub(crate) fn buffered(&self) -> usize {
        if matches!(self.phase.get(), Phase::Ended | Phase::Broken) {
            return 0;
        }
        self.queued.get() + self.behind() + self.held_back()
    }

    pub(crate) fn held_back(&self) -> usize {
        match &*self.link.borrow() {
            Slot::Any(_) => {}
            _ => return 0,
        }
        self.with_link(|link| link.held_back()).unwrap_or(0)
    }

    pub(crate) fn has_output(&self) -> bool {
        self.queued.get() > 0 || self.held_back() > 0
    }

    fn flow(&self) -> Flow {
        if self.buffered() > self.limits().high { Flow::Full } else { Flow::Ready }
    }

    /// Whether nothing has to leave before what is written next.
    fn may_write_now(&self) -> bool {
        self.phase.get() == Phase::Open && !self.has_output() && !self.is_held()
    }

    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        if self.is_plain() { self.queued.get() <= LIMITS.high } else { self.has_room_for_any() }
    }

    #[inline(never)]
    fn has_room_for_any(&self) -> bool {
        let open = matches!(self.phase.get(), Phase::Opening | Phase::Open);
        open && self.buffered() <= self.limits().high
    }

    pub(crate) fn accepts_writes(&self) -> bool {
        matches!(self.phase.get(), Phase::Opening | Phase::Open)
            && matches!(self.output.get(), Output::Flowing | Output::Held)
    }

    /// The same as [`write`](Self::write), shorter for what is written most: a small piece on a plain connection,
    /// that the flush after the callback sends.
    #[inline]
    pub(crate) fn write_piece(self: &Rc<Self>, data: &[u8]) -> Flow {
        let small = data.len().wrapping_sub(1) < LARGE - 1;
        if !small || !self.is_plain() {
            return self.write(&[IoSlice::new(data)]);
        }
        if self.append(|queue, leaf| queue.append(data, leaf)) > LIMITS.high {
            return self.after_write();
        }
        self.ask_for_flush();
        Flow::Ready
    }

    #[inline]
    fn ask_for_flush(self: &Rc<Self>) {
        if !self.unflushed.replace(true) && !self.dispatching.get() {
            self.leaf.wires.flush_soon(self.clone());
        }
    }

    pub(crate) fn write(self: &Rc<Self>, pieces: &[IoSlice<'_>]) -> Flow {
        if !self.accepts_writes() {
            return Flow::Closed;
        }
        let total = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if total == 0 {
            return self.flow();
        }
        let (mut written, mut newer) = (0, None);
        if total >= LARGE && self.may_write_now() {
            match self.write_now(pieces, total) {
                Some(count) => written = count,
                None => return Flow::Closed,
            }
            newer = self.queue.take();
        }
        if written < total {
            self.append_last(|queue, leaf| {
                let mut skip = written;
                for piece in pieces {
                    let skipped = skip.min(piece.len());
                    skip -= skipped;
                    queue.append(&piece[skipped..], leaf);
                }
            });
        }
        self.append_newer(newer);
        self.after_write()
    }

    pub(crate) fn write_bytes(self: &Rc<Self>, mut data: Bytes) -> Flow {
        if !self.accepts_writes() {
            self.discard(data);
            return Flow::Closed;
        }
        // What is copied is discarded, which the long way of flushing sees to.
        self.plain.set(false);
        let (total, mut newer) = (data.len(), None);
        if total >= LARGE && self.may_write_now() {
            let Some(count) = self.write_now(&[IoSlice::new(&data)], total) else {
                self.discard(data);
                return Flow::Closed;
            };
            newer = self.queue.take();
            let written = data.split_to(count);
            self.discard(written);
        }
        if data.is_empty() {
            self.discard(data);
        } else {
            self.append_last(|queue, leaf| queue.append_bytes(data, leaf));
        }
        self.append_newer(newer);
        self.after_write()
    }

    fn discard(&self, data: Bytes) {
        if self.phase.get() == Phase::Ended {
            // Perhaps no driver comes any more. Nothing is borrowed, and it is the caller's.
            return drop(data);
        }
        self.leaf.discard(data);
        self.attend();
    }

    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.plain.set(false);
        self.blocked.set(blocked);
    }

    /// As [`append`](Self::append), but behind a file that is being sent.
    fn append_last(&self, put: impl FnOnce(&mut WriteQueue, &Leaf)) -> usize {
        if self.is_held() { self.append_behind(put) } else { self.append(put) }
    }

    /// The one way into the queue. Gives its size.
    #[inline]
    fn append(&self, put: impl FnOnce(&mut WriteQueue, &Leaf)) -> usize {
        let mut queue = self.queue.take().unwrap_or_else(|| self.leaf.take_queue());
        put(&mut queue, &self.leaf);
        let size = queue.size();
        self.queued.set(size);
        self.queue.set(Some(queue));
        size
    }

    /// Puts back what the link's code has written in the middle of a write, behind what is left of that.
    #[inline]
    fn append_newer(&self, newer: Option<Box<WriteQueue>>) {
        if let Some(newer) = newer {
            self.append_last(|queue, leaf| queue.append_queue(*newer, leaf));
        }
    }

    /// One attempt to write to the link, the queue being empty; it is blocked if the link takes less than it is
    /// given. `None` if writing has failed.
    fn write_now(&self, pieces: &[IoSlice<'_>], total: usize) -> Option<usize> {
        let (mut rest, mut offered) = (pieces, total);
        let mut few = [IoSlice::new(&[]); MOST_PIECES];
        if pieces.len() > MOST_PIECES {
            // The rest comes by the queue. Empty ones alone would look like a write that failed.
            let full = pieces.iter().filter(|piece| !piece.is_empty());
            let count = few.iter_mut().zip(full).map(|(place, piece)| *place = *piece).count();
            rest = &few[..count];
            offered = rest.iter().map(|piece| piece.len()).sum();
        }
        match self.with_link(|link| link.write(rest)) {
            None => (self.phase.get() == Phase::Open).then_some(0),
            Some(Ok(_)) if self.phase.get() == Phase::Ended => None,
            Some(Ok(0)) => self.broken(io::ErrorKind::WriteZero.into()),
            Some(Ok(count)) => {
                debug_assert!(count <= offered, "no more can be written than is there");
                self.set_blocked(count < offered);
                Some(count.min(offered))
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.set_blocked(true);
                Some(0)
            }
            Some(Err(error)) => self.broken(error),
        }
    }

    fn after_write(self: &Rc<Self>) -> Flow {
        let size = self.buffered();
        let over = |cap: usize| size > cap;
        if self.cap().is_some_and(over) {
            let error =
                format!("{size} bytes wait to be written, more than the connection may keep");
            self.fail(io::Error::other(error));
            return Flow::Closed;
        }
        if size > self.limits().high {
            self.flush();
            if !self.accepts_writes() {
                return Flow::Closed;
            }
            if self.flow() == Flow::Full {
                self.attend();
                return Flow::Full;
            }
        } else if self.blocked.get() {
            if !self.watched.get().is_writable() {
                self.attend();
            }
        } else if size > 0 {
            self.ask_for_flush();
        }
        Flow::Ready
    }

    /// Flushes if that was asked for.
    #[inline]
    pub(crate) fn flush_if_asked(&self) {
        if self.unflushed.get() {
            self.flush();
        }
    }

    /// Does what most flushes are: a plain connection's answer leaves, and nothing follows from that. `false` if it
    /// is another case, and nothing was done.
    #[inline]
    fn flush_plain(&self) -> bool {
        if !self.is_plain() {
            return false;
        }
        let Some(mut queue) = self.queue.take() else { return true };
        let before = queue.size();
        let written = match (&*self.link.borrow(), queue.only_piece()) {
            (Slot::Socket(link), Some(piece)) => link.write_once(piece),
            _ => Err(Errno::INTR),
        };
        if written == Ok(before) {
            self.queued.set(0);
            queue.clear_head();
            self.leaf.give_queue(queue);
            return true;
        }
        self.flush_rest(queue, written)
    }

    /// Goes on where not all has left: the socket takes no more, or has failed. An interrupted write is made again
    /// by the long way.
    #[cold]
    fn flush_rest(&self, mut queue: Box<WriteQueue>, written: rustix::io::Result<usize>) -> bool {
        let before = queue.size();
        queue.advance(written.unwrap_or(0), &self.leaf);
        self.queued.set(queue.size());
        self.queue.set(Some(queue));
        match written {
            Err(Errno::INTR) => return false,
            Ok(0) => self.after_flush(Err(io::ErrorKind::WriteZero.into()), before),
            Ok(_) => {
                self.set_blocked(true);
                self.after_flush(Ok(()), before);
            }
            Err(errno) => self.after_flush(Err(errno.into()), before),
        }
        true
    }

    /// The one way out of the queue: writes what the link takes.
    pub(crate) fn flush(&self) {
        self.unflushed.set(false);
        if !self.flush_plain() {
            self.flush_any();
        }
    }

    #[inline(never)]
    fn flush_any(&self) {
        if self.blocked.get() || !matches!(self.phase.get(), Phase::Open | Phase::Closing) {
            return;
        }
        // Out of its cell: what a link's code writes meanwhile comes behind it.
        let before = self.buffered();
        let queue = self.queue.take();
        self.queued.set(0);
        let result = match queue {
            Some(mut queue) => {
                let result = self.flush_queue(&mut queue);
                self.put_back(queue);
                result
            }
            None => Ok(()),
        };
        self.after_flush(result, before);
    }

    fn after_flush(&self, result: io::Result<()>, before: usize) {
        let result = result.and_then(|()| self.flush_link());
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.set_blocked(true),
            Err(error) => {
                let _ = self.broken::<()>(error);
            }
            Ok(()) => {}
        }
        let left = self.queued.get() > 0;
        let ending = self.phase.get() == Phase::Closing || self.output.get() == Output::Ending;
        let told = before > 0 && (!left && ending || self.passed_low(before));
        // A driver that is being called looks at the interest itself.
        let unwatched = !self.dispatching.get() && self.is_interest_due();
        let discarded = self.leaf.has_discarded();
        let awaited = (before > 0 || self.is_held()) && self.awaited.get();
        if told || (left && !self.blocked.get()) || unwatched || discarded || awaited {
            self.attend();
        }
    }

    /// Whether a flush of what was so large has brought it down to the low limit.
    fn passed_low(&self, before: usize) -> bool {
        let low = self.limits().low;
        before > low && self.buffered() <= low
    }

    #[inline]
    fn flush_queue(&self, queue: &mut WriteQueue) -> io::Result<()> {
        for _ in 0..MOST_WRITES {
            let (written, bytes) = self.write_pieces(queue);
            match written {
                // At work further up the stack, which flushes afterwards.
                None => return Ok(()),
                Some(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Some(Ok(written)) => {
                    queue.advance(written, &self.leaf);
                    if queue.size() == 0 {
                        return Ok(());
                    }
                    if written < bytes {
                        self.set_blocked(true);
                        return Ok(());
                    }
                }
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_pieces(&self, queue: &WriteQueue) -> (Option<io::Result<usize>>, usize) {
        let mut pieces = [IoSlice::new(&[]); MOST_PIECES];
        let (count, bytes) = queue.pieces(&mut pieces);
        (self.with_link(|link| link.write(&pieces[..count])), bytes)
    }

    /// Puts back what was not written, in front of what was added meanwhile.
    #[inline]
    fn put_back(&self, mut queue: Box<WriteQueue>) {
        if queue.size() == 0 {
            return self.leaf.give_queue(queue);
        }
        if let Some(newer) = self.queue.take() {
            queue.append_queue(*newer, &self.leaf);
        }
        self.queued.set(queue.size());
        self.queue.set(Some(queue));
    }

    fn flush_link(&self) -> io::Result<()> {
        if self.is_socket() {
            return Ok(());
        }
        self.with_link(|link| link.flush()).unwrap_or(Ok(()))
    }

    /// Writing has failed. What has come is still delivered, then the connection ends with the error.
    pub(crate) fn broken<T>(&self, error: io::Error) -> Option<T> {
        match self.phase.get() {
            Phase::Open => {
                self.phase.set(Phase::Broken);
                self.error.set(Some(error));
                self.fail_hold();
                if self.input.get() == Input::Flowing {
                    self.readable.set(true);
                }
                self.attend();
            }
            _ => self.fail(error),
        }
        None
    }

    /// Gives the queue's memory back; called by the driver at the end.
    pub(crate) fn clear_queue(&self) {
        self.queued.set(0);
        if let Some(queue) = self.queue.take() {
            self.leaf.give_queue(queue);
        }
        self.clear_hold();
    }

    pub(crate) fn write_eof(&self) {
        if self.accepts_writes() {
            self.output.set(if self.is_held() { Output::HeldEnding } else { Output::Ending });
            self.attend();
        }
    }

    pub(crate) fn close(&self) {
        match self.phase.get() {
            Phase::Opening if self.buffered() > 0 => {
                let error = "closed during the handshake, before what was written could be sent";
                self.fail(io::Error::new(io::ErrorKind::ConnectionAborted, error));
            }
            Phase::Opening => self.end(None),
            Phase::Open => {
                self.phase.set(Phase::Closing);
                self.attend();
            }
            // Who closes wants no more data either.
            Phase::Broken => self.end(None),
            Phase::Closing | Phase::Ended => {}
        }
    }

    pub(crate) fn reset(&self) {
        if self.phase.get() != Phase::Ended {
            self.with_link(|link| link.reset());
            self.end(None);
        }
    }
}
