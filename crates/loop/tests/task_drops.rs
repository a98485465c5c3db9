//! Runs small programs over every public future that needs no operating system, and drops one of their tasks after
//! each step. Whatever was dropped, the others end, and nothing is left behind.

#[path = "task_common/mod.rs"]
mod common;

use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use common::{Log, reporting_loop};
use tulipa_loop::{
    AsyncExitStack, ContextVar, Job, LoopBound, LoopHandle, ReturnWhen, StartError, Starting, Task,
    TaskStatus, Timeout, as_completed, cancellable, gather, interval, shield, sleep, sleep_until,
    spawn, staggered_race, task_group, timeout, timeout_at, try_gather, wait, wait_for, waiting_on,
    yield_now,
};

const SECOND: Duration = Duration::from_secs(1);

/// More steps than any program here takes.
const MOST_STEPS: usize = 60;

/// Runs `program` as a task, beside a bystander, and drops it after each number of turns, by a timeout
/// (which drops what is in it) and by a cancel.
fn drop_each<F: Future<Output = ()> + 'static>(program: impl Fn() -> F) {
    for by_cancel in [true, false] {
        let mut finished = false;
        for step in 0..MOST_STEPS {
            let (virtual_loop, reports) = reporting_loop();
            let log = Log::default();
            let seen = log.clone();
            let bystander = virtual_loop.spawn(async move {
                for _ in 0..10 {
                    sleep(SECOND).await;
                }
                seen.add("bystander");
            });
            let (stop, stopped) = virtual_loop.create_future::<()>();
            let future = program();
            let victim = virtual_loop.spawn(async move {
                let stop = async {
                    let _ = stopped.await;
                };
                futures_lite::future::or(stop, future).await;
            });
            // A step is a turn in which something was done.
            for _ in 0..step {
                if virtual_loop.next_deadline().is_some_and(|next| next > virtual_loop.time()) {
                    let wait = virtual_loop.next_deadline().unwrap() - virtual_loop.time();
                    virtual_loop.world().advance(wait);
                }
                virtual_loop.run_once(Duration::ZERO).unwrap();
            }
            finished = victim.is_done();
            if by_cancel {
                victim.cancel();
            } else {
                let _ = stop.set(());
            }
            virtual_loop.advance(100 * SECOND);
            assert_eq!(log.take(), ["bystander"], "step {step}");
            assert!(victim.is_done() && bystander.is_done());
            assert_ne!(victim.status(), TaskStatus::Panicked, "an assertion of the program failed");
            assert!(reports.take().is_empty());
            let left = virtual_loop.all_tasks();
            assert!(left.is_empty(), "after step {step} there is left: {left:?}");
            assert_eq!(virtual_loop.statistics().timers, 0);
        }
        assert!(finished, "the program ends within {MOST_STEPS} steps");
    }
}

fn after(seconds: u32) -> Task<u32> {
    spawn(async move {
        sleep(seconds * SECOND).await;
        seconds
    })
}

#[test]
fn joining() {
    drop_each(|| async {
        assert_eq!(after(1).await.unwrap(), 1);
        assert_eq!(after(1).joined().await.unwrap(), 1);
        assert_eq!(shield(after(1)).await.unwrap(), 1);
        assert_eq!(after(1).scoped().joined().await.unwrap(), 1);
        yield_now().await;
    });
}

#[test]
fn cancelling() {
    drop_each(|| async {
        let task = spawn(async {
            let _ = cancellable(cancellable(pending::<()>())).await;
            sleep(SECOND).await;
        });
        let mut task = task.scoped();
        yield_now().await;
        task.cancel();
        let _ = cancellable(task.joined()).await;
    });
}

#[test]
fn time() {
    drop_each(|| async {
        assert!(timeout(SECOND, pending::<()>()).await.is_err());
        let limit = Timeout::never();
        let _ = limit.run(sleep(SECOND)).await;
        let stubborn = spawn(async {
            let _ = cancellable(pending::<()>()).await;
            sleep(SECOND).await;
        });
        let _ = wait_for(stubborn, SECOND).await;
        let mut ticks = interval(SECOND);
        for _ in 0..3 {
            ticks.tick().await;
        }
    });
}

#[test]
fn groups() {
    drop_each(|| async {
        let result = task_group(async |group| {
            for seconds in 1..4 {
                let child = async move {
                    let _ = cancellable(sleep(seconds * SECOND)).await;
                    yield_now().await;
                    if seconds == 2 { Err("two") } else { Ok(Rc::new(seconds)) }
                };
                drop(group.spawn(child).unwrap());
            }
            sleep(5 * SECOND).await;
            Ok(())
        });
        assert_eq!(result.await.unwrap_err().into_errors(), ["two"]);
    });
}

