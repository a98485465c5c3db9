//! A socket that does what a script says.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use tulipa_protocols::{Address, Link};
use tulipa_selector::{Readiness, Source, VirtualHandle, VirtualId};

/// A socket whose reads and writes give what a script says, call by call; a [`Link`] for
/// [`attach`](tulipa_protocols::attach). Stands for asynctest's `SocketMock`.
///
/// Reads and writes have a script each. It is ready for whatever its script goes on with, also where that is
/// `WouldBlock`, as sockets are at times. Behind its script a read blocks and a write takes everything.
///
/// ```
/// use std::io::{self, ErrorKind};
/// use tulipa_protocols::{Protocol, Transport, attach};
/// use tulipa_testing::{ScriptedSocket, VirtualLoop};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// let virtual_loop = VirtualLoop::new();
/// let socket = ScriptedSocket::new(virtual_loop.world());
/// socket.read(b"hello").read_blocks().read(b" there").read_error(ErrorKind::ConnectionReset);
/// socket.write(2).write_blocks();
/// let connection = attach(&virtual_loop, socket.link(), Echo)?;
/// virtual_loop.run_until_idle();
/// assert_eq!(socket.written(), b"hello there");
/// assert!(socket.is_closed() && connection.is_closing());
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Clone)]
#[doc(alias = "SocketMock")]
pub struct ScriptedSocket {
    state: Rc<State>,
}

struct State {
    world: VirtualHandle,
    source: VirtualId,
    reads: RefCell<VecDeque<Read>>,
    writes: RefCell<VecDeque<Write>>,
    written: RefCell<Vec<u8>>,
    shut: Cell<bool>,
    reset: Cell<bool>,
    closed: Cell<bool>,
}

enum Read {
    Data(Vec<u8>),
    Blocks,
    End,
    Error(ErrorKind),
}

enum Write {
    AtMost(usize),
    Blocks,
    Error(ErrorKind),
}

impl ScriptedSocket {
    /// One with nothing in its script, in the world of a virtual loop.
    pub fn new(world: &VirtualHandle) -> ScriptedSocket {
        let state = State {
            source: world.new_source(),
            world: world.clone(),
            reads: RefCell::default(),
            writes: RefCell::default(),
            written: RefCell::default(),
            shut: Cell::default(),
            reset: Cell::default(),
            closed: Cell::default(),
        };
        let socket = ScriptedSocket { state: Rc::new(state) };
        socket.state.update();
        socket
    }

    /// The socket, for a transport. There is one: a second one would share the script.
    pub fn link(&self) -> impl Link + use<> {
        ScriptedLink(self.state.clone())
    }

    /// Then a read gives these bytes; those that do not fit into its buffer, the next.
    pub fn read(&self, bytes: &[u8]) -> &ScriptedSocket {
        self.then_read(Read::Data(bytes.to_vec()))
    }

    /// Then a read has nothing, once, although the socket was said to be readable.
    pub fn read_blocks(&self) -> &ScriptedSocket {
        self.then_read(Read::Blocks)
    }

    /// Then the peer has ended its side, for good.
    pub fn read_end(&self) -> &ScriptedSocket {
        self.then_read(Read::End)
    }

    /// Then a read fails.
    pub fn read_error(&self, kind: ErrorKind) -> &ScriptedSocket {
        self.then_read(Read::Error(kind))
    }

    /// Then a write takes so many bytes at most.
    pub fn write(&self, at_most: usize) -> &ScriptedSocket {
        self.then_write(Write::AtMost(at_most))
    }

    /// Then a write takes nothing, once, although the socket was said to be writable.
    pub fn write_blocks(&self) -> &ScriptedSocket {
        self.then_write(Write::Blocks)
    }

    /// Then a write fails.
    pub fn write_error(&self, kind: ErrorKind) -> &ScriptedSocket {
        self.then_write(Write::Error(kind))
    }

    fn then_read(&self, step: Read) -> &ScriptedSocket {
        self.state.reads.borrow_mut().push_back(step);
        self.state.update();
        self
    }

    fn then_write(&self, step: Write) -> &ScriptedSocket {
        self.state.writes.borrow_mut().push_back(step);
        self
    }

    /// What was written.
    pub fn written(&self) -> Vec<u8> {
        self.state.written.borrow().clone()
    }

    /// How many steps of the script are left. The end of the input is never over.
    pub fn steps_left(&self) -> usize {
        let reads = self.state.reads.borrow();
        let reads = reads.iter().filter(|step| !matches!(step, Read::End)).count();
        reads + self.state.writes.borrow().len()
    }

    /// Whether our side was ended.
    pub fn is_output_ended(&self) -> bool {
        self.state.shut.get()
    }

    /// Whether it was reset.
    pub fn is_reset(&self) -> bool {
        self.state.reset.get()
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.state.closed.get()
    }
}

impl State {
    fn update(&self) {
        let readable = !self.reads.borrow().is_empty();
        let readable = if readable { Readiness::READABLE } else { Readiness::NONE };
        let ready =
            if self.closed.get() { Readiness::NONE } else { readable | Readiness::WRITABLE };
        self.world.set_ready(self.source, ready);
    }

    fn next_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let step = self.reads.borrow_mut().pop_front();
        match step {
            Some(Read::Data(bytes)) => {
                let count = bytes.len().min(buffer.len());
                let (now, later) = bytes.split_at(count);
                buffer[..count].copy_from_slice(now);
                if !later.is_empty() {
                    self.reads.borrow_mut().push_front(Read::Data(later.to_vec()));
                }
                Ok(count)
            }
            Some(Read::End) => {
                self.reads.borrow_mut().push_front(Read::End);
                Ok(0)
            }
            Some(Read::Error(kind)) => Err(kind.into()),
            Some(Read::Blocks) | None => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

/// The end that the transport has.
struct ScriptedLink(Rc<State>);

impl Link for ScriptedLink {
    fn source(&self) -> Source {
        self.0.source.into()
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.0.next_read(buffer);
        self.0.update();
        result
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let step = self.0.writes.borrow_mut().pop_front();
        let most = match step {
            Some(Write::AtMost(most)) => most,
            Some(Write::Blocks) => return Err(ErrorKind::WouldBlock.into()),
            Some(Write::Error(kind)) => return Err(kind.into()),
            None => usize::MAX,
        };
        let mut taken = 0;
        for piece in pieces {
            let count = piece.len().min(most - taken);
            self.0.written.borrow_mut().extend_from_slice(&piece[..count]);
            taken += count;
        }
        Ok(taken)
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.0.shut.set(true);
        Ok(())
    }

    fn reset(&mut self) {
        self.0.reset.set(true);
    }

    fn peer_addr(&self) -> Option<Address> {
        Some(Address::Unnamed)
    }
}

impl Drop for ScriptedLink {
    fn drop(&mut self) {
        self.0.closed.set(true);
        self.0.update();
    }
}

impl fmt::Debug for ScriptedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps_left();
        f.debug_struct("ScriptedSocket").field("steps_left", &steps).finish_non_exhaustive()
    }
}
