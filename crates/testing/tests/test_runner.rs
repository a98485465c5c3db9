//! What a `TestRunner` promises: what passes, what fails, and with which words.

use std::cell::Cell;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tulipa_loop::{
    Cancelled, ErrorContext, EventLoop, LoopHandle, RunError, cancellable, current_task, interval,
    sleep, spawn, yield_now,
};
use tulipa_testing::{Clock, TestOutcome, TestRunner, VirtualLoop, advance, elapsed, world};

const CLOCKS: [Clock; 3] = [Clock::Virtual, Clock::Autojump, Clock::Real];

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn by(clock: Clock) -> TestRunner {
    TestRunner::new().clock(clock)
}

/// The message with which a test fails.
#[track_caller]
fn failure<F>(runner: TestRunner, test: F) -> String
where
    F: Future + 'static,
    F::Output: TestOutcome,
{
    let run = catch_unwind(AssertUnwindSafe(|| runner.run(test)));
    let payload = run.err().expect("the test fails");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap()
}

#[test]
fn a_test_runs_as_a_task_of_a_loop_of_its_own() {
    for clock in CLOCKS {
        by(clock).run(async {
            let task = current_task().expect("it is a task");
            assert_eq!(&*task.name(), "test");
            assert_eq!(task.id().get(), 1);
            assert_eq!(LoopHandle::current().all_tasks().len(), 1);
        });
    }
}

#[test]
fn a_test_may_give_a_result() {
    for clock in CLOCKS {
        assert_eq!(by(clock).run(async { Ok::<(), u8>(()) }), Ok(()));
        assert_eq!(by(clock).run(async { Err::<(), u8>(7) }), Err(7));
    }
}

#[test]
fn a_panic_of_the_test_comes_out_with_its_message() {
    for clock in CLOCKS {
        let text = failure(by(clock), async {
            yield_now().await;
            assert_eq!(1 + 1, 3, "so it is said");
        });
        assert!(text.contains("so it is said"), "{text}");
    }
}

#[test]
fn autojump_jumps_to_what_is_next_and_stops_at_every_timer() {
    by(Clock::Autojump).run(async {
        let task = spawn(async {
            sleep(secs(3)).await;
            elapsed()
        });
        sleep(secs(3600)).await;
        assert_eq!(elapsed(), secs(3600));
        assert_eq!(task.await.unwrap(), secs(3));
    });
}

#[test]
fn a_virtual_clock_moves_only_when_the_test_advances_it() {
    by(Clock::Virtual).run(async {
        let fired = Rc::new(Cell::new(0));
        for second in 1..=3 {
            let fired = fired.clone();
            LoopHandle::current().call_later(secs(second), move |_| fired.set(second));
        }
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!((fired.get(), elapsed()), (0, Duration::ZERO));
        advance(secs(1)).await;
        assert_eq!((fired.get(), elapsed()), (1, secs(1)));
        advance(millis(1999)).await;
        assert_eq!((fired.get(), elapsed()), (2, millis(2999)));
        advance(millis(1)).await;
        assert_eq!(fired.get(), 3);
    });
}

#[test]
fn advance_is_over_when_all_that_is_due_has_run_and_what_that_has_started() {
    by(Clock::Virtual).run(async {
        let steps = Rc::new(Cell::new(0));
        let counter = steps.clone();
        let task = spawn(async move {
            for _ in 0..3 {
                sleep(secs(1)).await;
                for _ in 0..10 {
                    yield_now().await;
                }
                counter.set(counter.get() + 1);
            }
        });
        advance(secs(2)).await;
        assert_eq!(steps.get(), 2);
        advance(secs(1)).await;
        assert!(task.is_done());
    });
}

#[test]
fn advance_by_nothing_runs_what_can_run() {
    by(Clock::Virtual).run(async {
        let task = spawn(async {
            for _ in 0..10 {
                yield_now().await;
            }
        });
        advance(Duration::ZERO).await;
        assert!(task.is_done());
        assert_eq!(elapsed(), Duration::ZERO);
    });
}

