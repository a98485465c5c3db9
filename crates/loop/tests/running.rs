//! The `run` methods: stopping, completing, nesting, turns, and that nothing starves.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{Drops, Journal, OnDrop, millis, secs, strict_loop, wire};
use tulipa_loop::{EventLoop, LoopHandle, RunError};
use tulipa_selector::{Readiness, Timeout};

/// More turns than events ever have to wait.
const SKIP_BOUND: u64 = 8;

#[test]
fn stop_before_the_run_means_one_turn() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let inner = journal.clone();
    let wire = wire(&virtual_loop, move |_, _| inner.add("event"));
    virtual_loop.world().set_ready(wire.id, Readiness::READABLE);
    let inner = journal.clone();
    virtual_loop.call_soon(move |handle| {
        inner.add("ready");
        handle.call_soon(inner.note("in the next run"));
    });
    virtual_loop.stop();
    virtual_loop.run_forever().unwrap();
    assert_eq!(journal.take(), ["event", "ready"]);
    assert_eq!((virtual_loop.statistics().turns, virtual_loop.statistics().selects), (1, 1));
    drop(wire);
    virtual_loop.stop();
    virtual_loop.run_forever().unwrap();
    assert_eq!(journal.take(), ["in the next run"]);
}

#[test]
fn stop_before_the_run_does_not_wait_even_without_work() {
    let virtual_loop = strict_loop();
    virtual_loop.world().set_autojump(true);
    virtual_loop.call_later(secs(1), |_| panic!("not yet due"));
    virtual_loop.stop();
    virtual_loop.run_forever().unwrap();
    assert_eq!(virtual_loop.elapsed(), Duration::ZERO);
}

#[test]
fn stop_during_a_run_finishes_the_batch_and_no_more() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let inner = journal.clone();
    virtual_loop.call_soon(move |handle| {
        handle.stop();
        handle.stop();
        inner.add(1);
        handle.call_soon(inner.note(3));
    });
    virtual_loop.call_soon(journal.note(2));
    virtual_loop.run_forever().unwrap();
    assert_eq!(journal.take(), [1, 2]);
    virtual_loop.call_soon(|handle| handle.stop());
    virtual_loop.run_forever().unwrap();
    assert_eq!(journal.take(), [3]);
}

#[test]
fn stop_in_a_timer_or_an_event_still_runs_what_is_ready() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    virtual_loop.call_soon(journal.note("after the timer"));
    virtual_loop.call_later(Duration::ZERO, |handle| handle.stop());
    virtual_loop.run_forever().unwrap();
    let wire = wire(&virtual_loop, |handle, _| handle.stop());
    virtual_loop.world().set_ready(wire.id, Readiness::READABLE);
    virtual_loop.call_soon(journal.note("after the event"));
    virtual_loop.run_forever().unwrap();
    assert_eq!(journal.take(), ["after the timer", "after the event"]);
}

#[test]
fn stop_does_not_outlive_the_run() {
    let virtual_loop = strict_loop();
    virtual_loop.call_soon(|handle| handle.stop());
    virtual_loop.run_forever().unwrap();
    let result = virtual_loop.run_until_complete(async {
        let (promise, future) = LoopHandle::current().create_future();
        LoopHandle::current().call_later(secs(1), move |_| promise.set(5).unwrap());
        future.await
    });
    assert_eq!(result.unwrap(), Ok(5));
}

#[test]
fn a_remote_stop_ends_the_run() {
    let virtual_loop = strict_loop();
    let _hold = virtual_loop.world().hold();
    let remote = virtual_loop.remote();
    let thread = thread::spawn(move || remote.stop());
    virtual_loop.run_forever().unwrap();
    thread.join().unwrap().unwrap();
}

#[test]
fn run_until_complete_gives_the_result_and_borrows_from_its_caller() {
    let virtual_loop = strict_loop();
    let mut text = String::from("hello");
    let length = virtual_loop.run_until_complete(async {
        text.push_str(", world");
        text.len()
    });
    assert_eq!((length.unwrap(), text.as_str()), (12, "hello, world"));
}

