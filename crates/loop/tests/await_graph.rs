//! The await graph: what is in it, for how long, and what is not.

#[path = "task_common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_lite::StreamExt;
use futures_lite::future::{or, zip};
use tulipa_loop::{
    AwaitTarget, AwaiterId, AwaiterState, Executor, ExecutorError, Job, LoopHandle, ReturnWhen,
    Starting, Stragglers, Task, as_completed, cancellable, gather, interval_at, shield, sleep,
    spawn, staggered_race, task_group, timeout, try_gather, wait, wait_for, waiting_on, yield_now,
};
use tulipa_sync::{Barrier, Condition, Event, Lock, Queue, RwLock, Semaphore, oneshot};
use tulipa_testing::VirtualLoop;

const SECOND: Duration = Duration::from_secs(1);

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

fn boxed<T>(future: impl Future<Output = T> + 'static) -> Boxed {
    Box::pin(async { drop(future.await) })
}

/// The waits of a task as `kind` or `kind:awaited task`, in their order.
fn waits(handle: &LoopHandle, id: AwaiterId) -> Vec<String> {
    let graph = handle.await_graph();
    let waits = graph.node(id).map(|node| node.waits.clone()).unwrap_or_default();
    let text = waits.iter().map(|wait| match wait.awaited() {
        Some(awaited) => format!("{}:{awaited}", wait.kind),
        None => wait.kind.to_owned(),
    });
    text.collect()
}

fn id<T>(task: &Task<T>) -> AwaiterId {
    AwaiterId::Task(task.id())
}

fn never() -> Task<()> {
    spawn(pending())
}

/// An executor that begins no job.
#[derive(Clone, Default)]
struct Idle(Arc<Mutex<Vec<Job>>>);

impl Executor for Idle {
    fn execute(&self, job: Job) -> Result<(), ExecutorError> {
        self.0.lock().unwrap().push(job);
        Ok(())
    }

    fn shutdown(&self) {}

    fn shutdown_and_wait(&self, _: Option<Duration>) -> Result<(), Stragglers> {
        Ok(())
    }
}

/// Runs a wait in a task, and says what is seen of it while it waits, in the graph and in its `Debug`; checks that
/// nothing is left when it is dropped.
fn seen(make: impl AsyncFnOnce() + 'static) -> (Vec<String>, String) {
    let virtual_loop = VirtualLoop::new();
    let task = virtual_loop.spawn(make());
    virtual_loop.run_until_idle();
    let seen = waits(&virtual_loop, id(&task));
    let text = format!("{task:?}");
    let words = text.split_once(" waiting on ").map_or("", |(_, words)| words);
    let words = words.trim_end_matches('>').to_owned();
    task.cancel();
    virtual_loop.run_until_idle();
    let graph = virtual_loop.await_graph();
    assert!(graph.node(id(&task)).is_none(), "{graph}");
    assert!(graph.nodes.iter().all(|node| node.waits.is_empty()), "{graph}");
    (seen, words)
}

#[test]
fn every_wait_for_tasks_is_in_the_graph() {
    let check = |make: Boxed, edges: &[&str], words: &str| {
        let (seen, said) = seen(async move || make.await);
        assert_eq!((seen, said.as_str()), (edges.iter().map(|e| (*e).to_owned()).collect(), words));
    };
    check(boxed(async { never().await }), &["join:2"], "join of 'Task-2'");
    check(boxed(async { never().joined().await }), &["joined:2"], "joined of 'Task-2'");
    check(boxed(async { shield(never()).await }), &["shield:2"], "shield of 'Task-2'");
    check(
        boxed(async { wait_for(never(), SECOND).await }),
        &["wait_for:2", "wait_for"],
        "wait_for of 'Task-2', wait_for",
    );
    check(
        boxed(async { gather([never(), never()]).await }),
        &["gather:2", "gather:3"],
        "gather of 2 tasks",
    );
    let task = || spawn(pending::<Result<(), tulipa_loop::JoinError>>());
    check(
        boxed(async move { try_gather([task()]).await }),
        &["try_gather:2"],
        "try_gather of 1 tasks",
    );
    check(
        boxed(async { wait([never()], ReturnWhen::AllCompleted, Some(SECOND)).await.0.len() }),
        &["wait:2", "wait"],
        "wait of 1 tasks, wait",
    );
    check(
        boxed(async { as_completed([never(), never()]).next().await.is_some() }),
        &["as_completed:2", "as_completed:3"],
        "as_completed of 2 tasks",
    );
    check(
        boxed(task_group(async |group| {
            let child = group.spawn(pending::<Result<(), ()>>()).unwrap();
            let _ = child.await;
            Ok(())
        })),
        &["task_group:2", "join:2"],
        "task_group of 1 tasks, join of 'Task-2'",
    );
}

