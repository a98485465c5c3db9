//! Sending files: `sendfile` on a transport.
//!
//! The problem: the bytes of a file go past the write queue, straight from the file to the link, and take many turns of
//! the loop, while the program may write, close and fail as ever.
//!
//! The trick: the output is held. What was queued before leaves first, as always. What is written from then on
//! goes into a second queue, `behind`, which counts for the flow as the first does and is put in its place when the
//! file is sent, or given up. A hold ends with the future that has it, whatever becomes of that.
//!
//! The future makes the calls itself, in its task, so there is no file in the write queue. When the link takes no more
//! the output is `blocked` as with any write: the driver asks for writability and wakes whoever waits.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::{Bound, RangeBounds};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use tulipa_loop::LoopHandle;

use crate::leaf::Leaf;
use crate::state::{Output, Phase, State, closed, share};
use crate::write_queue::WriteQueue;
use crate::{Link, Transport};

/// What one call asks the operating system to send at most. Larger ones bring nothing, as sockets do not hold more, and a
/// file that is not in memory keeps the loop for as long as one call takes to read it.
pub(crate) const NATIVE_CHUNK: usize = 256 * 1024;

/// How many calls are made in one turn of the loop: 1 MiB, as with reading.
pub(crate) const MOST_CALLS: usize = 4;

/// What is read at once where the program has to: asyncio's 256 KiB.
pub(crate) const FALLBACK_CHUNK: usize = 256 * 1024;

/// The output of a connection while a file is sent.
#[derive(Default)]
pub(crate) struct Hold {
    /// What was written meanwhile.
    behind: Option<Box<WriteQueue>>,
    /// Why the connection has failed meanwhile.
    error: Option<io::Error>,
}

impl State {
    /// Whether a file is being sent.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.output.get(), Output::Held | Output::HeldEnding)
    }

    fn with_hold<R: Default>(&self, change: impl FnOnce(&mut Hold) -> R) -> R {
        if !self.is_held() {
            return R::default();
        }
        self.with_extras(|extras| change(extras.hold.get_or_insert_default()))
    }

    /// How many bytes wait behind a file.
    pub(crate) fn behind(&self) -> usize {
        if !self.is_held() {
            return 0;
        }
        self.with_hold(|hold| hold.behind.as_ref().map_or(0, |behind| behind.size()))
    }

    /// Whether a file waits for the link to take more.
    pub(crate) fn is_file_blocked(&self) -> bool {
        self.is_held() && self.blocked.get()
    }

    /// Whether the next part of a file can be tried.
    pub(crate) fn is_writable_for_file(&self) -> bool {
        self.phase() != Phase::Opening && !self.blocked.get() && !self.has_output()
    }

    /// Takes what is written meanwhile. Gives the size of all that waits.
    pub(crate) fn append_behind(&self, put: impl FnOnce(&mut WriteQueue, &Leaf)) -> usize {
        self.with_hold(|hold| {
            let behind = hold.behind.get_or_insert_with(|| self.leaf.take_queue());
            put(behind, &self.leaf);
            self.queued.get() + behind.size()
        })
    }

    /// Keeps the connection's error for whoever sends a file.
    pub(crate) fn fail_hold(&self) {
        if !self.is_held() {
            return;
        }
        let error = self.take_error();
        self.with_hold(|hold| hold.error = hold.error.take().or_else(|| error.as_ref().map(share)));
        self.error.set(error);
    }

    /// Gives the memory of what was written meanwhile back, at the end of the connection.
    pub(crate) fn clear_hold(&self) {
        if let Some(behind) = self.with_hold(|hold| hold.behind.take()) {
            self.leaf.give_queue(behind);
        }
    }

    fn hold(&self) -> io::Result<()> {
        if !self.accepts_writes() {
            return Err(closed("send a file"));
        }
        if self.is_held() {
            let error = "cannot send a file: another one is being sent";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, error));
        }
        self.output.set(Output::Held);
        self.plain.set(false);
        Ok(())
    }

    /// Lets what was written meanwhile follow.
    fn release(&self) {
        let behind = self.with_hold(|hold| hold.behind.take());
        match self.output.get() {
            Output::Held => self.output.set(Output::Flowing),
            Output::HeldEnding => self.output.set(Output::Ending),
            _ => {}
        }
        self.extras(|extras| extras.hold = None);
        if let Some(behind) = behind {
            let queue = match self.queue.take() {
                None => behind,
                Some(mut first) => {
                    first.append_queue(*behind, &self.leaf);
                    first
                }
            };
            self.queued.set(queue.size());
            self.queue.set(Some(queue));
        }
        self.attend();
    }

    /// One attempt at writing past the queue. `None` is: not now.
    fn write_past(
        &self,
        write: impl FnOnce(&mut dyn Link) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        if !matches!(self.phase(), Phase::Open | Phase::Closing) {
            return Err(self.why_it_ended());
        }
        let result = match self.with_link(write) {
            // A link that panicked has ended the connection.
            None if self.phase() == Phase::Ended => return Err(self.why_it_ended()),
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(result) => result,
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.plain.set(false);
                self.blocked.set(true);
                if self.is_interest_due() {
                    self.attend();
                }
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(error),
            Err(error) => {
                let copy = share(&error);
                let _ = self.broken::<()>(error);
                Err(copy)
            }
            Ok(count) => {
                if self.held_back() > 0 && self.is_interest_due() {
                    self.attend();
                }
                Ok(Some(count))
            }
        }
    }

    fn why_it_ended(&self) -> io::Error {
        let error = self.with_hold(|hold| hold.error.take());
        error.unwrap_or_else(|| closed("send the rest of a file"))
    }
}