#[test]
fn the_future_takes_its_turn_with_the_callbacks() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    virtual_loop.call_soon(journal.note("before"));
    virtual_loop
        .run_until_complete(async {
            journal.add("first poll");
            let handle = LoopHandle::current();
            handle.call_soon(journal.note("scheduled by the future"));
            let mut polled = false;
            poll_fn(|context| {
                if std::mem::replace(&mut polled, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            journal.add("second poll");
        })
        .unwrap();
    let expected = ["before", "first poll", "scheduled by the future", "second poll"];
    assert_eq!(journal.take(), expected);
}

#[test]
fn several_wakes_before_a_poll_are_one() {
    let virtual_loop = strict_loop();
    let polls = Cell::new(0);
    let future = poll_fn(|context| {
        polls.set(polls.get() + 1);
        let waker = context.waker().clone();
        LoopHandle::current().call_soon(move |handle| {
            (0..5).for_each(|_| waker.wake_by_ref());
            handle.call_soon(|handle| {
                handle.call_soon(|handle| handle.stop());
            });
        });
        if polls.get() == 2 { Poll::Ready(()) } else { Poll::Pending }
    });
    virtual_loop.run_until_complete(future).unwrap();
    assert_eq!(polls.get(), 2);
}

#[test]
fn stop_before_the_future_is_done_is_an_error_and_drops_the_future() {
    let virtual_loop = strict_loop();
    let drops = Drops::default();
    let token = drops.token();
    virtual_loop.call_later(secs(1), |handle| handle.stop());
    let stopped = virtual_loop.run_until_complete(async move {
        let _token = token;
        pending::<()>().await;
    });
    let error = stopped.unwrap_err();
    assert!(matches!(error, RunError::Stopped(_)));
    assert!(error.to_string().ends_with("was stopped before the future was done"), "{error}");
    assert_eq!(drops.count(), 1);
    assert_eq!(virtual_loop.run_until_complete(async { 1 }).unwrap(), 1);
}

#[test]
fn a_future_that_is_done_in_the_turn_of_the_stop_is_done() {
    let virtual_loop = strict_loop();
    virtual_loop.stop();
    assert_eq!(virtual_loop.run_until_complete(async { 3 }).unwrap(), 3);
}

#[test]
fn a_panic_of_the_future_comes_out_after_its_turn_and_the_loop_goes_on() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let log = journal.clone();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        virtual_loop.run_until_complete(async {
            LoopHandle::current().call_soon(log.note("the next turn"));
            let guard = OnDrop::new(|| log.add("dropped in the panic"));
            virtual_loop.call_later(Duration::ZERO, log.note("the next timer"));
            drop(guard);
            panic!("of the future");
        })
    }));
    let payload = panicked.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"of the future"));
    assert!(!virtual_loop.is_running());
    assert!(LoopHandle::try_current().is_none());
    assert_eq!(journal.take(), ["dropped in the panic"]);
    assert_eq!(virtual_loop.run_until_complete(async { 1 }).unwrap(), 1);
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["the next timer", "the next turn"]);
}

#[test]
fn callbacks_behind_a_future_that_panics_still_run_in_its_turn() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let scheduled = Cell::new(false);
    let future = poll_fn(|context| {
        if scheduled.replace(true) {
            panic!("of the future");
        }
        context.waker().wake_by_ref();
        LoopHandle::current().call_soon(journal.note("behind it"));
        Poll::<()>::Pending
    });
    let panicked = catch_unwind(AssertUnwindSafe(|| virtual_loop.run_until_complete(future)));
    assert!(panicked.is_err());
    assert_eq!(journal.take(), ["behind it"]);
}

#[test]
fn a_wake_from_another_thread_ends_the_wait() {
    let virtual_loop = strict_loop();
    let hold = virtual_loop.world().hold();
    let shared: Arc<Mutex<(bool, Option<Waker>)>> = Arc::default();
    let theirs = shared.clone();
    let mut thread = None;
    let future = poll_fn(|context| {
        let mut state = shared.lock().unwrap();
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(context.waker().clone());
        let theirs = theirs.clone();
        thread.get_or_insert_with(|| {
            thread::spawn(move || {
                let mut state = theirs.lock().unwrap();
                state.0 = true;
                state.1.take().unwrap().wake();
            })
        });
        Poll::Pending
    });
    virtual_loop.run_until_complete(future).unwrap();
    drop(hold);
    thread.unwrap().join().unwrap();
}

/// The wake finds the future scheduled already, so all it has to do is to make the coming poll see
/// what was written before it. Needs Miri and many seeds to be worth much.
#[test]
fn b36_a_wake_that_is_not_needed_still_shows_the_poll_what_was_written_before_it() {
    let virtual_loop = strict_loop();
    let _hold = virtual_loop.world().hold();
    let flag = Arc::new(AtomicBool::new(false));
    let mut thread = None;
    let future = poll_fn(|context| {
        if flag.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if thread.is_none() {
            let (flag, waker) = (flag.clone(), context.waker().clone());
            context.waker().wake_by_ref();
            thread = Some(thread::spawn(move || {
                flag.store(true, Ordering::Release);
                waker.wake();
            }));
        }
        Poll::Pending
    });
    virtual_loop.run_until_complete(future).unwrap();
    thread.unwrap().join().unwrap();
}

