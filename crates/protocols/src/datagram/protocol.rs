//! What a program implements, and what it is given.

use std::fmt;
use std::io;

use crate::{Address, DatagramTransport};

/// One datagram that has come.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Datagram<'a> {
    /// What is in it; nothing is in an empty one.
    pub data: &'a [u8],
    /// Who has sent it. [`Address::Unnamed`] is a Unix socket that has no name, to which no answer can be sent.
    pub from: &'a Address,
    /// Whether it was longer than what there was room for: its rest is lost.
    pub truncated: bool,
}

impl<'a> Datagram<'a> {
    pub(crate) fn new(data: &'a [u8], from: &'a Address, truncated: bool) -> Datagram<'a> {
        Datagram { data, from, truncated }
    }
}

/// The program's side of a datagram endpoint: methods that the loop calls. Stands for
/// `asyncio.DatagramProtocol`.
///
/// ```
/// use std::io;
/// use tulipa_protocols::{Address, DatagramProtocol, DatagramTransport};
///
/// struct Echo;
///
/// impl DatagramProtocol for Echo {
///     fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], from: &Address) -> io::Result<()> {
///         transport.send_to(data, from);
///         Ok(())
///     }
/// }
/// ```
///
/// # Order
/// ```text
/// connection_made → (datagram_received | error_received | pause_writing, resume_writing alternating)* → connection_lost
/// ```
/// - [`connection_made`](Self::connection_made) comes first, once; [`connection_lost`](Self::connection_lost) last,
///   exactly once, whatever happened; then the protocol is dropped.
/// - `pause_writing` and `resume_writing` alternate, beginning with the first.
/// - Calls for one endpoint never overlap. Each is made by the loop, never from inside a method of the
///   transport, so any method of any transport may be called from anywhere.
///
/// # Failure
/// An `Err` aborts the endpoint, and [`connection_lost`](Self::connection_lost) gets the error. A panic is reported to
/// the loop's exception handler and ends the endpoint in the same way. What the network or a peer does is no such
/// failure: it comes to [`error_received`](Self::error_received), and the endpoint stays open.
#[allow(unused_variables, reason = "the names are for those who read the documentation")]
pub trait DatagramProtocol {
    /// The endpoint is there. Keep a clone of the transport to send from elsewhere.
    ///
    /// # Errors
    /// What the endpoint is to end with.
    fn connection_made(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        Ok(())
    }

    /// A datagram has come, whole; `data` may be empty. Of one event come 64 at most, the others in later turns.
    ///
    /// # Errors
    /// What the endpoint is to end with.
    fn datagram_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        from: &Address,
    ) -> io::Result<()>;

    /// A datagram has come that was longer than the [most that is
    /// received](crate::Datagrams::max_datagram_size): `data` is its beginning. Without this method it is an error of
    /// the kind [`InvalidData`](io::ErrorKind::InvalidData) for [`error_received`](Self::error_received); so nobody takes
    /// a part for the whole.
    ///
    /// # Errors
    /// What the endpoint is to end with.
    fn truncated_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        from: &Address,
    ) -> io::Result<()> {
        let error = format!("it is longer than {} bytes", data.len());
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        self.error_received(transport, DatagramError::receive(Some(from.clone()), error))
    }

    /// A datagram could not be sent, or the operating system tells that one was not received: that nobody
    /// listens there ([`ConnectionRefused`](io::ErrorKind::ConnectionRefused)), that there is no way, that it was too
    /// long. The endpoint stays open. A [`DatagramError`] is inside of the [`io::Error`].
    ///
    /// # Errors
    /// What the endpoint is to end with.
    fn error_received(
        &mut self,
        transport: &DatagramTransport,
        error: io::Error,
    ) -> io::Result<()> {
        Ok(())
    }

    /// More than the high limit waits to be sent: better send no more until
    /// [`resume_writing`](Self::resume_writing).
    ///
    /// # Errors
    /// What the endpoint is to end with.
    fn pause_writing(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        Ok(())
    }

    /// What waits is down to the low limit, or less.
    ///
    /// # Errors
    /// What the endpoint is to end with.
    fn resume_writing(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        Ok(())
    }

    /// The endpoint is over: `None` after a [`close`](DatagramTransport::close) or an
    /// [`abort`](DatagramTransport::abort), otherwise why. The transport still tells its addresses.
    fn connection_lost(&mut self, transport: &DatagramTransport, error: Option<io::Error>) {}

    /// There is something to receive. The default receives once and calls the method for what came; it is called
    /// again while there is more, up to a limit in each turn. A protocol that wants to be pulled from does something else, and is
    /// called again after a [`DatagramTransport::try_receive`] has found nothing and then something comes.
    ///
    /// # Errors
    /// What the endpoint is to end with.
    fn readable(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        let received = transport.receive_with(|datagram| {
            let Datagram { data, from, truncated } = datagram;
            match truncated {
                false => self.datagram_received(transport, data, from),
                true => self.truncated_received(transport, data, from),
            }
        });
        match received {
            Ok(told) => told,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => self.error_received(transport, error),
        }
    }
}

impl<P: DatagramProtocol + ?Sized> DatagramProtocol for Box<P> {
    fn connection_made(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        (**self).connection_made(transport)
    }

    fn datagram_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        from: &Address,
    ) -> io::Result<()> {
        (**self).datagram_received(transport, data, from)
    }

    fn truncated_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        from: &Address,
    ) -> io::Result<()> {
        (**self).truncated_received(transport, data, from)
    }

    fn error_received(
        &mut self,
        transport: &DatagramTransport,
        error: io::Error,
    ) -> io::Result<()> {
        (**self).error_received(transport, error)
    }

    fn pause_writing(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        (**self).pause_writing(transport)
    }

    fn resume_writing(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        (**self).resume_writing(transport)
    }

    fn connection_lost(&mut self, transport: &DatagramTransport, error: Option<io::Error>) {
        (**self).connection_lost(transport, error);
    }

    fn readable(&mut self, transport: &DatagramTransport) -> io::Result<()> {
        (**self).readable(transport)
    }
}

/// What went wrong with a datagram. It is inside of the [`io::Error`] that
/// [`DatagramProtocol::error_received`] gets, which has the kind of [`error`](Self::error).
#[derive(Debug)]
#[non_exhaustive]
pub struct DatagramError {
    /// Where it was to go, or where it came from. An error that the network has sent back for an earlier datagram has
    /// the address of the one that was being sent when it was heard of.
    pub address: Option<Address>,
    /// What the operating system, or the link, said.
    pub error: io::Error,
    operation: &'static str,
}

impl DatagramError {
    pub(crate) fn send(address: Option<Address>, error: io::Error) -> io::Error {
        DatagramError { address, error, operation: "send to" }.into()
    }

    pub(crate) fn receive(address: Option<Address>, error: io::Error) -> io::Error {
        DatagramError { address, error, operation: "receive from" }.into()
    }
}

impl From<DatagramError> for io::Error {
    fn from(error: DatagramError) -> io::Error {
        io::Error::new(error.error.kind(), error)
    }
}

impl fmt::Display for DatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} ", self.operation)?;
        match &self.address {
            Some(address) => write!(f, "{address}: {}", self.error),
            None => write!(f, "any peer: {}", self.error),
        }
    }
}

impl std::error::Error for DatagramError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
