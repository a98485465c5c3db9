//! Task groups, and waiting for several tasks.

#[path = "task_common/mod.rs"]
mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use common::{Log, OnDrop, never, reporting_loop};
use futures_lite::StreamExt;
use proptest::prelude::*;
use tulipa_loop::{
    Cancelled, Elapsed, GroupClosed, GroupError, Instrument, JoinError, LoopHandle, ReturnWhen,
    Task, TaskGroup, TaskRef, as_completed, cancellable, gather, sleep, spawn, task_group, timeout,
    try_gather, wait, yield_now,
};
use tulipa_testing::VirtualLoop;

const SECOND: Duration = Duration::from_secs(1);

fn run<F: Future>(program: F) -> (F::Output, Duration) {
    let virtual_loop = VirtualLoop::new();
    let output = virtual_loop.run_until_complete(program).unwrap();
    (output, virtual_loop.elapsed())
}

/// A child that says how it ended: cleaned up after a cancel, or dropped.
async fn polite(log: Log, cleaned: &'static str) -> Result<(), &'static str> {
    if cancellable(pending::<()>()).await.is_err() {
        sleep(SECOND).await;
        log.add(cleaned);
    }
    Ok(())
}

#[test]
fn a_group_waits_for_all_also_for_those_spawned_at_its_end() {
    let log = Log::default();
    let (result, took) = run(task_group(async |group| {
        let (inner, seen) = (group.clone(), log.clone());
        let first = group.spawn(async move {
            sleep(SECOND).await;
            let late = async move {
                sleep(SECOND).await;
                seen.add("late");
                Ok(())
            };
            drop(inner.spawn(late).unwrap());
            Ok::<_, ()>(5)
        });
        drop(first);
        log.add("body");
        Ok(7)
    }));
    assert_eq!(result.unwrap(), 7);
    assert_eq!(log.take(), ["body", "late"]);
    assert_eq!(took, 2 * SECOND);
}

#[test]
fn a_group_task_gives_its_value() {
    let (result, _) = run(task_group(async |group| {
        let one = group.spawn(async { Ok::<_, ()>(1) }).unwrap();
        let cancelled = group.spawn(pending::<Result<(), ()>>()).unwrap();
        assert_eq!(group.pending(), 2);
        cancelled.cancel();
        // A child that is cancelled by itself is no failure.
        assert_eq!(cancelled.await, Err(Cancelled));
        Ok(one.await.unwrap())
    }));
    assert_eq!(result.unwrap(), 1);
}

#[test]
fn a_failing_child_cancels_siblings_and_body_and_all_are_waited_for() {
    let log = Log::default();
    let (result, took) = run(task_group(async |group| {
        drop(group.spawn(polite(log.clone(), "sibling cleaned up")).unwrap());
        let failing = async {
            sleep(SECOND).await;
            Err::<(), _>("failed")
        };
        drop(group.spawn(failing).unwrap());
        never(&log, "body dropped").await;
        Ok(())
    }));
    assert!(matches!(result, Err(GroupError::Failed(errors)) if errors == ["failed"]));
    assert_eq!(log.take(), ["body dropped", "sibling cleaned up"]);
    assert_eq!(took, 2 * SECOND);
}

#[test]
fn errors_come_in_the_order_of_their_ends_and_the_bodys_last() {
    let (result, _) = run(task_group(async |group| {
        for (seconds, name) in [(3, "c"), (1, "a"), (2, "b")] {
            let failing = async move {
                let _ = cancellable(pending::<()>()).await;
                sleep(seconds * SECOND).await;
                Err::<(), _>(name)
            };
            drop(group.spawn(failing).unwrap());
        }
        yield_now().await;
        Err::<(), _>("body")
    }));
    assert_eq!(result.unwrap_err().into_errors(), ["a", "b", "c", "body"]);
}

#[test]
fn a_group_that_is_ending_takes_no_more_tasks() {
    let (group, _) = run(async {
        let kept = Rc::new(RefCell::new(None));
        let keep = kept.clone();
        let result = task_group(async |group| {
            *keep.borrow_mut() = Some(group.clone());
            group.cancel();
            let refused = group.spawn(ready(Ok::<_, ()>(())));
            assert_eq!(refused.err(), Some(GroupClosed));
            Ok(3)
        });
        // The body was not suspended, so it gave its value.
        assert_eq!(result.await.unwrap(), 3);
        kept.take().unwrap()
    });
    assert_eq!(group.spawn(ready(Ok(()))).err(), Some(GroupClosed));
    group.cancel();
    assert!(format!("{group:?}").starts_with("<TaskGroup Ended tasks=0"));
}

#[test]
fn cancelling_a_group_is_an_early_end_and_no_failure() {
    let log = Log::default();
    let (result, took) = run(task_group(async |group| {
        drop(group.spawn(polite(log.clone(), "cleaned up")).unwrap());
        let other = group.clone();
        LoopHandle::current().call_later(SECOND, move |_| {
            other.cancel();
            other.cancel();
        });
        never(&log, "body dropped").await;
        Ok(())
    }));
    assert!(matches!(result, Err(GroupError::Cancelled)));
    assert_eq!(log.take(), ["body dropped", "cleaned up"]);
    assert_eq!(took, 2 * SECOND);
}

#[test]
fn the_children_of_a_dropped_group_are_dropped_in_the_same_turn() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let seen = log.clone();
    let parent = virtual_loop.spawn(async move {
        let grouped = task_group(async |group| {
            for name in ["one", "two"] {
                let seen = seen.clone();
                // Not even a frame may clean up, and groups within the group go too.
                let child = async move {
                    let inner = task_group(async |group| {
                        let seen = seen.clone();
                        let grandchild = async move {
                            never(&seen, name).await;
                            Ok::<_, ()>(())
                        };
                        drop(group.spawn(grandchild).unwrap());
                        pending::<Result<(), ()>>().await
                    });
                    let _ = cancellable(inner).await;
                    unreachable!("it is dropped");
                };
                drop(group.spawn::<()>(child).unwrap());
            }
            pending::<Result<(), ()>>().await
        });
        let result = timeout(SECOND, grouped).await;
        assert!(matches!(result, Err(Elapsed)));
        seen.add("parent goes on");
    });
    virtual_loop.advance(SECOND - Duration::from_nanos(1));
    assert_eq!(virtual_loop.statistics().tasks, 5);
    virtual_loop.world().advance(Duration::from_nanos(1));
    virtual_loop.run_once(Duration::ZERO).unwrap();
    assert_eq!(log.take(), ["parent goes on", "one", "two"]);
    assert!(parent.is_done());
    assert_eq!(virtual_loop.statistics().tasks, 0);
}

