//! Standard input, output and error as streams.

use std::io;

use tulipa_loop::LoopHandle;
use tulipa_protocols::PipeLink;

use crate::protocol::StreamProtocol;
use crate::{DEFAULT_LIMIT, StreamReader, StreamWriter};

/// Standard input as a stream, on the running loop: what asyncio does with `connect_read_pipe(…, sys.stdin)`.
///
/// ```no_run
/// # let event_loop = tulipa_loop::EventLoop::new()?;
/// # event_loop.run_until_complete(async {
/// let mut stdin = tulipa_streams::stdin()?;
/// loop {
///     let line = stdin.read_line().await?;
///     if line.is_empty() {
///         break;
///     }
/// }
/// # Ok::<(), tulipa_streams::ReadError>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It may be a terminal, a pipe, a socket, a file (`program < file`), or `/dev/null`. No thread reads it, so an unfinished
/// read never keeps the program from ending. A file is read on the loop's thread, as it is never not ready.
///
/// Descriptor 0 stays open and its flags stay as they are, which other programs on the same terminal see: how that is
/// done is said at [`PipeLink`]. It bypasses the buffer of [`std::io::stdin`]; use one of the two. Every
/// call gives a stream of its own, which shares the input with those before it.
///
/// # Errors
/// As [`PipeLink::stdin`]; [`NotConnected`](io::ErrorKind::NotConnected) if the loop is closed.
///
/// # Panics
/// Outside of a running loop.
pub fn stdin() -> io::Result<StreamReader> {
    Ok(streams(PipeLink::stdin()?)?.0)
}

/// Standard output as a stream, on the running loop.
///
/// What is written leaves when the task waits, as with every [`StreamWriter`]: `flush().await` before the program
/// ends, or what did not leave is lost. When nobody reads it any more the stream is closed, and with bytes left its
/// error is of the kind [`BrokenPipe`](io::ErrorKind::BrokenPipe).
///
/// Descriptor 1 stays open and its flags stay as they are, as with [`stdin`]. It bypasses the buffer of
/// [`std::io::stdout`], and `println!` that uses it: flush that before.
///
/// # Errors
/// As [`PipeLink::stdout`]; [`NotConnected`](io::ErrorKind::NotConnected) if the loop is closed.
///
/// # Panics
/// Outside of a running loop.
pub fn stdout() -> io::Result<StreamWriter> {
    Ok(streams(PipeLink::stdout()?)?.1)
}

/// Standard error as a stream, on the running loop; all else is as with [`stdout`].
///
/// # Errors
/// As there.
///
/// # Panics
/// Outside of a running loop.
pub fn stderr() -> io::Result<StreamWriter> {
    Ok(streams(PipeLink::stderr()?)?.1)
}

fn streams(link: PipeLink) -> io::Result<(StreamReader, StreamWriter)> {
    StreamProtocol::attach(&LoopHandle::current(), link, DEFAULT_LIMIT)
}
