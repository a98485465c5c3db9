//! Streams over links, and pairs of streams that are connected with each other.

use std::io;
use std::os::unix::net::UnixStream;

use tulipa_loop::LoopHandle;
use tulipa_protocols::{Link, SocketLink};

use crate::protocol::StreamProtocol;
use crate::{DEFAULT_LIMIT, StreamReader, StreamWriter};

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
/// Between them is a pair of Unix sockets, so that there is back-pressure. In virtual time use
/// [`open_link`] with a link through memory.
///
/// # Errors
/// What the operating system says when it has no more descriptors.
///
/// # Cancel safety
/// Dropping the future closes both.
///
/// # Panics
/// Outside of a running loop.
pub async fn duplex() -> io::Result<(Streams, Streams)> {
    let (near, far) = UnixStream::pair()?;
    let near = open_link(SocketLink::adopt(near)?, DEFAULT_LIMIT).await?;
    let far = open_link(SocketLink::adopt(far)?, DEFAULT_LIMIT).await?;
    Ok((near, far))
}
