//! The protocol under the streams: it reads nothing by itself, it only wakes the task that does.

use std::io;
use std::rc::Rc;

use tulipa_loop::LoopHandle;
use tulipa_protocols::{AfterEof, Link, Protocol, Transport, attach};

use crate::shared::{End, Halves, Shared};
use crate::{DEFAULT_LIMIT, StreamReader, StreamWriter};

type Made = Box<dyn FnOnce(StreamReader, StreamWriter)>;

/// Makes streams of a connection. Stands for `StreamReaderProtocol`; [`open_connection`](crate::open_connection)
/// and [`start_server`](crate::start_server) use it.
///
/// The peer's end leaves the connection open for writing, as in asyncio.
pub struct StreamProtocol {
    shared: Rc<Shared>,
    limit: usize,
    made: Option<Made>,
}

/// When a connection fails with more than this unread, the rest is dropped: what a reader that is behind
/// may still get.
const MOST_RESCUED: usize = 1024 * 1024;

impl StreamProtocol {
    /// A protocol that calls `made` with the streams when the connection is there.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub fn new(made: impl FnOnce(StreamReader, StreamWriter) + 'static) -> StreamProtocol {
        StreamProtocol::with_limit(DEFAULT_LIMIT, made)
    }

    /// The same with a limit for the reader, in bytes.
    ///
    /// # Panics
    /// Outside of a running loop; if `limit` is 0.
    #[track_caller]
    pub fn with_limit(
        limit: usize,
        made: impl FnOnce(StreamReader, StreamWriter) + 'static,
    ) -> StreamProtocol {
        assert!(limit > 0, "the limit of a stream must be above 0");
        let shared = Shared::new(&LoopHandle::current());
        StreamProtocol { shared, limit, made: Some(Box::new(made)) }
    }

    /// Streams in the place of the protocol that a transport has. `leftover` is what that one was given
    /// and did not use.
    ///
    /// # Panics
    /// Outside of a running loop; if `limit` is 0.
    #[track_caller]
    pub fn take_over(
        transport: &Transport,
        leftover: &[u8],
        limit: usize,
    ) -> (StreamReader, StreamWriter) {
        assert!(limit > 0, "the limit of a stream must be above 0");
        let shared = Shared::new(&LoopHandle::current());
        let streams = streams(transport, &shared, limit);
        let protocol = StreamProtocol { shared, limit, made: None };
        transport.set_protocol(protocol, leftover);
        streams
    }

    /// Streams over a link.
    #[track_caller]
    pub(crate) fn attach(
        handle: &LoopHandle,
        link: impl Link + 'static,
        limit: usize,
    ) -> io::Result<(StreamReader, StreamWriter)> {
        assert!(limit > 0, "the limit of a stream must be above 0");
        let shared = Shared::new(handle);
        let protocol = StreamProtocol { shared: shared.clone(), limit, made: None };
        let connection = attach(handle, link, protocol)?;
        Ok(streams(connection.transport(), &shared, limit))
    }

    /// Streams for a connection whose protocol this is.
    fn streams(&self, transport: &Transport) -> (StreamReader, StreamWriter) {
        streams(transport, &self.shared, self.limit)
    }
}

fn streams(
    transport: &Transport,
    shared: &Rc<Shared>,
    limit: usize,
) -> (StreamReader, StreamWriter) {
    let halves = Halves::new(transport.clone());
    let reader = StreamReader::new(halves.clone(), shared.clone(), limit);
    (reader, StreamWriter::new(halves, shared.clone()))
}

impl Protocol for StreamProtocol {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        if let Some(made) = self.made.take() {
            let (reader, writer) = self.streams(transport);
            made(reader, writer);
        }
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        self.shared.rescue(data);
        Ok(())
    }

    fn readable(&mut self, transport: &Transport) -> io::Result<()> {
        self.shared.wake_reader();
        if transport.is_closing() {
            // Writing has failed, and the connection ends when it has been read: the last chance.
            self.shared.rescue_from(transport, MOST_RESCUED);
        }
        Ok(())
    }

    fn eof_received(&mut self, _: &Transport) -> io::Result<AfterEof> {
        Ok(AfterEof::KeepOpen)
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        self.shared.set_end(error.map_or(End::Closed, End::Failed));
        self.shared.wake_reader();
    }
}

impl Shared {
    fn rescue_from(&self, transport: &Transport, most: usize) {
        if self.rescued_len() < most {
            transport.read_with(|data| self.rescue(data));
        }
    }
}

impl std::fmt::Debug for StreamProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamProtocol").field("limit", &self.limit).finish_non_exhaustive()
    }
}
