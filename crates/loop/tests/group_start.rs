//! Children of a group that are waited for until they have started.

#[path = "task_common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use common::{Log, never, reporting_loop};
use tulipa_loop::{
    GroupError, StartError, Starting, TaskGroup, cancellable, sleep, spawn, task_group, timeout,
    yield_now,
};
use tulipa_testing::VirtualLoop;

const SECOND: Duration = Duration::from_secs(1);

fn run<F: Future>(program: F) -> (F::Output, Duration) {
    let virtual_loop = VirtualLoop::new();
    let output = virtual_loop.run_until_complete(program).unwrap();
    (output, virtual_loop.elapsed())
}

/// A child that has started after a second, and ends after another one.
async fn server(starting: Starting<&'static str>) -> Result<u32, &'static str> {
    sleep(SECOND).await;
    starting.started("ready").unwrap();
    sleep(SECOND).await;
    Ok(5)
}

#[test]
fn start_gives_what_the_child_says_and_the_child_goes_on_as_one_of_the_group() {
    let log = Log::default();
    let (result, took) = run(task_group(async |group| {
        let (said, task) = group.start(server).await.unwrap();
        log.add(format!("{said} {}", group.pending()));
        Ok::<_, &str>(task.await.unwrap())
    }));
    assert_eq!(result.unwrap(), 5);
    assert_eq!(log.take(), ["ready 1"]);
    assert_eq!(took, 2 * SECOND);
}

#[test]
fn an_error_before_the_start_goes_to_the_starter_and_one_after_it_to_the_group() {
    let log = Log::default();
    let (result, _) = run(task_group(async |group: TaskGroup<&str>| {
        let early = group.start(async |_: Starting<()>| Err::<(), _>("early")).await;
        assert!(matches!(early, Err(StartError::Failed("early"))));
        let late = async |starting: Starting<u32>| {
            starting.started(1).unwrap();
            yield_now().await;
            Err::<(), _>("late")
        };
        let (value, _task) = group.start(late).await.unwrap();
        log.add(format!("started {value}"));
        never(&log, "body dropped").await;
        Ok(())
    }));
    assert_eq!(result.unwrap_err().into_errors(), ["late"]);
    assert_eq!(log.take(), ["started 1", "body dropped"]);
}

#[test]
fn a_child_that_ends_without_a_word_has_not_started() {
    let (result, took) = run(task_group(async |group: TaskGroup<()>| {
        let silent = group.start(async |_: Starting<()>| Ok(1)).await;
        assert!(matches!(silent, Err(StartError::NotStarted)));
        // It cannot say so any more, but it may fail yet.
        let forgetful = async |starting: Starting<()>| {
            drop(starting);
            sleep(SECOND).await;
            Ok(1)
        };
        assert!(matches!(group.start(forgetful).await, Err(StartError::NotStarted)));
        let cancels_itself = async |starting: Starting<()>| {
            tulipa_loop::current_task().unwrap().cancel();
            pending::<()>().await;
            drop(starting);
            Ok(1)
        };
        assert!(matches!(group.start(cancels_itself).await, Err(StartError::Cancelled)));
        Ok(())
    }));
    result.unwrap();
    assert_eq!(took, SECOND);
}

#[test]
fn a_panic_before_the_start_comes_out_of_start() {
    let (result, _) = run(task_group(async |group: TaskGroup<()>| {
        let panics = async |starting: Starting<()>| {
            let _starting = starting;
            yield_now().await;
            resume_unwind(Box::new("before"));
            #[allow(unreachable_code, reason = "it says what the child would give")]
            Ok(())
        };
        let mut start = Box::pin(group.start(panics));
        let caught = std::future::poll_fn(|context| {
            match catch_unwind(AssertUnwindSafe(|| start.as_mut().poll(context))) {
                Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
                Ok(std::task::Poll::Ready(_)) => std::task::Poll::Ready(None),
                Err(payload) => std::task::Poll::Ready(payload.downcast::<&str>().ok()),
            }
        });
        Ok(caught.await.map(|payload| *payload))
    }));
    assert_eq!(result.unwrap(), Some("before"), "the group goes on");
}

#[test]
fn giving_up_cancels_a_child_that_has_not_started_and_may_clean_up() {
    let log = Log::default();
    let cleaned = log.clone();
    let (result, took) = run(task_group(async |group: TaskGroup<&str>| {
        let slow = async move |starting: Starting<()>| {
            assert!(cancellable(pending::<()>()).await.is_err());
            assert!(starting.started(()).is_err(), "nobody waits any more");
            sleep(SECOND).await;
            cleaned.add("cleaned up");
            Ok(())
        };
        assert!(timeout(SECOND, group.start(slow)).await.is_err());
        log.add("gave up");
        Ok(())
    }));
    result.unwrap();
    assert_eq!(log.take(), ["gave up", "cleaned up"]);
    assert_eq!(took, 2 * SECOND);
}

#[test]
fn the_failure_of_a_child_that_was_given_up_is_the_groups() {
    for panics in [false, true] {
        let program = task_group(async |group: TaskGroup<&str>| {
            let fails = async move |_starting: Starting<()>| {
                let _ = cancellable(pending::<()>()).await;
                if panics {
                    resume_unwind(Box::new("panic while cleaning up"));
                }
                Err::<(), _>("while cleaning up")
            };
            assert!(timeout(SECOND, group.start(fails)).await.is_err());
            pending::<Result<(), _>>().await
        });
        let result = catch_unwind(AssertUnwindSafe(|| run(program)));
        match result {
            Ok((result, _)) => {
                assert!(!panics);
                assert_eq!(result.unwrap_err().into_errors(), ["while cleaning up"]);
            }
            Err(payload) => {
                assert_eq!(payload.downcast_ref(), Some(&"panic while cleaning up"));
            }
        }
    }
}

#[test]
fn a_failure_that_the_starter_had_no_time_to_take_is_the_groups() {
    let (result, _) = run(task_group(async |group: TaskGroup<&str>| {
        let start = group.start(async |_starting: Starting<()>| Err::<(), _>("early"));
        yield_now().await;
        assert_eq!(group.pending(), 0);
        drop(start);
        pending::<Result<(), _>>().await
    }));
    assert_eq!(result.unwrap_err().into_errors(), ["early"]);
}

#[test]
fn giving_up_after_the_start_leaves_the_child_alone() {
    let log = Log::default();
    let ended = log.clone();
    let (result, _) = run(task_group(async |group: TaskGroup<()>| {
        let child = async move |starting: Starting<()>| {
            starting.started(()).unwrap();
            yield_now().await;
            ended.add("ended");
            Ok(())
        };
        let start = group.start(child);
        yield_now().await;
        drop(start);
        Ok(())
    }));
    result.unwrap();
    assert_eq!(log.take(), ["ended"]);
}

#[test]
fn a_sibling_that_fails_cancels_a_child_that_is_starting() {
    let log = Log::default();
    let (result, _) = run(task_group(async |group: TaskGroup<&str>| {
        let (inner, seen) = (group.clone(), log.clone());
        let starter = async move {
            let starts = inner.start(async |_: Starting<()>| pending::<Result<(), _>>().await);
            let started = cancellable(starts).await;
            seen.add(format!("{}", started.is_err()));
            Ok(())
        };
        drop(group.spawn(starter).unwrap());
        yield_now().await;
        drop(group.spawn(ready(Err::<(), _>("sibling"))).unwrap());
        pending::<Result<(), _>>().await
    }));
    assert_eq!(result.unwrap_err().into_errors(), ["sibling"]);
    assert_eq!(log.take(), ["true"]);
}

#[test]
fn a_group_that_is_ending_starts_nothing() {
    let (result, _) = run(task_group(async |group: TaskGroup<()>| {
        group.cancel();
        let refused = group.start(async |_: Starting<()>| unreachable!("it is not called"));
        let refused: Result<((), tulipa_loop::GroupTask<()>), _> = refused.await;
        assert!(matches!(refused, Err(StartError::Closed(_))));
        Ok(())
    }));
    assert!(matches!(result, Ok(()) | Err(GroupError::Cancelled)));
}

#[test]
fn the_children_that_start_are_dropped_with_a_dropped_group() {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let inner = log.clone();
    let task = virtual_loop.spawn(async move {
        task_group(async |group: TaskGroup<()>| {
            let log = inner.clone();
            let child = async move |starting: Starting<()>| {
                let _starting = starting;
                never(&log, "child dropped").await;
                Ok(())
            };
            let nested = spawn(async {});
            nested.await.unwrap();
            group.start(child).await.map(drop).map_err(drop)
        })
        .await
        .unwrap();
    });
    virtual_loop.run_until_idle();
    task.cancel();
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["child dropped"]);
    assert!(virtual_loop.all_tasks().is_empty());
    assert!(reports.take().is_empty());
}

