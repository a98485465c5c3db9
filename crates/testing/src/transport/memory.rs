//! A link through memory, for loops in virtual time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::rc::Rc;

use tulipa_protocols::{Address, Link};
use tulipa_selector::{Readiness, Source, VirtualHandle, VirtualId};

/// One end of a pair of links through memory, byte-exact and with a bounded buffer, as a socket has one.
pub struct MemoryLink {
    world: VirtualHandle,
    own: VirtualId,
    peer: VirtualId,
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
}

impl MemoryLink {
    /// Two ends; each direction holds `capacity` bytes.
    pub fn pair(world: &VirtualHandle, capacity: usize) -> (MemoryLink, MemoryLink) {
        let pipe = || {
            let (ended, reset, unread) = (false, false, false);
            Rc::new(RefCell::new(Pipe { bytes: VecDeque::new(), capacity, ended, reset, unread }))
        };
        let (there, back) = (pipe(), pipe());
        let (own, peer) = (world.new_source(), world.new_source());
        let (incoming, outgoing) = (back.clone(), there.clone());
        let near = MemoryLink { world: world.clone(), own, peer, incoming, outgoing };
        let (own, peer, world) = (near.peer, near.own, world.clone());
        let far = MemoryLink { world, own, peer, incoming: there, outgoing: back };
        near.update();
        far.update();
        (near, far)
    }

    /// Says what this end and the other one are ready for.
    fn update(&self) {
        let (incoming, outgoing) = (self.incoming.borrow(), self.outgoing.borrow());
        self.world.set_ready(self.own, readiness(&incoming, &outgoing));
        self.world.set_ready(self.peer, readiness(&outgoing, &incoming));
    }
}

fn readiness(incoming: &Pipe, outgoing: &Pipe) -> Readiness {
    let readable = !incoming.bytes.is_empty() || incoming.ended || incoming.reset;
    let writable = outgoing.bytes.len() < outgoing.capacity || outgoing.unread || incoming.reset;
    let readable = if readable { Readiness::READABLE } else { Readiness::NONE };
    if writable { readable | Readiness::WRITABLE } else { readable }
}

impl Link for MemoryLink {
    fn source(&self) -> Source {
        self.own.into()
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = {
            let mut pipe = self.incoming.borrow_mut();
            let count = pipe.bytes.len().min(buffer.len());
            if count == 0 && pipe.reset {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if count == 0 && !pipe.ended {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            for (place, byte) in buffer.iter_mut().zip(pipe.bytes.drain(..count)) {
                *place = byte;
            }
            count
        };
        self.update();
        Ok(count)
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.incoming.borrow().reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut taken = 0;
        {
            let mut pipe = self.outgoing.borrow_mut();
            if pipe.unread || pipe.ended {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            for piece in pieces {
                let count = piece.len().min(pipe.capacity - pipe.bytes.len());
                pipe.bytes.extend(&piece[..count]);
                taken += count;
            }
        }
        self.update();
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.outgoing.borrow_mut().ended = true;
        self.update();
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
        self.outgoing.borrow_mut().ended = true;
        self.incoming.borrow_mut().unread = true;
        self.update();
    }
}

impl fmt::Debug for MemoryLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLink").field("source", &self.own).finish_non_exhaustive()
    }
}
