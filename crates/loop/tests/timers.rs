//! `call_later` and `call_at`, in virtual time.

mod common;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Drops, Journal, millis, secs, strict_loop};
use tulipa_loop::{EventLoop, LoopHandle, TimerHandle};
use tulipa_selector::{
    Events, Interest, Key, Notifier, Registration, Selector, Source, Timeout, Token,
    VirtualSelector,
};
use tulipa_testing::VirtualLoop;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[test]
fn timers_are_never_early() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    virtual_loop.call_later(Duration::from_nanos(1_000_001), journal.note(()));
    virtual_loop.advance(Duration::from_nanos(1_000_000));
    assert_eq!(journal.len(), 0);
    virtual_loop.advance(Duration::from_nanos(1));
    assert_eq!(journal.len(), 1);
    virtual_loop.advance(secs(10));
    assert_eq!(journal.len(), 1);
}

#[test]
fn timers_fire_by_deadline_whatever_the_order_of_the_calls() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    for delay in [5, 3, 9, 1, 7, 2, 8, 4, 6, 0] {
        virtual_loop.call_later(millis(delay), journal.note(delay));
    }
    virtual_loop.world().advance(secs(1));
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), (0..10).collect::<Vec<_>>());
}

#[test]
fn b48_a_thousand_timers_at_one_instant_fire_in_the_order_of_the_calls() {
    let count = if cfg!(miri) { 50 } else { 1000 };
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let when = virtual_loop.time() + secs(1);
    let mut cancelled = Vec::new();
    for number in 0..count {
        // Others before, behind and between, some cancelled, so that the heap is shuffled.
        virtual_loop.call_at(when - millis(number % 7 + 1), |_| ());
        cancelled.push(virtual_loop.call_at(when, |_| panic!("it was cancelled")));
        virtual_loop.call_at(when, journal.note(number));
        cancelled.push(virtual_loop.call_at(when + millis(number % 5), |_| panic!("cancelled")));
    }
    cancelled.iter().rev().for_each(TimerHandle::cancel);
    virtual_loop.advance(secs(2));
    assert_eq!(journal.take(), (0..count).collect::<Vec<_>>());
    assert_eq!(virtual_loop.statistics().timers, 0);
}

#[test]
fn b42_huge_delays_never_fire_and_leave_the_others_alone() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let huge = [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(u64::MAX / 2),
        Duration::from_secs(i64::MAX as u64),
        Duration::from_secs(1_000_000_000_000_000_000),
        Duration::from_nanos(u64::MAX),
        YEAR * 600,
    ];
    let handles: Vec<_> =
        huge.iter().map(|delay| virtual_loop.call_later(*delay, journal.note("huge"))).collect();
    virtual_loop.call_later(secs(1), journal.note("one second"));
    assert!(handles.iter().all(|handle| handle.when() > virtual_loop.time() + YEAR));
    virtual_loop.advance(secs(1));
    assert_eq!(journal.take(), ["one second"]);
    assert_eq!(virtual_loop.next_deadline(), None, "never is no deadline");
    virtual_loop.advance(YEAR * 500);
    assert_eq!(journal.take(), Vec::<&str>::new());
    assert_eq!(virtual_loop.statistics().timers, huge.len());
    handles.iter().for_each(TimerHandle::cancel);
    assert_eq!(virtual_loop.statistics().timers, 0);
}

#[test]
fn b42_a_loop_with_nothing_but_a_timer_for_never_cannot_make_progress() {
    let virtual_loop = strict_loop();
    let never = virtual_loop.call_later(Duration::MAX, |handle| handle.stop());
    let run = virtual_loop.run_until_complete(std::future::pending::<()>());
    let error = run.unwrap_err().to_string();
    assert!(error.contains("nothing can make progress"), "{error}");
    assert_eq!(virtual_loop.elapsed(), Duration::ZERO);
    never.cancel();
}

#[test]
fn past_deadlines_fire_at_the_next_turn_in_the_order_of_their_time() {
    let virtual_loop = strict_loop();
    let start = virtual_loop.time();
    virtual_loop.advance(secs(10));
    let journal = Journal::new();
    virtual_loop.call_at(start + secs(3), journal.note(3));
    virtual_loop.call_at(start + secs(1), journal.note(1));
    virtual_loop.call_at(start + secs(2), journal.note(2));
    virtual_loop.call_at(virtual_loop.time(), journal.note(10));
    assert_eq!(journal.len(), 0, "never inline");
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    assert_eq!(journal.take(), [1, 2, 3, 10]);
}

#[test]
fn a_deadline_before_the_loop_was_made_is_a_past_deadline() {
    let virtual_loop = strict_loop();
    let Some(before) = virtual_loop.time().checked_sub(millis(1)) else { return };
    let journal = Journal::new();
    virtual_loop.call_at(before, journal.note(()));
    virtual_loop.run_once(Timeout::Never).unwrap();
    assert_eq!(journal.len(), 1);
}

