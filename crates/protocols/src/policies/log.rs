//! A log of what goes through a connection.

use std::fmt;
use std::io;
use std::rc::Rc;

use super::gauge::{Direction, Gauge};
use super::{around, pass_on};
use crate::{AfterEof, Protocol, Transport};

/// How many bytes of each piece are shown: a log is no archive.
const SHOWN: usize = 256;

/// Logs what goes through a connection, as `tracing` events of the target `tulipa::traffic`: each piece that is read
/// or written at the level TRACE, with its first 256 bytes; the beginning and the end with the sums at DEBUG. Stands
/// for Twisted's `TrafficLoggingProtocol`.
#[derive(Debug)]
pub struct TrafficLog<P> {
    inner: P,
    name: Rc<str>,
    gauge: Sums,
}

#[derive(Default)]
struct Sums(Option<Rc<Gauge>>);

impl fmt::Debug for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.as_ref().map(|gauge| gauge.counts()), f)
    }
}

impl<P> TrafficLog<P> {
    /// Around `inner`; the field `name` of the events says which it is.
    pub fn new(inner: P, name: impl Into<Rc<str>>) -> TrafficLog<P> {
        TrafficLog { inner, name: name.into(), gauge: Sums::default() }
    }
}

around!(TrafficLog);

fn shown(data: &[u8]) -> impl fmt::Display {
    data[..data.len().min(SHOWN)].escape_ascii()
}

impl<P: Protocol> Protocol for TrafficLog<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        self.gauge = Sums(transport.state.gauge());
        let peer = transport.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
        tracing::debug!(target: "tulipa::traffic", name = &*self.name, peer, "connected");
        if let Some(gauge) = &self.gauge.0 {
            let name = self.name.clone();
            gauge.add_log(Rc::new(move |direction, data| {
                let (name, bytes, data) = (&*name, data.len(), shown(data));
                match direction {
                    Direction::In => {
                        tracing::trace!(target: "tulipa::traffic", name, peer, bytes, %data, "received");
                    }
                    Direction::Out => {
                        tracing::trace!(target: "tulipa::traffic", name, peer, bytes, %data, "sent");
                    }
                }
            }));
        }
        self.inner.connection_made(transport)
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        let (received, sent) =
            self.gauge.0.as_ref().map(|gauge| gauge.counts()).unwrap_or_default();
        let why = error.as_ref().map(ToString::to_string).unwrap_or_default();
        let name = &*self.name;
        tracing::debug!(target: "tulipa::traffic", name, received, sent, error = why, "disconnected");
        self.inner.connection_lost(transport, error);
    }

    pass_on!(readable);
}
