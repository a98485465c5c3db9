//! Work that blocks, in other threads: the loop's default executor, and a pool of one's own.
//!
//! `cargo run --example executor`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::time::Duration;

use tulipa_loop::{EventLoop, JobError, ThreadPool};

/// Something that takes its time, and the loop's time if it were called there.
fn word_lengths(text: &str) -> Vec<usize> {
    text.split_whitespace().map(str::len).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let event_loop = EventLoop::new()?;

    let lengths = event_loop.run_until_complete(async {
        event_loop.run_in_executor(None, || word_lengths("beds of red tulips")).await
    })??;
    println!("in the default executor: {lengths:?}");

    let pool = ThreadPool::builder().threads(2).name("counter").build();
    let name = event_loop.run_until_complete(async {
        let name = || std::thread::current().name().map(str::to_owned);
        event_loop.run_in_executor(Some(&pool), name).await
    })??;
    println!("in a pool: {}", name.unwrap_or_default());

    let squares: Vec<u64> = pool.map(1..=5u64, |n| n * n).collect::<Result<_, _>>()?;
    println!("in order: {squares:?}");

    let failed = event_loop.run_until_complete(async {
        event_loop.run_in_executor(Some(&pool), || -> u32 { "many".parse().unwrap() }).await
    })?;
    match failed {
        Err(JobError::Panicked(_)) => println!("a panic becomes an error"),
        other => println!("unexpected: {other:?}"),
    }

    pool.shutdown_timeout(Duration::from_secs(10), true)?;
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None))??;
    println!("all threads have ended");
    Ok(())
}
