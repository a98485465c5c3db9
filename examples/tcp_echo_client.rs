//! Sends a message to an echo server and waits for it to come back.
//!
//! `cargo run --example tcp_echo_client -- HOST:PORT MESSAGE`, with `echo_server` running there.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;

use tulipa::{ReadError, open_connection};

async fn tcp_echo_client(address: String, message: String) -> Result<(), ReadError> {
    let (mut reader, writer) = open_connection(address.as_str()).await?;
    println!("Send: {message:?}");
    writer.write(message.as_bytes());
    let echo = reader.lend_exact(message.len()).await?;
    println!("Received: {:?}", String::from_utf8_lossy(echo));
    println!("Close the socket");
    writer.close();
    Ok(writer.wait_closed().await?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(address), Some(message)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tcp_echo_client HOST:PORT MESSAGE".into());
    };
    tulipa::run(tcp_echo_client(address, message))??;
    Ok(())
}
