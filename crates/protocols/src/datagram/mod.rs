//! Datagrams: endpoints over UDP, Unix datagram sockets, and networks that a program brings.
//!
//! Built as connections are: methods of the transport change what is true (`state`, `output`, `input`), the
//! loop's end compares that with what the protocol was told and tells the difference (`driver`). There is less of
//! it: no handshake, no filter, no end of the input. What is more is that errors are no end, see
//! [`DatagramProtocol::error_received`].

mod create;
mod driver;
mod endpoint;
mod input;
mod link;
mod options;
mod output;
mod protocol;
mod queue;
mod state;
mod transport;

pub use create::{Datagrams, create_datagram_endpoint};
pub use endpoint::DatagramEndpoint;
pub use link::{DatagramLink, Received};
pub use protocol::{Datagram, DatagramError, DatagramProtocol};
pub use transport::{DatagramTransport, Destination};

pub(crate) use queue::Spares;
