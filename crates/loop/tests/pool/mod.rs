//! What the tests of blocking work share: gates to wait at, and values with loud destructors.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tulipa_loop::{JobHandle, ThreadPool};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What jobs wait at.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn pass(&self) {
        let (lock, changed) = &*self.0;
        let (open, timeout) =
            changed.wait_timeout_while(lock.lock().unwrap(), PATIENCE, |open| !*open).unwrap();
        assert!(*open && !timeout.timed_out(), "the gate was never opened");
    }
}

/// A job that says that it has begun, and waits.
pub(crate) fn block(pool: &ThreadPool, gate: &Gate) -> JobHandle<()> {
    let (begun, on_begun) = mpsc::channel();
    let gate = gate.clone();
    let job = pool.submit(move || {
        begun.send(()).unwrap();
        gate.pass();
    });
    on_begun.recv_timeout(PATIENCE).unwrap();
    job
}

pub(crate) struct Tell(pub(crate) mpsc::Sender<thread::ThreadId>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().id());
    }
}

pub(crate) struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("in a destructor");
    }
}

pub(crate) fn keep<T>(_: &T) {}
