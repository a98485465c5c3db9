//! Tasks started from other threads.

#[path = "task_common/mod.rs"]
mod common;

use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use common::reporting_loop;
use tulipa_loop::{BlockingFuture, EventLoop, JoinError, RemoteError, cancellable, yield_now};
use tulipa_testing::VirtualLoop;

/// Runs `other` in another thread beside a real loop, which it can reach.
fn beside<T: Send>(other: impl FnOnce(tulipa_loop::Remote) -> T + Send) -> T {
    let event_loop = EventLoop::new().unwrap();
    let remote = event_loop.remote();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let stop = remote.clone();
            let _stop = common::OnDrop(move || stop.stop().unwrap());
            other(remote)
        });
        event_loop.run_forever().unwrap();
        thread.join().unwrap()
    })
}

#[test]
#[cfg_attr(miri, ignore = "a real selector")]
fn another_thread_waits_for_a_task() {
    beside(|remote| {
        let not_send = remote.spawn(|| async {
            let value = Rc::new(7);
            yield_now().await;
            *value
        });
        assert_eq!(not_send.unwrap().wait().unwrap(), 7);
        let panics = remote.spawn(|| async { panic!("there") }).unwrap();
        let result: Result<(), _> = panics.wait();
        assert!(matches!(result, Err(JoinError::Panicked(_))));
    });
}

#[test]
#[cfg_attr(miri, ignore = "a real selector")]
fn a_wait_with_a_limit_gives_the_future_back_and_a_cancel_lets_the_task_clean_up() {
    beside(|remote| {
        let (begun, on_begun) = mpsc::channel();
        let task = remote.spawn(move || async move {
            // A task that is cancelled before its first step never runs.
            begun.send(()).unwrap();
            let cancelled = cancellable(pending::<()>()).await.is_err();
            yield_now().await;
            cancelled
        });
        on_begun.recv().unwrap();
        let task = task.unwrap().wait_timeout(Duration::from_millis(1)).unwrap_err();
        assert!(!task.is_done() && task.cancel());
        assert!(task.wait_timeout(Duration::MAX).unwrap().unwrap());
    });
}

#[test]
fn a_task_of_another_loop_can_be_awaited() {
    let (one, other) = (VirtualLoop::new(), VirtualLoop::new());
    let future = other.remote().spawn(|| async { 5 }).unwrap();
    let waiting = one.spawn(future);
    one.run_until_idle();
    other.run_until_idle();
    assert_eq!(one.run_until_complete(async { waiting.await.unwrap().unwrap() }).unwrap(), 5);
}

#[test]
fn blocking_on_a_task_of_ones_own_loop_is_an_error() {
    let virtual_loop = VirtualLoop::new();
    let spawn = || virtual_loop.remote().spawn(|| async {}).unwrap();
    assert!(matches!(spawn().wait(), Err(JoinError::Deadlock)));
    assert!(matches!(spawn().wait_timeout(Duration::ZERO), Ok(Err(JoinError::Deadlock))));
}

#[test]
fn the_result_of_a_task_that_has_ended_is_there_on_its_own_thread_too() {
    let virtual_loop = VirtualLoop::new();
    let [one, two] = [1, 2].map(|n| virtual_loop.remote().spawn(move || async move { n }).unwrap());
    virtual_loop.run_until_idle();
    assert_eq!(one.wait().unwrap(), 1);
    assert_eq!(two.wait_timeout(Duration::ZERO).unwrap().unwrap(), 2);
}

#[test]
fn a_panic_of_what_makes_the_future_is_reported_and_nobody_waits_for_ever() {
    let (virtual_loop, reports) = reporting_loop();
    let make = || -> std::future::Ready<()> { panic!("nothing was made") };
    let future = virtual_loop.remote().spawn(make).unwrap();
    virtual_loop.run_until_idle();
    assert!(future.is_done() && !future.cancel());
    assert!(matches!(future.wait(), Err(JoinError::Cancelled)));
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("nothing was made"), "{reports:?}");
}

#[test]
fn a_task_cancelled_before_it_is_started_never_is() {
    let virtual_loop = VirtualLoop::new();
    let future = virtual_loop.remote().spawn(|| async { unreachable!("it is cancelled") }).unwrap();
    assert!(future.cancel());
    virtual_loop.run_until_idle();
    assert!(future.is_done() && !future.cancel());
    let result: Result<(), _> = virtual_loop.run_until_complete(future).unwrap();
    assert!(matches!(result, Err(JoinError::Cancelled)));
}

