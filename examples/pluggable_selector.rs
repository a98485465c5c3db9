//! The same program over three selectors: epoll (or whatever is best here), the portable one, and a
//! virtual one, where an hour takes no time.
//!
//! `cargo run --example pluggable_selector`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::time::Duration;

use tulipa_loop::{EventLoop, LoopHandle};
use tulipa_selector::{DefaultSelector, PollingSelector, Selector, VirtualSelector};

/// Counts to three, with a pause before each number.
fn program(
    selector: impl Selector + 'static,
    pause: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let name = selector.name();
    let event_loop = EventLoop::builder().selector(selector).build()?;
    let started = event_loop.time();
    event_loop.call_later(pause, move |handle| count(handle, 1, pause));
    event_loop.run_forever()?;
    let seconds = (event_loop.time() - started).as_secs();
    println!("{name}: counted to three in {seconds} s of the loop's time");
    Ok(())
}

fn count(handle: &LoopHandle, n: u32, pause: Duration) {
    if n == 3 {
        return handle.stop();
    }
    handle.call_later(pause, move |handle| count(handle, n + 1, pause));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    program(DefaultSelector::new()?, Duration::from_millis(10))?;
    program(PollingSelector::new()?, Duration::from_millis(10))?;

    let simulated = VirtualSelector::new();
    simulated.handle().set_autojump(true);
    program(simulated, Duration::from_secs(1200))
}
