//! Races of attempts, each begun when the one before it fails or takes too long; in virtual time.

#[path = "task_common/mod.rs"]
mod common;

use std::cell::Cell;
use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use common::{Log, reporting_loop};
use tulipa_loop::{Winner, cancellable, current_task, sleep, staggered_race, timeout, yield_now};
use tulipa_testing::VirtualLoop;

const SECOND: Duration = Duration::from_secs(1);

type Raced = Result<Winner<&'static str, &'static str>, Vec<&'static str>>;
type Attempt = (u32, Result<&'static str, &'static str>);

/// Runs a race of attempts, each of which takes so many seconds; the log tells when each begins and ends.
fn race(
    delay: Option<Duration>,
    attempts: impl IntoIterator<Item = Attempt>,
) -> (Raced, Vec<String>, Duration) {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let start = virtual_loop.time();
    let handle = virtual_loop.handle();
    let attempts = attempts.into_iter().enumerate().map(|(number, (seconds, result))| {
        let (log, handle) = (log.clone(), handle.clone());
        async move {
            log.add(format!("{number} at {}", (handle.time() - start).as_secs_f32()));
            if cancellable(sleep(seconds * SECOND)).await.is_err() {
                sleep(SECOND / 4).await;
                log.add(format!("{number} cleaned up"));
                return Err("cancelled");
            }
            result
        }
    });
    let result = virtual_loop.run_until_complete(staggered_race(attempts, delay)).unwrap();
    assert!(virtual_loop.all_tasks().is_empty());
    assert_eq!(virtual_loop.statistics().timers, 0);
    assert!(reports.take().is_empty());
    (result, log.take(), virtual_loop.elapsed())
}

#[test]
fn the_first_success_wins_and_no_more_attempts_begin() {
    let (result, log, took) = race(Some(2 * SECOND), [(1, Ok("a")), (1, Ok("b"))]);
    assert_eq!(result, Ok(Winner { value: "a", index: 0, errors: vec![None] }));
    assert_eq!(log, ["0 at 0"]);
    assert_eq!(took, SECOND);
}

#[test]
fn the_next_attempt_begins_after_the_delay_and_the_losers_are_cancelled_and_waited_for() {
    let (result, log, took) = race(Some(SECOND), [(10, Ok("a")), (10, Ok("b")), (1, Ok("c"))]);
    let winner = result.unwrap();
    assert_eq!((winner.value, winner.index), ("c", 2));
    assert_eq!(winner.errors, [Some("cancelled"), Some("cancelled"), None]);
    assert_eq!(log, ["0 at 0", "1 at 1", "2 at 2", "0 cleaned up", "1 cleaned up"]);
    assert_eq!(took, 3 * SECOND + SECOND / 4);
}

#[test]
fn the_next_attempt_begins_at_once_when_the_last_one_fails_and_the_delay_counts_anew() {
    let attempts = [(1, Err("x")), (10, Ok("b")), (10, Ok("c")), (0, Ok("d"))];
    let (result, log, _) = race(Some(3 * SECOND), attempts);
    let winner = result.unwrap();
    assert_eq!((winner.value, winner.index, winner.errors[0]), ("d", 3, Some("x")));
    assert_eq!(log[..4], ["0 at 0", "1 at 1", "2 at 4", "3 at 7"]);
}

#[test]
fn the_failure_of_an_attempt_that_is_not_the_last_one_begins_nothing() {
    // The first fails at 3 s, when the second is at work since 2 s: the third begins at 4 s.
    let attempts = [(3, Err("x")), (10, Ok("b")), (0, Ok("c"))];
    let (result, log, _) = race(Some(2 * SECOND), attempts);
    assert_eq!(result.unwrap().index, 2);
    assert_eq!(log[..3], ["0 at 0", "1 at 2", "2 at 4"]);
}

#[test]
fn without_a_delay_an_attempt_begins_only_when_the_one_before_has_failed() {
    let attempts = [(5, Err("x")), (5, Err("y")), (5, Ok("c")), (0, Ok("d"))];
    let (result, log, took) = race(None, attempts);
    let errors = vec![Some("x"), Some("y"), None];
    assert_eq!(result, Ok(Winner { value: "c", index: 2, errors }));
    assert_eq!(log, ["0 at 0", "1 at 5", "2 at 10"]);
    assert_eq!(took, 15 * SECOND);
}

#[test]
fn when_all_fail_their_errors_come_in_the_order_of_the_attempts() {
    let (result, _, _) = race(Some(SECOND), [(5, Err("a")), (3, Err("b")), (1, Err("c"))]);
    assert_eq!(result, Err(vec!["a", "b", "c"]));
    let (result, _, took) = race(Some(SECOND), []);
    assert_eq!((result, took), (Err(vec![]), Duration::ZERO));
}

