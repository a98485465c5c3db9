//! A spinner that turns while a coroutine thinks, both in one thread. When the answer is there the spinner is
//! cancelled, wipes its line, and ends. `spinner_thread` is the same program with threads.
//!
//! `cargo run --example spinner`
//!
//! With `--virtual` the three seconds pass at once.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use tulipa::testing::VirtualLoop;
use tulipa::{JoinError, cancellable, sleep, spawn};

const FRAME: Duration = Duration::from_millis(100);
const THINKING: Duration = Duration::from_secs(3);

async fn spin(message: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    for frame in ['|', '/', '-', '\\'].into_iter().cycle() {
        write!(stdout, "\r{frame} {message}")?;
        stdout.flush()?;
        // Where this task can be cancelled: it goes on behind it, and may clean up.
        if cancellable(sleep(FRAME)).await.is_err() {
            break;
        }
    }
    write!(stdout, "\r{:width$}\r", "", width = message.len() + 2)?;
    stdout.flush()
}

async fn slow_function() -> u32 {
    // As if it waited for an answer from far away.
    sleep(THINKING).await;
    42
}

async fn supervisor() -> Result<u32, JoinError> {
    let mut spinner = spawn(spin("thinking!"));
    println!("spinner object: {spinner:?}");
    let answer = slow_function().await;
    spinner.cancel();
    // It has a last line to write.
    let wiped = spinner.joined().await?;
    wiped.expect("the standard output takes it");
    Ok(answer)
}

fn main() -> Result<(), Box<dyn Error>> {
    let in_virtual_time = std::env::args().any(|argument| argument == "--virtual");
    let answer = if in_virtual_time {
        VirtualLoop::new().run_until_complete(supervisor())??
    } else {
        tulipa::run(supervisor())??
    };
    println!("Answer: {answer}");
    Ok(())
}
