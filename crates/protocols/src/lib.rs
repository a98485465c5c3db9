//! asyncio's transports and protocols for Rust: plain methods, called by the loop.
//!
//! ```
//! use std::io;
//! use tulipa_loop::EventLoop;
//! use tulipa_protocols::{Protocol, Transport, create_connection, create_server};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
//!         transport.write(data);
//!         Ok(())
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Greeter(Vec<u8>);
//!
//! impl Protocol for Greeter {
//!     fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
//!         transport.write(b"hello");
//!         Ok(())
//!     }
//!
//!     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
//!         self.0.extend_from_slice(data);
//!         if self.0 == b"hello" {
//!             transport.close();
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let event_loop = EventLoop::new()?;
//! event_loop.run_until_complete(async {
//!     let server = create_server("127.0.0.1:0", || Echo).await?;
//!     let address = server.local_addrs()[0].inet().expect("it is an internet address");
//!     let connection = create_connection(address, Greeter::default).await?;
//!     connection.wait_closed().await;
//!     server.shutdown(std::time::Duration::from_secs(1)).await;
//!     io::Result::Ok(())
//! })??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! No task, no future and no buffer belongs to a connection: the loop calls the methods of its
//! [`Protocol`], and the protocol calls those of its [`Transport`]. The same protocol runs over TCP, Unix
//! sockets, a [`Link`] of one's own, a [`Filter`] such as TLS, and in memory without a loop
//! ([`Detached`]).
//!
//! # What it promises
//! - **Order.** `connection_made`, then data, then `eof_received`, then `connection_lost`: see [`Protocol`]. Each
//!   connection that began ends with exactly one `connection_lost`, whatever happened in between.
//! - **Anything from anywhere.** Every method of every transport may be called inside of every callback, in
//!   every state: see the table of [`Transport`].
//! - **Bytes are kept in order.** What was accepted before a [`close`](Transport::close) arrives, or
//!   `connection_lost` has an error.
//! - **Flow control on every path.** All writes count, and pause and resume the protocol.
//! - **No peer ends more than its own connection.** A failure, and a panic of the program's, ends one
//!   connection, once. Nothing spins: what nobody reads is not watched.
//!
//! # Limits
//! Unix only: tested on Linux, checked for macOS and FreeBSD. One event reads at most 1 MiB for one connection, accepts at
//! most 64; what is left waits for the next turn. Closing a socket with unread input makes the
//! operating system reset the connection, as everywhere.
//!
//! # Map
//! | module | what is in it |
//! |---|---|
//! | `protocol` | [`Protocol`], [`BufferedProtocol`], [`AfterEof`]: what a program implements |
//! | `transport`, `options`, `connection` | [`Transport`], [`Flow`]; [`Connection`], [`attach`] |
//! | `state`, `input`, `output` | what is true of a connection, and every change of it |
//! | `talk` | what the protocol is told, when and in which order |
//! | `driver` | the loop's end: events, interests, timeouts |
//! | `write_queue`, `leaf` | what waits to be written; the buffers that connections share |
//! | `link`, `filter` | [`Link`], [`SocketLink`], [`Filter`], [`Filtered`]: where bytes go, and what changes them |
//! | `connect`, `listen`, `listener`, `server` | [`create_connection`], [`create_server`], their builders, [`Server`] |
//! | `datagram` | [`create_datagram_endpoint`], [`Datagrams`], [`DatagramProtocol`], [`DatagramTransport`]: endpoints of datagrams |
//! | `net_ext` | [`NetExt`]: the same as methods of a loop's handle |
//! | `network` | [`Network`], [`Acceptor`]: other networks than the operating system's |
//! | `resolve`, `address` | [`getaddrinfo`], [`Resolver`]; [`Address`], [`Endpoint`] |
//! | `socket`, `unix` | making sockets; the files of Unix sockets |
//! | `receivers` | [`LineReceiver`], [`LineOnlyReceiver`], [`NetstringReceiver`], [`Int32StringReceiver`]: messages in what comes |
//! | `policies` | [`IdleTimeout`], [`Deadline`], [`Throttle`], [`ConnectionLimits`], [`TrafficLog`]: protocols around protocols |
//! | `reconnecting`, `retry` | [`Reconnecting`], [`RetryPolicy`]: connections that are made again |
//! | `pipe` | [`Transport::pipe_to`], [`pipe_to`]: from one connection to another |
//! | `workers` | [`Workers`]: a loop for each core behind one address |
//! | `pipe_link` | [`connect_read_pipe`], [`connect_write_pipe`], [`PipeLink`]: pipes, terminals, standard input and output |
//! | `sock` | [`sock_recv`] and its kin: operations on plain sockets, descriptors that are passed |
//! | `send_file` | [`Transport::sendfile`] |
//! | `endpoints` | [`ServerEndpoint`], [`ClientEndpoint`]: endpoints as text |
//! | `sys` | the only `unsafe` code: [`take_inherited_fd`] |
//! | `detached` | [`Transport::detached`], [`Detached`]: tests without a loop |
//!
//! It knows nothing of TLS, of streams, or of what the bytes mean.

