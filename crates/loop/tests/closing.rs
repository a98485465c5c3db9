//! Closing a loop, and dropping it with everything alive.

mod common;

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::panic_any;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use common::{
    DropToken, Drops, Journal, OnDrop, Wire, journal_reports, millis, strict_loop, wire_source,
};
use tulipa_loop::{
    ErrorContext, EventLoop, Instrument, LoopClosed, LoopHandle, Origin, RunError, Source,
};
use tulipa_selector::{Event, Readiness, Timeout};

/// A source that notes what happens to it.
struct Noting {
    journal: Journal<&'static str>,
    _token: DropToken,
}

impl Source for Noting {
    fn ready(&mut self, _: &LoopHandle, _: &Event) {
        self.journal.add("ready");
    }

    fn closing(&mut self, handle: &LoopHandle) {
        assert!(handle.is_closed());
        self.journal.add("closing");
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        self.journal.add("dropped");
    }
}

struct WhereDropped(Arc<Mutex<Vec<ThreadId>>>);

impl Drop for WhereDropped {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(thread::current().id());
    }
}

struct Quiet(#[expect(dead_code, reason = "it is there to be dropped")] DropToken);

impl Instrument for Quiet {}

#[test]
fn a_loop_dropped_with_everything_alive_drops_each_thing_once_on_its_thread() {
    let virtual_loop = strict_loop();
    let drops = Drops::default();
    let journal = Journal::new();
    let guard = || {
        let token = drops.token();
        move |_: &LoopHandle| drop(token)
    };

    let soon = virtual_loop.call_soon(guard());
    drop(virtual_loop.call_soon(guard()));
    let later = virtual_loop.call_later(millis(1), guard());
    drop(virtual_loop.call_later(millis(1), guard()));
    let wire = wire_source(
        &virtual_loop,
        Box::new(Noting { journal: journal.clone(), _token: drops.token() }),
    );
    virtual_loop.world().set_ready(wire.id, Readiness::READABLE);
    let (promise, future) = virtual_loop.create_future::<u8>();
    let token = drops.token();
    future.add_done_callback(move |_, _| drop(token));
    let (finished, done) = virtual_loop.create_future();
    let token = drops.token();
    done.add_done_callback(move |_, _| drop(token));
    finished.set(1).unwrap();
    let token = drops.token();
    virtual_loop.set_exception_handler(Some(Rc::new(move |_: &LoopHandle, _: &ErrorContext| {
        let _ = &token;
    })));
    virtual_loop.set_instrument(Some(Rc::new(Quiet(drops.token()))));

    let threads = Arc::new(Mutex::new(Vec::new()));
    let (remote, theirs) = (virtual_loop.remote(), WhereDropped(threads.clone()));
    let call = thread::spawn(move || remote.call_soon(move |_| drop(theirs)).unwrap());
    let call = call.join().unwrap();

    let handle = virtual_loop.handle();
    drop(virtual_loop);
    // Two callbacks, two timers, a source, a done callback that was scheduled, handler, instrument.
    assert_eq!(drops.count(), 8);
    assert_eq!(journal.take(), ["closing", "dropped"]);
    assert_eq!(*threads.lock().unwrap(), [thread::current().id()]);
    assert!(!call.is_pending() && !call.cancel());

    // What was held elsewhere does nothing any more.
    soon.cancel();
    later.cancel();
    assert!(handle.is_closed() && !handle.is_running());
    drop(promise);
    assert!(future.is_cancelled());
    assert_eq!(drops.count(), 9, "a done callback of a closed loop is dropped");
    drop((handle, future, done, wire));
    assert_eq!(drops.count(), 9);
}

#[test]
fn b56_destructors_may_call_the_loop_while_it_closes() {
    let virtual_loop = strict_loop();
    let reports = journal_reports(&virtual_loop);
    let (drops, ran) = (Drops::default(), Rc::new(Cell::new(0)));
    let event_loop: Rc<RefCell<Option<LoopHandle>>> =
        Rc::new(RefCell::new(Some(virtual_loop.handle())));
    let busybody = || {
        let (cell, drops, ran) = (event_loop.clone(), drops.clone(), ran.clone());
        OnDrop::new(move || {
            ran.set(ran.get() + 1);
            let handle = cell.borrow().clone().unwrap();
            assert!(handle.is_closed());
            let (soon, later, at) = (drops.token(), drops.token(), drops.token());
            assert!(handle.call_soon(move |_| drop(soon)).is_cancelled());
            let when = handle.time();
            assert!(handle.call_later(millis(1), move |_| drop(later)).is_cancelled());
            handle.call_at(when, move |_| drop(at)).cancel();
            let (promise, future) = handle.create_future();
            let token = drops.token();
            future.add_done_callback(move |_, _| drop(token));
            promise.set(drops.token()).ok();
            assert!(handle.remote().call_soon(|_| ()).is_err());
            handle.stop();
            handle.wires().mark(tulipa_selector::Token::from_bits(0));
            let token = drops.token();
            handle.set_exception_handler(Some(Rc::new(
                move |handle: &LoopHandle, _: &ErrorContext| {
                    let _ = (&token, handle);
                },
            )));
            handle.set_instrument(Some(Rc::new(Quiet(drops.token()))));
            let _ = (handle.statistics(), format!("{handle:?}"), handle.next_deadline());
        })
    };
    let (a, b, c) = (busybody(), busybody(), busybody());
    virtual_loop.call_soon(move |_| drop(a));
    virtual_loop.call_later(millis(1), move |_| drop(b));
    let (promise, future) = virtual_loop.create_future::<()>();
    future.add_done_callback(move |_, _| drop(c));
    let guard = OnDrop::new(move || drop(promise));
    virtual_loop.call_later(millis(2), move |_| drop(guard));
    virtual_loop.close().unwrap();
    assert_eq!(ran.get(), 3);
    drop(future);
    drop(virtual_loop);
    event_loop.take();
    assert_eq!(drops.count(), 3 * 7, "everything that was given to the closed loop is dropped");
    assert_eq!(reports.len(), 0);
}

#[test]
fn b56_destructors_may_cancel_each_other_and_remove_sources_while_the_loop_closes() {
    let virtual_loop = strict_loop();
    let drops = Drops::default();
    let journal = Journal::new();
    let wires: Vec<Wire> = (0..3)
        .map(|_| {
            wire_source(
                &virtual_loop,
                Box::new(Noting { journal: journal.clone(), _token: drops.token() }),
            )
        })
        .collect();
    let token = drops.token();
    let soon = virtual_loop.call_soon(move |_| drop(token));
    let token = drops.token();
    let later = virtual_loop.call_later(millis(5), move |_| drop(token));
    let handle = virtual_loop.handle();
    let guard = OnDrop::new(move || {
        soon.cancel();
        later.cancel();
        for wire in wires {
            handle.remove_source(wire.key);
        }
    });
    virtual_loop.call_later(millis(1), move |_| drop(guard));
    drop(virtual_loop);
    assert_eq!(drops.count(), 5);
    assert_eq!(journal.take(), ["closing", "closing", "closing", "dropped", "dropped", "dropped"]);
}

#[test]
fn a_handle_kept_in_a_closure_of_its_own_loop_does_not_leak_it() {
    let virtual_loop = strict_loop();
    let drops = Drops::default();
    for delay in [0, 1] {
        let (handle, token) = (virtual_loop.handle(), drops.token());
        virtual_loop.call_later(millis(delay), move |_| {
            let _ = (&handle, &token);
        });
        let (handle, token) = (virtual_loop.handle(), drops.token());
        virtual_loop.call_soon(move |_| {
            let _ = (&handle, &token);
        });
    }
    let (handle, token) = (virtual_loop.handle(), drops.token());
    virtual_loop.set_exception_handler(Some(Rc::new(move |_: &LoopHandle, _: &ErrorContext| {
        let _ = (&handle, &token);
    })));
    drop(virtual_loop);
    assert_eq!(drops.count(), 5);
}

#[test]
fn what_is_set_on_a_closed_loop_is_dropped() {
    let virtual_loop = strict_loop();
    virtual_loop.close().unwrap();
    let drops = Drops::default();
    let (handle, token) = (virtual_loop.handle(), drops.token());
    virtual_loop.set_exception_handler(Some(Rc::new(move |_: &LoopHandle, _: &ErrorContext| {
        let _ = (&handle, &token);
    })));
    virtual_loop.set_instrument(Some(Rc::new(Quiet(drops.token()))));
    assert_eq!(drops.count(), 2);
    assert!(virtual_loop.exception_handler().is_none());
}

#[test]
fn b58_destructors_that_panic_while_the_loop_closes_are_all_reported() {
    let virtual_loop = strict_loop();
    let reports = journal_reports(&virtual_loop);
    struct Bad(u32);
    impl Drop for Bad {
        fn drop(&mut self) {
            panic_any(format!("bad {}", self.0));
        }
    }
    impl Source for Bad {
        fn ready(&mut self, _: &LoopHandle, _: &Event) {}
    }
    let wires = [
        wire_source(&virtual_loop, Box::new(Bad(0))),
        wire_source(&virtual_loop, Box::new(Bad(1))),
    ];
    for number in [2, 3] {
        let bad = Bad(number);
        virtual_loop.call_later(millis(1), move |_| drop(bad));
    }
    for number in [4, 5] {
        let bad = Bad(number);
        virtual_loop.call_soon(move |_| drop(bad));
    }
    virtual_loop.close().unwrap();
    let reports = reports.take();
    assert!(reports.iter().all(|report| report.origin == Some(Origin::Release)));
    let texts: Vec<_> = reports.into_iter().map(|report| report.text).collect();
    assert_eq!(texts, ["bad 0", "bad 1", "bad 2", "bad 3", "bad 4", "bad 5"]);
    drop(wires);
}

#[test]
fn b58_a_handler_and_an_instrument_that_panic_when_dropped_do_not_harm_the_close() {
    let virtual_loop = strict_loop();
    struct BadInstrument;
    impl Instrument for BadInstrument {}
    impl Drop for BadInstrument {
        fn drop(&mut self) {
            panic!("of an instrument's destructor");
        }
    }
    let guard = OnDrop::new(|| panic!("of a handler's destructor"));
    virtual_loop.set_exception_handler(Some(Rc::new(move |_: &LoopHandle, _: &ErrorContext| {
        let _ = &guard;
    })));
    virtual_loop.set_instrument(Some(Rc::new(BadInstrument)));
    virtual_loop.close().unwrap();
    assert!(virtual_loop.is_closed());
}

#[test]
fn a_source_that_panics_in_closing_is_reported_and_dropped_and_the_others_are_told() {
    struct Bad(#[expect(dead_code, reason = "it is there to be dropped")] DropToken);
    impl Source for Bad {
        fn ready(&mut self, _: &LoopHandle, _: &Event) {}

        fn closing(&mut self, _: &LoopHandle) {
            panic!("of closing");
        }
    }
    let virtual_loop = strict_loop();
    let reports = journal_reports(&virtual_loop);
    let (drops, journal) = (Drops::default(), Journal::new());
    let first = wire_source(&virtual_loop, Box::new(Bad(drops.token())));
    let second = wire_source(
        &virtual_loop,
        Box::new(Noting { journal: journal.clone(), _token: drops.token() }),
    );
    virtual_loop.close().unwrap();
    assert_eq!(drops.count(), 2);
    assert_eq!(journal.take(), ["closing", "dropped"]);
    let reports = reports.take();
    assert_eq!((reports.len(), reports[0].origin), (1, Some(Origin::Source)));
    drop((first, second));
}

#[test]
fn close_inside_of_the_loop_is_an_error() {
    let virtual_loop = Rc::new(strict_loop());
    let journal = Journal::new();
    let (this, log) = (virtual_loop.clone(), journal.clone());
    virtual_loop.call_soon(move |handle| {
        let error = this.close().unwrap_err();
        let RunError::AlreadyRunning { wanted, running } = error else { panic!("{error}") };
        assert_eq!(wanted, running);
        assert!(!handle.is_closed());
        handle.call_soon(log.note("goes on"));
    });
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["goes on"]);
    virtual_loop.close().unwrap();
}

#[test]
fn close_is_idempotent_and_final() {
    let virtual_loop = strict_loop();
    assert!(!virtual_loop.is_closed());
    virtual_loop.close().unwrap();
    virtual_loop.close().unwrap();
    assert!(virtual_loop.is_closed());
    assert!(matches!(virtual_loop.run_forever(), Err(RunError::Closed(_))));
    assert!(virtual_loop.is_closed());
}

#[test]
fn another_loop_may_be_closed_inside_a_callback() {
    let outer = strict_loop();
    let inner = strict_loop();
    let drops = Drops::default();
    let token = drops.token();
    inner.call_soon(move |_| drop(token));
    let count = drops.clone();
    outer.call_soon(move |_| {
        inner.close().unwrap();
        assert_eq!(count.count(), 1);
        assert!(LoopHandle::try_current().is_some_and(|handle| !handle.is_closed()));
    });
    outer.run_until_idle();
    assert_eq!(drops.count(), 1);
}

#[test]
fn everything_after_close_does_what_the_docs_say() {
    let virtual_loop = strict_loop();
    let (reports, drops) = (journal_reports(&virtual_loop), Drops::default());
    virtual_loop.close().unwrap();
    assert!(matches!(
        virtual_loop
            .insert_source(Box::new(Noting { journal: Journal::new(), _token: drops.token() })),
        Err(LoopClosed)
    ));
    assert_eq!(drops.count(), 1);
    assert!(!virtual_loop.remove_source(tulipa_selector::Token::from_bits(0)));
    assert_eq!(virtual_loop.next_deadline(), None);
    let statistics = virtual_loop.statistics();
    assert_eq!((statistics.ready, statistics.timers, statistics.sources), (0, 0, 0));
    assert!(virtual_loop.exception_handler().is_none(), "the handler is gone");
    virtual_loop.set_exception_handler(None);
    assert_eq!(reports.len(), 0);
    let (promise, mut future) = virtual_loop.create_future();
    promise.set(1).unwrap();
    assert_eq!(future.try_take(), Some(Ok(1)), "a value needs no loop");
    assert!(format!("{:?}", &*virtual_loop).contains("Closed"));
    assert!(virtual_loop.selector().is_closed());
    virtual_loop.set_debug(true);
    assert!(virtual_loop.debug());
}

#[test]
fn a_loop_dropped_after_its_main_future_was_stopped_leaves_nothing_of_it() {
    let event_loop =
        EventLoop::builder().selector(tulipa_selector::VirtualSelector::new()).build().unwrap();
    let drops = Drops::default();
    let token = drops.token();
    event_loop.stop();
    let stopped = event_loop.run_until_complete(async move {
        let _token = token;
        let (_promise, future) = LoopHandle::current().create_future::<()>();
        let _ = future.await;
        pending::<()>().await;
    });
    assert!(matches!(stopped, Err(RunError::Stopped(_))));
    assert_eq!(drops.count(), 1);
    event_loop.run_once(Timeout::Immediate).unwrap();
}

#[test]
fn b39_calls_that_race_with_the_close_run_or_are_refused_or_dropped() {
    let rounds = if cfg!(miri) { 2 } else { 100 };
    for _ in 0..rounds {
        let virtual_loop = strict_loop();
        let alive = Arc::new(());
        let thread = thread::spawn({
            let (remote, alive) = (virtual_loop.remote(), alive.clone());
            move || {
                let calls = (0..50).map(|_| {
                    let alive = alive.clone();
                    remote.call_soon(move |_| drop(alive)).is_ok()
                });
                calls.filter(|accepted| *accepted).count()
            }
        });
        virtual_loop.run_once(Timeout::Immediate).unwrap();
        drop(virtual_loop);
        assert!(thread.join().unwrap() <= 50);
        assert_eq!(Arc::strong_count(&alive), 1, "nothing is left of any call");
    }
}
