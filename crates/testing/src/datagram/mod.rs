//! Tests for datagram endpoints: a protocol that records, a conformance suite.

mod record;

pub use record::{DatagramCall, DatagramMoment, DatagramRecord, DatagramRecorder};
