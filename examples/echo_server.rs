//! An echo server as a protocol: plain methods that the loop calls, with no task and no buffer for a
//! connection. `--style buffered` is the same with a protocol that says where its bytes are to be put.
//!
//! A client that does not read is not read from either: writing is paused when too much waits for it, and
//! that pauses reading.
//!
//! `cargo run --release --example echo_server [-- --style protocol|buffered] [--bind ADDR | --unix PATH]`,
//! then `nc 127.0.0.1 PORT`.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use tulipa::{Buffered, BufferedProtocol, Protocol, Transport};
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

fn main() -> ExitCode {
    let mut buffered = false;
    let (about, usage) = ("Sends back what it receives.", " [--style protocol|buffered]");
    let address = Address::from_command_line_with(about, usage, |name, parser| {
        if name != "style" {
            return Ok(false);
        }
        buffered = match parser.value()?.to_str() {
            Some("protocol") => false,
            Some("buffered") => true,
            _ => return Err("a style is protocol or buffered".into()),
        };
        Ok(true)
    });
    serve::exit_code(match buffered {
        false => server::run(&address, || Echo),
        true => server::run(&address, || Buffered(BufferedEcho(Box::new([0; 4096])))),
    })
}
