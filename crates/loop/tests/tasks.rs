//! Tasks: order, handles, results, names, failures, and the end of the loop. One file: a list that is read from top to
//! bottom, test by test.

#[path = "task_common/mod.rs"]
mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{Log, OnDrop, never, reporting_loop};
use tulipa_loop::{
    JoinError, LoopHandle, Task, TaskStatus, all_tasks, current_task, shield, spawn, spawn_eager,
    yield_now,
};
use tulipa_testing::VirtualLoop;

/// Gives the waker of the task that polls it, once, and stays pending.
async fn give_waker(to: Rc<RefCell<Option<Waker>>>) {
    poll_fn(move |context| {
        *to.borrow_mut() = Some(context.waker().clone());
        Poll::<()>::Pending
    })
    .await
}

#[test]
fn tasks_and_callbacks_run_first_in_first_out_and_never_inside_spawn() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    for i in 0..3 {
        let (task, callback) = (log.clone(), log.clone());
        drop(virtual_loop.spawn(async move { task.add(format!("task {i}")) }));
        virtual_loop.call_soon(move |_| callback.add(format!("callback {i}")));
    }
    assert!(log.take().is_empty());
    virtual_loop.run_until_idle();
    let expected = ["task 0", "callback 0", "task 1", "callback 1", "task 2", "callback 2"];
    assert_eq!(log.take(), expected);
}

#[test]
fn what_a_task_yields_to_runs_before_it_goes_on() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    for name in ["a", "b"] {
        let log = log.clone();
        drop(virtual_loop.spawn(async move {
            for i in 0..3 {
                log.add(format!("{name}{i}"));
                yield_now().await;
            }
        }));
    }
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["a0", "b0", "a1", "b1", "a2", "b2"]);
}

#[test]
fn a_yield_is_exactly_one_turn() {
    let virtual_loop = VirtualLoop::new();
    let turns = virtual_loop.run_until_complete(async {
        let before = LoopHandle::current().statistics().turns;
        yield_now().await;
        LoopHandle::current().statistics().turns - before
    });
    assert_eq!(turns.unwrap(), 1);
}

#[test]
fn b107_a_task_that_wakes_itself_starves_neither_timers_nor_others() {
    let virtual_loop = VirtualLoop::new();
    let greedy = Rc::new(Cell::new(0));
    let counted = greedy.clone();
    let task = virtual_loop.spawn(async move {
        poll_fn(|context| {
            counted.set(counted.get() + 1);
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        })
        .await;
    });
    let beside = virtual_loop.spawn(async {
        for _ in 0..10 {
            yield_now().await;
        }
    });
    let fired = Rc::new(Cell::new(false));
    let timer = fired.clone();
    virtual_loop.call_later(Duration::ZERO, move |_| timer.set(true));
    for _ in 0..11 {
        virtual_loop.run_once(Duration::ZERO).unwrap();
    }
    assert!(fired.get() && beside.is_done());
    assert_eq!((greedy.get(), task.cancel()), (11, true), "each has one step in each turn");
}

#[test]
fn a_task_gives_its_value_to_whoever_awaits_it() {
    let virtual_loop = VirtualLoop::new();
    let value = virtual_loop.run_until_complete(async {
        let mut task = spawn(async {
            yield_now().await;
            Rc::new(7) // not Send
        });
        assert!(task.try_result().is_none());
        assert!(!task.is_done());
        task.await.unwrap()
    });
    assert_eq!(*value.unwrap(), 7);
}

