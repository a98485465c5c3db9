//! What waits to be sent: whole datagrams, in order, their bytes one after the other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::Address;

/// What each datagram that waits counts beside its bytes: what its entry takes, so that empty ones are limited too. asyncio
/// counts 8, which is less than it keeps.
pub(crate) const HEADER_COST: usize = 64;

const _: () = assert!(size_of::<Entry>() <= HEADER_COST, "an entry is paid for");

/// How many queues a loop keeps for the next endpoint that sends, and how large ones: so many endpoints can be sending
/// at one time without an allocation, for 2 MiB at most.
const MOST_SPARES: usize = 16;
const MOST_SPARE_BYTES: usize = 64 * 1024;
const MOST_SPARE_ENTRIES: usize = 1024;

/// When so many bytes at the beginning have been sent, and they are more than those that have not, these move
/// to the front.
const COMPACT: usize = 16 * 1024;

/// Where a datagram goes, without a path of its own if that can be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// To whom the socket is connected.
    Peer,
    Inet(SocketAddr),
    Other(Rc<Address>),
}

impl Place {
    pub(crate) fn is(&self, address: &Address) -> bool {
        match self {
            Place::Peer => false,
            Place::Inet(own) => address.inet() == Some(*own),
            Place::Other(own) => **own == *address,
        }
    }

    pub(crate) fn address(&self) -> Option<Address> {
        match self {
            Place::Peer => None,
            Place::Inet(address) => Some(Address::Inet(*address)),
            Place::Other(address) => Some((**address).clone()),
        }
    }
}

pub(crate) struct Entry {
    pub(crate) to: Place,
    pub(crate) length: usize,
}

#[derive(Default)]
pub(crate) struct SendQueue {
    bytes: Vec<u8>,
    /// Where the first one begins.
    start: usize,
    entries: VecDeque<Entry>,
}

impl SendQueue {
    pub(crate) fn push(&mut self, data: &[u8], to: Place) {
        self.bytes.extend_from_slice(data);
        self.entries.push_back(Entry { to, length: data.len() });
    }

    /// What it counts: bytes, and a header for each.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() - self.start + self.entries.len() * HEADER_COST
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn is_single(&self) -> bool {
        self.entries.len() == 1
    }

    /// The first ones, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Place)> {
        let mut rest = &self.bytes[self.start..];
        self.entries.iter().map(move |entry| {
            let (data, behind) = rest.split_at(entry.length);
            rest = behind;
            (data, &entry.to)
        })
    }

    pub(crate) fn first(&self) -> Option<(&[u8], &Place)> {
        self.iter().next()
    }

    /// Takes the first ones away.
    pub(crate) fn pop(&mut self, count: usize) {
        for entry in self.entries.drain(..count) {
            self.start += entry.length;
        }
        if self.entries.is_empty() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start >= COMPACT && self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    pub(crate) fn append(&mut self, mut newer: SendQueue) {
        self.bytes.extend_from_slice(&newer.bytes[newer.start..]);
        self.entries.append(&mut newer.entries);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.entries.clear();
    }
}

/// The queues that endpoints without anything to send have given back: an idle one has none.
#[derive(Default)]
pub(crate) struct Spares(
    #[expect(clippy::vec_box, reason = "they are boxed where they are used")]
    RefCell<Vec<Box<SendQueue>>>,
);

impl Spares {
    pub(crate) fn take(&self) -> Box<SendQueue> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give(&self, mut queue: Box<SendQueue>) {
        queue.clear();
        let large = queue.bytes.capacity() > MOST_SPARE_BYTES
            || queue.entries.capacity() > MOST_SPARE_ENTRIES;
        let mut spares = self.0.borrow_mut();
        if !large && spares.len() < MOST_SPARES {
            spares.push(queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_queue_gives_whole_datagrams_in_order(steps in prop::collection::vec((0..3000_usize, 0..4_usize), 0..200)) {
            let (mut queue, mut model) = (SendQueue::default(), VecDeque::<Vec<u8>>::new());
            for (number, (length, pops)) in steps.into_iter().enumerate() {
                let data = vec![number as u8; length];
                queue.push(&data, Place::Peer);
                model.push_back(data);
                let pops = pops.min(model.len());
                queue.pop(pops);
                model.drain(..pops);
                prop_assert!(queue.iter().map(|(data, _)| data.to_vec()).eq(model.iter().cloned()));
                let bytes = model.iter().map(Vec::len).sum::<usize>();
                prop_assert_eq!(queue.size(), bytes + model.len() * HEADER_COST);
                prop_assert!(queue.bytes.len() <= 2 * bytes + COMPACT + 3000, "what was sent goes");
            }
        }
    }

    #[test]
    fn what_was_queued_meanwhile_comes_behind() {
        let (mut queue, mut newer) = (SendQueue::default(), SendQueue::default());
        queue.push(b"1", Place::Peer);
        queue.push(b"", Place::Peer);
        queue.pop(1);
        newer.push(b"x", Place::Peer);
        newer.push(b"33", Place::Peer);
        newer.pop(1);
        queue.append(newer);
        let all: Vec<_> = queue.iter().map(|(data, _)| data).collect();
        assert_eq!(all, [&b""[..], b"33"]);
        assert_eq!(queue.size(), 2 + 2 * HEADER_COST);
    }
}
