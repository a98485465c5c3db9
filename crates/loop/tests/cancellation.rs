//! Cancelling tasks: where the request goes, who consumes it, and what is dropped when.

#[path = "task_common/mod.rs"]
mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, ready};
use std::rc::Rc;
use std::time::Duration;

use common::{Log, OnDrop, never, reporting_loop};
use futures_lite::future::{or, zip};
use proptest::prelude::*;
use tulipa_loop::{
    Cancelled, JoinError, TaskRef, TaskStatus, cancellable, current_task, shield, yield_now,
};
use tulipa_testing::VirtualLoop;

#[test]
fn without_a_frame_the_future_is_dropped_at_the_next_turn_and_not_inside_cancel() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let seen = log.clone();
    let task = virtual_loop.spawn(async move { never(&seen, "dropped").await });
    virtual_loop.run_until_idle();
    assert!(task.cancel());
    assert!(!task.is_cancelled() && task.is_cancelling());
    assert!(log.take().is_empty());
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["dropped"]);
    assert!(task.is_cancelled() && !task.is_cancelling());
    assert!(!task.cancel(), "a task that is done cannot be cancelled");
}

#[test]
fn a_task_cancelled_before_its_first_poll_is_never_polled() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let seen = log.clone();
    let frame = log.on_drop("dropped");
    let task = virtual_loop.spawn(async move {
        let _frame = frame;
        seen.add("polled");
        let _ = cancellable(pending::<()>()).await;
    });
    assert!(task.cancel());
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["dropped"]);
    assert!(task.is_cancelled());
}

#[test]
fn a_frame_consumes_the_request_and_the_task_cleans_up_and_goes_on() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let seen = log.clone();
    let mut task = virtual_loop.spawn(async move {
        let result = cancellable(never(&seen, "inner dropped")).await;
        seen.add(format!("{result:?}"));
        yield_now().await;
        seen.add("cleaned up");
        7
    });
    virtual_loop.run_until_idle();
    assert!(task.cancel());
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["inner dropped", "Err(Cancelled)", "cleaned up"]);
    assert_eq!(task.try_result().unwrap().unwrap(), 7);
}

#[test]
fn b98_a_value_that_is_there_wins_and_the_request_stays_for_what_comes_next() {
    for cancel_first in [true, false] {
        let virtual_loop = VirtualLoop::new();
        let log = Log::default();
        let (promise, future) = virtual_loop.create_future();
        let seen = log.clone();
        let task = virtual_loop.spawn(async move {
            let value = cancellable(future).await;
            seen.add(format!("{value:?}"));
            let next = cancellable(pending::<()>()).await;
            seen.add(format!("{next:?}"));
            never(&seen, "end").await;
        });
        virtual_loop.run_until_idle();
        if cancel_first {
            task.cancel();
        }
        promise.set(5).unwrap();
        task.cancel();
        virtual_loop.run_until_idle();
        assert_eq!(log.take(), ["Ok(Ok(5))", "Err(Cancelled)"]);
        assert!(!task.is_done() && !task.is_cancelling());
        task.cancel();
        virtual_loop.run_until_idle();
        assert_eq!(log.take(), ["end"]);
    }
}

#[test]
fn a_request_that_no_frame_consumed_drops_the_rest() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let (promise, future) = virtual_loop.create_future();
    let seen = log.clone();
    let task = virtual_loop.spawn(async move {
        seen.add(format!("{:?}", cancellable(future).await));
        never(&seen, "rest dropped").await;
    });
    virtual_loop.run_until_idle();
    promise.set(()).unwrap();
    task.cancel();
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["Ok(Ok(()))", "rest dropped"]);
    assert!(task.is_cancelled());
}

#[test]
fn a_request_goes_to_the_innermost_frame_only() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let seen = log.clone();
    let task = virtual_loop.spawn(async move {
        let outer = cancellable(async {
            let inner = cancellable(pending::<()>()).await;
            seen.add(format!("inner {inner:?}"));
            yield_now().await;
            seen.add("inner cleaned up");
            3
        });
        let outer = outer.await;
        seen.add(format!("outer {outer:?}"));
    });
    virtual_loop.run_until_idle();
    task.cancel();
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["inner Err(Cancelled)", "inner cleaned up", "outer Ok(3)"]);
    assert_eq!(task.status(), TaskStatus::Finished);
}

#[test]
fn a_second_request_during_clean_up_goes_to_the_frame_around() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let seen = log.clone();
    let task = virtual_loop.spawn(async move {
        let outer = cancellable(async {
            let _ = cancellable(pending::<()>()).await;
            never(&seen, "clean-up dropped").await;
        });
        seen.add(format!("outer {:?}", outer.await));
    });
    virtual_loop.run_until_idle();
    task.cancel();
    virtual_loop.run_until_idle();
    assert!(log.take().is_empty());
    task.cancel();
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["clean-up dropped", "outer Err(Cancelled)"]);
}

