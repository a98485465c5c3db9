//! `Promise`, `LoopFuture`, `SharedFuture`, done callbacks.

mod common;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use common::{Drops, Journal, journal_reports, millis, secs, strict_loop};
use tulipa_loop::{Cancelled, LoopFuture, LoopHandle, Origin, Outcome, Promise};
use tulipa_selector::Token;

fn note_outcome(journal: &Journal<Outcome>) -> impl FnOnce(&LoopHandle, Outcome) + use<> {
    let journal = journal.clone();
    move |_, outcome| journal.add(outcome)
}

#[test]
fn a_future_belongs_to_the_loop_that_made_it() {
    let virtual_loop = strict_loop();
    let (promise, future) = virtual_loop.create_future::<u32>();
    assert_eq!(format!("{:?}", future.get_loop()), format!("{:?}", virtual_loop.handle()));
    drop(promise);
    assert!(future.is_cancelled());
}

#[test]
fn done_callbacks_run_in_the_order_of_their_registration_and_never_inline() {
    let virtual_loop = strict_loop();
    let (promise, future) = virtual_loop.create_future();
    let journal = Journal::new();
    for number in 0..3 {
        let log = journal.clone();
        future.add_done_callback(move |_, outcome| log.add((number, outcome)));
    }
    promise.set(7).unwrap();
    assert!(future.is_done() && !future.is_cancelled());
    assert_eq!(journal.len(), 0);
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), [(0, Outcome::Value), (1, Outcome::Value), (2, Outcome::Value)]);
    virtual_loop.run_until_idle();
    assert_eq!(journal.len(), 0, "once");
    drop(future);
}

#[test]
fn done_callbacks_queue_up_with_the_other_callbacks() {
    let virtual_loop = strict_loop();
    let (promise, future) = virtual_loop.create_future();
    let journal = Journal::new();
    let log = journal.clone();
    future.add_done_callback(move |_, _| log.add("done"));
    virtual_loop.call_soon(journal.note("before"));
    promise.set(()).unwrap();
    virtual_loop.call_soon(journal.note("after"));
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["before", "done", "after"]);
}

#[test]
fn a_done_callback_added_to_a_future_that_is_done_is_not_run_inline_either() {
    let virtual_loop = strict_loop();
    let (promise, future) = virtual_loop.create_future();
    promise.set(()).unwrap();
    let journal = Journal::new();
    let id = future.add_done_callback(note_outcome(&journal));
    assert_eq!(journal.len(), 0);
    assert!(!future.remove_done_callback(id), "it is scheduled already");
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), [Outcome::Value]);
}

#[test]
fn a_done_callback_can_be_removed_until_it_is_scheduled() {
    let virtual_loop = strict_loop();
    let (promise, future) = virtual_loop.create_future();
    let (journal, drops) = (Journal::new(), Drops::default());
    let token = drops.token();
    let removed = future.add_done_callback(move |_, _| drop(token));
    let kept = future.add_done_callback(note_outcome(&journal));
    assert!(future.remove_done_callback(removed));
    assert_eq!(drops.count(), 1, "freed at once");
    assert!(!future.remove_done_callback(removed));
    promise.set(()).unwrap();
    assert!(!future.remove_done_callback(kept));
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), [Outcome::Value]);
}

#[test]
fn cancel_says_whether_it_came_in_time_and_tells_everybody() {
    let virtual_loop = strict_loop();
    let (promise, mut future) = virtual_loop.create_future();
    let journal = Journal::new();
    future.add_done_callback(note_outcome(&journal));
    assert!(!promise.is_cancelled());
    assert!(future.cancel());
    assert!(!future.cancel());
    assert!(future.is_done() && future.is_cancelled() && promise.is_cancelled());
    assert_eq!(promise.set("too late"), Err("too late"));
    assert_eq!(future.try_take(), Some(Err(Cancelled)));
    assert_eq!(future.try_take(), Some(Err(Cancelled)), "as often as it is asked");
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), [Outcome::Cancelled]);
    assert_eq!(virtual_loop.run_until_complete(future).unwrap(), Err(Cancelled));
}

