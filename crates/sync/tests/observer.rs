//! `wait::Observer`: what it is told, and that every beginning has an end.

mod common;

use common::{Pairing, Task, lend};
use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use tulipa_sync::wait::{Observer, OwnerId, ResourceId, Wait, WaitKind, WaitToken, with_observer};
use tulipa_sync::{Barrier, Condition, Event, Lock, LockGuard, Queue, RwLock, Semaphore, oneshot};

/// Keeps what it is told.
#[derive(Default)]
struct Record {
    waits: RefCell<Vec<Wait>>,
    ended: RefCell<Vec<u64>>,
    running: Cell<Option<OwnerId>>,
    changes: RefCell<Vec<(ResourceId, Option<OwnerId>)>>,
}

impl Record {
    fn run_as(&self, owner: u64) {
        self.running.set(NonZeroU64::new(owner).map(OwnerId::new));
    }
}

impl Observer for Record {
    fn begin(&self, wait: &Wait) -> WaitToken {
        self.waits.borrow_mut().push(*wait);
        WaitToken::new(self.waits.borrow().len() as u64)
    }

    fn end(&self, token: WaitToken) {
        self.ended.borrow_mut().push(token.get());
    }

    fn moved(&self, token: WaitToken) -> WaitToken {
        WaitToken::new(token.get() + 100)
    }

    fn current_owner(&self) -> Option<OwnerId> {
        self.running.get()
    }

    fn owner_changed(&self, resource: ResourceId, owner: Option<OwnerId>) {
        self.changes.borrow_mut().push((resource, owner));
    }
}

fn owner(id: u64) -> Option<OwnerId> {
    NonZeroU64::new(id).map(OwnerId::new)
}

#[test]
fn every_kind_of_wait_is_told() {
    let record = Rc::new(Record::default());
    let (lock, rwlock, semaphore) = (Lock::new(0), RwLock::new(0), Semaphore::new(0));
    let (event, condition, barrier) = (Event::new(), Condition::new(), Barrier::new(2));
    let (full, empty) = (Queue::bounded(1), Queue::<u8>::unbounded());
    full.try_put(0).unwrap();
    let (mut sender, mut receiver) = oneshot::channel::<u8>();
    let (_sender, mut other) = oneshot::channel::<u8>();
    receiver.try_recv().unwrap();
    with_observer(record.clone(), || {
        let waiting = Task::waiting(condition.wait(lock.try_lock().unwrap()));
        let _held = lock.try_lock().unwrap();
        let _reader = rwlock.try_read().unwrap();
        drop(Task::waiting(lock.lock()));
        drop(Task::waiting(rwlock.write()));
        let _writer = Task::waiting(rwlock.write());
        drop(Task::waiting(rwlock.read()));
        drop(Task::waiting(semaphore.acquire()));
        drop(Task::waiting(event.wait()));
        drop(Task::waiting(barrier.wait()));
        drop(Task::waiting(full.put(1)));
        drop(Task::waiting(empty.get()));
        drop(Task::waiting(full.join()));
        drop(Task::waiting(&mut other));
        drop(Task::waiting(sender.closed()));
        drop(waiting);
    });
    let kinds: Vec<_> = record.waits.borrow().iter().map(|wait| wait.kind().to_string()).collect();
    let expected = [
        "condition",
        "lock",
        "write lock",
        "write lock",
        "read lock",
        "semaphore",
        "event",
        "barrier",
        "queue put",
        "queue get",
        "queue join",
        "oneshot",
        "oneshot closing",
    ];
    assert_eq!(kinds, expected);
    drop(other);
    assert_eq!(record.ended.borrow().len(), expected.len());
}

#[test]
fn a_wait_names_the_primitive_and_its_owner() {
    let record = Rc::new(Record::default());
    let lock = Lock::new(()).named("db");
    with_observer(record.clone(), || {
        record.run_as(4);
        let guard = lock.try_lock().unwrap();
        assert_eq!(lock.owner(), owner(4));
        record.run_as(5);
        drop(Task::waiting(lock.lock()));
        drop(guard);
        assert_eq!(lock.owner(), None);
    });
    let wait = record.waits.borrow()[0];
    assert_eq!((wait.kind(), wait.name(), wait.owner()), (WaitKind::Lock, Some("db"), owner(4)));
    assert_eq!(wait.created_at().file(), file!());
    assert!(wait.to_string().starts_with("lock `db` created at "));
    assert!(wait.to_string().ends_with(", owned by 4"));
}

#[test]
fn waits_on_one_primitive_share_its_identity() {
    let record = Rc::new(Record::default());
    let (one, two) = (Queue::<u8>::unbounded(), Queue::<u8>::unbounded());
    one.try_put(1).unwrap();
    let item = one.try_get();
    with_observer(record.clone(), || {
        let _tasks = [Task::waiting(one.get()), Task::waiting(two.get())];
        let _join = Task::waiting(one.join());
    });
    assert!(item.is_ok());
    let waits = record.waits.borrow();
    assert_ne!(waits[0].resource(), waits[1].resource());
    assert_eq!(waits[0].resource(), waits[2].resource());
}

