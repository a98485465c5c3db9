//! A datagram protocol that writes down what it is told, and checks the order of it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;

use tulipa_protocols::{Address, DatagramProtocol, DatagramTransport};

/// One call of a datagram protocol's method, as a [`DatagramRecorder`]'s closure gets it.
#[derive(Clone, Copy, Debug)]
pub enum DatagramMoment<'a> {
    /// `connection_made`.
    Made,
    /// `datagram_received`.
    Datagram(&'a [u8], &'a Address),
    /// `truncated_received`.
    Truncated(&'a [u8], &'a Address),
    /// `error_received`.
    Error(&'a io::Error),
    /// `pause_writing`.
    Pause,
    /// `resume_writing`.
    Resume,
    /// `connection_lost`.
    Lost(Option<&'a io::Error>),
}

/// One call, as a [`DatagramRecord`] keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatagramCall {
    /// `connection_made`.
    Made,
    /// `datagram_received`.
    Datagram(Vec<u8>),
    /// `truncated_received`.
    Truncated(Vec<u8>),
    /// `error_received`, and the kind of the error.
    Error(io::ErrorKind),
    /// `pause_writing`.
    Pause,
    /// `resume_writing`.
    Resume,
    /// `connection_lost`, and the kind of the error.
    Lost(Option<io::ErrorKind>),
}

/// What the protocol of one endpoint was told. Clones are the same record.
///
/// It checks what [`DatagramProtocol`] promises: `connection_made` first and once, `connection_lost` last and once,
/// `pause_writing` and `resume_writing` alternating, and no call inside of another.
#[derive(Clone, Default)]
pub struct DatagramRecord(Rc<Inner>);

#[derive(Default)]
struct Inner {
    calls: RefCell<Vec<DatagramCall>>,
    /// Who has sent the datagrams.
    senders: RefCell<Vec<Address>>,
    errors: RefCell<Vec<String>>,
    violations: RefCell<Vec<String>>,
    inside: Cell<bool>,
    made: Cell<bool>,
    paused: Cell<bool>,
    lost: Cell<bool>,
    alive: Cell<usize>,
}

