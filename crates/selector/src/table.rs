//! Who is registered with a selector.
//!
//! The table keeps a share of each source and the number it had when it was registered (`R`, a
//! descriptor mostly). Because of the share, the number stays valid; because of the number, no user
//! code (`as_fd`) has to be called again.

use std::io;

use crate::error::not_registered;
use crate::{Interest, Key, Slots, Source, Token};

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

/// The registrations of one selector.
#[derive(Debug)]
pub(crate) struct Table<R> {
    entries: Slots<Entry<R>>,
    /// The entries that are [`Watch::AlwaysReady`], in the order of their becoming so.
    always_ready: Vec<Token>,
}

/// What a file that never blocks is always ready for.
const ALWAYS: Interest = Interest::from_low_bits(3);

impl<R> Default for Table<R> {
    fn default() -> Table<R> {
        Table { entries: Slots::new(), always_ready: Vec::new() }
    }
}

impl<R: Copy> Table<R> {
    /// Adds a source with no interest.
    pub(crate) fn insert(&mut self, source: Source, raw: R, data: u64) -> io::Result<Token> {
        let entry = Entry { source, data, raw, interest: Interest::NONE, watch: Watch::Unwatched };
        let full = |_| io::Error::other("a selector has no room for more sources");
        self.entries.insert(entry).map_err(full)
    }

    pub(crate) fn get(&self, token: Token) -> Option<&Entry<R>> {
        self.entries.get(token)
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> io::Result<&mut Entry<R>> {
        self.entries.get_mut(token).ok_or_else(not_registered)
    }

    /// Takes an entry out and makes its token stale.
    pub(crate) fn remove(&mut self, token: Token) -> io::Result<Entry<R>> {
        let entry = self.entries.remove(token).ok_or_else(not_registered)?;
        if entry.watch == Watch::AlwaysReady {
            self.always_ready.retain(|other| *other != token);
        }
        Ok(entry)
    }

    /// Makes an unwatched entry one that is always ready.
    pub(crate) fn set_always_ready(&mut self, token: Token) -> io::Result<()> {
        self.get_mut(token)?.watch = Watch::AlwaysReady;
        self.always_ready.push(token);
        Ok(())
    }

    /// The entries that need no wait, with the sides they wait for.
    pub(crate) fn ready_now(&self) -> impl Iterator<Item = (Token, Interest)> + '_ {
        self.always_ready.iter().filter_map(|token| {
            let interest = self.get(*token)?.interest & ALWAYS;
            (!interest.is_none()).then_some((*token, interest))
        })
    }

    /// The next batch of [`ready_now`](Self::ready_now) starts with somebody else.
    pub(crate) fn rotate_always_ready(&mut self, by: usize) {
        let len = self.always_ready.len();
        if len > 0 {
            self.always_ready.rotate_left(by % len);
        }
    }

    /// The token that is alive at an index.
    #[cfg(not(target_pointer_width = "64"))]
    pub(crate) fn token_at(&self, index: usize) -> Option<Token> {
        self.entries.key_at(index)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Token, &Entry<R>)> + '_ {
        self.entries.iter()
    }

    pub(crate) fn key(&self, token: Token) -> Option<Key> {
        self.get(token).map(|entry| entry.key(token))
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.iter().map(|(token, entry)| entry.key(token)).collect()
    }
}

impl<R> Entry<R> {
    fn key(&self, token: Token) -> Key {
        Key::new(token, self.source.clone(), self.interest, self.data)
    }
}
