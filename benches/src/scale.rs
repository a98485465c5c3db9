//! How costs grow: with connections, with timers, with tasks.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tulipa_loop::EventLoop;

use crate::cores;
use crate::load::{Load, Talk, Until};
use crate::memory;
use crate::plan::Plan;
use crate::process::Server;
use crate::report::{Growth, Report, Unit};
use crate::servers::{self, BARE, Mode, PROTOCOL, STREAMS, TOKIO};

/// How many connections there are; the last is what descriptors allow.
const CONNECTIONS: [usize; 6] = [1, 10, 100, 1000, 10_000, usize::MAX];
/// How many timers and tasks there are.
const MANY: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Each size is measured so often, and the best is shown; once in quick runs.
const ROUNDS: usize = 3;

/// Runs what the plan wants.
pub fn run(plan: &Plan, report: &mut Report) {
    type Measure = fn(&Plan, &str) -> io::Result<Growth>;
    const GROWTHS: [(&str, Measure); 4] = [
        ("scale: server's CPU for an echo of 64 bytes as connections grow", connections),
        ("scale: timers, each set, and fired or cancelled", timers),
        ("scale: tasks, each spawned, woken and ended", tasks),
        ("scale: resident bytes of each of so many parked tasks", parked),
    ];
    for (title, measure) in GROWTHS.iter().filter(|(title, _)| plan.wants(title)) {
        match measure(plan, title) {
            Ok(growth) => report.growth(&growth),
            Err(error) => report.remark(format!("{title}: {error}")),
        }
    }
}

fn connections(plan: &Plan, title: &str) -> io::Result<Growth> {
    let columns = vec![BARE, PROTOCOL, STREAMS, TOKIO];
    let peers = columns.iter().filter_map(|name| servers::named(name));
    let servers: io::Result<Vec<_>> =
        peers.map(|peer| Server::start(peer, Mode::Echo, &[])).collect();
    let servers = servers?;
    let (_, duration) = plan.loads();
    let mut lines = Vec::new();
    for wanted in CONNECTIONS {
        if plan.quick && wanted == 10_000 {
            continue;
        }
        let count = cores::connections(wanted);
        let mut figures = Vec::new();
        for server in &servers {
            let cpu = thread::scope(|scope| {
                let measuring = scope.spawn(|| {
                    cores::pin(cores::LOAD);
                    cpu_each(server, count, duration)
                });
                measuring.join().expect("a load does not panic")
            });
            figures.push(cpu?);
            server.settle();
        }
        lines.push((count, figures));
    }
    Ok(Growth { title: title.to_owned(), of: "connections", unit: Unit::Nanos, columns, lines })
}

fn cpu_each(server: &Server, connections: usize, duration: Duration) -> io::Result<f64> {
    let mut load = Load::open(server.address, connections, Talk::echo(64, 1))?;
    let before = server.cpu();
    let done = load.run(Until::Elapsed(duration))?;
    Ok(server.cpu().saturating_sub(before).as_nanos() as f64 / done.total.max(1) as f64)
}

/// The best of the rounds, for each.
fn best(plan: &Plan, mut round: impl FnMut(usize) -> Vec<f64>, count: usize) -> Vec<f64> {
    let mut best = round(count);
    for _ in 1..if plan.quick { 1 } else { ROUNDS } {
        for (best, figure) in best.iter_mut().zip(round(count)) {
            *best = best.min(figure);
        }
    }
    best
}