#[test]
fn cancel_after_the_value_does_nothing() {
    let virtual_loop = strict_loop();
    let (promise, mut future) = virtual_loop.create_future();
    promise.set(1).unwrap();
    assert!(!future.cancel());
    assert!(!future.is_cancelled());
    assert_eq!(future.try_take(), Some(Ok(1)));
    assert!(future.is_done() && !future.is_cancelled(), "also when the value was taken");
    assert!(!future.cancel());
}

#[test]
fn a_promise_that_is_dropped_cancels() {
    let virtual_loop = strict_loop();
    let (promise, future) = virtual_loop.create_future::<()>();
    virtual_loop.call_later(secs(1), move |_| drop(promise));
    assert_eq!(virtual_loop.run_until_complete(future).unwrap(), Err(Cancelled));
    assert_eq!(Cancelled.to_string(), "the future was cancelled");
}

#[test]
fn an_error_is_a_value() {
    let virtual_loop = strict_loop();
    let (promise, mut future) = virtual_loop.create_future::<Result<u32, &str>>();
    promise.set(Err("no")).unwrap();
    assert_eq!(future.try_take(), Some(Ok(Err("no"))));
}

#[test]
fn the_value_is_taken_once() {
    let virtual_loop = strict_loop();
    let (promise, mut future) = virtual_loop.create_future();
    assert_eq!(future.try_take(), None);
    promise.set(1).unwrap();
    assert_eq!(future.try_take(), Some(Ok(1)));
    let again = catch_unwind(AssertUnwindSafe(|| future.try_take()));
    assert!(again.is_err());
    assert!(future.is_done(), "nothing is left borrowed");
}

#[test]
fn sharing_a_future_whose_value_was_taken_panics_instead_of_waiting_for_ever() {
    let virtual_loop = strict_loop();
    let (promise, mut future) = virtual_loop.create_future();
    promise.set(1).unwrap();
    assert_eq!(future.try_take(), Some(Ok(1)));
    let shared = future.shared();
    let asked = catch_unwind(AssertUnwindSafe(|| shared.try_result()));
    assert!(asked.is_err());
    assert!(shared.is_done());
}

#[test]
fn awaiting_can_be_given_up_and_taken_up_again() {
    let virtual_loop = strict_loop();
    let (promise, mut future) = virtual_loop.create_future();
    virtual_loop.stop();
    assert!(virtual_loop.run_until_complete(&mut future).is_err());
    virtual_loop.call_later(secs(1), move |_| promise.set(1).unwrap());
    assert_eq!(virtual_loop.run_until_complete(&mut future).unwrap(), Ok(1));
}

#[test]
fn a_future_that_is_dropped_detaches() {
    let virtual_loop = strict_loop();
    let (promise, future) = virtual_loop.create_future();
    let (journal, drops) = (Journal::new(), Drops::default());
    future.add_done_callback(note_outcome(&journal));
    drop(future);
    assert!(!promise.is_cancelled());
    assert!(promise.set(drops.token()).is_ok());
    assert_eq!(drops.count(), 1, "nobody can ask for the value");
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), [Outcome::Value]);
}

struct Woken {
    log: Arc<std::sync::Mutex<Vec<usize>>>,
    number: usize,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.log.lock().unwrap().push(self.number);
    }
}

#[test]
fn all_who_wait_for_a_shared_future_are_woken_in_the_order_in_which_they_began() {
    let virtual_loop = strict_loop();
    let (promise, future) = virtual_loop.create_future();
    let first = future.shared();
    let mut waiting: Vec<_> = (0..4).map(|_| first.clone()).collect();
    let log = Arc::default();
    for (number, future) in waiting.iter_mut().enumerate().rev() {
        let waker = Waker::from(Arc::new(Woken { log: Arc::clone(&log), number }));
        assert!(pin!(future).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    // One is polled again, which keeps its place, and one gives up.
    let waker = Waker::from(Arc::new(Woken { log: Arc::clone(&log), number: 3 }));
    assert!(pin!(&mut waiting[3]).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waiting.remove(1));
    promise.set("value".to_owned()).unwrap();
    assert_eq!(*log.lock().unwrap(), [3, 2, 0]);
    for mut future in waiting {
        let polled = pin!(&mut future).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Ok("value".to_owned())));
    }
    assert_eq!(first.try_result(), Some(Ok("value".to_owned())), "as often as it is asked");
    assert_eq!(virtual_loop.run_until_complete(first.clone()).unwrap(), Ok("value".to_owned()));
}

