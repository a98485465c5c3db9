//! How fast a connection reads and writes.

use std::io;

use super::{around, pass_on};
use crate::{AfterEof, Protocol, Transport};

/// What may go at once after a rest, unless it is said otherwise: what the rate gives in a tenth of a second.
const BURSTS_PER_SECOND: u64 = 10;

/// Limits the bandwidth of a connection, each way. Stands for Twisted's `ThrottlingProtocol`.
///
/// What may not be read yet stays with the operating system, which slows the peer down; what may not be written yet
/// waits in the transport, and counts there: `pause_writing` comes as ever.
///
/// ```
/// use std::io;
/// use tulipa_protocols::{Protocol, Throttle, Transport};
///
/// struct Download;
/// impl Protocol for Download {
///     fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
///         transport.write(&[0; 50_000]); // it takes five seconds
///         transport.close();
///         Ok(())
///     }
///
///     fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
///         Ok(())
///     }
/// }
///
/// let factory = || Throttle::new(Download).write_limit(10_000);
/// # let _ = factory;
/// ```
///
/// # Limits
/// Each connection has limits of its own. After a rest a tenth of a second's worth may go at once
/// ([`burst`](Self::burst)); rates hold over longer times than that.
#[derive(Debug)]
pub struct Throttle<P> {
    inner: P,
    read: Option<u64>,
    write: Option<u64>,
    burst: Option<u64>,
}

impl<P> Throttle<P> {
    /// Around `inner`; without a limit at first.
    pub fn new(inner: P) -> Throttle<P> {
        Throttle { inner, read: None, write: None, burst: None }
    }

    /// So many bytes are read in a second.
    ///
    /// # Panics
    /// If it is 0.
    #[track_caller]
    #[must_use = "it gives the policy back"]
    pub fn read_limit(mut self, bytes_per_second: u64) -> Throttle<P> {
        assert!(bytes_per_second > 0, "a connection that may read nothing is no connection");
        self.read = Some(bytes_per_second);
        self
    }

    /// So many bytes are written in a second.
    ///
    /// # Panics
    /// If it is 0.
    #[track_caller]
    #[must_use = "it gives the policy back"]
    pub fn write_limit(mut self, bytes_per_second: u64) -> Throttle<P> {
        assert!(bytes_per_second > 0, "a connection that may write nothing is no connection");
        self.write = Some(bytes_per_second);
        self
    }

    /// So many bytes may go at once after a rest, each way.
    ///
    /// # Panics
    /// If it is 0.
    #[track_caller]
    #[must_use = "it gives the policy back"]
    pub fn burst(mut self, bytes: u64) -> Throttle<P> {
        assert!(bytes > 0, "at least one byte has to go at once");
        self.burst = Some(bytes);
        self
    }
}

around!(Throttle);

impl<P: Protocol> Protocol for Throttle<P> {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        if let Some(gauge) = transport.state.gauge() {
            for (rate, bucket) in [(self.read, &gauge.input), (self.write, &gauge.output)] {
                if let Some(rate) = rate {
                    let size = self.burst.unwrap_or(rate / BURSTS_PER_SECOND).max(1);
                    bucket.set(rate, size);
                }
            }
        }
        self.inner.connection_made(transport)
    }

    pass_on!(readable connection_lost);
}
