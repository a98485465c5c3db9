//! Panics, the exception handler, the log, debug mode.

mod common;

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::panic_any;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

use common::{Drops, Journal, Logged, OnDrop, capture_logs, journal_reports, millis, secs};
use tracing::Level;
use tulipa_loop::{ErrorContext, EventLoop, Failure, Instrument, LoopHandle, Origin};
use tulipa_testing::VirtualLoop;

fn context(text: &str) -> ErrorContext {
    ErrorContext::error("while testing", text.to_owned())
}

fn errors(logged: &[Logged]) -> Vec<&str> {
    assert!(logged.iter().all(|event| event.target == "tulipa" && event.level == Level::ERROR));
    logged.iter().map(|event| event.message.as_str()).collect()
}

#[test]
fn b57_a_panic_in_a_callback_is_reported_once_with_its_place_and_the_loop_goes_on() {
    let virtual_loop = VirtualLoop::new();
    let (reports, journal) = (journal_reports(&virtual_loop), Journal::new());
    let line = line!() + 1;
    virtual_loop.call_soon(|_| panic!("of a {}", "callback"));
    virtual_loop.call_soon(journal.note("the next one"));
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["the next one"]);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].origin, reports[0].line), (Some(Origin::Callback), Some(line)));
    assert_eq!(reports[0].text, "of a callback");
    assert_eq!(virtual_loop.run_until_complete(async { 1 }).unwrap(), 1);
}

#[test]
fn b57_a_panic_in_a_timer_is_reported_once_with_its_place_and_the_others_fire() {
    let virtual_loop = VirtualLoop::new();
    let (reports, journal) = (journal_reports(&virtual_loop), Journal::new());
    let when = virtual_loop.time() + secs(1);
    let line = line!() + 1;
    virtual_loop.call_at(when, |_| panic!("of a timer"));
    virtual_loop.call_at(when, journal.note("the next one"));
    virtual_loop.advance(secs(2));
    assert_eq!(journal.take(), ["the next one"]);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].origin, reports[0].line), (Some(Origin::Timer), Some(line)));
}

#[test]
fn b57_a_panic_in_a_destructor_of_what_a_callback_holds_is_reported() {
    let virtual_loop = VirtualLoop::new();
    let (reports, journal) = (journal_reports(&virtual_loop), Journal::new());
    let guard = OnDrop::new(|| panic!("of a destructor"));
    virtual_loop.call_soon(move |_| drop(guard));
    let guard = OnDrop::new(|| panic!("of another destructor"));
    virtual_loop.call_soon(move |_| {
        let _guard = guard;
    });
    virtual_loop.call_soon(journal.note("the next one"));
    virtual_loop.run_until_idle();
    assert_eq!((journal.len(), reports.len()), (1, 2));
}

struct BadWaker;

impl Wake for BadWaker {
    fn wake(self: Arc<Self>) {
        panic!("of a waker");
    }
}

#[test]
fn b57_a_panic_in_a_waker_is_reported_and_goes_no_further() {
    let virtual_loop = VirtualLoop::new();
    let (reports, journal) = (journal_reports(&virtual_loop), Journal::new());
    let (promise, future) = virtual_loop.create_future();
    let mut future = Box::pin(future);
    let waker = Waker::from(Arc::new(BadWaker));
    assert!(future.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    let log = journal.clone();
    virtual_loop.call_soon(move |_| {
        promise.set(()).unwrap();
        log.add("set");
    });
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["set"]);
    let reports = reports.take();
    assert_eq!((reports.len(), reports[0].origin), (1, Some(Origin::Release)));
}

#[test]
fn b58_a_payload_that_panics_when_it_is_dropped_does_not_harm_the_loop() {
    let virtual_loop = VirtualLoop::new();
    let journal = Journal::new();
    let (reports, line) = (journal_reports(&virtual_loop), line!() + 1);
    virtual_loop.call_soon(|_| panic_any(Bomb));
    virtual_loop.call_soon(journal.note("the next one"));
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["the next one"]);
    let reports = reports.take();
    assert_eq!((reports.len(), reports[0].line), (1, Some(line)));
    assert_eq!(reports[0].text, "no message");

    // And with the default handler, and from inside the exception handler.
    virtual_loop.set_exception_handler(None);
    virtual_loop.call_soon(|_| panic_any(Bomb));
    let ((), logged) = capture_logs(|| virtual_loop.run_until_idle());
    assert_eq!(errors(&logged), ["panic in a callback: no message"]);
    virtual_loop.set_exception_handler(Some(Rc::new(|_: &LoopHandle, _: &ErrorContext| {
        panic_any(Bomb);
    })));
    virtual_loop.call_soon(|_| panic_any(Bomb));
    let ((), logged) = capture_logs(|| virtual_loop.run_until_idle());
    assert_eq!(logged.len(), 2);
}

