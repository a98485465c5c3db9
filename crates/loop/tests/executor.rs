//! Blocking work from a loop: `run_in_executor` and executors of one's own.
#![cfg(not(miri))]

mod pool;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use pool::{Gate, PATIENCE, Tell, block, keep};
use tulipa_loop::{
    ContextVar, EventLoop, Executor, ExecutorError, Job, JobError, JoinError, LoopHandle,
    Stragglers, ThreadPool, spawn, to_thread,
};

#[test]
fn a_loop_awaits_jobs_and_runs_on_meanwhile() {
    let event_loop = EventLoop::new().unwrap();
    let gate = Gate::default();
    let inside = gate.clone();
    event_loop.call_later(Duration::from_millis(1), move |_| gate.open());
    let job = event_loop.run_in_executor(None, move || {
        inside.pass();
        thread::current().name().unwrap().to_owned()
    });
    assert_eq!(event_loop.run_until_complete(job).unwrap().unwrap(), "tulipa_0");
    let pool = ThreadPool::builder().name("other").build();
    let job = event_loop.run_in_executor(Some(&pool), || thread::current().name().map(str::len));
    assert_eq!(event_loop.run_until_complete(job).unwrap().unwrap(), Some(7));
}

#[test]
fn dropping_an_executor_job_cancels_it_in_the_queue_and_not_when_it_runs() {
    let event_loop = EventLoop::new().unwrap();
    let pool = ThreadPool::new(1);
    let gate = Gate::default();
    let ((begun, on_begun), (ended, on_ended)) = (mpsc::channel(), mpsc::channel());
    let inside = gate.clone();
    let running = event_loop.run_in_executor(Some(&pool), move || {
        begun.send(()).unwrap();
        inside.pass();
        ended.send(()).unwrap();
    });
    on_begun.recv_timeout(PATIENCE).unwrap();
    let (tell, told) = mpsc::channel();
    let tell = Tell(tell);
    let queued = event_loop.run_in_executor(Some(&pool), move || {
        keep(&tell);
        unreachable!("it was cancelled")
    });
    drop::<tulipa_loop::ExecutorJob<()>>(queued);
    assert_eq!(told.try_recv().unwrap(), thread::current().id());
    drop(running);
    gate.open();
    on_ended.recv_timeout(PATIENCE).expect("it runs to its end");
    pool.shutdown(true, false).unwrap();
}

#[test]
fn the_default_executor_can_be_replaced_and_the_old_one_is_shut_down() {
    let event_loop = EventLoop::new().unwrap();
    let (first, second) = (ThreadPool::new(1), ThreadPool::builder().name("second").build());
    event_loop.set_default_executor(first.clone());
    event_loop.set_default_executor(second.clone());
    assert!(matches!(first.submit(|| ()).wait(), Err(JobError::Refused(_))));
    let job = event_loop.run_in_executor(None, || thread::current().name().unwrap().to_owned());
    assert_eq!(event_loop.run_until_complete(job).unwrap().unwrap(), "second_0");
    event_loop.close().unwrap();
    assert!(matches!(second.submit(|| ()).wait(), Err(JobError::Refused(_))));
    let third = ThreadPool::new(1);
    event_loop.set_default_executor(third.clone());
    let refused = third.submit(|| ()).wait();
    assert!(matches!(refused, Err(JobError::Refused(_))), "a closed loop takes nothing");
    let job = event_loop.run_in_executor(None, || ());
    let refused = futures_lite::future::block_on(job).unwrap_err();
    assert!(matches!(refused, JobError::Refused(ExecutorError::ShutDown)));
}

#[test]
fn the_loop_runs_while_its_default_executor_shuts_down_and_uses_it_no_more() {
    let event_loop = EventLoop::new().unwrap();
    let gate = Gate::default();
    let inside = gate.clone();
    let job = event_loop.run_in_executor(None, move || inside.pass());
    event_loop.call_later(Duration::from_millis(1), move |_| gate.open());
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap().unwrap();
    event_loop.run_until_complete(job).unwrap().unwrap();
    let late = event_loop.run_in_executor(None, || ());
    let error = event_loop.run_until_complete(late).unwrap().unwrap_err();
    assert!(matches!(error, JobError::Refused(ExecutorError::ShutDown)), "{error}");
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap().unwrap();
}

#[test]
fn p16_the_shutdown_of_the_default_executor_ends_at_its_timeout() {
    let event_loop = EventLoop::new().unwrap();
    let pool = ThreadPool::builder().threads(1).name("slow").build();
    let gate = Gate::default();
    event_loop.set_default_executor(pool.clone());
    let blocked = block(&pool, &gate);
    let timeout = Some(Duration::from_millis(2));
    let shutdown = event_loop.shutdown_default_executor(timeout);
    let stragglers = event_loop.run_until_complete(shutdown).unwrap().unwrap_err();
    assert_eq!(stragglers.threads[0].0, "slow_0");
    gate.open();
    blocked.wait().unwrap();
}

