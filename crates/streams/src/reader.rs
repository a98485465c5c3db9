//! The reading half.
//!
//! A reader asks the transport for bytes when it needs them, and no sooner: there is no buffer behind its
//! back. What was read and not given out yet is in `buffer`, which the reader has only while that is not
//! empty; a reader that waits for input has none. Every future here keeps what it has read in there, so
//! dropping it loses nothing.
//!
//! What is lent (`-> &[u8]`) stays in the buffer until the next call, which takes it off: `lent`.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tulipa_protocols::{Protocol, Transport};

use crate::shared::{CHUNK, Halves, Shared};
use crate::{IncompleteRead, LimitOverrun, ReadError, StreamWriter};

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;

/// The reading half of a connection. Stands for `asyncio.StreamReader`.
///
/// When both halves are dropped the connection is closed. There is one reader: its methods take `&mut`,
/// so asyncio's "another coroutine is already waiting" cannot happen.
///
/// # Limits
/// What the separator methods look through is bounded by the [limit](Self::limit), 64 KiB unless said
/// otherwise. Nothing is read ahead of what is asked for but the rest of one read.
///
/// # Cancel safety
/// All methods: bytes that were not returned stay in the reader.
pub struct StreamReader {
    halves: Rc<Halves>,
    shared: Rc<Shared>,
    buffer: Buffer,
    limit: usize,
    /// How much at the front of the buffer was lent and is taken off by the next call.
    lent: usize,
    /// How much after that was searched without finding what is `sought`.
    searched: usize,
    /// What that was: the separators, each behind its length; nothing for the end of a line. Boxed, as most readers
    /// are asked for lines or for bytes.
    #[expect(clippy::box_collection, reason = "it is small while it is not there")]
    sought: Option<Box<Vec<u8>>>,
    ended: bool,
}

/// Bytes in the middle of a vector, all of which is initialised.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    /// Room for `count` bytes or more behind the data.
    fn room(&mut self, count: usize, shared: &Shared) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = shared.pool.take();
        }
        if self.bytes.len() - self.end < count && self.start > 0 {
            #[cfg(test)]
            tests::moved(self.len());
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.len() - self.end < count {
            let wanted = (self.end + count).max(self.bytes.len() * 2);
            self.bytes.resize(wanted, 0);
        }
        &mut self.bytes[self.end..]
    }

    fn consume(&mut self, count: usize, shared: &Shared) {
        self.start += count;
        debug_assert!(self.start <= self.end, "no more can be consumed than is there");
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if !self.bytes.is_empty() {
                shared.pool.give(std::mem::take(&mut self.bytes));
            }
        }
    }
}

impl StreamReader {
    pub(crate) fn new(halves: Rc<Halves>, shared: Rc<Shared>, limit: usize) -> StreamReader {
        let buffer = Buffer::default();
        let (lent, searched, sought) = (0, 0, None);
        StreamReader { halves, shared, buffer, limit, lent, searched, sought, ended: false }
    }

    /// How many bytes the separator methods look through at most.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The transport below.
    pub fn transport(&self) -> &Transport {
        &self.halves.transport
    }

    /// Whether the peer has ended its side and everything was read. Stands for `at_eof`.
    pub fn at_eof(&self) -> bool {
        self.ended && self.buffer.len() == self.lent
    }