#[test]
fn b44_a_timer_that_is_due_exactly_now_fires() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let when = virtual_loop.time() + secs(1);
    virtual_loop.call_at(when, journal.note(()));
    virtual_loop.world().advance_to(when);
    assert_eq!(virtual_loop.next_deadline(), Some(when));
    virtual_loop.run_once(Timeout::Never).unwrap();
    assert_eq!(journal.len(), 1);
}

#[test]
fn b44_a_clock_that_moves_only_when_the_loop_waits_reaches_every_timer() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    for delay in [3, 1, 2] {
        virtual_loop.call_later(millis(delay), journal.note(delay));
    }
    virtual_loop.call_later(millis(4), |handle| handle.stop());
    virtual_loop.world().set_autojump(true);
    virtual_loop.run_forever().unwrap();
    assert_eq!(journal.take(), [1, 2, 3]);
    assert_eq!(virtual_loop.elapsed(), millis(4));
    assert!(virtual_loop.statistics().turns <= 5, "no turn for nothing");
}

#[test]
fn a_zero_delay_waits_for_the_next_turn_while_the_clock_stands_still() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let inner = journal.clone();
    virtual_loop.call_later(Duration::ZERO, move |handle| {
        inner.add(1);
        handle.call_later(Duration::ZERO, inner.note(2));
    });
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    assert_eq!(journal.take(), [1]);
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    assert_eq!(journal.take(), [2]);
}

#[test]
fn a_due_timer_is_cancelled_by_an_earlier_one_of_the_same_batch() {
    let virtual_loop = strict_loop();
    let (journal, drops) = (Journal::new(), Drops::default());
    let slot: Rc<RefCell<Option<TimerHandle>>> = Rc::default();
    let (inner, victim, count) = (journal.clone(), slot.clone(), drops.clone());
    virtual_loop.call_later(millis(1), move |_| {
        inner.add("first");
        victim.take().unwrap().cancel();
        assert_eq!(count.count(), 1, "freed at once");
    });
    let (inner, token) = (journal.clone(), drops.token());
    let second = virtual_loop.call_later(millis(2), move |_| {
        drop(token);
        inner.add("second");
    });
    slot.replace(Some(second));
    virtual_loop.call_later(millis(3), journal.note("third"));
    virtual_loop.world().advance(millis(3));
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    assert_eq!(journal.take(), ["first", "third"]);
    assert_eq!(virtual_loop.statistics().timers_fired, 2);
}

#[test]
fn a_stale_handle_does_not_cancel_the_timer_that_took_its_slot() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let first = virtual_loop.call_later(millis(1), journal.note(1));
    virtual_loop.advance(millis(1));
    let second = virtual_loop.call_later(millis(1), journal.note(2));
    first.cancel();
    assert!(first.is_cancelled() && !second.is_cancelled());
    virtual_loop.advance(millis(1));
    assert_eq!(journal.take(), [1, 2]);
}

#[test]
fn a_timer_that_was_set_late_in_a_long_callback_is_not_early() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let (inner, world) = (journal.clone(), virtual_loop.world().clone());
    virtual_loop.call_soon(move |handle| {
        world.advance(secs(5));
        let when = handle.time() + secs(1);
        let inner = inner.clone();
        handle.call_later(secs(1), move |handle| inner.add(handle.time() >= when));
    });
    virtual_loop.run_until_idle();
    virtual_loop.advance(Duration::from_millis(999));
    assert_eq!(journal.len(), 0);
    virtual_loop.advance(millis(1));
    assert_eq!(journal.take(), [true]);
}

#[test]
fn a_timer_that_becomes_due_in_a_timer_waits_for_the_next_turn() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let (inner, world) = (journal.clone(), virtual_loop.world().clone());
    virtual_loop.call_later(millis(1), move |_| {
        inner.add(1);
        world.advance(secs(1));
    });
    virtual_loop.call_later(millis(2), journal.note(2));
    virtual_loop.world().advance(millis(1));
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    assert_eq!(journal.take(), [1], "one reading of the clock in a turn");
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    assert_eq!(journal.take(), [2]);
}

#[test]
fn b46_cancelled_timers_are_gone() {
    let count = if cfg!(miri) { 200 } else { 1_000_000 };
    let virtual_loop = strict_loop();
    let drops = Drops::default();
    let keep = virtual_loop.call_later(secs(1), |_| ());
    for number in 0..count {
        let token = drops.token();
        virtual_loop.call_later(secs(number % 100), move |_| drop(token)).cancel();
    }
    assert_eq!(drops.count(), count as usize);
    assert_eq!(virtual_loop.statistics().timers, 1);
    assert_eq!(virtual_loop.next_deadline(), Some(keep.when()));
}

#[test]
fn b52_after_a_long_suspend_every_timer_fires_once_in_order() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    for delay in 1..=20 {
        virtual_loop.call_later(secs(delay), journal.note(delay));
    }
    virtual_loop.world().advance(YEAR);
    virtual_loop.run_once(Timeout::Never).unwrap();
    assert_eq!(journal.take(), (1..=20).collect::<Vec<_>>());
    assert_eq!(virtual_loop.statistics().most_lag, YEAR - secs(1));
    virtual_loop.advance(YEAR);
    assert_eq!(journal.len(), 0);
}

