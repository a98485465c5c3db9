//! Deferreds: a chain of callbacks, an error that an errback takes, a timeout, a cancel, and a call that is made again
//! and again. Twisted's `task.react` runs it all.
//!
//! `cargo run --example deferred`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use tulipa::{Deferred, DeferredError, LoopHandle, LoopingCall, react, sleep};

type Number = Deferred<u64, String>;

const SHORT: Duration = Duration::from_millis(10);

/// Has its result later: what Twisted's functions return.
fn double_later(number: u64) -> Number {
    let (trigger, deferred) = Deferred::pair();
    LoopHandle::current().call_later(SHORT, move |_| {
        // It may have been cancelled.
        let _unwanted = match number {
            0..100 => trigger.callback(number * 2).map_err(drop),
            _ => trigger.errback(format!("{number} is too much for me")).map_err(drop),
        };
    });
    deferred
}

/// What never answers; it hears of a cancel.
fn silence() -> Number {
    let (trigger, deferred) = Deferred::with_canceller(|| println!("nobody waits any more"));
    // Kept by something that will never use it.
    std::mem::forget(trigger);
    deferred
}

fn callbacks() -> Number {
    double_later(21)
        .add_callback(|number| {
            println!("twice 21 is {number}");
            Ok(number)
        })
        .chain(double_later)
        .add_callback(|number| {
            println!("and twice that is {number}");
            Ok(number + 100)
        })
        .chain(double_later)
        .add_errback(|error| {
            println!("an errback: {error}");
            Ok(0)
        })
}

async fn main_program() -> Result<(), DeferredError<String>> {
    let ticks = Rc::new(Cell::new(0));
    let counted = ticks.clone();
    let ticking =
        LoopingCall::now(SHORT / 4, move |missed| counted.set(counted.get() + 1 + missed));
    println!("the chain ends with {}", callbacks().await?);
    let late = silence().add_timeout(SHORT).await;
    println!("silence: {}", late.expect_err("nobody answers"));
    let slow = Number::from_future(async {
        sleep(SHORT * 1000).await;
        Ok(1)
    });
    slow.cancel();
    println!("a task: {}", slow.await.expect_err("it was cancelled"));
    ticking.stop();
    println!(
        "{}",
        if ticks.get() > 10 { "there was a lot of ticking" } else { "hardly any ticks" }
    );
    Ok(())
}

fn main() -> ExitCode {
    react(main_program)
}
