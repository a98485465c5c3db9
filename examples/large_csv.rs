//! A web server that sends a table which it does not have yet: a row every 0.1 seconds, as it becomes known, in a
//! chunked response. It holds no more than one row, however long the table is.
//!
//! `cargo run --example large_csv [-- --rows N] [--bind ADDR | --unix PATH]`, then `curl -N http://127.0.0.1:PORT/`.
//!
//! With `--virtual` it talks to itself through memory, in virtual time, and shows when each row came.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::process::ExitCode;
use std::time::Duration;

use tulipa::testing::VirtualLoop;
use tulipa::{
    DEFAULT_LIMIT, LoopHandle, MemoryLink, ReadError, StreamProtocol, StreamReader, StreamWriter,
    interval, open_link, spawn,
};
use tulipa_examples::serve::{self, Address};
use tulipa_examples::server;

const PERIOD: Duration = Duration::from_millis(100);
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\
                    Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";

fn seconds() -> f64 {
    let time = LoopHandle::current().time();
    START.with(|start| time - *start.get_or_init(|| time)).as_secs_f64()
}

thread_local! {
    static START: std::cell::OnceCell<std::time::Instant> = const { std::cell::OnceCell::new() };
}

async fn large_csv(
    mut reader: StreamReader,
    writer: StreamWriter,
    rows: usize,
) -> Result<(), ReadError> {
    reader.read_until(b"\r\n\r\n").await?;
    writer.write(HEAD.as_bytes());
    let mut ticks = interval(PERIOD);
    for number in 0..rows {
        ticks.tick().await;
        let row = format!("{number},{:.1}\n", seconds());
        writer.write(format!("{:x}\r\n{row}\r\n", row.len()).as_bytes());
        // A client that is slow waits for its own rows only.
        writer.drain().await?;
    }
    writer.write(b"0\r\n\r\n");
    Ok(())
}

async fn download(mut reader: StreamReader, writer: StreamWriter) -> Result<(), ReadError> {
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    reader.read_until(b"\r\n\r\n").await?;
    loop {
        let size = String::from_utf8_lossy(reader.read_until(b"\r\n").await?).into_owned();
        let size = usize::from_str_radix(size.trim_end(), 16).expect("a chunk has a size");
        let chunk = reader.lend_exact(size + 2).await?;
        if size == 0 {
            return Ok(());
        }
        let row = String::from_utf8_lossy(&chunk[..size]).into_owned();
        println!("at {:.1} s: {}", seconds(), row.trim_end());
    }
}

fn in_virtual_time(rows: usize) -> Result<(), Box<dyn std::error::Error>> {
    let virtual_loop = VirtualLoop::new();
    let (near, far) = MemoryLink::pair(4096);
    virtual_loop.run_until_complete(async {
        let (reader, writer) = open_link(far, DEFAULT_LIMIT).await?;
        let serving = spawn(large_csv(reader, writer, rows));
        let (reader, writer) = open_link(near, DEFAULT_LIMIT).await?;
        download(reader, writer).await?;
        serving.await.expect("it does not panic")
    })??;
    Ok(())
}

fn main() -> ExitCode {
    let (mut rows, mut is_virtual) = (1_000_000, false);
    let (about, usage) = ("Sends a long table as it becomes known.", " [--rows N] [--virtual]");
    let address = Address::from_command_line_with(about, usage, |name, parser| {
        match name {
            "rows" => {
                rows = parser
                    .value()?
                    .to_str()
                    .and_then(|rows| rows.parse().ok())
                    .ok_or("how many?")?
            }
            "virtual" => is_virtual = true,
            _ => return Ok(false),
        }
        Ok(true)
    });
    if is_virtual {
        return serve::exit_code(
            in_virtual_time(rows).map_err(|error| std::io::Error::other(error.to_string())),
        );
    }
    let factory = move || {
        StreamProtocol::new(move |reader, writer| {
            drop(spawn(async move {
                let _broken_off = large_csv(reader, writer, rows).await;
            }));
        })
    };
    serve::exit_code(server::run(&address, factory))
}
