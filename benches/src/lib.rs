//! tulipa beside its peers, in the same rounds: `cargo bench -p tulipa-benches -- --quick`.
//!
//! What is measured and how is told in `docs/benchmarks.md`, with the figures. In short:
//!
//! - Servers ([`servers`]) run in processes of their own, one after the other, on one core; the load
//!   ([`load`]) comes from the other. All get the same load, round by round.
//! - Operations of one process ([`in_process`]) run in turn, round by round, beside the same operation of
//!   the peers.
//! - Scale ([`scale`]) shows how costs grow with connections, timers and tasks.
//! - Counts ([`counts`]) of instructions and system calls are made from outside, by valgrind and strace.
//!
//! Nothing asserts on time.

#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "a benchmark prints its tables")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

pub mod cores;
pub mod counts;
pub mod executor;
pub mod in_process;
pub mod load;
pub mod measure;
pub mod memory;
pub mod network;
pub mod plan;
pub mod process;
pub mod report;
pub mod scale;
pub mod servers;

use plan::{Command, Plan};
use report::Report;

/// What the benchmark's `main` does: the command line decides.
pub fn main() {
    cores::raise_descriptor_limit();
    match Command::from_args() {
        Command::Serve { server, mode } => servers::serve(&server, mode),
        Command::Hold { kind, count } => memory::hold(&kind, count),
        Command::Repeat { title, case, times } => in_process::repeat(&title, &case, times),
        Command::Counts(plan) => {
            let mut report = Report::new(&plan);
            counts::run(&plan, &mut report);
            report.finish("counts");
        }
        Command::Measure(plan) => measure_all(&plan),
    }
}

fn measure_all(plan: &Plan) {
    let mut report = Report::new(plan);
    in_process::run(plan, &mut report);
    network::run(plan, &mut report);
    memory::run(plan, &mut report);
    scale::run(plan, &mut report);
    report.finish("times");
}
