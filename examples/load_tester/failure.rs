//! What may go wrong with a request: a kind to count it by, and words to show.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use hyper::StatusCode;
use tulipa::ConnectError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The name of the host has no address.
    Resolve,
    /// Nobody listens there.
    Refused,
    /// There is no way there, or it is not to be had for another reason.
    Connect,
    /// It took too long.
    Timeout,
    /// The server has ended the connection before the response was there.
    Closed,
    /// The server has broken the connection off.
    Reset,
    /// What came is not HTTP/1.
    NotHttp,
    /// There is a response, and it says that something is wrong: a status of 400 or more.
    Status,
    /// Anything else.
    Other,
}

impl Kind {
    /// Its name in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Resolve => "resolve",
            Kind::Refused => "refused",
            Kind::Connect => "connect",
            Kind::Timeout => "timeout",
            Kind::Closed => "closed",
            Kind::Reset => "reset",
            Kind::NotHttp => "not_http",
            Kind::Status => "status",
            Kind::Other => "other",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) words: String,
}

impl Failure {
    pub(crate) fn timeout(limit: Duration) -> Failure {
        let words = format!("no complete response within {} s", limit.as_secs_f64());
        Failure { kind: Kind::Timeout, words }
    }

    pub(crate) fn status(status: StatusCode) -> Failure {
        Failure { kind: Kind::Status, words: format!("the server answered {status}") }
    }

    pub(crate) fn connecting(error: &io::Error) -> Failure {
        let attempted = error.get_ref().is_some_and(|inner| inner.is::<ConnectError>());
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => Kind::Refused,
            io::ErrorKind::TimedOut => Kind::Timeout,
            _ if attempted => Kind::Connect,
            _ => Kind::Resolve,
        };
        Failure { kind, words: error.to_string() }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Failure {
        let kind = match root(&error) {
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Kind::Reset,
            Some(io::ErrorKind::UnexpectedEof) => Kind::Closed,
            _ if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
                Kind::Closed
            }
            _ if error.is_parse() => Kind::NotHttp,
            _ => Kind::Other,
        };
        let words = match kind {
            Kind::Closed => {
                "the server closed the connection before the response was complete".into()
            }
            Kind::Reset => {
                "the server reset the connection before the response was complete".into()
            }
            Kind::NotHttp => format!("the server does not speak HTTP/1: {error}"),
            _ => chain(&error),
        };
        Failure { kind, words }
    }
}

/// What the operating system said, if it is at the bottom of it.
fn root(error: &hyper::Error) -> Option<io::ErrorKind> {
    let first: Option<&(dyn Error + 'static)> = error.source();
    let mut sources = std::iter::successors(first, |error| (*error).source());
    sources.find_map(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// An error with its reasons.
fn chain(error: &hyper::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        words.push_str(&format!(": {reason}"));
        source = reason.source();
    }
    words
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
