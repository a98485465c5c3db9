//! Values that stay on their loop's thread while others carry them about.

#[path = "task_common/mod.rs"]
mod common;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{Log, OnDrop, reporting_loop};
use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt};
use tulipa_loop::{LoopBound, LoopHandle, as_completed, sleep, spawn, yield_now};
use tulipa_testing::VirtualLoop;

const SECOND: Duration = Duration::from_secs(1);

fn wants_send<T: Send + Sync + 'static>(value: T) -> T {
    value
}

/// Moves a value to another thread, does something with it there, and waits for that.
fn elsewhere<T: Send, R: Send>(value: T, f: impl FnOnce(T) -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(move || f(value)).join().unwrap())
}

#[test]
fn at_home_it_is_as_good_as_the_value() {
    let virtual_loop = VirtualLoop::new();
    let mut bound = wants_send(virtual_loop.bind(Rc::new(RefCell::new(vec![1]))));
    assert!(bound.is_home());
    bound.borrow_mut().push(2);
    *bound = Rc::new(RefCell::new(vec![3]));
    let other = bound.clone();
    assert!(Rc::ptr_eq(&bound, &other));
    let bound = elsewhere(bound, |bound| bound);
    drop(other);
    assert_eq!(Rc::into_inner(bound.into_inner()).unwrap().into_inner(), [3]);
}

#[test]
fn elsewhere_it_panics_or_says_so_and_the_value_is_safe() {
    let virtual_loop = VirtualLoop::new();
    let bound = virtual_loop.bind(Cell::new(1));
    let bound = elsewhere(bound, |mut bound| {
        assert!(!bound.is_home());
        assert!(bound.get().is_none() && bound.get_mut().is_none());
        let used = catch_unwind(AssertUnwindSafe(|| bound.set(2))).unwrap_err();
        let message = used.downcast_ref::<String>().unwrap();
        assert!(message.contains("loop_bound.rs") && message.contains("Cell"), "{message}");
        assert!(catch_unwind(AssertUnwindSafe(|| bound.clone())).is_err());
        bound.try_into_inner().unwrap_err()
    });
    assert_eq!(bound.get().map(Cell::get), Some(1));
    let dropped = Log::default();
    let bound = virtual_loop.bind(dropped.on_drop("home"));
    let panicked = elsewhere(bound, |bound| {
        catch_unwind(AssertUnwindSafe(|| drop(bound.into_inner()))).is_err()
    });
    virtual_loop.run_until_idle();
    assert!(panicked);
    assert_eq!(dropped.take(), ["home"]);
}

#[test]
fn dropped_elsewhere_it_is_dropped_at_home_once() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let on_thread = Rc::new(Cell::new(None));
    let seen = on_thread.clone();
    let dropped = log.clone();
    let guard = OnDrop(move || {
        dropped.add("dropped");
        seen.set(Some((thread::current().id(), LoopHandle::try_current().is_some())));
    });
    let bound = virtual_loop.bind(guard);
    elsewhere(bound, drop);
    assert!(log.take().is_empty());
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["dropped"]);
    assert_eq!(on_thread.get(), Some((thread::current().id(), true)));
    drop(virtual_loop.bind(log.on_drop("at once")));
    assert_eq!(log.take(), ["at once"]);
}

#[test]
fn a_closing_loop_drops_what_came_home() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let bound = virtual_loop.bind(log.on_drop("dropped"));
    elsewhere(bound, drop);
    drop(virtual_loop);
    assert_eq!(log.take(), ["dropped"]);
}

#[test]
#[cfg_attr(miri, ignore = "it leaks, as it says")]
fn without_its_loop_it_is_leaked_elsewhere_and_dropped_at_home() {
    let virtual_loop = VirtualLoop::new();
    let other = VirtualLoop::new();
    let log = Log::default();
    let [away, stays] = ["away", "stays"].map(|name| virtual_loop.bind(log.on_drop(name)));
    drop(virtual_loop);
    elsewhere(away, drop);
    other.run_until_idle();
    assert!(log.take().is_empty(), "another loop of the thread is no home");
    assert!(stays.get().is_some());
    drop(stays);
    assert_eq!(log.take(), ["stays"]);
}

