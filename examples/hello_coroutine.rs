//! The smallest program with a coroutine: a greeting, a pause, another greeting.
//!
//! `cargo run --example hello_coroutine`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::time::Duration;

#[tulipa::main]
async fn main() {
    println!("Hello");
    tulipa::sleep(Duration::from_millis(100)).await;
    println!("World!");
}