#[test]
fn races_and_starts_are_in_the_graph() {
    let (edges, _) = seen(async || {
        let attempts = [pending::<Result<(), ()>>(), pending()];
        let _ = staggered_race(attempts, Some(SECOND)).await;
    });
    assert_eq!(edges, ["staggered_race:2", "staggered_race"]);
    let (edges, _) = seen(async || {
        let grouped = task_group(async |group| {
            let child = |_: Starting<()>| pending::<Result<(), ()>>();
            assert!(group.start(child).await.is_err());
            Ok::<(), ()>(())
        });
        let _ = grouped.await;
    });
    // The child has dropped what it would say that it has started with: its end is waited for.
    assert_eq!(edges, ["task_group:2", "join:2"]);
    let (edges, _) = seen(async || {
        let grouped = task_group(async |group| {
            let child = async |starting: Starting<()>| {
                pending::<()>().await;
                let _ = starting.started(());
                Ok::<(), ()>(())
            };
            assert!(group.start(child).await.is_err());
            Ok(())
        });
        let _ = grouped.await;
    });
    assert_eq!(edges, ["task_group:2", "start:2"]);
}

#[test]
fn every_wait_for_time_is_in_the_graph() {
    assert_eq!(seen(async || sleep(SECOND).await), (vec!["sleep".to_owned()], "sleep".to_owned()));
    let (edges, words) = seen(async || assert!(timeout(SECOND, never()).await.is_err()));
    assert_eq!(
        (edges, words),
        (vec!["join:2".into(), "timeout".into()], "join of 'Task-2', timeout".into())
    );
    let (edges, _) = seen(async || {
        let first = LoopHandle::current().time() + SECOND;
        interval_at(first, SECOND).tick().await;
    });
    assert_eq!(edges, ["interval"]);
    let (edges, _) = seen(async || assert!(cancellable(sleep(SECOND)).await.is_err()));
    assert_eq!(edges, ["sleep"]);
}

#[test]
fn futures_jobs_and_tasks_of_other_loops_are_in_the_graph() {
    let (edges, _) = seen(async || {
        let (_promise, future) = LoopHandle::current().create_future::<()>();
        let _ = future.await;
    });
    assert_eq!(edges, ["future"]);
    let (edges, _) = seen(async || {
        let (_promise, future) = LoopHandle::current().create_future::<()>();
        let shared = future.shared();
        let _ = zip(shared.clone(), shared).await;
    });
    assert_eq!(edges, ["future", "future"]);
    let (edges, words) = seen(async || {
        let executor = Idle::default();
        let job = LoopHandle::current().run_in_executor(Some(&executor), || ());
        let _ = job.await;
    });
    assert_eq!((edges, words), (vec!["job".to_owned()], "job".to_owned()));
    let other = VirtualLoop::new();
    let remote = other.remote();
    let (edges, words) = seen(async move || {
        let future = remote.spawn(|| async {}).unwrap();
        let _ = future.await;
    });
    assert_eq!((edges, words), (vec!["remote task".to_owned()], "remote task".to_owned()));
    let (edges, words) = seen(async || waiting_on("the tide", pending()).await);
    assert_eq!((edges, words), (vec!["the tide".to_owned()], "the tide".to_owned()));
}

