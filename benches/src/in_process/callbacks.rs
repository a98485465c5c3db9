//! Callbacks and turns.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::LoopHandle;

use super::{TOKIO, consume, tokio_local, tulipa};
use crate::measure::Cases;

/// How many callbacks are scheduled between two turns.
const GENERATION: u64 = 1000;

pub(super) fn call_soon(title: &'static str) -> Cases<'static> {
    let (event_loop, (runtime, local)) = (tulipa(), tokio_local());
    let mut peer: calloop::EventLoop<'_, ()> = calloop::EventLoop::try_new().expect("a loop");
    Cases::new(title, TOKIO)
        .case("tulipa call_soon", move |n| {
            for _ in 0..n.div_ceil(GENERATION) {
                for i in 0..GENERATION {
                    event_loop.call_soon(move |_| consume(i));
                }
                event_loop.run_once(Duration::ZERO).expect("it runs");
            }
        })
        .target(0.20)
        .case(TOKIO, move |n| {
            local.block_on(&runtime, async {
                for _ in 0..n.div_ceil(GENERATION) {
                    for i in 0..GENERATION {
                        tokio::task::spawn_local(async move { consume(i) });
                    }
                    tokio::task::yield_now().await;
                }
            });
        })
        .case("calloop insert_idle", move |n| {
            for _ in 0..n.div_ceil(GENERATION) {
                for i in 0..GENERATION {
                    peer.handle().insert_idle(move |()| consume(i));
                }
                peer.dispatch(Some(Duration::ZERO), &mut ()).expect("it runs");
            }
        })
}

fn again(handle: &LoopHandle, left: Rc<Cell<u64>>) {
    if left.get() == 0 {
        return handle.stop();
    }
    left.set(left.get() - 1);
    handle.call_soon(move |handle| again(handle, left));
}

pub(super) fn turns(title: &'static str) -> Cases<'static> {
    let (callbacks, event_loop, (runtime, _)) = (tulipa(), tulipa(), tokio_local());
    Cases::new(title, "tokio yield_now")
        .case("tulipa callback after callback", move |n| {
            again(&callbacks, Rc::new(Cell::new(n)));
            callbacks.run_forever().expect("it runs");
        })
        .case("tulipa main future yields", move |n| {
            let future = async {
                for _ in 0..n {
                    futures_lite::future::yield_now().await;
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .case("tokio yield_now", move |n| {
            runtime.block_on(async {
                for _ in 0..n {
                    tokio::task::yield_now().await;
                }
            });
        })
}
