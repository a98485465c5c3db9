//! Frames that end with a separator.

use std::io;

use super::{Decoder, Encoder};
use crate::reader::find_first_end;
use crate::{DEFAULT_LIMIT, LimitOverrun, ReadError};

/// Frames that end with one of several separators, and are given out without it. What is left at the end of the
/// input is the last frame.
#[derive(Clone, Debug)]
pub struct AnyDelimiter {
    separators: Vec<Vec<u8>>,
    limit: usize,
    /// How much of the input was searched without finding one.
    searched: usize,
}

impl AnyDelimiter {
    /// Any of `separators` ends a frame, the one that ends first; the first of them is what is sent. A frame has at most
    /// 64 KiB.
    ///
    /// # Panics
    /// If there are none, or one is empty.
    #[track_caller]
    pub fn new<S: AsRef<[u8]>>(separators: impl IntoIterator<Item = S>) -> AnyDelimiter {
        let separators = separators.into_iter().map(|separator| separator.as_ref().to_vec());
        let separators = Vec::from_iter(separators);
        assert!(!separators.is_empty(), "there must be a separator");
        let empty = separators.iter().any(Vec::is_empty);
        assert!(!empty, "a separator must have at least one byte");
        AnyDelimiter { separators, limit: DEFAULT_LIMIT, searched: 0 }
    }

    /// The same with another limit, in bytes without the separator.
    pub fn with_limit(mut self, limit: usize) -> AnyDelimiter {
        self.limit = limit;
        self
    }

    fn longest(&self) -> usize {
        self.separators.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The length of the next frame, and that with its separator.
    fn find(&mut self, input: &[u8]) -> Result<Option<(usize, usize)>, LimitOverrun> {
        let from = self.searched.saturating_sub(self.longest() - 1);
        let found = match &self.separators[..] {
            [separator] => find_first_end(input, from, &[separator]),
            [first, second] => find_first_end(input, from, &[first, second]),
            several => {
                find_first_end(input, from, &Vec::from_iter(several.iter().map(Vec::as_slice)))
            }
        };
        match found {
            Some((start, _)) if start > self.limit => {
                Err(LimitOverrun { consumed: start, limit: self.limit })
            }
            Some(found) => {
                self.searched = 0;
                Ok(Some(found))
            }
            None => {
                self.searched = input.len();
                Ok(None)
            }
        }
    }
}

impl Decoder for AnyDelimiter {
    type Frame = Vec<u8>;

    fn decode(&mut self, input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ReadError> {
        let found = self.find(input)?;
        Ok(found.map(|(length, used)| (input[..length].to_vec(), used)))
    }

    fn decode_end(&mut self, input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ReadError> {
        match self.decode(input)? {
            Some(frame) => Ok(Some(frame)),
            None if input.len() > self.limit => {
                Err(LimitOverrun { consumed: input.len(), limit: self.limit }.into())
            }
            None => Ok(Some((input.to_vec(), input.len()))),
        }
    }

    fn most(&self) -> usize {
        self.limit + self.longest() - 1
    }
}

impl<T: AsRef<[u8]>> Encoder<T> for AnyDelimiter {
    fn encode(&mut self, frame: T, output: &mut Vec<u8>) -> io::Result<()> {
        let frame = frame.as_ref();
        let separators = self.separators.iter().map(Vec::as_slice);
        // One that only comes to be with the separator that follows would cut the frame short too.
        let mut whole = frame.to_vec();
        whole.extend_from_slice(&self.separators[0]);
        let found = find_first_end(&whole, 0, &Vec::from_iter(separators));
        if found != Some((frame.len(), whole.len())) {
            let error = "cannot send a frame with a separator in it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        output.append(&mut whole);
        Ok(())
    }
}

/// Lines of text: they end with `\n` or `\r\n`, are given out without that, and are sent with `\n`.
#[derive(Clone, Debug)]
pub struct LinesCodec(AnyDelimiter);

impl LinesCodec {
    /// Lines of 64 KiB at most.
    pub fn new() -> LinesCodec {
        LinesCodec(AnyDelimiter::new(["\n"]))
    }

    /// Lines of at most so many bytes, their ends not counted.
    pub fn with_limit(limit: usize) -> LinesCodec {
        LinesCodec(AnyDelimiter::new(["\n"]).with_limit(limit))
    }
}

impl Default for LinesCodec {
    fn default() -> LinesCodec {
        LinesCodec::new()
    }
}

fn text(found: Option<(Vec<u8>, usize)>) -> Result<Option<(String, usize)>, ReadError> {
    let Some((mut line, used)) = found else { return Ok(None) };
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    match String::from_utf8(line) {
        Ok(line) => Ok(Some((line, used))),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error).into()),
    }
}

impl Decoder for LinesCodec {
    type Frame = String;

    fn decode(&mut self, input: &[u8]) -> Result<Option<(String, usize)>, ReadError> {
        text(self.0.decode(input)?)
    }

    fn decode_end(&mut self, input: &[u8]) -> Result<Option<(String, usize)>, ReadError> {
        text(self.0.decode_end(input)?)
    }

    fn most(&self) -> usize {
        self.0.most()
    }
}

impl<T: AsRef<str>> Encoder<T> for LinesCodec {
    fn encode(&mut self, line: T, output: &mut Vec<u8>) -> io::Result<()> {
        self.0.encode(line.as_ref(), output)
    }
}
