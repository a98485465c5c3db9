//! What the program holds of a connection.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::driver::successor;
use crate::leaf::Lent;
use crate::output::WriteBufferLimits;
use crate::state::{Input, Phase, State, closed};
use crate::{Address, Filter, Protocol};

/// What a write says of the flow. It may be ignored: a protocol is told by
/// [`pause_writing`](crate::Protocol::pause_writing) too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Go on.
    Ready,
    /// It was taken, but more than the high limit waits now: better wait.
    Full,
    /// It was dropped: the connection is closed, closing, has failed, or its output has been ended.
    Closed,
}

/// A connection's byte stream. Clones are the same transport: protocols, tasks and streams may all have
/// one. Stands for `asyncio.Transport`.
///
/// Every method may be called in every state and from anywhere on the loop's thread, any callback included. None
/// calls the program's code: what has to be told is told by the loop later.
///
/// | | open | closing, or its writes have failed | over |
/// |---|---|---|---|
/// | [`write`](Self::write) and its kin | takes all | [`Flow::Closed`], drops it | the same |
/// | `write` after [`write_eof`](Self::write_eof) | [`Flow::Closed`], drops it | the same | the same |
/// | [`write_eof`](Self::write_eof) | ends the output when all is written | nothing | nothing |
/// | [`close`](Self::close) | begins to close | nothing; ends one whose writes have failed | nothing |
/// | [`abort`](Self::abort), [`reset`](Self::reset) | ends | ends | nothing |
/// | [`pause_reading`](Self::pause_reading), [`resume_reading`](Self::resume_reading) | does so, unless the peer has ended its side | nothing | nothing |
/// | [`is_reading`](Self::is_reading) | unless paused or the peer has ended its side | `false` | `false` |
/// | [`is_closing`](Self::is_closing) | `false` | `true` | `true` |
/// | [`get_write_buffer_size`](Self::get_write_buffer_size) | what waits | what waits; 0 once writes have failed | 0 |
/// | [`try_read`](Self::try_read) | reads, or `WouldBlock` | error, `NotConnected`; reads on when writes have failed | error, `NotConnected` |
/// | [`set_protocol`](Self::set_protocol) | does so | does so: the new one is told the end | drops it |
/// | [`upgrade`](Self::upgrade) | does so | error, `NotConnected` | the same |
/// | [`set_timeout`](Self::set_timeout), limits | does so | does so | nothing |
/// | addresses | from the socket | from the socket | as they were |
///
/// While a handshake goes on (the transport is opening) it is as if open, but nothing is read and what is
/// written waits; `close` then is as `abort`, with an error if something was written, and there can be no `upgrade`.
///
/// # Order
/// Bytes go out in the order of the writes. Those of one callback or task step leave together when it
/// returns; more than the high limit leaves at once.
#[derive(Clone)]
pub struct Transport {
    pub(crate) state: Rc<State>,
}

impl Transport {
    /// Writes bytes: sends or queues them, and returns at once. Stands for `write`.
    pub fn write(&self, data: &[u8]) -> Flow {
        self.state.write_piece(data)
    }

    /// Writes several pieces, any number of them, as one. Stands for `writelines`.
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> Flow {
        self.state.write(pieces)
    }

    /// Writes bytes without copying them, if they are 1 KiB or more.
    pub fn write_bytes(&self, data: Bytes) -> Flow {
        self.state.write_bytes(data)
    }

    /// Ends our side when all is written; reading goes on. When both sides have ended the connection is
    /// over. Stands for `write_eof`.
    pub fn write_eof(&self) {
        self.state.write_eof();
    }

    /// Stops reading, writes what is queued, and ends the connection. Stands for `close`.
    pub fn close(&self) {
        self.state.close();
    }

    /// Ends the connection and drops what is queued. Stands for `abort`.
    pub fn abort(&self) {
        self.state.end(None);
    }

    /// As [`abort`](Self::abort), and makes the peer see a reset instead of an end, where there is such a thing.
    pub fn reset(&self) {
        self.state.reset();
    }

    /// Whether the connection is closing or over. Stands for `is_closing`.
    pub fn is_closing(&self) -> bool {
        !matches!(self.state.phase(), Phase::Opening | Phase::Open)
    }