#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg(unix)]

mod address;
mod connect;
mod connection;
mod datagram;
mod detached;
mod driver;
mod endpoints;
mod filter;
mod input;
mod leaf;
mod link;
mod listen;
mod listener;
mod memory;
mod net_ext;
mod network;
mod options;
mod output;
mod pipe;
mod pipe_link;
mod policies;
mod protocol;
mod receivers;
mod reconnecting;
mod resolve;
mod retry;
mod scan;
mod send_file;
mod server;
mod sock;
mod socket;
mod state;
mod sys;
mod talk;
mod transport;
mod unix;
mod upgrade;
mod workers;
mod write_queue;

pub use address::Address;
pub use connect::{
    Connect, ConnectError, connect_accepted_socket, create_connection, create_unix_connection,
};
pub use connection::{Connection, Unavailable, attach};
pub use datagram::{
    Datagram, DatagramEndpoint, DatagramError, DatagramLink, DatagramProtocol, DatagramTransport,
    Datagrams, Destination, Received, create_datagram_endpoint,
};
pub use detached::{Detached, Probe};
pub use endpoints::{ClientEndpoint, EndpointError, ServerEndpoint};
pub use filter::{Filter, FilterState, Filtered};
pub use link::{Bell, Direction, Link, SocketLink};
pub use listen::{Listen, create_server, create_unix_server};
pub use memory::MemoryLink;
pub use net_ext::NetExt;
pub use network::{Acceptor, Dialing, Network, set_network};
pub use output::WriteBufferLimits;
pub use pipe::{PipeTo, pipe_to};
pub use pipe_link::{PipeLink, connect_read_pipe, connect_write_pipe};
pub use policies::{ConnectionLimits, Deadline, IdleTimeout, Lift, Limited, Throttle, TrafficLog};
pub use protocol::{AfterEof, Buffered, BufferedProtocol, Protocol};
pub use receivers::{
    AfterRaw, CrlfLine, Framing, Int8, Int8StringReceiver, Int16, Int16StringReceiver, Int32,
    Int32StringReceiver, IntPrefix, LineOnlyReceiver, LineProtocol, LineReceiver, Netstring,
    NetstringReceiver, Next, Receiver, StringProtocol, TooLong,
};
pub use reconnecting::{Reconnect, Reconnecting, ReconnectingBuilder};
pub use resolve::{
    AddrInfo, Endpoint, Family, Hints, Resolved, Resolver, SocketType, SystemResolver, getaddrinfo,
    getnameinfo, set_resolver,
};
pub use retry::{Retries, RetryPolicy};
pub use send_file::SendFileError;
pub use server::Server;
pub use sock::{
    MOST_FDS, SendAllError, SockPeer, sock_accept, sock_connect, sock_recv, sock_recv_fds,
    sock_recv_into, sock_recvfrom, sock_recvfrom_into, sock_send_fds, sock_sendall, sock_sendfile,
    sock_sendto,
};
pub use sys::take_inherited_fd;
pub use transport::{Flow, Transport};
pub use workers::{Distribution, WorkerPool, Workers};

/// For the crates above. Not part of the interface: it changes with any version.
#[doc(hidden)]
pub mod __private {
    pub use crate::scan::{find_first_end, length_prefix};
}
