//! What a simulated operating system refuses.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;

use crate::VirtualId;

/// What a simulated operating system is asked to do, and may refuse: see
/// [`VirtualHandle::set_refusal`](crate::VirtualHandle::set_refusal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VirtualCall {
    /// To watch a source.
    Register(VirtualId),
    /// To watch a source for something else. To watch it for nothing is never refused.
    SetInterest(VirtualId),
    /// To wait. The error [`Interrupted`](io::ErrorKind::Interrupted) is a signal: the wait is over, without an
    /// event and without an error. Any other fails the wait.
    Select,
}

/// Gives the error of a call that is refused.
pub type Refuse = Box<dyn FnMut(VirtualCall) -> Option<io::Error>>;

/// Somebody's code that decides what is refused; nothing is if there is none.
#[derive(Default)]
pub(crate) struct Refusals {
    /// Out while it is called.
    refuse: RefCell<Option<Refuse>>,
    /// How often it was set, by itself for example.
    set: Cell<u64>,
    interruptions: Cell<u64>,
}

impl Refusals {
    pub(crate) fn set(&self, refuse: Option<Refuse>) {
        self.set.set(self.set.get() + 1);
        let old = self.refuse.replace(refuse);
        drop(old);
    }

    pub(crate) fn ask(&self, call: VirtualCall) -> io::Result<()> {
        let (refuse, set) = (self.refuse.take(), self.set.get());
        let Some(mut refuse) = refuse else { return Ok(()) };
        let refused = refuse(call);
        // It may have set another one, or none.
        if self.set.get() == set {
            self.refuse.replace(Some(refuse));
        }
        let Some(error) = refused else { return Ok(()) };
        let what = match call {
            VirtualCall::Register(id) => format!("cannot register virtual source {}", id.0),
            VirtualCall::SetInterest(id) => format!("cannot watch virtual source {}", id.0),
            VirtualCall::Select => "cannot wait".to_owned(),
        };
        Err(io::Error::new(error.kind(), format!("{what}: {error}")))
    }

    /// Whether a wait is to be. `false` if it is over before it began.
    pub(crate) fn ask_to_wait(&self) -> io::Result<bool> {
        match self.ask(VirtualCall::Select) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.interruptions.set(self.interruptions.get() + 1);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn interruptions(&self) -> u64 {
        self.interruptions.get()
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals")
            .field("interruptions", &self.interruptions())
            .finish_non_exhaustive()
    }
}