#[test]
fn b106_dropping_the_handle_detaches() {
    let virtual_loop = VirtualLoop::new();
    let done = Rc::new(Cell::new(0));
    let waker = Rc::new(RefCell::new(None));
    drop(virtual_loop.spawn({
        let (done, waker) = (done.clone(), waker.clone());
        async move {
            done.set(1);
            let mut first = true;
            poll_fn(|context| {
                *waker.borrow_mut() = Some(context.waker().clone());
                if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            done.set(2);
        }
    }));
    virtual_loop.run_until_idle();
    assert_eq!(done.get(), 1);
    // Neither a handle nor a waker of the program is needed to keep it.
    let last = waker.borrow_mut().take();
    drop(last);
    assert_eq!(virtual_loop.all_tasks().len(), 1);
    assert_eq!(virtual_loop.statistics().tasks, 1);
}

#[test]
fn giving_up_an_await_cancels_the_task_and_joined_and_shield_do_not() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    virtual_loop
        .run_until_complete(async {
            let start = |entry: &'static str| {
                let log = log.clone();
                spawn(async move { never(&log, entry).await })
            };
            drop(start("awaited").into_future());
            let mut joined = start("joined");
            assert!(poll_once(&mut joined.joined()).await.is_none());
            drop(shield(start("shielded")));
            yield_now().await;
            yield_now().await;
            // The one that was never polled was dropped unpolled.
            assert!(log.take().is_empty());
            assert_eq!(all_tasks().len(), 2);
            let awaited = start("awaited");
            yield_now().await;
            let mut waiting = awaited.into_future();
            assert!(poll_once(&mut waiting).await.is_none());
            drop(waiting);
            yield_now().await;
            assert_eq!(log.take(), ["awaited"]);
            assert!(!joined.is_done());
        })
        .unwrap();
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|context| match Pin::new(&mut *future).poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn a_shield_gives_what_the_task_gives() {
    let virtual_loop = VirtualLoop::new();
    virtual_loop
        .run_until_complete(async {
            assert_eq!(shield(spawn(ready(1))).await.unwrap(), 1);
            let inner = spawn(pending::<()>());
            inner.cancel();
            assert!(shield(inner).await.unwrap_err().is_cancelled());
        })
        .unwrap();
}

#[test]
fn a_task_that_joins_itself_gets_an_error() {
    for by_reference in [true, false] {
        let (virtual_loop, reports) = reporting_loop();
        let own: Rc<RefCell<Option<Task<()>>>> = Rc::default();
        let log = Log::default();
        let (taken, seen) = (own.clone(), log.clone());
        let task = virtual_loop.spawn(async move {
            let mut task = taken.borrow_mut().take().unwrap();
            let result = if by_reference { task.joined().await } else { task.await };
            seen.add(format!("{}", result.unwrap_err()));
            yield_now().await;
            seen.add("goes on");
        });
        let reference = task.reference();
        *own.borrow_mut() = Some(task);
        virtual_loop.run_until_idle();
        assert_eq!(log.take(), ["the wait would never end", "goes on"]);
        assert!(reference.is_done());
        assert!(reports.take().is_empty());
    }
}

#[test]
fn names_ids_places_and_debug() {
    let virtual_loop = VirtualLoop::new();
    async fn fetch() {
        pending().await
    }
    let line = line!() + 1;
    let first = virtual_loop.spawn(fetch());
    let named = virtual_loop.task().name("fetcher").spawn(fetch());
    assert_eq!((&*first.name(), &*named.name()), ("Task-1", "fetcher"));
    assert_eq!((first.id().get(), named.id().get()), (1, 2));
    assert_eq!(first.location().map(|location| location.line()), Some(line));
    let text = format!("{first:?}");
    let expected = "<Task pending name='Task-1' fut=tasks::names_ids_places_and_debug::fetch \
                    spawned at ";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.ends_with(&format!("tasks.rs:{line}>")), "{text}");
    first.set_name("other");
    assert_eq!(&*first.name(), "other");
    virtual_loop.run_until_idle();
    first.cancel();
    assert!(format!("{first:?}").starts_with("<Task cancelling name='other'"));
    virtual_loop.run_until_idle();
    assert!(format!("{first:?}").starts_with("<Task cancelled name='other'"));
    let reference = first.reference();
    drop(first);
    assert_eq!(format!("{reference:?}"), "<Task done name='Task-1'>");
    assert!(reference.is_done() && !reference.cancel());
}

#[test]
fn the_current_task_is_known_in_tasks_and_only_there() {
    let virtual_loop = VirtualLoop::new();
    assert_eq!(current_task(), None);
    let task = virtual_loop.spawn(async { current_task().map(|task| task.id()) });
    let id = task.id();
    virtual_loop.call_soon(|_| assert_eq!(current_task(), None));
    let seen = virtual_loop.run_until_complete(async {
        assert_eq!(current_task(), None);
        task.await.unwrap()
    });
    assert_eq!(seen.unwrap(), Some(id));
}

