//! What every server over protocols does the same way: it serves until a signal asks it to finish.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use tulipa::signal::Signal;
use tulipa::{EventLoop, Listen, LoopHandle, Protocol, Server, Workers};

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
    let listen = match address {
        Address::Tcp(name) => Listen::on(name.as_str()),
        Address::Unix(path) => Listen::on_unix(path),
    };
    run_server(listen.backlog(BACKLOG.into()).serve(factory))
}

/// The same for a server that is made in another way.
///
/// # Errors
/// Where it cannot be made.
pub fn run_server(serving: impl Future<Output = io::Result<Server>>) -> io::Result<()> {
    raise_descriptor_limit();
    let event_loop = EventLoop::new()?;
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

/// Serves at an address with several loops until SIGINT or SIGTERM; `make` makes the factory of each.
///
/// # Errors
/// Where they cannot listen; for a Unix socket, which only one loop can listen on.
pub fn run_workers<F, P>(
    address: &Address,
    count: usize,
    make: impl Fn() -> F + Send + Sync + 'static,
) -> io::Result<()>
where
    F: FnMut() -> P + 'static,
    P: Protocol + 'static,
{
    raise_descriptor_limit();
    let Address::Tcp(name) = address else {
        let error = "several loops share a TCP address, not a Unix socket";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    };
    let workers = Workers::on(name.as_str()).count(count).backlog(BACKLOG.into());
    let event_loop = EventLoop::new()?;
    let main = async {
        let pool = workers.serve(make).await?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "listening on {}", pool.local_addr())?;
        stdout.flush()?;
        drop(stdout);
        asked_to_finish().await?;
        let aborted = tulipa::timeout(DRAIN_LIMIT * 2, pool.shutdown(DRAIN_LIMIT)).await;
        if let Ok(aborted @ 1..) = aborted {
            log(format_args!("{aborted} clients did not take their last bytes"));
        }
        Ok(())
    };
    event_loop.run_until_complete(main).map_err(io::Error::other)?
}

/// Waits for SIGINT or SIGTERM.
async fn asked_to_finish() -> io::Result<()> {
    let handle = LoopHandle::current();
    let (promise, asked) = handle.create_future();
    let promise = Rc::new(Cell::new(Some(promise)));
    for signal in [Signal::INTERRUPT, Signal::TERMINATE] {
        let promise = promise.clone();
        handle.add_signal_handler(signal, move |_| {
            let _first = promise.take().map(|promise| promise.set(()));
        })?;
    }
    asked.await.map_err(io::Error::other)
}