#[test]
fn a_late_waker_of_an_earlier_run_wakes_nobody() {
    let virtual_loop = strict_loop();
    let late = RefCell::new(None);
    virtual_loop.stop();
    let first = virtual_loop.run_until_complete(poll_fn(|context| {
        late.replace(Some(context.waker().clone()));
        Poll::<()>::Pending
    }));
    assert!(matches!(first, Err(RunError::Stopped(_))));
    let late = late.take().unwrap();
    late.wake_by_ref();
    thread::spawn({
        let late = late.clone();
        move || late.wake()
    })
    .join()
    .unwrap();
    let polls = Cell::new(0);
    let second = virtual_loop.run_until_complete(poll_fn(|_| {
        polls.set(polls.get() + 1);
        late.wake_by_ref();
        LoopHandle::current().call_later(secs(1), |handle| handle.stop());
        Poll::<()>::Pending
    }));
    assert!(matches!(second, Err(RunError::Stopped(_))));
    assert_eq!(polls.get(), 1);
    drop(virtual_loop);
    late.wake();
}

#[test]
fn b54_a_nested_run_is_an_error_and_the_outer_one_goes_on() {
    let inner = strict_loop();
    let outer = Rc::new(strict_loop());
    let journal = Journal::new();
    let (log, this) = (journal.clone(), outer.clone());
    outer.call_soon(move |handle| {
        let me = format!("{:?}", &***this);
        let outer_id: u64 = me["<EventLoop ".len()..].split(' ').next().unwrap().parse().unwrap();
        for (event_loop, other) in [(&*this, false), (&inner, true)] {
            let errors = [
                event_loop.run_forever().unwrap_err(),
                event_loop.run_once(Timeout::Immediate).unwrap_err(),
                event_loop.run_until_complete(async {}).unwrap_err(),
            ];
            for error in errors {
                let RunError::AlreadyRunning { wanted, running } = error else { panic!("{error}") };
                assert_eq!(running, outer_id);
                assert_eq!(wanted != running, other);
                let text = error.to_string();
                assert!(text.contains(&format!("event loop {wanted} cannot run")), "{text}");
                assert!(text.contains(&format!("event loop {running} is running")), "{text}");
            }
        }
        assert!(handle.is_running() && !inner.is_running());
        assert!(LoopHandle::try_current().is_some());
        handle.call_soon(log.note("the next turn"));
        handle.call_later(secs(1), log.note("a second later"));
    });
    outer.advance(secs(1));
    assert_eq!(journal.take(), ["the next turn", "a second later"]);
    assert!(LoopHandle::try_current().is_none());
}

#[test]
fn another_loop_runs_on_the_same_thread_when_the_first_does_not() {
    let (first, second) = (strict_loop(), strict_loop());
    let name = |handle: LoopHandle| format!("{handle:?}");
    let of_first = first.run_until_complete(async { name(LoopHandle::current()) }).unwrap();
    let of_second = second.run_until_complete(async { name(LoopHandle::current()) }).unwrap();
    assert_ne!(of_first, of_second);
    assert_eq!(first.run_until_complete(async { name(LoopHandle::current()) }).unwrap(), of_first);
}

#[test]
fn current_exists_inside_a_running_loop_only() {
    assert!(LoopHandle::try_current().is_none());
    let panicked = catch_unwind(|| drop(LoopHandle::current()));
    let payload = panicked.unwrap_err();
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap();
    assert!(text.contains("no event loop is running on this thread"), "{text}");

    let virtual_loop = strict_loop();
    assert!(LoopHandle::try_current().is_none(), "making a loop does not make it current");
    virtual_loop.call_soon(|_| {
        assert!(LoopHandle::try_current().is_some());
        let elsewhere = thread::spawn(|| LoopHandle::try_current().is_none());
        assert!(elsewhere.join().unwrap());
    });
    virtual_loop.run_until_idle();
    assert!(LoopHandle::try_current().is_none());
}

