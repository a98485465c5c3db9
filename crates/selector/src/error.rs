//! Errors that name the operation and the descriptor.

use std::fmt;
use std::io;

use crate::RawSource;

/// What went wrong around an error of the operating system: the payload of the [`io::Error`]s that
/// a selector returns, whose kind is that of the cause.
#[derive(Debug)]
pub struct SelectorError {
    operation: &'static str,
    source: Option<RawSource>,
    cause: io::Error,
}

impl SelectorError {
    /// The descriptor or socket it was about.
    pub fn raw_source(&self) -> Option<RawSource> {
        self.source
    }

    /// The operating system's own error.
    pub fn cause(&self) -> &io::Error {
        &self.cause
    }
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Some(raw) => write!(f, "cannot {} descriptor {raw}: {}", self.operation, self.cause),
            None => write!(f, "cannot {}: {}", self.operation, self.cause),
        }
    }
}

impl std::error::Error for SelectorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// The error of an operation on the selector as a whole.
pub(crate) fn cannot(operation: &'static str, cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), SelectorError { operation, source: None, cause })
}

/// The error of an operation on one descriptor.
pub(crate) fn cannot_with(operation: &'static str, raw: RawSource, cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), SelectorError { operation, source: Some(raw), cause })
}

pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the selector is closed")
}

pub(crate) fn not_registered() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such registration")
}
