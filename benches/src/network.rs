//! Servers under load.

use std::io;
use std::thread;

use crate::cores;
use crate::load::{Done, Load, Talk, Until, churn};
use crate::plan::Plan;
use crate::process::{self, Server};
use crate::report::{Report, Row, Table, Target, Unit};
use crate::servers::{ALL, BARE, BUFFERED, HTTP_BODY, Mode, PROTOCOL, Peer, STREAMS, Start, TOKIO};

/// How many connections are made at a time where each is for one message.
const CHURN_AT_A_TIME: usize = 16;

/// Opening more connections than this takes longer than the load: quick runs have one round of these tables,
/// and leave Python out.
pub const LARGE: usize = 1000;

/// What a load does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Echo { size: usize, lines: usize },
    Churn,
    Http,
}

/// One table.
#[derive(Clone, Copy, Debug)]
struct Workload {
    title: &'static str,
    mode: Mode,
    kind: Kind,
    connections: usize,
    /// What protocols and streams are to reach, as a ratio to the first baseline.
    targets: (f64, f64),
}

const fn echo(title: &'static str, size: usize, connections: usize) -> Workload {
    let kind = Kind::Echo { size, lines: 1 };
    Workload { title, mode: Mode::Echo, kind, connections, targets: (0.97, 0.95) }
}

const WORKLOADS: &[Workload] = &[
    echo("echo of 64 bytes, 1 connection", 64, 1),
    echo("echo of 64 bytes, 10 connections", 64, 10),
    echo("echo of 64 bytes, 100 connections", 64, 100),
    echo("echo of 64 bytes, 1000 connections", 64, 1000),
    echo("echo of 64 bytes, 5000 connections", 64, 5000),
    echo("echo of 100 KiB, 10 connections", 100 * 1024, 10),
    echo("echo of 100 KiB, 100 connections", 100 * 1024, 100),
    echo("echo of 100 KiB, 1000 connections", 100 * 1024, 1000),
    Workload {
        title: "lines of 64 bytes, 16 under way, 100 connections",
        mode: Mode::Lines,
        kind: Kind::Echo { size: 64, lines: 16 },
        connections: 100,
        targets: (0.95, 0.90),
    },
    Workload {
        title: "accept, echo of 64 bytes, close; 16 at a time",
        // A buffer for each connection would be most of the cost.
        mode: Mode::Idle,
        kind: Kind::Churn,
        connections: CHURN_AT_A_TIME,
        targets: (1.0, 1.0),
    },
    Workload {
        title: "HTTP/1.1 keep-alive with hyper, 100 connections",
        mode: Mode::Http,
        kind: Kind::Http,
        connections: 100,
        targets: (1.0, 1.0),
    },
];

/// Runs all that the plan wants.
pub fn run(plan: &Plan, report: &mut Report) {
    let wanted: Vec<_> = WORKLOADS.iter().filter(|load| plan.wants(load.title)).collect();
    if wanted.is_empty() {
        return;
    }
    if !cores::are_enough() {
        report.remark("there is one core only: load and servers share it");
    }
    let peers = available(report);
    for workload in wanted {
        // A thread of its own, so that what it is pinned to ends with it.
        let table = thread::scope(|scope| {
            let measuring = scope.spawn(|| {
                cores::pin(cores::LOAD);
                measure(workload, &peers, plan)
            });
            measuring.join().expect("a load does not panic")
        });
        match table {
            Ok(table) => report.table(&table),
            Err(error) => report.remark(format!("{}: {error}", workload.title)),
        }
    }
}

/// The peers that can run here; says which cannot.
#[must_use]
pub fn available(report: &mut Report) -> Vec<&'static Peer> {
    let modules: Vec<_> = ["asyncio", "uvloop"]
        .into_iter()
        .filter(|module| {
            let there = process::python_has(module);
            if !there {
                report.remark(format!("skipped: {module}, which python3 does not have here"));
            }
            there
        })
        .collect();
    let runs = |peer: &&Peer| match peer.start {
        Start::Rust(_) => true,
        Start::Python(library, _) => modules.contains(&library),
    };
    ALL.iter().filter(runs).collect()
}

/// The samples of one peer.
struct Measured {
    peer: &'static Peer,
    server: Server,
    talk: Talk,
    per_second: Vec<f64>,
    cpu: Vec<f64>,
}

fn measure(workload: &Workload, peers: &[&'static Peer], plan: &Plan) -> io::Result<Table> {
    let connections = cores::connections(workload.connections);
    let (mut rounds, duration) = plan.loads();
    let is_large = workload.connections > LARGE;
    if is_large && plan.quick {
        rounds = 1;
    }
    let mut all = Vec::new();
    for peer in peers.iter().filter(|peer| peer.modes.contains(&workload.mode)) {
        if is_large && plan.quick && matches!(peer.start, Start::Python(..)) {
            continue;
        }
        let server = Server::start(peer, workload.mode, &[])?;
        let talk = match workload.kind {
            Kind::Echo { size, lines } => Talk::echo(size, lines),
            Kind::Churn => Talk::echo(64, 1),
            Kind::Http => Talk::http(server.address, HTTP_BODY)?,
        };
        let (per_second, cpu) = (Vec::new(), Vec::new());
        all.push(Measured { peer, server, talk, per_second, cpu });
    }
    for _ in 0..rounds {
        for Measured { peer, server, talk, per_second, cpu } in &mut all {
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", peer.name));
            let (done, used) = if matches!(workload.kind, Kind::Churn) {
                let before = server.cpu();
                let done = churn(server.address, connections, talk, duration).map_err(named)?;
                (done, server.cpu().saturating_sub(before))
            } else {
                let load = Load::open(server.address, connections, talk.clone());
                let mut load = load.map_err(named)?;
                let before = server.cpu();
                let done: Done = load.run(Until::Elapsed(duration)).map_err(named)?;
                let used = server.cpu().saturating_sub(before);
                drop(load);
                (done, used)
            };
            // Connections that end are work too, which is nobody else's.
            server.settle();
            per_second.push(done.per_second());
            cpu.push(used.as_nanos() as f64 / done.total.max(1) as f64);
        }
    }
    let baselines: &[_] =
        if matches!(workload.kind, Kind::Http) { &[TOKIO] } else { &[BARE, TOKIO] };
    let mut table = Table::new(workload.title, Unit::PerSecond, baselines)
        .with_extra("server's CPU, ns", Unit::Nanos);
    for Measured { peer, per_second, cpu, .. } in all {
        let (protocols, streams) = workload.targets;
        let target = match peer.name {
            PROTOCOL | BUFFERED => Some(Target::Ratio(baselines[0], protocols)),
            STREAMS => Some(Target::Ratio(baselines[0], streams)),
            _ => None,
        };
        table.push(Row::new(peer.name, per_second).with_extra(cpu).with_target(target));
    }
    Ok(table)
}
