//! Frames of a connection: for streams.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::{Stream, StreamExt};
use tulipa_protocols::Flow;

use super::{Decoder, Encoder, decode_next};
use crate::{ReadError, StreamReader, StreamWriter};

/// A connection that is read and written in frames: a stream of what its codec decodes, and
/// [`send`](Self::send) for what it encodes.
///
/// ```
/// use futures_lite::StreamExt;
/// use tulipa_streams::codec::{Framed, LengthDelimited};
///
/// # let event_loop = tulipa_loop::EventLoop::new()?;
/// # event_loop.run_until_complete(async {
/// let (near, far) = tulipa_streams::duplex().await?;
/// let mut near = Framed::new(near.0, near.1, LengthDelimited::new());
/// let mut far = Framed::new(far.0, far.1, LengthDelimited::new());
/// near.send("one frame").await?;
/// assert_eq!(far.next_frame().await?, Some(b"one frame".to_vec()));
/// drop(near);
/// assert!(far.next().await.is_none());
/// # Ok::<(), tulipa_streams::ReadError>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An error is the last item. The reader's limit does not count, that of the codec does.
///
/// # Cancel safety
/// Of reading: nothing is lost.
pub struct Framed<C> {
    reader: StreamReader,
    writer: StreamWriter,
    codec: C,
    output: Vec<u8>,
    failed: bool,
}

/// A buffer for output that has grown beyond this is not kept.
const KEPT_OUTPUT: usize = 64 * 1024;

impl<C> Framed<C> {
    /// Frames over two halves. What the reader has already is decoded first.
    pub fn new(reader: StreamReader, writer: StreamWriter, codec: C) -> Framed<C> {
        Framed { reader, writer, codec, output: Vec::new(), failed: false }
    }

    /// The reader.
    pub fn reader(&self) -> &StreamReader {
        &self.reader
    }

    /// The writer: to wait, to end, to close.
    pub fn writer(&self) -> &StreamWriter {
        &self.writer
    }

    /// The codec.
    pub fn codec(&mut self) -> &mut C {
        &mut self.codec
    }

    /// Takes it apart; bytes that were not decoded are still in the reader.
    pub fn into_parts(self) -> (StreamReader, StreamWriter, C) {
        (self.reader, self.writer, self.codec)
    }

    /// Writes a frame without waiting.
    ///
    /// # Errors
    /// Those of the codec.
    pub fn feed<T>(&mut self, frame: T) -> io::Result<Flow>
    where
        C: Encoder<T>,
    {
        self.output.clear();
        self.codec.encode(frame, &mut self.output)?;
        let flow = self.writer.write(&self.output);
        if self.output.capacity() > KEPT_OUTPUT {
            self.output = Vec::new();
        }
        Ok(flow)
    }

    /// Writes a frame, and waits for room if there is none.
    ///
    /// # Errors
    /// Those of the codec, and as [`StreamWriter::drain`].
    ///
    /// # Cancel safety
    /// A frame is sent whole, and was if it waits.
    pub async fn send<T>(&mut self, frame: T) -> io::Result<()>
    where
        C: Encoder<T>,
    {
        match self.feed(frame)? {
            Flow::Ready => Ok(()),
            Flow::Full | Flow::Closed => self.writer.drain().await,
        }
    }
}

impl<C: Decoder> Framed<C> {
    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// Those of the codec, and why the connection failed.
    ///
    /// # Panics
    /// If the decoder takes nothing, or more than there is, for a frame.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next_frame(&mut self) -> Result<Option<C::Frame>, ReadError>
    where
        C: Unpin,
    {
        self.next().await.transpose()
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<C::Frame>, ReadError>> {
        let mut ended = false;
        loop {
            let decoded = decode_next(&mut self.codec, self.reader.buffered(), ended)?;
            if let Some((frame, used)) = decoded {
                self.reader.consume(used);
                return Poll::Ready(Ok(Some(frame)));
            }
            if ended {
                return Poll::Ready(Ok(None));
            }
            ended = ready!(self.reader.poll_append(context))? == 0;
        }
    }
}

impl<C: Decoder + Unpin> Stream for Framed<C> {
    type Item = Result<C::Frame, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let frame = ready!(self.poll_frame(context));
        self.failed = frame.is_err();
        Poll::Ready(frame.transpose())
    }
}

impl<C> fmt::Debug for Framed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framed").field("reader", &self.reader).finish_non_exhaustive()
    }
}
