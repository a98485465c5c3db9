//! A spinner that turns in a thread of its own while the main thread thinks, for comparison with `spinner`:
//! what is a cancel there is a channel here, on which the spinner waits between two frames. Nothing could
//! stop a thread that does not ask.
//!
//! `cargo run --example spinner_thread -- --millis 3000`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use lexopt::ValueExt;

const FRAME: Duration = Duration::from_millis(100);

fn spin(message: &str, done: &Receiver<()>) -> io::Result<()> {
    let mut stdout = io::stdout();
    for frame in ['|', '/', '-', '\\'].into_iter().cycle() {
        write!(stdout, "\r{frame} {message}")?;
        stdout.flush()?;
        match done.recv_timeout(FRAME) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    write!(stdout, "\r{:width$}\r", "", width = message.len() + 2)?;
    stdout.flush()
}

fn slow_function(thinking: Duration) -> u32 {
    // As if it waited for an answer from far away.
    thread::park_timeout(thinking);
    42
}

fn supervisor(thinking: Duration) -> io::Result<u32> {
    let (done, is_done) = mpsc::channel();
    let spinner = thread::Builder::new().name("spinner".to_owned());
    // The spinner gets its turn at the standard output when this line is written.
    let mut stdout = io::stdout().lock();
    let spinner = spinner.spawn(move || spin("thinking!", &is_done))?;
    writeln!(stdout, "spinner object: {:?}", spinner.thread())?;
    drop(stdout);
    let answer = slow_function(thinking);
    drop(done);
    spinner.join().expect("the spinner does not panic")?;
    Ok(answer)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut millis = 3000;
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("millis") => millis = arguments.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    println!("Answer: {}", supervisor(Duration::from_millis(millis))?);
    Ok(())
}
