//! Deferreds: callbacks, chains, cancels, timeouts, awaiting both ways, and errors that nobody takes.

mod common;

use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use common::Journal;
use tulipa_loop::{Deferred, DeferredError, ErrorContext, LoopHandle, Trigger, sleep, spawn};
use tulipa_testing::VirtualLoop;

type Text = Deferred<String, String>;
type Number = Deferred<u32, String>;

const SECOND: Duration = Duration::from_secs(1);

/// A virtual loop and what it reports.
fn virtual_loop() -> (VirtualLoop, Rc<RefCell<Vec<String>>>) {
    let virtual_loop = VirtualLoop::new();
    let reports = Rc::new(RefCell::new(Vec::new()));
    let journal = reports.clone();
    virtual_loop.set_exception_handler(Some(Rc::new(
        move |_: &LoopHandle, context: &ErrorContext| {
            journal.borrow_mut().push(context.to_string());
        },
    )));
    (virtual_loop, reports)
}

#[test]
fn callbacks_get_the_value_and_errbacks_the_error() {
    let run = |start: fn() -> Number| {
        let journal = Journal::new();
        let (good, bad) = (journal.clone(), journal.clone());
        let result = start()
            .add_callback(move |number| {
                good.add(format!("value {number}"));
                if number > 5 { Err("too much".to_owned()) } else { Ok(number + 1) }
            })
            .add_errback(move |error| {
                bad.add(format!("error {error}"));
                Ok(0)
            })
            .add_callback(|number| Ok(number * 10))
            .try_result();
        (journal.take(), result)
    };
    assert_eq!(run(|| Deferred::succeed(1)), (vec!["value 1".into()], Some(Ok(20))));
    let both = vec!["value 9".into(), "error too much".into()];
    assert_eq!(run(|| Deferred::succeed(9)), (both, Some(Ok(0))));
    let only = vec!["error no".into()];
    assert_eq!(run(|| Deferred::fail("no".into())), (only, Some(Ok(0))));
}

#[test]
fn an_error_of_a_callback_does_not_come_to_the_errback_beside_it() {
    let deferred = Number::succeed(1)
        .add_callbacks(|_| Err::<u32, String>("mine".into()), |_| panic!("it is not for me"));
    assert_eq!(deferred.try_result(), Some(Err(DeferredError::Failed("mine".into()))));
    let other = Number::fail("theirs".into())
        .add_callbacks(|_| -> Result<u32, String> { panic!("there is no value") }, |_| Ok(7));
    assert_eq!(other.try_result(), Some(Ok(7)));
}

#[test]
fn a_chain_waits_for_the_deferred_that_a_callback_returns() {
    let journal = Journal::new();
    let (outer, deferred) = Number::pair();
    let (inner, second) = Text::pair();
    let noted = journal.clone();
    let waiting = deferred.chain(move |_| second).add_callback(move |text| {
        noted.add(text.clone());
        Ok(text.len())
    });
    outer.callback(1).unwrap();
    assert!(!waiting.is_done());
    inner.callback("three".into()).unwrap();
    assert_eq!(journal.take(), ["three"]);
    assert_eq!(waiting.try_result(), Some(Ok(5)));
}

#[test]
fn a_callback_never_runs_inside_of_another_one() {
    let journal = Journal::new();
    let (first, second) = (Number::pair(), Number::pair());
    let inside = Rc::new(Cell::new(false));
    let (noted, flag, other) = (journal.clone(), inside.clone(), second.0);
    let one = first.1.add_callback(move |number| {
        flag.set(true);
        other.callback(number + 1).unwrap();
        noted.add("first");
        flag.set(false);
        Ok(())
    });
    let (noted, flag) = (journal.clone(), inside.clone());
    let two = second.1.add_callback(move |_| {
        assert!(!flag.get(), "it runs when the other has returned");
        noted.add("second");
        Ok(())
    });
    first.0.callback(1).unwrap();
    assert_eq!(journal.take(), ["first", "second"]);
    assert!(one.is_done() && two.is_done());
}

