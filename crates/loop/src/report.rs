//! What went wrong where nobody was waiting for an answer, and who hears of it.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::Location;

use crate::LoopHandle;

/// A failure that has no caller to return to: the panic of a callback, an error that a background
/// piece of work ended with.
///
/// It goes to the handler set with [`LoopHandle::set_exception_handler`], or to the default one,
/// which logs it. Stands for the context dictionary of asyncio's `call_exception_handler`.
#[derive(Debug)]
#[non_exhaustive]
pub struct ErrorContext {
    /// What was going on: `"panic in a callback"`.
    pub message: String,
    /// What was being run, if something was.
    pub origin: Option<Origin>,
    /// The place in the program that asked for it to be run.
    pub location: Option<&'static Location<'static>>,
    /// What happened.
    pub failure: Failure,
}

/// What the loop was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// Something given to `call_soon`, or to a [`Remote`](crate::Remote).
    Callback,
    /// Something given to `call_later` or `call_at`.
    Timer,
    /// Something given to `add_reader`.
    Reader,
    /// Something given to `add_writer`.
    Writer,
    /// Something given to `add_signal_handler`.
    Signal,
    /// A done callback of a future.
    Done,
    /// A source of events: a transport, for example.
    Source,
    /// The future given to `run_until_complete`.
    Main,
    /// A task.
    Task,
    /// A waker, or a destructor that the loop ran.
    Release,
    /// An exception handler.
    ExceptionHandler,
    /// An instrument.
    Instrument,
    /// The method of a protocol, by its name.
    Protocol(&'static str),
}

/// What happened in an [`ErrorContext`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// A panic, with its payload.
    Panic(Box<dyn Any + Send>),
    /// An error.
    Error(Box<dyn Error>),
}

impl ErrorContext {
    /// A context for an error, for [`LoopHandle::call_exception_handler`].
    #[track_caller]
    pub fn error(message: impl Into<String>, error: impl Into<Box<dyn Error>>) -> ErrorContext {
        ErrorContext {
            message: message.into(),
            origin: None,
            location: Some(Location::caller()),
            failure: Failure::Error(error.into()),
        }
    }

    pub(crate) fn panic(
        origin: Origin,
        location: Option<&'static Location<'static>>,
        payload: Box<dyn Any + Send>,
    ) -> ErrorContext {
        ErrorContext {
            message: format!("panic in {origin}"),
            origin: Some(origin),
            location,
            failure: Failure::Panic(payload),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Protocol(method) => return write!(f, "a protocol's {method}"),
            Origin::Callback => "a callback",
            Origin::Timer => "a timer",
            Origin::Reader => "a reader",
            Origin::Writer => "a writer",
            Origin::Signal => "a signal handler",
            Origin::Done => "a done callback",
            Origin::Source => "a source",
            Origin::Main => "the main future",
            Origin::Task => "a task",
            Origin::Release => "a waker or destructor",
            Origin::ExceptionHandler => "the exception handler",
            Origin::Instrument => "an instrument",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Panic(payload) => f.write_str(panic_message(&**payload)),
            Failure::Error(error) => write!(f, "{error}"),
        }
    }
}

impl fmt::Display for ErrorContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.failure)?;
        match self.location {
            Some(location) => write!(f, " (created at {location})"),
            None => Ok(()),
        }
    }
}

/// The text of a panic, where it has one.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// A handler for failures that have no caller: see [`LoopHandle::set_exception_handler`].
pub type ExceptionHandler = dyn Fn(&LoopHandle, &ErrorContext);
