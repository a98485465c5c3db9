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
///
/// Where [`Fault::ReentrantCall`] says so, a callback also calls the transport, behind the inner protocol: it closes,
/// aborts or resets the connection, or does what changes nothing (pausing and resuming, writing nothing, setting the
/// limits that are set). A connection that was ended in one of these ways is
/// [broken](MemoryNetwork::is_broken).
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

    /// What else a callback does.
    fn meddle(&self, method: &str, transport: &Transport) {
        if !self.network.strikes(Fault::ReentrantCall) {
            return;
        }
        let action = self.network.draw(|random| random.below(8));
        self.network.note(&format!("call {action} in {method}"));
        let end = || self.network.mark_broken([transport.local_addr(), transport.peer_addr()]);
        match action {
            0 => {
                end();
                transport.close();
            }
            1 => {
                end();
                transport.abort();
            }
            2 => {
                end();
                transport.reset();
            }
            3 | 4 if transport.is_reading() => {
                transport.pause_reading();
                transport.resume_reading();
            }
            3 | 4 => {
                transport.resume_reading();
                transport.pause_reading();
            }
            5 | 6 => {
                transport.write(&[]);
            }
            _ => transport.set_write_buffer_limits(transport.get_write_buffer_limits()),
        }
    }

    fn strike(&self, method: &str, transport: &Transport) {
        if self.network.strikes(Fault::CallbackPanic) {
            self.network.note(&format!("panic in {method}"));
            self.network.mark_broken([transport.local_addr(), transport.peer_addr()]);
            // Without the panic hook, which would print each of them.
            resume_unwind(Box::new(SABOTAGE));
        }
    }
}

impl<P: Protocol> Protocol for Sabotage<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        self.strike("connection_made", transport);
        let result = self.inner.connection_made(transport);
        self.meddle("connection_made", transport);
        result
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        self.strike("data_received", transport);
        let result = self.inner.data_received(transport, data);
        self.meddle("data_received", transport);
        result
    }

    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        self.strike("eof_received", transport);
        let result = self.inner.eof_received(transport);
        self.meddle("eof_received", transport);
        result
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.strike("pause_writing", transport);
        let result = self.inner.pause_writing(transport);
        self.meddle("pause_writing", transport);
        result
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.strike("resume_writing", transport);
        let result = self.inner.resume_writing(transport);
        self.meddle("resume_writing", transport);
        result
    }

    fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
        self.strike("timed_out", transport);
        let result = self.inner.timed_out(transport);
        self.meddle("timed_out", transport);
        result
    }

    fn readable(&mut self, transport: &Transport) -> io::Result<()> {
        self.strike("readable", transport);
        let result = self.inner.readable(transport);
        self.meddle("readable", transport);
        result
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        self.inner.connection_lost(transport, error);
        self.meddle("connection_lost", transport);
        self.strike("connection_lost", transport);
    }
}
