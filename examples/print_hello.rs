//! A greeting at regular intervals: three seconds apart, as often as one says, five times otherwise.
//!
//! `cargo run --example print_hello -- --times 2 --virtual`
//!
//! With `--virtual` the clock jumps to the next greeting whenever nothing else can run.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Duration;

use lexopt::ValueExt;
use tulipa::testing::VirtualLoop;
use tulipa::{LoopHandle, sleep};

const PAUSE: Duration = Duration::from_secs(3);

async fn print_hello(times: u32) {
    let handle = LoopHandle::current();
    let start = handle.time();
    for _ in 0..times {
        let seconds = handle.time().saturating_duration_since(start).as_secs();
        println!("{seconds} s: Hello World");
        sleep(PAUSE).await;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut times, mut in_virtual_time) = (5, false);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("times") => times = arguments.value()?.string()?.parse()?,
            lexopt::Arg::Long("virtual") => in_virtual_time = true,
            other => return Err(other.unexpected().into()),
        }
    }
    if in_virtual_time {
        VirtualLoop::new().run_until_complete(print_hello(times))?;
    } else {
        tulipa::run(print_hello(times))?;
    }
    Ok(())
}
