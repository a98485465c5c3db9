//! A table whose keys are never used twice.
//!
//! An index is used again once it is vacated, its generation is not: it grows each time. A key that
//! somebody kept too long finds nothing, instead of what took its place. An index whose generation is
//! used up is retired, after 2³² uses.
//!
//! A table that was large and becomes empty gives its memory back. What comes later starts at a generation
//! that no key of before can have.

use std::fmt;

use crate::Token;

/// A table of values with [`Token`]s for keys: insertion, look-up and removal in constant time, and
/// a stale key finds nothing.
///
/// It holds the registrations of a selector, and goes well with one: the index of the value that
/// belongs to a source can be the source's data.
///
/// ```
/// use tulipa_selector::Slots;
///
/// let mut names = Slots::new();
/// let first = names.insert("tulip").unwrap();
/// assert_eq!(names.remove(first), Some("tulip"));
/// let second = names.insert("tulipa").unwrap();
/// assert_eq!(second.index(), first.index());
/// assert_eq!(names.get(first), None);
/// assert_eq!(names.get(second), Some(&"tulipa"));
/// ```
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
    /// The generation at which a new index starts: above all that were ever given out.
    floor: u32,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// An empty table keeps room for this many values: enough that a program which comes and goes between
/// nothing and some allocates nothing, and below a megabyte for what is in tables here.
const KEPT_WHEN_EMPTY: usize = 16_384;

/// A table of this size and more grows by a quarter: what is unused of it is then a quarter at the most, and each
/// value is moved four times on the way instead of once. Small ones do not matter.
const GROWS_SLOWLY: usize = 1024;

/// More values than this have no index. The highest index is left out so that no token is
/// `u64::MAX`, which kernels' user data can then use for something else.
const MAX_SLOTS: usize = u32::MAX as usize - 1;

impl<T> Slots<T> {
    /// An empty table, which allocates nothing yet.
    pub const fn new() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new(), len: 0, floor: 0 }
    }

    /// Puts a value in and returns its key; gives the value back where 2³² − 2 are in already.
    ///
    /// # Errors
    /// Only then.
    pub fn insert(&mut self, value: T) -> Result<Token, T> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < MAX_SLOTS => {
                self.grow();
                self.slots.push(Slot { generation: self.floor, value: None });
                (self.slots.len() - 1) as u32
            }
            None => return Err(value),
        };
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.value.is_none(), "a free index is vacant");
        slot.value = Some(value);
        self.len += 1;
        Ok(Token::new(index, slot.generation))
    }

    /// Makes room for one more, and when the table is large for a quarter more instead of as many again.
    #[inline]
    fn grow(&mut self) {
        let len = self.slots.len();
        if len == self.slots.capacity() && len >= GROWS_SLOWLY {
            self.slots.reserve_exact(len / 4);
        }
    }

    /// The value of a key, if it is still there.
    pub fn get(&self, key: Token) -> Option<&T> {
        let slot = self.slots.get(key.index())?;
        slot.value.as_ref().filter(|_| slot.generation == key.generation())
    }

    /// The value of a key, if it is still there.
    pub fn get_mut(&mut self, key: Token) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index())?;
        slot.value.as_mut().filter(|_| slot.generation == key.generation())
    }

    /// Takes a value out and makes its key stale.
    pub fn remove(&mut self, key: Token) -> Option<T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.generation != key.generation() {
            return None;
        }
        let value = slot.value.take()?;
        self.len -= 1;
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(key.index() as u32);
        }
        if self.len == 0 && self.slots.len() > KEPT_WHEN_EMPTY {
            self.give_memory_back();
        }
        Some(value)
    }

    /// Forgets all indices; once for each time that so many values have come and gone.
    #[cold]
    fn give_memory_back(&mut self) {
        let used = self.slots.iter().map(|slot| slot.generation).max();
        // A retired index has the last generation there is, and cannot be forgotten.
        let Some(floor) = used.unwrap_or(0).checked_add(1) else { return };
        self.floor = floor;
        self.slots = Vec::new();
        self.free = Vec::new();
    }

    /// The key of the value at an index, if there is one.
    pub fn key_at(&self, index: usize) -> Option<Token> {
        let slot = self.slots.get(index).filter(|slot| slot.value.is_some())?;
        Some(Token::new(index as u32, slot.generation))
    }

    /// All values with their keys, by index.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &T)> + '_ {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| {
            Some((Token::new(index as u32, slot.generation), slot.value.as_ref()?))
        })
    }

    /// The values, by index.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.slots.into_iter().filter_map(|slot| slot.value)
    }

    /// How many values there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots::new()
    }
}

impl<T> fmt::Debug for Slots<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_whose_generations_are_used_up_is_retired() {
        let mut slots = Slots::new();
        let first = slots.insert(1).unwrap();
        slots.slots[first.index()].generation = u32::MAX;
        let last = Token::new(first.index() as u32, u32::MAX);
        assert_eq!(slots.remove(last), Some(1));
        assert!(slots.is_empty());
        assert_ne!(slots.insert(2).unwrap().index(), first.index());
        assert_eq!(slots.get(last), None);
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn b46_a_table_that_was_large_gives_its_memory_back_and_its_old_keys_find_nothing() {
        let mut slots = Slots::new();
        let many = KEPT_WHEN_EMPTY + 1;
        for round in 0..3 {
            let keys: Vec<_> = (0..many).map(|value| slots.insert(value).unwrap()).collect();
            keys.iter().for_each(|key| assert!(slots.remove(*key).is_some()));
            assert_eq!((slots.slots.capacity(), slots.free.capacity()), (0, 0), "round {round}");
            let new = slots.insert(7).unwrap();
            assert!(keys.iter().all(|old| *old != new && slots.get(*old).is_none()));
            assert_eq!(slots.remove(new), Some(7));
        }
    }
}
