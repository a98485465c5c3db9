//! The timer queue: a heap with four children for each node, and real removal.
//!
//! The problem: programs set a timer for each request and cancel nearly all of them, so cancelling
//! must be cheap and give the memory back at once; equal deadlines must fire in the order in which
//! they were set; and a million pending timers must not slow the others down.
//!
//! The trick: the heap holds small items, `(when, sequence, key)`, and each timer's entry knows its
//! item's place. Setting and cancelling move O(log₄ n) items of 24 bytes; the sequence number makes
//! the order total.
//!
//! Invariant: `entries[heap[i].key].place == i` for every `i`, and an entry that is due, taken from
//! the heap but not yet run, has the place [`DUE`].
//!
//! Deadlines are nanoseconds since the loop's start: exact, and cheap to compare. One before the start
//! counts as the start; one later than 2⁶⁴ ns (584 years) never fires.

use std::task::Waker;
use std::time::{Duration, Instant};

use tulipa_selector::{Slots, Token};

use crate::core::Callback;

#[derive(Debug)]
pub(crate) struct Timers {
    start: Instant,
    heap: Vec<Item>,
    entries: Slots<Entry>,
    sequence: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    when: u64,
    sequence: u64,
    key: Token,
}

struct Entry {
    place: u32,
    alarm: Alarm,
}

/// What a timer does.
pub(crate) enum Alarm {
    Call(Callback),
    Wake(Waker),
    /// A source is to be attended.
    Mark(Token),
}

/// The place of an entry that has left the heap because it is due.
const DUE: u32 = u32::MAX;

/// An empty heap keeps room for this many timers; one that was larger gives its memory back, as the
/// table of entries does.
const KEPT_WHEN_EMPTY: usize = 16_384;

/// Four children: as many comparisons as with two, half the levels, and siblings share a cache line.
const CHILDREN: usize = 4;

