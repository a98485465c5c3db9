//! A load tester for HTTP/1.1: many requests, a limited number of them at once. A `Semaphore` is the limit, a task
//! group holds the requests, `hyper` speaks HTTP over our streams, and a timeout guards each of them. All of it is one
//! thread.
//!
//! With no argument it shows what that is good for. It starts two servers of its own for the same `/large.csv`, which
//! takes a second to come: one that serves a client at a time with blocking calls, and one that serves them all at once.
//!
//! ```text
//! cargo run --release --example load_tester              # about 20 s against 4 s
//! cargo run --release --example load_tester -- --quick   # the same twenty times faster
//! cargo run --release --example load_tester -- http://127.0.0.1:8000/ 1000 --concurrency 50 --keep-alive
//! ```
//!
//! It exits with 0 if any request succeeded, 1 if none did, 2 if it was asked for something that makes no sense, and
//! 130 if Ctrl-C ended it; what was measured by then is shown.
//!
//! | file | what it does |
//! |---|---|
//! | `options.rs` | the command line |
//! | `fire.rs` | all requests, a few at a time: the heart of it |
//! | `client.rs`, `failure.rs` | one request; what may go wrong with it |
//! | `tally.rs`, `histogram.rs`, `report.rs` | counting, and showing what was counted |
//! | `demo.rs`, `servers.rs` | what it does without arguments |

#![forbid(unsafe_code)]

mod client;
mod demo;
mod failure;
mod fire;
mod histogram;
mod options;
mod report;
mod servers;
mod tally;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use tulipa_examples::serve::{log, raise_descriptor_limit};

use crate::fire::Fired;
use crate::options::{Job, Options, USAGE};

const NONE_SUCCEEDED: u8 = 1;
const BAD_USAGE: u8 = 2;
/// 128 and the number of the signal, as shells have it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match Options::from_command_line() {
        Ok(Job::Help) => exit(report::line(USAGE).map(|()| 0)),
        Ok(Job::Demo { pace }) => exit(run(demo::compare(pace))),
        Ok(Job::Test(options)) => exit(run(test(options))),
        Err(error) => {
            log(format_args!("load_tester: {error}; --help says how it is used"));
            ExitCode::from(BAD_USAGE)
        }
    }
}

/// Runs it on a loop. Ctrl-C cancels it, which `fire` catches, to show what there is.
fn run(main: impl Future<Output = io::Result<u8>> + 'static) -> Result<u8, Box<dyn Error>> {
    raise_descriptor_limit();
    Ok(tulipa::run(main)??)
}

fn exit(ended: Result<u8, impl Into<Box<dyn Error>>>) -> ExitCode {
    match ended {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            log(format_args!("load_tester: {}", error.into()));
            ExitCode::from(NONE_SUCCEEDED)
        }
    }
}

/// Tests a server, and shows the result.
async fn test(options: Options) -> io::Result<u8> {
    let options = Rc::new(options);
    if !options.json {
        report::line(format_args!("Requesting {} {} times", options.url, options.requests))?;
    }
    let fired = fire::fire(&options).await?;
    if options.json {
        report::json(&fired.tally)?;
        report::errors(&fired.tally, &mut io::stderr())?;
    } else {
        report::text(&fired.tally)?;
        report::histogram(&fired.tally)?;
    }
    Ok(status(&fired))
}

fn status(fired: &Fired) -> u8 {
    match fired {
        Fired { interrupted: true, .. } => INTERRUPTED,
        Fired { tally, .. } if tally.ok > 0 => 0,
        _ => NONE_SUCCEEDED,
    }
}