#[test]
fn is_running_is_true_inside_callbacks_timers_events_and_the_future() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let log = journal.clone();
    let wire = wire(&virtual_loop, move |handle, _| log.add(handle.is_running()));
    virtual_loop.world().set_ready(wire.id, Readiness::READABLE);
    for delay in 0..2 {
        let log = journal.clone();
        virtual_loop.call_later(millis(delay), move |handle| log.add(handle.is_running()));
    }
    let log = journal.clone();
    virtual_loop.call_soon(move |handle| log.add(handle.is_running()));
    assert!(!virtual_loop.is_running());
    virtual_loop.run_until_complete(async { journal.add(virtual_loop.is_running()) }).unwrap();
    assert!(!virtual_loop.is_running());
    drop(wire);
    virtual_loop.advance(millis(1));
    let entries = journal.take();
    assert!(entries.len() >= 5 && entries.iter().all(|running| *running));
}

#[test]
fn run_once_is_one_turn_and_waits_for_at_most_its_timeout() {
    let virtual_loop = strict_loop();
    virtual_loop.world().set_autojump(true);
    virtual_loop.run_once(secs(2)).unwrap();
    assert_eq!(virtual_loop.elapsed(), secs(2));
    let journal = Journal::new();
    virtual_loop.call_later(secs(1), journal.note("timer"));
    virtual_loop.run_once(secs(5)).unwrap();
    assert_eq!((virtual_loop.elapsed(), journal.len()), (secs(3), 1));
    virtual_loop.call_soon(journal.note("ready"));
    virtual_loop.run_once(Timeout::Never).unwrap();
    assert_eq!((virtual_loop.elapsed(), journal.len()), (secs(3), 2));
    virtual_loop.call_later(secs(10), journal.note("timer"));
    virtual_loop.run_once(Timeout::At(virtual_loop.time() + secs(1))).unwrap();
    assert_eq!((virtual_loop.elapsed(), journal.len()), (secs(4), 2));
    assert_eq!(virtual_loop.statistics().turns, 4);
}

#[test]
fn run_once_on_a_closed_loop_is_an_error_as_are_the_others() {
    let virtual_loop = strict_loop();
    virtual_loop.close().unwrap();
    assert!(matches!(virtual_loop.run_once(Timeout::Immediate), Err(RunError::Closed(_))));
    assert!(matches!(virtual_loop.run_forever(), Err(RunError::Closed(_))));
    let error = virtual_loop.run_until_complete(async {}).unwrap_err();
    assert!(error.to_string().ends_with("is closed"), "{error}");
}

/// Reschedules itself until it was told that it is enough.
fn forever(handle: &LoopHandle, over: Rc<Cell<bool>>) {
    if !over.get() {
        handle.call_soon(move |handle| forever(handle, over));
    }
}

#[test]
fn b33_callbacks_that_reschedule_themselves_do_not_starve_events() {
    let virtual_loop = strict_loop();
    let over = Rc::new(Cell::new(false));
    forever(&virtual_loop, over.clone());
    let ready_at = Rc::new(Cell::new(None));
    let (world, noted) = (virtual_loop.world().clone(), ready_at.clone());
    let waited = Journal::new();
    let log = waited.clone();
    let wire = wire(&virtual_loop, move |handle, event| {
        let at: u64 = noted.take().expect("once per readiness");
        log.add(handle.statistics().turns - at);
        assert!(event.is_readable());
        world.set_ready(tulipa_selector::VirtualId(1), Readiness::NONE);
        if log.len() == 50 {
            handle.stop();
            over.set(true);
        }
    });
    fn make_ready(
        handle: &LoopHandle,
        world: tulipa_selector::VirtualHandle,
        at: Rc<Cell<Option<u64>>>,
    ) {
        if at.get().is_none() && !handle.statistics().turns.is_multiple_of(3) {
            at.set(Some(handle.statistics().turns));
            world.set_ready(tulipa_selector::VirtualId(1), Readiness::READABLE);
        }
        handle.call_soon(move |handle| make_ready(handle, world, at));
    }
    make_ready(&virtual_loop, virtual_loop.world().clone(), ready_at);
    virtual_loop.run_forever().unwrap();
    assert_eq!(wire.id, tulipa_selector::VirtualId(1));
    let waited = waited.take();
    assert!(waited.iter().all(|turns| *turns <= SKIP_BOUND + 1), "{waited:?}");
    let statistics = virtual_loop.statistics();
    assert!(statistics.selects * 2 < statistics.turns, "a yield costs less than a system call");
}

