//! Lines, and raw bytes between them.

use std::fmt;
use std::io;

use memchr::memmem::Finder;

use super::{Input, Step, TooLong};
use crate::{AfterEof, Filter, Protocol, Transport};

/// How long a line may be unless it is said otherwise: Twisted's `MAX_LENGTH`.
pub(super) const MAX_LINE: usize = 16384;

/// What ends a line unless it is said otherwise.
pub(super) const DELIMITER: &[u8] = b"\r\n";

/// What follows a line.
pub enum Next {
    /// Lines.
    Lines,
    /// Raw bytes, until [`AfterRaw::Lines`]. Stands for `setRawMode`.
    Raw,
    /// Lines that go through a filter, a TLS engine for example; what has come already behind this line goes
    /// through it too. This is how to answer a `STARTTLS`.
    Filter(Box<dyn Filter>),
}

/// What follows raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRaw {
    /// More of them: all that came were taken.
    Raw,
    /// Lines, from behind the first `used` bytes. Stands for `setLineMode(extra)`.
    Lines {
        /// How many of the bytes were raw; no more than there were.
        used: usize,
    },
}

/// The program's side of a [`LineReceiver`]. Stands for what a Twisted program overrides in one.
///
/// # Order, failure
/// As for [`Protocol`], with [`line_received`](Self::line_received) and
/// [`raw_data_received`](Self::raw_data_received) in the place of `data_received`.
#[allow(unused_variables, reason = "the names are for those who read the documentation")]
pub trait LineProtocol {
    /// A line has come, without what ends it. After a [`pause_reading`](Transport::pause_reading) none come, not
    /// even those that were received already.
    ///
    /// # Errors
    /// What the connection is to end with.
    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> io::Result<Next>;

    /// Raw bytes have come: one or more, cut anywhere.
    ///
    /// # Errors
    /// What the connection is to end with; without this method, that nobody wants raw bytes.
    fn raw_data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<AfterRaw> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "raw bytes have come, which nobody takes"))
    }

    /// A line is longer than the limit; `line` is what has come of it. Stands for `lineLengthExceeded`.
    ///
    /// # Errors
    /// What the connection is to end with; without this method, a [`TooLong`]. After `Ok` the line is left out, to
    /// its end.
    fn line_length_exceeded(
        &mut self,
        transport: &Transport,
        line: &[u8],
        limit: usize,
    ) -> io::Result<()> {
        Err(TooLong { what: "line", length: line.len() as u64, limit }.into())
    }

    /// As [`Protocol::connection_made`].
    ///
    /// # Errors
    /// What the connection is to end with.
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        Ok(())
    }

    /// As [`Protocol::eof_received`]. `unfinished` is what came of a line that has no end; without this method it
    /// is left out, as in Twisted.
    ///
    /// # Errors
    /// What the connection is to end with.
    fn eof_received(&mut self, transport: &Transport, unfinished: &[u8]) -> io::Result<AfterEof> {
        Ok(AfterEof::Close)
    }

    /// As [`Protocol::pause_writing`].
    ///
    /// # Errors
    /// What the connection is to end with.
    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        Ok(())
    }

    /// As [`Protocol::resume_writing`].
    ///
    /// # Errors
    /// What the connection is to end with.
    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        Ok(())
    }

    /// As [`Protocol::timed_out`].
    ///
    /// # Errors
    /// What the connection is to end with.
    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::TimedOut, "the connection's timeout is over"))
    }

    /// As [`Protocol::connection_lost`].
    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {}
}

/// A protocol that gives lines to another, or raw bytes where that asks for them. Stands for Twisted's
/// `LineReceiver`; the methods that a program overrides there are in [`LineProtocol`].
///
/// ```
/// use std::io;
/// use tulipa_protocols::{Detached, CrlfLine, LineProtocol, LineReceiver, Next, Transport};
///
/// struct Greeter;
///
/// impl LineProtocol for Greeter {
///     fn line_received(&mut self, transport: &Transport, line: &[u8]) -> io::Result<Next> {
///         CrlfLine::send(transport, &[b"hello ", line].concat());
///         Ok(Next::Lines)
///     }
/// }
///
/// let mut connection = Detached::new(LineReceiver::new(Greeter));
/// connection.feed(b"Ada\r");
/// connection.feed(b"\nGrace\r\n");
/// assert_eq!(connection.written(), b"hello Ada\r\nhello Grace\r\n");
/// ```
///
/// # Limits
/// A line has at most 16384 bytes unless it is [said otherwise](Self::max_length). Each byte is searched once, and
/// again as many bytes for each piece that comes as the delimiter is long.
pub struct LineReceiver<P> {
    protocol: P,
    input: Input,
    lines: Lines,
}

/// What is known of the lines to come.
struct Lines {
    delimiter: Finder<'static>,
    limit: usize,
    mode: Mode,
    /// How much of the input was searched without finding the end of the line.
    searched: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Lines,
    /// The rest of a line that is too long goes by.
    Skipping,
    Raw,
}

/// What is at the front of the input.
enum Found {
    Nothing,
    /// A line of so many bytes; with its end.
    Line(usize),
    /// More than a line may have.
    TooMuch(usize),
}

