//! What every server over protocols does the same way: it serves until a signal asks it to finish.

use std::io::{self, Write};
use std::time::Duration;

use tulipa::signal::Signal;
use tulipa::{EventLoop, Listen, LoopHandle, Protocol, Server};

use crate::serve::{Address, BACKLOG, log, raise_descriptor_limit};

/// How long clients have to take their last bytes. A second signal ends the wait.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Serves at an address until SIGINT or SIGTERM; `factory` makes the protocol of each client.
///
/// # Errors
/// Where it cannot listen, what the operating system says.
pub fn run<P: Protocol + 'static>(
    address: &Address,
    factory: impl FnMut() -> P + 'static,
) -> io::Result<()> {
    raise_descriptor_limit();
    let event_loop = EventLoop::new()?;
    let listen = match address {
        Address::Tcp(name) => Listen::on(name.as_str()),
        Address::Unix(path) => Listen::on_unix(path),
    };
    let serving = listen.backlog(BACKLOG.into()).serve(factory);
    let server = event_loop.run_until_complete(serving).map_err(io::Error::other)??;
    for signal in [Signal::INTERRUPT, Signal::TERMINATE] {
        let server = server.clone();
        event_loop.add_signal_handler(signal, move |handle| finish(handle, &server))?;
    }
    announce(&server)?;
    event_loop.run_forever().map_err(io::Error::other)
}

fn announce(server: &Server) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for address in server.local_addrs() {
        writeln!(stdout, "listening on {address}")?;
    }
    stdout.flush()
}

/// The first signal lets clients finish, the second one does not.
fn finish(handle: &LoopHandle, server: &Server) {
    if !server.is_serving() {
        return handle.stop();
    }
    server.close();
    let (server, own) = (server.clone(), handle.clone());
    let finishing = handle.spawn(async move {
        let aborted = server.shutdown(DRAIN_LIMIT).await;
        if aborted > 0 {
            log(format_args!("{aborted} clients did not take their last bytes"));
        }
        own.stop();
    });
    drop(finishing);
}