#[test]
fn a_group_that_ends_while_a_child_is_being_spawned_does_not_wait_for_it() {
    struct Canceller(RefCell<Option<TaskGroup<()>>>);
    impl Instrument for Canceller {
        fn task_spawned(&self, _task: &TaskRef) {
            if let Some(group) = self.0.take() {
                group.cancel();
            }
        }
    }
    let virtual_loop = VirtualLoop::new();
    let canceller = Rc::new(Canceller(RefCell::default()));
    virtual_loop.set_instrument(Some(canceller.clone()));
    let result = virtual_loop.run_until_complete(task_group(async |group: TaskGroup<()>| {
        *canceller.0.borrow_mut() = Some(group.clone());
        drop(group.spawn(pending::<Result<(), ()>>()).unwrap());
        Ok(())
    }));
    // The body had its value when the group was looked at.
    assert!(matches!(result, Ok(Ok(()) | Err(GroupError::Cancelled))), "{result:?}");
}

#[test]
fn the_children_of_a_dropped_group_are_dropped_although_an_error_panics_when_it_is_dropped() {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let parent = virtual_loop.spawn({
        let log = log.clone();
        async move {
            let group = task_group(async |group| {
                let polite = polite(log.clone(), "cleaned up");
                drop(group.spawn(async move { polite.await.map_err(|_| unreachable!()) }));
                drop(group.spawn(async { Err::<(), _>(OnDrop(|| panic!("an error is gone"))) }));
                pending::<Result<(), _>>().await
            });
            drop(group.await);
        }
    });
    virtual_loop.run_once(Duration::ZERO).unwrap();
    virtual_loop.run_once(Duration::ZERO).unwrap();
    parent.cancel();
    virtual_loop.run_until_idle();
    assert!(virtual_loop.all_tasks().is_empty(), "{:?}", virtual_loop.all_tasks());
    assert!(log.take().is_empty(), "it was dropped and did not clean up");
    drop(parent);
    assert_eq!(reports.take().len(), 1);
}