/// Panics when it is dropped, with a payload that does so too.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        thread_local! {
            static DEPTH: Cell<u32> = const { Cell::new(0) };
        }
        // Three levels are enough, and it must end somewhere.
        DEPTH.set(DEPTH.get() + 1);
        if !DEPTH.get().is_multiple_of(3) {
            panic_any(Bomb);
        }
    }
}

#[test]
fn the_default_handler_logs_one_error_with_text_and_place() {
    let virtual_loop = VirtualLoop::new();
    assert!(virtual_loop.exception_handler().is_none());
    let line = line!() + 1;
    virtual_loop.call_soon(|_| panic!("of a callback"));
    let ((), logged) = capture_logs(|| virtual_loop.run_until_idle());
    assert_eq!(errors(&logged), ["panic in a callback: of a callback"]);
    let place = format!("location={}:{line}:", file!());
    assert!(logged[0].fields.iter().any(|field| field.starts_with(&place)), "{logged:?}");
}

#[test]
fn call_exception_handler_passes_errors_on() {
    let virtual_loop = VirtualLoop::new();
    let reports = journal_reports(&virtual_loop);
    let line = line!() + 1;
    virtual_loop.call_exception_handler(ErrorContext::error("while reading", "no disk"));
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].origin, reports[0].line), (None, Some(line)));
    assert_eq!(reports[0].text, "no disk");
    virtual_loop.set_exception_handler(None);
    let ((), logged) = capture_logs(|| virtual_loop.call_exception_handler(context("no disk")));
    assert_eq!(errors(&logged), ["while testing: no disk"]);
}

#[test]
fn a_custom_handler_can_pass_failures_on_to_the_default_one() {
    let virtual_loop = VirtualLoop::new();
    let journal = Journal::new();
    let log = journal.clone();
    virtual_loop.set_exception_handler(Some(Rc::new(
        move |handle: &LoopHandle, context: &ErrorContext| {
            log.add(context.to_string());
            handle.default_exception_handler(context);
        },
    )));
    assert!(virtual_loop.exception_handler().is_some());
    virtual_loop.call_soon(|_| panic!("of a callback"));
    let ((), logged) = capture_logs(|| virtual_loop.run_until_idle());
    assert_eq!(errors(&logged), ["panic in a callback: of a callback"]);
    let text = journal.take().remove(0);
    assert!(text.starts_with("panic in a callback: of a callback (created at "), "{text}");
}

#[test]
fn a_handler_that_panics_is_logged_together_with_the_failure_it_was_told_of() {
    let virtual_loop = VirtualLoop::new();
    virtual_loop.set_exception_handler(Some(Rc::new(|_: &LoopHandle, _: &ErrorContext| {
        panic!("of the handler");
    })));
    let journal = Journal::new();
    virtual_loop.call_soon(|_| panic!("of a callback"));
    virtual_loop.call_soon(journal.note("the next one"));
    let ((), logged) = capture_logs(|| virtual_loop.run_until_idle());
    let expected =
        ["panic in a callback: of a callback", "panic in the exception handler: of the handler"];
    assert_eq!(errors(&logged), expected);
    assert_eq!(journal.len(), 1);
}

#[test]
fn a_handler_may_replace_itself_and_is_dropped_when_it_is_done() {
    let virtual_loop = VirtualLoop::new();
    let (journal, drops) = (Journal::new(), Drops::default());
    let (log, token, count) = (journal.clone(), drops.token(), drops.clone());
    virtual_loop.set_exception_handler(Some(Rc::new(
        move |handle: &LoopHandle, context: &ErrorContext| {
            let _ = &token;
            log.add(format!("first: {}", context.failure));
            let second = log.clone();
            handle.set_exception_handler(Some(Rc::new(
                move |_: &LoopHandle, context: &ErrorContext| {
                    second.add(format!("second: {}", context.failure));
                },
            )));
            assert_eq!(count.count(), 0, "it is running");
        },
    )));
    virtual_loop.call_soon(|_| panic!("one"));
    virtual_loop.call_soon(|_| panic!("two"));
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["first: one", "second: two"]);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_handler_that_replaced_itself_and_panics_when_it_is_dropped_is_logged() {
    let virtual_loop = VirtualLoop::new();
    let guard = OnDrop::new(|| panic!("of the handler's destructor"));
    virtual_loop.set_exception_handler(Some(Rc::new(
        move |handle: &LoopHandle, _: &ErrorContext| {
            let _ = &guard;
            handle.set_exception_handler(None);
        },
    )));
    let journal = Journal::new();
    virtual_loop.call_soon(|_| panic!("of a callback"));
    virtual_loop.call_soon(journal.note("the next one"));
    let ((), logged) = capture_logs(|| virtual_loop.run_until_idle());
    assert_eq!(logged.len(), 2, "{logged:?}");
    assert_eq!(journal.len(), 1);
}

