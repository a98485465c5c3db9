//! A protocol that writes down what it is told, and checks the order of it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;

use tulipa_protocols::{AfterEof, Protocol, Transport};

/// One call of a protocol's method, as a [`Recorder`]'s closure gets it.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// `connection_made`.
    Made,
    /// `data_received`.
    Data(&'a [u8]),
    /// `readable`, of a protocol that [reads by itself](crate::Checked::reading).
    Readable,
    /// `eof_received`.
    Eof,
    /// `pause_writing`.
    Pause,
    /// `resume_writing`.
    Resume,
    /// `timed_out`.
    TimedOut,
    /// `connection_lost`.
    Lost(Option<&'a io::Error>),
}

/// One call, as a [`Record`] keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `connection_made`.
    Made,
    /// `data_received`, once or several times in a row, with so many bytes in all.
    Data(usize),
    /// `readable`, of a protocol that [reads by itself](crate::Checked::reading), once or several times in a row.
    Readable,
    /// `eof_received`.
    Eof,
    /// `pause_writing`.
    Pause,
    /// `resume_writing`.
    Resume,
    /// `timed_out`.
    TimedOut,
    /// `connection_lost`, and the kind of the error.
    Lost(Option<io::ErrorKind>),
}

/// What the protocols of one connection were told, one after the other if they were swapped. Clones are
/// the same record.
///
/// It checks what [`Protocol`] promises: `connection_made` first and once, `connection_lost` last and once,
/// `pause_writing` and `resume_writing` alternating, one `eof_received` and no data behind it, no empty data, none while
/// reading is paused, and no call inside of another.
#[derive(Clone, Default)]
pub struct Record(Rc<Inner>);

#[derive(Default)]
struct Inner {
    calls: RefCell<Vec<Call>>,
    bytes: RefCell<Vec<u8>>,
    violations: RefCell<Vec<String>>,
    inside: Cell<bool>,
    made: Cell<bool>,
    paused: Cell<bool>,
    eof: Cell<bool>,
    /// Told to a protocol of this record, rather than to the one before.
    own_eof: Cell<bool>,
    lost: Cell<bool>,
    alive: Cell<usize>,
}

