//! Operations of one process, measured in turn.
//!
//! Each case runs once per round, one after the other, so that a drift of the machine meets all of them
//! alike.

use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::report::{Report, Row, Table, Target, Unit};

/// Numbers of repeats above this are multiples of it.
const ROUND: u64 = 1000;

/// Runs an operation as often as it is told.
type Run<'a> = Box<dyn FnMut(u64) + 'a>;

struct Case<'a> {
    name: &'static str,
    run: Run<'a>,
    target: Option<Target>,
    repeats: u64,
    nanos: Vec<f64>,
}

/// Ways to do the same thing.
pub struct Cases<'a> {
    title: &'static str,
    baseline: &'static str,
    cases: Vec<Case<'a>>,
    /// What is taken from each sample: what the operation is meant to take.
    meant: f64,
}

impl std::fmt::Debug for Cases<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cases").field("title", &self.title).finish_non_exhaustive()
    }
}

impl<'a> Cases<'a> {
    /// A table whose ratios are to the case named `baseline`.
    #[must_use = "a table does nothing until it runs"]
    pub fn new(title: &'static str, baseline: &'static str) -> Self {
        Self { title, baseline, cases: Vec::new(), meant: 0.0 }
    }

    /// Measures by how much an operation takes longer than it is meant to.
    #[must_use = "returns the table"]
    pub fn less(mut self, meant: Duration) -> Self {
        self.meant = meant.as_nanos() as f64;
        self
    }

    /// Adds a case. `run` does the operation as often as its argument says.
    #[must_use = "returns the table"]
    pub fn case(mut self, name: &'static str, run: impl FnMut(u64) + 'a) -> Self {
        let (run, nanos) = (Box::new(run), Vec::new());
        self.cases.push(Case { name, run, target: None, repeats: 0, nanos });
        self
    }

    /// Says which ratio to the baseline the case that was added last is to reach.
    #[must_use = "returns the table"]
    pub fn target(mut self, ratio: f64) -> Self {
        let target = Target::Ratio(self.baseline, ratio);
        self.cases.last_mut().expect("there is a case").target = Some(target);
        self
    }

    /// The names of the cases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.cases.iter().map(|case| case.name)
    }

    /// The name of the case that ratios are to.
    #[must_use]
    pub fn baseline(&self) -> &'static str {
        self.baseline
    }

    /// Does one case's operation so often, and nothing else.
    pub fn repeat(&mut self, name: &str, times: u64) {
        for case in self.cases.iter_mut().filter(|case| case.name == name) {
            (case.run)(times);
        }
    }

    /// Runs and prints the table.
    pub fn run(mut self, plan: &Plan, report: &mut Report) {
        let (rounds, per_case) = plan.operations();
        for case in &mut self.cases {
            case.calibrate(per_case);
        }
        for _ in 0..rounds {
            for case in &mut self.cases {
                let time = case.time(case.repeats);
                case.nanos.push(time.as_nanos() as f64 / case.repeats as f64 - self.meant);
            }
        }
        let mut table = Table::new(self.title, Unit::Nanos, &[self.baseline]);
        for case in self.cases {
            table.push(Row::new(case.name, case.nanos).with_target(case.target));
        }
        report.table(&table);
    }
}

impl Case<'_> {
    /// Finds how many repeats fill a round. Each number is tried some times, of which the best counts: others may
    /// take the core meanwhile.
    fn calibrate(&mut self, per_case: Duration) {
        const TRIES: usize = 4;
        let mut repeats = 1;
        loop {
            let best = (0..TRIES).map(|_| self.time(repeats)).min().unwrap_or_default();
            if best * 8 >= per_case || repeats > 1 << 40 {
                let fill = per_case.as_secs_f64() / best.as_secs_f64().max(1e-9);
                let filled = ((repeats as f64 * fill) as u64).max(1);
                // Cases that work in generations round up, which is to make no difference.
                self.repeats = if filled < ROUND { filled } else { filled.next_multiple_of(ROUND) };
                return;
            }
            repeats *= 2;
        }
    }

    fn time(&mut self, repeats: u64) -> Duration {
        let start = Instant::now();
        (self.run)(repeats);
        start.elapsed()
    }
}