#[test]
fn a_handler_may_use_the_loop_and_fail_again() {
    let virtual_loop = VirtualLoop::new();
    let journal = Journal::new();
    let log = journal.clone();
    virtual_loop.set_exception_handler(Some(Rc::new(
        move |handle: &LoopHandle, context: &ErrorContext| {
            log.add(context.failure.to_string());
            if log.len() == 1 {
                handle.call_exception_handler(ErrorContext::error("again", "nested"));
                handle.call_soon(|_| panic!("scheduled"));
                handle.call_later(millis(1), log.note("timer".to_owned()));
            }
        },
    )));
    virtual_loop.call_soon(|_| panic!("first"));
    virtual_loop.advance(millis(1));
    assert_eq!(journal.take(), ["first", "nested", "scheduled", "timer"]);
}

struct BadSubscriber;

impl tracing::Subscriber for BadSubscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "tulipa"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        panic!("of the log");
    }

    fn enter(&self, _: &tracing::Id) {}

    fn exit(&self, _: &tracing::Id) {}
}

#[test]
fn b57_a_log_that_panics_does_not_end_the_loop() {
    let virtual_loop = VirtualLoop::from_builder(EventLoop::builder().debug(true));
    let journal = Journal::new();
    virtual_loop.call_soon(slow(&virtual_loop, 200));
    virtual_loop.call_soon(|_| panic!("of a callback"));
    virtual_loop.call_soon(journal.note("the next one"));
    tracing::subscriber::with_default(BadSubscriber, || virtual_loop.run_until_idle());
    assert_eq!(journal.len(), 1);
}

struct BadInstrument;

impl Instrument for BadInstrument {
    fn before_callback(&self, _: Origin, _: Option<&'static std::panic::Location<'static>>) {
        panic!("of an instrument");
    }
}

#[test]
fn b57_a_panic_in_an_instrument_is_reported_and_the_callback_still_runs() {
    let virtual_loop = VirtualLoop::new();
    let (reports, journal) = (journal_reports(&virtual_loop), Journal::new());
    virtual_loop.set_instrument(Some(Rc::new(BadInstrument)));
    virtual_loop.call_soon(journal.note("ran"));
    virtual_loop.run_until_idle();
    assert_eq!(journal.len(), 1);
    let reports = reports.take();
    assert_eq!((reports.len(), reports[0].origin), (1, Some(Origin::Instrument)));
}

#[test]
fn the_payload_of_a_panic_reaches_the_handler() {
    let virtual_loop = VirtualLoop::new();
    let found = Rc::new(Cell::new(0));
    let inner = found.clone();
    virtual_loop.set_exception_handler(Some(Rc::new(
        move |_: &LoopHandle, context: &ErrorContext| {
            let Failure::Panic(payload) = &context.failure else { panic!("it was a panic") };
            inner.set(*payload.downcast_ref::<u32>().unwrap());
        },
    )));
    virtual_loop.call_soon(|_| panic_any(77u32));
    virtual_loop.run_until_idle();
    assert_eq!(found.get(), 77);
}

fn slow(virtual_loop: &VirtualLoop, by: u64) -> impl FnOnce(&LoopHandle) + use<> {
    let world = virtual_loop.world().clone();
    move |_| world.advance(millis(by))
}

#[test]
fn debug_mode_logs_slow_callbacks_and_timers_with_their_place() {
    let virtual_loop = VirtualLoop::from_builder(EventLoop::builder().debug(true));
    assert!(virtual_loop.debug());
    assert_eq!(virtual_loop.slow_callback_duration(), millis(100));
    virtual_loop.call_soon(slow(&virtual_loop, 99));
    let line = line!() + 1;
    virtual_loop.call_soon(slow(&virtual_loop, 100));
    virtual_loop.call_later(millis(300), slow(&virtual_loop, 250));
    let ((), logged) = capture_logs(|| virtual_loop.advance(secs(1)));
    assert_eq!(logged.len(), 2, "{logged:?}");
    assert!(logged.iter().all(|event| event.level == Level::WARN && event.target == "tulipa"));
    let place = format!("executing a callback created at {}:{line}:", file!());
    assert!(logged[0].message.starts_with(&place), "{logged:?}");
    assert!(logged[0].message.ends_with(" took 100ms"), "{logged:?}");
    assert!(logged[1].message.starts_with("executing a timer created at "));
    assert!(logged[1].message.ends_with(" took 250ms"), "{logged:?}");
}

