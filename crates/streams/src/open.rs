//! Connections and servers with streams.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::Location;
use std::path::Path;
use std::rc::Rc;

use tulipa_loop::{ErrorContext, LoopHandle};
use tulipa_protocols::{Connect, Connection, Endpoint, Listen, Server, Transport};

use crate::protocol::StreamProtocol;
use crate::{StreamReader, StreamWriter};

/// How much a [`StreamReader`] looks through for a separator, unless said otherwise: asyncio's 64 KiB.
pub const DEFAULT_LIMIT: usize = 64 * 1024;

/// Connects to a host and gives the two halves of the connection. Stands for `open_connection`.
///
/// # Errors
/// As [`Connect::open`].
///
/// # Cancel safety
/// Dropping the future closes what was opened.
///
/// # Panics
/// Outside of a running loop.
pub async fn open_connection(
    endpoint: impl Into<Endpoint>,
) -> io::Result<(StreamReader, StreamWriter)> {
    open_connection_with(Connect::to(endpoint), DEFAULT_LIMIT).await
}

/// Connects to a Unix socket. Stands for `open_unix_connection`.
///
/// # Errors
/// As [`Connect::open`].
///
/// # Cancel safety
/// As [`open_connection`].
///
/// # Panics
/// Outside of a running loop.
pub async fn open_unix_connection(
    path: impl AsRef<Path>,
) -> io::Result<(StreamReader, StreamWriter)> {
    open_connection_with(Connect::to_unix(path.as_ref()), DEFAULT_LIMIT).await
}

/// Connects with options, and a limit for the reader in bytes.
///
/// # Errors
/// As [`Connect::open`].
///
/// # Cancel safety
/// As [`open_connection`].
///
/// # Panics
/// Outside of a running loop; if `limit` is 0.
pub async fn open_connection_with(
    connect: Connect,
    limit: usize,
) -> io::Result<(StreamReader, StreamWriter)> {
    assert!(limit > 0, "the limit of a stream must be above 0");
    let streams = Rc::new(RefCell::new(None));
    let made = streams.clone();
    let opened = connect.open(|| {
        StreamProtocol::with_limit(limit, move |reader, writer| {
            *made.borrow_mut() = Some((reader, writer));
        })
    });
    let _connection: Connection<StreamProtocol> = opened.await?;
    let streams = streams.borrow_mut().take();
    streams.ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// Serves a host's addresses: each connection runs `handler` in a task of its own. Stands for
/// `start_server`.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// let server = tulipa_streams::start_server("127.0.0.1:8080", async |mut reader, writer| {
///     loop {
///         let line = reader.read_line().await?;
///         if line.is_empty() {
///             return Ok::<(), tulipa_streams::ReadError>(());
///         }
///         writer.write(line);
///         writer.drain().await?;
///     }
/// })
/// .await?;
/// server.serve_forever().await
/// # }
/// ```
///
/// When the handler ends its connection is closed, after what was written has left, whether it returned,
/// failed, panicked or was cancelled. (asyncio leaves it open after a return.) An error is reported to the loop's
/// exception handler, a panic too; the server goes on.
///
/// # Errors
/// As [`Listen::serve`].
///
/// # Cancel safety
/// Dropping the future closes what was opened.
///
/// # Panics
/// Outside of a running loop.
#[track_caller]
pub fn start_server<H, R>(
    endpoint: impl Into<Endpoint>,
    handler: H,
) -> impl Future<Output = io::Result<Server>>
where
    H: AsyncFn(StreamReader, StreamWriter) -> R + 'static,
    R: HandlerResult,
{
    serve_at(Listen::on(endpoint), DEFAULT_LIMIT, handler, Location::caller())
}

/// Serves a Unix socket. Stands for `start_unix_server`.
///
/// # Errors
/// As [`start_server`].
///
/// # Cancel safety
/// As there.
///
/// # Panics
/// As there.
#[track_caller]
pub fn start_unix_server<H, R>(
    path: impl AsRef<Path>,
    handler: H,
) -> impl Future<Output = io::Result<Server>>
where
    H: AsyncFn(StreamReader, StreamWriter) -> R + 'static,
    R: HandlerResult,
{
    serve_at(Listen::on_unix(path.as_ref()), DEFAULT_LIMIT, handler, Location::caller())
}

/// Serves with options, and a limit for the readers in bytes.
///
/// # Errors
/// As [`start_server`].
///
/// # Cancel safety
/// As there.
///
/// # Panics
/// As there; if `limit` is 0.
#[track_caller]
pub fn start_server_with<H, R>(
    listen: Listen,
    limit: usize,
    handler: H,
) -> impl Future<Output = io::Result<Server>>
where
    H: AsyncFn(StreamReader, StreamWriter) -> R + 'static,
    R: HandlerResult,
{
    serve_at(listen, limit, handler, Location::caller())
}

async fn serve_at<H, R>(
    listen: Listen,
    limit: usize,
    handler: H,
    location: &'static Location<'static>,
) -> io::Result<Server>
where
    H: AsyncFn(StreamReader, StreamWriter) -> R + 'static,
    R: HandlerResult,
{
    assert!(limit > 0, "the limit of a stream must be above 0");
    let handler = Rc::new(handler);
    let factory = move || {
        let handler = handler.clone();
        StreamProtocol::with_limit(limit, move |reader, writer| {
            let guard = CloseAtEnd(writer.transport().clone());
            let task = tulipa_loop::spawn(async move {
                let guard = guard;
                let result = handler(reader, writer).await;
                result.report(&guard.0, location);
            });
            task.detach();
        })
    };
    listen.serve(factory).await
}

/// Closes a connection when its handler ends, however that comes.
struct CloseAtEnd(Transport);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What a server's handler may return: nothing, or a [`Result`] whose error is reported.
pub trait HandlerResult: 'static {
    /// Reports an error, if it is one.
    fn report(self, transport: &Transport, location: &'static Location<'static>);
}

impl HandlerResult for () {
    fn report(self, _: &Transport, _: &'static Location<'static>) {}
}

impl<T: 'static, E: Into<Box<dyn Error>> + 'static> HandlerResult for Result<T, E> {
    fn report(self, transport: &Transport, location: &'static Location<'static>) {
        let Err(error) = self else { return };
        let peer = transport.peer_addr().map_or_else(String::new, |peer| format!(" of {peer}"));
        let mut context = ErrorContext::error(format!("the handler{peer} failed"), error);
        context.location = Some(location);
        LoopHandle::current().call_exception_handler(context);
    }
}

impl fmt::Debug for CloseAtEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CloseAtEnd").field(&self.0).finish()
    }
}