/// The held output of a transport.
struct Held<'a>(&'a State);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Transport {
    /// Sends a part of a file, or all of it with `..`, and returns how many bytes that was: fewer than the range has if
    /// the file ends before. Stands for `loop.sendfile`.
    ///
    /// What was written before leaves first. What is written meanwhile waits behind the file and counts for the
    /// flow; so does a [`close`](Self::close) or a [`write_eof`](Self::write_eof). Reading goes on.
    ///
    /// Where the link is a socket or a pipe and the platform has it, the operating system copies the bytes itself.
    /// Otherwise, behind a filter for example, they are read in the loop's executor. The file is read by places, so
    /// others may use it too; afterwards its own position is behind what was sent, as in asyncio.
    ///
    /// # Limits
    /// At most 1 MiB is sent in one turn of the loop. While the operating system copies, a file that is not
    /// in memory is read from the disk on the loop's thread, up to 256 KiB at a time.
    ///
    /// # Errors
    /// A [`SendFileError`] inside of the [`io::Error`], of the same kind, says how much was sent before it.
    /// [`NotConnected`](io::ErrorKind::NotConnected) if nothing can be written any more, or the connection is closed
    /// meanwhile; [`ResourceBusy`](io::ErrorKind::ResourceBusy) while another file is being sent;
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a range that ends before it begins; why the connection
    /// failed, which its protocol is told as well; why the file cannot be read, and then the connection goes on.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the file cut off where it was, its position telling where, and lets follow what
    /// was written meanwhile.
    ///
    /// # Panics
    /// Outside of a running loop, if the bytes have to be read in the executor.
    pub async fn sendfile(
        &self,
        file: &impl AsFd,
        range: impl RangeBounds<u64>,
    ) -> io::Result<u64> {
        let (file, range) = (file.as_fd(), Part::of(range)?);
        self.state.hold()?;
        let held = Held(&self.state);
        let mut progress = Progress::begin(file, range);
        let result = self.send_part(&mut progress).await;
        let sent = progress.end();
        drop(held);
        result.map_err(|error| SendFileError::with(sent, error))?;
        Ok(sent)
    }

    async fn send_part(&self, progress: &mut Progress<'_>) -> io::Result<()> {
        let mut calls = 0;
        loop {
            self.writable_for_file().await;
            let (file, place, count) =
                (progress.file, progress.place(), progress.next(NATIVE_CHUNK));
            if count == 0 {
                return Ok(());
            }
            match self.state.write_past(|link| link.send_file(file, place, count)) {
                Ok(None) => {}
                Ok(Some(0)) => return Ok(()),
                Ok(Some(count)) => {
                    progress.add(count);
                    calls = pause(calls + 1).await;
                }
                Err(error) if error.kind() == io::ErrorKind::Unsupported => break,
                Err(error) => return Err(error),
            }
        }
        let mut reader = Reader::new(progress.file)?;
        loop {
            let (place, count) = (progress.place(), progress.next(FALLBACK_CHUNK));
            let piece = reader.read(place, count).await?;
            if piece.is_empty() {
                return Ok(());
            }
            let mut rest = piece;
            while !rest.is_empty() {
                self.writable_for_file().await;
                let pieces = [IoSlice::new(rest)];
                match self.state.write_past(|link| link.write(&pieces))? {
                    None => {}
                    Some(0) => {
                        let _ = self.state.broken::<()>(io::ErrorKind::WriteZero.into());
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                    Some(count) => {
                        progress.add(count);
                        rest = &rest[count..];
                    }
                }
            }
        }
    }
}

/// Lets others run after so many calls.
pub(crate) async fn pause(calls: usize) -> usize {
    if calls < MOST_CALLS {
        return calls;
    }
    tulipa_loop::yield_now().await;
    0
}

/// Which part of a file.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    start: u64,
    /// One past the last byte.
    end: u64,
}

