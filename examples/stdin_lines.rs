//! Numbers the lines of standard input, which may be a terminal, a pipe or a file, while a timer says that the loop is
//! alive.
//!
//! `cargo run --example stdin_lines`, or `ls | cargo run --example stdin_lines`, or with `< Cargo.toml`. It ends with
//! the input (Ctrl-D). The terminal is left as it was.

#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use tulipa::{ReadError, interval, spawn, stderr, stdin, stdout};

const HEARTBEAT: Duration = Duration::from_secs(3);

async fn number_lines() -> Result<usize, ReadError> {
    let (mut input, output) = (stdin()?, stdout()?);
    let mut count = 0;
    loop {
        let line = match input.read_line().await {
            Ok([]) => break,
            Ok(line) => String::from_utf8_lossy(line).trim_end().to_owned(),
            Err(ReadError::LimitOverrun(_)) => "(a line that is too long)".to_owned(),
            Err(error) => return Err(error),
        };
        count += 1;
        output.write_all(format!("{count:6} {line}\n").as_bytes()).await?;
    }
    // What was not sent when the program ends is lost.
    output.flush().await?;
    Ok(count)
}

async fn heartbeat() -> io::Result<()> {
    let errors = stderr()?;
    let mut ticks = interval(HEARTBEAT);
    loop {
        ticks.tick().await;
        errors.write_all(b"still here\n").await?;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counted = tulipa::run(async {
        let alive = spawn(heartbeat());
        let counted = number_lines().await;
        alive.cancel();
        counted
    })?;
    match counted {
        Ok(_) => Ok(()),
        // Whoever read our lines has seen enough: `stdin_lines | head`.
        Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error.into()),
    }
}
