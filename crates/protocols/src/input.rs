//! The input of a connection: what is read, and when.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::mem;

use rustix::io::Errno;

use crate::state::{Input, Phase, Slot, State, closed, share};

impl State {
    /// Whether the driver is to call the protocol to read.
    pub(crate) fn is_to_be_read(&self) -> bool {
        self.readable.get()
            && self.input.get() == Input::Flowing
            && matches!(self.phase.get(), Phase::Open | Phase::Broken)
    }

    /// Whether a read would not block, as far as is known.
    #[inline]
    pub(crate) fn is_readable(&self) -> bool {
        match self.phase.get() {
            Phase::Open | Phase::Broken => self.readable.get() || self.has_no_input(),
            Phase::Opening => false,
            Phase::Closing | Phase::Ended => true,
        }
    }

    /// Whether there is no input any more, or never was.
    fn has_no_input(&self) -> bool {
        !matches!(self.input.get(), Input::Flowing | Input::Paused)
    }

    /// Whether there is input that no event tells of.
    pub(crate) fn has_input(&self) -> bool {
        let unread = self.extras(|extras| extras.kept || !extras.unread.is_empty());
        unread || (!self.is_socket() && self.with_link(|link| link.has_input()).unwrap_or(false))
    }

    /// Puts bytes before all that is still to be read.
    pub(crate) fn unread(&self, leftover: &[u8]) {
        if matches!(self.input.get(), Input::Watched | Input::Absent) {
            // Nothing can have come.
            return;
        }
        if !leftover.is_empty() {
            self.with_extras(|extras| {
                let behind = std::mem::replace(&mut extras.unread, leftover.to_vec().into());
                extras.unread.extend(behind);
            });
            if self.input.get() == Input::Ended {
                // The link says again that it has ended.
                self.input.set(Input::Flowing);
            }
            self.readable.set(true);
            self.attend();
        }
    }

    /// The protocol keeps some of what it was given, as reading was paused: it is called, with nothing, when reading
    /// goes on and before anything else is read.
    pub(crate) fn keep_input(&self) {
        self.with_extras(|extras| extras.kept = true);
        self.readable.set(true);
    }

    /// Whether the protocol is to be called for what it keeps.
    pub(crate) fn take_kept(&self) -> bool {
        let kept = self.is_to_be_read() && self.extras(|extras| mem::take(&mut extras.kept));
        if kept {
            self.progress.set(true);
        }
        kept
    }

    #[inline]
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.read_plain(buffer) {
            Some(read) => read,
            None => self.read_any(buffer),
        }
    }

    #[inline(never)]
    fn read_any(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.phase.get() {
            Phase::Open | Phase::Broken => {}
            Phase::Opening => return Err(io::ErrorKind::WouldBlock.into()),
            Phase::Closing | Phase::Ended => return Err(closed("read")),
        }
        if buffer.is_empty() || self.has_no_input() {
            return Ok(0);
        }
        if !self.readable.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = self.read_into(buffer);
        if !self.dispatching.get() && self.is_interest_due() {
            self.attend();
        }
        result
    }

    /// Does what most reads are: a plain connection has some bytes. `None` if it is another case, and nothing was
    /// done.
    #[inline]
    fn read_plain(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        if !self.is_plain() || !self.readable.get() || buffer.is_empty() {
            return None;
        }
        let read = match &*self.link.borrow() {
            Slot::Socket(link) => link.read_once(buffer),
            _ => return None,
        };
        match read {
            Ok(count) if count > 0 => {
                self.progress.set(true);
                // A socket that gives less than it could has no more.
                self.readable.set(count == buffer.len());
                Some(Ok(count))
            }
            Err(Errno::INTR) => None,
            read => Some(self.after_read(read.map_err(io::Error::from), buffer.len())),
        }
    }

    fn read_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.take_unread(buffer);
        if count > 0 {
            self.progress.set(true);
            return Ok(count);
        }
        let Some(read) = self.with_link(|link| link.read(buffer)) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        self.after_read(read, buffer.len())
    }

    #[cold]
    fn after_read(&self, read: io::Result<usize>, room: usize) -> io::Result<usize> {
        match read {
            Ok(0) => {
                self.input.set(Input::Ended);
                self.readable.set(false);
                self.attend();
                Ok(0)
            }
            Ok(count) => {
                self.progress.set(true);
                // A socket that gives less than it could has no more.
                self.readable.set(count == room || self.has_input());
                self.want_flush();
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A link above another may give up for now although no event will tell of the rest.
                let more = self.has_input();
                self.readable.set(more);
                if more {
                    self.read_again();
                }
                self.want_flush();
                Err(error)
            }
            Err(error) => {
                self.readable.set(false);
                let copy = share(&error);
                self.fail(error);
                Err(copy)
            }
        }
    }

    /// The source of a link that only writes says that there is input: mostly, that nobody reads any more.
    pub(crate) fn look_for_reader(&self) {
        match self.with_link(|link| link.read(&mut [0])) {
            Some(Ok(0)) => {
                self.input.set(Input::Absent);
                let lost = self.buffered() > 0 || self.is_held();
                let error = || io::Error::new(io::ErrorKind::BrokenPipe, "the reader is gone");
                self.end(lost.then(error));
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => match error.kind() {
                io::ErrorKind::WouldBlock => {}
                io::ErrorKind::Unsupported => self.input.set(Input::Absent),
                _ => {
                    let _ = self.broken::<()>(error);
                }
            },
        }
    }

    fn take_unread(&self, buffer: &mut [u8]) -> usize {
        self.extras(|extras| {
            // Two pieces at most, of which a read gives one. It cannot fail.
            let mut count = extras.unread.read(buffer).unwrap_or(0);
            count += extras.unread.read(&mut buffer[count..]).unwrap_or(0);
            if extras.unread.is_empty() {
                extras.unread = VecDeque::new();
            }
            count
        })
    }

    /// A filter that was only read from may have answers to send.
    fn want_flush(&self) {
        if !self.is_socket() && self.held_back() > 0 && !self.watched.get().is_writable() {
            self.attend();
        }
    }
}
