//! Frames of bytes that are pushed: for protocols.

use std::io;

use tulipa_protocols::{Flow, Transport};

use super::{Decoder, Encoder, decode_next};
use crate::ReadError;

/// A decoder with its buffer, that bytes are pushed into: what a protocol needs. For streams there is
/// [`Framed`](super::Framed).
///
/// ```
/// use std::io;
/// use tulipa_protocols::{Detached, Protocol, Transport};
/// use tulipa_streams::codec::{Frames, LinesCodec, write_frame};
///
/// struct Upper(Frames<LinesCodec>);
///
/// impl Protocol for Upper {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
///         self.0.feed(data);
///         while let Some(line) = self.0.next_frame()? {
///             write_frame(transport, self.0.codec(), line.to_uppercase())?;
///         }
///         Ok(())
///     }
/// }
///
/// let mut connection = Detached::new(Upper(Frames::new(LinesCodec::new())));
/// connection.feed(b"one\ntw");
/// connection.feed(b"o\n");
/// assert_eq!(connection.written(), b"ONE\nTWO\n");
/// ```
///
/// # Limits
/// It keeps what is [at most](Decoder::most) in a frame, and what it was fed last.
#[derive(Debug)]
pub struct Frames<D> {
    decoder: D,
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
}

impl<D: Decoder> Frames<D> {
    /// An empty one.
    pub fn new(decoder: D) -> Frames<D> {
        Frames { decoder, buffer: Vec::new(), start: 0, ended: false }
    }

    /// Bytes have come.
    pub fn feed(&mut self, data: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(data);
    }

    /// The input has ended.
    pub fn feed_eof(&mut self) {
        self.ended = true;
    }

    /// The next frame, if all of it has come.
    ///
    /// # Errors
    /// Those of the decoder, and when more has come than a frame takes.
    ///
    /// # Panics
    /// If the decoder takes nothing, or more than there is, for a frame.
    pub fn next_frame(&mut self) -> Result<Option<D::Frame>, ReadError> {
        let input = &self.buffer[self.start..];
        let decoded = decode_next(&mut self.decoder, input, self.ended)?;
        let Some((frame, used)) = decoded else { return Ok(None) };
        self.start += used;
        if self.start == self.buffer.len() {
            (self.buffer, self.start) = (Vec::new(), 0);
        }
        Ok(Some(frame))
    }

    /// What was fed and not taken: what another protocol, or a filter, is to be given.
    pub fn unused(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The codec.
    pub fn codec(&mut self) -> &mut D {
        &mut self.decoder
    }
}

/// Writes a frame to a transport.
///
/// # Errors
/// Those of the encoder.
pub fn write_frame<T>(
    transport: &Transport,
    encoder: &mut impl Encoder<T>,
    frame: T,
) -> io::Result<Flow> {
    let mut output = Vec::new();
    encoder.encode(frame, &mut output)?;
    Ok(transport.write_bytes(output.into()))
}
