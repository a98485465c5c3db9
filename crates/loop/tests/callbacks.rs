//! `call_soon`, its handles, and calls from other threads.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use common::{Drops, Journal, OnDrop, millis, strict_loop, wire};
use tulipa_loop::{Handle, LoopHandle, RemoteError, RunError, TimerHandle};
use tulipa_selector::{Readiness, Timeout};

const MANY: usize = if cfg!(miri) { 30 } else { 10_000 };

#[test]
fn call_soon_is_first_in_first_out() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    for number in 0..MANY {
        virtual_loop.call_soon(journal.note(number));
    }
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), (0..MANY).collect::<Vec<_>>());
}

#[test]
fn each_callback_runs_exactly_once_and_frees_what_it_holds() {
    let virtual_loop = strict_loop();
    let (journal, drops) = (Journal::new(), Drops::default());
    for number in 0..MANY {
        let (journal, token) = (journal.clone(), drops.token());
        virtual_loop.call_soon(move |_| {
            let _token = token;
            journal.add(number);
        });
    }
    for _ in 0..3 {
        virtual_loop.run_until_idle();
        assert_eq!((journal.len(), drops.count()), (MANY, MANY));
    }
}

#[test]
fn call_soon_never_runs_inline() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    virtual_loop.call_soon(journal.note("outside"));
    assert_eq!(journal.take(), Vec::<&str>::new());
    let inner = journal.clone();
    virtual_loop.call_soon(move |handle| {
        handle.call_soon(inner.note("scheduled"));
        inner.add("still in the callback");
    });
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["outside", "still in the callback", "scheduled"]);
}

#[test]
fn what_a_callback_schedules_waits_for_the_next_turn() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    for number in 0..3 {
        let journal = journal.clone();
        virtual_loop.call_soon(move |handle| {
            journal.add((handle.statistics().turns, number));
            let journal = journal.clone();
            handle.call_soon(move |handle| journal.add((handle.statistics().turns, 10 + number)));
        });
    }
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    assert_eq!(journal.take(), [(0, 0), (0, 1), (0, 2)]);
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    assert_eq!(journal.take(), [(1, 10), (1, 11), (1, 12)]);
}

#[test]
fn events_then_due_timers_then_callbacks() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    virtual_loop.call_soon(journal.note("ready before"));
    virtual_loop.call_later(millis(0), {
        let journal = journal.clone();
        move |handle| {
            journal.add("timer");
            handle.call_soon(journal.note("ready from the timer"));
        }
    });
    let world = virtual_loop.world().clone();
    let wire = wire(&virtual_loop, {
        let journal = journal.clone();
        move |handle, event| {
            journal.add("event");
            world.set_ready(tulipa_selector::VirtualId(1), Readiness::NONE);
            assert!(event.is_readable());
            handle.call_soon(journal.note("ready from the event"));
        }
    });
    virtual_loop.world().set_ready(wire.id, Readiness::READABLE);
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    let expected =
        ["event", "timer", "ready before", "ready from the event", "ready from the timer"];
    assert_eq!(journal.take(), expected);
}

#[test]
fn cancel_frees_the_closure_at_once() {
    let virtual_loop = strict_loop();
    let drops = Drops::default();
    let token = drops.token();
    let handle = virtual_loop.call_soon(move |_| drop(token));
    assert!(!handle.is_cancelled());
    handle.cancel();
    assert_eq!(drops.count(), 1);
    assert!(handle.is_cancelled());
    handle.cancel();
    virtual_loop.run_until_idle();
    assert_eq!(drops.count(), 1);
    assert_eq!(virtual_loop.statistics().callbacks, 0, "cancelled ones are not counted");
}

#[test]
fn cancel_after_the_run_harms_nobody() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let first = virtual_loop.call_soon(journal.note(1));
    virtual_loop.run_until_idle();
    virtual_loop.call_soon(journal.note(2));
    virtual_loop.call_soon(journal.note(3));
    first.cancel();
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), [1, 2, 3]);
}

#[test]
fn a_callback_can_cancel_itself_and_those_behind_it() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let handles: Rc<RefCell<Vec<Handle>>> = Rc::default();
    for number in 0..4 {
        let (journal, inner) = (journal.clone(), handles.clone());
        let handle = virtual_loop.call_soon(move |_| {
            journal.add(number);
            if number == 0 {
                let mine = inner.take();
                mine[0].cancel();
                mine[2].cancel();
                assert!(mine[0].is_cancelled() && mine[2].is_cancelled());
            }
        });
        handles.borrow_mut().push(handle);
    }
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), [0, 1, 3]);
}

#[test]
fn dropping_a_handle_leaves_the_callback_alone() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    drop(virtual_loop.call_soon(journal.note("soon")));
    drop(virtual_loop.call_later(millis(1), journal.note("later")));
    virtual_loop.advance(millis(1));
    assert_eq!(journal.take(), ["soon", "later"]);
}

#[test]
fn a_destructor_run_by_cancel_may_use_the_loop() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let other = Rc::new(virtual_loop.call_soon(journal.note("other")));
    let guard = OnDrop::new({
        let (handle, journal, other) = (virtual_loop.handle(), journal.clone(), other.clone());
        move || {
            handle.call_soon(journal.note("scheduled by a destructor"));
            other.cancel();
        }
    });
    let doomed = virtual_loop.call_soon(move |_| drop(guard));
    doomed.cancel();
    assert!(other.is_cancelled());
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["scheduled by a destructor"]);
}