#[test]
fn chains_of_any_length_take_no_stack() {
    let (trigger, mut deferred) = Number::pair();
    for _ in 0..200_000 {
        deferred = deferred.add_callback(|number| Ok(number + 1));
    }
    trigger.callback(0).unwrap();
    assert_eq!(deferred.try_result(), Some(Ok(200_000)));
    // And deferreds that wait for each other.
    let (trigger, mut last) = Number::pair();
    for _ in 0..100_000 {
        let (outer, deferred) = Number::pair();
        let inner = last;
        last = deferred.chain(move |_| inner);
        outer.callback(1).unwrap();
    }
    trigger.callback(7).unwrap();
    assert_eq!(last.try_result(), Some(Ok(7)));
}

#[test]
fn a_cancel_goes_to_where_the_result_was_to_come_from() {
    let cancelled = Rc::new(Cell::new(0));
    let counted = cancelled.clone();
    let (trigger, source) = Number::with_canceller(move || counted.set(counted.get() + 1));
    let deferred = source.add_callback(|number| Ok(number + 1)).add_callback(Ok);
    deferred.cancel();
    deferred.cancel();
    assert_eq!(cancelled.get(), 1);
    assert!(trigger.is_cancelled());
    assert_eq!(trigger.callback(1), Err(1));
    assert_eq!(deferred.try_result(), Some(Err(DeferredError::Cancelled)));
    // Through a chain to the deferred that is waited for.
    let (inner, second) = Number::pair();
    let deferred = Number::succeed(1).chain(move |_| second);
    deferred.cancel();
    assert!(inner.is_cancelled());
    assert_eq!(deferred.try_result(), Some(Err(DeferredError::Cancelled)));
}

#[test]
fn a_canceller_may_give_a_result_after_all() {
    let slot: Rc<RefCell<Option<Trigger<u32, String>>>> = Rc::default();
    let own = slot.clone();
    let (trigger, deferred) = Number::with_canceller(move || {
        own.take().expect("it is there").callback(42).unwrap();
    });
    slot.replace(Some(trigger));
    deferred.cancel();
    assert_eq!(deferred.try_result(), Some(Ok(42)));
}

#[test]
fn a_trigger_that_is_dropped_cancels() {
    let (trigger, deferred) = Number::pair();
    drop(trigger);
    assert_eq!(deferred.try_result(), Some(Err(DeferredError::Cancelled)));
}

#[test]
fn a_timeout_comes_exactly_in_time_and_only_if_there_is_no_result() {
    let (virtual_loop, reports) = virtual_loop();
    virtual_loop
        .run_until_complete(async {
            let began = LoopHandle::current().time();
            let (trigger, deferred) = Number::pair();
            let result = deferred.add_timeout(5 * SECOND).await;
            assert_eq!(result, Err(DeferredError::TimedOut));
            assert_eq!(LoopHandle::current().time() - began, 5 * SECOND);
            assert!(trigger.is_cancelled());
            let (trigger, deferred) = Number::pair();
            let deferred = deferred.add_timeout(5 * SECOND);
            LoopHandle::current().call_later(4 * SECOND, |_| trigger.callback(1).unwrap());
            assert_eq!(deferred.await, Ok(1));
            assert_eq!(LoopHandle::current().statistics().timers, 0);
            // Who cancels by hand gets no timeout.
            let (_trigger, deferred) = Number::pair();
            let deferred = deferred.add_timeout(5 * SECOND);
            deferred.cancel();
            assert_eq!(deferred.await, Err(DeferredError::Cancelled));
        })
        .unwrap();
    assert_eq!(*reports.borrow(), [""; 0]);
}

