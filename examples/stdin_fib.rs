//! Standard input as a source of events: type a number, get its Fibonacci number, while a timer says
//! that the loop is alive.
//!
//! `cargo run --example stdin_fib`, or `echo 30 | cargo run --example stdin_fib`, or with
//! `< numbers.txt`. It ends with the input (Ctrl-D).

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::time::Duration;

use tulipa_loop::{EventLoop, LoopHandle};
use tulipa_selector::Source;

const HEARTBEAT: Duration = Duration::from_secs(3);
/// A number has few digits; a line that is longer is no number.
const LONGEST_LINE: usize = 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let event_loop = EventLoop::new()?;
    event_loop.call_later(HEARTBEAT, heartbeat);
    let mut unread = Vec::new();
    event_loop.add_reader(Source::new(std::io::stdin()), move |handle| {
        process_input(handle, &mut unread);
    })?;
    event_loop.run_forever()?;
    Ok(())
}

fn heartbeat(handle: &LoopHandle) {
    eprintln!("still here");
    handle.call_later(HEARTBEAT, heartbeat);
}

/// There is input: one read, which does not block, and every whole line in it.
fn process_input(handle: &LoopHandle, unread: &mut Vec<u8>) {
    let mut chunk = [0; 4096];
    match rustix::io::read(std::io::stdin(), &mut chunk) {
        Ok(0) => {
            answer(handle, unread);
            return handle.stop();
        }
        Ok(n) => unread.extend_from_slice(&chunk[..n]),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
        Err(error) => {
            eprintln!("cannot read standard input: {error}");
            return handle.stop();
        }
    }
    while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = unread.drain(..=end).collect();
        answer(handle, &line);
    }
    if unread.len() > LONGEST_LINE {
        eprintln!("a line is too long");
        unread.clear();
    }
}

fn answer(handle: &LoopHandle, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    match text.trim().parse::<u32>() {
        Ok(n) if n <= 40 => println!("fib({n}) = {}", timed_fib(handle, n)),
        Ok(n) => eprintln!("{n} takes too long"),
        Err(_) if text.trim().is_empty() => {}
        Err(_) => eprintln!("{:?} is not a number", text.trim()),
    }
}

/// It blocks the loop while it computes, on purpose: that is what the talk shows. Larger numbers
/// belong into `run_in_executor`.
fn timed_fib(handle: &LoopHandle, n: u32) -> u64 {
    let started = handle.time();
    let result = fib(n);
    eprintln!("timed_fib took {:?}", handle.time() - started);
    result
}

fn fib(n: u32) -> u64 {
    if n < 2 { n.into() } else { fib(n - 1) + fib(n - 2) }
}
