//! `run` and `Runner`: what is left at the end of a program, and Ctrl-C.
#![cfg(not(miri))]

#[path = "task_common/mod.rs"]
mod common;
#[cfg(all(target_os = "linux", feature = "signal"))]
mod os;

use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Log, never};
use tulipa_loop::{
    Cancelled, EventLoop, LoopHandle, RunError, Runner, cancellable, current_task, run, spawn,
    yield_now,
};

fn reporting_runner() -> (Runner, Log) {
    let reports = Log::default();
    let log = reports.clone();
    let builder =
        EventLoop::builder().exception_handler(move |_, context| log.add(context.to_string()));
    (Runner::with_loop(builder.build().expect("a loop")), reports)
}

/// Waits for a cancel, then cleans up over several turns.
async fn cleans_up(log: Log) {
    let cancelled = cancellable(pending::<()>()).await;
    assert_eq!(cancelled, Err(Cancelled));
    for _ in 0..3 {
        yield_now().await;
    }
    log.add("cleaned up");
}

#[test]
fn run_gives_the_value_of_a_main_task() {
    let name = run(async { current_task().map(|task| task.name()) }).unwrap();
    assert_eq!(name.as_deref(), Some("Task-1"));
    assert!(LoopHandle::try_current().is_none());
}

#[test]
fn run_cancels_the_tasks_that_are_left_and_waits_for_their_clean_up() {
    let log = Log::default();
    let (inner, dropped) = (log.clone(), log.clone());
    run(async move {
        drop(spawn(cleans_up(inner)));
        drop(spawn(async move { never(&dropped, "dropped").await }));
        // Both take their first step.
        yield_now().await;
        yield_now().await;
    })
    .unwrap();
    assert_eq!(log.take(), ["dropped", "cleaned up"]);
}

#[test]
fn what_a_clean_up_spawns_is_cancelled_too() {
    let (runner, reports) = reporting_runner();
    let log = Log::default();
    let inner = log.clone();
    runner
        .run(async move {
            drop(spawn(async move {
                let _cancelled = cancellable(pending::<()>()).await;
                drop(spawn(cleans_up(inner)));
                yield_now().await;
                yield_now().await;
            }));
            yield_now().await;
        })
        .unwrap();
    runner.close().unwrap();
    assert_eq!(log.take(), ["cleaned up"]);
    assert!(reports.take().is_empty());
}

#[test]
fn a_clean_up_that_spawns_for_ever_does_not_keep_a_program_from_its_end() {
    fn again(log: Log) {
        drop(spawn(async move {
            let _at_the_end = log.on_drop("dropped");
            let _cancelled = cancellable(pending::<()>()).await;
            again(log.clone());
            yield_now().await;
            yield_now().await;
        }));
    }
    let (runner, reports) = reporting_runner();
    let log = Log::default();
    let inner = log.clone();
    runner
        .run(async move {
            again(inner);
            yield_now().await;
        })
        .unwrap();
    runner.close().unwrap();
    assert_eq!(log.take().len(), 17);
    let reports = reports.take();
    assert!(reports.len() == 1 && reports[0].contains("destroyed"), "{reports:?}");
}

#[test]
fn a_panic_of_a_task_that_is_left_is_reported_once() {
    let (runner, reports) = reporting_runner();
    runner
        .run(async {
            drop(spawn(async {
                let _cancelled = cancellable(pending::<()>()).await;
                panic!("in the clean-up");
            }));
            yield_now().await;
        })
        .unwrap();
    assert!(reports.take().is_empty());
    runner.close().unwrap();
    let reports = reports.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("panic in task 'Task-2': in the clean-up"), "{reports:?}");
}

#[test]
fn a_runner_keeps_one_loop_and_its_tasks_from_run_to_run() {
    let runner = Runner::new().unwrap();
    let first = runner.run(async { LoopHandle::current().id() }).unwrap();
    let second = runner.run(async { LoopHandle::current().id() }).unwrap();
    assert_eq!((first, second), (runner.get_loop().id(), first));

    let task = runner.run(async { spawn(async { 6 * 7 }) }).unwrap();
    assert_eq!(runner.run(task.into_future()).unwrap().unwrap(), 42);
}

#[test]
fn a_runner_closes_once_and_then_runs_nothing() {
    let runner = Runner::new().unwrap();
    runner.close().unwrap();
    runner.close().unwrap();
    assert!(matches!(runner.run(ready(())), Err(RunError::Closed(_))));
}

#[test]
fn a_dropped_runner_waits_for_clean_up() {
    let log = Log::default();
    let (runner, inner) = (Runner::new().unwrap(), log.clone());
    runner
        .run(async move {
            drop(spawn(cleans_up(inner)));
            yield_now().await;
        })
        .unwrap();
    drop(runner);
    assert_eq!(log.take(), ["cleaned up"]);
}

#[test]
fn run_inside_of_a_running_loop_is_an_error_and_runs_nothing() {
    let log = Log::default();
    let inner = log.clone();
    let nested = run(async move { run(async move { inner.add("ran") }) }).unwrap();
    assert!(matches!(nested, Err(RunError::AlreadyRunning { .. })), "{nested:?}");
    assert!(log.take().is_empty());
}

#[test]
fn a_panic_of_the_main_task_comes_out_when_everything_has_ended() {
    let log = Log::default();
    let inner = log.clone();
    let main = async move {
        drop(spawn(cleans_up(inner)));
        yield_now().await;
        panic!("in main");
    };
    let panic = catch_unwind(AssertUnwindSafe(|| run::<_>(main))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"in main"));
    assert_eq!(log.take(), ["cleaned up"]);
}

