//! The thread pool and its jobs.
#![cfg(not(miri))]

mod pool;

use std::collections::BTreeSet;
use std::panic::panic_any;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use pool::{Gate, PATIENCE, PanicsOnDrop, Tell, block, keep};
use tulipa_loop::{ExecutorError, JobError, ThreadPool};

#[test]
fn a_job_gives_its_result_to_whoever_waits() {
    let pool = ThreadPool::new(2);
    let here = thread::current().id();
    let there = pool.submit(|| thread::current().id()).wait().unwrap();
    assert_ne!(here, there);
    let job = pool.submit(|| 6 * 7);
    assert_eq!(futures_lite::future::block_on(job).unwrap(), 42);
}

#[test]
fn jobs_begin_in_the_order_in_which_they_were_submitted() {
    let pool = ThreadPool::new(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let jobs: Vec<_> = (0..1_000)
        .map(|number| {
            let order = order.clone();
            pool.submit(move || order.lock().unwrap().push(number))
        })
        .collect();
    jobs.into_iter().for_each(|job| job.wait().unwrap());
    assert!(order.lock().unwrap().iter().copied().eq(0..1_000));
}

#[test]
fn map_gives_results_in_the_order_of_the_items() {
    let pool = ThreadPool::new(4);
    let results = pool.map(0..500, |number| {
        if number % 7 == 0 {
            thread::yield_now();
        }
        number * number
    });
    assert!(results.map(Result::unwrap).eq((0..500).map(|number| number * number)));
}

#[test]
fn map_is_lazy_and_takes_endless_items() {
    let pool = ThreadPool::new(2);
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let items = std::iter::repeat_with(move || count.fetch_add(1, SeqCst));
    let mut results = pool.map(items, |number| number + 1);
    assert_eq!(taken.load(SeqCst), 0);
    assert_eq!(results.next().unwrap().unwrap(), 1);
    assert_eq!(taken.load(SeqCst), 4, "two for each thread");
    let five: Vec<_> = results.by_ref().take(5).map(Result::unwrap).collect();
    assert_eq!(five, [2, 3, 4, 5, 6]);
    drop(results);
    pool.shutdown(true, false).unwrap();
}

#[test]
fn map_reports_the_item_that_panicked_and_goes_on() {
    let pool = ThreadPool::new(2);
    let results: Vec<_> = pool
        .map(0..4, |number| {
            assert_ne!(number, 2, "no twos");
            number
        })
        .map(|result| result.map_err(|error| error.to_string()))
        .collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    assert!(results[2].as_ref().unwrap_err().contains("no twos"), "{results:?}");
}

#[test]
fn map_works_no_further_ahead_than_the_queue_has_room() {
    let pool = ThreadPool::builder().threads(2).queue(1).build();
    let results: Result<Vec<_>, _> = pool.map(0..200, |number| number).collect();
    assert!(results.unwrap().into_iter().eq(0..200));
}

#[test]
fn dropping_a_map_cancels_what_it_began_ahead() {
    let pool = ThreadPool::new(1);
    let gate = Gate::default();
    let (run, inside) = (Arc::new(AtomicUsize::new(0)), gate.clone());
    let count = run.clone();
    let mut results = pool.map(0..10, move |number| {
        count.fetch_add(1, SeqCst);
        if number == 1 {
            inside.pass();
        }
    });
    results.next().unwrap().unwrap();
    drop(results);
    gate.open();
    pool.shutdown(true, false).unwrap();
    assert!(run.load(SeqCst) <= 2, "{run:?}");
}

#[test]
fn a_panic_becomes_an_error_and_the_thread_goes_on() {
    let pool = ThreadPool::new(1);
    let thread = pool.submit(|| thread::current().id()).wait().unwrap();
    let error = pool.submit(|| -> () { panic!("ouch {}", 1) }).wait().unwrap_err();
    assert_eq!(error.to_string(), "the job panicked: ouch 1");
    let error = pool.submit(|| -> () { panic_any(5) }).wait().unwrap_err();
    let JobError::Panicked(payload) = error else { panic!("{error}") };
    assert_eq!(*payload.downcast::<i32>().unwrap(), 5);
    assert_eq!(pool.submit(|| thread::current().id()).wait().unwrap(), thread);
}

#[test]
fn a_destructor_that_panics_does_not_end_a_thread_of_the_pool() {
    let pool = ThreadPool::new(1);
    let thread = pool.submit(|| thread::current().id()).wait().unwrap();
    let gate = Gate::default();
    drop(block(&pool, &gate));
    drop(pool.submit(|| PanicsOnDrop));
    drop(pool.submit(|| -> () { panic_any(PanicsOnDrop) }));
    gate.open();
    let captured = PanicsOnDrop;
    assert!(pool.submit(move || keep(&captured)).wait().is_err());
    assert_eq!(pool.submit(|| thread::current().id()).wait().unwrap(), thread);
    pool.shutdown(true, false).unwrap();
}

#[test]
fn a_job_cancelled_in_the_queue_never_runs_and_is_freed_at_once() {
    let pool = ThreadPool::new(1);
    let gate = Gate::default();
    let blocked = block(&pool, &gate);
    let (tell, told) = mpsc::channel();
    let tell = Tell(tell);
    let job = pool.submit(move || {
        keep(&tell);
        unreachable!("it was cancelled");
    });
    assert!(!job.is_done() && job.cancel());
    assert_eq!(told.try_recv().unwrap(), thread::current().id());
    assert!(job.is_done() && !job.cancel());
    assert!(matches!(job.wait(), Err(JobError::Cancelled)));
    assert!(!blocked.cancel(), "it is running");
    gate.open();
    blocked.wait().unwrap();
    pool.shutdown(true, false).unwrap();
}

#[test]
fn a_cancelled_job_whose_destructor_panics_is_done_all_the_same() {
    let pool = ThreadPool::new(1);
    let gate = Gate::default();
    let blocked = block(&pool, &gate);
    let captured = PanicsOnDrop;
    let job = pool.submit(move || keep(&captured));
    let cancelled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.cancel()));
    assert!(cancelled.is_err());
    assert!(job.is_done(), "whoever awaits it would wait for ever");
    gate.open();
    blocked.wait().unwrap();
}

