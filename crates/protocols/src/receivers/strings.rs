//! Messages of one kind: lines, netstrings, and strings behind their length.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;

use super::lines::{DELIMITER, MAX_LINE};
use super::{Input, Step, TooLong};
use crate::scan::length_prefix;
use crate::{AfterEof, Flow, Protocol, Transport};

/// How long a string may be unless it is said otherwise: Twisted's `MAX_LENGTH`.
const MAX_STRING: usize = 99999;

/// The program's side of a [`Receiver`]: of a [`LineOnlyReceiver`], a [`NetstringReceiver`], or one of the
/// [`Int8StringReceiver`] family. Stands for what a Twisted program overrides in them.
///
/// # Order, failure
/// As for [`Protocol`], with [`string_received`](Self::string_received) in the place of `data_received`.
#[allow(unused_variables, reason = "the names are for those who read the documentation")]
pub trait StringProtocol {
    /// A whole message has come, without what is around it. After a
    /// [`pause_reading`](Transport::pause_reading) none come, not even those that were received already. Stands for
    /// `stringReceived`, and for `lineReceived` of a `LineOnlyReceiver`.
    ///
    /// # Errors
    /// What the connection is to end with.
    fn string_received(&mut self, transport: &Transport, string: &[u8]) -> io::Result<()>;

    /// As [`Protocol::connection_made`].
    ///
    /// # Errors
    /// What the connection is to end with.
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        Ok(())
    }

    /// As [`Protocol::eof_received`]. `unfinished` is what came of a message that is not whole; without this method
    /// it is left out, as in Twisted.
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

/// How a [`Receiver`] finds messages. Programs may bring one of their own.
pub trait Framing {
    /// How long a message may be unless it is said otherwise, in bytes.
    const MAX_LENGTH: usize;

    /// The first message in `input`, which has at least one byte: where it is, and how many bytes it takes with all
    /// that is around it, at least one. `None` if it is not all there; `input` then comes again with more behind it,
    /// so that a framing may remember how far it has looked.
    ///
    /// # Errors
    /// What the connection is to end with: what came is nothing of this kind, or is longer than `limit`.
    fn cut(&mut self, input: &[u8], limit: usize) -> io::Result<Option<(Range<usize>, usize)>>;
}

/// A protocol that gives whole messages to another, which is a [`StringProtocol`].
///
/// ```
/// use std::io;
/// use tulipa_protocols::{Detached, Netstring, NetstringReceiver, StringProtocol, Transport};
///
/// struct Echo;
///
/// impl StringProtocol for Echo {
///     fn string_received(&mut self, transport: &Transport, string: &[u8]) -> io::Result<()> {
///         Netstring::send(transport, string);
///         Ok(())
///     }
/// }
///
/// let mut connection = Detached::new(NetstringReceiver::new(Echo));
/// connection.feed(b"5:hel");
/// connection.feed(b"lo,0:,");
/// assert_eq!(connection.written(), b"5:hello,0:,");
/// ```
///
/// # Limits
/// Longer messages than [`max_length`](Self::max_length) end the connection with a [`TooLong`], as soon as it is known
/// that they are; a length that a peer announces takes no memory.
pub struct Receiver<F, P> {
    protocol: P,
    input: Input,
    framing: F,
    limit: usize,
}

/// Lines and nothing else, of 16384 bytes at most. Stands for Twisted's `LineOnlyReceiver`.
pub type LineOnlyReceiver<P> = Receiver<CrlfLine, P>;

/// Netstrings (`5:hello,`) of 99999 bytes at most. Stands for Twisted's `NetstringReceiver`.
pub type NetstringReceiver<P> = Receiver<Netstring, P>;

/// Strings behind a length of one byte. Stands for Twisted's `Int8StringReceiver`.
pub type Int8StringReceiver<P> = Receiver<Int8, P>;

/// Strings of 99999 bytes at most behind a length of two bytes. Stands for Twisted's `Int16StringReceiver`.
pub type Int16StringReceiver<P> = Receiver<Int16, P>;

/// Strings of 99999 bytes at most behind a length of four bytes. Stands for Twisted's `Int32StringReceiver`.
pub type Int32StringReceiver<P> = Receiver<Int32, P>;

/// [`IntPrefix`] of one byte.
pub type Int8 = IntPrefix<1>;

/// [`IntPrefix`] of two bytes.
pub type Int16 = IntPrefix<2>;

/// [`IntPrefix`] of four bytes.
pub type Int32 = IntPrefix<4>;

impl<F: Framing + Default, P: StringProtocol> Receiver<F, P> {
    /// Gives `protocol` the messages that come.
    pub fn new(protocol: P) -> Receiver<F, P> {
        Receiver::with(F::default(), protocol)
    }
}

impl<F: Framing, P: StringProtocol> Receiver<F, P> {
    /// The same with a framing of one's own.
    pub fn with(framing: F, protocol: P) -> Receiver<F, P> {
        Receiver { protocol, input: Input::default(), framing, limit: F::MAX_LENGTH }
    }

    /// A message may have so many bytes, what is around it not counted. Stands for `MAX_LENGTH`.
    pub fn max_length(mut self, limit: usize) -> Receiver<F, P> {
        self.limit = limit;
        self
    }

    /// The protocol that it gives messages to.
    pub fn get_mut(&mut self) -> &mut P {
        &mut self.protocol
    }
}

