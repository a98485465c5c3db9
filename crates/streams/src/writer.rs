//! The writing half.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::RangeBounds;
use std::os::fd::AsFd;
use std::rc::Rc;

use bytes::Bytes;
use tulipa_protocols::{Address, Filter, Flow, Transport};

use crate::StreamReader;
use crate::poll_write::Wait;
use crate::shared::{Halves, Shared};

/// The writing half of a connection. Stands for `asyncio.StreamWriter`.
///
/// Clones are the same writer: any number of tasks may write and wait. When the reader and all writers are dropped
/// the connection is closed, after what was written has left.
///
/// # Order
/// Bytes leave in the order of the calls. Those of one task step leave together, when it waits or returns.
#[derive(Clone)]
pub struct StreamWriter {
    halves: Rc<Halves>,
    shared: Rc<Shared>,
    pub(crate) waiting: Wait,
}

impl StreamWriter {
    pub(crate) fn new(halves: Rc<Halves>, shared: Rc<Shared>) -> StreamWriter {
        StreamWriter { halves, shared, waiting: Wait::default() }
    }

    /// Counts a drain that has nothing to wait for, unless it is one that waits for a turn.
    pub(crate) fn drains_at_once(&self) -> bool {
        !self.shared.will_yield() && !self.shared.should_yield()
    }

    pub(crate) fn halves(&self) -> &Rc<Halves> {
        &self.halves
    }

    /// The transport below.
    pub fn transport(&self) -> &Transport {
        &self.halves.transport
    }

    /// Writes without waiting: what cannot be sent is queued. Follow it with [`drain`](Self::drain), or
    /// use [`write_all`](Self::write_all). Stands for `write`.
    pub fn write(&self, data: &[u8]) -> Flow {
        self.halves.transport.write(data)
    }

    /// Writes several pieces as one, without waiting. Stands for `writelines`.
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> Flow {
        self.halves.transport.write_vectored(pieces)
    }

    /// Writes bytes without copying them, and without waiting.
    pub fn write_bytes(&self, data: Bytes) -> Flow {
        self.halves.transport.write_bytes(data)
    }

    /// Writes all of `data`, waiting for room where there is none: never more than the transport's high
    /// limit and one piece of 256 KiB wait to be sent.
    ///
    /// # Errors
    /// As [`drain`](Self::drain), and after [`write_eof`](Self::write_eof).
    ///
    /// # Cancel safety
    /// What was queued before is sent; how much that is cannot be told. Not safe to begin again.
    pub async fn write_all(&self, data: &[u8]) -> io::Result<()> {
        for piece in data.chunks(PIECE) {
            match self.write(piece) {
                Flow::Ready => {}
                Flow::Full => self.drain().await?,
                Flow::Closed => {
                    self.drain().await?;
                    return Err(not_connected("cannot write: the output has been ended"));
                }
            }
        }
        Ok(())
    }