/// What a [`DatagramRecorder`] does when it is told something.
type React = dyn FnMut(DatagramMoment<'_>, &DatagramTransport) -> io::Result<()>;

/// A protocol that writes down what it is told in a [`DatagramRecord`], then does what a closure says.
pub struct DatagramRecorder {
    record: DatagramRecord,
    react: Box<React>,
}

impl DatagramRecord {
    /// An empty one.
    pub fn new() -> DatagramRecord {
        DatagramRecord::default()
    }

    /// A protocol that does nothing but write down.
    pub fn protocol(&self) -> DatagramRecorder {
        self.reacting(|_, _| Ok(()))
    }

    /// A protocol that also does what `react` says, and returns what that returns.
    pub fn reacting(
        &self,
        react: impl FnMut(DatagramMoment<'_>, &DatagramTransport) -> io::Result<()> + 'static,
    ) -> DatagramRecorder {
        self.0.alive.set(self.0.alive.get() + 1);
        DatagramRecorder { record: self.clone(), react: Box::new(react) }
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<DatagramCall> {
        self.0.calls.borrow().clone()
    }

    /// Whether there was such a call.
    pub fn has(&self, call: &DatagramCall) -> bool {
        self.0.calls.borrow().contains(call)
    }

    /// The datagrams that were received whole, in order.
    pub fn datagrams(&self) -> Vec<Vec<u8>> {
        let calls = self.0.calls.borrow();
        let datagram = |call: &DatagramCall| match call {
            DatagramCall::Datagram(data) => Some(data.clone()),
            _ => None,
        };
        calls.iter().filter_map(datagram).collect()
    }

    /// How many datagrams were received whole.
    pub fn count(&self) -> usize {
        let calls = self.0.calls.borrow();
        calls.iter().filter(|call| matches!(call, DatagramCall::Datagram(_))).count()
    }

    /// Who has sent the datagrams, in order.
    pub fn senders(&self) -> Vec<Address> {
        self.0.senders.borrow().clone()
    }

    /// The texts of the errors that were received.
    pub fn errors(&self) -> Vec<String> {
        self.0.errors.borrow().clone()
    }

    /// Whether `connection_made` was called.
    pub fn is_made(&self) -> bool {
        self.0.made.get()
    }

    /// Whether `connection_lost` was called.
    pub fn is_lost(&self) -> bool {
        self.0.lost.get()
    }

    /// Whether writing is paused.
    pub fn is_paused(&self) -> bool {
        self.0.paused.get()
    }

    /// How many protocols of this record were not dropped.
    pub fn alive(&self) -> usize {
        self.0.alive.get()
    }

    /// What was told in the wrong order.
    pub fn violations(&self) -> Vec<String> {
        self.0.violations.borrow().clone()
    }

    /// Checks that nothing was told in the wrong order.
    ///
    /// # Panics
    /// If something was.
    #[track_caller]
    pub fn assert_order(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "{violations:?} in {:?}", self.calls());
    }

    fn expect(&self, right: bool, what: &str) {
        if !right {
            self.0.violations.borrow_mut().push(what.to_owned());
        }
    }

    fn check(&self, moment: DatagramMoment<'_>) {
        let inner = &*self.0;
        self.expect(!inner.inside.get(), "a call inside of another");
        self.expect(!inner.lost.get(), "a call after connection_lost");
        if !matches!(moment, DatagramMoment::Made) {
            self.expect(inner.made.get(), "a call before connection_made");
        }
        match moment {
            DatagramMoment::Made => {
                self.expect(!inner.made.replace(true), "connection_made came twice");
            }
            DatagramMoment::Pause => {
                self.expect(!inner.paused.replace(true), "pause_writing came twice");
            }
            DatagramMoment::Resume => {
                self.expect(inner.paused.replace(false), "resume_writing without a pause");
            }
            DatagramMoment::Lost(_) => inner.lost.set(true),
            _ => {}
        }
    }

    fn keep(&self, moment: DatagramMoment<'_>) {
        let inner = &*self.0;
        let call = match moment {
            DatagramMoment::Made => DatagramCall::Made,
            DatagramMoment::Datagram(data, from) => {
                inner.senders.borrow_mut().push(from.clone());
                DatagramCall::Datagram(data.to_vec())
            }
            DatagramMoment::Truncated(data, _) => DatagramCall::Truncated(data.to_vec()),
            DatagramMoment::Error(error) => {
                inner.errors.borrow_mut().push(error.to_string());
                DatagramCall::Error(error.kind())
            }
            DatagramMoment::Pause => DatagramCall::Pause,
            DatagramMoment::Resume => DatagramCall::Resume,
            DatagramMoment::Lost(error) => DatagramCall::Lost(error.map(io::Error::kind)),
        };
        inner.calls.borrow_mut().push(call);
    }
}

impl fmt::Debug for DatagramRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatagramRecord").field(&self.calls()).finish()
    }
}

/// Says that a call is over, also if it panics.
struct Inside(DatagramRecord);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.inside.set(false);
    }
}

impl DatagramRecorder {
    fn told(
        &mut self,
        moment: DatagramMoment<'_>,
        transport: &DatagramTransport,
    ) -> io::Result<()> {
        self.record.check(moment);
        self.record.keep(moment);
        self.record.0.inside.set(true);
        let _inside = Inside(self.record.clone());
        (self.react)(moment, transport)
    }
}

impl DatagramProtocol for DatagramRecorder {
    fn connection_made(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        self.told(DatagramMoment::Made, transport)
    }

    fn datagram_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        from: &Address,
    ) -> io::Result<()> {
        self.told(DatagramMoment::Datagram(data, from), transport)
    }

    fn truncated_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        from: &Address,
    ) -> io::Result<()> {
        self.told(DatagramMoment::Truncated(data, from), transport)
    }

    fn error_received(
        &mut self,
        transport: &DatagramTransport,
        error: io::Error,
    ) -> io::Result<()> {
        self.told(DatagramMoment::Error(&error), transport)
    }

    fn pause_writing(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        self.told(DatagramMoment::Pause, transport)
    }

    fn resume_writing(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        self.told(DatagramMoment::Resume, transport)
    }

    fn connection_lost(&mut self, transport: &DatagramTransport, error: Option<io::Error>) {
        // Nobody is told of what it returns.
        let _ = self.told(DatagramMoment::Lost(error.as_ref()), transport);
    }
}

impl Drop for DatagramRecorder {
    fn drop(&mut self) {
        self.record.0.alive.set(self.record.0.alive.get() - 1);
    }
}

impl fmt::Debug for DatagramRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramRecorder").field("record", &self.record).finish_non_exhaustive()
    }
}