#[test]
fn those_who_wait_on_are_told_who_owns_the_lock_next() {
    let record = Rc::new(Record::default());
    let lock = Lock::new(());
    with_observer(record.clone(), || {
        record.run_as(1);
        let guard = lock.try_lock().unwrap();
        record.run_as(2);
        let mut second = Task::waiting(lock.lock());
        record.run_as(3);
        let mut third = Task::waiting(lock.lock());
        record.run_as(1);
        LockGuard::unlock(guard);
        record.run_as(2);
        let guard = second.expect();
        LockGuard::unlock(guard);
        record.run_as(3);
        drop(third.expect());
    });
    let lock = record.waits.borrow()[0].resource();
    assert_eq!(*record.changes.borrow(), [(lock, None), (lock, owner(2)), (lock, None)]);
}

#[test]
fn an_end_goes_to_the_observer_of_the_beginning() {
    let (one, other) = (Rc::new(Record::default()), Rc::new(Record::default()));
    let event = Event::new();
    let waiting = with_observer(one.clone(), || Task::waiting(event.wait()));
    with_observer(other.clone(), || drop(waiting));
    assert_eq!(one.ended.borrow().len(), 1);
    assert!(other.ended.borrow().is_empty());
    let mut waiting = with_observer(one.clone(), || Task::waiting(event.wait()));
    event.set();
    waiting.expect();
    assert_eq!(*one.ended.borrow(), [1, 2]);
}

#[test]
fn a_wait_that_is_polled_with_another_waker_moves() {
    let record = Rc::new(Record::default());
    let (event, lock, queue) = (Event::new(), Lock::new(()), Queue::<u8>::unbounded());
    let _held = lock.try_lock().unwrap();
    let (_sender, receiver) = oneshot::channel::<u8>();
    with_observer(record.clone(), || {
        let mut waits = [
            Task::waiting(async { event.wait().await }),
            Task::waiting(async { drop(lock.lock().await) }),
            Task::waiting(async { assert!(queue.get().await.is_err()) }),
            Task::waiting(async { assert!(receiver.await.is_err()) }),
        ];
        for wait in &mut waits {
            assert!(wait.poll().is_pending());
        }
        assert!(record.ended.borrow().is_empty());
        for wait in &mut waits {
            assert!(wait.poll_with(std::task::Waker::noop()).is_pending());
        }
    });
    // Each ends with the token that it got when it moved. Where no two wakers are known to be the same, as
    // under Miri, it may have moved more often.
    assert_eq!(record.waits.borrow().len(), 4);
    let ended = record.ended.borrow();
    assert!(ended.iter().all(|token| *token > 100), "{ended:?}");
    assert_eq!(ended.iter().map(|token| token % 100).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(cfg!(miri) || *ended == [101, 102, 103, 104], "{ended:?}");
}

#[test]
fn a_wait_that_begins_unobserved_stays_so() {
    let record = Rc::new(Record::default());
    let event = Event::new();
    let mut waiting = Task::waiting(event.wait());
    with_observer(record.clone(), || {
        assert!(waiting.poll().is_pending());
        waiting.cancel();
    });
    assert!(record.waits.borrow().is_empty() && record.ended.borrow().is_empty());
}

#[test]
fn observers_nest_and_are_restored_after_a_panic() {
    let (outer, inner) = (Rc::new(Pairing::default()), Rc::new(Pairing::default()));
    let event = Event::new();
    with_observer(outer.clone(), || {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            with_observer(inner.clone(), || {
                let _waiting = Task::waiting(event.wait());
                panic!("observed");
            });
        }));
        assert!(panicked.is_err());
        drop(Task::waiting(event.wait()));
    });
    drop(Task::waiting(event.wait()));
    assert_eq!((outer.begun(), outer.open()), (1, 0));
    assert_eq!((inner.begun(), inner.open()), (1, 0));
    assert_eq!(Rc::strong_count(&outer), 1);
}

/// Uses the primitive it is told of.
struct Meddler {
    lock: Rc<Lock<()>>,
    guard: RefCell<Option<LockGuard<'static, ()>>>,
}

impl Observer for Meddler {
    fn begin(&self, _: &Wait) -> WaitToken {
        drop(self.guard.take());
        assert!(self.lock.is_locked(), "it was handed to who is about to wait");
        WaitToken::new(0)
    }

    fn end(&self, _: WaitToken) {
        assert!(self.lock.try_lock().is_none());
    }
}

#[test]
fn an_observer_may_use_the_primitive_it_is_told_of() {
    let lock: &'static Lock<()> = lend(Lock::new(()));
    let inner = Rc::new(Lock::new(()));
    let kept = inner.clone();
    let _held = kept.try_lock().unwrap();
    let meddler = Rc::new(Meddler { lock: inner.clone(), guard: RefCell::new(lock.try_lock()) });
    let mut waiting = with_observer(meddler, || Task::waiting(lock.lock()));
    assert!(waiting.is_woken(), "the lock was released while the wait began");
    drop(waiting.expect());
}
