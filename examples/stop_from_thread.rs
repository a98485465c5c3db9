//! A loop that runs for ever, and a thread that stops it.
//!
//! The loop's own handle cannot leave its thread; what other threads may hold is a `Remote`.
//!
//! `cargo run --example stop_from_thread`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::thread;

use tulipa_loop::EventLoop;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let event_loop = EventLoop::new()?;
    let remote = event_loop.remote();
    let worker = thread::spawn(move || {
        remote.call_soon(|handle| {
            println!("hello from {handle:?}");
        })?;
        // Callbacks of one thread run in their order, and a stop waits for those before it.
        remote.call_soon(|handle| handle.stop())
    });
    event_loop.run_forever()?;
    worker.join().expect("the worker does not panic")?;
    println!("stopped");

    let remote = event_loop.remote();
    drop(event_loop);
    println!("later: {}", remote.call_soon(|_| ()).expect_err("there is no loop any more"));
    Ok(())
}
