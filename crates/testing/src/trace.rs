//! What happened in a simulation: a hash of it always, and its lines where somebody wants to read them.

use std::fmt::{self, Write};
use std::time::Duration;

/// A trace that is kept has at most so many lines; the hash goes on. More than anybody reads.
const MOST_LINES: usize = 1_000_000;

/// What happened, event by event. Two runs with the same hash were the same run.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: Hasher,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new() -> Trace {
        Trace { hash: Hasher(FNV_BASIS), events: 0, lines: None }
    }

    /// Keeps the lines from now on.
    pub(crate) fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// Writes an event down, at the time `at` since the start.
    pub(crate) fn note(&mut self, at: Duration, event: fmt::Arguments<'_>) {
        self.events += 1;
        let _ = writeln!(self.hash, "{} {event}", at.as_nanos());
        if let Some(lines) = self.lines.as_mut().filter(|lines| lines.len() < MOST_LINES) {
            lines.push(format!("{:>14.6} {event}", at.as_secs_f64()));
        }
    }

    /// The hash of all events and their times.
    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The events as text, if they were kept.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a: the standard library's hashers promise no values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher(pub(crate) u64);

impl Hasher {
    pub(crate) fn new() -> Hasher {
        Hasher(FNV_BASIS)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }
}

impl Write for Hasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
