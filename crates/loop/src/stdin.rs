//! Standard input as a source of events.

use std::io;

use crate::{AsyncFd, LoopHandle};

/// Standard input, read as it comes: from a terminal, a pipe, a socket, or a file
/// (`program < file`).
///
/// It needs no thread, so an unfinished read never keeps the program from ending. It leaves the
/// descriptor's flags alone, because they belong to everybody who shares the terminal: it reads once
/// for each time that there is something to read. It bypasses the buffer of [`std::io::stdin`]; use
/// one of the two.
///
/// For callbacks, give `Source::new(std::io::stdin())` to [`LoopHandle::add_reader`].
///
/// # Platform
/// unix. Should another process read the same terminal at the same moment, a read may block until
/// the next input.
#[derive(Debug)]
pub struct Stdin {
    fd: AsyncFd<io::Stdin>,
}

impl Stdin {
    /// Standard input on a loop.
    ///
    /// # Errors
    /// As [`AsyncFd::new`].
    pub fn new(handle: &LoopHandle) -> io::Result<Stdin> {
        Ok(Stdin { fd: AsyncFd::new(handle, io::stdin())? })
    }

    /// Waits for input and reads what is there, up to the length of `buffer`; 0 is the end.
    ///
    /// # Errors
    /// What the operating system says, and [`AsyncFd::readable`].
    ///
    /// # Cancel safety
    /// Nothing is read before this returns it.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.fd.readable().await?;
            match rustix::io::read(&*self.fd, &mut *buffer) {
                // Somebody else was faster, on a descriptor that is non-blocking.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                read => return Ok(read?),
            }
        }
    }
}