    /// Waits until there is room to write: at once if less waits than the high limit, else until it is
    /// down to the low one. Any number of tasks may wait. Stands for `drain`.
    ///
    /// # Errors
    /// Why the connection failed; [`NotConnected`](io::ErrorKind::NotConnected) if it is closed or
    /// closing, after one turn of the loop.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn drain(&self) -> io::Result<()> {
        let transport = &self.halves.transport;
        if transport.has_room() {
            if !self.shared.should_yield() {
                return Ok(());
            }
            tulipa_loop::yield_now().await;
        } else if transport.get_write_buffer_size() > transport.get_write_buffer_limits().high {
            transport.drained().await;
        }
        self.meet_the_end().await;
        self.check()
    }

    /// If the connection is closing: waits for a turn of the loop, so that nobody who ignores errors keeps it,
    /// and until it is known why, if that is going to be known without anybody doing anything.
    async fn meet_the_end(&self) {
        let transport = &self.halves.transport;
        if !transport.is_closing() {
            return;
        }
        tulipa_loop::yield_now().await;
        if transport.get_write_buffer_size() == 0 {
            transport.wait_closed().await;
        }
    }

    /// Waits until everything is written to the operating system. If nothing is left to be written it is
    /// `Ok`, also when the connection is closed.
    ///
    /// # Errors
    /// Why the connection failed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn flush(&self) -> io::Result<()> {
        self.halves.transport.flushed().await;
        self.meet_the_end().await;
        self.shared.failure().map_or(Ok(()), Err)
    }

    /// Sends a part of a file, or all of it with `..`, behind what was written before, and returns how many bytes
    /// that was. What is written meanwhile waits behind the file. All else is as with [`Transport::sendfile`]. Stands
    /// for `loop.sendfile`.
    ///
    /// # Errors
    /// As there; why the connection had failed before.
    ///
    /// # Cancel safety
    /// As there: the file is cut off where it was.
    pub async fn sendfile(
        &self,
        file: &impl AsFd,
        range: impl RangeBounds<u64>,
    ) -> io::Result<u64> {
        self.check()?;
        self.halves.transport.sendfile(file, range).await
    }

    /// Ends our side when everything is written; reading goes on. Stands for `write_eof`.
    pub fn write_eof(&self) {
        self.halves.transport.write_eof();
    }

    /// Closes the connection when everything is written. Stands for `close`.
    pub fn close(&self) {
        self.halves.transport.close();
    }

    /// Whether it is closing or closed. Stands for `is_closing`.
    pub fn is_closing(&self) -> bool {
        self.halves.transport.is_closing()
    }

    /// Waits until the connection is closed. Stands for `wait_closed`.
    ///
    /// # Errors
    /// Why it was closed, if it was not by us or in order.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_closed(&self) -> io::Result<()> {
        self.halves.transport.wait_closed().await;
        self.shared.failure().map_or(Ok(()), Err)
    }

    /// Our address. Stands for `get_extra_info('sockname')`.
    pub fn local_addr(&self) -> Option<Address> {
        self.halves.transport.local_addr()
    }

    /// The peer's address. Stands for `get_extra_info('peername')`.
    pub fn peer_addr(&self) -> Option<Address> {
        self.halves.transport.peer_addr()
    }

    /// Puts a filter between this connection and the peer, a TLS engine for example, and waits for its
    /// handshake. What was written before goes out as it is; what the reader has read and not given out goes
    /// through the filter, as all that comes. Stands for `start_tls`.
    ///
    /// # Errors
    /// As [`Transport::upgrade`], and why the handshake failed.
    ///
    /// # Panics
    /// If the reader is of another connection.
    ///
    /// # Cancel safety
    /// The handshake goes on without anybody waiting for it.
    pub async fn upgrade(
        &self,
        reader: &mut StreamReader,
        filter: impl Filter + 'static,
    ) -> io::Result<()> {
        let transport = &self.halves.transport;
        assert!(reader.transport() == transport, "both halves must be of one connection");
        transport.upgrade(filter, reader.unused())?;
        reader.forget_unused();
        self.opened().await
    }

    /// Waits for the end of a handshake.
    pub(crate) async fn opened(&self) -> io::Result<()> {
        let transport = &self.halves.transport;
        transport.opened().await;
        if transport.is_closing() {
            // Why is known when the protocol was told.
            transport.wait_closed().await;
        }
        self.check()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.shared.has_ended()
    }

    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.shared.failure()
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        if let Some(error) = self.shared.failure() {
            return Err(error);
        }
        if self.is_closing() {
            return Err(not_connected("cannot write: the connection is closed"));
        }
        Ok(())
    }
}

fn not_connected(error: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, error)
}

/// What [`StreamWriter::write_all`] and `poll_write` write between two looks at the flow.
pub(crate) const PIECE: usize = 256 * 1024;

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWriter")
            .field("transport", &self.halves.transport)
            .finish_non_exhaustive()
    }
}
