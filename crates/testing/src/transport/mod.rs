//! Tests for transports: a protocol that records, a link through memory, a toy filter, a conformance suite.

mod check;
mod checks;
mod memory;
mod record;
mod records;

pub use check::{Pair, TransportBench, check_transport};
pub use memory::MemoryLink;
pub use record::{Call, Moment, Record, Recorder};
pub use records::{Counts, ToyRecords};
