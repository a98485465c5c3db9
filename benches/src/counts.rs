//! What does not drift: instructions, counted by valgrind, and system calls, counted by strace.
//!
//! Each server runs twice, with few and with many messages; the difference belongs to the messages. A
//! message is an echo of 64 bytes on each of the connections in turn.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cores;
use crate::in_process;
use crate::load::{Load, Talk, Until};
use crate::plan::Plan;
use crate::process::{self, Server};
use crate::report::{Report, Row, Table, Target, Unit};
use crate::servers::{self, BARE, BUFFERED, Mode, PROTOCOL, Peer, STREAMS, Start};

/// Messages of each connection in the shorter and in the longer run.
const FEW: u64 = 10;
const MANY: u64 = 210;

/// How often an operation is done in the shorter and in the longer run.
const FEW_TIMES: u64 = 2_000;
const MANY_TIMES: u64 = 22_000;

const INSTRUCTIONS: &str = "instructions in user space for an echo of 64 bytes, 100 connections";
const LINES: &str =
    "instructions in user space for a line of 64 bytes, 16 under way, 100 connections";
const CALLS: [(&str, usize, u64); 2] = [
    ("system calls for an echo of 64 bytes, 1 connection", 1, 20),
    ("system calls for an echo of 64 bytes, 100 connections", 100, 1),
];

/// Counts what the plan wants.
pub fn run(plan: &Plan, report: &mut Report) {
    let peers = || servers::ALL.iter().filter(|peer| matches!(peer.start, Start::Rust(_)));
    if !process::has("valgrind") {
        report.remark("skipped: instructions, as there is no valgrind");
    } else {
        for (title, mode, lines) in [(INSTRUCTIONS, Mode::Echo, 1), (LINES, Mode::Lines, 16)] {
            if !plan.wants(title) {
                continue;
            }
            let mut table = Table::new(title, Unit::Count, &[BARE, "tokio"]);
            for peer in peers().filter(|peer| peer.modes.contains(&mode)) {
                let target = match peer.name {
                    PROTOCOL | BUFFERED if lines == 1 => Some(Target::Value(300.0)),
                    STREAMS if lines == 1 => Some(Target::Value(750.0)),
                    _ => None,
                };
                match per_message(peer, mode, 100, 1, lines, instructions) {
                    Ok(count) => table.push(Row::new(peer.name, vec![count]).with_target(target)),
                    Err(error) => report.remark(format!("{}: {error}", peer.name)),
                }
            }
            report.table(&table);
        }
        operations(plan, report);
    }
    if !process::has("strace") {
        report.remark("skipped: system calls, as there is no strace");
        return;
    }
    for (title, connections, scale) in CALLS {
        if !plan.wants(title) {
            continue;
        }
        let mut table = Table::new(title, Unit::Count, &[BARE, "tokio"]);
        for peer in peers() {
            match per_message(peer, Mode::Echo, connections, scale, 1, system_calls) {
                Ok(count) => table.push(Row::new(peer.name, vec![count])),
                Err(error) => report.remark(format!("{}: {error}", peer.name)),
            }
        }
        report.table(&table);
    }
}

/// The instructions of the operations of one process.
fn operations(plan: &Plan, report: &mut Report) {
    for (title, cases) in in_process::countable() {
        let title_here = format!("instructions in user space: {title}");
        if !plan.wants(&title_here) {
            continue;
        }
        let mut table = Table::new(title_here, Unit::Count, &[cases.baseline()]);
        for case in cases.names() {
            let counted = repeated(title, case, FEW_TIMES)
                .and_then(|few| Ok(repeated(title, case, MANY_TIMES)?.saturating_sub(few)));
            match counted {
                Ok(count) => {
                    let each = count as f64 / (MANY_TIMES - FEW_TIMES) as f64;
                    table.push(Row::new(case, vec![each]));
                }
                Err(error) => report.remark(format!("{case}: {error}")),
            }
        }
        report.table(&table);
    }
}

fn repeated(title: &str, case: &str, times: u64) -> io::Result<u64> {
    let file = temporary("callgrind-operation");
    let out = format!("--callgrind-out-file={}", file.display());
    let mut command = process::this_program(&["valgrind", "-q", "--tool=callgrind", &out])?;
    command.args(["--repeat", title, case, &times.to_string()]).status()?;
    counted_by_callgrind(&file)
}

/// Runs a server for so many messages of each connection, and counts something.
type Count = fn(&Peer, Mode, usize, u64, usize) -> io::Result<u64>;

fn per_message(
    peer: &'static Peer,
    mode: Mode,
    connections: usize,
    scale: u64,
    lines: usize,
    count: Count,
) -> io::Result<f64> {
    let few = count(peer, mode, connections, FEW * scale, lines)?;
    let many = count(peer, mode, connections, MANY * scale, lines)?;
    let messages = (MANY - FEW) * scale * connections as u64 * lines as u64;
    Ok(many.saturating_sub(few) as f64 / messages as f64)
}

fn under_load(
    peer: &Peer,
    mode: Mode,
    wrapper: &[&str],
    connections: usize,
    messages: u64,
    lines: usize,
) -> io::Result<()> {
    let server = Server::start(peer, mode, wrapper)?;
    let talk = Talk::echo(64, lines);
    let mut load = Load::open(server.address, cores::connections(connections), talk)?;
    // All send, then all wait: the batches that the server sees are as large as it is slow.
    for _ in 0..messages {
        load.run(Until::Messages(1))?;
    }
    // The server ends while its connections are there: their end is not counted.
    server.finish();
    Ok(())
}

fn temporary(what: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tulipa-benches-{}-{what}", std::process::id()))
}

fn counted_by_callgrind(file: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    fs::remove_file(file)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    total.ok_or_else(|| io::Error::other("callgrind has counted nothing"))
}

fn instructions(
    peer: &Peer,
    mode: Mode,
    connections: usize,
    messages: u64,
    lines: usize,
) -> io::Result<u64> {
    let file = temporary("callgrind");
    let out = format!("--callgrind-out-file={}", file.display());
    let wrapper = ["valgrind", "-q", "--tool=callgrind", &out];
    under_load(peer, mode, &wrapper, connections, messages, lines)?;
    counted_by_callgrind(&file)
}

fn system_calls(
    peer: &Peer,
    mode: Mode,
    connections: usize,
    messages: u64,
    lines: usize,
) -> io::Result<u64> {
    let file = temporary("strace");
    let out = file.display().to_string();
    let wrapper = ["strace", "-f", "-q", "-c", "-U", "calls,name", "-o", &out];
    under_load(peer, mode, &wrapper, connections, messages, lines)?;
    let text = fs::read_to_string(&file)?;
    fs::remove_file(&file)?;
    let total = text.lines().find_map(|line| {
        let count = line.trim().strip_suffix("total")?;
        count.trim().parse().ok()
    });
    total.ok_or_else(|| io::Error::other(format!("strace has counted nothing: {text}")))
}