#[test]
fn handles_say_where_they_come_from() {
    let virtual_loop = strict_loop();
    let line = line!() + 1;
    let soon = virtual_loop.call_soon(|_| ());
    let file = file!();
    assert_eq!(format!("{soon:?}"), format!("<Handle created at {file}:{line}:29>"));
    soon.cancel();
    assert_eq!(format!("{soon:?}"), format!("<Handle cancelled created at {file}:{line}:29>"));
    let line = line!() + 1;
    let later = virtual_loop.call_later(millis(3), |_| ());
    let text = format!("{later:?}");
    assert!(text.starts_with("<TimerHandle when="), "{text}");
    assert!(text.ends_with(&format!("created at {file}:{line}:30>")), "{text}");
    later.cancel();
    assert!(format!("{later:?}").starts_with("<TimerHandle cancelled when="));
}

#[test]
fn a_closed_loop_drops_the_closure_and_returns_a_cancelled_handle() {
    let virtual_loop = strict_loop();
    let now = virtual_loop.time();
    virtual_loop.close().unwrap();
    let drops = Drops::default();
    let closure = || {
        let token = drops.token();
        move |_: &LoopHandle| drop(token)
    };
    let soon: Handle = virtual_loop.call_soon(closure());
    let later: TimerHandle = virtual_loop.call_later(millis(1), closure());
    let at = virtual_loop.call_at(now, closure());
    assert_eq!(drops.count(), 3);
    assert!(soon.is_cancelled() && later.is_cancelled() && at.is_cancelled());
    assert_eq!(at.when(), now);
    soon.cancel();
    later.cancel();
    at.cancel();
    assert_eq!((virtual_loop.statistics().ready, virtual_loop.statistics().timers), (0, 0));
}

#[test]
fn a_cancelled_handle_of_a_closed_loop_cancels_nothing_else() {
    let closed = strict_loop();
    closed.close().unwrap();
    let handles: Vec<_> = (0..3).map(|_| closed.call_later(millis(1), |_| ())).collect();
    handles.iter().for_each(TimerHandle::cancel);
    assert!(handles.iter().all(TimerHandle::is_cancelled));
}

#[test]
fn remote_calls_of_one_thread_keep_their_order() {
    let virtual_loop = strict_loop();
    let journal = Arc::new(Mutex::new(Vec::new()));
    let (remote, log) = (virtual_loop.remote(), journal.clone());
    thread::spawn(move || {
        for number in 0..20 {
            let log = log.clone();
            remote.call_soon(move |_| log.lock().unwrap().push(number)).unwrap();
        }
    })
    .join()
    .unwrap();
    virtual_loop.run_until_idle();
    assert_eq!(*journal.lock().unwrap(), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_remote_call_before_the_first_run_waits_for_it() {
    let virtual_loop = strict_loop();
    let ran = Arc::new(Mutex::new(false));
    let flag = ran.clone();
    let call = virtual_loop.remote().call_soon(move |_| *flag.lock().unwrap() = true).unwrap();
    assert!(call.is_pending() && !*ran.lock().unwrap());
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    assert!(!call.is_pending() && *ran.lock().unwrap());
    assert!(!call.cancel(), "too late");
}

#[test]
fn a_remote_call_that_is_cancelled_does_not_run_and_does_not_count() {
    let virtual_loop = strict_loop();
    let call = virtual_loop.remote().call_soon(|_| panic!("it was cancelled")).unwrap();
    let text = format!("{call:?}");
    assert!(text.starts_with("<RemoteHandle pending created at "), "{text}");
    assert!(call.cancel());
    assert!(!call.cancel(), "once");
    virtual_loop.run_until_idle();
    assert_eq!(virtual_loop.statistics().callbacks, 0, "cancelled ones are not counted");
}

struct WhereDropped(Arc<Mutex<Vec<ThreadId>>>);

impl Drop for WhereDropped {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(thread::current().id());
    }
}

#[test]
fn a_remote_call_to_a_closed_loop_is_refused_and_dropped_where_it_was_made() {
    let virtual_loop = strict_loop();
    let remote = virtual_loop.remote();
    virtual_loop.close().unwrap();
    assert!(remote.is_closed());
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let token = WhereDropped(dropped.clone());
    let other = thread::spawn(move || {
        let refused = remote.call_soon(move |_| drop(token));
        assert!(matches!(refused, Err(RemoteError::LoopClosed)));
        assert!(matches!(remote.stop(), Err(RemoteError::LoopClosed)));
        thread::current().id()
    });
    let id = other.join().unwrap();
    assert_eq!(*dropped.lock().unwrap(), [id]);
}

#[test]
fn a_callback_may_hold_what_is_not_send_and_gets_the_loops_own_handle() {
    let virtual_loop = strict_loop();
    let count = Rc::new(Cell::new(0));
    let inner = count.clone();
    virtual_loop.call_soon(move |handle| {
        assert_eq!(format!("{handle:?}"), format!("{:?}", LoopHandle::current()));
        inner.set(inner.get() + 1);
    });
    virtual_loop.run_until_idle();
    assert_eq!(count.get(), 1);
}

#[test]
fn a_selector_that_fails_keeps_nothing_else_from_its_turn() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    virtual_loop.call_later(millis(0), journal.note("timer"));
    virtual_loop.call_soon(journal.note("callback"));
    virtual_loop.selector().close();
    let failed = virtual_loop.run_once(Timeout::Immediate);
    assert!(matches!(failed, Err(RunError::Select(_))), "{failed:?}");
    assert_eq!(journal.take(), ["timer", "callback"]);
}