#[test]
fn a_second_loop_of_the_thread_may_use_it() {
    let (one, other) = (VirtualLoop::new(), VirtualLoop::new());
    let bound = one.bind(Cell::new(1));
    let sum = other.run_until_complete(async move {
        yield_now().await;
        bound.set(bound.get().unwrap().get() + 1);
        bound.into_inner().get()
    });
    assert_eq!(sum.unwrap(), 2);
}

#[test]
fn a_destructor_that_panics_at_home_is_reported() {
    let (virtual_loop, reports) = reporting_loop();
    let bound = virtual_loop.bind(OnDrop(|| panic!("in the destructor")));
    elsewhere(bound, drop);
    virtual_loop.run_until_idle();
    let reports = reports.take();
    assert!(reports.len() == 1 && reports[0].contains("in the destructor"), "{reports:?}");
}

#[test]
fn a_future_that_is_not_send_runs_where_send_is_asked_for() {
    let virtual_loop = VirtualLoop::new();
    let result = virtual_loop.run_until_complete(async {
        let future = wants_send(LoopBound::new(async {
            let not_send = Rc::new(Cell::new(1));
            sleep(SECOND).await;
            not_send.set(not_send.get() + 1);
            yield_now().await;
            not_send.get()
        }));
        spawn(future).await.unwrap()
    });
    assert_eq!(result.unwrap(), 2);
}

#[test]
fn a_future_that_was_polled_and_is_dropped_elsewhere_goes_home() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let guard = log.on_drop("dropped");
    let mut future = Box::pin(virtual_loop.bind(async move {
        let (guard, place) = (guard, Cell::new(0));
        let inside = &place;
        yield_now().await;
        inside.set(1);
        drop(guard);
    }));
    let polled = virtual_loop
        .run_until_complete(async { futures_lite::future::poll_once(future.as_mut()).await });
    assert!(polled.unwrap().is_none());
    elsewhere(future, |mut future| {
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        assert!(polled.is_err());
    });
    assert!(log.take().is_empty());
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["dropped"]);
}

#[test]
fn streams_readers_and_writers_are_passed_on() {
    let virtual_loop = VirtualLoop::new();
    virtual_loop
        .run_until_complete(async {
            let tasks = as_completed([spawn(async { 1 }), spawn(async { 2 })]);
            let stream = pin!(wants_send(LoopBound::new(tasks)));
            assert_eq!(stream.count().await, 2);
            let mut reader = wants_send(LoopBound::new(futures_lite::io::Cursor::new(b"hello")));
            let mut text = String::new();
            reader.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "hello");
            let mut writer = wants_send(LoopBound::new(Vec::new()));
            writer.write_all(b"hello").await.unwrap();
            writer.close().await.unwrap();
            assert_eq!(writer.into_inner(), b"hello");
        })
        .unwrap();
}

#[test]
fn many_dropped_by_many_threads_all_go_home() {
    let virtual_loop = VirtualLoop::new();
    let count = Rc::new(Cell::new(0));
    let (send, receive) = mpsc::channel::<LoopBound<_>>();
    let count_one = || {
        let count = count.clone();
        OnDrop(move || count.set(count.get() + 1))
    };
    for _ in 0..40 {
        send.send(virtual_loop.bind(count_one())).unwrap();
    }
    drop(send);
    let receive = std::sync::Mutex::new(receive);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = receive.lock().unwrap().recv();
                    let Ok(bound) = next else { break };
                    drop(bound);
                }
            });
        }
    });
    virtual_loop.run_until_idle();
    assert_eq!(count.get(), 40);
}

#[test]
fn it_describes_itself_anywhere() {
    let virtual_loop = VirtualLoop::new();
    let bound = virtual_loop.bind(Rc::new(1));
    let described = elsewhere(&bound, |bound| format!("{bound:?}"));
    assert!(described.starts_with("<LoopBound alloc::rc::Rc<i32> bound at "), "{described}");
}
