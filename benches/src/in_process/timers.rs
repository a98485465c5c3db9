//! Timers.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use calloop::timer::{TimeoutAction, Timer};
use tulipa_loop::TimerHandle;

use super::{TOKIO, tokio_local, tulipa};
use crate::measure::Cases;

/// How many timers are set between two turns.
const GENERATION: u64 = 1000;
/// What is slept for.
const NAP: Duration = Duration::from_millis(1);

/// Delays like those of request timeouts: all different, none due.
fn delay(i: u64) -> Duration {
    Duration::from_millis(50_000 + i % 977)
}

async fn poll_once(future: impl Future) {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

pub(super) fn set_and_cancelled(title: &'static str, pending: u64, target: f64) -> Cases<'static> {
    let (event_loop, (runtime, _)) = (tulipa(), tokio_local());
    let ours: Vec<TimerHandle> =
        (0..pending).map(|i| event_loop.call_later(delay(i), |_| ())).collect();
    let mut theirs: Vec<Pin<Box<tokio::time::Sleep>>> = runtime
        .block_on(async { (0..pending).map(|i| Box::pin(tokio::time::sleep(delay(i)))).collect() });
    runtime.block_on(async {
        for sleep in &mut theirs {
            poll_once(sleep.as_mut()).await;
        }
    });
    let peer: calloop::EventLoop<'_, ()> = calloop::EventLoop::try_new().expect("a loop");
    let set = move |i| {
        let timer = Timer::from_duration(delay(i));
        peer.handle().insert_source(timer, |_, (), ()| TimeoutAction::Drop).expect("room")
    };
    for i in 0..pending {
        set(i);
    }
    let smol: Vec<_> = (0..pending).map(|i| polled(async_io::Timer::after(delay(i)))).collect();
    Cases::new(title, "tokio sleep")
        .case("tulipa call_later, cancel", move |n| {
            let _pending = &ours;
            for i in 0..n {
                event_loop.call_later(delay(i), |_| ()).cancel();
            }
        })
        .target(target)
        .case("tokio sleep", move |n| {
            let _pending = &theirs;
            runtime.block_on(async {
                for i in 0..n {
                    poll_once(tokio::time::sleep(delay(i))).await;
                }
            });
        })
        .case("smol Timer", move |n| {
            let _pending = &smol;
            for i in 0..n {
                drop(polled(async_io::Timer::after(delay(i))));
            }
        })
}

/// A timer of smol, polled once.
fn polled(timer: async_io::Timer) -> Pin<Box<async_io::Timer>> {
    let mut timer = Box::pin(timer);
    futures_lite::future::block_on(poll_once(timer.as_mut()));
    timer
}

pub(super) fn fired(title: &'static str) -> Cases<'static> {
    let event_loop = tulipa();
    Cases::new(title, "tulipa call_later").case("tulipa call_later", move |n| {
        for _ in 0..n.div_ceil(GENERATION) {
            for i in 0..GENERATION {
                event_loop.call_later(Duration::from_nanos(i % 7), |_| ());
            }
            while event_loop.statistics().timers > 0 {
                event_loop.run_once(Duration::ZERO).expect("it runs");
            }
        }
    })
}

/// A table whose samples are how late sleeps of a millisecond end, not how long they take.
pub(super) fn lateness(title: &'static str) -> Cases<'static> {
    let (event_loop, (runtime, local)) = (tulipa(), tokio_local());
    Cases::new(title, TOKIO)
        .less(NAP)
        .case("tulipa sleep", move |n| {
            let future = async {
                for _ in 0..n {
                    tulipa_loop::sleep(NAP).await;
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .target(0.05)
        .case(TOKIO, move |n| {
            local.block_on(&runtime, async {
                for _ in 0..n {
                    tokio::time::sleep(NAP).await;
                }
            });
        })
        .case("smol Timer", move |n| {
            async_io::block_on(async {
                for _ in 0..n {
                    async_io::Timer::after(NAP).await;
                }
            });
        })
        .case("calloop Timer", move |n| {
            let mut peer: calloop::EventLoop<'_, u64> =
                calloop::EventLoop::try_new().expect("a loop");
            let timer = Timer::from_duration(NAP);
            let inserted = peer.handle().insert_source(timer, move |_, (), done| {
                *done += 1;
                TimeoutAction::ToInstant(Instant::now() + NAP)
            });
            inserted.expect("room");
            let mut done = 0;
            while done < n {
                peer.dispatch(None, &mut done).expect("it runs");
            }
        })
}
