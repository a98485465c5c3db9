//! Policies: protocols around any protocol, which limit what its peer may do. Twisted's `policies`.
//!
//! | policy | ends or limits |
//! |---|---|
//! | [`IdleTimeout`] | a connection on which nothing moves |
//! | [`Deadline`] | one that takes too long in all, however busy it is |
//! | [`Throttle`] | how fast it reads and writes |
//! | [`ConnectionLimits`] | how many there are, in all and for each peer |
//! | [`TrafficLog`] | nothing: it logs what goes through |
//!
//! They are put around each other in any order, keep the order of the callbacks, and hold for the connection: also
//! when the protocol is replaced, for protocols that are pulled from, and behind filters that are put in later, whose
//! encrypted bytes they then count.

mod gauge;
mod limits;
mod log;
mod throttle;
mod timeouts;

pub use limits::{ConnectionLimits, Limited};
pub use log::TrafficLog;
pub use throttle::Throttle;
pub use timeouts::{Deadline, IdleTimeout, Lift};

pub(crate) use gauge::Gauge;

/// Passes those methods of a protocol on to `self.inner` that a policy does nothing about.
macro_rules! pass_on {
    ($($method:ident)*) => {
        $(pass_on!(@ $method);)*

        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
            self.inner.data_received(transport, data)
        }

        fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
            self.inner.eof_received(transport)
        }

        fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
            self.inner.pause_writing(transport)
        }

        fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
            self.inner.resume_writing(transport)
        }

        fn timed_out(&mut self, transport: &Transport) -> io::Result<()> {
            self.inner.timed_out(transport)
        }
    };
    (@ readable) => {
        fn readable(&mut self, transport: &Transport) -> io::Result<()> {
            self.inner.readable(transport)
        }
    };
    (@ connection_lost) => {
        fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
            self.inner.connection_lost(transport, error);
        }
    };
}
use pass_on;

/// What all policies have besides.
macro_rules! around {
    ($policy:ident) => {
        impl<P> $policy<P> {
            /// The protocol inside.
            pub fn get_mut(&mut self) -> &mut P {
                &mut self.inner
            }
        }
    };
}
use around;