#[test]
fn every_waiter_hears_of_a_cancelled_shared_future() {
    let virtual_loop = strict_loop();
    let (promise, future) = virtual_loop.create_future::<u8>();
    let shared = future.shared();
    let other = shared.clone();
    let journal = Journal::new();
    shared.add_done_callback(note_outcome(&journal));
    assert_eq!(shared.try_result(), None);
    assert!(other.cancel());
    assert!(promise.is_cancelled());
    assert_eq!(virtual_loop.run_until_complete(shared).unwrap(), Err(Cancelled));
    assert_eq!(other.try_result(), Some(Err(Cancelled)));
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), [Outcome::Cancelled]);
}

struct PanicsWhenWoken;

impl Wake for PanicsWhenWoken {
    fn wake(self: Arc<Self>) {
        panic!("of a waker");
    }
}

#[test]
fn b57_a_waker_that_panics_keeps_nobody_else_from_being_woken() {
    let virtual_loop = strict_loop();
    let reports = journal_reports(&virtual_loop);
    let (promise, future) = virtual_loop.create_future();
    let mut first = future.shared();
    let mut second = first.clone();
    let bad = Waker::from(Arc::new(PanicsWhenWoken));
    assert!(pin!(&mut first).poll(&mut Context::from_waker(&bad)).is_pending());
    let log = Arc::default();
    let good = Waker::from(Arc::new(Woken { log: Arc::clone(&log), number: 2 }));
    assert!(pin!(&mut second).poll(&mut Context::from_waker(&good)).is_pending());
    assert!(promise.set(1).is_ok());
    assert_eq!(*log.lock().unwrap(), [2]);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(
        (reports[0].origin, reports[0].text.as_str()),
        (Some(Origin::Release), "of a waker")
    );
}

#[test]
fn a_done_callback_that_panics_is_reported_with_its_place() {
    let virtual_loop = strict_loop();
    let reports = journal_reports(&virtual_loop);
    let (promise, future) = virtual_loop.create_future();
    let journal = Journal::new();
    let line = line!() + 1;
    future.add_done_callback(|_, _| panic!("of a done callback"));
    future.add_done_callback(note_outcome(&journal));
    promise.set(()).unwrap();
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), [Outcome::Value]);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].origin, reports[0].line), (Some(Origin::Done), Some(line)));
}

#[test]
fn from_callback_turns_a_callback_into_a_future() {
    let virtual_loop = strict_loop();
    let future = virtual_loop.from_callback(|promise: Promise<u32>| {
        virtual_loop.call_later(secs(1), move |_| promise.set(42).unwrap());
    });
    assert_eq!(virtual_loop.run_until_complete(future).unwrap(), Ok(42));
    let dropped: LoopFuture<()> = virtual_loop.from_callback(drop);
    assert!(dropped.is_cancelled());
}

#[test]
fn futures_and_promises_describe_themselves() {
    let virtual_loop = strict_loop();
    let line = line!() + 1;
    let (promise, future) = virtual_loop.create_future();
    let place = format!("created at {}:{line}:42>", file!());
    assert_eq!(format!("{promise:?}"), format!("<Promise pending callbacks=0 {place}"));
    future.add_done_callback(|_, _| ());
    assert_eq!(format!("{future:?}"), format!("<LoopFuture pending callbacks=1 {place}"));
    promise.set(1).unwrap();
    assert_eq!(format!("{future:?}"), format!("<LoopFuture finished callbacks=0 {place}"));
    let shared = future.shared();
    assert_eq!(format!("{shared:?}"), format!("<SharedFuture finished callbacks=0 {place}"));
    let (_promise, future) = virtual_loop.create_future::<()>();
    future.cancel();
    assert!(format!("{future:?}").starts_with("<LoopFuture cancelled callbacks=0 "));
}