#[test]
fn several() {
    drop_each(|| async {
        gather([after(2), after(1)]).await;
        let fails = spawn(async { Err::<u32, _>(Box::<dyn std::error::Error>::from("no")) });
        assert!(try_gather([fails]).await.is_err());
        let (done, left) = wait([after(1), after(2)], ReturnWhen::FirstCompleted, None).await;
        let (_, left) = wait(left, ReturnWhen::AllCompleted, Some(SECOND / 2)).await;
        drop(done);
        let mut tasks = as_completed(left);
        while let Some(task) = tasks.next().await {
            task.await.unwrap();
        }
    });
}

#[test]
fn starting() {
    drop_each(|| async {
        let result = task_group(async |group| {
            let child = async |starting: Starting<Rc<u32>>| {
                let _ = cancellable(sleep(SECOND)).await;
                yield_now().await;
                let unwanted = starting.started(Rc::new(1));
                drop(unwanted);
                let _ = cancellable(sleep(SECOND)).await;
                Ok(Rc::new(2))
            };
            let (one, task) = group.start(child).await.unwrap();
            let fails = group.start(async |_: Starting<()>| {
                sleep(SECOND).await;
                Err::<(), _>("early")
            });
            assert!(matches!(fails.await, Err(StartError::Failed("early"))));
            assert_eq!(*one + *task.await.unwrap(), 3);
            let silent = group.start(async |_: Starting<()>| Ok(()));
            assert!(matches!(silent.await, Err(StartError::NotStarted)));
            Ok(())
        });
        result.await.unwrap();
    });
}

#[test]
fn racing() {
    drop_each(|| async {
        let attempts = (0..4).map(|number| async move {
            let cancelled = cancellable(sleep((4 - number) * SECOND)).await.is_err();
            yield_now().await;
            if cancelled || number < 2 { Err(number) } else { Ok(Rc::new(number)) }
        });
        let winner = staggered_race(attempts, Some(SECOND)).await.unwrap();
        // The first fails when the fourth begins, and the third is ready together with the fourth.
        assert!(winner.index >= 2 && winner.errors.len() == 4);
        let failing = (0..2).map(|number| async move { Err::<(), _>(number) });
        assert_eq!(staggered_race(failing, None).await, Err(vec![0, 1]));
    });
}

#[test]
fn exits() {
    drop_each(|| async {
        AsyncExitStack::run(async |stack| {
            stack.push(sleep(SECOND));
            stack.push(async {
                let _ = cancellable(sleep(SECOND)).await;
                yield_now().await;
            });
            sleep(SECOND).await;
            stack.pop_all().aclose().await;
            stack.push(yield_now());
        })
        .await;
    });
}

#[test]
fn wrapping() {
    static NUMBER: ContextVar<u32> = ContextVar::new("number");
    drop_each(|| async {
        let scope = NUMBER.scope(1, async {
            let task = spawn(async {
                yield_now().await;
                NUMBER.get()
            });
            sleep(SECOND).await;
            (task.await.unwrap(), NUMBER.get())
        });
        assert_eq!(LoopBound::new(scope).await, (Some(1), Some(1)));
        assert_eq!(NUMBER.get(), None);
    });
}

#[test]
fn promises_jobs_and_tasks_from_elsewhere() {
    drop_each(|| async {
        let handle = LoopHandle::current();
        let (promise, future) = handle.create_future();
        handle.call_later(SECOND, move |_| {
            let _unwanted = promise.set(Rc::new(1));
        });
        assert_eq!(*waiting_on("a value", future).await.unwrap(), 1);

        let (promise, future) = handle.create_future();
        handle.call_later(SECOND, move |_| {
            let _unwanted = promise.set(2);
        });
        let shared = future.shared();
        let also = spawn(shared.clone());
        assert_eq!((shared.await, also.await.unwrap()), (Ok(2), Ok(2)));

        let (job, result) = Job::new(|| 3);
        handle.call_later(SECOND, |_| job.run());
        assert_eq!(result.await.unwrap(), 3);

        let elsewhere = handle.remote().spawn(|| async {
            sleep_until(LoopHandle::current().time() + SECOND).await;
            4
        });
        assert_eq!(elsewhere.unwrap().await.unwrap(), 4);
        assert!(timeout_at(handle.time() + SECOND, pending::<()>()).await.is_err());
    });
}
