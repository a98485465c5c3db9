//! hyper's traits: its connections run over our streams, on our loop and by our clock.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Executor, Read, ReadBufCursor, Sleep, Timer, Write};
use tulipa_loop::{LoopBound, LoopHandle, sleep, sleep_until, spawn};

use crate::{ReadWrite, SendReadWrite, StreamReader};

fn poll_read(
    reader: &mut StreamReader,
    context: &mut Context<'_>,
    mut cursor: ReadBufCursor<'_>,
) -> Poll<io::Result<()>> {
    if cursor.remaining() == 0 {
        return Poll::Ready(Ok(()));
    }
    ready!(reader.poll_fill(context))?;
    let data = reader.buffered();
    let count = data.len().min(cursor.remaining());
    cursor.put_slice(&data[..count]);
    reader.consume(count);
    Poll::Ready(Ok(()))
}

impl Read for StreamReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        poll_read(self.get_mut(), context, cursor)
    }
}

impl Read for ReadWrite {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        poll_read(&mut self.get_mut().reader, context, cursor)
    }
}

/// Shutting down ends our side, as [`StreamWriter::write_eof`](crate::StreamWriter::write_eof).
impl Write for ReadWrite {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().writer.poll_write(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().writer.poll_write(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().writer.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().writer.poll_end(context)
    }
}

impl Read for SendReadWrite {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Read::poll_read(self.home(), context, cursor)
    }
}

impl Write for SendReadWrite {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write(self.home(), context, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write_vectored(self.home(), context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(self.home(), context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_shutdown(self.home(), context)
    }
}

/// hyper's executor: it spawns tasks on the running loop. They need not be `Send`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopExecutor;

impl<F: Future<Output: 'static> + 'static> Executor<F> for LoopExecutor {
    fn execute(&self, future: F) {
        // Detached: hyper waits for it by other means.
        drop(spawn(future));
    }
}

/// hyper's timer: the clock of the running loop, which in tests may be a virtual one.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopTimer;

impl Timer for LoopTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(BoundSleep(Box::pin(LoopBound::new(sleep(duration)))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(BoundSleep(Box::pin(LoopBound::new(sleep_until(deadline)))))
    }

    fn now(&self) -> Instant {
        LoopHandle::current().time()
    }
}

/// hyper wants its sleeps to be `Send`.
struct BoundSleep(Pin<Box<LoopBound<tulipa_loop::Sleep>>>);

impl Future for BoundSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl Sleep for BoundSleep {}

impl fmt::Debug for BoundSleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundSleep").finish_non_exhaustive()
    }
}
