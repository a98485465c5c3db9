//! asyncio's streams for Rust: connections that are read and written as if it blocked.
//!
//! ```
//! use tulipa_loop::EventLoop;
//! use tulipa_streams::{open_connection, start_server};
//!
//! let event_loop = EventLoop::new()?;
//! let answer = event_loop.run_until_complete(async {
//!     let server = start_server("127.0.0.1:0", async |mut reader, writer| {
//!         let line = reader.read_line().await?.to_ascii_uppercase();
//!         writer.write(&line);
//!         std::io::Result::Ok(())
//!     })
//!     .await?;
//!     let address = server.local_addrs()[0].inet().expect("it is an internet address");
//!     let (mut reader, writer) = open_connection(address).await?;
//!     writer.write(b"hello\n");
//!     std::io::Result::Ok(reader.read_line().await?.to_vec())
//! })??;
//! assert_eq!(answer, b"HELLO\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg(unix)]

pub mod codec;
mod copy;
mod duplex;
mod error;
pub mod fs;
mod futures_io;
#[cfg(feature = "hyper")]
mod hyper_io;
mod lines;
mod open;
mod poll_write;
mod protocol;
mod read_write;
mod reader;
mod shared;
#[cfg(feature = "tokio-io")]
mod tokio_io;
mod writer;

pub use copy::{copy, copy_bidirectional};
pub use duplex::{Streams, duplex, open_link};
pub use error::{IncompleteRead, LimitOverrun, ReadError};
#[cfg(feature = "hyper")]
#[cfg_attr(docsrs, doc(cfg(feature = "hyper")))]
pub use hyper_io::{LoopExecutor, LoopTimer};
pub use lines::{Line, Lines};
pub use open::{
    DEFAULT_LIMIT, HandlerResult, open_connection, open_connection_with, open_unix_connection,
    start_server, start_server_with, start_unix_server,
};
pub use protocol::StreamProtocol;
pub use read_write::ReadWrite;
pub use reader::StreamReader;
pub use writer::StreamWriter;