#[test]
fn a_starter_hears_of_the_end_of_a_child_that_gave_its_word_to_somebody_else() {
    let kept = Rc::new(RefCell::new(Vec::new()));
    let (result, took) = run(task_group(async |group: TaskGroup<&str>| {
        let give = |result: Result<(), &'static str>| {
            let kept = kept.clone();
            async move |starting: Starting<()>| {
                kept.borrow_mut().push(starting);
                sleep(SECOND).await;
                result
            }
        };
        let failed = group.start(give(Err("failed"))).await;
        assert!(matches!(failed, Err(StartError::Failed("failed"))));
        let ended = group.start(give(Ok(()))).await;
        assert!(matches!(ended, Err(StartError::NotStarted)));
        let too_late = kept.borrow_mut().pop().unwrap().started(());
        assert_eq!(too_late, Err(()));

        // And one whose helper says it in time.
        let helper = {
            let kept = kept.clone();
            spawn(async move {
                yield_now().await;
                yield_now().await;
                let starting = kept.borrow_mut().pop().unwrap();
                starting.started(()).unwrap();
            })
        };
        let (_, task) = group.start(give(Ok(()))).await.unwrap();
        helper.await.unwrap();
        task.await.unwrap();
        Ok(())
    }));
    result.unwrap();
    assert_eq!(took, 3 * SECOND);
}
