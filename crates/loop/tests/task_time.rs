//! Time for tasks: sleeping, timeouts, waiting with a limit, ticks; all in virtual time.

#[path = "task_common/mod.rs"]
mod common;

use std::future::{pending, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use common::{Log, never};
use tulipa_loop::{
    Elapsed, JoinError, LoopBound, LoopHandle, MissedTicks, Timeout, TimeoutEnded, cancellable,
    interval, interval_at, sleep, sleep_until, spawn, timeout, timeout_at, wait_for, yield_now,
};
use tulipa_testing::VirtualLoop;

const SECOND: Duration = Duration::from_secs(1);

/// Runs an async closure to its end in virtual time, and gives the time that it took.
fn time<F: Future<Output = ()>>(program: impl FnOnce() -> F) -> Duration {
    let virtual_loop = VirtualLoop::new();
    virtual_loop.run_until_complete(async { program().await }).unwrap();
    assert_eq!(virtual_loop.statistics().timers, 0, "no timer is left behind");
    virtual_loop.elapsed()
}

#[test]
fn a_sleep_takes_its_time_and_equal_ones_wake_in_order() {
    let log = Log::default();
    let took = time(|| async {
        let tasks = [(2, "c"), (1, "a"), (1, "b")].map(|(seconds, name)| {
            let log = log.clone();
            spawn(async move {
                sleep(seconds * SECOND).await;
                log.add(name);
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(log.take(), ["a", "b", "c"]);
    assert_eq!(took, 2 * SECOND);
}

#[test]
fn a_sleep_of_nothing_and_one_that_is_past_yield_once() {
    let took = time(|| async {
        let handle = LoopHandle::current();
        sleep(SECOND).await;
        for past in [sleep(Duration::ZERO), sleep_until(handle.time() - SECOND)] {
            let turns = handle.statistics().turns;
            past.await;
            assert_eq!(handle.statistics().turns - turns, 1);
        }
    });
    assert_eq!(took, SECOND);
}

#[test]
fn a_sleep_that_is_given_up_takes_its_timer_along() {
    time(|| async {
        let task = spawn(sleep(10 * SECOND));
        yield_now().await;
        assert_eq!(LoopHandle::current().statistics().timers, 1);
        task.cancel();
        yield_now().await;
        assert_eq!(LoopHandle::current().statistics().timers, 0);
    });
}

#[test]
fn a_sleep_may_be_made_before_the_loop_runs_and_be_longer_than_time() {
    let virtual_loop = VirtualLoop::new();
    let endless = virtual_loop.spawn(virtual_loop.sleep(Duration::MAX));
    virtual_loop.run_until_complete(virtual_loop.sleep(SECOND)).unwrap();
    assert_eq!(virtual_loop.elapsed(), SECOND);
    assert!(!endless.is_done());
}

#[test]
fn a_sleep_follows_the_task_that_polls_it() {
    time(|| async {
        let mut moving = sleep(SECOND);
        assert!(futures_lite::future::poll_once(&mut moving).await.is_none());
        spawn(moving).await.unwrap();
    });
}

#[test]
fn a_sleep_of_a_closed_loop_is_never_early() {
    let virtual_loop = VirtualLoop::new();
    let mut context = Context::from_waker(Waker::noop());
    let mut before = virtual_loop.sleep(SECOND);
    assert!(Pin::new(&mut before).poll(&mut context).is_pending());
    let mut after = virtual_loop.sleep(SECOND);
    virtual_loop.close().unwrap();
    for _ in 0..2 {
        assert!(Pin::new(&mut before).poll(&mut context).is_pending());
        assert!(Pin::new(&mut after).poll(&mut context).is_pending());
    }
    virtual_loop.world().advance(SECOND);
    assert!(Pin::new(&mut before).poll(&mut context).is_ready());
    assert!(Pin::new(&mut after).poll(&mut context).is_ready());
}

#[test]
fn a_timeout_gives_the_value_or_drops_the_future_at_its_deadline() {
    let log = Log::default();
    let took = time(|| async {
        let in_time = timeout(2 * SECOND, async {
            sleep(SECOND).await;
            7
        });
        assert_eq!(in_time.await, Ok(7));
        assert_eq!(timeout(2 * SECOND, never(&log, "dropped")).await, Err(Elapsed));
        assert_eq!(log.take(), ["dropped"]);
        let when = LoopHandle::current().time() + SECOND;
        assert_eq!(timeout_at(when, pending::<()>()).await, Err(Elapsed));
    });
    assert_eq!(took, 4 * SECOND);
}

#[test]
fn a_timeout_in_the_past_lets_the_future_run_until_it_is_suspended() {
    let took = time(|| async {
        assert_eq!(timeout(Duration::ZERO, ready(1)).await, Ok(1));
        assert_eq!(timeout(Duration::ZERO, sleep(Duration::ZERO)).await, Err(Elapsed));
        let past = LoopHandle::current().time();
        assert_eq!(timeout_at(past, yield_now()).await, Err(Elapsed));
    });
    assert_eq!(took, Duration::ZERO);
}

#[test]
fn b99_a_value_that_comes_with_the_deadline_is_given() {
    time(|| async {
        let (promise, future) = LoopHandle::current().create_future();
        LoopHandle::current().call_later(SECOND, move |_| promise.set(3).unwrap());
        assert_eq!(timeout(SECOND, future).await, Ok(Ok(3)));
    });
}

#[test]
fn a_timeout_can_be_moved_in_both_directions_and_switched_off() {
    let took = time(|| async {
        let handle = LoopHandle::current();
        let start = handle.time();
        let at = move |seconds: u32| Some(start + seconds * SECOND);
        let limit = Timeout::after(5 * SECOND);
        assert_eq!(limit.when(), at(5));
        let moved = limit.clone();
        handle.call_later(SECOND, move |handle| {
            moved.reschedule(None).unwrap();
            handle.call_later(10 * SECOND, move |_| moved.reschedule(at(20)).unwrap());
        });
        assert_eq!(limit.run(pending::<()>()).await, Err(Elapsed));
        assert_eq!(handle.time() - start, 20 * SECOND);
        assert!(limit.expired());
        assert_eq!(limit.reschedule(at(30)), Err(TimeoutEnded));

        // Shortened, from inside the future.
        let limit = Timeout::never();
        let inside = limit.clone();
        let body = async {
            inside.reschedule(at(21)).unwrap();
            sleep(10 * SECOND).await;
        };
        assert_eq!(limit.run(body).await, Err(Elapsed));

        // To the past.
        let limit = Timeout::at(start + 100 * SECOND);
        let moved = limit.clone();
        handle.call_later(SECOND, move |_| moved.reschedule(at(0)).unwrap());
        assert_eq!(limit.run(pending::<()>()).await, Err(Elapsed));

        let limit = Timeout::after(SECOND);
        assert_eq!(limit.run(ready(1)).await, Ok(1));
        assert!(!limit.expired());
        assert_eq!(limit.reschedule(None), Err(TimeoutEnded));
    });
    assert_eq!(took, 22 * SECOND);
}

#[test]
fn a_timeout_runs_one_future() {
    time(|| async {
        let limit = Timeout::after(SECOND);
        drop(limit.run(pending::<()>()));
        assert_eq!(limit.run(ready(1)).await, Ok(1), "one that never began does not count");
        let second = spawn(async move { limit.run(ready(2)).await });
        assert!(matches!(second.await, Err(JoinError::Panicked(_))));

        // Two of which one has begun: the other one's end is not the timeout's.
        let limit = Timeout::after(SECOND);
        let other = limit.run(pending::<()>());
        let running = spawn(limit.run(pending::<()>()));
        yield_now().await;
        drop(other);
        assert_eq!(limit.reschedule(Some(LoopHandle::current().time() + 3 * SECOND)), Ok(()));
        assert_eq!(running.await.unwrap(), Err(Elapsed));
    });
}

/// A waker that moves a timeout when the last clone of it is dropped.
struct Mover(LoopBound<(Timeout, Option<Instant>)>);

impl Wake for Mover {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Mover {
    fn drop(&mut self) {
        let (timeout, at) = &*self.0;
        timeout.reschedule(*at).unwrap();
    }
}

#[test]
fn a_waker_may_move_the_timeout_that_drops_it() {
    for moved_to in [None, Some(3 * SECOND)] {
        time(|| async {
            let handle = LoopHandle::current();
            let limit = Timeout::after(SECOND);
            let mut running = pin!(limit.run(pending::<()>()));
            let at = moved_to.map(|after| handle.time() + after);
            let waker = Waker::from(Arc::new(Mover(LoopBound::new((limit.clone(), at)))));
            assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            let mut other = Context::from_waker(Waker::noop());
            assert!(running.as_mut().poll(&mut other).is_pending());
            assert_eq!(limit.when(), at);
            assert_eq!(timeout(10 * SECOND, running).await.ok(), at.map(|_| Err(Elapsed)));
            assert!(at.is_none_or(|at| handle.time() == at));
        });
    }
}

#[test]
fn nested_timeouts_end_by_their_own_deadlines() {
    time(|| async {
        let inner_first = timeout(2 * SECOND, async {
            let inner = timeout(SECOND, pending::<()>()).await;
            (inner, timeout(10 * SECOND, pending::<()>()).await)
        });
        assert_eq!(inner_first.await, Err(Elapsed));
        let outer_first = timeout(SECOND, timeout(2 * SECOND, pending::<()>()));
        assert_eq!(outer_first.await, Err(Elapsed));
        // At the same instant the inner one is asked first; what it gives is a value.
        let equal = timeout(SECOND, timeout(SECOND, pending::<()>()));
        assert_eq!(equal.await, Ok(Err(Elapsed)));
    });
}

#[test]
fn a_timeout_cancels_the_task_that_is_awaited_in_it() {
    time(|| async {
        let task = spawn(pending::<()>());
        let reference = task.reference();
        assert!(matches!(timeout(SECOND, task).await, Err(Elapsed)));
        yield_now().await;
        assert!(reference.is_done());
    });
}

#[test]
fn wait_for_waits_for_the_clean_up() {
    let log = Log::default();
    let took = time(|| async {
        let seen = log.clone();
        let task = spawn(async move {
            if cancellable(pending::<()>()).await.is_err() {
                sleep(SECOND).await;
                seen.add("cleaned up");
                never(&seen, "dropped").await;
            }
        });
        let reference = task.reference();
        LoopHandle::current().call_later(3 * SECOND, move |_| {
            reference.cancel();
        });
        assert!(matches!(wait_for(task, SECOND).await, Err(Elapsed)));
        assert_eq!(log.take(), ["cleaned up", "dropped"]);
    });
    assert_eq!(took, 3 * SECOND);
}

#[test]
fn wait_for_gives_the_value_also_of_a_task_that_was_asked_to_end() {
    time(|| async {
        let task = spawn(async { sleep(SECOND).await });
        assert!(matches!(wait_for(task, 2 * SECOND).await, Ok(Ok(()))));
        let stubborn = spawn(async {
            let _ = cancellable(pending::<()>()).await;
            9
        });
        assert!(matches!(wait_for(stubborn, SECOND).await, Ok(Ok(9))));
        let cancelled = spawn(pending::<()>());
        cancelled.cancel();
        let result = wait_for(cancelled, SECOND).await;
        assert!(matches!(result, Ok(Err(JoinError::Cancelled))));
        let fails = spawn(async {
            let _ = cancellable(pending::<()>()).await;
            panic!("in the clean-up");
        });
        let result: Result<Result<(), _>, _> = wait_for(fails, SECOND).await;
        assert!(matches!(result, Ok(Err(JoinError::Panicked(_)))));
    });
}

#[test]
fn wait_for_nothing_never_starts_a_task_and_takes_a_result_that_is_there() {
    let log = Log::default();
    let took = time(|| async {
        let seen = log.clone();
        let fresh = spawn(async move { seen.add("started") });
        assert!(matches!(wait_for(fresh, Duration::ZERO).await, Err(Elapsed)));
        let done = spawn(ready(4));
        yield_now().await;
        assert!(matches!(wait_for(done, Duration::ZERO).await, Ok(Ok(4))));
        let given_up = spawn(pending::<()>());
        let reference = given_up.reference();
        drop(wait_for(given_up, SECOND));
        yield_now().await;
        assert!(reference.is_done());
    });
    assert!(log.take().is_empty());
    assert_eq!(took, Duration::ZERO);
}

#[test]
fn b98_a_cancel_and_a_result_in_one_turn_lose_neither() {
    for cancel_first in [true, false] {
        let virtual_loop = VirtualLoop::new();
        let (promise, future) = virtual_loop.create_future();
        let inner = virtual_loop.spawn(future);
        let mut outer = virtual_loop.spawn(async move {
            let value = cancellable(wait_for(inner, SECOND)).await;
            (value, cancellable(pending::<()>()).await)
        });
        virtual_loop.run_until_idle();
        if cancel_first {
            promise.set(6).unwrap();
            outer.cancel();
        } else {
            // The value reaches the inner task first, the cancel the outer one after it.
            promise.set(6).unwrap();
            let outer = outer.reference();
            virtual_loop.call_soon(move |_| {
                outer.cancel();
            });
        }
        virtual_loop.run_until_idle();
        let (value, next) = match outer.try_result() {
            Some(result) => result.unwrap(),
            None => {
                // The request was consumed before the inner task had run.
                outer.cancel();
                virtual_loop.run_until_idle();
                outer.try_result().unwrap().unwrap()
            }
        };
        assert!(next.is_err());
        match value {
            Ok(value) => assert_eq!(value.unwrap().unwrap().unwrap(), 6),
            Err(_) => assert!(cancel_first, "a result that was there is given"),
        }
    }
}

/// When the ticks of a task came whose third one was looked at late.
fn ticks(missed: MissedTicks) -> Vec<u128> {
    let log = Log::default();
    time(|| async {
        let start = LoopHandle::current().time();
        let mut ticks = interval(10 * SECOND).missed_ticks(missed);
        for round in 0..6 {
            ticks.tick().await;
            log.add(LoopHandle::current().time().duration_since(start).as_secs().to_string());
            if round == 1 {
                sleep(25 * SECOND).await;
            }
        }
    });
    log.take().iter().map(|seconds| seconds.parse().unwrap()).collect()
}

#[test]
fn an_interval_does_about_missed_ticks_what_it_was_told() {
    assert_eq!(ticks(MissedTicks::Burst), [0, 10, 35, 35, 40, 50]);
    assert_eq!(ticks(MissedTicks::Skip), [0, 10, 35, 40, 50, 60]);
    assert_eq!(ticks(MissedTicks::Delay), [0, 10, 35, 45, 55, 65]);
}

#[test]
fn a_tick_that_was_given_up_comes_the_next_time() {
    let took = time(|| async {
        let first = LoopHandle::current().time() + SECOND;
        let mut ticks = interval_at(first, SECOND);
        assert_eq!(timeout(SECOND / 2, ticks.tick()).await, Err(Elapsed));
        assert_eq!(ticks.tick().await, first);
        assert_eq!(ticks.tick().await, first + ticks.period());
    });
    assert_eq!(took, 2 * SECOND);
}
