//! Resident memory: of connections in a server that is asked from outside, and of tasks in a process that
//! says it of itself.

use std::future::pending;
use std::io;

use async_executor::LocalExecutor;
use tulipa_loop::EventLoop;

use crate::cores;
use crate::load::{Load, Talk};
use crate::network;
use crate::plan::Plan;
use crate::process::{self, Server};
use crate::report::{Report, Row, Table, Target, Unit};
use crate::servers::{Mode, PROTOCOL, Peer, STREAMS, Start};

/// How many connections are idle.
const CONNECTIONS: usize = 9_900;
/// How many there are before, so that what a server allocates once is not counted.
const WARM_UP: usize = 100;
/// How many tasks are parked.
const TASKS: usize = 100_000;

const IDLE_TITLE: &str = "resident bytes for an idle connection";
const PARKED_TITLE: &str = "resident bytes for a parked task";

/// Runs what the plan wants.
pub fn run(plan: &Plan, report: &mut Report) {
    if plan.wants(PARKED_TITLE) {
        let mut table = Table::new(PARKED_TITLE, Unit::Bytes, &["tokio"]);
        for kind in ["tulipa", "tokio", "tokio LocalSet", "smol"] {
            let target = (kind == "tulipa").then_some(Target::Value(150.0));
            match bytes_each(kind, TASKS) {
                Ok(bytes) => table.push(Row::new(kind, vec![bytes]).with_target(target)),
                Err(error) => report.remark(format!("{kind}: {error}")),
            }
        }
        report.table(&table);
    }
    if !plan.wants(IDLE_TITLE) {
        return;
    }
    let connections = cores::connections(CONNECTIONS);
    if connections < CONNECTIONS {
        report.remark(format!("descriptors allow {connections} idle connections only"));
    }
    let mut table = Table::new(
        format!("{IDLE_TITLE}, {connections} of them, each after one message"),
        Unit::Bytes,
        &["tokio"],
    );
    // Quick runs have no time for Python's servers to take so many connections.
    let is_wanted = |peer: &&'static Peer| {
        peer.modes.contains(&Mode::Idle) && !(plan.quick && matches!(peer.start, Start::Python(..)))
    };
    for peer in network::available(report).into_iter().filter(is_wanted) {
        let target = match peer.name {
            PROTOCOL => Some(Target::Value(300.0)),
            STREAMS => Some(Target::Value(600.0)),
            _ => None,
        };
        match idle(peer, connections) {
            Ok(bytes) => table.push(Row::new(peer.name, vec![bytes]).with_target(target)),
            Err(error) => report.remark(format!("{}: {error}", peer.name)),
        }
    }
    report.table(&table);
}

fn idle(peer: &Peer, connections: usize) -> io::Result<f64> {
    let server = Server::start(peer, Mode::Idle, &[])?;
    let warm_up = Load::open(server.address, WARM_UP, Talk::echo(64, 1))?;
    server.settle();
    let before = server.resident();
    let more = Load::open(server.address, connections - WARM_UP, Talk::echo(64, 1))?;
    server.settle();
    let after = server.resident();
    drop((warm_up, more));
    Ok(after.saturating_sub(before) as f64 / (connections - WARM_UP) as f64)
}

/// How many bytes each of so many things takes, asked of a new process: see [`hold`].
///
/// # Errors
///
/// When that does not say.
pub fn bytes_each(kind: &str, count: usize) -> io::Result<f64> {
    let mut command = process::this_program(&[])?;
    let output = command.args(["--hold", kind, &count.to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes = text.trim().parse::<f64>();
    bytes.map_err(|_| io::Error::other(format!("no number of bytes but {text:?}")))
}

/// Parks so many tasks, and says how many bytes each keeps resident.
///
/// # Panics
///
/// When there is no such kind.
pub fn hold(kind: &str, count: usize) {
    // One first: what is allocated once is not counted.
    let (before, after) = match kind {
        "tulipa" => {
            let event_loop = EventLoop::new().expect("a loop");
            let park = |count| {
                let spawn = async {
                    for _ in 0..count {
                        drop(tulipa_loop::spawn(pending::<()>()));
                    }
                    tulipa_loop::yield_now().await;
                };
                event_loop.run_until_complete(spawn).expect("it runs");
                process::resident("self")
            };
            let measured = (park(1), park(count));
            // Not closed: that would report each task.
            std::mem::forget(event_loop);
            measured
        }
        "tokio" => {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let park = |count| {
                runtime.block_on(async {
                    for _ in 0..count {
                        drop(tokio::spawn(pending::<()>()));
                    }
                    tokio::task::yield_now().await;
                });
                process::resident("self")
            };
            (park(1), park(count))
        }
        "tokio LocalSet" => {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let local = tokio::task::LocalSet::new();
            let park = |count| {
                local.block_on(&runtime, async {
                    for _ in 0..count {
                        drop(tokio::task::spawn_local(pending::<()>()));
                    }
                    tokio::task::yield_now().await;
                });
                process::resident("self")
            };
            (park(1), park(count))
        }
        "smol" => {
            let executor = LocalExecutor::new();
            let park = |count| {
                for _ in 0..count {
                    executor.spawn(pending::<()>()).detach();
                }
                while executor.try_tick() {}
                process::resident("self")
            };
            (park(1), park(count))
        }
        other => panic!("there is nothing of the kind {other}"),
    };
    println!("{:.1}", after.saturating_sub(before) as f64 / count as f64);
}