#[test]
fn b33_a_long_callback_makes_the_next_turn_look_for_events() {
    let virtual_loop = strict_loop();
    let (world, selects) = (virtual_loop.world().clone(), Journal::new());
    let log = selects.clone();
    fn step(
        handle: &LoopHandle,
        left: u32,
        world: tulipa_selector::VirtualHandle,
        log: Journal<u64>,
    ) {
        world.advance(millis(1));
        log.add(handle.statistics().selects);
        match left {
            0 => handle.stop(),
            _ => drop(handle.call_soon(move |handle| step(handle, left - 1, world, log))),
        }
    }
    virtual_loop.call_soon(move |handle| step(handle, 10, world, log));
    virtual_loop.run_forever().unwrap();
    assert_eq!(selects.take(), (1..=11).collect::<Vec<_>>());
}

#[test]
fn callbacks_that_reschedule_themselves_do_not_starve_timers() {
    let virtual_loop = strict_loop();
    let over = Rc::new(Cell::new(false));
    forever(&virtual_loop, over.clone());
    let world = virtual_loop.world().clone();
    let due_at = Rc::new(Cell::new(0));
    let noted = due_at.clone();
    virtual_loop.call_later(secs(1), move |handle| {
        assert_eq!(handle.statistics().turns, noted.get() + 1, "at the next turn");
        over.set(true);
        handle.stop();
    });
    virtual_loop.call_soon(move |handle| {
        handle.call_soon(move |handle| {
            due_at.set(handle.statistics().turns);
            world.advance(secs(1));
        });
    });
    virtual_loop.run_forever().unwrap();
}

#[test]
fn b49_a_timer_that_sets_itself_with_no_delay_starves_nobody() {
    fn again(handle: &LoopHandle) {
        handle.call_later(Duration::ZERO, again);
    }
    let virtual_loop = strict_loop();
    again(&virtual_loop);
    let journal = Journal::new();
    let log = journal.clone();
    let wire = wire(&virtual_loop, move |_, _| log.add("event"));
    virtual_loop.world().set_ready(wire.id, Readiness::READABLE);
    virtual_loop.call_soon(journal.note("ready"));
    virtual_loop.run_once(Timeout::Never).unwrap();
    virtual_loop.run_once(Timeout::Never).unwrap();
    assert_eq!(journal.take(), ["event", "ready", "event"]);
    assert_eq!(virtual_loop.statistics().timers_fired, 2, "one in each turn");
}

#[test]
fn b34_a_source_that_is_always_ready_starves_neither_timers_nor_callbacks() {
    let virtual_loop = strict_loop();
    let events = Rc::new(Cell::new(0));
    let count = events.clone();
    let wire = wire(&virtual_loop, move |_, _| count.set(count.get() + 1));
    virtual_loop.world().set_ready(wire.id, Readiness::READABLE);
    let journal = Journal::new();
    virtual_loop.call_soon(journal.note("ready"));
    virtual_loop.call_later(Duration::ZERO, journal.note("timer"));
    virtual_loop.run_once(Timeout::Never).unwrap();
    assert_eq!(journal.take(), ["timer", "ready"]);
    assert_eq!(events.get(), 1);
}

#[test]
fn remote_calls_without_end_do_not_hold_a_turn() {
    let virtual_loop = strict_loop();
    let remote = virtual_loop.remote();
    fn again(remote: tulipa_loop::Remote) {
        let next = remote.clone();
        let _ = remote.call_soon(move |_| again(next));
    }
    again(remote);
    let turns = virtual_loop.statistics().turns;
    for _ in 0..5 {
        virtual_loop.run_once(Timeout::Immediate).unwrap();
    }
    assert_eq!(virtual_loop.statistics().turns, turns + 5);
    assert_eq!(virtual_loop.statistics().callbacks, 5);
}

#[test]
fn an_idle_loop_makes_no_turns() {
    let virtual_loop = strict_loop();
    virtual_loop.world().set_autojump(true);
    let never_ready = wire(&virtual_loop, |_, _| unreachable!());
    virtual_loop.call_later(secs(3600), |handle| handle.stop());
    virtual_loop.run_forever().unwrap();
    assert_eq!(virtual_loop.statistics().turns, 1);
    drop(never_ready);
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no level-triggered epoll")]
fn the_default_selector_runs_the_same_loop() {
    let event_loop = EventLoop::new().unwrap();
    let journal = Journal::new();
    let log = journal.clone();
    event_loop.call_later(millis(2), move |handle| {
        log.add("timer");
        handle.stop();
    });
    event_loop.call_soon(journal.note("soon"));
    event_loop.run_forever().unwrap();
    assert_eq!(journal.take(), ["soon", "timer"]);
    assert_eq!(event_loop.run_until_complete(async { 1 }).unwrap(), 1);
}
