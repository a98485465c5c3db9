//! Tests for datagram endpoints: a protocol that records, a conformance suite.

mod check;
mod record;

pub use check::{DatagramBench, check_datagrams};
pub use record::{DatagramCall, DatagramMoment, DatagramRecord, DatagramRecorder};
