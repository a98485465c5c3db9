//! Clean-up that awaits, last in, first out, however the body ends.

#[path = "task_common/mod.rs"]
mod common;

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Log, OnDrop, never, reporting_loop};
use tulipa_loop::{AsyncExitStack, JoinError, cancellable, sleep, timeout, yield_now};
use tulipa_testing::VirtualLoop;

const SECOND: Duration = Duration::from_secs(1);

/// An exit that takes a second.
async fn exit(log: Log, name: &'static str) {
    sleep(SECOND).await;
    log.add(name);
}

#[test]
fn exits_run_last_in_first_out_and_are_awaited() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let value = virtual_loop.run_until_complete(AsyncExitStack::run(async |stack| {
        stack.push(exit(log.clone(), "first"));
        let (again, inner) = (stack.clone(), log.clone());
        let seen = log.clone();
        stack.callback(move || {
            seen.add("callback");
            again.push(exit(inner, "pushed by the callback"));
        });
        stack.push(exit(log.clone(), "last"));
        assert_eq!(format!("{stack:?}"), "<AsyncExitStack exits=3>");
        log.add("body");
        Err::<(), _>("an error is a value")
    }));
    assert_eq!(value.unwrap(), Err("an error is a value"));
    assert_eq!(log.take(), ["body", "last", "callback", "pushed by the callback", "first"]);
    assert_eq!(virtual_loop.elapsed(), 3 * SECOND);
}

#[test]
fn a_cancel_drops_the_body_runs_the_exits_and_goes_on() {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    for framed in [false, true] {
        let inner = log.clone();
        let task = virtual_loop.spawn(async move {
            let scope = AsyncExitStack::run(async |stack| {
                stack.push(exit(inner.clone(), "exit"));
                never(&inner, "body dropped").await;
            });
            if framed {
                assert!(cancellable(scope).await.is_err());
                inner.add("frame around it");
            } else {
                scope.await;
                unreachable!("the task is cancelled");
            }
        });
        virtual_loop.run_until_idle();
        task.cancel();
        virtual_loop.advance(SECOND);
        assert_eq!(log.take()[..2], ["body dropped", "exit"]);
        assert_eq!(task.is_cancelled(), !framed);
        assert!(task.is_done());
    }
    assert!(reports.take().is_empty());
}

#[test]
fn a_cancel_while_exits_run_ends_one_of_them_and_stays_pending() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let inner = log.clone();
    let mut task = virtual_loop.spawn(async move {
        AsyncExitStack::run(async |stack| {
            stack.push(exit(inner.clone(), "first"));
            let stuck = inner.clone();
            stack.push(async move { never(&stuck, "stuck one dropped").await });
        })
        .await;
        inner.add("after");
        yield_now().await;
        unreachable!("the request is still there");
    });
    virtual_loop.run_until_idle();
    task.cancel();
    virtual_loop.advance(SECOND);
    assert_eq!(log.take(), ["stuck one dropped", "first", "after"]);
    let result: Result<(), _> = task.try_result().unwrap();
    assert!(matches!(result, Err(JoinError::Cancelled)));
}

#[test]
fn exits_run_after_a_panic_too_and_each_panic_is_heard_of() {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let program = AsyncExitStack::run(async |stack| {
        stack.push(exit(log.clone(), "first"));
        stack.callback(|| resume_unwind(Box::new("second exit")));
        stack.callback(|| resume_unwind(Box::new("third exit")));
    });
    let run = || virtual_loop.run_until_complete(program);
    let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"third exit"));
    assert_eq!(log.take(), ["first"]);
    let heard = reports.take();
    assert!(heard.len() == 1 && heard[0].contains("second exit"), "{heard:?}");
    let program = AsyncExitStack::run(async |stack| {
        stack.push(exit(log.clone(), "exit"));
        yield_now().await;
        resume_unwind(Box::new("body"))
    });
    let run = || virtual_loop.run_until_complete(program);
    let payload = catch_unwind(AssertUnwindSafe(run)).map(|_: Result<(), _>| ()).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"body"));
    assert_eq!(log.take(), ["exit"]);
}

#[test]
fn pop_all_hands_the_exits_to_somebody_else() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let kept = virtual_loop.run_until_complete(AsyncExitStack::run(async |stack| {
        for name in ["one", "two"] {
            stack.push(exit(log.clone(), name));
        }
        stack.pop_all()
    }));
    let kept = kept.unwrap();
    assert!(log.take().is_empty() && kept.len() == 2 && !kept.is_empty());
    virtual_loop.run_until_complete(kept.aclose()).unwrap();
    assert_eq!(log.take(), ["two", "one"]);
    virtual_loop.run_until_complete(kept.aclose()).unwrap();
    assert!(kept.is_empty());
}

#[test]
fn a_dropped_scope_runs_no_exits_and_an_interrupted_close_keeps_the_rest() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let stack = AsyncExitStack::new();
    virtual_loop
        .run_until_complete(async {
            let scope = AsyncExitStack::run(async |stack| {
                stack.push(exit(log.clone(), "not run"));
                pending::<()>().await;
            });
            assert!(timeout(SECOND, scope).await.is_err());
            stack.push(exit(log.clone(), "kept"));
            stack.push(pending());
            assert!(timeout(SECOND, stack.aclose()).await.is_err());
        })
        .unwrap();
    assert_eq!(stack.len(), 1);
    virtual_loop.run_until_complete(stack.aclose()).unwrap();
    assert_eq!(log.take(), ["kept"]);
}

