//! A callback that calls itself again later: three greetings, half a second apart.
//!
//! `cargo run --example hello_delayed`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::time::Duration;

use tulipa_loop::{EventLoop, LoopHandle};

const GREETINGS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// Counts on from deadline to deadline, so that a late callback does not make the next one later.
fn hello_world(handle: &LoopHandle, nth: u32, deadline: std::time::Instant) {
    println!("Hello World {nth}");
    if nth == GREETINGS {
        return handle.stop();
    }
    let next = deadline + PAUSE;
    handle.call_at(next, move |handle| hello_world(handle, nth + 1, next));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let event_loop = EventLoop::new()?;
    let first = event_loop.time() + PAUSE;
    event_loop.call_at(first, move |handle| hello_world(handle, 1, first));
    event_loop.run_forever()?;
    Ok(())
}