#[test]
fn cancelling_the_parent_drops_the_group_and_a_frame_in_the_body_cleans_up() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let program = |framed: bool| {
        let log = log.clone();
        virtual_loop.spawn(async move {
            let result = task_group(async |group| {
                let seen = log.clone();
                let child = async move {
                    never(&seen, "child dropped").await;
                    Ok::<_, ()>(())
                };
                drop(group.spawn(child).unwrap());
                if framed {
                    let _ = cancellable(pending::<()>()).await;
                    log.add("body cleans up");
                    group.cancel();
                    Ok(1)
                } else {
                    pending().await
                }
            });
            log.add(format!("{:?}", result.await.ok()));
        })
    };
    let (plain, framed) = (program(false), program(true));
    virtual_loop.run_until_idle();
    plain.cancel();
    virtual_loop.run_until_idle();
    assert!(plain.is_cancelled());
    assert_eq!(log.take(), ["child dropped"]);
    framed.cancel();
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["body cleans up", "child dropped", "Some(1)"]);
}

#[test]
fn b105_an_error_and_a_cancel_of_the_parent_in_one_turn() {
    for error_first in [true, false] {
        let virtual_loop = VirtualLoop::new();
        let (promise, future) = virtual_loop.create_future();
        let log = Log::default();
        let seen = log.clone();
        let parent = virtual_loop.spawn(async move {
            let group = task_group(async |group| {
                let failing = async move {
                    let _ = future.await;
                    Err::<(), _>("failed")
                };
                drop(group.spawn(failing).unwrap());
                pending::<Result<(), _>>().await
            });
            let result = cancellable(group).await.map(|result| result.is_err());
            seen.add(format!("{result:?}"));
            seen.add(format!("{:?}", cancellable(pending::<()>()).await));
        });
        virtual_loop.run_until_idle();
        let cancel = parent.reference();
        if error_first {
            promise.set(()).unwrap();
            virtual_loop.run_once(Duration::ZERO).unwrap();
            cancel.cancel();
            virtual_loop.run_until_idle();
            // The group's failure was there, so it is given, and the request is not lost.
            assert_eq!(log.take(), ["Ok(true)", "Err(Cancelled)"]);
        } else {
            cancel.cancel();
            promise.set(()).unwrap();
            virtual_loop.run_until_idle();
            assert_eq!(log.take(), ["Err(Cancelled)"]);
            assert!(!parent.is_done());
        }
    }
}

#[test]
fn a_panic_of_a_child_comes_out_of_the_group_when_all_have_ended() {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let seen = log.clone();
    let run = AssertUnwindSafe(|| {
        virtual_loop.run_until_complete(task_group(async |group| {
            drop(group.spawn(polite(seen.clone(), "cleaned up")).unwrap());
            let second = async {
                let _ = cancellable(pending::<()>()).await;
                panic!("second")
            };
            drop(group.spawn::<()>(second).unwrap());
            drop(group.spawn::<()>(async { panic!("first") }).unwrap());
            pending::<Result<(), &'static str>>().await
        }))
    });
    let payload = catch_unwind(run).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>().copied(), Some("first"));
    assert_eq!(log.take(), ["cleaned up"]);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("second"), "{}", reports[0]);
}

#[test]
fn a_scoped_task_is_cancelled_with_its_guard() {
    let log = Log::default();
    run(async {
        let seen = log.clone();
        let mut scoped = spawn(async move { never(&seen, "dropped").await }).scoped();
        assert_eq!(timeout(SECOND, scoped.joined()).await.map(drop), Err(Elapsed));
        assert!(log.take().is_empty());
        drop(scoped);
        yield_now().await;
        assert_eq!(log.take(), ["dropped"]);
    });
}

/// A task that gives its number after as many seconds.
fn after(seconds: u32) -> Task<u32> {
    spawn(async move {
        sleep(seconds * SECOND).await;
        seconds
    })
}

