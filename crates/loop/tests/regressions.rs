//! Where the known bugs of other loops that concern this layer are tested, by their number in the
//! catalogue that the test names use, and those that are tested nowhere else.
//!
//! | bugs | where |
//! |---|---|
//! | B33, B34, B50 | `running`, `timers` |
//! | B35 | `reentrancy`, `futures` |
//! | B36–B40 | `threads`, `syscalls`, `tasks`; the wake-up itself in tulipa-selector |
//! | B41 | `tasks`: a future is dropped on its loop's thread, whoever gives it up |
//! | B42, B44, B46–B49, B52 | `timers`, `allocations`; B47 as a model in `src/timers.rs` |
//! | B43, B51, B53, B55, B118 | here |
//! | B45, B54, B56–B58 | `threads`, `running`, `closing`, `reports`, `futures` |
//! | B59, B126, B127 | `signals` |
//! | B60 | `fork` |
//! | B61, B62 | `threads`, `thread_pool`, `executor` |
//! | B98, B99 | `cancellation`, `task_time` |
//! | B105, B108 | `groups` |
//! | B106, B107, B110 | `tasks`; B110 also `reentrancy`, which checks the order of random programs |
//! | B128 | does not arise: nothing here waits for children, and no `close` is retried |

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use common::{Journal, millis, secs, strict_loop};
use tulipa_loop::{EventLoop, LoopHandle, RunError};
use tulipa_selector::Timeout;

#[test]
fn b43_a_delay_of_zero_fires_at_the_next_turn_and_not_never() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    virtual_loop.call_later(Duration::ZERO, journal.note("timer"));
    virtual_loop.run_once(Timeout::Never).unwrap();
    assert_eq!(journal.take(), ["timer"]);
    assert_eq!(virtual_loop.elapsed(), Duration::ZERO);
}

#[test]
fn b51_time_is_monotonic_and_knows_no_wall_clock() {
    // The only clock is the selector's `Instant`: a step of the wall clock has nothing to act on.
    let virtual_loop = strict_loop();
    let before = virtual_loop.time();
    virtual_loop.advance(millis(7));
    assert_eq!(virtual_loop.time(), before + millis(7));
    let real = EventLoop::new().unwrap();
    let readings: Vec<_> = (0..1000).map(|_| real.time()).collect();
    assert!(readings.is_sorted());
}

/// Ticks from deadline to deadline, each tick `late` by some work of its own.
fn tick(handle: &LoopHandle, journal: &Journal<Duration>, started: std::time::Instant, nth: u32) {
    journal.add(handle.time() - started);
    if nth < 5 {
        let journal = journal.clone();
        handle.call_at(started + secs(1) * (nth + 1), move |handle| {
            tick(handle, &journal, started, nth + 1);
        });
    }
}

#[test]
fn b53_a_timer_that_counts_from_its_deadline_does_not_drift() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let started = virtual_loop.time();
    tick(&virtual_loop, &journal, started, 0);
    virtual_loop.advance(secs(60));
    assert_eq!(journal.take(), (0..=5).map(secs).collect::<Vec<_>>());
}

/// The states of a loop, and what each method does in them.
#[test]
fn b55_stop_and_close_do_in_every_state_what_the_table_says() {
    // Idle: a stop is kept for the next run, which is one turn.
    let virtual_loop = strict_loop();
    let turns = Rc::new(Cell::new(0));
    for _ in 0..2 {
        let counted = turns.clone();
        virtual_loop.call_soon(move |handle| {
            counted.set(counted.get() + 1);
            let counted = counted.clone();
            handle.call_soon(move |_| counted.set(counted.get() + 100));
        });
    }
    virtual_loop.stop();
    virtual_loop.run_forever().unwrap();
    assert_eq!(turns.get(), 2, "one generation");

    // Running: closing is refused, a stop ends the run after this generation.
    virtual_loop.call_soon(|handle| handle.stop());
    virtual_loop.run_forever().unwrap();
    assert_eq!(turns.get(), 202);
    assert!(!virtual_loop.is_running() && !virtual_loop.is_closed());

    // A loop with nothing to do does not end by itself, and is stopped from outside.
    let remote = virtual_loop.remote();
    let hold = virtual_loop.world().hold();
    let stopper = std::thread::spawn(move || {
        let _hold = hold;
        remote.stop().unwrap();
    });
    virtual_loop.run_forever().unwrap();
    stopper.join().unwrap();

    // Closed: everything that runs is refused, everything else does nothing.
    virtual_loop.close().unwrap();
    virtual_loop.stop();
    assert!(matches!(virtual_loop.run_forever(), Err(RunError::Closed(_))));
    assert!(matches!(virtual_loop.run_once(Timeout::Immediate), Err(RunError::Closed(_))));
    virtual_loop.close().unwrap();
    assert!(virtual_loop.is_closed() && !virtual_loop.is_running());
}

#[cfg(all(unix, feature = "signal", not(miri)))]
mod children {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use tulipa_loop::signal::Signal;

    #[test]
    fn b118_children_that_end_together_are_all_there_for_their_owner() {
        let event_loop = EventLoop::new().unwrap();
        let heard = Rc::new(Cell::new(0));
        let counted = heard.clone();
        event_loop
            .add_signal_handler(Signal::CHILD, move |_| counted.set(counted.get() + 1))
            .unwrap();
        let mut children: Vec<Child> =
            (0..50).map(|_| Command::new("true").stdin(Stdio::null()).spawn().unwrap()).collect();
        while heard.get() == 0 {
            event_loop.run_once(Timeout::Never).unwrap();
        }
        // One signal or fifty: the loop waits for nobody's children, so none is taken from its owner.
        for child in &mut children {
            assert!(child.wait().unwrap().success());
        }
    }
}