#[test]
fn all_tasks_are_those_of_this_loop_that_have_not_ended() {
    let (one, other) = (VirtualLoop::new(), VirtualLoop::new());
    let first = one.spawn(pending::<()>());
    let second = one.spawn(async {});
    let _elsewhere = other.spawn(pending::<()>());
    assert_eq!(one.all_tasks(), [first.reference(), second.reference()]);
    assert!(all_tasks().is_empty());
    one.run_until_idle();
    assert_eq!(one.all_tasks(), [first.reference()]);
}

#[test]
fn done_callbacks_go_through_the_ready_queue_and_can_be_removed() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let task = virtual_loop.spawn(ready(1));
    let add = |name: &'static str| {
        let log = log.clone();
        task.add_done_callback(move |_, status| log.add(format!("{name} {status:?}")))
    };
    add("first");
    let second = add("second");
    add("third");
    assert!(task.remove_done_callback(second));
    assert!(!task.remove_done_callback(second));
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["first Finished", "third Finished"]);
    add("late");
    assert!(log.take().is_empty());
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["late Finished"]);
}

#[test]
fn a_panic_goes_to_whoever_joins_and_the_loop_goes_on() {
    let (virtual_loop, reports) = reporting_loop();
    let joined = virtual_loop.run_until_complete(async {
        let task = spawn(async { panic!("oops") });
        let result: Result<(), _> = task.await;
        match result {
            Err(JoinError::Panicked(payload)) => {
                payload.downcast_ref::<&str>().copied() == Some("oops")
            }
            _ => false,
        }
    });
    assert!(joined.unwrap());
    assert!(reports.take().is_empty());
}

#[test]
fn a_panic_that_nobody_takes_is_reported_once() {
    let (virtual_loop, reports) = reporting_loop();
    // Detached before, detached after, shielded and given up.
    drop(virtual_loop.task().name("early").spawn(async { panic!("one") }));
    let late = virtual_loop.task().name("late").spawn(async { panic!("two") });
    let given_up = shield(virtual_loop.task().name("shielded").spawn(async { panic!("three") }));
    virtual_loop.run_until_idle();
    let first = reports.take();
    assert_eq!(first.len(), 1);
    assert!(first[0].starts_with("panic in task 'early': one (created at "), "{}", first[0]);
    assert_eq!(late.status(), TaskStatus::Panicked);
    drop(late);
    drop(given_up);
    let rest = reports.take();
    assert_eq!(rest.len(), 2);
    assert!(rest[0].starts_with("panic in task 'late': two"));
    assert!(rest[1].starts_with("panic in task 'shielded': three"));
    drop(virtual_loop);
    assert!(reports.take().is_empty());
}

#[test]
fn a_detached_result_reports_its_error() {
    let (virtual_loop, reports) = reporting_loop();
    let fails = || async { Err::<(), _>("no route") };
    virtual_loop.task().name("fails").spawn(fails()).detach();
    virtual_loop.spawn(async { Ok::<_, String>(1) }).detach();
    let already = virtual_loop.task().name("already").spawn(fails());
    virtual_loop.run_until_idle();
    already.detach();
    let reported = reports.take();
    assert_eq!(reported.len(), 2);
    assert!(reported[0].starts_with("error in task 'fails' that nobody awaits: no route"));
    assert!(reported[1].starts_with("error in task 'already' that nobody awaits: no route"));
    assert_eq!(virtual_loop.statistics().tasks, 0);
}

#[test]
fn a_destructor_that_panics_ends_only_its_task() {
    let (virtual_loop, reports) = reporting_loop();
    let bomb = || OnDrop(|| panic!("boom"));
    // The future's own state, after a value.
    let value = virtual_loop.spawn({
        let bomb = bomb();
        poll_fn(move |_| {
            let _bomb = &bomb;
            Poll::Ready(1)
        })
    });
    // A cancelled future.
    let cancelled = virtual_loop.spawn({
        let bomb = bomb();
        async move {
            let _bomb = &bomb;
            pending::<()>().await
        }
    });
    virtual_loop.run_until_idle();
    cancelled.cancel();
    virtual_loop.run_until_idle();
    assert_eq!(value.status(), TaskStatus::Finished);
    assert_eq!(cancelled.status(), TaskStatus::Panicked);
    // A value that nobody takes.
    drop(virtual_loop.spawn(async move { bomb() }));
    virtual_loop.run_until_idle();
    drop(cancelled);
    assert_eq!(reports.take().len(), 3);
}