#[test]
fn locks_and_queues_are_in_the_graph() {
    let check = |make: Boxed, kind: &str, words: &str| {
        assert_eq!(seen(async move || make.await), (vec![kind.to_owned()], words.to_owned()));
    };
    // The task itself has the lock, and waits for it.
    check(
        boxed(async {
            let lock = Lock::new(()).named("mine");
            let _guard = lock.lock().await;
            drop(lock.lock().await);
        }),
        "lock:1",
        "lock `mine`",
    );
    check(
        boxed(async {
            let lock = RwLock::new(());
            let _guard = lock.write().await;
            drop(lock.read().await);
        }),
        "read lock:1",
        "read lock",
    );
    check(boxed(async { drop(Semaphore::new(0).acquire().await) }), "semaphore", "semaphore");
    check(boxed(async { Event::new().named("go").wait().await }), "event", "event `go`");
    check(boxed(async { Barrier::new(2).wait().await.is_ok() }), "barrier", "barrier");
    check(boxed(async { Queue::<u8>::unbounded().get().await.is_ok() }), "queue get", "queue get");
    check(
        boxed(async {
            let (lock, condition) = (Lock::new(()), Condition::new());
            let guard = lock.lock().await;
            drop(condition.wait(guard).await);
        }),
        "condition",
        "condition",
    );
    check(
        boxed(async {
            let (_sender, receiver) = oneshot::channel::<()>();
            receiver.await.is_ok()
        }),
        "oneshot",
        "oneshot",
    );
}

#[cfg(unix)]
#[test]
fn descriptors_are_in_the_graph() {
    use std::os::fd::AsRawFd;
    let event_loop = tulipa_loop::EventLoop::new().unwrap();
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    let number = one.as_raw_fd();
    let fd = tulipa_loop::AsyncFd::new(&event_loop, one).unwrap();
    let task = event_loop.spawn(async move {
        let _ = fd.readable().await;
    });
    event_loop.run_once(Duration::ZERO).unwrap();
    assert_eq!(waits(&event_loop, id(&task)), ["readable"]);
    let graph = event_loop.await_graph();
    assert!(
        matches!(graph.nodes[0].waits[0].target, AwaitTarget::Descriptor(Some(n)) if n == number as u64)
    );
    assert!(format!("{task:?}").ends_with(&format!("waiting on descriptor {number} readable>")));
    task.cancel();
    event_loop.run_once(Duration::ZERO).unwrap();
    assert!(event_loop.await_graph().nodes.is_empty());
}

#[test]
fn a_combinator_has_its_edges_from_the_start() {
    let virtual_loop = VirtualLoop::new();
    let handle = virtual_loop.handle();
    let parent = virtual_loop.spawn(async {
        let tasks = [never(), never(), spawn(async {})];
        gather(tasks).await
    });
    virtual_loop.run_once(Duration::ZERO).unwrap();
    // No child has run yet.
    assert_eq!(waits(&virtual_loop, id(&parent)), ["gather:2", "gather:3", "gather:4"]);
    virtual_loop.run_until_idle();
    assert_eq!(waits(&virtual_loop, id(&parent)), ["gather:2", "gather:3"]);

    let log = common::Log::default();
    let seen = log.clone();
    let group = virtual_loop.spawn(async move {
        let grouped = task_group(async |group| {
            drop(group.spawn(pending::<Result<(), ()>>()).unwrap());
            // Before the body was suspended for the first time.
            let me = AwaiterId::Task(tulipa_loop::current_task().unwrap().id());
            seen.add(waits(&handle, me).join(" "));
            Ok(())
        });
        grouped.await.is_ok()
    });
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["task_group:6"]);
    drop(group);
}

#[test]
fn a_task_waits_for_several_things_at_once_and_each_ends_by_itself() {
    let virtual_loop = VirtualLoop::new();
    let (promise, future) = virtual_loop.create_future::<()>();
    let task = virtual_loop.spawn(async move {
        let slow = async {
            sleep(3 * SECOND).await;
            pending::<()>().await;
        };
        let fast = async {
            let _ = future.await;
            sleep(9 * SECOND).await;
        };
        or(or(slow, fast), waiting_on("nothing", pending())).await;
    });
    virtual_loop.run_until_idle();
    assert_eq!(waits(&virtual_loop, id(&task)), ["sleep", "future", "nothing"]);
    promise.set(()).unwrap();
    // Already before the task has run.
    assert_eq!(waits(&virtual_loop, id(&task)), ["sleep", "nothing"]);
    virtual_loop.advance(3 * SECOND);
    assert_eq!(waits(&virtual_loop, id(&task)), ["nothing", "sleep"]);
    virtual_loop.advance(6 * SECOND);
    assert!(task.is_done());
    assert!(virtual_loop.await_graph().nodes.is_empty());
}

