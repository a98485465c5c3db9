//! Datagrams: a server that sends back what it receives, as a protocol, and a client with streams that asks again when no
//! answer comes, as datagrams may be lost.
//!
//! `cargo run --example udp_echo -- --bind 127.0.0.1:9999` serves until Ctrl-C; port 0 takes any that is free.
//! `cargo run --example udp_echo -- --connect 127.0.0.1:9999 hello` asks it. Without arguments it is both.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tulipa::signal::Signal;
use tulipa::{
    Address, DatagramEndpoint, DatagramProtocol, DatagramStream, DatagramTransport, EventLoop,
    create_datagram_endpoint, timeout,
};
use tulipa_examples::serve::{exit_code, log};

/// How long a client waits for an answer, and how often it asks.
const PATIENCE: Duration = Duration::from_millis(500);
const MOST_TRIES: usize = 5;

struct Echo;

impl DatagramProtocol for Echo {
    fn datagram_received(
        &mut self,
        transport: &DatagramTransport,
        data: &[u8],
        from: &Address,
    ) -> io::Result<()> {
        transport.send_to(data, from);
        Ok(())
    }

    /// A client that is gone is no reason to end.
    fn error_received(&mut self, _: &DatagramTransport, error: io::Error) -> io::Result<()> {
        log(format_args!("{error}"));
        Ok(())
    }
}

async fn listen(at: &str) -> io::Result<DatagramEndpoint<Echo>> {
    let server = create_datagram_endpoint(at, || Echo).await?;
    if let Some(address) = server.local_addr() {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "listening on {address}")?;
        stdout.flush()?;
    }
    Ok(server)
}

/// Serves until SIGINT or SIGTERM: then nothing more is received, and what is queued is sent.
fn serve(at: &str) -> io::Result<()> {
    let event_loop = EventLoop::new()?;
    let server = event_loop.run_until_complete(listen(at)).map_err(io::Error::other)??;
    for signal in [Signal::INTERRUPT, Signal::TERMINATE] {
        let server = server.clone();
        event_loop.add_signal_handler(signal, move |_| server.close())?;
    }
    event_loop.run_until_complete(server.wait_closed()).map_err(io::Error::other)
}

/// Sends a message until it comes back.
async fn ask(at: &str, message: &str) -> io::Result<()> {
    let stream = DatagramStream::connect(at).await?;
    let mut buffer = [0; 65_536];
    for _ in 0..MOST_TRIES {
        stream.send(message.as_bytes()).await?;
        match timeout(PATIENCE, stream.recv(&mut buffer)).await {
            Ok(Ok(length)) => {
                let answer = String::from_utf8_lossy(&buffer[..length]);
                return writeln!(io::stdout(), "{answer}");
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => log(format_args!("no answer, once more")),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{at} does not answer")))
}

fn run<R>(future: impl Future<Output = io::Result<R>>) -> io::Result<R> {
    EventLoop::new()?.run_until_complete(future).map_err(io::Error::other)?
}

async fn both() -> io::Result<()> {
    let server = listen("127.0.0.1:0").await?;
    let address = server.local_addr().map(|address| address.to_string()).unwrap_or_default();
    ask(&address, "hello").await?;
    server.close();
    server.wait_closed().await;
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    exit_code(match arguments[..] {
        [] => run(both()),
        ["--bind", at] => serve(at),
        ["--connect", at, message] => run(ask(at, message)),
        _ => {
            let usage = "usage: udp_echo [--bind HOST:PORT | --connect HOST:PORT MESSAGE]";
            Err(io::Error::new(io::ErrorKind::InvalidInput, usage))
        }
    })
}
