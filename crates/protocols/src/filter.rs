//! Filters: what stands between a transport and its link, and changes the bytes. TLS is one.

use std::any::Any;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use tulipa_selector::Source;

use crate::{Address, Bell, Direction, Link};

/// Bytes in, bytes out, and no input or output of its own: what a TLS engine is to a socket.
///
/// A filter is put into a running transport with [`Transport::upgrade`](crate::Transport::upgrade), or in front of
/// a link from the start with [`Filtered`]. Its
/// methods are called one at a time with nothing borrowed, so it may call the program's code (a
/// verifier of certificates), and that may use the transport: what it writes waits.
///
/// On an error the connection ends with it, after what [`transmit`](Self::transmit) gives (an alert) was
/// sent as far as possible.
pub trait Filter {
    /// Where it stands. While it is handshaking the program's bytes wait.
    fn state(&self) -> FilterState;

    /// Takes bytes from the peer: all of them, also while plaintext waits to be read.
    ///
    /// # Errors
    /// The peer's fault.
    fn receive(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The peer's bytes have ended.
    ///
    /// # Errors
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if they may not end here.
    fn receive_eof(&mut self) -> io::Result<()>;

    /// Gives plaintext. 0 is its proper end.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none yet; or the peer's fault.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Whether [`read`](Self::read) would give anything at once.
    fn has_plaintext(&self) -> bool;

    /// Takes plaintext to be sent, the first part of it at least, and says how much.
    ///
    /// # Errors
    /// When it cannot.
    fn write(&mut self, plaintext: &[u8]) -> io::Result<usize>;

    /// Puts the bytes that are to go to the peer at the end of `out`.
    fn transmit(&mut self, out: &mut Vec<u8>);

    /// Says goodbye: nothing will be written any more.
    fn close(&mut self);

    /// What is to be known of it, for [`Transport::get_extra_info`](crate::Transport::get_extra_info).
    fn extra_info(&self, name: &str) -> Option<Rc<dyn Any>> {
        let _ = name;
        None
    }
}

/// Where a [`Filter`] stands.
///
/// | from | to | when |
/// |---|---|---|
/// | `Handshaking` | `Open` | both sides have agreed |
/// | `Handshaking`, `Open` | `Closed` | the peer has said goodbye |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterState {
    /// The program's bytes wait.
    Handshaking,
    /// They flow.
    Open,
    /// The peer sends nothing any more.
    Closed,
}

/// A link with a filter in front of it, for [`attach`](crate::attach): the connection is made when the filter
/// is open.
pub struct Filtered {
    link: Box<dyn Link>,
    filter: Box<dyn Filter>,
    /// What was read before the filter was there, until it has it.
    early: Vec<u8>,
    outgoing: Vec<u8>,
    /// How much of `outgoing` is sent.
    sent: usize,
    ending: Ending,
    ended: bool,
}

// Ciphertext is read into the caller's buffer, handed to the filter, and overwritten with plaintext; what
// the filter wants sent waits in `outgoing`. Whatever is called, answers of the filter (to a handshake, to
// a change of keys while the program only reads) leave with it.

/// What follows when all is sent.
#[derive(PartialEq)]
enum Ending {
    None,
    /// The link is shut down.
    Shutdown,
    /// The link says its own goodbye.
    Goodbye,
    Done,
}

/// While so much waits to be sent, no more plaintext is taken: twice what TLS puts into four records, so
/// that a write of 64 KiB never waits halfway.
const MOST_HELD_BACK: usize = 128 * 1024;

/// How many reads one call may need before there is plaintext: records of 16 KiB come in pieces. The
/// selector tells of what is left.
const MOST_STEPS: usize = 64;

/// A buffer of the caller's that is smaller than this is not read into.
const SCRATCH: usize = 8 * 1024;

/// An output buffer that was larger is not kept.
const KEPT_OUTGOING: usize = 32 * 1024;

impl Filtered {
    /// Puts `filter` in front of `link`.
    pub fn new(link: impl Link + 'static, filter: impl Filter + 'static) -> Filtered {
        Filtered::with(Box::new(link), Box::new(filter), Vec::new(), Vec::new())
    }