#[test]
fn several_may_advance_and_the_earliest_target_comes_first() {
    by(Clock::Virtual).run(async {
        let later = spawn(async {
            advance(secs(5)).await;
            elapsed()
        });
        let earlier = spawn(async {
            advance(secs(2)).await;
            elapsed()
        });
        assert_eq!(earlier.await.unwrap(), secs(2));
        assert_eq!(later.await.unwrap(), secs(5));
    });
}

#[test]
fn an_advance_that_is_given_up_moves_nothing() {
    by(Clock::Virtual).run(async {
        let task = spawn(async { advance(secs(5)).await });
        task.cancel();
        drop(advance(secs(7)));
        advance(secs(1)).await;
        assert_eq!(elapsed(), secs(1));
    });
}

#[test]
fn autojump_can_be_advanced_too() {
    by(Clock::Autojump).run(async {
        let task = spawn(sleep(secs(2)));
        advance(secs(1)).await;
        assert_eq!((elapsed(), task.is_done()), (secs(1), false));
        advance(secs(1)).await;
        assert!(task.is_done());
    });
}

#[test]
fn a_job_of_the_executor_is_waited_for_in_real_time_and_the_clock_stands() {
    for clock in [Clock::Virtual, Clock::Autojump] {
        by(clock).strict(true).run(async {
            let slow = spawn(sleep(secs(1)));
            let (release, wait) = std::sync::mpsc::channel();
            let job = LoopHandle::current().run_in_executor(None, move || wait.recv().unwrap());
            LoopHandle::current().call_soon(move |_| release.send(42).unwrap());
            assert_eq!(job.await.unwrap(), 42);
            assert_eq!((elapsed(), slow.is_done()), (Duration::ZERO, false));
            slow.cancel();
        });
    }
}

#[test]
fn a_thread_can_hold_the_clock_by_itself() {
    by(Clock::Autojump).run(async {
        let (remote, hold) = (LoopHandle::current().remote(), world().hold());
        let heard_at = Arc::new(Mutex::new(None));
        let heard = heard_at.clone();
        let worker = std::thread::spawn(move || {
            let sent = remote.call_soon(move |_| *heard.lock().unwrap() = Some(elapsed()));
            sent.unwrap();
            drop(hold);
        });
        sleep(secs(1)).await;
        assert_eq!((*heard_at.lock().unwrap(), elapsed()), (Some(Duration::ZERO), secs(1)));
        worker.join().unwrap();
    });
}

#[test]
fn a_deadlock_fails_with_what_is_pending() {
    let text = failure(by(Clock::Autojump), async {
        let stuck = spawn(pending::<()>());
        stuck.set_name("stuck");
        stuck.await.unwrap();
    });
    assert!(
        text.starts_with("the test cannot end: something is awaited that can never happen"),
        "{text}"
    );
    assert!(text.contains("\n  pending: <Task pending name='test'"), "{text}");
    assert!(text.contains("\n  pending: <Task pending name='stuck'"), "{text}");
    assert!(text.contains("nothing can make progress"), "{text}");
    let waits = "\n    | join of 'stuck'";
    assert!(text.contains("\n  await graph of loop") && text.contains(waits), "{text}");
}

#[test]
fn five_polls_of_half_a_second_take_no_time() {
    by(Clock::Autojump).strict(true).run(async {
        let done = Rc::new(Cell::new(false));
        let remote = done.clone();
        let action = spawn(async move {
            sleep(Duration::from_millis(2300)).await;
            remote.set(true);
        });
        let mut polls = 0;
        while !done.get() {
            sleep(Duration::from_millis(500)).await;
            polls += 1;
        }
        action.await.unwrap();
        assert_eq!((polls, elapsed()), (5, Duration::from_millis(2500)));
    });
}

#[test]
fn several_tests_share_one_loop_as_tasks() {
    by(Clock::Autojump).strict(true).run(async {
        let tests: Vec<_> = (1..=3).map(|seconds| spawn(sleep(secs(seconds)))).collect();
        for test in tests {
            test.await.unwrap();
        }
        assert_eq!(elapsed(), secs(3));
    });
}

#[test]
fn a_sleep_that_nobody_advances_fails_and_says_so() {
    let text = failure(by(Clock::Virtual), async { sleep(secs(5)).await });
    assert!(text.contains("a timer is due in 5s"), "{text}");
    assert!(text.contains("awaits `advance`"), "{text}");
    assert!(text.contains("\n  pending: 1 timer, due in 5s"), "{text}");
}