#[test]
fn an_edge_goes_with_the_future_that_is_dropped_elsewhere() {
    let virtual_loop = VirtualLoop::new();
    let kept: Rc<RefCell<Vec<Boxed>>> = Rc::default();
    let (handle, keeper) = (virtual_loop.handle(), kept.clone());
    let lock = Rc::new(Lock::new(()));
    let guard = lock.try_lock().unwrap();
    let task = virtual_loop.spawn({
        let lock = lock.clone();
        async move {
            let (promise, future) = handle.create_future::<()>();
            let mut futures: Vec<Boxed> = vec![
                boxed(sleep(SECOND)),
                boxed(async move {
                    let _promise = promise;
                    future.await
                }),
                boxed(async move { drop(lock.lock().await) }),
                boxed(async { never().await }),
                boxed(async { gather([never()]).await }),
            ];
            poll_fn(|context| {
                for future in &mut futures {
                    assert!(future.as_mut().poll(context).is_pending());
                }
                Poll::Ready(())
            })
            .await;
            *keeper.borrow_mut() = futures;
            pending::<()>().await;
        }
    });
    virtual_loop.run_until_idle();
    // Another task holds the futures; until it polls them they would wake the first one.
    assert_eq!(waits(&virtual_loop, id(&task)), ["sleep", "future", "lock", "join:2", "gather:3"]);
    let other = virtual_loop.spawn({
        let kept = kept.clone();
        poll_fn(move |context| {
            for future in kept.borrow_mut().iter_mut() {
                assert!(future.as_mut().poll(context).is_pending());
            }
            Poll::<()>::Pending
        })
    });
    virtual_loop.run_until_idle();
    assert!(waits(&virtual_loop, id(&task)).is_empty());
    assert_eq!(waits(&virtual_loop, id(&other)), ["sleep", "future", "lock", "join:2", "gather:3"]);
    // Its task ends, and the futures live on.
    other.cancel();
    virtual_loop.run_until_idle();
    let third = virtual_loop.spawn({
        let kept = kept.clone();
        async move { drop(kept.take()) }
    });
    virtual_loop.run_until_idle();
    assert!(third.is_done());
    assert!(virtual_loop.await_graph().nodes.iter().all(|node| node.waits.is_empty()));
    drop(guard);
}

#[test]
fn an_edge_goes_with_the_job_that_is_dropped_on_another_thread() {
    let virtual_loop = VirtualLoop::new();
    let (job, mut handle) = Job::new(|| ());
    let kept = Rc::new(RefCell::new(None));
    let keeper = kept.clone();
    let task = virtual_loop.spawn(async move {
        assert!(futures_lite::future::poll_once(&mut handle).await.is_none());
        *keeper.borrow_mut() = Some(handle);
        pending::<()>().await;
    });
    virtual_loop.run_until_idle();
    assert_eq!(waits(&virtual_loop, id(&task)), ["job"]);
    let handle = kept.take().unwrap();
    std::thread::spawn(move || drop(handle)).join().unwrap();
    assert!(waits(&virtual_loop, id(&task)).is_empty());
    drop(job);
}

#[test]
fn a_wait_that_is_over_is_not_shown_though_the_task_has_not_run() {
    let virtual_loop = VirtualLoop::new();
    let (job, handle) = Job::new(|| ());
    let waits_for_job = virtual_loop.spawn(async { handle.await.is_ok() });
    let sleeps = virtual_loop.spawn(virtual_loop.sleep(SECOND));
    virtual_loop.run_until_idle();
    job.run();
    assert!(waits(&virtual_loop, id(&waits_for_job)).is_empty());
    virtual_loop.run_until_idle();
    let seen = common::Log::default();
    let (log, handle, sleeper) = (seen.clone(), virtual_loop.handle(), id(&sleeps));
    // Before the sleeper's step in the ready queue, after its timer.
    virtual_loop.call_later(SECOND, move |_| {
        let state = handle.await_graph().node(sleeper).map(|node| node.state);
        log.add(format!("{state:?} {:?}", waits(&handle, sleeper)));
    });
    virtual_loop.advance(SECOND);
    assert_eq!(seen.take(), ["Some(Ready) []"]);
}

