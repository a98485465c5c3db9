//! Fetches several pages, in one of the ways in which that was done over the years: one after the other
//! (`sync`), in a few threads (`thread`), with a selector and bare sockets (`selector`), with a protocol and
//! a loop (`protocol`), with streams and coroutines (`streams`); and as asyncore and Twisted did it (`asyncore`, `twisted`). All but the first have their requests under way at the same time.
//!
//! `cargo run --example http_get -- [--mode sync|thread|selector|asyncore|twisted|protocol|streams] http://HOST[:PORT]/PATH…`
//!
//! It prints the status and the length of each page, in the order of the arguments.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

mod asyncore;
mod protocol;
mod selector;
mod streams;
mod sync;
mod thread;
mod twisted;

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, ValueExt};
use tulipa_examples::serve::log;

/// A server that never stops sending is not our friend.
const LONGEST_PAGE: usize = 16 << 20;
/// Neither is one that never answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a page is: `http://host:port/path`.
#[derive(Clone)]
struct Url {
    host: String,
    path: String,
}

impl Url {
    fn parse(text: &str) -> Option<Url> {
        let rest = text.strip_prefix("http://")?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        // In brackets a colon belongs to an address.
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let host = if has_port { host.to_owned() } else { format!("{host}:80") };
        Some(Url { host, path: path.to_owned() })
    }

    /// HTTP/1.0, so that the end of the connection is that of the page.
    fn request(&self) -> String {
        format!("GET {} HTTP/1.0\r\nHost: {}\r\n\r\n", self.path, self.host)
    }
}

struct Page {
    status: u16,
    length: usize,
}

impl Page {
    fn parse(response: &[u8]) -> io::Result<Page> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "that is not HTTP");
        let head = response.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(invalid)?;
        let text = std::str::from_utf8(&response[..head]).map_err(|_| invalid())?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok(Page { status: status.ok_or_else(invalid)?, length: response.len() - head - 4 })
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} bytes", self.status, self.length)
    }
}

/// Adds a part of a page to what has come of it.
fn collect(response: &mut Vec<u8>, part: &[u8]) -> io::Result<()> {
    if response.len() + part.len() > LONGEST_PAGE {
        return Err(io::Error::other("the page is too long"));
    }
    response.extend_from_slice(part);
    Ok(())
}

/// Each page, or what was wrong with it; an error is about all of them.
type Pages = Result<Vec<io::Result<Page>>, Box<dyn Error>>;

type Fetch = fn(&[Url]) -> Pages;

fn arguments() -> Result<(Fetch, Vec<String>), lexopt::Error> {
    let (mut fetch, mut urls): (Fetch, _) = (protocol::fetch, Vec::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("mode") => {
                fetch = match parser.value()?.to_str() {
                    Some("sync") => sync::fetch,
                    Some("thread") => thread::fetch,
                    Some("selector") => selector::fetch,
                    Some("asyncore") => asyncore::fetch,
                    Some("twisted") => twisted::fetch,
                    Some("protocol") => protocol::fetch,
                    Some("streams") => streams::fetch,
                    _ => return Err(
                        "a mode is sync, thread, selector, asyncore, twisted, protocol or streams"
                            .into(),
                    ),
                }
            }
            Arg::Value(url) => urls.push(url.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok((fetch, urls))
}

fn run() -> Result<bool, Box<dyn Error>> {
    let (fetch, texts) = arguments()?;
    let parsed = texts.iter().map(|text| Url::parse(text).ok_or(format!("{text}: not http://…")));
    let urls = parsed.collect::<Result<Vec<_>, _>>()?;
    let pages = fetch(&urls)?;
    let mut all_well = true;
    for (text, page) in texts.iter().zip(pages) {
        match page {
            Ok(page) => println!("{text}: {page}"),
            Err(error) => {
                println!("{text}: {error}");
                all_well = false;
            }
        }
    }
    Ok(all_well)
}

fn main() -> ExitCode {
    match run() {
        Ok(all_well) => ExitCode::from(u8::from(!all_well)),
        Err(error) => {
            log(format_args!("http_get: {error}"));
            ExitCode::from(2)
        }
    }
}
