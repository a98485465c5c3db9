//! The lines of a reader as a stream.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::Stream;

use crate::{ReadError, StreamReader};

/// What a line is given out as: [`String`] without its end, or `Vec<u8>` as it came.
pub trait Line: Sized {
    /// Makes one of the bytes that came, with the end of the line if there was one.
    ///
    /// # Errors
    /// [`InvalidData`](io::ErrorKind::InvalidData) if they are no such line.
    fn from_bytes(bytes: &[u8]) -> io::Result<Self>;
}

impl Line for Vec<u8> {
    fn from_bytes(bytes: &[u8]) -> io::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
}

impl Line for String {
    fn from_bytes(bytes: &[u8]) -> io::Result<String> {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line);
        line.map(str::to_owned).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// The stream that [`StreamReader::lines`] and [`byte_lines`](StreamReader::byte_lines) give.
///
/// A line that is over the limit, or is not UTF-8 where text is asked for, is an error in its place, and the
/// stream goes on behind it. When the connection fails, that is the last item.
#[must_use = "streams do nothing unless polled"]
pub struct Lines<'a, L> {
    reader: &'a mut StreamReader,
    failed: bool,
    line: PhantomData<fn() -> L>,
}

impl StreamReader {
    /// The lines to come, as text without `\n` or `\r\n`, until the end. Stands for `async for line in reader`.
    ///
    /// ```
    /// use futures_lite::StreamExt;
    ///
    /// # let event_loop = tulipa_loop::EventLoop::new()?;
    /// # event_loop.run_until_complete(async {
    /// let ((mut reader, _), (_, writer)) = tulipa_streams::duplex().await?;
    /// writer.write(b"one\r\ntwo\nthree");
    /// writer.write_eof();
    /// let lines: Vec<String> = reader.lines().try_collect().await?;
    /// assert_eq!(lines, ["one", "two", "three"]);
    /// # Ok::<(), tulipa_streams::ReadError>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lines(&mut self) -> Lines<'_, String> {
        Lines { reader: self, failed: false, line: PhantomData }
    }

    /// The lines to come, as bytes and with their ends, as asyncio's are.
    pub fn byte_lines(&mut self) -> Lines<'_, Vec<u8>> {
        Lines { reader: self, failed: false, line: PhantomData }
    }
}

impl<L: Line> Stream for Lines<'_, L> {
    type Item = Result<L, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let line = match ready!(self.reader.poll_read_line(context)) {
            Ok(b"") => return Poll::Ready(None),
            Ok(bytes) => L::from_bytes(bytes).map_err(ReadError::from),
            Err(error) => Err(error),
        };
        if let Err(ReadError::Io(error)) = &line {
            self.failed = error.kind() != io::ErrorKind::InvalidData;
        }
        Poll::Ready(Some(line))
    }
}

impl<L> fmt::Debug for Lines<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("reader", &self.reader).finish_non_exhaustive()
    }
}
