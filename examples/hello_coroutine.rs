//! The smallest program with a coroutine: a greeting, a pause, another greeting.
//!
//! `cargo run --example hello_coroutine`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::time::Duration;

async fn hello_world() {
    println!("Hello");
    tulipa::sleep(Duration::from_millis(100)).await;
    println!("World!");
}

fn main() -> Result<(), tulipa::RunError> {
    tulipa::run(hello_world())
}