#[test]
fn a_waker_that_panics_ends_nothing() {
    struct Angry;
    impl std::task::Wake for Angry {
        fn wake(self: std::sync::Arc<Self>) {
            panic!("not now");
        }
    }
    let (virtual_loop, reports) = reporting_loop();
    let mut task = virtual_loop.spawn(async {});
    let waker = Waker::from(std::sync::Arc::new(Angry));
    let mut context = std::task::Context::from_waker(&waker);
    assert!(Pin::new(&mut task.joined()).poll(&mut context).is_pending());
    virtual_loop.run_until_idle();
    assert_eq!(reports.take().len(), 1);
    assert!(matches!(task.try_result(), Some(Ok(()))));
}

#[test]
fn a_closed_loop_drops_its_tasks_and_reports_each_once() {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let spawn_one = |name: &'static str| {
        let log = log.clone();
        virtual_loop.task().name(name).spawn(async move {
            let handle = LoopHandle::current(); // a cycle through the task
            let _handle = handle.clone();
            never(&log, name).await
        })
    };
    let kept = spawn_one("kept");
    drop(spawn_one("detached"));
    virtual_loop.run_until_idle();
    let unpolled = spawn_one("unpolled");
    virtual_loop.close().unwrap();
    assert_eq!(log.take(), ["kept", "detached"]);
    let reported = reports.take();
    assert_eq!(reported.len(), 3);
    for (report, name) in reported.iter().zip(["kept", "detached", "unpolled"]) {
        let start = format!(
            "task was destroyed but it is pending: <Task pending name='{name}' \
             fut=tasks::a_closed_loop_drops_its_tasks_and_reports_each_once::"
        );
        assert!(report.starts_with(&start), "{report}");
    }
    assert!(kept.is_cancelled() && unpolled.is_cancelled());
    let never_run = log.clone();
    let late = virtual_loop.spawn(async move { never_run.add("never") });
    assert!(late.is_cancelled() && !late.cancel());
    drop(virtual_loop);
    assert!(reports.take().is_empty() && log.take().is_empty());
}

#[test]
fn destructors_of_a_closing_loop_may_wake_and_spawn_and_cancel() {
    let (virtual_loop, _reports) = reporting_loop();
    let log = Log::default();
    let waker = Rc::new(RefCell::new(None));
    let handle = virtual_loop.handle();
    let busy = OnDrop({
        let (waker, log) = (waker.clone(), log.clone());
        move || {
            log.add("dropped");
            waker.borrow().as_ref().map(Waker::wake_by_ref);
            drop(handle.spawn(async {}));
            handle.all_tasks().iter().for_each(|task| {
                task.cancel();
            });
        }
    });
    drop(virtual_loop.spawn(async move {
        let _busy = busy;
        pending::<()>().await
    }));
    let woken = waker.clone();
    drop(virtual_loop.spawn(async move { give_waker(woken).await }));
    virtual_loop.run_until_idle();
    drop(virtual_loop);
    assert_eq!(log.take(), ["dropped"]);
    // Also after the loop is gone.
    let late = waker.borrow_mut().take().unwrap();
    late.wake_by_ref();
    late.wake();
}

#[test]
fn b40_wakers_are_used_on_other_threads_during_and_after_close() {
    let (virtual_loop, _reports) = reporting_loop();
    let rounds = if cfg!(miri) { 4 } else { 50 };
    let mut threads = Vec::new();
    let dropped_on: Rc<RefCell<Vec<thread::ThreadId>>> = Rc::default();
    for _ in 0..rounds {
        let slot = Rc::new(RefCell::new(None));
        let (given, seen) = (slot.clone(), dropped_on.clone());
        drop(virtual_loop.spawn(async move {
            let _home = OnDrop(move || seen.borrow_mut().push(thread::current().id()));
            give_waker(given).await;
        }));
        virtual_loop.run_until_idle();
        let waker: Waker = slot.borrow_mut().take().unwrap();
        threads.push(thread::spawn(move || {
            for _ in 0..10 {
                waker.wake_by_ref();
                thread::yield_now();
                drop(waker.clone());
            }
        }));
    }
    drop(virtual_loop);
    for thread in threads {
        thread.join().unwrap();
    }
    let dropped_on = dropped_on.take();
    assert_eq!(dropped_on.len(), rounds);
    assert!(dropped_on.iter().all(|thread| *thread == thread::current().id()));
}

