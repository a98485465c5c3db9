//! What the transports of one loop share: the wires to the loop, and spare buffers.
//!
//! It leads back to nothing, so a transport that is kept for ever keeps no loop alive.

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;

use bytes::Bytes;
use tulipa_loop::{LoopHandle, Wires};

use crate::datagram::Spares;
use crate::write_queue::{CHUNK, WriteQueue};

/// The size of the buffer that all connections of a loop read into, one after the other: what asyncio
/// reads at most in one go. Larger ones bring nothing, as sockets do not hold more.
pub(crate) const READ_BUFFER: usize = 256 * 1024;

/// How many spare chunks and spare queues a loop keeps: as many connections can be writing at one time
/// without an allocation, for at most 1 MiB of chunks.
const MOST_SPARES: usize = 16;

/// What is read into.
pub(crate) type ReadBuffer = Box<[u8; READ_BUFFER]>;

#[cold]
fn new_read_buffer() -> ReadBuffer {
    let buffer = vec![0; READ_BUFFER].into_boxed_slice();
    buffer.try_into().expect("it has this size")
}

#[derive(Default)]
pub(crate) struct Leaf {
    pub(crate) wires: Rc<Wires>,
    read_buffer: Cell<Option<ReadBuffer>>,
    chunks: RefCell<Vec<Vec<u8>>>,
    #[expect(clippy::vec_box, reason = "they are boxed where they are used")]
    queues: RefCell<Vec<Box<WriteQueue>>>,
    /// The one that was given back last.
    queue: Cell<Option<Box<WriteQueue>>>,
    /// Buffers of the program's, whose destructors are its code.
    discarded: RefCell<Vec<Bytes>>,
    has_discarded: Cell<bool>,
    /// Queues of datagrams.
    pub(crate) datagrams: Spares,
    /// How many extras connections have ever had.
    extras: Cell<u64>,
}

impl Leaf {
    /// The one of a loop.
    pub(crate) fn of(handle: &LoopHandle) -> Rc<Leaf> {
        handle.local(|handle| Leaf::new(handle.wires()))
    }

    pub(crate) fn new(wires: Rc<Wires>) -> Leaf {
        Leaf { wires, ..Leaf::default() }
    }

    /// The buffer to read into. Whoever takes it gives it back; who comes meanwhile gets one of their own.
    #[inline]
    pub(crate) fn take_read_buffer(&self) -> ReadBuffer {
        self.read_buffer.take().unwrap_or_else(new_read_buffer)
    }

    #[inline]
    pub(crate) fn give_read_buffer(&self, buffer: ReadBuffer) {
        let second = self.read_buffer.replace(Some(buffer));
        drop(second);
    }

    pub(crate) fn take_chunk(&self) -> Vec<u8> {
        self.chunks.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_chunk(&self, mut chunk: Vec<u8>) {
        let mut chunks = self.chunks.borrow_mut();
        if chunks.len() < MOST_SPARES && chunk.capacity() <= CHUNK {
            chunk.clear();
            chunks.push(chunk);
        }
    }

    #[inline]
    pub(crate) fn take_queue(&self) -> Box<WriteQueue> {
        self.queue.take().unwrap_or_else(|| self.next_queue())
    }

    #[cold]
    fn next_queue(&self) -> Box<WriteQueue> {
        self.queues.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back a queue, with whatever it has.
    #[inline]
    pub(crate) fn give_queue(&self, mut queue: Box<WriteQueue>) {
        if !queue.is_fresh() {
            queue.clear(self);
        }
        if let Some(second) = self.queue.replace(Some(queue)) {
            self.keep_queue(second);
        }
    }

    #[cold]
    fn keep_queue(&self, queue: Box<WriteQueue>) {
        let mut queues = self.queues.borrow_mut();
        if queues.len() < MOST_SPARES {
            queues.push(queue);
        }
    }

    /// A number for extras of a connection, which no others have had.
    pub(crate) fn next_extras(&self) -> u64 {
        let number = self.extras.get();
        self.extras.set(number + 1);
        number
    }

    /// Keeps a buffer of the program's until a driver drops it, where nothing is borrowed.
    pub(crate) fn discard(&self, bytes: Bytes) {
        self.discarded.borrow_mut().push(bytes);
        self.has_discarded.set(true);
    }

    pub(crate) fn has_discarded(&self) -> bool {
        self.has_discarded.get()
    }

    pub(crate) fn take_discarded(&self) -> Vec<Bytes> {
        self.has_discarded.set(false);
        mem::take(&mut *self.discarded.borrow_mut())
    }
}

/// The loop's read buffer, on loan: given back also if whoever uses it panics.
pub(crate) struct Lent<'a> {
    leaf: &'a Leaf,
    buffer: Option<ReadBuffer>,
}

impl<'a> Lent<'a> {
    #[inline]
    pub(crate) fn of(leaf: &'a Leaf) -> Lent<'a> {
        Lent { leaf, buffer: Some(leaf.take_read_buffer()) }
    }

    #[inline]
    pub(crate) fn buffer(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer[..])
    }
}

impl Drop for Lent<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.leaf.give_read_buffer(buffer);
        }
    }
}
