//! The input of an endpoint: what is received, and when.

use std::io;

use super::link::{Received, Slot};
use super::protocol::{Datagram, DatagramError};
use super::queue::Place;
use super::state::{Phase, State, closed};
use crate::Address;

/// How many receives in a row may fail: the network's errors come one by one, with nothing received between two looks
/// at most; a socket that says nothing else is broken.
const MOST_FAILED_RECEIVES: usize = 64;

/// A datagram's length, its sender, and whether it was cut.
type Came = (usize, Place, bool);

impl State {
    /// Whether the driver is to call the protocol to receive.
    pub(crate) fn is_to_be_read(&self) -> bool {
        self.readable.get() && self.phase.get() == Phase::Open
    }

    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Came> {
        if self.phase.get() != Phase::Open {
            return Err(closed("receive"));
        }
        if !self.readable.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let room = buffer.len().min(self.fixed.max_datagram);
        let received = self.with_link(|link| receive_from(link, &mut buffer[..room]));
        let received = received.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()));
        let received = self.after_receive(received);
        if !self.dispatching.get() && self.is_interest_due() {
            self.attend();
        }
        received
    }

    fn after_receive(&self, received: io::Result<Came>) -> io::Result<Came> {
        match received {
            Ok(came) => {
                self.progress.set(true);
                self.failed_receives.set(0);
                Ok(came)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable.set(false);
                self.failed_receives.set(0);
                Err(error)
            }
            Err(error) => {
                self.progress.set(true);
                self.failed_receives.set(self.failed_receives.get() + 1);
                if self.failed_receives.get() >= MOST_FAILED_RECEIVES {
                    let text = format!("nothing can be received any more: {error}");
                    self.fail(io::Error::new(error.kind(), text));
                }
                Err(DatagramError::receive(self.fixed.peer.clone(), error))
            }
        }
    }

    pub(crate) fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let (length, from, truncated) = self.receive(buffer)?;
        let from = from.address().unwrap_or(Address::Unnamed);
        Ok(Received::new(length, from).truncated(truncated))
    }

    pub(crate) fn receive_with<R>(
        &self,
        buffer: &mut [u8],
        take: impl FnOnce(Datagram<'_>) -> R,
    ) -> io::Result<R> {
        let (length, from, truncated) = self.receive(buffer)?;
        let data = &buffer[..length];
        Ok(match from {
            Place::Inet(inet) => take(Datagram::new(data, &Address::Inet(inet), truncated)),
            Place::Other(address) => take(Datagram::new(data, &address, truncated)),
            Place::Peer => take(Datagram::new(data, &Address::Unnamed, truncated)),
        })
    }
}

fn receive_from(link: &mut Slot, buffer: &mut [u8]) -> io::Result<Came> {
    match link {
        Slot::Socket(socket) => socket.receive(buffer),
        Slot::Any(link) => {
            let Received { length, from, truncated } = link.receive(buffer)?;
            let from = match from {
                Address::Inet(inet) => Place::Inet(inet),
                other => Place::Other(std::rc::Rc::new(other)),
            };
            Ok((length.min(buffer.len()), from, truncated))
        }
        Slot::Out | Slot::Gone => Err(io::ErrorKind::WouldBlock.into()),
    }
}
