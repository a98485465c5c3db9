//! Four ways to put coroutines together, and how long each takes: one after the other, all at once, one
//! inside the other, and one that never ends beside the rest.
//!
//! `cargo run --example idioms -- parallel chained`
//!
//! Without names it runs all of them. With `--virtual` the clock jumps whenever nothing can run.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use tulipa::testing::VirtualLoop;
use tulipa::{JoinError, LoopHandle, gather, interval, sleep, spawn};

const SECOND: Duration = Duration::from_secs(1);

async fn work(seconds: u32) -> u32 {
    sleep(SECOND * seconds).await;
    seconds
}

/// 4 s, then 3 s, then 1 s: 8 s.
async fn sequential() -> u32 {
    work(4).await + work(3).await + work(1).await
}

/// 4 s, 3 s and 2 s, each in a task: as long as the longest.
async fn parallel() -> Result<u32, JoinError> {
    let tasks = [4, 3, 2].map(|seconds| spawn(work(seconds)));
    gather(tasks).await.into_iter().sum()
}

/// A coroutine that awaits another one, three times half a second.
async fn chained() -> u32 {
    async fn inner(number: u32) -> u32 {
        sleep(SECOND / 2).await;
        number
    }
    let mut sum = 0;
    for number in 1..=3 {
        sum += inner(number).await;
    }
    sum
}

/// What has to be done every second, for as long as the program runs.
async fn housekeeping(start: Instant) {
    let mut ticks = interval(SECOND);
    loop {
        let now = ticks.tick().await;
        println!("housekeeping at {:?}", now.saturating_duration_since(start));
    }
}

async fn timer() -> u32 {
    let start = LoopHandle::current().time();
    // Cancelled when this function ends.
    let _housekeeping = spawn(housekeeping(start)).scoped();
    sleep(SECOND * 7 / 2).await;
    0
}

async fn idioms(mut names: Vec<String>) -> Result<(), Box<dyn Error>> {
    let handle = LoopHandle::current();
    if names.is_empty() {
        names = ["sequential", "parallel", "chained", "timer"].map(str::to_owned).into();
    }
    for name in names {
        let start = handle.time();
        let result = match name.as_str() {
            "sequential" => sequential().await,
            "parallel" => parallel().await?,
            "chained" => chained().await,
            "timer" => timer().await,
            other => return Err(format!("there is no idiom of the name {other}").into()),
        };
        println!("{name}: {result} after {:?}", handle.time().saturating_duration_since(start));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (options, names): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    match options.as_slice() {
        [] => tulipa::run(idioms(names))?,
        [option] if option == "--virtual" => {
            VirtualLoop::new().run_until_complete(idioms(names))?
        }
        _ => Err("usage: idioms [--virtual] [sequential | parallel | chained | timer]...".into()),
    }
}
