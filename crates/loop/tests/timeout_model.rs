//! Random programs of timeouts within timeouts, some of them put off or brought forward on the way, against
//! a model that computes when each of them ends and how.

#[path = "task_common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::reporting_loop;
use tulipa_loop::{LoopHandle, Timeout, sleep, timeout};

/// What a program does. Times are in seconds; none is 0, so that nothing fits into an instant that is over.
#[derive(Clone, Debug)]
enum Step {
    Sleep(u32),
    /// A timeout around steps, and its number.
    Within(usize, u32, Vec<Step>),
    /// The same, given another time when it begins, counted from then.
    Moved(usize, u32, u32, Vec<Step>),
    /// The same, given another time, counted from the beginning, after a sleep inside of it.
    MovedLater(usize, u32, u32, u32, Vec<Step>),
}

/// That a timeout has ended: its number, whether it was too late, and when.
type Entry = (usize, bool, u32);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % bound
    }

    fn steps(&mut self, depth: u32, numbers: &mut usize) -> Vec<Step> {
        let count = 1 + self.below(3);
        (0..count).map(|_| self.step(depth, numbers)).collect()
    }

    fn step(&mut self, depth: u32, numbers: &mut usize) -> Step {
        let kind = if depth == 0 { 0 } else { self.below(4) };
        *numbers += 1;
        let (number, time) = (*numbers, 1 + self.below(8));
        match kind {
            0 => Step::Sleep(time),
            1 => Step::Within(number, time, self.steps(depth - 1, numbers)),
            2 => Step::Moved(number, time, 1 + self.below(8), self.steps(depth - 1, numbers)),
            _ => {
                let (pause, moved) = (1 + self.below(4), 1 + self.below(12));
                Step::MovedLater(number, time, pause, moved, self.steps(depth - 1, numbers))
            }
        }
    }
}

/// When `steps` end that begin at `start`, or `None` if that is after `end`. An end at the very time of
/// a timeout is in time.
fn model(steps: &[Step], start: u32, end: u32, log: &mut Vec<Entry>) -> Option<u32> {
    steps.iter().try_fold(start, |now, step| match step {
        Step::Sleep(time) => Some(now + time).filter(|then| *then <= end),
        Step::Within(number, time, inner) => within(*number, now, now + time, end, inner, log),
        Step::Moved(number, _, moved, inner) => within(*number, now, now + moved, end, inner, log),
        Step::MovedLater(number, time, pause, moved, inner) => {
            let woken = now + pause;
            if *pause > *time {
                // Too late to be moved.
                return too_late(*number, now + time, end, log);
            }
            if woken > end {
                return None;
            }
            // A time that has gone by is over at once, when what is inside does not end at once.
            let deadline = (now + moved).max(woken);
            within(*number, woken, deadline, end, inner, log)
        }
    })
}

fn within(
    number: usize,
    start: u32,
    deadline: u32,
    end: u32,
    inner: &[Step],
    log: &mut Vec<Entry>,
) -> Option<u32> {
    match model(inner, start, deadline.min(end), log) {
        Some(then) => {
            log.push((number, false, then));
            Some(then)
        }
        None => too_late(number, deadline, end, log),
    }
}

fn too_late(number: usize, deadline: u32, end: u32, log: &mut Vec<Entry>) -> Option<u32> {
    if deadline > end {
        return None;
    }
    log.push((number, true, deadline));
    Some(deadline)
}

type Log = Rc<RefCell<Vec<Entry>>>;

fn seconds(time: u32) -> Duration {
    Duration::from_secs(time.into())
}

fn run(steps: Vec<Step>, start: Instant, log: Log) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        for step in steps {
            let (number, late) = match step {
                Step::Sleep(time) => {
                    sleep(seconds(time)).await;
                    continue;
                }
                Step::Within(number, time, inner) => {
                    (number, timeout(seconds(time), run(inner, start, log.clone())).await.is_err())
                }
                Step::Moved(number, time, moved, inner) => {
                    let limit = Timeout::after(seconds(time));
                    let when = LoopHandle::current().time() + seconds(moved);
                    limit.reschedule(Some(when)).expect("it has not ended");
                    (number, limit.run(run(inner, start, log.clone())).await.is_err())
                }
                Step::MovedLater(number, time, pause, moved, inner) => {
                    let limit = Timeout::after(seconds(time));
                    let when = LoopHandle::current().time() + seconds(moved);
                    let body = async {
                        sleep(seconds(pause)).await;
                        limit.reschedule(Some(when)).expect("it has not ended");
                        run(inner, start, log.clone()).await;
                    };
                    (number, limit.run(body).await.is_err())
                }
            };
            let now = LoopHandle::current().time().saturating_duration_since(start);
            log.borrow_mut().push((number, late, now.as_secs() as u32));
        }
    })
}

#[test]
fn timeouts_within_timeouts_end_as_the_model_says_whatever_is_moved() {
    let cases = std::env::var("TULIPA_CASES").ok().and_then(|cases| cases.parse().ok());
    let mut late = 0;
    for case in 0..cases.unwrap_or(256_u64) {
        let mut random = Random(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let steps = random.steps(3, &mut 0);
        let mut expected = Vec::new();
        let end = model(&steps, 0, u32::MAX, &mut expected).expect("nothing limits it");
        let (virtual_loop, reports) = reporting_loop();
        let (log, start) = (Log::default(), virtual_loop.time());
        virtual_loop.run_until_complete(run(steps.clone(), start, log.clone())).unwrap();
        assert_eq!(log.take(), expected, "case {case}: {steps:?}");
        assert_eq!(virtual_loop.elapsed(), seconds(end), "case {case}: {steps:?}");
        assert_eq!(virtual_loop.statistics().timers, 0);
        assert!(reports.take().is_empty());
        late += expected.iter().filter(|(_, late, _)| *late).count();
    }
    assert!(late > 0, "some are too late");
}
