//! Three requests, each of which needs the answer of the one before, as callbacks. `three_stages` is the
//! same program as a coroutine.
//!
//! `cargo run --example three_stages_callbacks`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::time::Duration;

use tulipa::{EventLoop, LoopHandle};

const LATENCY: Duration = Duration::from_millis(20);

fn api_call(
    handle: &LoopHandle,
    request: String,
    done: impl FnOnce(&LoopHandle, String) + 'static,
) {
    println!("requested {request}");
    handle.call_later(LATENCY, move |handle| done(handle, format!("<{request}>")));
}

fn stage1(handle: &LoopHandle, response: String) {
    api_call(handle, format!("step 2 of {response}"), stage2);
}

fn stage2(handle: &LoopHandle, response: String) {
    api_call(handle, format!("step 3 of {response}"), stage3);
}

fn stage3(handle: &LoopHandle, response: String) {
    println!("answer {response}");
    handle.stop();
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let event_loop = EventLoop::new()?;
    api_call(&event_loop, "step 1".to_owned(), stage1);
    Ok(event_loop.run_forever()?)
}
