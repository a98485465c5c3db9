//! Tests for programs on an event loop: a [`VirtualLoop`] runs them in virtual time.
//!
//! ```
//! use std::cell::Cell;
//! use std::rc::Rc;
//! use std::time::Duration;
//! use tulipa_testing::VirtualLoop;
//!
//! let virtual_loop = VirtualLoop::new();
//! let fired = Rc::new(Cell::new(false));
//! virtual_loop.call_later(Duration::from_secs(3600), {
//!     let fired = fired.clone();
//!     move |_| fired.set(true)
//! });
//! virtual_loop.advance(Duration::from_secs(3599));
//! assert!(!fired.get());
//! virtual_loop.advance(Duration::from_secs(1)); // takes microseconds
//! assert!(fired.get());
//! ```
//!
//! # Limits
//! A `VirtualLoop` has no descriptors: readers and transports over sockets need a real loop.

#![forbid(unsafe_code)]

#[cfg(unix)]
mod transport;
mod virtual_loop;

#[cfg(unix)]
pub use transport::{
    Call, Counts, MemoryLink, Moment, Pair, Record, Recorder, ToyRecords, TransportBench,
    check_transport,
};
pub use virtual_loop::VirtualLoop;