fn nanos_each(count: usize, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Delays that are all different, in no order: the multiplier is a prime, and so is the number that it is
/// taken modulo of.
fn delay(index: usize, most: Duration) -> Duration {
    most.mul_f64(((index as u64 * 7_919) % 1_000_003) as f64 / 1_000_003.0)
}

fn timers(plan: &Plan, title: &str) -> io::Result<Growth> {
    let round = |count: usize| {
        let event_loop = EventLoop::new().expect("a loop");
        let hour = Duration::from_secs(3600);
        let mut handles = Vec::with_capacity(count);
        let set = nanos_each(count, || {
            handles
                .extend((0..count).map(|i| event_loop.call_later(hour + delay(i, hour), |_| ())));
        });
        let cancel = nanos_each(count, || handles.drain(..).for_each(|handle| handle.cancel()));
        // All are due as soon as they are set: what is measured is their order, and their calls.
        for i in 0..count {
            drop(event_loop.call_later(delay(i, Duration::from_micros(1)), |_| ()));
        }
        let fire = nanos_each(count, || {
            while event_loop.statistics().timers > 0 {
                event_loop.run_once(Duration::ZERO).expect("it runs");
            }
        });
        vec![set, cancel, fire, tokio_timers(count)]
    };
    let columns = vec!["tulipa set", "tulipa cancelled", "tulipa fired", "tokio set and dropped"];
    let lines = MANY.iter().map(|count| (*count, best(plan, round, *count))).collect();
    Ok(Growth { title: title.to_owned(), of: "timers", unit: Unit::Nanos, columns, lines })
}

/// Sleeps that were polled once, all of them before the first is dropped.
fn tokio_timers(count: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let hour = Duration::from_secs(3600);
    runtime.expect("a runtime").block_on(async {
        let start = Instant::now();
        let mut sleeps = Vec::with_capacity(count);
        for i in 0..count {
            let mut sleep = Box::pin(tokio::time::sleep(hour + delay(i, hour)));
            poll_fn(|context| {
                let _ = sleep.as_mut().poll(context);
                Poll::Ready(())
            })
            .await;
            sleeps.push(sleep);
        }
        drop(sleeps);
        start.elapsed().as_nanos() as f64 / count as f64
    })
}

/// What tasks wait for: a signal for each.
#[derive(Default)]
struct Signals {
    given: Cell<bool>,
    wakers: std::cell::RefCell<Vec<Waker>>,
}

async fn wait(signals: Rc<Signals>) {
    poll_fn(|context| {
        if signals.given.get() {
            return Poll::Ready(());
        }
        signals.wakers.borrow_mut().push(context.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Spawns, lets all wait, wakes all, and waits until all have ended: the time of the first two and that of
/// the rest.
async fn spawn_and_wake<T>(
    count: usize,
    spawn: impl Fn(Rc<Signals>) -> T,
    turn: impl AsyncFn(),
    mut join: impl AsyncFnMut(T),
) -> [f64; 2] {
    let signals = Rc::new(Signals::default());
    let start = Instant::now();
    let tasks: Vec<T> = (0..count).map(|_| spawn(signals.clone())).collect();
    while signals.wakers.borrow().len() < count {
        turn().await;
    }
    let spawned = start.elapsed();
    signals.given.set(true);
    signals.wakers.take().into_iter().for_each(Waker::wake);
    for task in tasks {
        join(task).await;
    }
    let ended = start.elapsed() - spawned;
    [spawned, ended].map(|time| time.as_nanos() as f64 / count as f64)
}

fn tasks(plan: &Plan, title: &str) -> io::Result<Growth> {
    let round = |count: usize| {
        let event_loop = EventLoop::new().expect("a loop");
        let ours = event_loop.run_until_complete(spawn_and_wake(
            count,
            |signals| tulipa_loop::spawn(wait(signals)),
            tulipa_loop::yield_now,
            async |task| task.await.expect("no panic"),
        ));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        let theirs = local.block_on(
            &runtime,
            spawn_and_wake(
                count,
                |signals| tokio::task::spawn_local(wait(signals)),
                tokio::task::yield_now,
                async |task| task.await.expect("no panic"),
            ),
        );
        [ours.expect("it runs"), theirs].concat()
    };
    let columns =
        vec!["tulipa spawned", "tulipa woken, ended", "tokio spawned", "tokio woken, ended"];
    let lines = MANY.iter().map(|count| (*count, best(plan, round, *count))).collect();
    Ok(Growth { title: title.to_owned(), of: "tasks", unit: Unit::Nanos, columns, lines })
}

fn parked(_: &Plan, title: &str) -> io::Result<Growth> {
    let columns = vec!["tulipa", "tokio", "tokio LocalSet", "smol"];
    let mut lines = Vec::new();
    // A thousand is less than what a process's memory comes and goes by.
    for count in &MANY[1..] {
        let figures: io::Result<_> =
            columns.iter().map(|kind| memory::bytes_each(kind, *count)).collect();
        lines.push((*count, figures?));
    }
    Ok(Growth { title: title.to_owned(), of: "tasks", unit: Unit::Bytes, columns, lines })
}
