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
//!
//! # What it promises
//! - **Nothing is read that was not asked for**, but the rest of one read. A [`StreamReader`] that waits, or is
//!   not used, has no buffer.
//! - **Every read is cancel safe**: what was read and not returned stays in the reader.
//! - **Searching is linear**, however the bytes are cut into pieces, and stops at the reader's limit.
//! - **What came before a failure is read before the error.**
//! - **Writes of one task step leave together**, and in order. [`StreamWriter::drain`] waits for room, for any number
//!   of tasks at once.
//! - **A server's handler closes its connection when it ends**, and its error or panic is reported, once.
//! - **No connection leaks**: dropping both halves closes it after what was written.
//!
//! # Limits
//! Unix only: tested on Linux, checked for macOS and FreeBSD. A connection that nobody reads does not notice that the
//! peer is gone until it is written to. When writing has failed, at most 1 MiB of what had come is kept for the reader.
//! With `AsyncBufReadExt` of a library in scope, `reader.lines()` is that one's.
//!
//! # Features
//! None is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `tokio-io` | tokio's `AsyncRead`, `AsyncBufRead` and `AsyncWrite` for both halves, [`ReadWrite`] and [`SendReadWrite`]; of tokio only its traits |
//! | `hyper` | hyper's `Read` and `Write` for [`ReadWrite`] and [`SendReadWrite`], and its `Executor` and `Timer` over the loop |
//!
//! # Map
//! | module | what is in it |
//! |---|---|
//! | `open`, `duplex` | [`open_connection`], [`start_server`] and their kin; [`open_link`], [`duplex()`] |
//! | `datagram` | [`DatagramStream`] |
//! | `stdio` | [`stdin`], [`stdout`], [`stderr`] |
//! | `reader`, `lines` | [`StreamReader`], [`Lines`] |
//! | `writer`, `poll_write` | [`StreamWriter`], and writing by poll functions |
//! | `protocol`, `shared` | [`StreamProtocol`], the protocol under the streams, and what they share |
//! | `error` | [`ReadError`], [`IncompleteRead`], [`LimitOverrun`] |
//! | [`codec`] | frames: [`Framed`](codec::Framed), [`Frames`](codec::Frames), codecs |
//! | `copy` | [`copy()`], [`copy_bidirectional`] |
//! | [`fs`] | files on the executor |
//! | `read_write`, `send_read_write` | [`ReadWrite`]; [`SendReadWrite`], for those who want `Send` |
//! | `futures_io`, `tokio_io`, `hyper_io` | the traits of other libraries |
//!
//! It knows nothing of sockets, selectors or TLS.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg(unix)]

pub mod codec;
mod copy;
mod datagram;
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
mod send_read_write;
mod shared;
mod stdio;
#[cfg(feature = "tokio-io")]
mod tokio_io;
mod writer;

pub use copy::{copy, copy_bidirectional};
pub use datagram::DatagramStream;
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
pub use send_read_write::SendReadWrite;
pub use stdio::{stderr, stdin, stdout};
pub use writer::StreamWriter;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
