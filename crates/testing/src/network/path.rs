//! What the way between two hosts is like.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How many bytes are on their way at most, unless it is said otherwise: what a socket's buffer holds.
const BUFFER: usize = 64 * 1024;

/// What the way between two hosts is like, in each direction. The default is a way that takes no time.
///
/// ```
/// use std::time::Duration;
/// use tulipa_testing::{Chunking, Path};
///
/// let satellite = Path::new()
///     .latency(Duration::from_millis(250)..=Duration::from_millis(300))
///     .bandwidth(100_000)
///     .chunking(Chunking::Random);
/// # let _ = satellite;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub(crate) latency: RangeInclusive<Duration>,
    pub(crate) bandwidth: Option<u64>,
    pub(crate) buffer: usize,
    pub(crate) chunking: Chunking,
}

/// In which pieces the bytes of a stream are received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Chunking {
    /// All that has arrived at once.
    #[default]
    Whole,
    /// One byte at a time: what any protocol has to get along with.
    OneByte,
    /// In pieces of random sizes, which also arrive at different times.
    Random,
}

impl Path {
    /// One that takes no time.
    pub fn new() -> Path {
        let latency = Duration::ZERO..=Duration::ZERO;
        Path { latency, bandwidth: None, buffer: BUFFER, chunking: Chunking::Whole }
    }

    /// How long bytes are on their way; each piece takes another time in this range, and none overtakes
    /// another.
    pub fn latency(mut self, latency: RangeInclusive<Duration>) -> Path {
        self.latency = latency;
        self
    }

    /// How many bytes a second can be sent; any number unless it is set.
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Path {
        self.bandwidth = Some(bytes_per_second.max(1));
        self
    }

    /// How many bytes each direction of a connection holds that were written and not read: writing blocks
    /// above it. 64 KiB unless it is set.
    pub fn buffer(mut self, bytes: usize) -> Path {
        self.buffer = bytes.max(1);
        self
    }

    /// In which pieces bytes are received.
    pub fn chunking(mut self, chunking: Chunking) -> Path {
        self.chunking = chunking;
        self
    }
}

impl Default for Path {
    fn default() -> Path {
        Path::new()
    }
}