#[test]
fn a_shutdown_that_cancels_survives_the_destructors_of_the_jobs() {
    let pool = ThreadPool::new(1);
    let gate = Gate::default();
    let blocked = block(&pool, &gate);
    let jobs: Vec<_> = (0..3)
        .map(|_| {
            let captured = PanicsOnDrop;
            pool.submit(move || keep(&captured))
        })
        .collect();
    let (done, on_done) = mpsc::channel();
    let shutdown = thread::spawn(move || {
        let _ = pool.shutdown(false, true);
        done.send(()).unwrap();
        pool.shutdown(true, true)
    });
    on_done.recv_timeout(PATIENCE).expect("it does not panic");
    for job in jobs {
        assert!(matches!(job.wait(), Err(JobError::Cancelled)));
    }
    gate.open();
    blocked.wait().unwrap();
    shutdown.join().unwrap().unwrap();
}

#[test]
fn shutdown_with_wait_runs_what_is_queued_and_refuses_what_comes_later() {
    let pool = ThreadPool::new(2);
    let run = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let run = run.clone();
        drop(pool.submit(move || run.fetch_add(1, SeqCst)));
    }
    pool.shutdown(true, false).unwrap();
    assert_eq!(run.load(SeqCst), 100);
    for _ in 0..2 {
        let error = pool.submit(|| ()).wait().unwrap_err();
        assert!(matches!(error, JobError::Refused(ExecutorError::ShutDown)), "{error}");
        assert_eq!(error.to_string(), "the executor refused the job: it was shut down");
        pool.shutdown(true, true).unwrap();
    }
}

#[test]
fn shutdown_with_cancel_drops_what_has_not_begun() {
    let pool = ThreadPool::new(1);
    let gate = Gate::default();
    let blocked = block(&pool, &gate);
    let (tell, told) = mpsc::channel();
    let tell = Tell(tell);
    let queued = pool.submit(move || keep(&tell));
    let stragglers = pool.shutdown(false, true).unwrap_err();
    assert_eq!((stragglers.threads.len(), stragglers.queued), (1, 0));
    assert!(told.try_recv().is_ok() && queued.is_done());
    assert!(matches!(queued.wait(), Err(JobError::Cancelled)));
    gate.open();
    blocked.wait().unwrap();
    pool.shutdown(true, false).unwrap();
}

#[test]
fn p16_a_shutdown_with_a_timeout_names_who_is_still_running() {
    let pool = ThreadPool::builder().threads(1).name("crew").build();
    let gate = Gate::default();
    let blocked = block(&pool, &gate);
    let queued = pool.submit(|| 1);
    for timeout in [Duration::ZERO, Duration::from_millis(1)] {
        let stragglers = pool.shutdown_timeout(timeout, false).unwrap_err();
        assert_eq!(stragglers.queued, 1);
        let [(name, location)] = &stragglers.threads[..] else { panic!("{stragglers:?}") };
        assert_eq!((name.as_str(), location.file()), ("crew_0", "crates/loop/tests/pool/mod.rs"));
        let text = stragglers.to_string();
        assert!(text.contains("crew_0: job created at") && text.contains("pool/mod.rs"), "{text}");
    }
    gate.open();
    pool.shutdown_timeout(PATIENCE, false).unwrap();
    blocked.wait().unwrap();
    assert_eq!(queued.wait().unwrap(), 1);
}

#[test]
fn b62_a_full_queue_refuses() {
    let pool = ThreadPool::builder().threads(1).queue(2).build();
    let gate = Gate::default();
    let blocked = block(&pool, &gate);
    let queued = [pool.submit(|| ()), pool.submit(|| ())];
    let (tell, told) = mpsc::channel();
    let tell = Tell(tell);
    let error = pool.submit(move || keep(&tell)).wait().unwrap_err();
    assert!(matches!(error, JobError::Refused(ExecutorError::Full)), "{error}");
    assert!(told.try_recv().is_ok(), "its closure is freed");
    gate.open();
    blocked.wait().unwrap();
    queued.into_iter().for_each(|job| job.wait().unwrap());
    pool.submit(|| ()).wait().unwrap();
}

