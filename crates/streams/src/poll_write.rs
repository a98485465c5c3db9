//! Writing by poll functions, for the traits of other libraries.
//!
//! Waiting needs a place among the transport's waiters, which a future holds and its drop gives up. A poll
//! function is called by nobody's future, so the writer keeps one while it waits: a [`Wait`] of its own for each
//! clone, boxed, and only when there is no room. What can be said at once costs no allocation.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tulipa_protocols::Flow;

use crate::StreamWriter;

/// What a clone of a writer waits for.
#[derive(Default)]
pub(crate) struct Wait(Option<(Event, Waiting)>);

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Room,
    Flushed,
}

/// Each clone waits for itself.
impl Clone for Wait {
    fn clone(&self) -> Wait {
        Wait::default()
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wait").field(&self.0.as_ref().map(|(event, _)| event)).finish()
    }
}

/// How much one `poll_write` takes at most, so that what waits is bounded by the high limit and this: as
/// [`StreamWriter::write_all`] does.
const MOST_TAKEN: usize = 64 * 1024;

impl StreamWriter {
    /// Takes some of the bytes, when there is room: less than the high limit waits to be sent.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_event(context, Event::Room))?;
        let total = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let (flow, taken) = if total <= MOST_TAKEN {
            (self.write_vectored(pieces), total)
        } else {
            let first =
                pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
            let first = &first[..first.len().min(MOST_TAKEN)];
            (self.write(first), first.len())
        };
        match flow {
            Flow::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Flow::Ready | Flow::Full => Poll::Ready(Ok(taken)),
        }
    }

    /// Waits until everything is sent.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_event(context, Event::Flushed)
    }

    /// Ends our side, and waits until everything is sent.
    pub(crate) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_eof();
        self.poll_event(context, Event::Flushed)
    }

    fn poll_event(&mut self, context: &mut Context<'_>, event: Event) -> Poll<io::Result<()>> {
        let known = self.waiting.0.take().filter(|(known, _)| *known == event);
        let mut future = match (known, self.at_once(context, event)) {
            (_, Some(result)) => return Poll::Ready(result),
            (Some((_, future)), None) => future,
            (None, None) => {
                let writer = self.clone();
                Box::pin(async move { writer.until(event).await })
            }
        };
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            self.waiting.0 = Some((event, future));
        }
        polled
    }

    /// What can be said without waiting, as nearly always. When the connection is over that is everything: who asks
    /// for several things in one step must not be told to come again by each.
    fn at_once(&self, context: &mut Context<'_>, event: Event) -> Option<io::Result<()>> {
        let transport = self.transport();
        if self.has_ended() {
            return Some(match event {
                Event::Room => self.check(),
                Event::Flushed => self.failure().map_or(Ok(()), Err),
            });
        }
        let come = match event {
            Event::Room => {
                let high = transport.get_write_buffer_limits().high;
                transport.get_write_buffer_size() <= high && self.drains_at_once()
            }
            Event::Flushed => pin!(transport.flushed()).poll(context).is_ready(),
        };
        (come && !transport.is_closing()).then_some(Ok(()))
    }

    async fn until(&self, event: Event) -> io::Result<()> {
        match event {
            Event::Room => self.drain().await,
            Event::Flushed => self.flush().await,
        }
    }
}