#[test]
fn p16_a_loop_closes_while_a_job_blocks() {
    let event_loop = EventLoop::new().unwrap();
    let gate = Gate::default();
    let inside = gate.clone();
    let mut jobs: Vec<_> = (0..40)
        .map(|_| {
            let inside = inside.clone();
            event_loop.run_in_executor(None, move || inside.pass())
        })
        .collect();
    let last = jobs.pop();
    event_loop.close().unwrap();
    drop((event_loop, last));
    gate.open();
    for job in jobs {
        futures_lite::future::block_on(job).unwrap();
    }
}

/// Runs each job in a thread of its own.
#[derive(Clone, Default)]
struct Spawning {
    shut_down: Arc<AtomicBool>,
    refuse: bool,
}

impl Executor for Spawning {
    fn execute(&self, job: Job) -> Result<(), ExecutorError> {
        assert!(job.location().file().ends_with("executor.rs"));
        if self.refuse {
            return Err(ExecutorError::NoThread);
        }
        thread::spawn(move || job.run());
        Ok(())
    }

    fn shutdown(&self) {
        self.shut_down.store(true, SeqCst);
    }

    fn shutdown_and_wait(&self, _timeout: Option<Duration>) -> Result<(), Stragglers> {
        self.shutdown();
        Ok(())
    }
}

#[test]
fn any_executor_will_do() {
    let event_loop = EventLoop::new().unwrap();
    let executor = Spawning::default();
    event_loop.set_default_executor(executor.clone());
    let job = event_loop.run_in_executor(None, || 42);
    assert_eq!(event_loop.run_until_complete(job).unwrap().unwrap(), 42);
    let refusing = Spawning { refuse: true, ..Spawning::default() };
    let job = event_loop.run_in_executor(Some(&refusing), || 42);
    let error = event_loop.run_until_complete(job).unwrap().unwrap_err();
    assert!(matches!(error, JobError::Refused(ExecutorError::NoThread)), "{error}");
    event_loop.close().unwrap();
    assert!(executor.shut_down.load(SeqCst));
}

#[test]
fn a_job_by_hand_runs_once_or_is_cancelled_by_its_drop() {
    let (job, handle) = Job::new(|| 7);
    assert!(format!("{job:?}").contains("executor.rs"));
    job.run();
    assert!(handle.is_done() && !handle.cancel());
    assert_eq!(handle.wait().unwrap(), 7);
    let (job, handle) = Job::new(|| 7);
    drop(job);
    assert!(matches!(handle.wait(), Err(JobError::Cancelled)));
}

static WHO: ContextVar<&str> = ContextVar::new("who");

#[test]
fn to_thread_runs_in_the_default_executor_with_the_context_of_its_caller() {
    let event_loop = EventLoop::new().unwrap();
    event_loop.set_default_executor(ThreadPool::new(1));
    let seen = event_loop.run_until_complete(async {
        WHO.set("caller");
        let inherits = || {
            let inherited = WHO.get();
            WHO.set("thread");
            (inherited, thread::current().name().map(str::to_owned))
        };
        let job = to_thread(inherits);
        WHO.set("later");
        let seen = job.await.unwrap();
        // The thread is the same one: what was set there has ended with the closure.
        let handle = LoopHandle::current();
        let after = handle.run_in_executor(None, || WHO.get()).await.unwrap();
        (seen, after, WHO.get())
    });
    let inherited = (Some("caller"), Some("tulipa_0".to_owned()));
    assert_eq!(seen.unwrap(), (inherited, None, Some("later")));
}

#[test]
fn giving_to_thread_up_does_not_stop_what_runs() {
    let event_loop = EventLoop::new().unwrap();
    let gate = Gate::default();
    let inside = gate.clone();
    let ((begun, on_begun), (ended, on_ended)) = (mpsc::channel(), mpsc::channel());
    event_loop
        .run_until_complete(async {
            let job = to_thread(move || {
                begun.send(()).unwrap();
                inside.pass();
                ended.send(()).unwrap();
            });
            let task = spawn(job);
            on_begun.recv_timeout(PATIENCE).unwrap();
            task.cancel();
            assert!(matches!(task.await, Err(JoinError::Cancelled)));
        })
        .unwrap();
    gate.open();
    on_ended.recv_timeout(PATIENCE).expect("it runs to its end");
}

#[test]
fn the_errors_of_to_thread_are_those_of_a_job() {
    let event_loop = EventLoop::new().unwrap();
    let panicked = event_loop.run_until_complete(async {
        to_thread(|| std::panic::resume_unwind(Box::new("no"))).await
    });
    let panicked: Result<(), _> = panicked.unwrap();
    assert!(matches!(panicked, Err(JobError::Panicked(_))));
    let refused = event_loop.run_until_complete(async {
        LoopHandle::current().shutdown_default_executor(None).await.unwrap();
        to_thread(|| ()).await
    });
    assert!(matches!(refused.unwrap(), Err(JobError::Refused(ExecutorError::ShutDown))));
}
