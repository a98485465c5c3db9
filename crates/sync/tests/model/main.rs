//! Each primitive against a plain sequential model, under random schedules in which any future may
//! be dropped at any time.
//!
//! The models are lists that are searched; they predict for every future whether it is ready, and
//! whether it was woken. `TULIPA_CASES` sets how many schedules are tried.

#[path = "../common/mod.rs"]
mod common;

mod barrier;
mod condition;
mod event;
mod permits;
mod queue;

use proptest::test_runner::Config;

fn config() -> Config {
    Config { failure_persistence: None, ..Config::with_cases(common::cases()) }
}

/// How long a schedule may be: shorter under Miri, which is slow.
fn length(most: usize) -> usize {
    if cfg!(miri) { most / 4 } else { most }
}

/// Picks one of `len` things by an arbitrary number.
fn pick(choice: u8, len: usize) -> Option<usize> {
    (len > 0).then(|| usize::from(choice) % len)
}
