//! Calls at equal distances: exact times, missed calls, stops from anywhere; and `react`.

mod common;

use std::cell::{Cell, RefCell};
use std::process::{ExitCode, Termination};
use std::rc::Rc;
use std::time::Duration;

use common::Journal;
use tulipa_loop::{Deferred, ErrorContext, LoopHandle, LoopingCall, react, sleep};
use tulipa_testing::VirtualLoop;

const SECOND: Duration = Duration::from_secs(1);

/// When calls came, in milliseconds, and how many were missed before.
fn journal() -> (Journal<(u128, u64)>, impl FnMut(u64)) {
    let (journal, began) = (Journal::new(), LoopHandle::current().time());
    let noted = journal.clone();
    let note = move |missed| {
        noted.add(((LoopHandle::current().time() - began).as_millis(), missed));
    };
    (journal, note)
}

fn in_virtual_time<F: Future<Output = ()> + 'static>(test: F) {
    VirtualLoop::new().run_until_complete(test).unwrap();
}

#[test]
fn calls_come_now_or_later_and_at_exact_distances() {
    in_virtual_time(async {
        let (first, note) = journal();
        let now = LoopingCall::now(SECOND, note);
        let (second, note) = journal();
        let later = LoopingCall::later(SECOND, note);
        sleep(Duration::from_millis(2500)).await;
        now.stop();
        later.stop();
        sleep(10 * SECOND).await;
        assert_eq!(first.take(), [(0, 0), (1000, 0), (2000, 0)]);
        assert_eq!(second.take(), [(1000, 0), (2000, 0)]);
        assert!(!now.is_running());
        assert_eq!(LoopHandle::current().statistics().timers, 0);
    });
}

#[test]
fn calls_for_which_there_was_no_time_are_left_out_and_counted_and_nothing_drifts() {
    let virtual_loop = VirtualLoop::new();
    let world = virtual_loop.world().clone();
    virtual_loop
        .run_until_complete(async move {
            let (times, mut note) = journal();
            let count = Rc::new(Cell::new(0));
            let call = LoopingCall::later(SECOND, move |missed| {
                note(missed);
                count.set(count.get() + 1);
                // The second one takes three seconds and a half, the others three tenths of one.
                world.advance(Duration::from_millis(if count.get() == 2 { 3500 } else { 300 }));
            });
            sleep(8 * SECOND + SECOND / 2).await;
            call.stop();
            let times = times.take();
            assert_eq!(times, [(1000, 0), (2000, 0), (6000, 3), (7000, 0), (8000, 0)]);
        })
        .unwrap();
}

#[test]
fn a_reset_begins_the_interval_anew_also_inside_of_the_call() {
    in_virtual_time(async {
        let (times, note) = journal();
        let call = LoopingCall::later(SECOND, note);
        sleep(Duration::from_millis(700)).await;
        call.reset();
        sleep(Duration::from_millis(2200)).await;
        call.stop();
        call.reset();
        assert_eq!(times.take(), [(1700, 0), (2700, 0)]);
        assert!(!call.is_running(), "what was stopped is not begun anew");
        let own: Rc<RefCell<Option<LoopingCall>>> = Rc::default();
        let (times, mut note) = journal();
        let inner = own.clone();
        let call = LoopingCall::later(SECOND, move |missed| {
            note(missed);
            let call = inner.borrow().clone();
            call.expect("it was put there").reset();
        });
        own.replace(Some(call.clone()));
        sleep(Duration::from_millis(2500)).await;
        call.stop();
        own.take();
        assert_eq!(times.take(), [(1000, 0), (2000, 0)]);
    });
}

#[test]
fn a_stop_inside_of_the_call_is_the_end_and_whoever_waits_hears_of_it() {
    in_virtual_time(async {
        let own: Rc<RefCell<Option<LoopingCall>>> = Rc::default();
        let inner = own.clone();
        let count = Rc::new(Cell::new(0));
        let counted = count.clone();
        let call = LoopingCall::later(SECOND, move |_| {
            counted.set(counted.get() + 1);
            if counted.get() == 3 {
                let call = inner.take();
                call.expect("it was put there").stop();
            }
        });
        own.replace(Some(call.clone()));
        let began = LoopHandle::current().time();
        call.stopped().await;
        assert_eq!(LoopHandle::current().time() - began, 3 * SECOND);
        call.stopped().await;
        assert_eq!((count.get(), Rc::strong_count(&count)), (3, 1), "the function is dropped");
    });
}

#[test]
fn a_panic_is_reported_and_the_last_call() {
    let virtual_loop = VirtualLoop::new();
    let reports = Journal::new();
    let journal = reports.clone();
    virtual_loop.set_exception_handler(Some(Rc::new(
        move |_: &LoopHandle, context: &ErrorContext| journal.add(context.to_string()),
    )));
    virtual_loop
        .run_until_complete(async {
            let call = LoopingCall::now(SECOND, |_| std::panic::resume_unwind(Box::new("oh")));
            call.stopped().await;
            assert!(!call.is_running());
            sleep(5 * SECOND).await;
        })
        .unwrap();
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("oh") && reports[0].contains("looping_calls.rs"), "{reports:?}");
}

#[test]
fn react_runs_a_program_and_gives_its_exit_status() {
    assert_eq!(react(|| async {}), ExitCode::SUCCESS);
    assert_eq!(react(|| async { ExitCode::from(3) }), ExitCode::from(3));
    assert_eq!(react(|| Deferred::<(), String>::succeed(())), ExitCode::SUCCESS);
    let failed = react(|| {
        let slow = Deferred::<(), String>::from_future(async {
            sleep(Duration::from_millis(1)).await;
            Err("no".to_owned())
        });
        slow.add_callback(|()| Ok(()))
    });
    assert_eq!(failed, ExitCode::FAILURE.report());
}