/// What a [`Recorder`] does when it is told something.
type React = dyn FnMut(Moment<'_>, &Transport) -> io::Result<AfterEof>;

/// A protocol that writes down what it is told in a [`Record`], then does what a closure says.
pub struct Recorder {
    record: Record,
    react: Box<React>,
}

impl Record {
    /// An empty one.
    pub fn new() -> Record {
        Record::default()
    }

    /// One for a protocol that takes over where `connection_made` was told to another.
    pub fn after_made() -> Record {
        let record = Record::new();
        record.0.made.set(true);
        record
    }

    /// One for a protocol that takes over from those of another record: it knows what they were told.
    pub fn after(record: &Record) -> Record {
        let (known, next) = (&record.0, Record::new());
        next.0.made.set(known.made.get());
        next.0.paused.set(known.paused.get());
        next.0.eof.set(known.eof.get());
        next
    }

    /// A protocol that does nothing but write down; it closes when the peer has ended its side.
    pub fn protocol(&self) -> Recorder {
        self.reacting(|_, _| Ok(AfterEof::Close))
    }

    /// A protocol that also does what `react` says. What it returns counts for `eof_received`; its errors count
    /// always.
    pub fn reacting(
        &self,
        react: impl FnMut(Moment<'_>, &Transport) -> io::Result<AfterEof> + 'static,
    ) -> Recorder {
        self.adopt();
        Recorder { record: self.clone(), react: Box::new(react) }
    }

    /// The calls so far; data that came in several goes, one after the other, is one.
    pub fn calls(&self) -> Vec<Call> {
        self.0.calls.borrow().clone()
    }

    /// Whether there was such a call.
    pub fn has(&self, call: Call) -> bool {
        self.0.calls.borrow().contains(&call)
    }

    /// How many bytes were received.
    pub fn count(&self) -> usize {
        self.0.bytes.borrow().len()
    }

    /// The bytes that were received.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes.borrow().clone()
    }

    /// Whether `connection_made` was called.
    pub fn is_made(&self) -> bool {
        self.0.made.get()
    }

    /// Whether writing is paused.
    pub fn is_paused(&self) -> bool {
        self.0.paused.get()
    }

    /// Whether `eof_received` was called.
    pub fn is_eof(&self) -> bool {
        self.0.eof.get()
    }

    /// Whether `connection_lost` was called.
    pub fn is_lost(&self) -> bool {
        self.0.lost.get()
    }

    /// The kind of the error of `connection_lost`.
    ///
    /// # Panics
    /// If it was not called.
    #[track_caller]
    pub fn error(&self) -> Option<io::ErrorKind> {
        match self.0.calls.borrow().last() {
            Some(Call::Lost(error)) => *error,
            _ => panic!("the connection is not over: {self:?}"),
        }
    }

    /// How many of its protocols have not been dropped.
    pub fn alive(&self) -> usize {
        self.0.alive.get()
    }

    /// What was not as promised.
    pub fn violations(&self) -> Vec<String> {
        self.0.violations.borrow().clone()
    }

    /// Checks that everything was as promised.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_order(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "{violations:?} in {self:?}");
    }

    /// Checks that the connection is over, the protocol gone, and everything was as promised.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_over(&self) {
        self.assert_order();
        assert!(self.is_lost(), "the connection is not over: {self:?}");
        assert_eq!(self.alive(), 0, "the protocol was not dropped: {self:?}");
    }

    /// There is one more protocol that writes into it.
    pub(super) fn adopt(&self) {
        self.0.alive.set(self.0.alive.get() + 1);
    }

    /// One of its protocols is dropped.
    pub(super) fn release(&self) {
        self.0.alive.set(self.0.alive.get() - 1);
    }

    /// Writes a call down, which lasts as long as what is returned: also when it panics.
    pub(super) fn told(&self, moment: Moment<'_>, transport: &Transport) -> Inside {
        self.enter(moment, transport);
        Inside(self.clone())
    }

    fn violation(&self, what: impl Into<String>) {
        self.0.violations.borrow_mut().push(what.into());
    }

    fn enter(&self, moment: Moment<'_>, transport: &Transport) {
        if self.0.inside.replace(true) {
            self.violation(format!("{moment:?} inside of another call"));
        }
        if self.0.lost.get() {
            self.violation(format!("{moment:?} after connection_lost"));
        }
        let is_lost = matches!(moment, Moment::Lost(_));
        if !self.0.made.get() && !is_lost && !matches!(moment, Moment::Made) {
            self.violation(format!("{moment:?} before connection_made"));
        }
        let call = match moment {
            Moment::Made => self.change(&self.0.made, true, Call::Made),
            Moment::Pause => self.change(&self.0.paused, true, Call::Pause),
            Moment::Resume => self.change(&self.0.paused, false, Call::Resume),
            Moment::Eof => {
                self.0.own_eof.set(true);
                self.change(&self.0.eof, true, Call::Eof)
            }
            Moment::TimedOut => Call::TimedOut,
            Moment::Lost(error) => {
                self.change(&self.0.lost, true, Call::Lost(error.map(io::Error::kind)))
            }
            Moment::Data(data) => self.data(data, transport),
            Moment::Readable => Call::Readable,
        };
        let mut calls = self.0.calls.borrow_mut();
        match (calls.last_mut(), call) {
            (Some(Call::Data(before)), Call::Data(more)) => *before += more,
            (Some(Call::Readable), Call::Readable) => {}
            _ => calls.push(call),
        }
    }

    fn change(&self, flag: &Cell<bool>, to: bool, call: Call) -> Call {
        if flag.replace(to) == to {
            self.violation(format!("{call:?} twice"));
        }
        call
    }

    fn data(&self, data: &[u8], transport: &Transport) -> Call {
        if data.is_empty() {
            self.violation("empty data");
        }
        // What the one before has left over may come behind the end that it was told of.
        if self.0.own_eof.get() {
            self.violation("data after eof_received");
        } else if !transport.is_reading() && !transport.is_closing() && !self.0.eof.get() {
            self.violation("data while reading is paused");
        }
        self.0.bytes.borrow_mut().extend_from_slice(data);
        Call::Data(data.len())
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.calls();
        f.debug_struct("Record").field("calls", &calls).finish_non_exhaustive()
    }
}

/// A call that is going on.
pub(super) struct Inside(Record);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.inside.set(false);
    }
}

impl Recorder {
    fn told(&mut self, moment: Moment<'_>, transport: &Transport) -> io::Result<AfterEof> {
        let _inside = self.record.told(moment, transport);
        (self.react)(moment, transport)
    }

    /// The record it writes into.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Protocol for Recorder {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        self.told(Moment::Made, transport).map(drop)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        self.told(Moment::Data(data), transport).map(drop)
    }

    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        self.told(Moment::Eof, transport)
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.told(Moment::Pause, transport).map(drop)
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.told(Moment::Resume, transport).map(drop)
    }

    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        self.told(Moment::TimedOut, transport).map(drop)
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        // An error in the last call has nobody to go to.
        let _ = self.told(Moment::Lost(error.as_ref()), transport);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.record.release();
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("record", &self.record).finish_non_exhaustive()
    }
}
