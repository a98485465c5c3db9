//! `#[tulipa::main]` and `#[tulipa::test]`: an `async fn` becomes the program, or a test with a loop of
//! its own. The crate `tulipa` re-exports both; use them from there.
//!
//! ```
//! # mod example {
//! use std::time::Duration;
//!
//! #[tulipa::test(clock = "autojump", strict)]
//! async fn an_hour_passes_at_once() {
//!     tulipa::sleep(Duration::from_secs(3600)).await;
//!     assert_eq!(tulipa::testing::elapsed(), Duration::from_secs(3600));
//! }
//! # }
//!
//! #[tulipa::main]
//! async fn main() -> Result<(), tulipa::JoinError> {
//!     let task = tulipa::spawn(async { 6 * 7 });
//!     assert_eq!(task.await?, 42);
//!     Ok(())
//! }
//! ```
//!
//! # Limits
//! The functions take no arguments and have no generics. `main` is the only function that can be the
//! program; elsewhere call `tulipa::run`.
//!
//! # Map
//! | module | what is in it |
//! |---|---|
//! | `token` | tokens without `proc_macro`, which works only inside of a compilation: tests can make these |
//! | `arguments` | what is in the brackets of the attribute |
//! | `function` | where what is in the function below it |
//! | `expand` | the function that takes its place |

#![forbid(unsafe_code)]

mod arguments;
mod expand;
mod function;
#[cfg(test)]
mod lexer;
mod token;

use proc_macro::TokenStream;

use crate::expand::Kind;

/// Makes an `async fn main` the program: it is run as [`tulipa::run`] does.
///
/// ```
/// use std::time::Duration;
///
/// #[tulipa::main]
/// async fn main() {
///     tulipa::sleep(Duration::from_millis(1)).await;
/// }
/// ```
///
/// The function gives what any `main` may give. A program that Ctrl-C ends (feature `signal`) exits with
/// status 130, as shells have it; a loop that cannot run, or a main task that was cancelled, is said on
/// the standard error, with status 1.
///
/// # Arguments
/// | argument | means |
/// |---|---|
/// | `debug = true` | debug mode on or off, whatever `TULIPA_DEBUG` says |
/// | `crate = path` | where `tulipa` is, if it has another name: `crate = my_crate::tulipa` |
///
/// # Panics
/// With the panic of the function, when all else has ended.
///
/// What is not an `async fn main()` is refused:
///
/// ```compile_fail
/// #[tulipa::main]
/// fn main() {}
/// ```
/// ```compile_fail
/// #[tulipa::main]
/// async fn main(arguments: Vec<String>) {}
/// ```
/// ```compile_fail
/// #[tulipa::main(loops = 2)]
/// async fn main() {}
/// ```
/// ```compile_fail,E0277
/// #[tulipa::main]
/// async fn main() -> &'static str {
///     "no program ends with a text"
/// }
/// ```
///
/// [`tulipa::run`]: https://docs.rs/tulipa/latest/tulipa/fn.run.html
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(Kind::Main, arguments, item)
}

/// Makes an `async fn` a test with a loop of its own, which no other test sees.
///
/// ```
/// # fn main() {}
/// use std::time::Duration;
/// use tulipa::{sleep, timeout};
///
/// #[tulipa::test(clock = "autojump")]
/// async fn a_slow_answer_is_given_up() {
///     let answer = timeout(Duration::from_secs(30), sleep(Duration::from_secs(60))).await;
///     assert!(answer.is_err());
/// }
/// ```
///
/// The function gives `()` or a `Result<(), E>` whose error is `Debug`. Other attributes
/// (`#[ignore]`, `#[should_panic]`, `#[cfg(..)]`, documentation) do what they do to any test.
///
/// # Arguments
/// | argument | means |
/// |---|---|
/// | `clock = "real"` | real time, and descriptors: what holds if nothing is said |
/// | `clock = "virtual"` | the clock moves only when the test awaits `tulipa::testing::advance` |
/// | `clock = "autojump"` | the clock jumps to what is next whenever nothing can run |
/// | `strict` | tasks, timers, sources and registrations that are left at the end fail the test |
/// | `timeout = 5` | how many seconds of its clock it may take: 60 if nothing is said and the clock is real |
/// | `debug = true` | debug mode on or off, whatever `TULIPA_DEBUG` says |
/// | `crate = path` | where `tulipa` is, if it has another name; `tulipa_testing` will do too |
///
/// # Panics
/// The test fails with the panic of its function, and by [`tulipa::testing::TestRunner`] if something was
/// reported to the loop's exception handler, if it can never end, or as `strict` says.
///
/// What cannot be a test is refused:
///
/// ```compile_fail
/// #[tulipa::test]
/// fn not_async() {}
/// ```
/// ```compile_fail
/// #[tulipa::test]
/// async fn with_arguments(port: u16) {}
/// ```
/// ```compile_fail
/// #[tulipa::test]
/// async fn generic<T>() {}
/// ```
/// ```compile_fail
/// #[tulipa::test(clock = "wall")]
/// async fn by_an_unknown_clock() {}
/// ```
///
/// [`tulipa::testing::TestRunner`]: https://docs.rs/tulipa/latest/tulipa/testing/struct.TestRunner.html
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(Kind::Test, arguments, item)
}