#[test]
fn gather_gives_all_results_in_the_order_of_the_arguments() {
    let (_, took) = run(async {
        let failing = spawn(async { panic!("no") });
        let cancelled = after(9);
        cancelled.cancel();
        let results = gather([after(3), after(1), failing, cancelled, after(2)]).await;
        let results: Vec<_> = results.into_iter().map(|r| r.map_err(|e| e.to_string())).collect();
        let (panicked, cancelled) = ("the task panicked: no", "the task was cancelled");
        let expected = [Ok(3), Ok(1), Err(panicked), Err(cancelled), Ok(2)];
        assert_eq!(results, expected.map(|r| r.map_err(str::to_owned)));
        assert!(gather(Vec::<Task<()>>::new()).await.is_empty());
    });
    assert_eq!(took, 3 * SECOND);
}

#[test]
fn a_gather_that_is_given_up_cancels_its_tasks() {
    run(async {
        let tasks = [after(2), after(3)];
        let references = tasks.each_ref().map(Task::reference);
        assert!(timeout(SECOND, gather(tasks)).await.is_err());
        yield_now().await;
        assert!(references.iter().all(|task| task.is_done()));
    });
}

#[derive(Debug, PartialEq)]
enum Failure {
    Own(&'static str),
    Join,
}

impl From<JoinError> for Failure {
    fn from(_: JoinError) -> Failure {
        Failure::Join
    }
}

#[test]
fn try_gather_gives_the_first_failure_at_once_and_the_others_run_on() {
    let log = Log::default();
    let (_, took) = run(async {
        let task = |seconds: u32, result: Result<u32, &'static str>| {
            let log = log.clone();
            spawn(async move {
                sleep(seconds * SECOND).await;
                log.add(format!("{result:?}"));
                result.map_err(Failure::Own)
            })
        };
        assert_eq!(try_gather([task(2, Ok(2)), task(1, Ok(1))]).await, Ok(vec![2, 1]));
        log.take();
        let result = try_gather([task(2, Ok(2)), task(1, Err("one"))]).await;
        assert_eq!(result, Err(Failure::Own("one")));
        assert_eq!(log.take(), ["Err(\"one\")"]);
        sleep(SECOND).await;
        assert_eq!(log.take(), ["Ok(2)"]);
        let cancelled = task(1, Ok(1));
        cancelled.cancel();
        assert_eq!(try_gather([cancelled]).await, Err(Failure::Join));
    });
    assert_eq!(took, 4 * SECOND);
}

#[test]
fn wait_divides_the_tasks_and_neither_fails_nor_cancels() {
    let (_, took) = run(async {
        let numbers = |tasks: &mut Vec<Task<u32>>| -> Vec<u32> {
            tasks.iter_mut().map(|task| task.try_result().unwrap().unwrap()).collect()
        };
        let (mut done, left) = wait([after(3), after(1)], ReturnWhen::FirstCompleted, None).await;
        assert_eq!((numbers(&mut done), left.len()), (vec![1], 1));
        let (done, left) = wait(left, ReturnWhen::AllCompleted, Some(SECOND)).await;
        assert_eq!((done.len(), left.len()), (0, 1));
        let (mut done, left) = wait(left, ReturnWhen::AllCompleted, None).await;
        assert_eq!((numbers(&mut done), left.len()), (vec![3], 0));

        let panics = spawn(async {
            sleep(2 * SECOND).await;
            panic!("no")
        });
        let cancelled = after(9);
        cancelled.cancel();
        let tasks = [cancelled, after(1), panics, after(9)];
        let (mut done, left) = wait(tasks, ReturnWhen::FirstPanic, None).await;
        assert_eq!((done.len(), left.len()), (3, 1));
        assert!(matches!(done[2].try_result(), Some(Err(JoinError::Panicked(_)))));
        let (done, _) = wait(Vec::<Task<()>>::new(), ReturnWhen::FirstCompleted, None).await;
        assert!(done.is_empty());
    });
    assert_eq!(took, 5 * SECOND);
}

#[test]
fn as_completed_gives_the_tasks_as_they_end() {
    let (_, took) = run(async {
        let mut tasks = as_completed([after(3), after(1), after(2)]);
        assert_eq!(tasks.next().await.unwrap().await.unwrap(), 1);
        assert!(timeout(SECOND / 2, tasks.next()).await.is_err());
        let rest: Vec<_> = StreamExt::then(tasks, async |task| task.await.unwrap()).collect().await;
        assert_eq!(rest, [2, 3]);
    });
    assert_eq!(took, 3 * SECOND);
}

