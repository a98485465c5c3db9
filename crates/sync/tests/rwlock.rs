//! `RwLock`: readers together, writers alone, first come, first served.

mod common;

use common::Task;
use tulipa_sync::{RwLock, RwLockWriteGuard};

#[test]
fn readers_share_and_a_writer_is_alone() {
    let lock = RwLock::new(1);
    let one = lock.try_read().unwrap();
    let two = Task::new(lock.read()).expect();
    assert!(lock.is_locked() && !lock.is_write_locked());
    let mut writer = Task::waiting(lock.write());
    drop(one);
    assert!(writer.poll().is_pending());
    drop(two);
    let mut guard = writer.expect();
    *guard += 1;
    assert!(lock.is_write_locked());
    assert!(lock.try_read().is_none() && lock.try_write().is_none());
    drop(guard);
    assert_eq!(*lock.try_read().unwrap(), 2);
}

#[test]
fn a_reader_that_comes_after_a_waiting_writer_waits_behind_it() {
    let lock = RwLock::new(());
    let reader = lock.try_read().unwrap();
    let mut writer = Task::waiting(lock.write());
    assert!(lock.try_read().is_none());
    let mut late = Task::waiting(lock.read());
    drop(reader);
    assert!(writer.is_woken() && !late.is_woken());
    drop(writer.expect());
    assert!(late.poll().is_ready());
}

#[test]
fn readers_that_stand_together_are_let_in_together() {
    let lock = RwLock::new(());
    let writer = lock.try_write().unwrap();
    let mut readers: Vec<_> = (0..3).map(|_| Task::waiting(lock.read())).collect();
    let mut last = Task::waiting(lock.write());
    drop(writer);
    let guards: Vec<_> = readers.iter_mut().map(Task::expect).collect();
    assert!(!last.is_woken());
    drop(guards);
    assert!(last.poll().is_ready());
}

#[test]
fn a_dropped_writer_lets_the_readers_behind_it_in() {
    let lock = RwLock::new(());
    let _reader = lock.try_read().unwrap();
    let mut writer = Task::waiting(lock.write());
    let mut late = Task::waiting(lock.read());
    writer.cancel();
    assert!(late.is_woken());
    assert!(late.poll().is_ready());
}

#[test]
fn downgrading_lets_readers_in_and_keeps_writers_out() {
    let lock = RwLock::new(0);
    let mut writer = lock.try_write().unwrap();
    let mut reader = Task::waiting(lock.read());
    let mut other = Task::waiting(lock.write());
    *writer = 7;
    let kept = RwLockWriteGuard::downgrade(writer);
    assert_eq!(*reader.expect() + *kept, 14);
    assert!(!other.is_woken());
    drop(kept);
    assert!(other.poll().is_ready());
}

#[test]
fn a_panic_under_a_guard_releases_it() {
    let lock = RwLock::new(0);
    for write in [false, true] {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _reader = (!write).then(|| lock.try_read().unwrap());
            let _writer = write.then(|| lock.try_write().unwrap());
            panic!("under the guard");
        }));
        assert!(panicked.is_err() && !lock.is_locked());
    }
}
