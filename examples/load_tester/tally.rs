//! What is counted of the requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::client::Reply;
use crate::failure::{Failure, Kind};
use crate::histogram::Histogram;

/// Every request is in `ok` or in `errors`, once. There are as few numbers as there are kinds and statuses, however many
/// requests there are.
pub(crate) struct Tally {
    start: Instant,
    /// From the start to the end of the last.
    pub(crate) duration: Duration,
    /// Complete responses with a status below 400.
    pub(crate) ok: u64,
    /// How often each, and the first one's words.
    pub(crate) errors: BTreeMap<Kind, (u64, String)>,
    /// Complete responses by their status.
    pub(crate) status: BTreeMap<u16, u64>,
    /// Of the bodies of complete responses.
    pub(crate) bytes: u64,
    /// How long complete responses took, from when the request had its turn.
    pub(crate) latency: Histogram,
    /// How long all requests took that have ended, from the start: the time in which they waited for their turn
    /// included.
    waited: Duration,
}

impl Tally {
    pub(crate) fn new(start: Instant) -> Tally {
        Tally {
            start,
            duration: Duration::ZERO,
            ok: 0,
            errors: BTreeMap::new(),
            status: BTreeMap::new(),
            bytes: 0,
            latency: Histogram::new(),
            waited: Duration::ZERO,
        }
    }

    /// A request that had its turn at `begun` has ended now.
    pub(crate) fn count(&mut self, result: Result<Reply, Failure>, begun: Instant, now: Instant) {
        self.waited = self.waited.saturating_add(now - self.start);
        let failure = match result {
            Ok(reply) => {
                self.latency.record(now - begun);
                self.bytes += reply.bytes;
                *self.status.entry(reply.status.as_u16()).or_default() += 1;
                if reply.status.as_u16() < 400 {
                    self.ok += 1;
                    return;
                }
                Failure::status(reply.status)
            }
            Err(failure) => failure,
        };
        self.errors.entry(failure.kind).or_insert((0, failure.words)).0 += 1;
    }

    /// There will be no more.
    pub(crate) fn end(mut self, now: Instant) -> Tally {
        self.duration = now - self.start;
        self
    }

    /// How many have ended, in one way or the other.
    pub(crate) fn requests(&self) -> u64 {
        self.ok + self.failed()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().map(|(count, _)| count).sum()
    }

    /// How many ended in a second.
    pub(crate) fn per_second(&self) -> f64 {
        let seconds = self.duration.as_secs_f64();
        if seconds > 0.0 { self.requests() as f64 / seconds } else { 0.0 }
    }

    /// The mean time from the start to the end of a request, if there was one.
    pub(crate) fn mean_task(&self) -> Option<Duration> {
        (self.requests() > 0).then(|| self.waited.div_f64(self.requests() as f64))
    }
}