/// RFC 8305, section 5: connection attempts are staggered by 250 ms; the addresses alternate between
/// the families, and the first connection that is made ends the others.
#[test]
fn happy_eyeballs_with_a_broken_network_loses_one_delay() {
    let virtual_loop = VirtualLoop::new();
    let addresses = ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"];
    let tried = Rc::new(Cell::new(0));
    let attempts = addresses.into_iter().map(|address| {
        tried.set(tried.get() + 1);
        async move {
            match address.contains(':') {
                true => pending().await,
                false => {
                    sleep(Duration::from_millis(30)).await;
                    Ok::<_, ()>(address)
                }
            }
        }
    });
    let race = staggered_race(attempts, Some(Duration::from_millis(250)));
    let winner = virtual_loop.run_until_complete(race).unwrap().unwrap();
    assert_eq!((winner.value, winner.index), ("192.0.2.1", 1));
    assert_eq!(tried.get(), 2, "no more than were begun");
    assert_eq!(virtual_loop.elapsed(), Duration::from_millis(280));
}

#[test]
fn giving_a_race_up_cancels_all_attempts() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let attempts = ["a", "b"].map(|name| {
        let log = log.clone();
        async move {
            let _ = cancellable(pending::<()>()).await;
            log.add(name);
            Err::<(), ()>(())
        }
    });
    let race = staggered_race(attempts, Some(SECOND));
    let result = virtual_loop.run_until_complete(async { timeout(2 * SECOND, race).await });
    assert!(result.unwrap().is_err());
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["a", "b"]);
    assert!(virtual_loop.all_tasks().is_empty());
}

#[test]
fn of_two_successes_in_one_turn_the_first_wins() {
    let (result, log, _) = race(Some(SECOND), [(2, Ok("a")), (1, Ok("b"))]);
    let winner = Winner { value: "a", index: 0, errors: vec![None, None] };
    assert_eq!(result, Ok(winner), "the other value is dropped");
    assert_eq!(log, ["0 at 0", "1 at 1"]);
}

#[test]
fn an_attempt_that_is_cancelled_has_failed_without_an_error() {
    let virtual_loop = VirtualLoop::new();
    let attempts = [true, false].map(|cancels| async move {
        if cancels {
            current_task().unwrap().cancel();
            yield_now().await;
        }
        Ok::<_, ()>(cancels)
    });
    let winner = virtual_loop.run_until_complete(staggered_race(attempts, None)).unwrap();
    assert_eq!(winner, Ok(Winner { value: false, index: 1, errors: vec![None, None] }));
}

#[test]
fn a_panic_of_an_attempt_comes_out_when_the_others_have_ended() {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let cleaned = log.clone();
    let attempts = (0..2).map(move |number| {
        let cleaned = cleaned.clone();
        async move {
            if number == 1 {
                resume_unwind(Box::new("in an attempt"));
            }
            let _ = cancellable(pending::<()>()).await;
            sleep(SECOND).await;
            cleaned.add("cleaned up");
            resume_unwind(Box::new("a second one"));
            #[allow(unreachable_code, reason = "it says what the attempt would give")]
            Ok::<(), ()>(())
        }
    });
    let race = staggered_race(attempts, Some(SECOND));
    let run = || virtual_loop.run_until_complete(race);
    let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"in an attempt"));
    assert_eq!(log.take(), ["cleaned up"]);
    let reports = reports.take();
    assert!(reports.len() == 1 && reports[0].contains("a second one"), "{reports:?}");
}

#[test]
fn an_attempt_that_is_ready_at_once_wins_in_a_turn_or_two() {
    let virtual_loop = VirtualLoop::new();
    let race = staggered_race([ready(Ok::<_, ()>(1))], Some(SECOND));
    assert_eq!(virtual_loop.run_until_complete(race).unwrap().unwrap().value, 1);
    assert_eq!(virtual_loop.elapsed(), Duration::ZERO);
}

#[test]
fn without_any_time_between_them_attempts_begin_turn_by_turn() {
    let begun = Rc::new(Cell::new(0));
    let attempts = std::iter::from_fn({
        let begun = begun.clone();
        move || {
            begun.set(begun.get() + 1);
            assert!(begun.get() < 100, "the attempts that have begun have no turn");
            Some(async {
                yield_now().await;
                Ok::<_, ()>(())
            })
        }
    });
    let race = staggered_race(attempts, Some(Duration::ZERO));
    let winner = VirtualLoop::new().run_until_complete(race).unwrap().unwrap();
    assert_eq!(winner.index, 0);
    assert!(begun.get() <= 4, "{} attempts were begun", begun.get());
}
