//! Tests for transports: a protocol that records, a toy filter, a conformance suite.

mod check;
mod checked;
mod checks;
mod record;
mod records;

pub use check::{Pair, TransportBench, check_transport};
pub use checked::Checked;
pub use record::{Call, Moment, Record, Recorder};
pub use records::{Counts, ToyRecords};
pub use tulipa_protocols::MemoryLink;
