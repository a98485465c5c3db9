//! A filter comes between an open connection and its peer.

use std::io;
use std::mem;

use crate::Link;
use crate::filter::{Filter, Filtered};
use crate::state::{Input, Phase, Slot, State, closed};

impl State {
    /// Puts a filter in front of the link.
    pub(crate) fn upgrade(&self, filter: Box<dyn Filter>, leftover: &[u8]) -> io::Result<()> {
        if self.phase.get() != Phase::Open || !self.accepts_writes() {
            return Err(closed("upgrade"));
        }
        if self.extras(|extras| mem::take(&mut extras.kept)) && leftover.is_empty() {
            let error = "cannot upgrade: the protocol keeps bytes that came in clear, and they are not left over";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        if self.is_held() {
            let error = "cannot upgrade: a file is being sent";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, error));
        }
        let slot = mem::replace(&mut *self.link.borrow_mut(), Slot::Out);
        let link: Box<dyn Link> = match slot {
            Slot::Socket(socket) => Box::new(socket),
            Slot::Any(link) => link,
            other => {
                self.link.replace(other);
                let error = "cannot upgrade: the connection's link is at work";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, error));
            }
        };
        // What was written in clear goes out in clear, before anything of the filter's.
        let mut queued = Vec::new();
        self.queued.set(0);
        if let Some(queue) = self.queue.take() {
            queue.copy_to(&mut queued);
            self.leaf.give_queue(queue);
        }
        let mut early = Vec::from(leftover);
        self.extras(|extras| early.extend(extras.unread.drain(..)));
        if self.input.get() == Input::Ended && !early.is_empty() {
            // The link says again that it has ended.
            self.input.set(Input::Flowing);
        }
        self.link.replace(Slot::Any(Box::new(Filtered::with(link, filter, queued, early))));
        self.phase.set(Phase::Opening);
        self.opened.set(self.made.get());
        self.blocked.set(false);
        self.readable.set(false);
        self.attend();
        Ok(())
    }
}