#[test]
fn what_happened_before_the_deadlock_is_said_too() {
    let text = failure(by(Clock::Autojump), async {
        LoopHandle::current().call_soon(|_| panic!("the cause"));
        pending::<()>().await;
    });
    assert!(text.contains("can never happen"), "{text}");
    assert!(text.contains("the cause"), "{text}");
}

#[test]
fn the_timeout_is_one_of_the_tests_own_clock() {
    for clock in CLOCKS {
        let text = failure(by(clock).timeout(millis(10)), async {
            spawn(async {
                let mut ticks = interval(millis(1));
                loop {
                    ticks.tick().await;
                }
            })
            .await
            .unwrap();
        });
        let expected =
            if clock == Clock::Virtual { "can never happen" } else { "not done after 10ms" };
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("\n  pending: <Task pending name='test'"), "{text}");
    }
}

#[test]
fn a_test_that_is_done_in_time_has_no_timeout() {
    by(Clock::Autojump).timeout(secs(5)).run(async { sleep(secs(5)).await });
}

#[test]
fn what_is_reported_fails_the_test_by_any_clock() {
    for clock in CLOCKS {
        let text = failure(by(clock), async {
            drop(spawn(async { panic!("nobody awaits this") }));
            yield_now().await;
        });
        assert!(text.contains("reported to the exception handler"), "{text}");
        assert!(text.contains("nobody awaits this"), "{text}");
        let text = failure(by(clock), async {
            spawn(async { Err::<(), _>("this error") }).detach();
        });
        assert!(text.contains("this error"), "at the end too: {text}");
    }
}

#[test]
fn a_test_that_expects_reports_sets_a_handler_of_its_own() {
    by(Clock::Autojump).run(async {
        let heard = Rc::new(Cell::new(0));
        let count = heard.clone();
        let handler = move |_: &LoopHandle, _: &ErrorContext| count.set(count.get() + 1);
        LoopHandle::current().set_exception_handler(Some(Rc::new(handler)));
        drop(spawn(async { panic!("expected") }));
        advance(Duration::ZERO).await;
        assert_eq!(heard.get(), 1);
    });
}

#[test]
fn the_panic_of_the_test_wins_over_what_else_is_wrong() {
    let text = failure(by(Clock::Autojump), async {
        drop(spawn(async { panic!("the other one") }));
        yield_now().await;
        assert!(elapsed() > Duration::ZERO, "the test's own");
    });
    assert_eq!(text, "the test's own");
}

#[test]
fn what_is_left_is_cancelled_and_its_clean_up_runs() {
    for clock in CLOCKS {
        let cleaned = Rc::new(Cell::new(false));
        let flag = cleaned.clone();
        by(clock).run(async move {
            let left = spawn(async move {
                let cancelled = cancellable(pending::<()>()).await;
                assert_eq!(cancelled, Err(Cancelled));
                sleep(millis(2)).await;
                flag.set(true);
            });
            drop(left);
            yield_now().await;
        });
        assert!(cleaned.get());
    }
}

#[test]
fn a_clean_up_that_never_ends_fails_the_test() {
    let text = failure(by(Clock::Autojump), async {
        drop(spawn(async {
            let _cancelled = cancellable(pending::<()>()).await;
            pending::<()>().await;
        }));
        yield_now().await;
    });
    assert!(
        text.starts_with(
            "tasks that were cancelled at the end go on: something is awaited that can never"
        ),
        "{text}"
    );
    assert_eq!(text.matches("pending: <Task").count(), 1, "{text}");
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    let text = failure(by(Clock::Virtual), async {
        drop(spawn(async {
            loop {
                let _cancelled = cancellable(yield_now()).await;
            }
        }));
    });
    assert!(text.contains("go on: it is still at work after"), "{text}");
}

