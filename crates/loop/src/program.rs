//! What `#[tulipa::main]` makes of a main function: it is run, and its end is the program's exit status.

use std::fmt;
use std::process::{ExitCode, Termination};

use crate::{EventLoop, RunError, Runner};

/// The exit status of a program that Ctrl-C has ended: 128 and the number of the signal, as shells have it.
const INTERRUPTED: u8 = 130;

/// A program that has not begun.
#[derive(Debug, Default)]
pub struct Program {
    debug: Option<bool>,
}

/// What a main function gives to the operating system.
#[derive(Debug)]
pub struct Exit<T>(Result<T, RunError>);

/// Says what went wrong in words: a main function shows its errors with `Debug`.
struct InWords(RunError);

impl Program {
    /// A program with a loop as [`EventLoop::new`] makes it.
    pub fn new() -> Program {
        Program::default()
    }

    /// Turns debug mode on or off, whatever the environment says.
    pub fn debug(mut self, debug: bool) -> Program {
        self.debug = Some(debug);
        self
    }

    /// Runs it to its end, as [`run`](crate::run()) does.
    #[track_caller]
    pub fn run<F: Future + 'static>(self, main: F) -> Exit<F::Output> {
        let builder = EventLoop::builder();
        let builder = match self.debug {
            Some(debug) => builder.debug(debug),
            None => builder,
        };
        Exit(match builder.build() {
            Ok(event_loop) => Runner::with_loop(event_loop).run_to_the_end(main),
            Err(error) => Err(RunError::Select(error)),
        })
    }
}

/// Runs a program as [`run`](crate::run()) does and makes an exit status of its end: for a main function that is not
/// asynchronous itself. What `main` returns may be a future or a [`Deferred`](crate::Deferred). Stands for Twisted's
/// `task.react`.
///
/// ```
/// use std::process::ExitCode;
/// use tulipa_loop::{Deferred, react};
///
/// fn main() -> ExitCode {
///     react(|| Deferred::<(), String>::succeed(()))
/// }
/// ```
///
/// An error is said on the standard error and is the status 1; Ctrl-C is 130.
///
/// # Panics
/// With the panic of the program, when everything has ended.
#[track_caller]
pub fn react<F>(main: impl FnOnce() -> F + 'static) -> ExitCode
where
    F: IntoFuture + 'static,
    F::Output: Termination,
{
    Program::new().run(async move { main().await }).report()
}

impl<T: Termination> Termination for Exit<T> {
    fn report(self) -> ExitCode {
        match self.0 {
            Ok(value) => value.report(),
            Err(RunError::Interrupted) => ExitCode::from(INTERRUPTED),
            Err(error) => Err::<(), _>(InWords(error)).report(),
        }
    }
}

impl fmt::Debug for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ctrl_c_has_ended_exits_with_130() {
        let status = Exit::<()>(Err(RunError::Interrupted)).report();
        assert_eq!(status, ExitCode::from(130));
    }

    #[test]
    fn what_went_wrong_is_said_in_words() {
        assert_eq!(format!("{:?}", InWords(RunError::Closed(7))), "event loop 7 is closed");
    }
}
