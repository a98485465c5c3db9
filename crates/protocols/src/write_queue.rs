//! What a transport has been given to write and has not written yet.
//!
//! The problem: a program writes a line at a time, a megabyte at once, and buffers that it would rather
//! not have copied, in any mixture, and each byte must cost constant time however long the queue is.
//!
//! The trick: a queue of chunks. Small pieces are copied to the end of the last chunk while it has room;
//! [`Bytes`] of some size become chunks of their own. The size is kept, the position is one number for
//! the first chunk. An idle transport has no queue: it takes one, with its memory, from the loop's
//! spares when it has something to keep, and gives it back when that is gone. The first chunk of copied
//! pieces, `head`, stays with its queue, so that an answer of a line costs a copy and nothing else.
//!
//! Invariant: `size` is the sum of the chunks' lengths less `sent`; no chunk behind the head is empty;
//! the head, if it is not empty, comes first.

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
    head: Vec<u8>,
    more: VecDeque<Chunk>,
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
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Adds a piece at the end.
    #[inline]
    pub(crate) fn append(&mut self, data: &[u8], leaf: &Leaf) {
        self.size += data.len();
        if self.more.is_empty() && self.head.len() + data.len() <= CHUNK {
            self.head.extend_from_slice(data);
        } else {
            self.append_more(data, leaf);
        }
    }

    #[inline(never)]
    fn append_more(&mut self, mut data: &[u8], leaf: &Leaf) {
        if self.more.is_empty() {
            let (now, later) = data.split_at(CHUNK - self.head.len());
            self.head.extend_from_slice(now);
            data = later;
        }
        while !data.is_empty() {
            let room = match self.more.back() {
                Some(Chunk::Copied(last)) => CHUNK.saturating_sub(last.len()),
                _ => 0,
            };
            if room == 0 {
                self.more.push_back(Chunk::Copied(leaf.take_chunk()));
                continue;
            }
            let (now, later) = data.split_at(room.min(data.len()));
            if let Some(Chunk::Copied(last)) = self.more.back_mut() {
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
            self.more.push_back(Chunk::Shared(data));
        }
    }

    /// Adds all of another queue at the end.
    pub(crate) fn append_queue(&mut self, mut other: WriteQueue, leaf: &Leaf) {
        if !other.head.is_empty() {
            self.append(&other.head[other.sent..], leaf);
            other.sent = 0;
        }
        if let Some(first) = other.more.pop_front() {
            let rest = &first.bytes()[other.sent..];
            self.append(rest, leaf);
            leaf.put_chunk(first);
        }
        for chunk in other.more.drain(..) {
            self.size += chunk.bytes().len();
            self.more.push_back(chunk);
        }
    }

    /// All of it, if it is in one piece.
    #[inline]
    pub(crate) fn only_piece(&self) -> Option<&[u8]> {
        self.more.is_empty().then(|| &self.head[self.sent..])
    }

    /// Fills `pieces` with what comes first, and says how many of them and how many bytes.
    pub(crate) fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut count, mut bytes, mut skip) = (0, 0, self.sent);
        let head = Some(&self.head[..]).filter(|head| !head.is_empty());
        let chunks = head.into_iter().chain(self.more.iter().map(Chunk::bytes));
        for (piece, chunk) in pieces.iter_mut().zip(chunks) {
            let rest = &chunk[skip..];
            *piece = IoSlice::new(rest);
            (count, bytes, skip) = (count + 1, bytes + rest.len(), 0);
        }
        (count, bytes)
    }

    /// Takes so many bytes, which were written, off the front.
    #[inline]
    pub(crate) fn advance(&mut self, count: usize, leaf: &Leaf) {
        debug_assert!(count <= self.size, "no more can be written than is there");
        self.size -= count;
        self.sent += count;
        if !self.head.is_empty() {
            if self.sent < self.head.len() {
                return;
            }
            self.sent -= self.head.len();
            self.head.clear();
        }
        while let Some(first) = self.more.front() {
            let len = first.bytes().len();
            if self.sent < len {
                return;
            }
            self.sent -= len;
            let written = self.more.pop_front().map(|chunk| leaf.put_chunk(chunk));
            debug_assert!(written.is_some());
        }
    }

    /// Takes off all of the [only piece](Self::only_piece), which was written.
    #[inline]
    pub(crate) fn clear_head(&mut self) {
        debug_assert!(self.more.is_empty(), "there is one piece");
        self.head.clear();
        (self.sent, self.size) = (0, 0);
    }

    /// Copies all of it to a vector, for a link that takes over what was queued.
    pub(crate) fn copy_to(&self, out: &mut Vec<u8>) {
        let mut skip = self.sent;
        if !self.head.is_empty() {
            out.extend_from_slice(&self.head[skip..]);
            skip = 0;
        }
        for chunk in &self.more {
            out.extend_from_slice(&chunk.bytes()[skip..]);
            skip = 0;
        }
    }

    /// Whether it is as good as new: empty, and not large.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        self.size == 0 && self.more.capacity() <= MOST_PIECES && self.head.is_empty()
    }

    /// Empties it, for the next one who needs a queue.
    pub(crate) fn clear(&mut self, leaf: &Leaf) {
        self.head.clear();
        if self.size > 0 {
            for chunk in self.more.drain(..) {
                leaf.put_chunk(chunk);
            }
        }
        if self.more.capacity() > MOST_PIECES {
            // One that was very long is not kept.
            self.more = VecDeque::new();
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
