//! Messages in a stream of bytes: codecs, which know no stream and no protocol, and what uses them.

mod delimited;
mod framed;
mod frames;
mod length;

pub use delimited::{AnyDelimiter, LinesCodec};
pub use framed::Framed;
pub use frames::{Frames, write_frame};
pub use length::{LengthDelimited, LengthWidth};

use std::io;

use crate::{IncompleteRead, ReadError};

/// Cuts a stream of bytes into frames. Pure: it is given bytes and gives frames, for streams ([`Framed`]) as for
/// protocols ([`Frames`]).
pub trait Decoder {
    /// What it makes of the bytes.
    type Frame;

    /// The next frame and how many bytes at the front of `input` it took, at least one; `None` if there is not all of it
    /// yet. `input` is everything that has come and was not taken: after `None` it comes again with more behind,
    /// so that a decoder may remember how far it has looked.
    ///
    /// # Errors
    /// What is wrong with the input; it is the last thing that is decoded.
    fn decode(&mut self, input: &[u8]) -> Result<Option<(Self::Frame, usize)>, ReadError>;

    /// The same behind the end of the input, with what is left, at least one byte.
    ///
    /// # Errors
    /// By default a [`ReadError::Incomplete`] unless there is a whole frame.
    fn decode_end(&mut self, input: &[u8]) -> Result<Option<(Self::Frame, usize)>, ReadError> {
        match self.decode(input)? {
            Some(frame) => Ok(Some(frame)),
            None => Err(IncompleteRead { partial: input.to_vec(), expected: None }.into()),
        }
    }

    /// How many bytes a frame takes at most, with all that is around it. When more have come and there is no frame
    /// it is a [`ReadError::LimitOverrun`].
    fn most(&self) -> usize;
}

/// Makes bytes of frames.
pub trait Encoder<T> {
    /// Appends the frame to `output`.
    ///
    /// # Errors
    /// Why it cannot be sent; nothing was appended then.
    fn encode(&mut self, frame: T, output: &mut Vec<u8>) -> io::Result<()>;
}

/// What decodes for streams and protocols alike: the frame at the front of `input`.
fn decode_next<D: Decoder>(
    decoder: &mut D,
    input: &[u8],
    ended: bool,
) -> Result<Option<(D::Frame, usize)>, ReadError> {
    if ended && input.is_empty() {
        return Ok(None);
    }
    let decoded = if ended { decoder.decode_end(input)? } else { decoder.decode(input)? };
    if let Some((_, used)) = &decoded {
        assert!((1..=input.len()).contains(used), "a frame takes some of the input: {used}");
    } else if input.len() > decoder.most() {
        let (consumed, limit) = (input.len(), decoder.most());
        return Err(crate::LimitOverrun { consumed, limit }.into());
    }
    Ok(decoded)
}