#[test]
fn a_main_task_that_is_cancelled_or_stopped_is_an_error() {
    let cancelled = run(async {
        current_task().expect("main is a task").cancel();
        pending::<()>().await
    });
    assert!(matches!(cancelled, Err(RunError::Cancelled(_))), "{cancelled:?}");

    let log = Log::default();
    let inner = log.clone();
    let stopped = run(async move {
        LoopHandle::current().stop();
        never(&inner, "dropped").await
    });
    assert!(matches!(stopped, Err(RunError::Stopped(_))), "{stopped:?}");
    assert_eq!(log.take(), ["dropped"]);
}

#[test]
fn run_waits_for_the_default_executor() {
    let done = std::sync::Arc::new(std::sync::Mutex::new(false));
    let (job, (release, gate)) = (done.clone(), std::sync::mpsc::channel());
    run(async move {
        let handle = LoopHandle::current();
        let work = handle.run_in_executor(None, move || {
            gate.recv().expect("the clean-up sends");
            *job.lock().unwrap() = true;
        });
        // Dropping it would cancel it.
        std::mem::forget(work);
        drop(spawn(async move {
            let _cancelled = cancellable(pending::<()>()).await;
            release.send(()).expect("the job waits");
        }));
        yield_now().await;
    })
    .unwrap();
    assert!(*done.lock().unwrap());
}

#[cfg(all(target_os = "linux", feature = "signal"))]
mod ctrl_c {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::os::{alone, is_child, select_test, test_binary};

    /// Ctrl-C, whose handler has run in this thread when this returns: two that are pending in the
    /// kernel would be one.
    fn interrupt() {
        // SAFETY: `raise` has no preconditions.
        assert_eq!(unsafe { libc::raise(libc::SIGINT) }, 0);
    }

    /// The child that runs the same test, after it has said that it is ready.
    fn ready_child(test: &str) -> Child {
        let mut command = Command::new(test_binary());
        let command = select_test(&mut command, test).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the test binary runs");
        let output = BufReader::new(child.stdout.as_mut().expect("it is piped"));
        let ready = output.lines().map_while(Result::ok).any(|line| line.contains("ready"));
        assert!(ready, "{test} ended too early");
        child
    }

    #[expect(clippy::print_stdout, reason = "the parent waits for it")]
    fn say_ready() {
        println!("ready");
    }

    #[test]
    fn the_first_ctrl_c_cancels_main_which_may_clean_up() {
        alone("ctrl_c::the_first_ctrl_c_cancels_main_which_may_clean_up", || {
            let log = Log::default();
            let inner = log.clone();
            let result = run(async move {
                interrupt();
                never(&inner, "dropped").await
            });
            assert!(matches!(result, Err(RunError::Interrupted)), "{result:?}");
            assert_eq!(log.take(), ["dropped"]);

            let result = run(async {
                interrupt();
                let cancelled = cancellable(pending::<()>()).await;
                assert_eq!(cancelled, Err(Cancelled));
                "cleaned up"
            });
            assert_eq!(result.unwrap(), "cleaned up");
        });
    }

    #[test]
    fn each_run_of_a_runner_has_its_own_first_ctrl_c() {
        alone("ctrl_c::each_run_of_a_runner_has_its_own_first_ctrl_c", || {
            let runner = Runner::new().unwrap();
            for _ in 0..3 {
                let result = runner.run(async {
                    interrupt();
                    pending::<()>().await
                });
                assert!(matches!(result, Err(RunError::Interrupted)), "{result:?}");
            }
            assert_eq!(runner.run(ready(42)).unwrap(), 42);
        });
    }

    #[test]
    fn a_second_ctrl_c_ends_the_process_even_if_the_loop_is_stuck() {
        const NAME: &str = "ctrl_c::a_second_ctrl_c_ends_the_process_even_if_the_loop_is_stuck";
        if is_child(NAME) {
            let _never = run(async {
                interrupt();
                say_ready();
                loop {
                    std::thread::park();
                }
            });
            return;
        }
        let mut child = ready_child(NAME);
        kill_process(Pid::from_child(&child), Signal::INT).expect("it lives");
        assert_eq!(child.wait().expect("it is ours").signal(), Some(Signal::INT.as_raw()));
    }

    #[test]
    fn outside_of_a_run_ctrl_c_does_what_it_did_before() {
        const NAME: &str = "ctrl_c::outside_of_a_run_ctrl_c_does_what_it_did_before";
        if is_child(NAME) {
            let runner = Runner::new().unwrap();
            runner.run(ready(())).unwrap();
            say_ready();
            interrupt();
            loop {
                std::thread::park();
            }
        }
        let mut child = ready_child(NAME);
        assert_eq!(child.wait().expect("it is ours").signal(), Some(Signal::INT.as_raw()));
    }

    #[test]
    fn a_program_that_listens_to_ctrl_c_itself_is_left_alone() {
        alone("ctrl_c::a_program_that_listens_to_ctrl_c_itself_is_left_alone", || {
            run(async {
                let ctrl_c = LoopHandle::current().ctrl_c().unwrap();
                interrupt();
                interrupt();
                ctrl_c.await.unwrap();
                yield_now().await;
            })
            .unwrap();
            let runner = Runner::new().unwrap().ctrl_c(false);
            runner
                .get_loop()
                .add_signal_handler(tulipa_loop::signal::Signal::INTERRUPT, |_| ())
                .unwrap();
            runner
                .run(async {
                    interrupt();
                    interrupt();
                    yield_now().await;
                })
                .unwrap();
        });
    }
}