#[test]
fn a_strict_test_leaves_no_tasks_and_no_timers() {
    for clock in CLOCKS {
        let text = failure(by(clock).strict(true), async {
            spawn(pending::<()>()).set_name("forgotten");
            LoopHandle::current().call_later(secs(60), |_| ());
        });
        assert!(text.starts_with("the test has left something behind"), "{text}");
        assert!(text.contains("\n  left: <Task pending name='forgotten'"), "{text}");
        assert!(text.contains("\n  left: 1 timer, due in "), "{text}");
    }
}

#[test]
fn a_test_that_is_not_strict_may_leave_them() {
    for clock in CLOCKS {
        by(clock).run(async {
            drop(spawn(pending::<()>()));
            LoopHandle::current().call_later(secs(60), |_| ());
        });
    }
}

#[test]
fn a_strict_test_may_leave_what_ends_by_itself_at_once() {
    for clock in CLOCKS {
        by(clock).strict(true).run(async {
            let cancelled = spawn(pending::<()>());
            yield_now().await;
            cancelled.cancel();
            drop(spawn(async {
                for _ in 0..10 {
                    yield_now().await;
                }
            }));
            let timer = LoopHandle::current().call_later(secs(60), |_| ());
            timer.cancel();
        });
    }
}

#[cfg(unix)]
#[test]
fn a_strict_test_leaves_no_reader() {
    use std::os::unix::net::UnixStream;
    let leave = |remove: bool| async move {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ours, handle) = (Rc::new(ours), LoopHandle::current());
        handle.add_reader(ours.clone(), |_| ()).unwrap();
        if remove {
            assert!(handle.remove_reader(&*ours));
        }
        drop(theirs);
    };
    TestRunner::new().strict(true).run(leave(true));
    let text = failure(TestRunner::new().strict(true), leave(false));
    assert!(text.contains("\n  left: a registration of Source(descriptor "), "{text}");
    TestRunner::new().run(leave(false));
}

#[test]
fn a_strict_test_leaves_no_source() {
    struct Quiet;
    impl tulipa_loop::Source for Quiet {
        fn ready(&mut self, _: &LoopHandle, _: &tulipa_selector::Event) {}
    }
    let text = failure(by(Clock::Virtual).strict(true), async {
        LoopHandle::current().insert_source(Box::new(Quiet)).unwrap();
    });
    assert!(text.contains("\n  left: 1 source without a registration"), "{text}");
}

#[test]
fn a_test_that_cancels_itself_has_not_passed() {
    let text = failure(by(Clock::Autojump), async {
        current_task().unwrap().cancel();
        yield_now().await;
    });
    assert!(text.contains("did not end by itself: the task was cancelled"), "{text}");
}

#[test]
fn advance_and_elapsed_are_for_tests_with_the_right_clock() {
    let text = failure(TestRunner::new(), async { advance(secs(1)).await });
    assert!(text.contains("a real clock cannot be advanced"), "{text}");
    TestRunner::new().run(async { assert!(elapsed() < secs(60)) });
    let outside = catch_unwind(elapsed).unwrap_err();
    let text = outside
        .downcast_ref::<String>()
        .map_or_else(|| (*outside.downcast_ref::<&str>().unwrap()).to_owned(), Clone::clone);
    assert_eq!(text, "no test of a `TestRunner` runs on this thread");
}

#[test]
fn debug_mode_may_be_set() {
    for debug in [true, false] {
        by(Clock::Virtual).debug(debug).run(async move {
            assert_eq!(LoopHandle::current().debug(), debug);
        });
    }
}

#[test]
fn a_test_inside_of_a_running_loop_fails_instead_of_hanging() {
    let event_loop = VirtualLoop::new();
    let text =
        event_loop.run_until_complete(async { failure(by(Clock::Autojump), async {}) }).unwrap();
    assert!(text.contains("is running on this thread"), "{text}");
    let again: Result<u8, RunError> = EventLoop::new().unwrap().run_until_complete(async { 1 });
    assert_eq!(again.unwrap(), 1);
}

#[test]
fn a_test_that_is_always_at_work_fails_some_time() {
    let text = failure(by(Clock::Autojump), async {
        loop {
            yield_now().await;
            if elapsed() > Duration::ZERO {
                break;
            }
        }
    });
    assert!(text.starts_with("the test cannot end: it is still at work after "), "{text}");
    assert!(text.contains(" turns at one instant"), "{text}");
}