    /// Makes no more bytes come, not even those that are known to be there. Doing it twice is doing it
    /// once. Stands for `pause_reading`.
    pub fn pause_reading(&self) {
        if self.state.input.get() == Input::Flowing && !self.is_closing() {
            self.state.input.set(Input::Paused);
            self.state.attend();
        }
    }

    /// Makes bytes come again. Stands for `resume_reading`.
    pub fn resume_reading(&self) {
        if self.state.input.get() == Input::Paused && !self.is_closing() {
            self.state.input.set(Input::Flowing);
            self.state.attend();
        }
    }

    /// Whether bytes may come. Stands for `is_reading`.
    pub fn is_reading(&self) -> bool {
        self.state.input.get() == Input::Flowing && !self.is_closing()
    }

    /// How many bytes wait to be written, those in a filter included. Stands for
    /// `get_write_buffer_size`.
    pub fn get_write_buffer_size(&self) -> usize {
        self.state.buffered()
    }

    /// Whether the connection is open and no more than the high limit waits: what is written now is sent as soon
    /// as the peer takes it.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.state.has_room()
    }

    /// Sets the sizes, in bytes, above which writing is paused and at which it is resumed: 64 KiB and 16 KiB at
    /// first. It takes effect at once: a protocol may be told to pause or to resume. Stands for
    /// `set_write_buffer_limits`.
    ///
    /// # Panics
    /// If `low` is above `high`.
    #[track_caller]
    pub fn set_write_buffer_limits(&self, limits: WriteBufferLimits) {
        let WriteBufferLimits { low, high } = limits;
        assert!(low <= high, "the low limit ({low}) must not be above the high one ({high})");
        self.state.set_limits(limits);
    }

    /// The limits in use. Stands for `get_write_buffer_limits`.
    pub fn get_write_buffer_limits(&self) -> WriteBufferLimits {
        self.state.limits()
    }

    /// Ends the connection with an error when more than so many bytes wait, for programs that write
    /// without looking at the flow. Without it (`None`, as at first) what waits is bounded by memory.
    pub fn set_max_write_buffer(&self, cap: Option<usize>) {
        self.state.set_cap(cap);
    }

    /// Calls [`Protocol::timed_out`] when the time is over, unless this is called again before: a new
    /// time begins then, or none with `None`. Calling it for every message costs a reading of the clock.
    /// Begins at the end of the callback or task step at hand.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.state.with_extras(|extras| extras.timeout = Some(timeout));
        self.state.attend();
    }

    /// Reads what is there: for protocols that are pulled from. 0 is the end of the input.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is known to be there: [`Protocol::readable`]
    /// tells when that changes. [`NotConnected`](io::ErrorKind::NotConnected) when the connection is closed.
    /// Others have ended the connection.
    #[inline]
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.state.try_read(buffer)
    }

    /// Whether [`try_read`](Self::try_read) would do anything but say that it would block, as far as is known.
    pub fn is_readable(&self) -> bool {
        self.state.is_readable()
    }

    /// Reads once into the loop's own buffer of 256 KiB and gives what came, one byte or more, to `take`;
    /// `None` if nothing did. A receiver that has stopped in the middle of what came, because reading was paused, is
    /// given nothing first, and goes on with what it keeps.
    pub fn read_with<R>(&self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if !self.state.is_plain() && self.state.take_kept() {
            return Some(take(&[]));
        }
        let mut lent = Lent::of(&self.state.leaf);
        let buffer = lent.buffer();
        // The state remembers an error, and ends the connection with it.
        let count = self.state.try_read(buffer).unwrap_or(0);
        if count == 0 { None } else { Some(take(&buffer[..count])) }
    }

    /// Puts another protocol in the place of the present one, which is dropped without being told anything; the new one is not
    /// told what the old one was told before, but all that follows. `leftover` is what the old one was given
    /// and did not use: it comes first. Stands for `set_protocol`.
    pub fn set_protocol<P: Protocol + 'static>(&self, protocol: P, leftover: &[u8]) {
        if self.state.phase() == Phase::Ended {
            return;
        }
        // What the old one keeps goes with it, unless it is left over.
        self.state.extras(|extras| extras.kept = false);
        self.state.unread(leftover);
        let successor = successor(protocol);
        let old = self.state.with_extras(|extras| extras.successor.replace(successor));
        self.state.attend();
        drop(old);
    }

    /// Puts a filter between this transport and the peer, a TLS engine for example. What was written before goes out as it is;
    /// what is written from now on, and all that comes, goes through the filter. `leftover` is what was received and
    /// not used: the filter gets it first, so nothing that came in clear is taken for protected.
    ///
    /// Until the filter is open nothing is read and what is written waits. A filter that fails ends the connection.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) if the connection is not open, or its output has been
    /// ended; the filter is dropped.
    pub fn upgrade(&self, filter: impl Filter + 'static, leftover: &[u8]) -> io::Result<()> {
        self.state.upgrade(Box::new(filter), leftover)
    }

    /// The peer's address, also when the connection is over. Stands for `get_extra_info('peername')`.
    pub fn peer_addr(&self) -> Option<Address> {
        self.address(|extras| &mut extras.peer, |link| link.peer_addr())
    }

    /// Our address, also when the connection is over. Stands for `get_extra_info('sockname')`.
    pub fn local_addr(&self) -> Option<Address> {
        self.address(|extras| &mut extras.local, |link| link.local_addr())
    }

    fn address(
        &self,
        place: impl Fn(&mut crate::state::Extras) -> &mut Option<Address>,
        ask: impl FnOnce(&dyn crate::Link) -> Option<Address>,
    ) -> Option<Address> {
        if let Some(known) = self.state.extras(|extras| place(extras).clone()) {
            return Some(known);
        }
        let address = self.state.with_link(|link| ask(link)).flatten()?;
        self.state.with_extras(|extras| *place(extras) = Some(address.clone()));
        Some(address)
    }

    /// Lends the socket, to set options of it.
    ///
    /// ```no_run
    /// # fn example(transport: &tulipa_protocols::Transport) -> std::io::Result<()> {
    /// transport.with_fd(|fd| socket2::SockRef::from(&fd).set_recv_buffer_size(1 << 20))?
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) when the connection is over;
    /// [`Unsupported`](io::ErrorKind::Unsupported) if it has no descriptor.
    pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        // A duplicate, so that nothing is borrowed while the program's code runs.
        let copied = self.state.with_link(|link| link.fd().map(|fd| fd.try_clone_to_owned()));
        let Some(copied) = copied else { return Err(closed("use its socket")) };
        let Some(copied) = copied else {
            let error = "the transport has no descriptor";
            return Err(io::Error::new(io::ErrorKind::Unsupported, error));
        };
        let copied = copied?;
        Ok(f(std::os::fd::AsFd::as_fd(&copied)))
    }

    /// What is known of the connection by name: `peername` and `sockname` (an [`Address`]), and what
    /// filters tell. Stands for `get_extra_info`.
    pub fn get_extra_info(&self, name: &str) -> Option<Rc<dyn Any>> {
        match name {
            "peername" => self.peer_addr().map(|address| Rc::new(address) as Rc<dyn Any>),
            "sockname" => self.local_addr().map(|address| Rc::new(address) as Rc<dyn Any>),
            name => self.state.extra_info(name),
        }
    }
}

/// Two are equal if they are the same connection.
impl PartialEq for Transport {
    fn eq(&self, other: &Transport) -> bool {
        Rc::ptr_eq(&self.state, &other.state)
    }
}

impl Eq for Transport {}

impl Hash for Transport {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        Rc::as_ptr(&self.state).cast::<()>().hash(hasher);
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read before it is written: the writer is the program's.
        let (state, peer) = (&*self.state, self.peer_addr());
        let (phase, input, output) = (state.phase(), state.input.get(), state.output.get());
        let waiting = state.buffered();
        write!(f, "<Transport {phase:?} peer=")?;
        match peer {
            Some(peer) => write!(f, "{peer}")?,
            None => write!(f, "unknown")?,
        }
        write!(f, " input={input:?} output={output:?} waiting={waiting}>")
    }
}