#[test]
fn b53_a_periodic_timer_by_deadlines_does_not_drift() {
    fn tick(handle: &LoopHandle, due: Instant, ticks: Rc<Cell<u32>>, busy: Rc<dyn Fn()>) {
        handle.call_at(due, move |handle| {
            ticks.set(ticks.get() + 1);
            busy();
            tick(handle, due + millis(10), ticks, busy);
        });
    }
    let virtual_loop = strict_loop();
    let ticks = Rc::new(Cell::new(0));
    let world = virtual_loop.world().clone();
    let busy = Rc::new(move || world.advance(millis(3)));
    tick(&virtual_loop, virtual_loop.time() + millis(10), ticks.clone(), busy);
    // The last tick is at work until three milliseconds after it.
    virtual_loop.advance(millis(100));
    assert_eq!(ticks.get(), 10);
}

#[test]
fn timer_handles_know_their_deadline() {
    let virtual_loop = strict_loop();
    let when = virtual_loop.time() + secs(7);
    assert_eq!(virtual_loop.call_at(when, |_| ()).when(), when);
    assert_eq!(virtual_loop.call_later(secs(7), |_| ()).when(), when);
}

#[test]
fn next_deadline_is_the_earliest_timer_that_was_not_cancelled() {
    let virtual_loop = strict_loop();
    assert_eq!(virtual_loop.next_deadline(), None);
    let second = virtual_loop.call_later(secs(2), |_| ());
    let first = virtual_loop.call_later(secs(1), |_| ());
    assert_eq!(virtual_loop.next_deadline(), Some(first.when()));
    first.cancel();
    assert_eq!(virtual_loop.next_deadline(), Some(second.when()));
    virtual_loop.call_soon(|_| ());
    assert_eq!(virtual_loop.next_deadline(), Some(virtual_loop.time()));
}

#[test]
fn b45_an_earlier_timer_shortens_the_wait() {
    let virtual_loop = strict_loop();
    virtual_loop.world().set_autojump(true);
    let journal = Journal::new();
    virtual_loop.call_later(secs(100), journal.note("far"));
    let inner = journal.clone();
    virtual_loop.call_soon(move |handle| {
        handle.call_later(secs(1), {
            let journal = inner.clone();
            move |handle| {
                journal.add("near");
                handle.stop();
            }
        });
    });
    virtual_loop.run_forever().unwrap();
    assert_eq!(journal.take(), ["near"]);
    assert_eq!(virtual_loop.elapsed(), secs(1));
}

/// A clock that is set back, and should not have been.
#[derive(Debug)]
struct FaultyClock {
    inner: VirtualSelector,
    behind: Rc<Cell<Duration>>,
}

impl Selector for FaultyClock {
    fn register(&self, source: Source, interest: Interest, data: u64) -> io::Result<Registration> {
        self.inner.register(source, interest, data)
    }

    fn select(&self, events: &mut Events, timeout: Timeout) -> io::Result<()> {
        self.inner.select(events, timeout)
    }

    fn now(&self) -> Instant {
        self.inner.now().checked_sub(self.behind.get()).unwrap()
    }

    fn notifier(&self) -> Notifier {
        self.inner.notifier()
    }

    fn get_key(&self, token: Token) -> Option<Key> {
        self.inner.get_key(token)
    }

    fn keys(&self) -> Vec<Key> {
        self.inner.keys()
    }

    fn close(&self) {
        self.inner.close();
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn name(&self) -> &'static str {
        "faulty"
    }
}

#[test]
fn b50_a_clock_that_goes_back_makes_timers_late_and_nothing_else() {
    let behind = Rc::new(Cell::new(Duration::ZERO));
    let inner = VirtualSelector::new();
    let world = inner.handle();
    let selector = FaultyClock { inner, behind: behind.clone() };
    let event_loop = EventLoop::builder().selector(selector).debug(true).build().unwrap();
    let journal = Journal::new();
    event_loop.call_later(secs(1), journal.note("timer"));
    let back = behind.clone();
    event_loop.call_soon(move |_| back.set(secs(3)));
    event_loop.call_soon(journal.note("ready"));
    world.advance(millis(500));
    event_loop.run_once(Timeout::Immediate).unwrap();
    event_loop.call_later(secs(1), journal.note("set when it was back"));
    event_loop.run_once(Timeout::Immediate).unwrap();
    assert_eq!(journal.take(), ["ready"]);
    behind.set(Duration::ZERO);
    world.advance(secs(1));
    event_loop.run_once(Timeout::Immediate).unwrap();
    assert_eq!(journal.take(), ["set when it was back", "timer"]);
}

#[test]
fn busy_polling_ends_under_a_clock_that_stands_still() {
    let virtual_loop = VirtualLoop::from_builder(EventLoop::builder().busy_poll(millis(1)));
    virtual_loop.call_later(secs(1), |handle| handle.stop());
    virtual_loop.world().set_autojump(true);
    virtual_loop.run_forever().unwrap();
    assert_eq!(virtual_loop.elapsed(), secs(1));
}
