//! What can be wrong with a read.

use std::io;

/// Why a read gave less than was asked for. It becomes an [`io::Error`] where one is wanted, with itself
/// inside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The input ended too early.
    #[error(transparent)]
    Incomplete(#[from] IncompleteRead),
    /// More came than the limit allows, without what was looked for.
    #[error(transparent)]
    LimitOverrun(#[from] LimitOverrun),
    /// The connection has failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The input ended before all that was asked for had come. Stands for `IncompleteReadError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the input ended after {} bytes{}", partial.len(), of(expected))]
pub struct IncompleteRead {
    /// What did come; it is read with that.
    pub partial: Vec<u8>,
    /// How many bytes were asked for; `None` if a separator was.
    pub expected: Option<usize>,
}

fn of(expected: &Option<usize>) -> String {
    match expected {
        Some(expected) => format!(" of {expected}"),
        None => ", without the separator".to_owned(),
    }
}

/// The separator did not come within the limit. Stands for `LimitOverrunError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{consumed} bytes have come without the separator, more than the limit of {limit}")]
pub struct LimitOverrun {
    /// How many bytes were looked at and can be consumed.
    pub consumed: usize,
    /// The reader's limit.
    pub limit: usize,
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> io::Error {
        match error {
            ReadError::Incomplete(error) => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            ReadError::LimitOverrun(error) => io::Error::new(io::ErrorKind::InvalidData, error),
            ReadError::Io(error) => error,
        }
    }
}
