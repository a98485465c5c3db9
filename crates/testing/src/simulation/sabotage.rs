//! Protocols whose callbacks panic.

use std::io;
use std::panic::resume_unwind;

use tulipa_protocols::{AfterEof, Protocol, Transport};

use crate::{Fault, MemoryNetwork};

/// What the panics of a [`Sabotage`] say, so that their reports are known.
pub(crate) const SABOTAGE: &str = "this panic is a simulated fault";

/// A protocol around another one, each of whose callbacks panics before it is passed on, where
/// [`Fault::CallbackPanic`] says so. `connection_lost` does so behind it, because the inner protocol is to hear of
/// the end.
#[derive(Debug)]
pub struct Sabotage<P> {
    network: MemoryNetwork,
    inner: P,
}

impl<P> Sabotage<P> {
    /// A protocol whose callbacks panic as the faults of a network have it.
    pub fn new(network: &MemoryNetwork, inner: P) -> Sabotage<P> {
        Sabotage { network: network.clone(), inner }
    }

    /// The protocol inside.
    pub fn get_mut(&mut self) -> &mut P {
        &mut self.inner
    }

    fn strike(&self, method: &str) {
        if self.network.strikes(Fault::CallbackPanic) {
            self.network.note(&format!("panic in {method}"));
            // Without the panic hook, which would print each of them.
            resume_unwind(Box::new(SABOTAGE));
        }
    }
}

impl<P: Protocol> Protocol for Sabotage<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        self.strike("connection_made");
        self.inner.connection_made(transport)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        self.strike("data_received");
        self.inner.data_received(transport, data)
    }

    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        self.strike("eof_received");
        self.inner.eof_received(transport)
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.strike("pause_writing");
        self.inner.pause_writing(transport)
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.strike("resume_writing");
        self.inner.resume_writing(transport)
    }

    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        self.strike("timed_out");
        self.inner.timed_out(transport)
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        self.inner.connection_lost(transport, error);
        self.strike("connection_lost");
    }
}