#[test]
fn exits_run_when_a_destructor_of_the_cancelled_body_panics() {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let inner = log.clone();
    let mut task = virtual_loop.spawn(AsyncExitStack::run(async move |stack| {
        stack.push(exit(inner.clone(), "exit"));
        let _panics = OnDrop(|| resume_unwind(Box::new("destructor")));
        pending::<()>().await;
    }));
    virtual_loop.run_until_idle();
    task.cancel();
    virtual_loop.advance(SECOND);
    assert_eq!(log.take(), ["exit"]);
    let Some(Err(JoinError::Panicked(payload))) = task.try_result() else {
        panic!("it ends with the panic");
    };
    assert_eq!(payload.downcast_ref(), Some(&"destructor"));
    assert!(reports.take().is_empty());
}

#[test]
fn exits_run_although_one_of_them_panics_twice_and_a_body_before_it_is_a_future() {
    /// An exit written by hand, which panics when it is polled and when it is dropped.
    struct Twice;
    impl Future for Twice {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            resume_unwind(Box::new("poll"))
        }
    }
    impl Drop for Twice {
        fn drop(&mut self) {
            resume_unwind(Box::new("drop"));
        }
    }
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let inner = log.clone();
    let mut task = virtual_loop.spawn(AsyncExitStack::run(move |stack: AsyncExitStack| {
        stack.push(exit(inner.clone(), "exit"));
        stack.push(Twice);
        if stack.len() == 2 {
            resume_unwind(Box::new("body"));
        }
        pending::<()>()
    }));
    virtual_loop.advance(SECOND);
    assert_eq!(log.take(), ["exit"]);
    let Some(Err(JoinError::Panicked(payload))) = task.try_result() else {
        panic!("it ends with a panic");
    };
    assert_eq!(payload.downcast_ref(), Some(&"body"));
    let reports = reports.take();
    let heard = ["drop", "poll"].map(|panic| reports.iter().any(|report| report.contains(panic)));
    assert_eq!((heard, reports.len()), ([true; 2], 2), "{reports:?}");
}

/// Cancels a task in which a scope and something with a frame of its own run side by side.
fn cancel_siblings<T: 'static>(
    task: impl FnOnce(Pin<Box<dyn Future<Output = ()>>>) -> Pin<Box<dyn Future<Output = T>>>,
) -> (Vec<String>, Option<Result<T, JoinError>>, Duration) {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let (exits, cleans) = (log.clone(), log.clone());
    let scope = AsyncExitStack::run(async move |stack| {
        stack.push(exit(exits, "exit"));
        pending::<()>().await;
    });
    let sibling = async move {
        assert!(cancellable(pending::<()>()).await.is_err());
        let again = cancellable(sleep(5 * SECOND)).await.is_err();
        cleans.add(if again { "cancelled twice" } else { "cleaned up" });
    };
    let both = Box::pin(async {
        futures_lite::future::zip(scope, sibling).await;
    });
    let mut task = virtual_loop.spawn(task(both));
    virtual_loop.run_until_idle();
    task.cancel();
    virtual_loop.run_until_idle();
    let start = virtual_loop.time();
    while !task.is_done() {
        assert!(task.is_cancelling() || virtual_loop.time() - start < SECOND);
        virtual_loop.advance(SECOND);
        assert!(virtual_loop.time() - start < 60 * SECOND, "the task hangs: {task:?}");
    }
    assert!(reports.take().is_empty());
    (log.take(), task.try_result(), virtual_loop.time() - start)
}

#[test]
fn a_cancel_goes_on_to_what_is_around_and_not_to_siblings_that_have_had_it() {
    let framed = cancel_siblings(|both| Box::pin(async { cancellable(both).await.is_err() }));
    assert_eq!(framed.0, ["exit", "cleaned up"]);
    assert!(matches!(framed.1, Some(Ok(true))), "{:?}", framed.1);
    assert_eq!(framed.2, 5 * SECOND, "when the other one has cleaned up");

    let bare = cancel_siblings(|both| both);
    assert_eq!(bare.0, ["exit", "cleaned up"]);
    assert!(matches!(bare.1, Some(Err(JoinError::Cancelled))), "{:?}", bare.1);
    assert_eq!(bare.2, 5 * SECOND);

    // A frame that goes before it could end hands the request to the one around it.
    let given_up = cancel_siblings(|both| {
        Box::pin(async {
            let inner = async { timeout(2 * SECOND, cancellable(both)).await.is_err() };
            cancellable(async {
                assert!(inner.await);
                pending::<()>().await;
            })
            .await
            .is_err()
        })
    });
    assert_eq!(given_up.0, ["exit"]);
    assert!(matches!(given_up.1, Some(Ok(true))), "{:?}", given_up.1);
    assert_eq!(given_up.2, 2 * SECOND);
}