impl Item {
    fn is_before(&self, other: &Item) -> bool {
        (self.when, self.sequence) < (other.when, other.sequence)
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Timers {
    pub(crate) fn new(start: Instant) -> Timers {
        Timers { start, heap: Vec::new(), entries: Slots::new(), sequence: 0 }
    }

    /// Adds a timer; gives the alarm back where there is no room for it.
    pub(crate) fn insert(&mut self, when: Instant, alarm: Alarm) -> Result<Token, Alarm> {
        let place = self.heap.len() as u32;
        if place == DUE {
            return Err(alarm);
        }
        let entry = Entry { place, alarm };
        let key = self.entries.insert(entry).map_err(|entry| entry.alarm)?;
        self.sequence += 1;
        self.heap.push(Item { when: self.since_start(when), sequence: self.sequence, key });
        self.move_up(place as usize);
        Ok(key)
    }

    /// Takes a timer out, due or not.
    pub(crate) fn remove(&mut self, key: Token) -> Option<Alarm> {
        let entry = self.entries.remove(key)?;
        if entry.place != DUE {
            self.remove_item(entry.place as usize);
        }
        Some(entry.alarm)
    }

    /// Whether a timer has neither run nor been removed.
    pub(crate) fn contains(&self, key: Token) -> bool {
        self.entries.get(key).is_some()
    }

    /// The deadline of a timer that is not due yet.
    pub(crate) fn when(&self, key: Token) -> Option<Instant> {
        let place = self.entries.get(key)?.place;
        let item = self.heap.get(place as usize)?;
        Some(self.start + Duration::from_nanos(item.when))
    }

    /// Whether a timer wakes this waker.
    pub(crate) fn wakes(&self, key: Token, waker: &Waker) -> bool {
        let alarm = self.entries.get(key).map(|entry| &entry.alarm);
        matches!(alarm, Some(Alarm::Wake(known)) if known.will_wake(waker))
    }

    /// Gives a timer another waker; gives back the one that is not needed.
    pub(crate) fn set_waker(&mut self, key: Token, waker: Waker) -> Alarm {
        let alarm = Alarm::Wake(waker);
        match self.entries.get_mut(key) {
            Some(entry) => std::mem::replace(&mut entry.alarm, alarm),
            None => alarm,
        }
    }

    /// The deadline of the timer that is next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let when = self.heap.first()?.when;
        (when != u64::MAX).then(|| self.start + Duration::from_nanos(when))
    }

    /// Moves what is due at `now` from the heap to `due`, earliest first. Each is still there to be
    /// removed, by whoever runs it or whoever cancels it, whichever comes first.
    pub(crate) fn take_due(&mut self, now: Instant, due: &mut Vec<Token>) {
        let now = self.since_start(now);
        while let Some(first) = self.heap.first().copied() {
            if first.when > now || first.when == u64::MAX {
                break;
            }
            self.remove_item(0);
            let entry = self.entries.get_mut(first.key).expect("an item in the heap has an entry");
            entry.place = DUE;
            due.push(first.key);
        }
    }

    /// Takes everything out.
    pub(crate) fn into_alarms(self) -> impl Iterator<Item = Alarm> {
        self.entries.into_values().map(|entry| entry.alarm)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn since_start(&self, when: Instant) -> u64 {
        let since = when.saturating_duration_since(self.start);
        let seconds = since.as_secs().saturating_mul(1_000_000_000);
        seconds.saturating_add(u64::from(since.subsec_nanos()))
    }

    fn remove_item(&mut self, place: usize) {
        self.heap.swap_remove(place);
        if self.heap.is_empty() && self.heap.capacity() > KEPT_WHEN_EMPTY {
            self.heap = Vec::new();
        }
        if place < self.heap.len() {
            self.move_down(place);
            self.move_up(place);
        }
    }

    fn move_up(&mut self, mut place: usize) {
        let item = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / CHILDREN;
            if !item.is_before(&self.heap[parent]) {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, item);
    }

    fn move_down(&mut self, mut place: usize) {
        let item = self.heap[place];
        loop {
            let first = place * CHILDREN + 1;
            let last = (first + CHILDREN).min(self.heap.len());
            let earliest = (first..last)
                .reduce(|a, b| if self.heap[b].is_before(&self.heap[a]) { b } else { a });
            match earliest {
                Some(child) if self.heap[child].is_before(&item) => {
                    self.put(place, self.heap[child]);
                    place = child;
                }
                _ => break,
            }
        }
        self.put(place, item);
    }

    /// Writes an item to a place and tells its entry.
    fn put(&mut self, place: usize, item: Item) {
        self.heap[place] = item;
        let entry = self.entries.get_mut(item.key).expect("an item in the heap has an entry");
        entry.place = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64),
        /// Cancels the n-th of those that were ever set.
        Remove(usize),
        Advance(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..50u64).prop_map(Op::Insert),
            3 => any::<usize>().prop_map(Op::Remove),
            1 => (0..30u64).prop_map(Op::Advance),
        ]
    }

    fn cases() -> u32 {
        let default = if cfg!(miri) { 4 } else { 256 };
        std::env::var("TULIPA_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn b47_timers_behave_like_an_ordered_map(ops in prop::collection::vec(op(), 0..200)) {
            #[expect(clippy::disallowed_methods, reason = "any instant will do for a start")]
            let start = Instant::now();
            let mut timers = Timers::new(start);
            let mut model = BTreeMap::new();
            let mut set = Vec::new();
            let mut now = start;
            for op in ops {
                match op {
                    Op::Insert(after) => {
                        let when = now + Duration::from_nanos(after);
                        let key = timers.insert(when, Alarm::Call(Callback::nothing())).ok().unwrap();
                        model.insert((when, set.len()), key);
                        set.push((when, key));
                    }
                    Op::Remove(nth) if !set.is_empty() => {
                        let nth = nth % set.len();
                        let (when, key) = set[nth];
                        let expected = model.remove(&(when, nth)).is_some();
                        prop_assert_eq!(timers.remove(key).is_some(), expected);
                    }
                    Op::Remove(_) => {}
                    Op::Advance(by) => {
                        now += Duration::from_nanos(by);
                        let mut due = Vec::new();
                        timers.take_due(now, &mut due);
                        let later = model.split_off(&(now + Duration::from_nanos(1), 0));
                        let expected: Vec<_> = std::mem::replace(&mut model, later).into_values().collect();
                        prop_assert_eq!(&due, &expected);
                        for key in due {
                            prop_assert!(timers.remove(key).is_some());
                        }
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.next(), model.keys().next().map(|(when, _)| *when));
            }
        }
    }
}