    /// Puts `filter` in front of `link`. `queued` goes to the peer first, as it is; `early` was received
    /// before and goes to the filter first.
    pub(crate) fn with(
        link: Box<dyn Link>,
        filter: Box<dyn Filter>,
        queued: Vec<u8>,
        early: Vec<u8>,
    ) -> Filtered {
        let (outgoing, sent) = (queued, 0);
        Filtered { link, filter, early, outgoing, sent, ending: Ending::None, ended: false }
    }

    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        let received = self.filter.receive(bytes);
        // Also an alert, on an error. If it cannot be sent the next flush says so: what came first counts.
        let _ = self.pump();
        received
    }

    /// Reads once from below, into `buffer` if it is large enough. `false` at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut scratch = [0; SCRATCH];
        let buffer = if buffer.len() < SCRATCH { &mut scratch[..] } else { buffer };
        let count = self.link.read(buffer)?;
        if count == 0 {
            self.ended = true;
            let ended = self.filter.receive_eof();
            let _ = self.pump();
            return ended.and(Ok(false));
        }
        self.receive(&buffer[..count])?;
        Ok(true)
    }

    /// Sends what there is to send; what cannot be sent now is held back.
    fn pump(&mut self) -> io::Result<()> {
        self.filter.transmit(&mut self.outgoing);
        while self.sent < self.outgoing.len() {
            match self.link.write(&[IoSlice::new(&self.outgoing[self.sent..])]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.outgoing.clear();
        self.outgoing.shrink_to(KEPT_OUTGOING);
        match self.ending {
            Ending::Shutdown if self.link.held_back() == 0 => {
                self.ending = Ending::Done;
                self.link.shutdown()?;
            }
            Ending::Goodbye => {
                self.ending = Ending::Done;
                self.link.close();
            }
            _ => {}
        }
        Ok(())
    }
}

impl fmt::Debug for Filtered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.outgoing.len() - self.sent;
        f.debug_struct("Filtered").field("waiting", &waiting).finish_non_exhaustive()
    }
}

impl Link for Filtered {
    fn direction(&self) -> Direction {
        self.link.direction()
    }

    fn source(&self) -> Source {
        self.link.source()
    }

    fn set_bell(&mut self, bell: Bell) {
        self.link.set_bell(bell);
    }

    fn open(&mut self) -> io::Result<()> {
        self.link.open()?;
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            self.receive(&early)?;
        }
        for _ in 0..MOST_STEPS {
            self.pump()?;
            if self.filter.state() != FilterState::Handshaking {
                return Ok(());
            }
            if !self.fill(&mut [])? {
                let error = "the peer closed the connection during the handshake";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..MOST_STEPS {
            match self.filter.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    let _ = self.pump();
                    return result;
                }
            }
            if self.ended {
                return Ok(0);
            }
            self.fill(buffer)?;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                if self.held_back() >= MOST_HELD_BACK {
                    self.pump()?;
                }
                if self.held_back() >= MOST_HELD_BACK {
                    return if taken == 0 {
                        Err(io::ErrorKind::WouldBlock.into())
                    } else {
                        Ok(taken)
                    };
                }
                let count = self.filter.write(rest)?;
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.filter.transmit(&mut self.outgoing);
                rest = &rest[count..];
                taken += count;
            }
        }
        self.pump()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pump()?;
        self.link.flush()?;
        // What waited for the link to be empty.
        self.pump()?;
        if self.held_back() > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }

    fn held_back(&self) -> usize {
        self.outgoing.len() - self.sent + self.link.held_back()
    }

    fn has_input(&self) -> bool {
        let goodbye = self.filter.state() == FilterState::Closed;
        goodbye || self.filter.has_plaintext() || self.link.has_input()
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.filter.close();
        self.ending = Ending::Shutdown;
        self.pump()
    }

    fn close(&mut self) {
        if self.ending == Ending::None {
            self.filter.close();
            // A link with a goodbye of its own says it behind ours.
            self.ending = Ending::Goodbye;
        }
        // Whatever cannot be sent is said by the flush that follows.
        let _ = self.pump();
    }

    fn reset(&mut self) {
        self.link.reset();
    }

    fn peer_addr(&self) -> Option<Address> {
        self.link.peer_addr()
    }

    fn local_addr(&self) -> Option<Address> {
        self.link.local_addr()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.link.fd()
    }

    fn extra_info(&self, name: &str) -> Option<Rc<dyn Any>> {
        self.filter.extra_info(name).or_else(|| self.link.extra_info(name))
    }
}
