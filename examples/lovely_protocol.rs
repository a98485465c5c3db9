//! Two ends of a connection in one loop: a protocol that says hello and waits for its words to come back, and
//! a server that sends them. The first one stops the loop.
//!
//! `cargo run --example lovely_protocol`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io;

use tulipa::{EventLoop, LoopHandle, NetExt, Protocol, Transport};

const HELLO: &[u8] = b"What a lovely day!";

#[derive(Default)]
struct LovelyProtocol {
    heard: Vec<u8>,
}

impl Protocol for LovelyProtocol {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        transport.write(HELLO);
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        // It may come in pieces.
        self.heard.extend_from_slice(data);
        if !HELLO.starts_with(&self.heard) {
            return Err(io::Error::other("that is not what I said"));
        }
        if self.heard == HELLO {
            println!("it came back: {}", String::from_utf8_lossy(&self.heard));
            transport.close();
        }
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        println!("connection lost: {}", error.map_or("as it should".into(), |e| e.to_string()));
        LoopHandle::current().stop();
    }
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        transport.write(data);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let server = event_loop.create_server("127.0.0.1:0", || Echo);
    let server = event_loop.run_until_complete(server)??;
    let address = server.local_addrs()[0].to_string();
    let connecting = event_loop.create_connection(address, LovelyProtocol::default);
    event_loop.run_until_complete(connecting)??;
    event_loop.run_forever()?;
    Ok(())
}