    /// What was read and not given out yet, without waiting.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer.data()[self.lent..]
    }

    /// Reads one byte or more into `buffer`, as soon as there is any; 0 at the end, or if `buffer` is
    /// empty. Stands for `read(n)`.
    ///
    /// # Errors
    /// Why the connection failed, when all that came before was read.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, buffer)).await
    }

    /// The same as a poll function.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.take_lent();
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.buffer.len() == 0 && buffer.len() < SMALL_READ {
            ready!(self.poll_more(context, CHUNK))?;
            if self.buffer.len() == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        let data = self.buffer.data();
        if !data.is_empty() {
            let count = data.len().min(buffer.len());
            buffer[..count].copy_from_slice(&data[..count]);
            self.consume(count);
            return Poll::Ready(Ok(count));
        }
        poll_input(&self.halves.transport, &self.shared, &mut self.ended, context, buffer)
    }

    /// Lends what is there: what was read already, or what one more read gives; nothing at the end.
    /// [`consume`](Self::consume) says how much of it was used; what was not comes again.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn fill(&mut self) -> io::Result<&[u8]> {
        poll_fn(|context| self.poll_fill(context)).await?;
        Ok(self.buffer.data())
    }

    /// Makes sure that there is something in the buffer, unless the input has ended.
    pub(crate) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.take_lent();
        if self.buffer.len() > 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_more(context, CHUNK).map_ok(|_| ())
    }

    /// Takes bytes off the front of what [`fill`](Self::fill) lent, or of what is
    /// [buffered](Self::buffered).
    ///
    /// # Panics
    /// If those are not so many.
    #[track_caller]
    pub fn consume(&mut self, count: usize) {
        self.take_lent();
        assert!(count <= self.buffer.len(), "only what was lent can be consumed");
        self.searched = self.searched.saturating_sub(count);
        self.buffer.consume(count, &self.shared);
    }

    /// Reads exactly as many bytes as `buffer` has room for. Stands for `readexactly`.
    ///
    /// # Errors
    /// [`ReadError::Incomplete`] with what came, if the input ends before; that is then read.
    ///
    /// # Cancel safety
    /// Nothing is lost: what has come waits in the reader.
    pub async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        let lent = self.lend_exact(buffer.len()).await?;
        buffer.copy_from_slice(lent);
        Ok(())
    }

    /// Lends exactly `count` bytes, which are read with that. The limit does not count here: the program
    /// has named the size.
    ///
    /// # Errors
    /// As [`read_exact`](Self::read_exact).
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn lend_exact(&mut self, count: usize) -> Result<&[u8], ReadError> {
        self.take_lent();
        while self.buffer.len() < count {
            let missing = count - self.buffer.len();
            if self.more(missing.max(CHUNK)).await? == 0 {
                let partial = self.take_all();
                return Err(IncompleteRead { partial, expected: Some(count) }.into());
            }
        }
        Ok(self.lend(count))
    }

    /// Lends everything up to and including `separator`, which is read with that. Stands for `readuntil`.
    ///
    /// # Errors
    /// - [`ReadError::Incomplete`] with what came, if the input ends before; that is then read.
    /// - [`ReadError::LimitOverrun`] if there are more bytes before the separator than the
    ///   [limit](Self::limit); they stay in the reader, and `consumed` says how many can be
    ///   [consumed](Self::consume) without losing the beginning of a separator.
    /// - [`ReadError::Io`] as [`read`](Self::read); of the kind
    ///   [`InvalidInput`](io::ErrorKind::InvalidInput) if the separator is empty.
    ///
    /// # Cancel safety
    /// Nothing is lost, and nothing is searched twice.
    pub async fn read_until(&mut self, separator: &[u8]) -> Result<&[u8], ReadError> {
        self.read_until_any(&[separator]).await
    }

    /// The same with several separators: the one that ends first counts.
    ///
    /// # Errors
    /// As [`read_until`](Self::read_until); also if there are no separators.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn read_until_any(&mut self, separators: &[&[u8]]) -> Result<&[u8], ReadError> {
        self.take_lent();
        let longest = separators.iter().map(|separator| separator.len()).max().unwrap_or(0);
        if separators.iter().any(|separator| separator.is_empty()) || longest == 0 {
            let error = "a separator must have at least one byte";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error).into());
        }
        let sought = self.sought.as_ref().map_or(&[][..], |sought| sought);
        if self.searched > 0 && !spelled(separators).eq(sought.iter().copied()) {
            // That was for something else, and was given up.
            self.searched = 0;
        }
        loop {
            // The separator may have begun in what was searched before.
            let from = self.searched.saturating_sub(longest - 1);
            if let Some((start, end)) = find_first_end(self.buffer.data(), from, separators) {
                if start > self.limit {
                    return Err(LimitOverrun { consumed: start, limit: self.limit }.into());
                }
                return Ok(self.lend(end));
            }
            if self.searched == 0 {
                let sought = self.sought.get_or_insert_default();
                sought.clear();
                sought.extend(spelled(separators));
            }
            self.searched = self.buffer.len();
            let sure = self.buffer.len().saturating_sub(longest - 1);
            if sure > self.limit {
                return Err(LimitOverrun { consumed: sure, limit: self.limit }.into());
            }
            if self.more(CHUNK).await? == 0 {
                let partial = self.take_all();
                return Err(IncompleteRead { partial, expected: None }.into());
            }
        }
    }

    /// Lends the next line with its `\n`; at the end what is left, without one; then nothing. Stands for
    /// `readline`.
    ///
    /// # Errors
    /// [`ReadError::LimitOverrun`] if the line is longer than the [limit](Self::limit). What was read of it is
    /// dropped, with its end if that has come, so that the next call goes on behind it. Others as
    /// [`read`](Self::read).
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn read_line(&mut self) -> Result<&[u8], ReadError> {
        let found = poll_fn(|context| self.poll_line(context)).await;
        self.lend_line(found)
    }

    /// The same as a poll function.
    pub(crate) fn poll_read_line(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<&[u8], ReadError>> {
        let found = ready!(self.poll_line(context));
        Poll::Ready(self.lend_line(found))
    }

    fn lend_line(&mut self, found: Result<usize, ReadError>) -> Result<&[u8], ReadError> {
        match found {
            Ok(length) => Ok(self.lend(length)),
            Err(ReadError::LimitOverrun(error)) => {
                let line = memchr::memchr(b'\n', self.buffer.data());
                let count = line.map_or(self.buffer.len(), |end| end + 1);
                self.consume(count);
                Err(error.into())
            }
            Err(error) => Err(error),
        }
    }

    /// The length of the next line.
    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        self.take_lent();
        if let Some(sought) = self.sought.as_mut().filter(|sought| !sought.is_empty()) {
            sought.clear();
            self.searched = 0;
        }
        loop {
            let data = self.buffer.data();
            let found = memchr::memchr(b'\n', &data[self.searched..]);
            #[cfg(test)]
            tests::searched(found.map_or(data.len() - self.searched, |place| place + 1));
            if let Some(place) = found {
                let start = self.searched + place;
                if start > self.limit {
                    return Poll::Ready(Err(
                        LimitOverrun { consumed: start, limit: self.limit }.into()
                    ));
                }
                return Poll::Ready(Ok(start + 1));
            }
            self.searched = data.len();
            if self.searched > self.limit {
                let error = LimitOverrun { consumed: self.searched, limit: self.limit };
                return Poll::Ready(Err(error.into()));
            }
            match self.poll_more(context, CHUNK) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(self.buffer.len())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Reads everything until the end. Stands for `read(-1)`, with a bound.
    ///
    /// # Errors
    /// [`ReadError::LimitOverrun`] if there is more than `most`; what was read stays in the reader. Others
    /// as [`read`](Self::read).
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn read_to_end(&mut self, most: usize) -> Result<Vec<u8>, ReadError> {
        self.take_lent();
        loop {
            if self.buffer.len() > most {
                let error = LimitOverrun { consumed: self.buffer.len(), limit: most };
                return Err(error.into());
            }
            if self.more(CHUNK).await? == 0 {
                return Ok(self.take_all());
            }
        }
    }

    /// Hands the connection to a protocol; what was read and not given out comes to it first. The writer
    /// is taken as well; other clones of it still write, and no longer close anything.
    ///
    /// # Panics
    /// If the writer is of another connection.
    #[track_caller]
    pub fn into_protocol<P: Protocol + 'static>(
        mut self,
        writer: StreamWriter,
        protocol: P,
    ) -> Transport {
        let transport = self.halves.transport.clone();
        assert!(Rc::ptr_eq(&self.halves, writer.halves()), "both halves must be of one connection");
        self.halves.give_away();
        transport.set_protocol(protocol, self.unused());
        self.forget_unused();
        transport
    }

    /// What was read and not given out, in front of what comes.
    pub(crate) fn unused(&mut self) -> &[u8] {
        self.take_lent();
        let count = self.shared.rescued_len();
        if count > 0 {
            let place = &mut self.buffer.room(count, &self.shared)[..count];
            self.shared.take_rescued(place);
            self.buffer.end += count;
        }
        self.buffer.data()
    }

    pub(crate) fn forget_unused(&mut self) {
        self.searched = 0;
        self.buffer.consume(self.buffer.len(), &self.shared);
    }

    /// Reads once more, behind what is in the buffer, and gives how many bytes that were; 0 is the end.
    async fn more(&mut self, room: usize) -> io::Result<usize> {
        poll_fn(|context| self.poll_more(context, room)).await
    }

    /// The same as a poll function, behind what is [buffered](Self::buffered).
    pub(crate) fn poll_append(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.take_lent();
        self.poll_more(context, CHUNK)
    }

    fn poll_more(&mut self, context: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let place = self.buffer.room(room.min(LARGEST_READ), &self.shared);
        let polled =
            poll_input(&self.halves.transport, &self.shared, &mut self.ended, context, place);
        if let Poll::Ready(Ok(count)) = polled {
            self.buffer.end += count;
        }
        if self.buffer.len() == 0 {
            // Nobody keeps a buffer while waiting, or at the end.
            self.buffer.consume(0, &self.shared);
        }
        polled
    }

    fn take_lent(&mut self) {
        if self.lent > 0 {
            let lent = std::mem::take(&mut self.lent);
            self.buffer.consume(lent, &self.shared);
        }
    }

    fn lend(&mut self, count: usize) -> &[u8] {
        self.searched = 0;
        self.lent = count;
        &self.buffer.data()[..count]
    }

    /// What the buffer has, which is read with that.
    fn take_all(&mut self) -> Vec<u8> {
        let all = self.buffer.data().to_vec();
        self.searched = 0;
        self.buffer.consume(all.len(), &self.shared);
        all
    }
}

