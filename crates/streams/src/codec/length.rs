//! Frames behind their length.

use std::io;

use tulipa_protocols::__private::length_prefix;

use super::{Decoder, Encoder};
use crate::{LimitOverrun, ReadError};

/// How many bytes a length takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LengthWidth {
    /// 1
    One = 1,
    /// 2
    Two = 2,
    /// 4
    Four = 4,
    /// 8
    Eight = 8,
}

/// Frames behind their length, which is sent with its most significant byte first.
#[derive(Clone, Debug)]
pub struct LengthDelimited {
    width: LengthWidth,
    limit: usize,
}

/// What a frame has at most unless said otherwise: a length comes from the peer, and must not decide over our memory.
const LIMIT: usize = 8 * 1024 * 1024;

impl LengthDelimited {
    /// Frames of at most 8 MiB behind lengths of four bytes.
    pub fn new() -> LengthDelimited {
        LengthDelimited::with_width(LengthWidth::Four)
    }

    /// The same with lengths of another width.
    pub fn with_width(width: LengthWidth) -> LengthDelimited {
        LengthDelimited { width, limit: LIMIT }
    }

    /// The same with another limit, in bytes without the length. A peer that announces more is an error at once.
    pub fn with_limit(mut self, limit: usize) -> LengthDelimited {
        self.limit = limit;
        self
    }
}

impl Default for LengthDelimited {
    fn default() -> LengthDelimited {
        LengthDelimited::new()
    }
}

impl Decoder for LengthDelimited {
    type Frame = Vec<u8>;

    fn decode(&mut self, input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ReadError> {
        let width = self.width as usize;
        let Some((length, rest)) = length_prefix(input, width) else { return Ok(None) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(LimitOverrun { consumed: length, limit: self.limit }.into());
        }
        Ok(rest.get(..length).map(|frame| (frame.to_vec(), width + length)))
    }

    fn most(&self) -> usize {
        self.width as usize + self.limit
    }
}

impl<T: AsRef<[u8]>> Encoder<T> for LengthDelimited {
    fn encode(&mut self, frame: T, output: &mut Vec<u8>) -> io::Result<()> {
        let frame = frame.as_ref();
        let (width, length) = (self.width as usize, frame.len() as u64);
        if frame.len() > self.limit || (width < 8 && length >> (8 * width) != 0) {
            let error = format!("cannot send a frame of {length} bytes: it is over the limit");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        output.extend_from_slice(&length.to_be_bytes()[8 - width..]);
        output.extend_from_slice(frame);
        Ok(())
    }
}
