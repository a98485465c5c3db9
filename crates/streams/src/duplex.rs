//! Streams over links, and pairs of streams that are connected with each other.

use std::io;

use tulipa_loop::LoopHandle;
use tulipa_protocols::{Link, MemoryLink};

use crate::protocol::StreamProtocol;
use crate::{DEFAULT_LIMIT, StreamReader, StreamWriter};

/// How many bytes a [`duplex()`] holds each way: as many as a transport gathers before it is full.
const DUPLEX: usize = 64 * 1024;

/// The two halves of one end.
pub type Streams = (StreamReader, StreamWriter);

/// Streams over a [`Link`], on the running loop: a socket, a simulated network, a device. Waits until the link is
/// [open](Link::open). `limit` is the reader's, in bytes.
///
/// # Errors
/// Why it could not be opened; [`NotConnected`](io::ErrorKind::NotConnected) if the loop is closed.
///
/// # Cancel safety
/// Dropping the future closes the link.
///
/// # Panics
/// Outside of a running loop; if `limit` is 0.
pub async fn open_link(link: impl Link + 'static, limit: usize) -> io::Result<Streams> {
    let (reader, writer) = StreamProtocol::attach(&LoopHandle::current(), link, limit)?;
    writer.opened().await?;
    Ok((reader, writer))
}

/// Two ends that are connected with each other, on the running loop: what is written to one is read from
/// the other. For tests, and for tasks that talk in bytes.
///
/// ```
/// # let event_loop = tulipa_loop::EventLoop::new()?;
/// # event_loop.run_until_complete(async {
/// let ((mut reader, _), (_, writer)) = tulipa_streams::duplex().await?;
/// writer.write(b"to the other end\n");
/// assert_eq!(reader.read_line().await?, b"to the other end\n");
/// # Ok::<(), tulipa_streams::ReadError>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Between them is memory, 64 KiB each way, so that there is back-pressure; there are no descriptors, and it
/// works by any clock. For another size use [`open_link`] with the ends of a [`MemoryLink::pair`].
///
/// # Errors
/// [`NotConnected`](io::ErrorKind::NotConnected) if the loop is being closed.
///
/// # Cancel safety
/// Dropping the future closes both.
///
/// # Panics
/// Outside of a running loop.
pub async fn duplex() -> io::Result<(Streams, Streams)> {
    let (near, far) = MemoryLink::pair(DUPLEX);
    let near = open_link(near, DEFAULT_LIMIT).await?;
    let far = open_link(far, DEFAULT_LIMIT).await?;
    Ok((near, far))
}
