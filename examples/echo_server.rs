//! An echo server as a protocol: plain methods that the loop calls, with no task and no buffer for a
//! connection. `--style buffered` is the same with a protocol that says where its bytes are to be put, `--style streams`
//! with a coroutine for each client.
//!
//! A client that does not read is not read from either: writing is paused when too much waits for it, and
//! that pauses reading.
//!
//! `cargo run --release --example echo_server [-- --style protocol|buffered|streams] [--bind ADDR | --unix PATH]`,
//! then `nc 127.0.0.1 PORT`.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

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
    let mut style = Style::Protocol;
    let (about, usage) = ("Sends back what it receives.", " [--style protocol|buffered|streams]");
    let address = Address::from_command_line_with(about, usage, |name, parser| {
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
    serve::exit_code(match style {
        Style::Protocol => server::run(&address, || Echo),
        Style::Streams => server::run(&address, streams),
        Style::Buffered => server::run(&address, || Buffered(BufferedEcho(Box::new([0; 4096])))),
    })
}
