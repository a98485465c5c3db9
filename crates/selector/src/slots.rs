//! A table whose keys are never used twice.
//!
//! An index is used again once it is vacated, its generation is not: it grows each time. A key that
//! somebody kept too long finds nothing, instead of what took its place. An index whose generation is
//! used up is retired, after 2³² uses.

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
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// More values than this have no index. The highest index is left out so that no token is
/// `u64::MAX`, which kernels' user data can then use for something else.
const MAX_SLOTS: usize = u32::MAX as usize - 1;

impl<T> Slots<T> {
    /// An empty table, which allocates nothing yet.
    pub const fn new() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Puts a value in and returns its key; gives the value back where 2³² − 2 are in already.
    ///
    /// # Errors
    /// Only then.
    pub fn insert(&mut self, value: T) -> Result<Token, T> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < MAX_SLOTS => {
                self.slots.push(Slot { generation: 0, value: None });
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
        Some(value)
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
}
