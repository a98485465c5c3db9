//! The smallest program with callbacks: one says hello, and stops the loop.
//!
//! `cargo run --example hello_callback`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use tulipa_loop::{EventLoop, LoopHandle};

fn hello_world(handle: &LoopHandle) {
    println!("Hello World");
    handle.stop();
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let event_loop = EventLoop::new()?;
    event_loop.call_soon(hello_world);
    // Runs until `stop`; then the loop closes with its owner.
    event_loop.run_forever()?;
    Ok(())
}