#[test]
fn b108_waiting_for_many_tasks_costs_one_wake_for_each() {
    let count = if cfg!(miri) { 20 } else { 10_000 };
    let polls = Rc::new(Cell::new(0));
    let seen = polls.clone();
    run(async move {
        let tasks: Vec<_> = (0..count).map(|_| spawn(sleep(SECOND))).collect();
        let mut gathering = Box::pin(gather(tasks));
        std::future::poll_fn(|context| {
            seen.set(seen.get() + 1);
            gathering.as_mut().poll(context)
        })
        .await;
    });
    assert!(polls.get() <= count, "{} polls for {count} tasks", polls.get());
}

/// How a child of a random group ends, if nobody cancels it: after some turns, with an error or not.
#[derive(Clone, Debug)]
struct Child {
    turns: u8,
    fails: bool,
    cleans: u8,
}

/// Ends a group for each piece that is written to it.
struct Meddling<'a>(&'a tulipa_loop::TaskGroup<()>);

impl std::fmt::Write for Meddling<'_> {
    fn write_str(&mut self, _text: &str) -> std::fmt::Result {
        self.0.cancel();
        Ok(())
    }
}

#[test]
fn b35_a_group_that_is_being_described_may_be_cancelled_by_the_writer() {
    use std::fmt::Write;
    let virtual_loop = VirtualLoop::new();
    let ended = virtual_loop.run_until_complete(task_group(async |group| {
        write!(Meddling(&group), "{group:?}").unwrap();
        Ok::<(), ()>(())
    }));
    ended.unwrap().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("TULIPA_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
    ))]

    /// Whatever happens to a group, when: nothing outlives it, no error is lost, each child ends once.
    #[test]
    fn nothing_outlives_a_group(
        children in prop::collection::vec((0..6u8, any::<bool>(), 0..3u8), 0..6),
        body_turns in 0..8u8,
        body_fails in any::<bool>(),
        end in 0..3u8,
        end_turn in 0..12u8,
    ) {
        let children = children.into_iter().map(|(turns, fails, cleans)| Child { turns, fails, cleans });
        let children: Vec<_> = children.collect();
        let virtual_loop = VirtualLoop::new();
        let (errors, alive) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0_i32)));
        let outcome = Rc::new(RefCell::new(None));
        let kept = Rc::new(RefCell::new(None));
        let (e, a, o, k) = (errors.clone(), alive.clone(), outcome.clone(), kept.clone());
        let program = children.clone();
        let parent = virtual_loop.spawn(async move {
            let result = task_group(async |group| {
                *k.borrow_mut() = Some(group.clone());
                for child in program {
                    let (errors, alive) = (e.clone(), a.clone());
                    a.set(a.get() + 1);
                    let gone = common::OnDrop(move || alive.set(alive.get() - 1));
                    let child = async move {
                        let _gone = gone;
                        let turns = async {
                            for _ in 0..child.turns {
                                yield_now().await;
                            }
                        };
                        if cancellable(turns).await.is_err() {
                            for _ in 0..child.cleans {
                                yield_now().await;
                            }
                        }
                        if child.fails {
                            errors.set(errors.get() + 1);
                            return Err(());
                        }
                        Ok(())
                    };
                    drop(group.spawn(child).unwrap());
                }
                for _ in 0..body_turns {
                    yield_now().await;
                }
                if body_fails {
                    e.set(e.get() + 1);
                    return Err(());
                }
                Ok(())
            });
            let result = result.await;
            assert_eq!(a.get(), 0, "all children have ended when the group has");
            *o.borrow_mut() = Some(result.map_err(|error| error.into_errors().len()));
        });
        for turn in 0..40 {
            if turn == end_turn {
                match end {
                    0 => drop(parent.cancel().then_some(())),
                    1 => if let Some(group) = &*kept.borrow() { group.cancel() },
                    _ => {}
                }
            }
            virtual_loop.run_once(Duration::ZERO).unwrap();
            if parent.is_done() {
                prop_assert_eq!(alive.get(), 0);
            }
        }
        prop_assert!(parent.is_done());
        prop_assert_eq!(virtual_loop.statistics().tasks, 0);
        match outcome.take() {
            Some(Ok(())) => prop_assert_eq!(errors.get(), 0),
            Some(Err(count)) => prop_assert_eq!(count, errors.get()),
            None => prop_assert!(parent.is_cancelled()),
        }
    }
}
