//! What is shown: how far it is, and what was counted, in words or as one JSON object.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::time::Duration;

use crate::tally::Tally;

/// How many `*` a progress bar has at most, and where it has one for each request.
const LONGEST_BAR: u64 = 50;
const HISTOGRAM_ROWS: u32 = 10;
const HISTOGRAM_WIDTH: u64 = 50;

/// A line on the standard output. A pipe that nobody reads is an error, not a panic.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// One `*` for each request that has ended, or for each fiftieth part of many.
pub(crate) struct Progress {
    total: u64,
    done: u64,
    shown: u64,
    is_shown: bool,
}

impl Progress {
    pub(crate) fn new(total: u64, is_shown: bool) -> Progress {
        Progress { total, done: 0, shown: 0, is_shown }
    }

    pub(crate) fn begin(&self) -> io::Result<()> {
        if self.is_shown { line("In progress") } else { Ok(()) }
    }

    pub(crate) fn step(&mut self) {
        self.done += 1;
        let width = self.total.min(LONGEST_BAR);
        let due = (u128::from(self.done) * u128::from(width) / u128::from(self.total)) as u64;
        if self.is_shown && due > self.shown {
            let stars = "*".repeat((due - self.shown) as usize);
            self.shown = due;
            let mut stdout = io::stdout();
            // If nobody reads it, the report will say so.
            let _unread = stdout.write_all(stars.as_bytes()).and_then(|()| stdout.flush());
        }
    }

    pub(crate) fn end(&self) -> io::Result<()> {
        if !self.is_shown {
            return Ok(());
        }
        let missing = self.total - self.done;
        let note = if missing > 0 { format!(" {missing} were not made") } else { String::new() };
        line(note)
    }
}

/// A duration with three digits and a unit.
pub(crate) struct Time(pub(crate) Duration);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let (value, unit) = match seconds {
            1.0.. => (seconds, "s"),
            0.001.. => (seconds * 1e3, "ms"),
            _ => (seconds * 1e6, "µs"),
        };
        let digits = match value {
            100.0.. => 0,
            10.0.. => 1,
            _ => 2,
        };
        f.pad(&format!("{value:.digits$} {unit}"))
    }
}

/// What was counted, in words.
pub(crate) fn text(tally: &Tally) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Duration               {}", Time(tally.duration))?;
    if let Some(mean) = tally.mean_task() {
        writeln!(out, "Average task duration  {}, the wait for its turn included", Time(mean))?;
    }
    if let (Some(mean), Some(half), Some(most)) = figures(tally) {
        let (half, most) = (Time(half), Time(most));
        writeln!(out, "Latency                mean {}, p50 {half}, p99 {most}", Time(mean))?;
    }
    writeln!(out, "Requests per second    {:.2}", tally.per_second())?;
    writeln!(out, "Responses              {} ok, {} bytes", tally.ok, tally.bytes)?;
    for (status, count) in &tally.status {
        writeln!(out, "Status {status}             {count}")?;
    }
    errors(tally, &mut out)
}

/// A line for each kind of error.
pub(crate) fn errors(tally: &Tally, out: &mut dyn Write) -> io::Result<()> {
    for (kind, (count, words)) in &tally.errors {
        writeln!(out, "Failed                 {count} ({}): {words}", kind.name())?;
    }
    Ok(())
}

/// How often which latency was measured.
pub(crate) fn histogram(tally: &Tally) -> io::Result<()> {
    let rows = tally.latency.rows(HISTOGRAM_ROWS);
    let Some(largest) = rows.iter().map(|row| row.count).max() else { return Ok(()) };
    let mut out = io::stdout().lock();
    writeln!(out, "Latency histogram, from {}", Time(tally.latency.min().unwrap_or_default()))?;
    for row in rows {
        let bar = (row.count * HISTOGRAM_WIDTH).div_ceil(largest) as usize;
        let (up_to, count) = (Time(row.up_to), row.count);
        writeln!(out, "{}", format!("  to {up_to:<8} {count:>9} {}", "#".repeat(bar)).trim_end())?;
    }
    Ok(())
}

fn figures(tally: &Tally) -> (Option<Duration>, Option<Duration>, Option<Duration>) {
    let latency = &tally.latency;
    (latency.mean(), latency.quantile(0.5), latency.quantile(0.99))
}

/// What was counted, as one object on one line. A figure that does not exist is `null`.
pub(crate) fn json(tally: &Tally) -> io::Result<()> {
    let errors = object(tally.errors.iter().map(|(kind, (count, _))| (kind.name(), count)));
    let status = object(tally.status.iter());
    let (mean, half, most) = figures(tally);
    line(format_args!(
        "{{\"requests\": {}, \"ok\": {}, \"errors\": {errors}, \"status\": {status}, \"bytes\": {}, \
         \"seconds\": {:.6}, \"rps\": {:.3}, \"mean_ms\": {}, \"p50_ms\": {}, \"p99_ms\": {}}}",
        tally.requests(),
        tally.ok,
        tally.bytes,
        tally.duration.as_secs_f64(),
        tally.per_second(),
        millis(mean),
        millis(half),
        millis(most),
    ))
}

/// An object with numbers. The keys are ours and need no escapes.
fn object<'a>(members: impl Iterator<Item = (impl Display, &'a u64)>) -> String {
    let members: Vec<_> = members.map(|(key, count)| format!("\"{key}\": {count}")).collect();
    format!("{{{}}}", members.join(", "))
}

fn millis(duration: Option<Duration>) -> String {
    duration.map_or("null".into(), |duration| format!("{:.3}", duration.as_secs_f64() * 1e3))
}