impl<F: Framing, P: StringProtocol> Protocol for Receiver<F, P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        self.protocol.connection_made(transport)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        let Receiver { protocol, input, framing, limit } = self;
        input.feed(transport, data, |rest| match framing.cut(rest, *limit)? {
            Some((place, used)) => {
                let fits = place.end <= used && used <= rest.len() && used > 0;
                assert!(fits, "a message takes some of the input: {place:?}, {used}");
                protocol.string_received(transport, &rest[place])?;
                Ok(Step::Used(used))
            }
            None => Ok(Step::Wait),
        })
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

impl<F, P> fmt::Debug for Receiver<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("limit", &self.limit)
            .field("kept", &self.input.rest().len())
            .finish_non_exhaustive()
    }
}

/// Lines that end with `\r\n`, for a [`LineOnlyReceiver`].
#[derive(Clone, Debug, Default)]
pub struct CrlfLine {
    /// How much of the input was searched without finding the end.
    searched: usize,
}

impl CrlfLine {
    /// Writes a line and its end, `\r\n`. Stands for `sendLine`.
    pub fn send(transport: &Transport, line: &[u8]) -> Flow {
        transport.write_vectored(&[IoSlice::new(line), IoSlice::new(DELIMITER)])
    }
}

impl Framing for CrlfLine {
    const MAX_LENGTH: usize = MAX_LINE;

    fn cut(&mut self, input: &[u8], limit: usize) -> io::Result<Option<(Range<usize>, usize)>> {
        let most = limit.saturating_add(DELIMITER.len());
        let seen = &input[..input.len().min(most)];
        // Less than was searched comes only if it is another input.
        let from = self.searched.min(seen.len()).saturating_sub(DELIMITER.len() - 1);
        let found = crate::scan::find_first_end(seen, from, &[DELIMITER], |_count| {
            #[cfg(test)]
            super::tests::searched(_count);
        });
        match found {
            Some((place, end)) => {
                self.searched = 0;
                Ok(Some((0..place, end)))
            }
            None if seen.len() == most => {
                Err(TooLong { what: "line", length: most as u64, limit }.into())
            }
            None => {
                self.searched = seen.len();
                Ok(None)
            }
        }
    }
}

/// `5:hello,`, for a [`NetstringReceiver`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Netstring;

/// A length has no more digits than this: 2^64 − 1 has 20.
const MOST_DIGITS: usize = 20;

impl Netstring {
    /// Writes a string as a netstring. Stands for `sendString`.
    pub fn send(transport: &Transport, string: &[u8]) -> Flow {
        let head = format!("{}:", string.len());
        let pieces = [head.as_bytes(), string, b","].map(IoSlice::new);
        transport.write_vectored(&pieces)
    }
}

impl Framing for Netstring {
    const MAX_LENGTH: usize = MAX_STRING;

    fn cut(&mut self, input: &[u8], limit: usize) -> io::Result<Option<(Range<usize>, usize)>> {
        let digits =
            input.iter().take(MOST_DIGITS).take_while(|byte| byte.is_ascii_digit()).count();
        let length = &input[..digits];
        // No digit makes it small again, so it is told as soon as it is too much.
        let length = length.iter().fold(0_u64, |length, digit| {
            length.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
        });
        let wrong = |why: &str| {
            let error = format!("what came is no netstring: {why}");
            Err(io::Error::new(io::ErrorKind::InvalidData, error))
        };
        if digits == 0 {
            return wrong("it begins with no length");
        }
        if input[0] == b'0' && digits > 1 {
            return wrong("its length begins with a zero");
        }
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= limit) else {
            return Err(TooLong { what: "netstring", length, limit }.into());
        };
        match input.get(digits) {
            None => return Ok(None),
            Some(b':') => {}
            Some(_) => return wrong("no colon follows its length"),
        }
        let place = digits + 1..digits + 1 + length;
        match input.get(place.end) {
            None => Ok(None),
            Some(b',') => Ok(Some((place.clone(), place.end + 1))),
            Some(_) => wrong("no comma follows it"),
        }
    }
}

/// A length of `WIDTH` bytes (1, 2 or 4), its most significant byte first, and so many bytes: for the
/// [`Int8StringReceiver`] family.
#[derive(Clone, Copy, Debug, Default)]
pub struct IntPrefix<const WIDTH: usize>;

impl<const WIDTH: usize> IntPrefix<WIDTH> {
    /// Writes a string behind its length. Stands for `sendString`.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the length is more than can be said; nothing is written then.
    pub fn send(transport: &Transport, string: &[u8]) -> io::Result<Flow> {
        let length = string.len() as u64;
        if WIDTH < 8 && length >> (8 * WIDTH) != 0 {
            let error =
                format!("a string of {length} bytes is too long for a length of {WIDTH} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let head = length.to_be_bytes();
        let pieces = [&head[8 - WIDTH..], string].map(IoSlice::new);
        Ok(transport.write_vectored(&pieces))
    }
}

impl<const WIDTH: usize> Framing for IntPrefix<WIDTH> {
    const MAX_LENGTH: usize = MAX_STRING;

    fn cut(&mut self, input: &[u8], limit: usize) -> io::Result<Option<(Range<usize>, usize)>> {
        const { assert!(WIDTH == 1 || WIDTH == 2 || WIDTH == 4, "a length has 1, 2 or 4 bytes") };
        let Some((length, rest)) = length_prefix(input, WIDTH) else { return Ok(None) };
        let Some(count) = usize::try_from(length).ok().filter(|count| *count <= limit) else {
            return Err(TooLong { what: "string", length, limit }.into());
        };
        let whole = rest.len() >= count;
        Ok(whole.then_some((WIDTH..WIDTH + count, WIDTH + count)))
    }
}
