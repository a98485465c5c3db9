//! A link through memory.
//!
//! Two ends share two pipes. Nothing of an operating system is in between, so there is no source whose events
//! would tell an end that the other one has written, read, or gone: each rings the other's [`Bell`] instead.
//! An end rings only where it changes what the other one can do, so a pair that is at rest costs nothing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, Read};
use std::rc::Rc;

use tulipa_selector::Source;

use crate::{Address, Bell, Link};

/// One end of a pair of links that are connected through memory, in order and to the byte, with a bounded buffer
/// each way as sockets have one. It needs no descriptor, works by any clock, and is read in the turn after the
/// one in which it was written.
///
/// ```
/// use std::io;
/// use tulipa_loop::EventLoop;
/// use tulipa_protocols::{MemoryLink, Protocol, Transport, attach};
///
/// struct Upper;
/// impl Protocol for Upper {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
///         transport.write(&data.to_ascii_uppercase());
///         Ok(())
///     }
/// }
///
/// #[derive(Default)]
/// struct Client(Vec<u8>);
/// impl Protocol for Client {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
///         self.0.extend_from_slice(data);
///         transport.close();
///         Ok(())
///     }
/// }
///
/// let event_loop = EventLoop::new()?;
/// let (near, far) = MemoryLink::pair(1024);
/// attach(&event_loop.handle(), far, Upper)?;
/// let client = attach(&event_loop.handle(), near, Client::default())?;
/// client.write(b"abc");
/// event_loop.run_until_complete(client.wait_closed())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MemoryLink {
    incoming: Rc<RefCell<Pipe>>,
    outgoing: Rc<RefCell<Pipe>>,
}

/// One direction.
struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// The writer writes no more.
    ended: bool,
    /// The writer has broken it off.
    reset: bool,
    /// The reader is gone.
    unread: bool,
    /// The writer waits for room.
    full: bool,
    reader: Option<Bell>,
    writer: Option<Bell>,
}

impl MemoryLink {
    /// Two ends; each direction holds up to `capacity` bytes.
    ///
    /// # Panics
    /// If `capacity` is 0.
    #[track_caller]
    pub fn pair(capacity: usize) -> (MemoryLink, MemoryLink) {
        assert!(capacity > 0, "a link that holds nothing lets nothing through");
        let pipe = || {
            Rc::new(RefCell::new(Pipe {
                bytes: VecDeque::new(),
                capacity,
                ended: false,
                reset: false,
                unread: false,
                full: false,
                reader: None,
                writer: None,
            }))
        };
        let (there, back) = (pipe(), pipe());
        let near = MemoryLink { incoming: back.clone(), outgoing: there.clone() };
        (near, MemoryLink { incoming: there, outgoing: back })
    }

    /// Changes what we write, and tells who reads it.
    fn tell_reader<R>(&self, change: impl FnOnce(&mut Pipe) -> R) -> R {
        let mut pipe = self.outgoing.borrow_mut();
        let result = change(&mut pipe);
        let bell = pipe.reader.clone();
        drop(pipe);
        if let Some(bell) = bell {
            bell.ring_readable();
        }
        result
    }

    /// Tells who writes what we read.
    fn tell_writer(&self) {
        let bell = self.incoming.borrow().writer.clone();
        if let Some(bell) = bell {
            bell.ring_writable();
        }
    }
}

impl Pipe {
    /// As much as there is and `buffer` has room for.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let mut taken = 0;
        // It is in two pieces at most, of which one read gives one.
        while taken < buffer.len() {
            match self.bytes.read(&mut buffer[taken..]) {
                Ok(count) if count > 0 => taken += count,
                _ => break,
            }
        }
        taken
    }
}

impl Link for MemoryLink {
    fn source(&self) -> Source {
        Source::none()
    }

    fn set_bell(&mut self, bell: Bell) {
        self.incoming.borrow_mut().reader = Some(bell.clone());
        self.outgoing.borrow_mut().writer = Some(bell);
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.incoming.borrow_mut();
        let count = pipe.take(buffer);
        let was_full = count > 0 && std::mem::take(&mut pipe.full);
        let (reset, ended) = (pipe.reset, pipe.ended);
        drop(pipe);
        if was_full {
            self.tell_writer();
        }
        match count {
            0 if reset => Err(io::ErrorKind::ConnectionReset.into()),
            0 if !ended => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.incoming.borrow().reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut pipe = self.outgoing.borrow_mut();
        if pipe.unread || pipe.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut taken = 0;
        for piece in pieces {
            let count = piece.len().min(pipe.capacity - pipe.bytes.len());
            pipe.bytes.extend(&piece[..count]);
            taken += count;
            pipe.full |= count < piece.len();
        }
        drop(pipe);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.tell_reader(|_| ());
        Ok(taken)
    }

    fn has_input(&self) -> bool {
        let pipe = self.incoming.borrow();
        !pipe.bytes.is_empty() || pipe.ended || pipe.reset
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.tell_reader(|pipe| pipe.ended = true);
        Ok(())
    }

    fn reset(&mut self) {
        self.outgoing.borrow_mut().reset = true;
    }

    fn peer_addr(&self) -> Option<Address> {
        Some(Address::Unnamed)
    }

    fn local_addr(&self) -> Option<Address> {
        Some(Address::Unnamed)
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.incoming.borrow_mut().unread = true;
        self.tell_writer();
        self.tell_reader(|pipe| pipe.ended = true);
    }
}

impl fmt::Debug for MemoryLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pipe = self.incoming.borrow();
        let (incoming, capacity) = (pipe.bytes.len(), pipe.capacity);
        drop(pipe);
        f.debug_struct("MemoryLink")
            .field("incoming", &incoming)
            .field("capacity", &capacity)
            .finish_non_exhaustive()
    }
}