#[test]
fn debug_mode_logs_slow_steps_of_the_main_future() {
    let virtual_loop = VirtualLoop::from_builder(EventLoop::builder().debug(true));
    let line = line!() + 2;
    let run = || {
        virtual_loop.run_until_complete(poll_fn(|_| {
            virtual_loop.world().advance(millis(300));
            Poll::Ready(())
        }))
    };
    let (result, logged) = capture_logs(run);
    result.unwrap();
    assert_eq!(logged.len(), 1, "{logged:?}");
    let place = format!("executing the main future created at {}:{line}:", file!());
    assert!(logged[0].message.starts_with(&place), "{logged:?}");
}

#[test]
fn debug_mode_may_be_toggled_while_the_loop_runs() {
    let virtual_loop = VirtualLoop::from_builder(EventLoop::builder().debug(false));
    virtual_loop.set_slow_callback_duration(millis(5));
    assert_eq!(virtual_loop.slow_callback_duration(), millis(5));
    virtual_loop.call_soon(slow(&virtual_loop, 10));
    virtual_loop.call_soon(|handle| handle.set_debug(true));
    virtual_loop.call_soon(slow(&virtual_loop, 11));
    virtual_loop.call_soon(|handle| handle.set_debug(false));
    virtual_loop.call_soon(slow(&virtual_loop, 12));
    let ((), logged) = capture_logs(|| virtual_loop.run_until_idle());
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].message.ends_with("took 11ms"));
    assert!(!virtual_loop.debug());
}

#[test]
fn a_callback_that_is_slow_and_panics_is_reported_for_both() {
    let virtual_loop = VirtualLoop::from_builder(EventLoop::builder().debug(true));
    let world = virtual_loop.world().clone();
    virtual_loop.call_soon(move |_| {
        world.advance(secs(1));
        panic!("late and wrong");
    });
    let ((), logged) = capture_logs(|| virtual_loop.run_until_idle());
    let levels: Vec<_> = logged.iter().map(|event| event.level).collect();
    assert_eq!(levels, [Level::WARN, Level::ERROR]);
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn tulipa_debug_in_the_environment_turns_debug_mode_on() {
    for (value, debug) in [(Some("1"), "on"), (Some("0"), "off"), (Some(""), "off"), (None, "off")]
    {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "child_with_tulipa_debug", "--nocapture"]);
        child.env_remove("TULIPA_DEBUG").env("TULIPA_TEST_EXPECTED", debug);
        if let Some(value) = value {
            child.env("TULIPA_DEBUG", value);
        }
        let output = child.output().unwrap();
        assert!(output.status.success(), "{value:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The other process of the test above; does nothing when it is run by itself.
#[test]
fn child_with_tulipa_debug() {
    let Ok(expected) = std::env::var("TULIPA_TEST_EXPECTED") else { return };
    let debug = expected == "on";
    assert_eq!(EventLoop::new().unwrap().debug(), debug);
    assert_eq!(VirtualLoop::new().debug(), debug);
    let built = EventLoop::builder().debug(!debug).build().unwrap();
    assert_eq!(built.debug(), !debug, "the builder decides");
}

#[test]
fn the_builder_sets_the_exception_handler() {
    let journal = Journal::new();
    let log = journal.clone();
    let builder = EventLoop::builder()
        .exception_handler(move |_, context| log.add(context.message.clone()))
        .slow_callback_duration(secs(9));
    let virtual_loop = VirtualLoop::from_builder(builder);
    assert_eq!(virtual_loop.slow_callback_duration(), secs(9));
    virtual_loop.call_soon(|_| panic!("of a callback"));
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["panic in a callback"]);
}

#[test]
fn an_error_or_panic_of_a_task_that_nobody_awaits_is_one_log_record_with_its_place() {
    let virtual_loop = VirtualLoop::new();
    let line = line!() + 1;
    virtual_loop.spawn(async { Err::<(), _>("Exception time") }).detach();
    drop(virtual_loop.spawn(async { panic!("nobody awaits this") }));
    let ((), logged) = capture_logs(|| virtual_loop.run_until_idle());
    assert_eq!(logged.len(), 2);
    for (logged, text, line) in
        [(&logged[0], "Exception time", line), (&logged[1], "nobody awaits this", line + 1)]
    {
        assert_eq!((logged.level, logged.target.as_str()), (Level::ERROR, "tulipa"));
        assert!(logged.message.contains(text), "{logged:?}");
        let place = format!("reports.rs:{line}:");
        assert!(logged.fields.iter().any(|field| field.contains(&place)), "{logged:?}");
    }
}
