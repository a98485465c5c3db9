//! The only module with `unsafe` code.
#![allow(unsafe_code)]

#[cfg(all(unix, feature = "signal"))]
mod signals;
mod thread_bound;

#[cfg(all(unix, feature = "signal"))]
pub(crate) use signals::{Listener, is_default};
pub(crate) use thread_bound::ThreadBound;
