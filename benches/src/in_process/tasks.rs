//! Tasks: spawned, yielding, waking each other.

use async_executor::LocalExecutor;
use futures_lite::future::block_on;

use super::{TOKIO, consume, sides, tokio_local, tulipa};
use crate::measure::Cases;

pub(super) fn spawn_and_join(title: &'static str) -> Cases<'static> {
    let (event_loop, (runtime, local)) = (tulipa(), tokio_local());
    let smol = LocalExecutor::new();
    Cases::new(title, TOKIO)
        .case("tulipa", move |n| {
            let future = async {
                for i in 0..n {
                    tulipa_loop::spawn(async move { consume(i) }).await.expect("no panic");
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .target(0.50)
        .case(TOKIO, move |n| {
            local.block_on(&runtime, async {
                for i in 0..n {
                    tokio::task::spawn_local(async move { consume(i) }).await.expect("no panic");
                }
            });
        })
        .case("smol", move |n| {
            block_on(smol.run(async {
                for i in 0..n {
                    smol.spawn(async move { consume(i) }).await;
                }
            }));
        })
}

pub(super) fn yields(title: &'static str, tasks: u64, target: f64) -> Cases<'static> {
    let (event_loop, (runtime, local)) = (tulipa(), tokio_local());
    let smol = LocalExecutor::new();
    Cases::new(title, TOKIO)
        .case("tulipa", move |n| {
            let yields = || async move {
                for _ in 0..n.div_ceil(tasks) {
                    tulipa_loop::yield_now().await;
                }
            };
            let future = async {
                let tasks: Vec<_> = (0..tasks).map(|_| tulipa_loop::spawn(yields())).collect();
                for task in tasks {
                    task.await.expect("no panic");
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .target(target)
        .case(TOKIO, move |n| {
            let yields = || async move {
                for _ in 0..n.div_ceil(tasks) {
                    tokio::task::yield_now().await;
                }
            };
            local.block_on(&runtime, async {
                let tasks: Vec<_> =
                    (0..tasks).map(|_| tokio::task::spawn_local(yields())).collect();
                for task in tasks {
                    task.await.expect("no panic");
                }
            });
        })
        .case("smol", move |n| {
            let yields = || async move {
                for _ in 0..n.div_ceil(tasks) {
                    futures_lite::future::yield_now().await;
                }
            };
            block_on(smol.run(async {
                let tasks: Vec<_> = (0..tasks).map(|_| smol.spawn(yields())).collect();
                for task in tasks {
                    task.await;
                }
            }));
        })
}

pub(super) fn ping_pong(title: &'static str) -> Cases<'static> {
    let (event_loop, (runtime, local)) = (tulipa(), tokio_local());
    let smol = LocalExecutor::new();
    Cases::new(title, TOKIO)
        .case("tulipa", move |n| {
            let future = async {
                for task in sides(n).map(tulipa_loop::spawn) {
                    task.await.expect("no panic");
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .target(1.0)
        .case(TOKIO, move |n| {
            local.block_on(&runtime, async {
                for task in sides(n).map(tokio::task::spawn_local) {
                    task.await.expect("no panic");
                }
            });
        })
        .case("smol", move |n| {
            block_on(smol.run(async {
                for task in sides(n).map(|side| smol.spawn(side)) {
                    task.await;
                }
            }));
        })
}