#[test]
fn a_value_may_be_set_and_futures_dropped_from_inside_a_done_callback() {
    let virtual_loop = strict_loop();
    let (first, future) = virtual_loop.create_future();
    let (second, next) = virtual_loop.create_future();
    let holder: Rc<RefCell<Option<LoopFuture<u8>>>> = Rc::default();
    let inner = holder.clone();
    future.add_done_callback(move |handle, _| {
        drop(inner.take());
        second.set(2).unwrap();
        drop(handle.create_future::<u8>());
    });
    holder.replace(Some(future));
    virtual_loop.call_later(millis(1), move |_| first.set(1).unwrap());
    assert_eq!(virtual_loop.run_until_complete(next).unwrap(), Ok(2));
}

#[test]
fn a_future_may_hold_itself_through_its_callback_without_leaking() {
    let virtual_loop = strict_loop();
    let drops = Drops::default();
    let token = drops.token();
    let (promise, future) = virtual_loop.create_future::<u8>();
    let shared = future.shared();
    let inner = shared.clone();
    shared.add_done_callback(move |_, _| {
        let _token = token;
        assert!(inner.is_done());
    });
    drop((promise, shared));
    virtual_loop.run_until_idle();
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_thread_answers_through_a_remote_call() {
    let virtual_loop = strict_loop();
    let hold = virtual_loop.world().hold();
    let remote = virtual_loop.remote();
    let promises: Rc<Cell<Option<Promise<u32>>>> = Rc::default();
    thread_local! {
        static WAITING: Cell<Option<Promise<u32>>> = const { Cell::new(None) };
    }
    let (promise, future) = virtual_loop.create_future();
    WAITING.set(Some(promise));
    drop(promises);
    let thread = thread::spawn(move || {
        remote.call_soon(|_| WAITING.take().unwrap().set(9).unwrap()).unwrap();
    });
    assert_eq!(virtual_loop.run_until_complete(future).unwrap(), Ok(9));
    thread.join().unwrap();
    drop(hold);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor");
    }
}

#[test]
fn b58_done_callbacks_that_a_closed_loop_drops_may_panic_and_the_waiter_is_still_woken() {
    let virtual_loop = tulipa_testing::VirtualLoop::new();
    let (promise, future) = virtual_loop.create_future::<u8>();
    for _ in 0..2 {
        let bomb = Bomb;
        future.add_done_callback(move |_, _| {
            let _bomb = &bomb;
        });
    }
    let woken = Arc::new(WokenFlag::default());
    let waker = Waker::from(woken.clone());
    let mut future = std::pin::pin!(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    virtual_loop.close().unwrap();
    promise.set(7).unwrap();
    assert!(woken.0.load(Ordering::SeqCst));
}

#[derive(Default)]
struct WokenFlag(AtomicBool);

impl std::task::Wake for WokenFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Does something for each piece that is written to it.
struct Meddling<F>(F);

impl<F: FnMut()> std::fmt::Write for Meddling<F> {
    fn write_str(&mut self, _text: &str) -> std::fmt::Result {
        (self.0)();
        Ok(())
    }
}

#[test]
fn b35_whoever_is_being_described_may_be_changed_by_the_writer() {
    use std::fmt::Write;
    let virtual_loop = tulipa_testing::VirtualLoop::new();
    let (promise, future) = virtual_loop.create_future::<u8>();
    let cancel = || {
        future.cancel();
    };
    write!(Meddling(cancel), "{future:?} {promise:?}").unwrap();
    let wires = virtual_loop.wires();
    write!(Meddling(|| wires.mark(Token::from_bits(0))), "{wires:?}").unwrap();
    let pool = tulipa_loop::ThreadPool::new(1);
    write!(Meddling(|| drop(pool.submit(|| ()))), "{pool:?}").unwrap();
    pool.shutdown(true, true).unwrap();
}
