//! The command line.

use std::fmt;
use std::time::Duration;

use hyper::Uri;
use lexopt::{Arg, ValueExt};

pub(crate) const USAGE: &str = "\
usage: load_tester [--quick]
       load_tester URL N [--concurrency C] [--keep-alive] [--timeout SECONDS] [--json]

Without a URL it compares two servers of its own; --quick makes them twenty times faster.
With one it requests it N times, at most C at once (5 if nothing is said), each with at most
SECONDS (30) of time. --keep-alive uses connections again, --json prints one object.";

/// The talk's number.
const USUAL_CONCURRENCY: usize = 5;
/// Each needs a descriptor, and a port of this machine, of which there are 28,000 usually.
const MOST_CONCURRENCY: usize = 20_000;
const USUAL_TIMEOUT: Duration = Duration::from_secs(30);
/// A day; who waits longer does not test a server.
const LONGEST_TIMEOUT: f64 = 86_400.0;

/// How long a row of the demonstration's table takes to come.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// 0.1 s, as in the talk.
    Full,
    /// A twentieth of it, for machines that check.
    Quick,
}

/// What it is asked to do.
pub(crate) enum Job {
    Help,
    Demo { pace: Pace },
    Test(Options),
}

/// How a server is tested.
pub(crate) struct Options {
    pub(crate) url: Url,
    pub(crate) requests: u64,
    pub(crate) concurrency: usize,
    pub(crate) keep_alive: bool,
    pub(crate) timeout: Duration,
    /// The output is one object, and no progress is shown.
    pub(crate) json: bool,
}

impl Options {
    /// The usual ones for so many requests.
    pub(crate) fn new(url: Url, requests: u64) -> Options {
        Options {
            url,
            requests,
            concurrency: USUAL_CONCURRENCY,
            keep_alive: false,
            timeout: USUAL_TIMEOUT,
            json: false,
        }
    }

    pub(crate) fn from_command_line() -> Result<Job, lexopt::Error> {
        let mut parser = lexopt::Parser::from_env();
        let (mut url, mut requests, mut quick) = (None, None, false);
        let (mut concurrency, mut keep_alive, mut timeout, mut json) = (None, false, None, false);
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Value(value) if url.is_none() => url = Some(value.string()?),
                Arg::Value(value) if requests.is_none() => {
                    requests = Some(count(&value.string()?)?)
                }
                Arg::Long("quick") => quick = true,
                Arg::Short('c') | Arg::Long("concurrency") => {
                    concurrency = Some(parallel(&parser.value()?.string()?)?);
                }
                Arg::Long("keep-alive") => keep_alive = true,
                Arg::Long("timeout") => timeout = Some(seconds(&parser.value()?.string()?)?),
                Arg::Long("json") => json = true,
                Arg::Short('h') | Arg::Long("help") => return Ok(Job::Help),
                other => return Err(other.unexpected()),
            }
        }
        match (url, requests) {
            (Some(_), _) if quick => Err("--quick is for the demonstration, without a URL".into()),
            (Some(url), Some(requests)) => {
                let usual = Options::new(Url::parse(&url)?, requests);
                Ok(Job::Test(Options {
                    concurrency: concurrency.unwrap_or(usual.concurrency),
                    timeout: timeout.unwrap_or(usual.timeout),
                    keep_alive,
                    json,
                    ..usual
                }))
            }
            (Some(_), None) => Err("how many requests? Say so after the URL".into()),
            (None, _) if concurrency.is_some() || keep_alive || timeout.is_some() || json => {
                Err("options other than --quick need a URL and a number of requests".into())
            }
            (None, _) => Ok(Job::Demo { pace: if quick { Pace::Quick } else { Pace::Full } }),
        }
    }
}

fn count(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|&count| count > 0);
    count.ok_or_else(|| format!("{text:?} is no number of requests"))
}

fn parallel(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MOST_CONCURRENCY).contains(count));
    count.ok_or_else(|| format!("--concurrency is from 1 to {MOST_CONCURRENCY}, not {text:?}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|&seconds| seconds > 0.0 && seconds <= LONGEST_TIMEOUT);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        format!("--timeout is in seconds, more than 0 and at most a day, not {text:?}")
    })
}

/// What is requested: `http://HOST[:PORT][/PATH]`.
#[derive(Clone)]
pub(crate) struct Url {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The host and the port as they were given, for the header `Host`.
    pub(crate) authority: String,
    /// What the request line says.
    pub(crate) path: Uri,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        let bad = |why: &str| format!("bad URL {text:?}: {why}");
        let uri: Uri = text.parse().map_err(|error| bad(&format!("{error}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("https is not supported yet, as there is no TLS")),
            _ => return Err(bad("it has to begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a name and a password are not supported"));
        }
        if authority.host().is_empty() {
            return Err(bad("it names no host"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            None | Some("") => 80,
            Some(port) => {
                let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
                port.filter(|&port| port != 0).ok_or_else(|| bad("the port is none"))?
            }
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Url {
            host: authority.host().to_owned(),
            port,
            authority: authority.to_string(),
            path: path.parse().map_err(|error| bad(&format!("{error}")))?,
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}
