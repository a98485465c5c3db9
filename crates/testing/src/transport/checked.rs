//! Any protocol, with the order of its callbacks checked.

use std::fmt;
use std::io;

use tulipa_protocols::{AfterEof, Protocol, Transport};

use super::record::{Moment, Record};

/// A protocol around another one that writes down in a [`Record`] what it is told, checks the order of it, and passes
/// it on.
///
/// The order is what [`Protocol`] promises, so that only a transport can break it: a test of one wraps whatever
/// protocols it has, and looks at [`Record::assert_order`] or [`Record::assert_over`] at the end.
///
/// ```
/// use std::io;
/// use tulipa_protocols::{Detached, Protocol, Transport};
/// use tulipa_testing::{Call, Checked, Record};
///
/// struct Upper;
/// impl Protocol for Upper {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
///         transport.write(&data.to_ascii_uppercase());
///         Ok(())
///     }
/// }
///
/// let record = Record::new();
/// let mut connection = Detached::new(Checked::new(&record, Upper));
/// connection.feed(b"tulipa");
/// assert_eq!(connection.written(), b"TULIPA");
/// assert_eq!(record.calls(), [Call::Made, Call::Data(6)]);
/// record.assert_order();
/// ```
pub struct Checked<P> {
    record: Record,
    inner: P,
    /// Whether the inner protocol is given bytes, or reads them.
    reads: bool,
}

impl<P> Checked<P> {
    /// A protocol whose calls are written into a record.
    pub fn new(record: &Record, inner: P) -> Checked<P> {
        record.adopt();
        Checked { record: record.clone(), inner, reads: false }
    }

    /// The same for a protocol that has a [`readable`](Protocol::readable) of its own: what it reads is its own
    /// business, so that the record has [`Call::Readable`](crate::Call::Readable) and no bytes.
    pub fn reading(record: &Record, inner: P) -> Checked<P> {
        let mut checked = Checked::new(record, inner);
        checked.reads = true;
        checked
    }

    /// The record it writes into.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The protocol inside.
    pub fn get_ref(&self) -> &P {
        &self.inner
    }

    /// The protocol inside.
    pub fn get_mut(&mut self) -> &mut P {
        &mut self.inner
    }
}

impl<P: Protocol> Protocol for Checked<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        let _inside = self.record.told(Moment::Made, transport);
        self.inner.connection_made(transport)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        let _inside = self.record.told(Moment::Data(data), transport);
        self.inner.data_received(transport, data)
    }

    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        let _inside = self.record.told(Moment::Eof, transport);
        self.inner.eof_received(transport)
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        let _inside = self.record.told(Moment::Pause, transport);
        self.inner.pause_writing(transport)
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        let _inside = self.record.told(Moment::Resume, transport);
        self.inner.resume_writing(transport)
    }

    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        let _inside = self.record.told(Moment::TimedOut, transport);
        self.inner.timed_out(transport)
    }

    fn readable(&mut self, transport: &Transport) -> io::Result<()> {
        if self.reads {
            let _inside = self.record.told(Moment::Readable, transport);
            return self.inner.readable(transport);
        }
        transport.read_with(|data| self.data_received(transport, data)).unwrap_or(Ok(()))
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        let _inside = self.record.told(Moment::Lost(error.as_ref()), transport);
        self.inner.connection_lost(transport, error);
    }
}

impl<P> Drop for Checked<P> {
    fn drop(&mut self) {
        self.record.release();
    }
}

impl<P: fmt::Debug> fmt::Debug for Checked<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").field("inner", &self.inner).field("record", &self.record).finish()
    }
}
