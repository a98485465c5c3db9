//! Cancelling a task: it hears of it where it says that it can be cancelled, cleans up, and ends.
//!
//! `cargo run --example cancel_task`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::future::pending;

use tulipa::{Cancelled, cancellable, spawn, yield_now};

async fn some_task() -> &'static str {
    println!("at work");
    match cancellable(pending::<()>()).await {
        Ok(()) => "done",
        Err(Cancelled) => {
            // Clean-up may await.
            yield_now().await;
            "cleaned up"
        }
    }
}

#[tulipa::main]
async fn main() -> Result<(), tulipa::JoinError> {
    let task = spawn(some_task());
    let never_begun = spawn(some_task());
    never_begun.cancel();
    // The first task takes its first step.
    yield_now().await;
    println!("asked to end: {}", task.cancel());
    println!("it has {}", task.await?);
    if let Err(error) = never_begun.await {
        println!("the other one: {error}");
    }
    Ok(())
}
