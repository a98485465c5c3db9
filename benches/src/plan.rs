//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::servers::Mode;

/// What is printed by `--help`.
const HELP: &str = "\
cargo bench -p tulipa-benches -- [OPTIONS] [WORD]

WORD           only the tables whose title contains it
--quick        fewer and shorter rounds: two minutes of measuring at the most
--counts       instructions (valgrind) and system calls (strace) per message instead of times
--markdown     print Markdown
--update       renew the figures in docs/benchmarks.md
--json FILE    write every sample to FILE; a relative path begins in benches/
";

/// What this process is to do.
#[derive(Debug)]
pub enum Command {
    /// Measure, and print.
    Measure(Plan),
    /// Count instructions and system calls, and print.
    Counts(Plan),
    /// Be a server, until standard input ends.
    Serve {
        /// Its name in [`servers::ALL`](crate::servers::ALL).
        server: String,
        /// What it serves.
        mode: Mode,
    },
    /// Do an operation of one process so often: what valgrind counts.
    Repeat {
        /// The table.
        title: String,
        /// Its row.
        case: String,
        /// How often.
        times: u64,
    },
    /// Say how much memory so many idle things take: see [`memory`](crate::memory).
    Hold {
        /// Whose, and what.
        kind: String,
        /// How many.
        count: usize,
    },
}

/// How much is measured, and how it is shown.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// Tables are Markdown.
    pub markdown: bool,
    /// The published figures are renewed.
    pub update: bool,
    /// Where the samples go.
    pub json: Option<PathBuf>,
    filter: Option<String>,
}

impl Command {
    /// Reads the command line that `cargo bench` passes on; ends the process after `--help` or an option
    /// that there is not.
    #[must_use]
    pub fn from_args() -> Command {
        let mut args = std::env::args().skip(1);
        let mut plan =
            Plan { quick: false, markdown: false, update: false, json: None, filter: None };
        let mut counts = false;
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| usage(&format!("{arg} what?")));
            match arg.as_str() {
                // cargo adds this to every benchmark.
                "--bench" => {}
                "--quick" => plan.quick = true,
                "--markdown" => plan.markdown = true,
                "--update" => plan.update = true,
                "--counts" => counts = true,
                "--json" => plan.json = Some(value().into()),
                "--serve" => {
                    let (server, mode) = (value(), value());
                    let mode = Mode::named(&mode).unwrap_or_else(|| usage("no such mode"));
                    return Command::Serve { server, mode };
                }
                "--repeat" => {
                    let (title, case, times) = (value(), value(), value());
                    let times = times.parse().unwrap_or_else(|_| usage("how often?"));
                    return Command::Repeat { title, case, times };
                }
                "--hold" => {
                    let (kind, count) = (value(), value());
                    let count = count.parse().unwrap_or_else(|_| usage("how many?"));
                    return Command::Hold { kind, count };
                }
                "--help" => usage(""),
                option if option.starts_with('-') => usage(&format!("there is no {option}")),
                word => plan.filter = Some(word.to_owned()),
            }
        }
        if counts { Command::Counts(plan) } else { Command::Measure(plan) }
    }
}

fn usage(complaint: &str) -> ! {
    println!("{complaint}\n{HELP}");
    std::process::exit(i32::from(!complaint.is_empty()))
}

impl Plan {
    /// Whether a table of this title is wanted.
    #[must_use]
    pub fn wants(&self, title: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| title.contains(filter.as_str()))
    }

    /// Rounds of an operation, and how long one takes.
    #[must_use]
    pub fn operations(&self) -> (usize, Duration) {
        let (rounds, millis) = if self.quick { (7, 6) } else { (31, 30) };
        (rounds, Duration::from_millis(millis))
    }

    /// Rounds of a load, and how long one takes.
    #[must_use]
    pub fn loads(&self) -> (usize, Duration) {
        let (rounds, millis) = if self.quick { (3, 50) } else { (9, 400) };
        (rounds, Duration::from_millis(millis))
    }
}