/// No single read is larger than this, however much was asked for: the buffer grows with what comes, not
/// with what a peer announces.
const LARGEST_READ: usize = 256 * 1024;

/// Who reads less than this at a time is given it from a buffer: a copy costs less than a system call for each few
/// bytes.
const SMALL_READ: usize = 64;

/// Reads from the transport, or waits until there is something.
fn poll_input(
    transport: &Transport,
    shared: &Shared,
    ended: &mut bool,
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    if *ended {
        return Poll::Ready(Ok(0));
    }
    let rescued = shared.take_rescued(buffer);
    if rescued > 0 {
        return Poll::Ready(Ok(rescued));
    }
    if !transport.is_readable() {
        shared.wait_for_input(context);
        return Poll::Pending;
    }
    match transport.try_read(buffer) {
        Ok(count) => {
            *ended = count == 0;
            return Poll::Ready(Ok(count));
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) if !shared.has_ended() && error.kind() != io::ErrorKind::NotConnected => {
            return Poll::Ready(Err(error));
        }
        Err(_) if shared.has_ended() => {
            return Poll::Ready(match shared.failure() {
                Some(error) => Err(error),
                None => {
                    *ended = true;
                    Ok(0)
                }
            });
        }
        // Closing: what becomes of it is known when it is closed.
        Err(_) => {}
    }
    shared.wait_for_input(context);
    Poll::Pending
}

/// The separators in a form in which no two lists of them are the same.
fn spelled(separators: &[&[u8]]) -> impl Iterator<Item = u8> {
    separators.iter().flat_map(|separator| {
        separator.len().to_ne_bytes().into_iter().chain(separator.iter().copied())
    })
}

/// The separator that ends first, at or after `from`: where it starts and where it ends.
pub(crate) fn find_first_end(
    data: &[u8],
    from: usize,
    separators: &[&[u8]],
) -> Option<(usize, usize)> {
    tulipa_protocols::__private::find_first_end(data, from, separators, |_count| {
        #[cfg(test)]
        tests::searched(_count);
    })
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader")
            .field("transport", &self.halves.transport)
            .field("buffered", &self.buffered().len())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
