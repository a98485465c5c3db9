//! What a registration waits for.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};

/// The sides of a source somebody waits for: any combination of readable, writable and priority.
///
/// Stands for Python's `EVENT_READ | EVENT_WRITE` masks. Unknown bits cannot be made, and the
/// empty set has a meaning of its own: [`Interest::NONE`] takes the source out of the operating
/// system's set, because a hang-up or an error cannot be masked while it is in there.
///
/// ```
/// use tulipa_selector::Interest;
///
/// let both = Interest::READABLE | Interest::WRITABLE;
/// assert!(both.is_writable());
/// assert_eq!(both - Interest::WRITABLE, Interest::READABLE);
/// assert!((both & Interest::PRIORITY).is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Interest(u8);

impl Interest {
    /// Nothing: the source stays registered here, and leaves the operating system's set.
    pub const NONE: Interest = Interest(0);
    /// Data, an end of file or a new connection can be taken without blocking.
    pub const READABLE: Interest = Interest(1);
    /// Data can be written, or a connection attempt has ended.
    pub const WRITABLE: Interest = Interest(2);
    /// Something exceptional is there: out-of-band data, a state change of a pseudo-terminal.
    pub const PRIORITY: Interest = Interest(4);

    /// Whether nothing is waited for.
    #[must_use = "this only asks"]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether [`READABLE`](Self::READABLE) is included.
    #[must_use = "this only asks"]
    pub const fn is_readable(self) -> bool {
        self.contains(Self::READABLE)
    }

    /// Whether [`WRITABLE`](Self::WRITABLE) is included.
    #[must_use = "this only asks"]
    pub const fn is_writable(self) -> bool {
        self.contains(Self::WRITABLE)
    }

    /// Whether [`PRIORITY`](Self::PRIORITY) is included.
    #[must_use = "this only asks"]
    pub const fn is_priority(self) -> bool {
        self.contains(Self::PRIORITY)
    }

    /// Whether all of `other` is included.
    #[must_use = "this only asks"]
    pub const fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// The interest made of the lowest three bits.
    pub(crate) const fn from_low_bits(bits: u8) -> Interest {
        Interest(bits & 7)
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

impl BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Interest) {
        *self = *self | other;
    }
}

impl BitAnd for Interest {
    type Output = Interest;

    fn bitand(self, other: Interest) -> Interest {
        Interest(self.0 & other.0)
    }
}

impl Sub for Interest {
    type Output = Interest;

    /// What is in `self` and not in `other`.
    fn sub(self, other: Interest) -> Interest {
        Interest(self.0 & !other.0)
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_flags(
            f,
            &[
                (self.is_readable(), "READABLE"),
                (self.is_writable(), "WRITABLE"),
                (self.is_priority(), "PRIORITY"),
            ],
        )
    }
}

/// Writes the names of the flags that are set as `A | B`, or `NONE`.
pub(crate) fn write_flags(f: &mut fmt::Formatter<'_>, flags: &[(bool, &str)]) -> fmt::Result {
    let mut names = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name);
    f.write_str(names.next().unwrap_or("NONE"))?;
    names.try_for_each(|name| write!(f, " | {name}"))
}
