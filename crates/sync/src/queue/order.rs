//! In which order a queue gives its items back.

use std::collections::VecDeque;
use std::fmt;

pub(super) use sealed::Store;

/// In which order a queue gives its items back. Implemented by [`Fifo`], [`Lifo`] and
/// [`Smallest`]; it is sealed, because a queue relies on the storage running no foreign code.
pub trait Order: Store {}

impl<O: Store> Order for O {}

mod sealed {
    /// The storage of a queue.
    ///
    /// Every method but [`prepare`](Self::prepare) is called under the queue's borrow and runs no
    /// code of the item's type.
    pub trait Store: Default {
        /// What is stored.
        type Item;

        /// Whether [`prepare`](Self::prepare) has to be called before each [`pop`](Self::pop).
        const PREPARES: bool = false;

        /// Adds an item.
        fn push(&mut self, item: Self::Item);

        /// Takes the item whose turn it is.
        fn pop(&mut self) -> Option<Self::Item>;

        /// Finds the item whose turn it is, and may call the item's code for it. If that panics, no
        /// item is lost and `prepare` can be called again.
        fn prepare(&mut self) {}

        /// Adds all items of another store, in the order in which they were pushed there.
        fn append(&mut self, other: Self);
    }
}

/// First in, first out: the order of a [`Queue`](crate::Queue).
pub struct Fifo<T>(VecDeque<T>);

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Store for Fifo<T> {
    type Item = T;

    #[inline]
    fn push(&mut self, item: T) {
        self.0.push_back(item);
    }

    #[inline]
    fn pop(&mut self) -> Option<T> {
        self.0.pop_front()
    }

    fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

impl<T> fmt::Debug for Fifo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fifo").field("len", &self.0.len()).finish()
    }
}

/// Last in, first out: the order of a [`LifoQueue`](crate::LifoQueue).
pub struct Lifo<T>(Vec<T>);

impl<T> Default for Lifo<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Store for Lifo<T> {
    type Item = T;

    fn push(&mut self, item: T) {
        self.0.push(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

impl<T> fmt::Debug for Lifo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifo").field("len", &self.0.len()).finish()
    }
}

/// The smallest first, and the first in among equals: the order of a
/// [`PriorityQueue`](crate::PriorityQueue).
///
/// # Theory of operation
///
/// A binary heap whose comparisons are the item's own code, which may panic or call back into the
/// queue. So pushing compares nothing: it appends behind the part that is a heap. All comparisons
/// happen in `prepare`, for which the queue takes the whole store out of its cell. Items move only
/// by swaps within the vector, so a panic in a comparison can leave the heap in disorder but never
/// loses an item; `heaped` says how much of it may still be trusted.
pub struct Smallest<T> {
    /// A heap in `..heaped`, in order of arrival behind it. After `prepare`, the last is the
    /// smallest, and the heap ends before it.
    entries: Vec<Entry<T>>,
    heaped: usize,
    arrivals: u64,
}

struct Entry<T> {
    item: T,
    /// Numbers the arrivals, so that equals leave in the order in which they came.
    arrival: u64,
}

impl<T: Ord> Entry<T> {
    fn precedes(&self, other: &Self) -> bool {
        self.item.cmp(&other.item).then(self.arrival.cmp(&other.arrival)).is_lt()
    }
}

impl<T> Default for Smallest<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), heaped: 0, arrivals: 0 }
    }
}

impl<T: Ord> Smallest<T> {
    fn sift_up(&mut self, mut child: usize) {
        while child > 0 {
            let parent = (child - 1) / 2;
            if !self.entries[child].precedes(&self.entries[parent]) {
                break;
            }
            self.entries.swap(child, parent);
            child = parent;
        }
    }

    fn sift_down(&mut self, mut parent: usize, end: usize) {
        loop {
            let left = 2 * parent + 1;
            if left >= end {
                break;
            }
            let right = left + 1;
            let swaps = right < end && self.entries[right].precedes(&self.entries[left]);
            let child = if swaps { right } else { left };
            if !self.entries[child].precedes(&self.entries[parent]) {
                break;
            }
            self.entries.swap(child, parent);
            parent = child;
        }
    }
}

impl<T: Ord> Store for Smallest<T> {
    type Item = T;

    const PREPARES: bool = true;

    fn push(&mut self, item: T) {
        self.entries.push(Entry { item, arrival: self.arrivals });
        self.arrivals += 1;
    }

    fn pop(&mut self) -> Option<T> {
        self.entries.pop().map(|entry| entry.item)
    }

    fn prepare(&mut self) {
        let Some(last) = self.entries.len().checked_sub(1) else { return };
        // Nothing is a heap until the end is reached: a panic on the way leaves all to be done again.
        let heaped = std::mem::take(&mut self.heaped);
        for added in heaped..self.entries.len() {
            self.sift_up(added);
        }
        self.entries.swap(0, last);
        self.sift_down(0, last);
        self.heaped = last;
    }

    fn append(&mut self, other: Self) {
        for entry in other.entries {
            self.push(entry.item);
        }
    }
}

impl<T> fmt::Debug for Smallest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smallest").field("len", &self.entries.len()).finish()
    }
}
