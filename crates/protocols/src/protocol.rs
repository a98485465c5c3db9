//! What a program implements.

use std::io;

use crate::Transport;

/// What to do when the peer has ended its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterEof {
    /// Write what is queued, then close: what asyncio does when `eof_received` returns nothing.
    Close,
    /// Keep our side open; the program closes it. Nothing is read any more.
    KeepOpen,
}

/// The program's side of a connection: methods that the loop calls. Stands for `asyncio.Protocol`.
///
/// ```
/// use std::io;
/// use tulipa_protocols::{Protocol, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
/// ```
///
/// # Order
/// ```text
/// connection_made → (data_received | pause_writing, resume_writing alternating)* → eof_received? → connection_lost
/// ```
/// - [`connection_made`](Self::connection_made) comes first, at most once.
/// - [`connection_lost`](Self::connection_lost) comes last, exactly once, whatever happened; then the
///   protocol is dropped. If the connection never came to be (its handshake failed) nothing else comes
///   before it.
/// - `pause_writing` and `resume_writing` alternate, beginning with the first. They may come before, between
///   and after the others, also after `eof_received`.
/// - Calls for one connection never overlap. Each is made by the loop, never from inside a method of the
///   transport, so any method of any transport may be called from anywhere.
///
/// # Failure
/// An `Err` aborts the connection: what is queued is dropped, and [`connection_lost`](Self::connection_lost)
/// gets the error, which is not reported as well. To answer first: write, close, and return `Ok`. A
/// panic is reported to the loop's exception handler, and ends the connection in the same way. Neither touches another
/// connection.
#[allow(unused_variables, reason = "the names are for those who read the documentation")]
pub trait Protocol {
    /// The connection is there. Keep a clone of the transport to write from elsewhere.
    ///
    /// # Errors
    /// What the connection is to end with.
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        Ok(())
    }

    /// Bytes have come: at least one, at most 256 KiB, cut anywhere. After
    /// [`pause_reading`](Transport::pause_reading) none come. (Receivers, such as [`LineReceiver`](crate::LineReceiver),
    /// are also given none at all, which tells them to go on with what they keep; those who wrap protocols pass it on.)
    ///
    /// # Errors
    /// What the connection is to end with.
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()>;

    /// The peer has ended its side, and all it sent was delivered. At most once.
    ///
    /// # Errors
    /// What the connection is to end with.
    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        Ok(AfterEof::Close)
    }

    /// More than the high limit waits to be written: better write no more until
    /// [`resume_writing`](Self::resume_writing).
    ///
    /// # Errors
    /// What the connection is to end with.
    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        Ok(())
    }

    /// What waits is down to the low limit, or less.
    ///
    /// # Errors
    /// What the connection is to end with.
    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        Ok(())
    }

    /// The time given to [`Transport::set_timeout`] is over.
    ///
    /// # Errors
    /// What the connection is to end with; without this method, an error of the kind
    /// [`TimedOut`](io::ErrorKind::TimedOut).
    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::TimedOut, "the connection's timeout is over"))
    }

    /// The connection is over: `None` after a [`close`](Transport::close), an
    /// [`abort`](Transport::abort) or the peer's orderly end; otherwise why. The transport still tells its
    /// addresses.
    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {}

    /// There is something to read. The default reads once and calls
    /// [`data_received`](Self::data_received); it is called again while there is more, up to a limit in each
    /// turn. A protocol that wants to be pulled from does something else, and is called again after a
    /// [`Transport::try_read`] has found nothing and then something comes.
    ///
    /// # Errors
    /// What the connection is to end with.
    fn readable(&mut self, transport: &Transport) -> io::Result<()> {
        transport.read_with(|data| self.data_received(transport, data)).unwrap_or(Ok(()))
    }
}

impl<P: Protocol + ?Sized> Protocol for Box<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        (**self).connection_made(transport)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        (**self).data_received(transport, data)
    }

    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        (**self).eof_received(transport)
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        (**self).pause_writing(transport)
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        (**self).resume_writing(transport)
    }

    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        (**self).timed_out(transport)
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        (**self).connection_lost(transport, error);
    }

    fn readable(&mut self, transport: &Transport) -> io::Result<()> {
        (**self).readable(transport)
    }
}

/// A protocol that says where its bytes are to be put. Stands for `asyncio.BufferedProtocol`. Wrap it in
/// [`Buffered`] to use it.
///
/// # Order, failure
/// As for [`Protocol`], with [`get_buffer`](Self::get_buffer) and [`buffer_updated`](Self::buffer_updated)
/// in the place of `data_received`.
#[allow(unused_variables, reason = "the names are for those who read the documentation")]
pub trait BufferedProtocol {
    /// Where the next bytes go. An empty buffer is an error that ends the connection.
    fn get_buffer(&mut self) -> &mut [u8];

    /// So many bytes, at least one, are in the buffer that [`get_buffer`](Self::get_buffer) gave.
    ///
    /// # Errors
    /// What the connection is to end with.
    fn buffer_updated(&mut self, transport: &Transport, count: usize) -> io::Result<()>;

    /// As [`Protocol::connection_made`].
    ///
    /// # Errors
    /// What the connection is to end with.
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        Ok(())
    }

    /// As [`Protocol::eof_received`].
    ///
    /// # Errors
    /// What the connection is to end with.
    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        Ok(AfterEof::Close)
    }

    /// As [`Protocol::pause_writing`].
    ///
    /// # Errors
    /// What the connection is to end with.
    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        Ok(())
    }

    /// As [`Protocol::resume_writing`].
    ///
    /// # Errors
    /// What the connection is to end with.
    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        Ok(())
    }

    /// As [`Protocol::timed_out`].
    ///
    /// # Errors
    /// What the connection is to end with.
    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::TimedOut, "the connection's timeout is over"))
    }

    /// As [`Protocol::connection_lost`].
    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {}
}

/// Makes a [`Protocol`] of a [`BufferedProtocol`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffered<P>(pub P);

impl<P: BufferedProtocol> Protocol for Buffered<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        self.0.connection_made(transport)
    }

    fn data_received(&mut self, transport: &Transport, mut data: &[u8]) -> io::Result<()> {
        // Only what was left over at an upgrade comes this way.
        while !data.is_empty() {
            let buffer = self.0.get_buffer();
            let count = buffer.len().min(data.len());
            let (now, later) = data.split_at(count);
            buffer[..count].copy_from_slice(now);
            if count == 0 {
                return Err(no_buffer());
            }
            self.0.buffer_updated(transport, count)?;
            data = later;
        }
        Ok(())
    }

    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        self.0.eof_received(transport)
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.0.pause_writing(transport)
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.0.resume_writing(transport)
    }

    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        self.0.timed_out(transport)
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        self.0.connection_lost(transport, error);
    }

    fn readable(&mut self, transport: &Transport) -> io::Result<()> {
        let buffer = self.0.get_buffer();
        if buffer.is_empty() {
            return Err(no_buffer());
        }
        // An error has ended the connection already, which settles it.
        match transport.try_read(buffer) {
            Ok(count) if count > 0 => self.0.buffer_updated(transport, count),
            _ => Ok(()),
        }
    }
}

fn no_buffer() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "get_buffer() returned an empty buffer")
}
