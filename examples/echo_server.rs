//! An echo server as a protocol: plain methods that the loop calls, with no task and no buffer for a
//! connection. `--style buffered` is the same with a protocol that says where its bytes are to be put, `--style streams`
//! with a coroutine for each client.
//!
//! `--workers N` serves with N loops, each in a thread of its own.
//!
//! A client that does not read is not read from either: writing is paused when too much waits for it, and
//! that pauses reading.
//!
//! `cargo run --release --example echo_server [-- --style protocol|buffered|streams] [--workers N] [--bind ADDR | --unix PATH]`,
//! then `nc 127.0.0.1 PORT`.

#![forbid(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use lexopt::ValueExt;
use tulipa::{
    Buffered, BufferedProtocol, Protocol, StreamProtocol, StreamReader, StreamWriter, Transport,
    spawn,
};
use tulipa_examples::serve::{self, Address};
use tulipa_examples::server;

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        transport.write(data);
        Ok(())
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        transport.pause_reading();
        Ok(())
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        transport.resume_reading();
        Ok(())
    }
}

/// Its clients pay for a buffer each, and save the loop a copy where the bytes are to be kept.
struct BufferedEcho(Box<[u8; 4096]>);

impl BufferedProtocol for BufferedEcho {
    fn get_buffer(&mut self) -> &mut [u8] {
        &mut *self.0
    }

    fn buffer_updated(&mut self, transport: &Transport, count: usize) -> io::Result<()> {
        transport.write(&self.0[..count]);
        Ok(())
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        transport.pause_reading();
        Ok(())
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        transport.resume_reading();
        Ok(())
    }
}

/// When it returns both halves are dropped, which closes the connection.
async fn echo(mut reader: StreamReader, writer: StreamWriter) -> io::Result<()> {
    loop {
        let data = reader.fill().await?;
        if data.is_empty() {
            return Ok(());
        }
        let count = data.len();
        writer.write(data);
        reader.consume(count);
        // While a client does not read, nothing is read from it.
        writer.drain().await?;
    }
}

/// What [`tulipa::start_server`] does for whoever needs no protocol; a client that breaks off is no news here.
fn streams() -> StreamProtocol {
    StreamProtocol::new(|reader, writer| {
        drop(spawn(async {
            let _broken_off = echo(reader, writer).await;
        }));
    })
}

enum Style {
    Protocol,
    Buffered,
    Streams,
}

fn main() -> ExitCode {
    let (mut style, mut workers) = (Style::Protocol, None);
    let about = "Sends back what it receives.";
    let usage = " [--style protocol|buffered|streams] [--workers N]";
    let address = Address::from_command_line_with(about, usage, |name, parser| {
        if name == "workers" {
            workers = Some(parser.value()?.parse_with(str::parse::<NonZeroUsize>)?.get());
            return Ok(true);
        }
        if name != "style" {
            return Ok(false);
        }
        style = match parser.value()?.to_str() {
            Some("protocol") => Style::Protocol,
            Some("buffered") => Style::Buffered,
            Some("streams") => Style::Streams,
            _ => return Err("a style is protocol, buffered or streams".into()),
        };
        Ok(true)
    });
    let buffered = || Buffered(BufferedEcho(Box::new([0; 4096])));
    serve::exit_code(match (style, workers) {
        (Style::Protocol, None) => server::run(&address, || Echo),
        (Style::Streams, None) => server::run(&address, streams),
        (Style::Buffered, None) => server::run(&address, buffered),
        (Style::Protocol, Some(count)) => server::run_workers(&address, count, || || Echo),
        (Style::Streams, Some(count)) => server::run_workers(&address, count, || streams),
        (Style::Buffered, Some(count)) => server::run_workers(&address, count, move || buffered),
    })
}
