//! What a transport has been given to write and has not written yet.
//!
//! The problem: a program writes a line at a time, a megabyte at once, and buffers that it would rather
//! not have copied, in any mixture, and each byte must cost constant time however long the queue is.
//!
//! The trick: a queue of chunks. Small pieces are copied to the end of the last chunk while it has room;
//! [`Bytes`] of some size become chunks of their own. The size is kept, the position is one number for
//! the first chunk. An idle transport has no queue: it takes one, with its memory, from the loop's
//! spares when it has something to keep, and gives it back when that is gone.
//!
//! Invariant: `size` is the sum of the chunks' lengths less `sent`, and no chunk is empty.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::leaf::Leaf;

/// A chunk of copied pieces grows up to this size: large enough that the calls of `sendmsg` do not
/// matter, small enough that the spare ones of a loop are no burden.
pub(crate) const CHUNK: usize = 64 * 1024;

/// [`Bytes`] below this size are copied: a chunk of their own costs more.
const WORTH_SHARING: usize = 1024;

/// How many chunks one system call takes. The kernel's limit is 1,024; with chunks of 64 KiB this many
/// are more than any socket's buffer holds.
pub(crate) const MOST_PIECES: usize = 64;

#[derive(Default)]
pub(crate) struct WriteQueue {
    chunks: VecDeque<Chunk>,
    /// How much of the first chunk is written already.
    sent: usize,
    size: usize,
}

enum Chunk {
    Copied(Vec<u8>),
    Shared(Bytes),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Copied(bytes) => bytes,
            Chunk::Shared(bytes) => bytes,
        }
    }
}

impl WriteQueue {
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Adds a piece at the end.
    pub(crate) fn append(&mut self, mut data: &[u8], leaf: &Leaf) {
        self.size += data.len();
        while !data.is_empty() {
            let room = match self.chunks.back() {
                Some(Chunk::Copied(last)) => CHUNK.saturating_sub(last.len()),
                _ => 0,
            };
            if room == 0 {
                self.chunks.push_back(Chunk::Copied(leaf.take_chunk()));
                continue;
            }
            let (now, later) = data.split_at(room.min(data.len()));
            if let Some(Chunk::Copied(last)) = self.chunks.back_mut() {
                let size = last.len() + now.len();
                if size > last.capacity() {
                    // Doubling, but not beyond what the spares take back.
                    let doubled = size.max(2 * last.capacity()).min(CHUNK);
                    last.reserve_exact(doubled - last.len());
                }
                last.extend_from_slice(now);
            }
            data = later;
        }
    }

    /// Adds a piece at the end, without copying it if it is large.
    pub(crate) fn append_bytes(&mut self, data: Bytes, leaf: &Leaf) {
        if data.len() < WORTH_SHARING {
            self.append(&data, leaf);
            leaf.discard(data);
        } else {
            self.size += data.len();
            self.chunks.push_back(Chunk::Shared(data));
        }
    }

    /// Adds all of another queue at the end.
    pub(crate) fn append_queue(&mut self, mut other: WriteQueue, leaf: &Leaf) {
        if other.sent > 0 {
            let Some(first) = other.chunks.pop_front() else { return };
            self.append(&first.bytes()[other.sent..], leaf);
            leaf.put_chunk(first);
        }
        for chunk in other.chunks.drain(..) {
            self.size += chunk.bytes().len();
            self.chunks.push_back(chunk);
        }
    }

    /// Fills `pieces` with what comes first, and says how many of them and how many bytes.
    pub(crate) fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut count, mut bytes, mut skip) = (0, 0, self.sent);
        for (piece, chunk) in pieces.iter_mut().zip(&self.chunks) {
            let rest = &chunk.bytes()[skip..];
            *piece = IoSlice::new(rest);
            (count, bytes, skip) = (count + 1, bytes + rest.len(), 0);
        }
        (count, bytes)
    }

    /// Takes so many bytes, which were written, off the front.
    pub(crate) fn advance(&mut self, count: usize, leaf: &Leaf) {
        debug_assert!(count <= self.size, "no more can be written than is there");
        self.size -= count;
        self.sent += count;
        while let Some(first) = self.chunks.front() {
            let len = first.bytes().len();
            if self.sent < len {
                return;
            }
            self.sent -= len;
            let written = self.chunks.pop_front().map(|chunk| leaf.put_chunk(chunk));
            debug_assert!(written.is_some());
        }
    }

    /// Copies all of it to a vector, for a link that takes over what was queued.
    pub(crate) fn copy_to(&self, out: &mut Vec<u8>) {
        let mut skip = self.sent;
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.bytes()[skip..]);
            skip = 0;
        }
    }

    /// Gives back its memory: chunks go to the loop's spares.
    pub(crate) fn clear(&mut self, leaf: &Leaf) {
        // Not drained by value: the table's memory is kept with the queue.
        while let Some(chunk) = self.chunks.pop_front() {
            leaf.put_chunk(chunk);
        }
        (self.sent, self.size) = (0, 0);
    }
}

impl Leaf {
    fn put_chunk(&self, chunk: Chunk) {
        match chunk {
            Chunk::Copied(buffer) => self.give_chunk(buffer),
            Chunk::Shared(bytes) => self.discard(bytes),
        }
    }
}
