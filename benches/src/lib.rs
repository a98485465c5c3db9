//! A small harness: tulipa beside its peers, in one process and in the same rounds.
//!
//! Each case of a [`Table`] runs once per round, one after the other, so that a drift of the machine
//! meets all of them alike. Printed are the best and the median time per operation, the spread
//! (median over best) and the ratio of the bests to the table's baseline. Nothing asserts on time.
//!
//! `--quick` makes fewer and shorter rounds; any other argument without dashes selects the tables
//! whose title contains it.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

pub mod executor;

use std::time::{Duration, Instant};

/// How long a case runs per round, and how many rounds there are.
#[derive(Clone, Debug)]
pub struct Plan {
    rounds: usize,
    per_case: Duration,
    filter: Option<String>,
}

impl Plan {
    /// Reads the command line that `cargo bench` passes on.
    #[must_use = "a plan does nothing until a table runs by it"]
    pub fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let quick = args.iter().any(|arg| arg == "--quick");
        let filter = args.into_iter().find(|arg| !arg.starts_with('-'));
        let (rounds, millis) = if quick { (9, 8) } else { (31, 30) };
        Self { rounds, per_case: Duration::from_millis(millis), filter }
    }
}

/// Runs an operation as often as it is told.
type Run<'a> = Box<dyn FnMut(u64) + 'a>;

struct Case<'a> {
    name: &'static str,
    run: Run<'a>,
    repeats: u64,
    nanos: Vec<f64>,
}

/// Ways to do the same thing.
pub struct Table<'a> {
    title: &'static str,
    baseline: &'static str,
    cases: Vec<Case<'a>>,
}

impl std::fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("title", &self.title).finish_non_exhaustive()
    }
}

impl<'a> Table<'a> {
    /// A table whose ratios are to the case named `baseline`.
    #[must_use = "a table does nothing until it runs"]
    pub fn new(title: &'static str, baseline: &'static str) -> Self {
        Self { title, baseline, cases: Vec::new() }
    }

    /// Adds a case. `run` does the operation as often as its argument says.
    #[must_use = "returns the table"]
    pub fn case(mut self, name: &'static str, run: impl FnMut(u64) + 'a) -> Self {
        self.cases.push(Case { name, run: Box::new(run), repeats: 0, nanos: Vec::new() });
        self
    }

    /// Runs and prints the table, unless the plan's filter leaves it out.
    pub fn run(mut self, plan: &Plan) {
        if plan.filter.as_ref().is_some_and(|filter| !self.title.contains(filter.as_str())) {
            return;
        }
        for case in &mut self.cases {
            case.calibrate(plan.per_case);
        }
        for _ in 0..plan.rounds {
            for case in &mut self.cases {
                let time = case.time(case.repeats);
                case.nanos.push(time.as_nanos() as f64 / case.repeats as f64);
            }
        }
        self.print();
    }

    fn print(&mut self) {
        for case in &mut self.cases {
            case.nanos.sort_by(f64::total_cmp);
        }
        let baseline = self.cases.iter().find(|case| case.name == self.baseline);
        let baseline = baseline.map(|case| case.nanos[0]);
        println!("\n{} (ratio to {})", self.title, self.baseline);
        println!("{:<34} {:>9} {:>9} {:>7} {:>7}", "", "best ns", "median", "spread", "ratio");
        for case in &self.cases {
            let (best, median) = (case.nanos[0], case.nanos[case.nanos.len() / 2]);
            let ratio = baseline.map_or(f64::NAN, |baseline| best / baseline);
            let (name, spread) = (case.name, median / best);
            println!("{name:<34} {best:>9.1} {median:>9.1} {spread:>7.2} {ratio:>7.2}");
        }
    }
}

impl Case<'_> {
    /// Finds how many repeats fill a round.
    fn calibrate(&mut self, per_case: Duration) {
        let mut repeats = 1;
        loop {
            let time = self.time(repeats);
            if time * 4 >= per_case || repeats > 1 << 40 {
                let fill = per_case.as_secs_f64() / time.as_secs_f64().max(1e-9);
                self.repeats = ((repeats as f64 * fill) as u64).max(1);
                return;
            }
            repeats *= 2;
        }
    }

    #[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    fn time(&mut self, repeats: u64) -> Duration {
        let start = Instant::now();
        (self.run)(repeats);
        start.elapsed()
    }
}