#[test]
fn b62_a_job_for_which_a_thread_is_free_is_not_one_that_waits() {
    for queue in [0, 1, 0, 1, 0, 1] {
        let pool = ThreadPool::builder().threads(3).queue(queue).build();
        let gate = Gate::default();
        let jobs: Vec<_> = (0..3 + queue)
            .map(|_| {
                let gate = gate.clone();
                pool.submit(move || gate.pass())
            })
            .collect();
        let error = pool.submit(|| ()).wait().unwrap_err();
        assert!(matches!(error, JobError::Refused(ExecutorError::Full)), "{error}");
        gate.open();
        jobs.into_iter().for_each(|job| job.wait().unwrap());
    }
}

#[test]
fn there_are_no_more_threads_than_asked_for_and_they_are_named() {
    let pool = ThreadPool::builder().threads(3).name("crew").build();
    let together = Arc::new(Barrier::new(3));
    let jobs: Vec<_> = (0..300)
        .map(|_| {
            let together = together.clone();
            pool.submit(move || {
                together.wait();
                thread::current().name().unwrap().to_owned()
            })
        })
        .collect();
    let names: BTreeSet<_> = jobs.into_iter().map(|job| job.wait().unwrap()).collect();
    assert!(names.into_iter().eq(["crew_0", "crew_1", "crew_2"]));
}

#[test]
fn an_idle_thread_is_used_again() {
    let pool = ThreadPool::builder().threads(0).build();
    let names: BTreeSet<_> = (0..50)
        .map(|_| pool.submit(|| thread::current().name().unwrap().to_owned()).wait().unwrap())
        .collect();
    assert!(names.into_iter().eq(["tulipa_0"]), "at least one, and no more");
}

#[test]
fn b62_no_thread_is_idle_while_a_job_is_queued() {
    let rounds = if cfg!(debug_assertions) { 500 } else { 5_000 };
    let pool = ThreadPool::new(4);
    for _ in 0..rounds {
        let together = Arc::new(Barrier::new(4));
        let jobs: Vec<_> = (0..4)
            .map(|_| {
                let together = together.clone();
                pool.submit(move || together.wait().is_leader())
            })
            .collect();
        for job in jobs {
            job.wait_timeout(PATIENCE).expect("a job is starving").unwrap();
        }
    }
}

#[test]
fn b62_jobs_from_many_threads_run_once_each() {
    let pool = ThreadPool::new(3);
    let (run, cancelled) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..2_000 {
                    let run = run.clone();
                    let job = pool.submit(move || run.fetch_add(1, SeqCst));
                    match number % 3 {
                        0 => drop(job.wait().unwrap()),
                        1 if job.cancel() => drop(cancelled.fetch_add(1, SeqCst)),
                        _ => drop(job),
                    }
                }
            });
        }
    });
    pool.shutdown(true, false).unwrap();
    assert_eq!(run.load(SeqCst) + cancelled.load(SeqCst), 8_000);
}

#[test]
fn wait_timeout_gives_the_handle_back() {
    let pool = ThreadPool::new(1);
    let gate = Gate::default();
    let mut job = block(&pool, &gate);
    for timeout in [Duration::ZERO, Duration::from_millis(1)] {
        job = job.wait_timeout(timeout).unwrap_err();
        assert!(format!("{job:?}").contains("pending"));
    }
    gate.open();
    job.wait_timeout(Duration::MAX).unwrap().unwrap();
}

#[test]
fn a_dropped_pool_finishes_its_jobs() {
    let (tell, told) = mpsc::channel();
    let pool = ThreadPool::new(1);
    let jobs: Vec<_> = (0..10)
        .map(|number| {
            // The last handle goes inside of the pool's own thread.
            let (own, tell) = (pool.clone(), tell.clone());
            pool.submit(move || {
                drop(own);
                tell.send(number).unwrap();
            })
        })
        .collect();
    drop((pool, tell));
    jobs.into_iter().for_each(|job| job.wait().unwrap());
    assert!(told.iter().eq(0..10));
}

#[test]
fn a_map_loses_no_item_when_others_have_filled_the_queue() {
    let pool = ThreadPool::builder().threads(1).queue(1).build();
    let gate = Gate::default();
    let blocked = block(&pool, &gate);
    let waiting = pool.submit(|| ());
    let mut squares = pool.map(1..=5, |n| n * n);
    let opener = thread::spawn(move || gate.open());
    let first = squares.next().map(Result::unwrap);
    let rest = squares.map(Result::unwrap);
    assert_eq!(first.into_iter().chain(rest).collect::<Vec<_>>(), [1, 4, 9, 16, 25]);
    opener.join().unwrap();
    blocked.wait().unwrap();
    waiting.wait().unwrap();
}