#[test]
fn a_loop_that_closes_cancels_what_others_wait_for() {
    let (virtual_loop, reports) = reporting_loop();
    let remote = virtual_loop.remote();
    let started = remote.spawn(pending::<()>).unwrap();
    virtual_loop.run_until_idle();
    let waiting = remote.spawn(pending::<()>).unwrap();
    drop(virtual_loop);
    for future in [started, waiting] {
        let result = thread::spawn(move || future.wait()).join().unwrap();
        assert!(matches!(result, Err(JoinError::Cancelled)));
    }
    assert!(matches!(remote.spawn(pending::<()>), Err(RemoteError::LoopClosed)));
    assert_eq!(reports.take().len(), 1);
}

#[test]
fn dropping_the_future_leaves_the_task_alone_and_its_panic_is_reported() {
    let (virtual_loop, reports) = reporting_loop();
    let remote = virtual_loop.remote();
    drop(remote.spawn(pending::<()>).unwrap());
    drop(remote.spawn::<(), _>(|| async { panic!("early") }).unwrap());
    let late = remote.spawn::<(), _>(|| async { panic!("late") }).unwrap();
    virtual_loop.run_until_idle();
    assert_eq!(virtual_loop.statistics().tasks, 1);
    let early = reports.take();
    assert!(early.len() == 1 && early[0].contains("early"), "{early:?}");
    drop(late);
    virtual_loop.run_until_idle();
    let late = reports.take();
    assert!(late.len() == 1 && late[0].contains("late"), "{late:?}");
}

#[test]
fn a_panic_of_a_task_that_was_cancelled_and_given_up_while_it_was_made_is_reported() {
    let (virtual_loop, reports) = reporting_loop();
    let slot = Arc::new(Mutex::new(None::<BlockingFuture<()>>));
    let own = slot.clone();
    let future = virtual_loop.remote().spawn(move || {
        // What another thread may do while the future is being made here.
        let future = own.lock().unwrap().take().unwrap();
        assert!(future.cancel());
        drop(future);
        let cleans_up = common::OnDrop(|| panic!("while cleaning up"));
        async move {
            let _cleans_up = cleans_up;
            pending::<()>().await;
        }
    });
    *slot.lock().unwrap() = Some(future.unwrap());
    virtual_loop.run_until_idle();
    let heard = reports.take();
    assert!(heard.len() == 1 && heard[0].contains("while cleaning up"), "{heard:?}");
    assert_eq!(virtual_loop.statistics().tasks, 0);
}

/// Tasks of a loop and threads that wake them, over and over: each wake is one step or a part of one, and
/// none is lost. For the sanitizer and for many runs.
#[test]
#[cfg_attr(miri, ignore = "a real selector")]
fn tasks_that_other_threads_wake_get_every_wake() {
    const ROUNDS: u32 = 200;
    let event_loop = EventLoop::new().unwrap();
    let (threads, tasks): (Vec<_>, Vec<_>) = (0..4)
        .map(|_| {
            let (wakers, receive) = mpsc::channel::<Waker>();
            let count = Arc::new(AtomicU32::new(0));
            let theirs = count.clone();
            let thread = thread::spawn(move || {
                for waker in receive {
                    theirs.fetch_add(1, Relaxed);
                    let extra = waker.clone();
                    waker.wake();
                    drop(extra);
                }
            });
            let task = event_loop.spawn(async move {
                for round in 1..=ROUNDS {
                    let mut sent = false;
                    poll_fn(|context| {
                        if !sent {
                            sent = true;
                            wakers.send(context.waker().clone()).unwrap();
                        }
                        // What was written before the wake is seen after it, without an order of its own.
                        if count.load(Relaxed) < round { Poll::Pending } else { Poll::Ready(()) }
                    })
                    .await;
                }
            });
            (thread, task)
        })
        .unzip();
    let all = async {
        for task in tasks {
            task.await.unwrap();
        }
    };
    event_loop.run_until_complete(all).unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    // Wakers that outlive the loop, woken and dropped elsewhere.
    let (send, receive) = mpsc::channel::<Waker>();
    let late = event_loop.spawn(poll_fn(move |context| {
        let _ = send.send(context.waker().clone());
        Poll::<()>::Pending
    }));
    event_loop.run_once(Duration::ZERO).unwrap();
    event_loop.set_exception_handler(Some(Rc::new(|_: &_, _: &_| ())));
    let waker = receive.recv().unwrap();
    let thread = thread::spawn(move || {
        waker.wake_by_ref();
        drop(waker);
    });
    drop(late);
    drop(event_loop);
    thread.join().unwrap();
}