impl Part {
    pub(crate) fn of(range: impl RangeBounds<u64>) -> io::Result<Part> {
        let start = match range.start_bound() {
            Bound::Unbounded => 0,
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
        };
        let end = match range.end_bound() {
            Bound::Unbounded => u64::MAX,
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
        };
        if end < start {
            let error =
                format!("cannot send a file from {start} to {end}: it ends before it begins");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        Ok(Part { start: start.min(LAST_PLACE), end: end.min(LAST_PLACE) })
    }
}

/// The operating system's offsets are signed.
const LAST_PLACE: u64 = i64::MAX.unsigned_abs();

/// How far a file was sent. At the end, however it comes, the file's own position is set there.
pub(crate) struct Progress<'a> {
    pub(crate) file: BorrowedFd<'a>,
    part: Part,
    sent: u64,
}

impl<'a> Progress<'a> {
    pub(crate) fn begin(file: BorrowedFd<'a>, part: Part) -> Progress<'a> {
        Progress { file, part, sent: 0 }
    }

    pub(crate) fn place(&self) -> u64 {
        self.part.start + self.sent
    }

    /// How much is to be sent next.
    pub(crate) fn next(&self, most: usize) -> usize {
        usize::try_from(self.part.end - self.place()).unwrap_or(usize::MAX).min(most)
    }

    pub(crate) fn add(&mut self, count: usize) {
        self.sent += count as u64;
        debug_assert!(self.place() <= self.part.end, "no more is sent than was asked for");
    }

    pub(crate) fn end(self) -> u64 {
        self.sent
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        // What has no position could not be read either.
        let _ = rustix::fs::seek(self.file, SeekFrom::Start(self.place()));
    }
}

/// Reads a file in the executor.
pub(crate) struct Reader {
    file: Arc<OwnedFd>,
    buffer: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(file: BorrowedFd<'_>) -> io::Result<Reader> {
        Ok(Reader { file: Arc::new(file.try_clone_to_owned()?), buffer: Vec::new() })
    }

    /// Reads up to so many bytes from a place. None at the end of the file, or if none are asked for.
    pub(crate) async fn read(&mut self, place: u64, count: usize) -> io::Result<&[u8]> {
        if count == 0 {
            return Ok(&[]);
        }
        let (file, mut buffer) = (self.file.clone(), std::mem::take(&mut self.buffer));
        buffer.resize(count, 0);
        let job = LoopHandle::current().run_in_executor(None, move || {
            let read = crate::link::retry(|| rustix::io::pread(&*file, &mut buffer[..], place));
            (buffer, read)
        });
        let (buffer, read) = job.await.map_err(|error| io::Error::other(error.to_string()))?;
        self.buffer = buffer;
        let count = read.map_err(|error| crate::socket::describe(error, "cannot read the file"))?;
        Ok(&self.buffer[..count])
    }
}

/// Lets the operating system send a part of a file, where it can.
pub(crate) fn native(
    target: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mut offset = offset;
        let sent =
            crate::link::retry(|| rustix::fs::sendfile(target, file, Some(&mut offset), count));
        sent.map_err(|error| if is_about_the_file(&error) { UNSUPPORTED.into() } else { error })
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (target, file, offset, count, is_about_the_file);
        Err(UNSUPPORTED.into())
    }
}

const UNSUPPORTED: io::ErrorKind = io::ErrorKind::Unsupported;

/// Whether it is not the peer why a file cannot be sent: reading it says what it is.
fn is_about_the_file(error: &io::Error) -> bool {
    let about_the_file = [
        Errno::INVAL,
        Errno::NOSYS,
        Errno::OPNOTSUPP,
        Errno::OVERFLOW,
        Errno::SPIPE,
        Errno::IO,
        Errno::BADF,
        Errno::ISDIR,
        Errno::PERM,
        Errno::NOMEM,
    ];
    Errno::from_io_error(error).is_some_and(|errno| about_the_file.contains(&errno))
}

/// Why a file was not sent to its end. It is inside of the [`io::Error`] that [`Transport::sendfile`] and
/// [`sock_sendfile`](crate::sock_sendfile) return.
#[derive(Debug)]
#[non_exhaustive]
pub struct SendFileError {
    /// How many bytes were sent before.
    pub sent: u64,
    /// Why no more were.
    pub error: io::Error,
}

impl SendFileError {
    pub(crate) fn with(sent: u64, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), SendFileError { sent, error })
    }
}

impl fmt::Display for SendFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a file was cut off after {} bytes: {}", self.sent, self.error)
    }
}

impl std::error::Error for SendFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
