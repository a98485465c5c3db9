//! Without arguments: the same download from a server that blocks, and from one that does not.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::fire::{self, Fired};
use crate::options::{Options, Pace, Url};
use crate::report::{self, Time};
use crate::servers::{self, ROWS};

/// The talk's number.
const REQUESTS: u64 = 20;

/// How long a row takes to come.
fn delay(pace: Pace) -> Duration {
    match pace {
        Pace::Full => Duration::from_millis(100),
        Pace::Quick => Duration::from_millis(5),
    }
}

/// Tests both servers and compares them. Gives the exit status.
pub(crate) async fn compare(pace: Pace) -> io::Result<u8> {
    let row = delay(pace);
    report::line(format_args!(
        "/large.csv has {ROWS} rows, each of which takes {}: one download takes {}.\n",
        Time(row),
        Time(row * ROWS)
    ))?;
    let title = "A server that blocks: one connection after the other";
    let (blocking, options) = test(title, servers::blocking(row)?).await?;
    if blocking.interrupted {
        return Ok(crate::status(&blocking));
    }
    let title = "An asynchronous server: hyper over our streams, on one thread";
    let (asynchronous, _) = test(title, servers::asynchronous(row)?).await?;
    if !asynchronous.interrupted {
        let (slow, fast) = (blocking.tally.duration, asynchronous.tally.duration);
        report::line(format_args!(
            "{} requests, {} at once: {} against {}, a ratio of {:.1}",
            options.requests,
            options.concurrency,
            Time(slow),
            Time(fast),
            slow.as_secs_f64() / fast.as_secs_f64()
        ))?;
    }
    Ok(crate::status(&asynchronous))
}

async fn test(title: &str, server: SocketAddr) -> io::Result<(Fired, Rc<Options>)> {
    let url = Url::parse(&format!("http://{server}/large.csv")).map_err(io::Error::other)?;
    let options = Rc::new(Options::new(url, REQUESTS));
    report::line(title)?;
    report::line(format_args!(
        "Requesting {} {} times, {} at once",
        options.url, options.requests, options.concurrency
    ))?;
    let fired = fire::fire(&options).await?;
    report::text(&fired.tally)?;
    report::line("")?;
    Ok((fired, options))
}