#[test]
fn a_request_goes_to_every_leaf() {
    let virtual_loop = VirtualLoop::new();
    let mut task = virtual_loop.spawn(async move {
        let (one, (two, three)) = zip(
            cancellable(pending::<()>()),
            zip(cancellable(pending::<()>()), cancellable(async { yield_now().await })),
        )
        .await;
        (one, two, three)
    });
    virtual_loop.run_until_idle();
    task.cancel();
    virtual_loop.run_until_idle();
    let expected = (Err(Cancelled), Err(Cancelled), Ok(()));
    assert_eq!(task.try_result().unwrap().unwrap(), expected);
}

#[test]
fn two_requests_before_a_step_are_one() {
    let virtual_loop = VirtualLoop::new();
    let mut task = virtual_loop.spawn(async move {
        let first = cancellable(pending::<()>()).await;
        yield_now().await;
        first
    });
    virtual_loop.run_until_idle();
    assert!(task.cancel() && task.cancel());
    virtual_loop.run_until_idle();
    assert_eq!(task.try_result().unwrap().unwrap(), Err(Cancelled));
}

#[test]
fn a_task_may_cancel_itself() {
    let virtual_loop = VirtualLoop::new();
    let cancel = || assert!(current_task().unwrap().cancel());
    // No frame: dropped at the next suspension, and not before.
    let log = Log::default();
    let seen = log.clone();
    let plain = virtual_loop.spawn(async move {
        cancel();
        seen.add("still running");
        never(&seen, "dropped").await;
    });
    // A frame that comes later gets the request; one around does too.
    let mut later = virtual_loop.spawn(async move {
        cancel();
        cancellable(pending::<()>()).await
    });
    let mut around = virtual_loop.spawn(cancellable(async move {
        cancel();
        pending::<()>().await;
    }));
    // A task that ends before it is suspended was not cancelled.
    let mut value = virtual_loop.spawn(async move {
        cancel();
        9
    });
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["still running", "dropped"]);
    assert!(plain.is_cancelled());
    assert_eq!(later.try_result().unwrap().unwrap(), Err(Cancelled));
    assert_eq!(around.try_result().unwrap().unwrap(), Err(Cancelled));
    assert_eq!(value.try_result().unwrap().unwrap(), 9);
}

#[test]
#[cfg_attr(miri, ignore = "async-task looks at a future that holds a reference into itself")]
fn a_cancel_is_forwarded_to_the_awaited_task_and_not_through_a_shield() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let child = |entry: &'static str| {
        let log = log.clone();
        virtual_loop.spawn(async move {
            let _ = cancellable(pending::<()>()).await;
            log.add(entry);
        })
    };
    let (awaited, shielded, mut joined) = (child("awaited"), child("shielded"), child("joined"));
    let parents = [
        virtual_loop.spawn(async move { drop(awaited.await) }),
        virtual_loop.spawn(async move { drop(shield(shielded).await) }),
        virtual_loop.spawn(async move { drop(joined.joined().await) }),
    ];
    virtual_loop.run_until_idle();
    parents.iter().for_each(|parent| assert!(parent.cancel()));
    virtual_loop.run_until_idle();
    assert!(parents.iter().all(|parent| parent.is_cancelled()));
    assert_eq!(log.take(), ["awaited"]);
    assert_eq!(virtual_loop.statistics().tasks, 2);
}

#[test]
fn a_frame_around_an_await_forwards_and_goes_on() {
    let virtual_loop = VirtualLoop::new();
    let child = virtual_loop.spawn(pending::<()>());
    let child_ref = child.reference();
    let mut parent = virtual_loop.spawn(async move { cancellable(child).await.is_err() });
    virtual_loop.run_until_idle();
    parent.cancel();
    virtual_loop.run_until_idle();
    assert!(parent.try_result().unwrap().unwrap());
    assert!(child_ref.is_done());
}

#[test]
fn a_frame_that_is_dropped_unconsumed_leaves_the_request_to_the_task() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let seen = log.clone();
    let task = virtual_loop.spawn(async move {
        let frame = async {
            let _ = cancellable(pending::<()>()).await;
            unreachable!("its rival is polled first");
        };
        or(yield_now(), frame).await;
        seen.add("raced");
        never(&seen, "dropped").await;
    });
    // After the first poll, while the yield is about to win.
    let reference = task.reference();
    virtual_loop.call_soon(move |_| {
        reference.cancel();
    });
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["raced", "dropped"]);
    assert!(task.is_cancelled());
}

#[test]
fn outside_of_a_task_a_frame_is_its_future() {
    let virtual_loop = VirtualLoop::new();
    assert_eq!(virtual_loop.run_until_complete(cancellable(ready(4))).unwrap(), Ok(4));
    assert_eq!(futures_lite::future::block_on(cancellable(ready(4))), Ok(4));
}

