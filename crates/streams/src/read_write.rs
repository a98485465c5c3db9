//! Both halves as one thing that reads and writes, for libraries that want that.

use crate::{StreamReader, StreamWriter};

/// A reader and a writer as one: for libraries that ask for a stream which can both. It reads and writes by
/// futures-io's traits, and by those of tokio and hyper with their features.
#[derive(Debug)]
pub struct ReadWrite {
    /// The half that reads.
    pub reader: StreamReader,
    /// The half that writes.
    pub writer: StreamWriter,
}

impl ReadWrite {
    /// Puts two halves together; they may be of two connections.
    pub fn new(reader: StreamReader, writer: StreamWriter) -> ReadWrite {
        ReadWrite { reader, writer }
    }

    /// Takes them apart again.
    pub fn split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}

impl From<(StreamReader, StreamWriter)> for ReadWrite {
    fn from((reader, writer): (StreamReader, StreamWriter)) -> ReadWrite {
        ReadWrite::new(reader, writer)
    }
}