#[test]
fn a_deferred_is_awaited_and_a_future_becomes_a_deferred() {
    let (virtual_loop, _) = virtual_loop();
    virtual_loop
        .run_until_complete(async {
            let slow = Number::from_future(async {
                sleep(SECOND).await;
                Ok(20)
            });
            assert_eq!(slow.add_callback(|number| Ok(number + 1)).await, Ok(21));
            let failing = Number::from_future(async { Err("no".into()) });
            assert_eq!(failing.await, Err(DeferredError::Failed("no".into())));
            let (trigger, deferred) = Number::pair();
            let waiter = spawn(deferred.into_future());
            sleep(SECOND).await;
            trigger.callback(5).unwrap();
            assert_eq!(waiter.await.unwrap(), Ok(5));
        })
        .unwrap();
}

#[test]
fn a_cancel_cancels_the_task_and_a_dropped_wait_the_deferred() {
    let (virtual_loop, reports) = virtual_loop();
    let dropped = Rc::new(Cell::new(false));
    struct Flag(Rc<Cell<bool>>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let flag = Flag(dropped.clone());
    virtual_loop
        .run_until_complete(async move {
            let deferred = Number::from_future(async move {
                let _flag = flag;
                std::future::pending().await
            });
            sleep(SECOND).await;
            deferred.cancel();
            assert_eq!(deferred.await, Err(DeferredError::Cancelled));
            sleep(SECOND).await;
            let (trigger, deferred) = Number::pair();
            let waited = tulipa_loop::timeout(SECOND, deferred.into_future()).await;
            assert!(waited.is_err());
            assert!(trigger.is_cancelled());
        })
        .unwrap();
    assert!(dropped.get());
    assert_eq!(*reports.borrow(), [""; 0]);
}

#[test]
fn an_error_that_nobody_takes_is_reported_once_with_its_place() {
    let (virtual_loop, reports) = virtual_loop();
    virtual_loop
        .run_until_complete(async {
            // Dropped before the error, and behind it; at the end of a chain.
            let (trigger, deferred) = Number::pair();
            drop(deferred.add_callback(|number| Ok(number + 1)));
            trigger.errback("before".into()).unwrap();
            drop(Number::fail("behind".into()));
            let handled = Number::fail("handled".into()).add_errback(|_| Ok(1));
            drop(handled);
            let (inner, second) = Number::pair();
            drop(Number::succeed(1).chain(move |_| second));
            inner.errback("through a chain".into()).unwrap();
        })
        .unwrap();
    let reports = reports.borrow();
    assert_eq!(reports.len(), 3, "{reports:?}");
    for (report, what) in reports.iter().zip(["before", "behind", "through a chain"]) {
        assert!(report.starts_with(&format!("unhandled error in a deferred: {what}")), "{report}");
        assert!(report.contains("deferreds.rs"), "{report}");
    }
}

#[test]
fn a_callback_that_panics_is_reported_once_and_is_an_error_of_the_chain() {
    let (virtual_loop, reports) = virtual_loop();
    virtual_loop
        .run_until_complete(async {
            let deferred = Number::succeed(1)
                .add_callback(|_| -> Result<u32, String> { resume_unwind(Box::new("oh")) });
            assert_eq!(deferred.await, Err(DeferredError::Panicked("oh".into())));
            drop(
                Number::succeed(1)
                    .add_callback(|_| -> Result<u32, String> { resume_unwind(Box::new("oh")) }),
            );
            let (trigger, deferred) = Number::with_canceller(|| resume_unwind(Box::new("oh")));
            deferred.cancel();
            assert!(trigger.is_cancelled());
            drop(deferred);
            // The queue works on.
            assert_eq!(Number::succeed(1).add_callback(|n| Ok(n + 1)).try_result(), Some(Ok(2)));
        })
        .unwrap();
    assert_eq!(reports.borrow().len(), 3, "{:?}", reports.borrow());
}

#[test]
fn what_callbacks_hold_is_dropped_with_what_never_comes() {
    let alive = Rc::new(());
    let (trigger, deferred) = Number::pair();
    let held = alive.clone();
    let deferred = deferred.add_callback(move |number| {
        let _held = &held;
        Ok(number)
    });
    drop(deferred);
    assert_eq!(Rc::strong_count(&alive), 2);
    drop(trigger);
    assert_eq!(Rc::strong_count(&alive), 1);
}