#[test]
fn a_frame_that_is_put_aside_keeps_the_request_until_it_is_polled_or_dropped() {
    for dropped in [false, true] {
        let virtual_loop = VirtualLoop::new();
        let mut task = virtual_loop.spawn(async move {
            let mut aside = Box::pin(cancellable(pending::<()>()));
            assert!(futures_lite::future::poll_once(&mut aside).await.is_none());
            yield_now().await;
            yield_now().await;
            if dropped {
                drop(aside);
                pending().await
            } else {
                aside.await
            }
        });
        virtual_loop.run_once(Duration::ZERO).unwrap();
        task.cancel();
        virtual_loop.run_once(Duration::ZERO).unwrap();
        assert!(!task.is_done() && task.is_cancelling());
        virtual_loop.run_until_idle();
        match task.try_result() {
            Some(Err(JoinError::Cancelled)) => assert!(dropped),
            Some(Ok(Err(Cancelled))) => assert!(!dropped),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_frame_may_move_from_task_to_task() {
    let virtual_loop = VirtualLoop::new();
    let frame = Rc::new(RefCell::new(Some(Box::pin(cancellable(pending::<()>())))));
    let first = virtual_loop.spawn({
        let frame = frame.clone();
        async move {
            let mut moving = frame.borrow_mut().take().unwrap();
            assert!(futures_lite::future::poll_once(&mut moving).await.is_none());
            *frame.borrow_mut() = Some(moving);
            pending::<()>().await;
        }
    });
    virtual_loop.run_until_idle();
    let mut second = virtual_loop.spawn(async move {
        let frame = frame.borrow_mut().take().unwrap();
        frame.await
    });
    virtual_loop.run_until_idle();
    second.cancel();
    virtual_loop.run_until_idle();
    assert_eq!(second.try_result().unwrap().unwrap(), Err(Cancelled));
    first.cancel();
    virtual_loop.run_until_idle();
    assert!(first.is_cancelled());
}

#[test]
fn a_panic_inside_a_frame_ends_the_task_and_a_destructor_may_cancel() {
    let (virtual_loop, reports) = reporting_loop();
    let own: Rc<Cell<Option<TaskRef>>> = Rc::default();
    let task = virtual_loop.spawn({
        let own = own.clone();
        async move {
            let guard = OnDrop(move || {
                let task = own.take().unwrap();
                task.cancel();
                own.set(Some(task));
            });
            let _ = cancellable(async {
                let _guard = guard;
                yield_now().await;
                panic!("inside");
            })
            .await;
        }
    });
    own.set(Some(task.reference()));
    virtual_loop.run_until_idle();
    assert_eq!(task.status(), TaskStatus::Panicked);
    drop(task);
    assert_eq!(reports.take().len(), 1);
}

/// A step of a random program: it awaits, in a frame or not, something that takes some turns.
#[derive(Clone, Debug)]
struct Part {
    turns: u8,
    framed: bool,
}

/// What a task made of such parts does, by the words of the documentation: the values its parts end
/// with, and whether it ended cancelled. `cancels[n]` says that a request is made before turn `n`.
fn model(parts: &[Part], cancels: &[bool]) -> (Vec<bool>, bool) {
    let (mut turn, mut requested) = (0, false);
    let mut results = Vec::new();
    let request_at = |turn: usize| cancels.get(turn).copied().unwrap_or(false);
    requested |= request_at(0);
    if requested {
        return (results, true); // never polled
    }
    for part in parts {
        let mut left = part.turns;
        let value = loop {
            // Polled, with the future first.
            if left == 0 {
                break true;
            }
            if requested && part.framed {
                requested = false;
                break false;
            }
            if requested {
                return (results, true);
            }
            left -= 1;
            turn += 1;
            requested |= request_at(turn);
            if requested && !part.framed {
                return (results, true); // dropped where it is suspended
            }
        };
        results.push(value);
    }
    (results, false)
}

async fn wait_turns(turns: u8) {
    for _ in 0..turns {
        yield_now().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("TULIPA_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
    ))]

    #[test]
    fn cancellation_follows_the_model(
        parts in prop::collection::vec((0..4u8, any::<bool>()), 1..8),
        cancels in prop::collection::vec(prop::bool::weighted(0.25), 0..24),
    ) {
        let parts: Vec<_> =
            parts.into_iter().map(|(turns, framed)| Part { turns, framed }).collect();
        let virtual_loop = VirtualLoop::new();
        let results = Rc::new(RefCell::new(Vec::new()));
        let (program, seen) = (parts.clone(), results.clone());
        let task = virtual_loop.spawn(async move {
            for part in program {
                let value = if part.framed {
                    cancellable(wait_turns(part.turns)).await.is_ok()
                } else {
                    wait_turns(part.turns).await;
                    true
                };
                seen.borrow_mut().push(value);
            }
        });
        for turn in 0..40 {
            if cancels.get(turn).copied().unwrap_or(false) {
                prop_assert_eq!(task.cancel(), !task.is_done());
            }
            virtual_loop.run_once(std::time::Duration::ZERO).unwrap();
        }
        let (expected, cancelled) = model(&parts, &cancels);
        prop_assert_eq!(results.take(), expected);
        prop_assert_eq!(task.is_cancelled(), cancelled);
        prop_assert!(task.is_done());
    }
}
