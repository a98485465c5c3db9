//! tulipa: protocols, protocols with a buffer of their own, and streams.

use std::io;

use memchr::memchr_iter;
use tulipa_loop::EventLoop;
use tulipa_protocols::{Buffered, BufferedProtocol, Listen, Protocol, Server, Transport};
use tulipa_streams::{DEFAULT_LIMIT, StreamReader, StreamWriter, start_server_with};

use super::{BACKLOG, BUFFER, Mode, announce, http};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// Is read into its own buffer.
struct BufferedEcho(Vec<u8>);

impl BufferedProtocol for BufferedEcho {
    fn get_buffer(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn buffer_updated(&mut self, transport: &Transport, count: usize) -> io::Result<()> {
        transport.write(&self.0[..count]);
        Ok(())
    }
}

/// Answers each line by itself.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Protocol for Lines {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        let mut start = 0;
        for end in memchr_iter(b'\n', data) {
            let line = &data[start..=end];
            start = end + 1;
            if self.0.is_empty() {
                transport.write(line);
            } else {
                self.0.extend_from_slice(line);
                transport.write(&self.0);
                self.0.clear();
            }
        }
        self.0.extend_from_slice(&data[start..]);
        Ok(())
    }
}

fn listen() -> Listen {
    Listen::on("127.0.0.1:0").backlog(BACKLOG)
}

pub(super) fn protocol(mode: Mode) {
    match mode {
        Mode::Lines => run(listen().serve(Lines::default)),
        _ => run(listen().serve(|| Echo)),
    }
}

pub(super) fn buffered(_: Mode) {
    run(listen().serve(|| Buffered(BufferedEcho(vec![0; BUFFER]))));
}

pub(super) fn streams(mode: Mode) {
    match mode {
        Mode::Echo => run(start_server_with(listen(), DEFAULT_LIMIT, echo)),
        Mode::Idle => run(start_server_with(listen(), DEFAULT_LIMIT, idle)),
        Mode::Lines => run(start_server_with(listen(), DEFAULT_LIMIT, lines)),
        Mode::Http => run(start_server_with(listen(), DEFAULT_LIMIT, async |reader, writer| {
            http::over_tulipa((reader, writer)).await;
        })),
    }
}

async fn echo(mut reader: StreamReader, writer: StreamWriter) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        writer.write_all(&buffer[..read]).await?;
    }
}

/// Reads what the stream lends, and so needs no buffer.
async fn idle(mut reader: StreamReader, writer: StreamWriter) -> io::Result<()> {
    loop {
        let data = reader.fill().await?;
        if data.is_empty() {
            return Ok(());
        }
        writer.write_all(data).await?;
        let count = data.len();
        reader.consume(count);
    }
}

async fn lines(mut reader: StreamReader, writer: StreamWriter) -> io::Result<()> {
    loop {
        let line = reader.read_line().await?;
        if line.is_empty() {
            return Ok(());
        }
        writer.write(line);
        writer.drain().await?;
    }
}

fn run(serving: impl Future<Output = io::Result<Server>>) {
    let event_loop = EventLoop::new().expect("a loop");
    let server = event_loop.run_until_complete(serving).expect("a run").expect("a server");
    announce(server.local_addrs()[0].inet().expect("an internet address"));
    event_loop.run_forever().expect("a run");
}
