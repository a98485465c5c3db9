//! What Python shows before it comes to coroutines, and what it has built on them, in Rust: decorators,
//! iterators, generators, delegation, `async with`, `async for`. Generators that are *sent* values are in
//! `generators`.
//!
//! `cargo run --example python_idioms`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::future::pending;
use std::time::Duration;

use tulipa::{Cancelled, cancellable, sleep, spawn, yield_now};

/// A decorator is a function that takes a function and gives one.
fn traced<A, R>(name: &str, function: impl Fn(A) -> R) -> impl Fn(A) -> R {
    move |argument| {
        println!("calling {name}");
        function(argument)
    }
}

/// One with an argument.
fn repeated<A: Copy, R>(times: usize, function: impl Fn(A) -> R) -> impl Fn(A) -> Vec<R> {
    move |argument| (0..times).map(|_| function(argument)).collect()
}

/// An iterator: `__next__` is `next`, `StopIteration` is `None`.
struct Countdown(u32);

impl Iterator for Countdown {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0 = self.0.checked_sub(1)?;
        Some(self.0 + 1)
    }
}

/// A generator without an end: a closure that keeps its state.
fn fibonacci() -> impl Iterator<Item = u64> {
    let (mut this, mut next) = (0, 1);
    std::iter::from_fn(move || {
        let given = this;
        (this, next) = (next, this + next);
        Some(given)
    })
}

/// `async with`: what is entered is left, also when the body is cancelled, and both may await.
async fn connected<T>(name: &str, body: impl AsyncFnOnce() -> T) -> Result<T, Cancelled> {
    println!("entering {name}");
    yield_now().await;
    let result = cancellable(body()).await;
    yield_now().await;
    println!("leaving {name}");
    result
}

/// `async for`: `__anext__` is an async method, `StopAsyncIteration` is `None`.
struct Pages(std::vec::IntoIter<&'static str>);

impl Pages {
    async fn next(&mut self) -> Option<&'static str> {
        sleep(Duration::from_millis(1)).await;
        self.0.next()
    }
}

fn before_coroutines() {
    let double = traced("double", |number: u32| 2 * number);
    println!("decorated: {} {:?}", double(21), repeated(2, &double)(4));

    let numbers: Vec<_> = Countdown(3).collect();
    println!("iterated: {numbers:?}");

    let squares: u32 = (1..=4).map(|number| number * number).sum();
    println!("generator expression: {squares}");
    println!("infinite: {:?}", fibonacci().take(8).collect::<Vec<_>>());

    // `yield from` twice.
    println!("delegated: {:?}", Countdown(2).chain(3..5).collect::<Vec<_>>());
}

#[tulipa::main]
async fn main() {
    before_coroutines();

    let body = async || "the body's value";
    println!("async with: {:?}", connected("the first", body).await);
    let interrupted = spawn(connected("the second", async || pending::<()>().await));
    sleep(Duration::from_millis(1)).await;
    interrupted.cancel();
    println!("async with, cancelled: {:?}", interrupted.await.expect("it leaves and goes on"));

    let mut pages = Pages(vec!["one", "two"].into_iter());
    while let Some(page) = pages.next().await {
        println!("async for: {page}");
    }
}
