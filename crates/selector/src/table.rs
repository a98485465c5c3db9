//! Who is registered: a table with generations.
//!
//! An index is used again, its generation is not: it grows each time the index is vacated. A kernel
//! that reports an old token, or a batch that holds one, finds no entry for it. An index whose
//! generation is used up is retired (after 2³² registrations on that one index).
//!
//! The table keeps a share of each source and the number it had when it was registered (`R`, a
//! descriptor mostly). Because of the share, the number stays valid; because of the number, no user
//! code (`as_fd`) has to be called again.

use std::io;

use crate::error::not_registered;
use crate::{Interest, Key, Source, Token};

/// Where the operating system stands with a source.
///
/// | from | to | when |
/// |---|---|---|
/// | `Unwatched` | `Watched` | it gets an interest, and the backend takes it |
/// | `Unwatched` | `AlwaysReady` | it gets an interest, and the backend says it cannot block |
/// | `Watched` | `Unwatched` | its interest becomes none, or the backend fails |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// The operating system does not know it.
    Unwatched,
    /// The operating system reports it.
    Watched,
    /// The operating system will never report it, because it is never not ready.
    AlwaysReady,
}

#[derive(Debug)]
pub(crate) struct Entry<R> {
    pub(crate) source: Source,
    pub(crate) data: u64,
    pub(crate) raw: R,
    pub(crate) interest: Interest,
    pub(crate) watch: Watch,
}

#[derive(Debug)]
struct Slot<R> {
    generation: u32,
    entry: Option<Entry<R>>,
}

/// The registrations of one selector.
#[derive(Debug)]
pub(crate) struct Table<R> {
    slots: Vec<Slot<R>>,
    free: Vec<u32>,
    /// The indices of the entries that are [`Watch::AlwaysReady`], in the order of their becoming so.
    always_ready: Vec<u32>,
}

/// More sources than this have no index. The highest index is left out so that no token is
/// `u64::MAX`, which backends use for their doorbell.
const MAX_SOURCES: usize = u32::MAX as usize - 1;

impl<R> Default for Table<R> {
    fn default() -> Table<R> {
        Table { slots: Vec::new(), free: Vec::new(), always_ready: Vec::new() }
    }
}

impl<R: Copy> Table<R> {
    /// Adds a source with no interest.
    pub(crate) fn insert(&mut self, source: Source, raw: R, data: u64) -> io::Result<Token> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < MAX_SOURCES => {
                self.slots.push(Slot { generation: 0, entry: None });
                (self.slots.len() - 1) as u32
            }
            None => return Err(io::Error::other("no selector has room for more sources")),
        };
        let slot = &mut self.slots[index as usize];
        let entry = Entry { source, data, raw, interest: Interest::NONE, watch: Watch::Unwatched };
        debug_assert!(slot.entry.is_none(), "a free index is vacant");
        slot.entry = Some(entry);
        Ok(Token::new(index, slot.generation))
    }

    pub(crate) fn get(&self, token: Token) -> Option<&Entry<R>> {
        let slot = self.slots.get(token.index())?;
        slot.entry.as_ref().filter(|_| slot.generation == token.generation())
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> io::Result<&mut Entry<R>> {
        let slot = self.slots.get_mut(token.index()).ok_or_else(not_registered)?;
        let current = slot.generation == token.generation();
        slot.entry.as_mut().filter(|_| current).ok_or_else(not_registered)
    }

    /// Takes an entry out and makes its token stale.
    pub(crate) fn remove(&mut self, token: Token) -> io::Result<Entry<R>> {
        self.set_always_ready(token, false);
        let slot = self.slots.get_mut(token.index()).ok_or_else(not_registered)?;
        if slot.generation != token.generation() {
            return Err(not_registered());
        }
        let entry = slot.entry.take().ok_or_else(not_registered)?;
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(token.index() as u32);
        }
        Ok(entry)
    }

    /// Makes an entry one that is always ready, or unwatched.
    pub(crate) fn set_always_ready(&mut self, token: Token, always: bool) {
        let Ok(entry) = self.get_mut(token) else { return };
        let index = token.index() as u32;
        match (entry.watch, always) {
            (Watch::AlwaysReady, false) => {
                entry.watch = Watch::Unwatched;
                self.always_ready.retain(|other| *other != index);
            }
            (Watch::Unwatched, true) => {
                entry.watch = Watch::AlwaysReady;
                self.always_ready.push(index);
            }
            _ => {}
        }
    }

    /// The entries that need no wait, with the sides they wait for.
    pub(crate) fn ready_now(&self) -> impl Iterator<Item = (Token, Interest)> + '_ {
        self.always_ready.iter().filter_map(|index| {
            let slot = &self.slots[*index as usize];
            let interest = slot.entry.as_ref()?.interest & ALWAYS;
            (!interest.is_none()).then_some((Token::new(*index, slot.generation), interest))
        })
    }

    /// The next batch of [`ready_now`](Self::ready_now) starts with somebody else.
    pub(crate) fn rotate_always_ready(&mut self, by: usize) {
        let len = self.always_ready.len();
        if len > 0 {
            self.always_ready.rotate_left(by % len);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Token, &Entry<R>)> + '_ {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            Some((Token::new(index as u32, slot.generation), slot.entry.as_ref()?))
        })
    }

    /// The token that is alive at an index, or one that is not.
    #[cfg(not(target_pointer_width = "64"))]
    pub(crate) fn token_at(&self, index: usize) -> Token {
        Token::new(index as u32, self.slots.get(index).map_or(0, |slot| slot.generation))
    }

    pub(crate) fn key(&self, token: Token) -> Option<Key> {
        self.get(token).map(|entry| entry.key(token))
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.iter().map(|(token, entry)| entry.key(token)).collect()
    }
}

/// What a file that never blocks is always ready for.
const ALWAYS: Interest = Interest::from_low_bits(3);

impl<R> Entry<R> {
    fn key(&self, token: Token) -> Key {
        Key::new(token, self.source.clone(), self.interest, self.data)
    }
}
