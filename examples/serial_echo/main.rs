//! A serial port as a library would make it: one that echoes, and one that talks to it. The two are the ends of a
//! pseudo-terminal, so no hardware is needed.
//!
//! `serial.rs` uses nothing but `add_reader`, `add_writer` and `create_future`: what a library needs for a device that
//! the loop does not know. Timeouts are the loop's, not the port's.
//!
//! `cargo run --example serial_echo [-- MESSAGE]`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

mod serial;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serial::AsyncSerial;
use tulipa::{LoopHandle, spawn, timeout};

const PATIENCE: Duration = Duration::from_secs(10);
const NOBODY_ANSWERS: Duration = Duration::from_millis(100);

/// The two ends of a pseudo-terminal that changes nothing on the way, as a cable.
fn cable() -> io::Result<(OwnedFd, OwnedFd)> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&near)?;
    unlockpt(&near)?;
    let options = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let far = rustix::fs::open(ptsname(&near, Vec::new())?, options, Mode::empty())?;
    let mut settings = tcgetattr(&far)?;
    settings.make_raw();
    tcsetattr(&far, OptionalActions::Now, &settings)?;
    Ok((near, far))
}

async fn echo(port: AsyncSerial) -> io::Result<()> {
    loop {
        let data = port.read(64).await?;
        if data.is_empty() {
            return Ok(());
        }
        port.write(&data).await?;
    }
}

async fn talk(message: &[u8]) -> io::Result<()> {
    let handle = LoopHandle::current();
    let (near, far) = cable()?;
    let port = AsyncSerial::new(&handle, near)?;
    let echoing = spawn(echo(AsyncSerial::new(&handle, far)?));

    port.write(message).await?;
    let mut answer = Vec::new();
    while answer.len() < message.len() {
        let read = timeout(PATIENCE, port.read(message.len() - answer.len())).await;
        answer.extend(read.map_err(io::Error::other)??);
    }
    println!("echo: {}", String::from_utf8_lossy(&answer));

    // Nobody answers. A timeout is the loop's; the port is as good as before.
    let nothing = timeout(NOBODY_ANSWERS, port.read(1)).await;
    println!("timed out: {}", nothing.is_err());

    // One at a time: two readers would get the halves of a message.
    let (first, second) = (port.read(1), port.read(1));
    let mut first = std::pin::pin!(first);
    let waiting = std::future::poll_fn(|context| {
        std::task::Poll::Ready(first.as_mut().poll(context).is_pending())
    });
    println!("waiting: {}", waiting.await);
    println!("second reader: {}", second.await.expect_err("it is refused").kind());

    echoing.cancel();
    let _cancelled = echoing.await;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let message = std::env::args().nth(1).unwrap_or_else(|| "hello".to_owned());
    tulipa::run(async move { talk(message.as_bytes()).await })??;
    Ok(())
}
