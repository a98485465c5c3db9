//! Where an error goes: to whoever awaits, or to the loop's exception handler if nobody does. Without a
//! handler the loop logs it, as an error of the `tracing` target `tulipa`.
//!
//! `cargo run --example unconsumed_error`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::rc::Rc;

use tulipa::{ErrorContext, LoopHandle, spawn, yield_now};

async fn foo() -> Result<(), String> {
    Err("Exception time".to_owned())
}

async fn bar() -> Result<(), String> {
    foo().await?;
    println!("never reached");
    Ok(())
}

#[tulipa::main]
async fn main() {
    LoopHandle::current().set_exception_handler(Some(Rc::new(
        |_: &LoopHandle, context: &ErrorContext| println!("reported: {context}"),
    )));

    if let Err(error) = bar().await {
        println!("raised where it is awaited: {error}");
    }
    // Nobody awaits this task, and `detach` says what is to become of its error.
    spawn(foo()).detach();
    yield_now().await;

    let awaited = spawn(foo()).await;
    println!("awaited, so not reported: {awaited:?}");
}
