//! Every interleaving of a job that ends with whoever waits for it, by a waker or by blocking: the
//! result arrives, once.

use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::sync::atomic::{AtomicBool, Ordering::SeqCst};
use loom::thread;

use super::{Job, JobError};

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn loom_a_job_that_ends_while_it_is_polled_is_ready_or_wakes() {
    loom::model(|| {
        let (job, handle) = Job::new(|| 7);
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let runner = thread::spawn(move || job.run());
        let first = handle.cell.take(Some(&Waker::from(flag.clone())));
        runner.join().unwrap();
        let result = first.unwrap_or_else(|| {
            assert!(flag.0.load(SeqCst), "who found nothing is woken");
            handle.cell.take(None).expect("it has ended")
        });
        assert_eq!(result.unwrap(), 7);
    });
}

#[test]
fn loom_whoever_blocks_on_a_job_goes_on_when_it_ends() {
    loom::model(|| {
        let (job, handle) = Job::new(|| 7);
        let runner = thread::spawn(move || job.run());
        assert_eq!(handle.wait().unwrap(), 7);
        runner.join().unwrap();
    });
}

#[test]
fn loom_of_a_cancel_and_a_run_of_a_job_exactly_one_wins() {
    loom::model(|| {
        let (job, handle) = Job::new(|| 7);
        let runner = thread::spawn(move || job.run());
        let cancelled = handle.cancel();
        let result = handle.wait();
        assert_eq!(cancelled, matches!(result, Err(JobError::Cancelled)));
        assert_eq!(!cancelled, matches!(result, Ok(7)));
        runner.join().unwrap();
    });
}