#[test]
fn the_main_future_is_a_node_while_it_runs() {
    let virtual_loop = VirtualLoop::new();
    let text = virtual_loop.run_until_complete(async {
        let handle = LoopHandle::current();
        assert_eq!(handle.await_graph().nodes[0].state, AwaiterState::Running);
        let looking = spawn(async move {
            yield_now().await;
            handle.await_graph().to_string()
        });
        looking.await.unwrap()
    });
    let text = text.unwrap();
    let (id, line) = (virtual_loop.id(), line!() - 7);
    let place = format!("{}:{line}", file!());
    let expected = format!(
        "await graph of loop {id}: 1 tasks\n* main future waiting\n  | join of 'Task-1', for 0ns\n\
         * Task(name='Task-1', id=1) running, spawned at {place}\n"
    );
    assert_eq!(text, expected);
    assert!(virtual_loop.await_graph().nodes.is_empty());
}

#[test]
fn a_wait_is_as_old_as_its_beginning() {
    let virtual_loop = VirtualLoop::new();
    let first = virtual_loop.spawn(virtual_loop.sleep(9 * SECOND));
    virtual_loop.advance(2 * SECOND);
    let second = virtual_loop
        .spawn(async { or(first.into_future(), async { never().await }).await.is_ok() });
    virtual_loop.advance(3 * SECOND);
    let graph = virtual_loop.await_graph();
    let waited: Vec<_> =
        graph.nodes.iter().flat_map(|node| &node.waits).map(|w| w.waited).collect();
    assert_eq!(waited, [5 * SECOND, 3 * SECOND, 3 * SECOND]);
    assert!(matches!(graph.nodes[0].waits[0].target,
        AwaitTarget::Timer(when) if when == virtual_loop.time() + 4 * SECOND));
    drop(second);
}

#[test]
fn a_lock_that_is_handed_on_has_its_new_owner() {
    let virtual_loop = VirtualLoop::new();
    let lock = Rc::new(Lock::new(()));
    let tasks: Vec<_> = (1..=3)
        .map(|_| {
            let lock = lock.clone();
            virtual_loop.spawn(async move {
                let _guard = lock.lock().await;
                sleep(SECOND).await;
            })
        })
        .collect();
    virtual_loop.run_until_idle();
    assert_eq!(waits(&virtual_loop, id(&tasks[1])), ["lock:1"]);
    assert_eq!(waits(&virtual_loop, id(&tasks[2])), ["lock:1"]);
    virtual_loop.advance(SECOND);
    assert_eq!(waits(&virtual_loop, id(&tasks[1])), ["sleep"]);
    assert_eq!(waits(&virtual_loop, id(&tasks[2])), ["lock:2"]);
    virtual_loop.advance(2 * SECOND);
    assert!(virtual_loop.await_graph().nodes.is_empty());
}

#[test]
fn a_stream_of_tasks_waits_only_while_it_is_asked() {
    let virtual_loop = VirtualLoop::new();
    let task = virtual_loop.spawn(async {
        let mut tasks = as_completed([spawn(sleep(3 * SECOND))]);
        assert!(timeout(SECOND, tasks.next()).await.is_err());
        let pause = sleep(SECOND);
        pause.await;
        assert!(StreamExt::next(&mut tasks).await.is_some());
    });
    virtual_loop.run_until_idle();
    assert_eq!(waits(&virtual_loop, id(&task)), ["as_completed:2", "timeout"]);
    virtual_loop.advance(SECOND);
    assert_eq!(waits(&virtual_loop, id(&task)), ["sleep"]);
    virtual_loop.advance(SECOND);
    assert_eq!(waits(&virtual_loop, id(&task)), ["as_completed:2"]);
    virtual_loop.advance(SECOND);
    assert!(task.is_done());
}

#[test]
fn the_waits_of_a_task_that_has_ended_are_nobodys() {
    let virtual_loop = VirtualLoop::new();
    let (one, two) = (virtual_loop.sleep(SECOND), virtual_loop.sleep(SECOND));
    let kept = Rc::new(RefCell::new(vec![boxed(one), boxed(two)]));
    let polled = kept.clone();
    let task = virtual_loop.spawn(poll_fn(move |context| {
        for future in polled.borrow_mut().iter_mut() {
            assert!(future.as_mut().poll(context).is_pending());
        }
        Poll::Ready(())
    }));
    task.detach();
    virtual_loop.run_until_idle();
    assert!(virtual_loop.await_graph().nodes.is_empty());
    // Neither are they the main future's when the one that is behind the other goes.
    drop(kept.borrow_mut().pop());
    assert!(virtual_loop.await_graph().nodes.is_empty());
}
