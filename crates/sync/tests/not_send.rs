//! The primitives belong to one thread, by type: asyncio finds out at run time.

use std::marker::PhantomData;
use std::rc::Rc;

use tulipa_sync::futures::{LockAcquire, QueueGet, SemaphoreAcquire};
use tulipa_sync::{
    Barrier, BoundedSemaphore, Condition, Event, Fifo, LifoQueue, Lock, LockGuard, Permit,
    PriorityQueue, Queue, RwLock, Semaphore, oneshot,
};

struct Probe<T>(PhantomData<T>);

/// What a [`Probe`] says of a type that is not `Send`, or not `Sync`: the inherent constants win
/// where they apply.
trait No {
    const SEND: bool = false;
    const SYNC: bool = false;
}

impl<T> No for Probe<T> {}

impl<T: Send> Probe<T> {
    const SEND: bool = true;
}

impl<T: Sync> Probe<T> {
    const SYNC: bool = true;
}

macro_rules! assert_one_thread {
    ($($name:ty),* $(,)?) => {
        $(
            const { assert!(!Probe::<$name>::SEND, "it is `Send`") };
            const { assert!(!Probe::<$name>::SYNC, "it is `Sync`") };
        )*
    };
}

#[test]
fn no_primitive_leaves_its_thread() {
    const { assert!(Probe::<u8>::SEND && Probe::<u8>::SYNC, "the probe works") };
    const { assert!(!Probe::<Rc<u8>>::SEND, "the probe works") };
    assert_one_thread!(
        Lock<u8>,
        LockGuard<'static, u8>,
        RwLock<u8>,
        Event,
        Condition,
        Semaphore,
        Permit<'static>,
        BoundedSemaphore,
        Barrier,
        Queue<u8>,
        LifoQueue<u8>,
        PriorityQueue<u8>,
        oneshot::Sender<u8>,
        oneshot::Receiver<u8>,
        LockAcquire<'static, u8>,
        SemaphoreAcquire<'static>,
        QueueGet<'static, Fifo<u8>>,
    );
}
