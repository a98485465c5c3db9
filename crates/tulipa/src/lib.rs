//! asyncio for Rust: one event loop for each thread, with tasks, timeouts, groups, locks and queues.
//!
//! ```
//! use std::time::Duration;
//! use tulipa::{JoinError, sleep, spawn};
//!
//! async fn say_after(delay: Duration, what: &str) -> usize {
//!     sleep(delay).await;
//!     println!("{what}");
//!     what.len()
//! }
//!
//! #[tulipa::main]
//! async fn main() -> Result<(), JoinError> {
//!     let hello = spawn(say_after(Duration::from_millis(1), "hello"));
//!     let world = spawn(say_after(Duration::from_millis(2), "world"));
//!     assert_eq!(hello.await? + world.await?, 10);
//!     Ok(())
//! }
//! ```
//!
//! The attribute `main` is short for a call of [`run()`] with a future. Futures need not be `Send`: everything
//! runs on the thread that calls it. Whoever knows asyncio
//! finds its names; where something is different, its documentation says so.
//!
//! # Limits
//! A loop lives on one thread, and one loop runs on a thread at a time. Several cores take several loops,
//! which talk through [`Remote`]. Transports, protocols and streams are for unix. TLS is not there yet.
//!
//! # Features
//! `macros` is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `hyper` | hyper's `Read`, `Write`, `Timer`, `Executor` for streams and loops, on unix |
//! | `macros` | the attribute `main` |
//! | `signal` | signal handlers, `ctrl_c`, signals as a stream, on unix; [`run()`] listens to Ctrl-C |
//! | `testing` | the attribute `test`, and the module `testing`: loops in virtual time |
//! | `tokio-io` | tokio's `AsyncRead` and `AsyncWrite` for streams, on unix |
//! | `full` | all of these |
//!
//! # Map
//! | where | what is in it | crate |
//! |---|---|---|
//! | here | [`run()`], [`EventLoop`], [`spawn`], [`sleep()`], [`timeout()`], [`task_group`], … | `tulipa-loop` |
//! | here, on unix | `Protocol`, `Transport`, `create_connection`, `create_server`, … | `tulipa-protocols` |
//! | here, on unix | `open_connection`, `start_server`, `StreamReader`, `StreamWriter`, `codec`, `fs`, … | `tulipa-streams` |
//! | [`sync`] | locks, semaphores, barriers, queues | `tulipa-sync` |
//! | [`selector`] | what waits for readiness, and is the clock | `tulipa-selector` |
//! | `testing` | tests with a loop of their own, and loops in virtual time | `tulipa-testing` |
//! | `main`, `test` | the attributes | `tulipa-macros` |
//!
//! This crate has no code of its own: its items are those of the crates below it.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[doc(inline)]
pub use tulipa_loop::*;
#[cfg(feature = "macros")]
#[cfg_attr(docsrs, doc(cfg(feature = "macros")))]
pub use tulipa_macros::main;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub use tulipa_macros::test;
#[cfg(unix)]
#[doc(inline)]
pub use tulipa_protocols::*;
#[doc(inline)]
pub use tulipa_selector as selector;
#[cfg(unix)]
#[doc(inline)]
pub use tulipa_streams::*;
#[doc(inline)]
pub use tulipa_sync as sync;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
#[doc(inline)]
pub use tulipa_testing as testing;

/// What the attributes call. Not part of the interface: it changes with any version.
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "macros")]
    pub use tulipa_loop::__private::{Exit, Program};
    #[cfg(feature = "testing")]
    pub use tulipa_testing::__private::{Clock, TestRunner};
}