impl Lines {
    fn find(&mut self, input: &[u8]) -> Found {
        let width = self.delimiter.needle().len();
        let most = self.limit.saturating_add(width);
        let seen = &input[..input.len().min(most)];
        // Less than was searched comes only if it is another input.
        let from = self.searched.min(seen.len()).saturating_sub(width - 1);
        let found = self.delimiter.find(&seen[from..]).map(|place| from + place);
        #[cfg(test)]
        super::tests::searched(found.map_or(seen.len(), |place| place + width) - from);
        match found {
            Some(place) => {
                self.searched = 0;
                Found::Line(place)
            }
            None if seen.len() == most => Found::TooMuch(most),
            None => {
                self.searched = seen.len();
                Found::Nothing
            }
        }
    }

    /// How much of the input the rest of a line takes that is too long: all but what its end may begin with.
    fn skip(&mut self, input: &[u8]) -> Step {
        let width = self.delimiter.needle().len();
        let found = self.delimiter.find(input);
        #[cfg(test)]
        super::tests::searched(found.map_or(input.len(), |place| place + width));
        if let Some(place) = found {
            self.mode = Mode::Lines;
            return Step::Used(place + width);
        }
        match input.len().saturating_sub(width - 1) {
            0 => Step::Wait,
            count => Step::Used(count),
        }
    }
}

impl<P: LineProtocol> LineReceiver<P> {
    /// Gives `protocol` lines that end with `\r\n`.
    pub fn new(protocol: P) -> LineReceiver<P> {
        let delimiter = Finder::new(DELIMITER);
        let lines = Lines { delimiter, limit: MAX_LINE, mode: Mode::Lines, searched: 0 };
        LineReceiver { protocol, input: Input::default(), lines }
    }

    /// Lines end with this instead.
    ///
    /// # Panics
    /// If it is empty.
    #[track_caller]
    pub fn delimiter(mut self, delimiter: impl AsRef<[u8]>) -> LineReceiver<P> {
        let delimiter = delimiter.as_ref();
        assert!(!delimiter.is_empty(), "a delimiter must have at least one byte");
        self.lines.delimiter = Finder::new(delimiter).into_owned();
        self
    }

    /// A line may have so many bytes, its end not counted. Stands for `MAX_LENGTH`.
    pub fn max_length(mut self, limit: usize) -> LineReceiver<P> {
        self.lines.limit = limit;
        self
    }

    /// What comes first are raw bytes.
    pub fn raw(mut self) -> LineReceiver<P> {
        self.lines.mode = Mode::Raw;
        self
    }

    /// What comes from now on are raw bytes: for those who reach it by
    /// [`Connection::with`](crate::Connection::with). Stands for `setRawMode`.
    pub fn set_raw_mode(&mut self) {
        self.lines.mode = Mode::Raw;
        self.lines.searched = 0;
    }

    /// What comes from now on are lines. Stands for `setLineMode`.
    pub fn set_line_mode(&mut self) {
        self.lines.mode = Mode::Lines;
        self.lines.searched = 0;
    }

    /// Takes what has come and was not delivered. Stands for `clearLineBuffer`.
    pub fn clear_line_buffer(&mut self) -> Vec<u8> {
        self.lines.searched = 0;
        let rest = self.input.rest().to_vec();
        self.input = Input::default();
        rest
    }

    /// The protocol that it gives lines to.
    pub fn get_mut(&mut self) -> &mut P {
        &mut self.protocol
    }
}

/// Delivers what is at the front of the input.
fn step<P: LineProtocol>(
    protocol: &mut P,
    lines: &mut Lines,
    transport: &Transport,
    input: &[u8],
) -> io::Result<Step> {
    match lines.mode {
        Mode::Skipping => return Ok(lines.skip(input)),
        Mode::Raw => {
            return match protocol.raw_data_received(transport, input)? {
                AfterRaw::Raw => Ok(Step::Used(input.len())),
                AfterRaw::Lines { used } => {
                    let (most, used) = (input.len(), used);
                    assert!(used <= most, "{used} raw bytes were used and {most} had come");
                    lines.mode = Mode::Lines;
                    Ok(Step::Used(used))
                }
            };
        }
        Mode::Lines => {}
    }
    let width = lines.delimiter.needle().len();
    match lines.find(input) {
        Found::Nothing => Ok(Step::Wait),
        Found::TooMuch(seen) => {
            protocol.line_length_exceeded(transport, &input[..seen], lines.limit)?;
            (lines.mode, lines.searched) = (Mode::Skipping, 0);
            // The end of the line may have begun already.
            Ok(Step::Used(seen - (width - 1)))
        }
        Found::Line(length) => {
            let used = length + width;
            match protocol.line_received(transport, &input[..length])? {
                Next::Lines => {}
                Next::Raw => lines.mode = Mode::Raw,
                Next::Filter(filter) => return Ok(Step::Filter(used, filter)),
            }
            Ok(Step::Used(used))
        }
    }
}

impl<P: LineProtocol> Protocol for LineReceiver<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        self.protocol.connection_made(transport)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        let LineReceiver { protocol, input, lines } = self;
        input.feed(transport, data, |rest| step(protocol, lines, transport, rest))
    }

    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        self.protocol.eof_received(transport, self.input.rest())
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.protocol.pause_writing(transport)
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.protocol.resume_writing(transport)
    }

    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        self.protocol.timed_out(transport)
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        self.protocol.connection_lost(transport, error);
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Next::Lines => "Lines",
            Next::Raw => "Raw",
            Next::Filter(_) => "Filter(..)",
        })
    }
}

impl<P> fmt::Debug for LineReceiver<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReceiver")
            .field("mode", &self.lines.mode)
            .field("limit", &self.lines.limit)
            .field("kept", &self.input.rest().len())
            .finish_non_exhaustive()
    }
}
