//! Interleavings of callers and one sleeper: no lost wake-up, no storm of rings.
#![expect(unsafe_code, reason = "loom watches accesses through raw pointers")]

use std::io;

use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::{Doorbell, Ring};

/// An `eventfd` as the sleeper sees it.
#[derive(Debug, Clone)]
struct EventFd {
    count: Arc<(Mutex<usize>, Condvar)>,
    rings: Arc<AtomicUsize>,
}

impl EventFd {
    fn new() -> EventFd {
        EventFd {
            count: Arc::new((Mutex::new(0), Condvar::new())),
            rings: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// The blocking wait of a selector: loom fails the test if it never ends.
    fn wait(&self, block: bool) {
        let mut count = self.count.0.lock().unwrap();
        while block && *count == 0 {
            count = self.count.1.wait(count).unwrap();
        }
        *count = 0;
    }
}

impl Ring for EventFd {
    fn ring(&self) -> io::Result<()> {
        self.rings.fetch_add(1, SeqCst);
        *self.count.0.lock().unwrap() += 1;
        self.count.1.notify_one();
        Ok(())
    }
}

/// Sleeps until `messages` have arrived; returns how many waits were allowed to block.
fn run_until(door: &Doorbell, fd: &EventFd, mail: &AtomicUsize, messages: usize) -> usize {
    let mut sleeps = 0;
    while mail.load(SeqCst) < messages {
        let block = door.lie_down();
        sleeps += usize::from(block);
        fd.wait(block);
        door.get_up();
    }
    sleeps
}

/// Checks every interleaving with at most three preemptions, which is more than it takes to lose a
/// wake-up; all of them take minutes. `LOOM_MAX_PREEMPTIONS` is another bound.
fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(f);
}

fn callers_and_a_sleeper(threads: usize, calls: usize) {
    model(move || {
        let fd = EventFd::new();
        let door = Doorbell::new(fd.clone());
        let mail = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..threads)
            .map(|_| {
                let (notifier, mail) = (door.notifier(), mail.clone());
                thread::spawn(move || {
                    for _ in 0..calls {
                        mail.fetch_add(1, SeqCst);
                        notifier.notify().unwrap();
                    }
                })
            })
            .collect();
        let sleeps = run_until(&door, &fd, &mail, threads * calls);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        let rings = fd.rings.load(SeqCst);
        assert!(rings <= sleeps, "{rings} rings for {sleeps} sleeps");
    });
}

#[test]
fn loom_b36_no_call_of_two_threads_is_lost() {
    callers_and_a_sleeper(2, 1);
}

#[test]
fn loom_b37_two_calls_of_one_thread_ring_at_most_once_for_each_sleep() {
    callers_and_a_sleeper(1, 2);
}

#[test]
fn loom_what_was_written_before_a_call_is_visible_after_the_wait_that_reports_it() {
    loom::model(|| {
        let fd = EventFd::new();
        let door = Doorbell::new(fd.clone());
        let cell = Arc::new(loom::cell::UnsafeCell::new(0));
        let (notifier, theirs) = (door.notifier(), cell.clone());
        let caller = thread::spawn(move || {
            // SAFETY: nobody reads the cell before the call is reported; loom checks it.
            theirs.with_mut(|value| unsafe { *value = 42 });
            notifier.notify().unwrap();
        });
        loop {
            let block = door.lie_down();
            fd.wait(block);
            if door.get_up() {
                break;
            }
        }
        // SAFETY: the writer is done, since its call was reported.
        assert_eq!(cell.with(|value| unsafe { *value }), 42);
        caller.join().unwrap();
    });
}

#[test]
fn loom_b39_a_call_races_with_close() {
    loom::model(|| {
        let fd = EventFd::new();
        let door = Doorbell::new(fd.clone());
        let notifier = door.notifier();
        let caller = thread::spawn(move || notifier.notify().is_ok());
        door.close();
        drop(door);
        let accepted = caller.join().unwrap();
        assert_eq!(fd.rings.load(SeqCst), 0, "nobody sleeps, accepted or not: {accepted}");
    });
}
