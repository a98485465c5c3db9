//! From one connection to another, without a task.

use std::fmt;
use std::io;
use std::time::Duration;

use tulipa_loop::{LoopHandle, Scoped};

use crate::state::Input;
use crate::{AfterEof, Connect, Endpoint, Protocol, Transport};

/// How long the connection of a proxy may take to be made: nobody waits for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Transport {
    /// Joins two connections: what comes on one goes out on the other, both ways, from now on. Their protocols are
    /// dropped, as by [`set_protocol`](Self::set_protocol). Twisted's `registerProducer`, both ways.
    ///
    /// - **Back-pressure.** While one has more than its high limit to write, the other is not read from. So what is on the
    ///   way is bounded by that and by what one event reads.
    /// - **The end** of one side is the end of that direction only.
    /// - **A failure** on one side is a reset on the other; a connection that is over closes the other.
    ///
    /// [`pipe_to`] is a whole proxy.
    pub fn pipe_to(&self, other: &Transport) {
        for (here, there) in [(self, other), (other, self)] {
            here.set_protocol(Piped { other: there.clone() }, &[]);
        }
        for (here, there) in [(self, other), (other, self)] {
            // What was told to the protocols before is not told again.
            if here.is_closing() {
                there.close();
            } else if here.state.input.get() == Input::Ended {
                there.write_eof();
            }
            let is_full = there.get_write_buffer_size() > there.get_write_buffer_limits().high;
            if is_full { here.pause_reading() } else { here.resume_reading() }
        }
    }
}

/// One of two connections that are joined.
struct Piped {
    other: Transport,
}

impl Protocol for Piped {
    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        self.other.write(data);
        Ok(())
    }

    fn pause_writing(&mut self, _: &Transport) -> io::Result<()> {
        self.other.pause_reading();
        Ok(())
    }

    fn resume_writing(&mut self, _: &Transport) -> io::Result<()> {
        self.other.resume_reading();
        Ok(())
    }

    fn eof_received(&mut self, _: &Transport) -> io::Result<AfterEof> {
        self.other.write_eof();
        Ok(AfterEof::KeepOpen)
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        if error.is_some() { self.other.reset() } else { self.other.close() }
    }
}

/// A protocol that connects to a host for its peer, and joins the two connections: see
/// [`Transport::pipe_to`]. A proxy is a server of them:
///
/// ```
/// use tulipa_protocols::{create_server, pipe_to};
///
/// # async fn example() -> std::io::Result<()> {
/// let proxy = create_server("127.0.0.1:8080", || pipe_to("example.org:80")).await?;
/// # Ok(())
/// # }
/// ```
///
/// The peer is not read from before the host has answered. If it does not, within ten seconds, the peer sees a reset and
/// the reason is logged. A connection that is ended meanwhile ends the attempt; that the peer has gone is only seen when it
/// is read from.
pub fn pipe_to(endpoint: impl Into<Endpoint>) -> PipeTo {
    PipeTo::with(Connect::to(endpoint).timeout(CONNECT_TIMEOUT))
}

/// The protocol that [`pipe_to`] makes.
pub struct PipeTo {
    plan: Option<Plan>,
    connecting: Option<Scoped<()>>,
}

/// What is to be done for a client.
struct Plan {
    connect: Connect,
    on_error: Option<Box<dyn FnOnce(io::Error)>>,
}

impl PipeTo {
    /// One that connects as it is told: to a Unix socket, with another timeout.
    pub fn with(connect: Connect) -> PipeTo {
        PipeTo { plan: Some(Plan { connect, on_error: None }), connecting: None }
    }

    /// Calls `on_error` if the host does not answer, instead of logging why.
    #[must_use = "it gives the protocol back"]
    pub fn on_error(mut self, on_error: impl FnOnce(io::Error) + 'static) -> PipeTo {
        if let Some(plan) = &mut self.plan {
            plan.on_error = Some(Box::new(on_error));
        }
        self
    }
}

impl Protocol for PipeTo {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        transport.pause_reading();
        if let Some(plan) = self.plan.take() {
            let connecting = join(transport.clone(), plan);
            self.connecting = Some(LoopHandle::current().spawn(connecting).scoped());
        }
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Err(io::Error::other("bytes came while reading was paused"))
    }
}

/// Connects for a client, and joins the two.
async fn join(client: Transport, plan: Plan) {
    match plan.connect.open(|| Waiting).await {
        Ok(server) => client.pipe_to(server.transport()),
        Err(error) => {
            client.reset();
            match plan.on_error {
                Some(on_error) => on_error(error),
                None => tracing::warn!(target: "tulipa::net", "{error}"),
            }
        }
    }
}

/// The far side, until it is joined to the near one.
struct Waiting;

impl Protocol for Waiting {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        transport.pause_reading();
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Err(io::Error::other("bytes came while reading was paused"))
    }
}

impl fmt::Debug for PipeTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connect = self.plan.as_ref().map(|plan| &plan.connect);
        f.debug_struct("PipeTo").field("connect", &connect).finish_non_exhaustive()
    }
}