#[test]
fn b41_a_future_is_dropped_on_its_loop_when_its_last_waker_is_used_elsewhere() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let slot = Rc::new(RefCell::new(None));
    let (given, seen) = (slot.clone(), log.clone());
    let task = virtual_loop.spawn(async move {
        let _home = seen.on_drop("dropped");
        give_waker(given).await;
    });
    virtual_loop.run_until_idle();
    let waker: Waker = slot.borrow_mut().take().unwrap();
    task.cancel();
    drop(task);
    thread::spawn(move || waker.wake()).join().unwrap();
    assert!(log.take().is_empty());
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["dropped"]);
}

#[test]
#[cfg_attr(miri, ignore = "a real selector")]
fn a_wake_from_another_thread_ends_the_loops_sleep() {
    let event_loop = tulipa_loop::EventLoop::new().unwrap();
    event_loop
        .run_until_complete(async {
            let (sender, receiver) = std::sync::mpsc::channel::<Waker>();
            let task = spawn(async move {
                let mut woken = false;
                poll_fn(move |context| {
                    if std::mem::replace(&mut woken, true) {
                        return Poll::Ready(());
                    }
                    sender.send(context.waker().clone()).unwrap();
                    Poll::Pending
                })
                .await;
            });
            let other = thread::spawn(move || receiver.recv().unwrap().wake());
            task.await.unwrap();
            other.join().unwrap();
        })
        .unwrap();
}

#[test]
fn two_loops_of_one_thread_keep_their_tasks_apart() {
    let (one, other) = (VirtualLoop::new(), VirtualLoop::new());
    let (promise, future) = other.create_future();
    let task = one.spawn(future);
    one.run_until_idle();
    // Woken while the other loop runs: the step waits for its own loop.
    other.call_soon(move |_| promise.set(3).unwrap());
    other.run_until_idle();
    assert!(!task.is_done());
    assert!(one.next_deadline().is_some());
    assert_eq!(one.run_until_complete(async { task.await }).unwrap().unwrap(), Ok(3));
}

#[test]
fn an_eager_task_takes_its_first_step_inside_spawn() {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let outside = virtual_loop.spawn_eager(async {});
    assert!(!outside.is_done(), "the loop is not running");
    let seen = log.clone();
    let parent = virtual_loop.spawn(async move {
        let handle = LoopHandle::current();
        let before = handle.statistics().turns;
        let own = current_task().unwrap();
        let mut eager = spawn_eager({
            let own = own.clone();
            async move {
                assert_ne!(current_task(), Some(own));
                8
            }
        });
        assert_eq!(eager.try_result().unwrap().unwrap(), 8);
        assert_eq!(current_task(), Some(own));

        let log = seen.clone();
        let waits = handle.task().name("waits").eager().spawn(async move {
            log.add("first step");
            yield_now().await;
            log.add("second step");
        });
        let log = seen.clone();
        waits.add_done_callback(move |_, _| log.add("done"));
        seen.add("spawned");
        let panics = spawn_eager(async { panic!("inside") });
        assert_eq!(panics.status(), TaskStatus::Panicked);
        assert_eq!(handle.statistics().turns, before);
        drop(panics);
        waits.await.unwrap();
    });
    virtual_loop.run_until_idle();
    assert_eq!(parent.status(), TaskStatus::Finished);
    assert_eq!(log.take(), ["first step", "spawned", "second step", "done"]);
    assert_eq!(reports.take().len(), 1);
}

#[test]
fn a_value_whose_destructor_begins_a_task_eagerly_does_not_hide_the_end_of_its_task() {
    struct Eager;
    impl Drop for Eager {
        fn drop(&mut self) {
            tulipa_loop::spawn_eager(async {}).detach();
        }
    }
    let (virtual_loop, _log) = reporting_loop();
    let ended = Rc::new(Cell::new(false));
    let task = virtual_loop.spawn(async { Eager });
    let noted = ended.clone();
    task.reference().add_done_callback(move |_, _| noted.set(true));
    drop(task);
    virtual_loop.run_until_idle();
    assert!(ended.get(), "its done callbacks have run");
    assert_eq!(virtual_loop.statistics().tasks, 0);
}
