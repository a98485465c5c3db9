//! The smallest executor that is fair to all: up to 64 tasks, and one bit for each that is ready.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

struct Bit {
    ready: Arc<AtomicU64>,
    mask: u64,
}

impl Wake for Bit {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.fetch_or(self.mask, Ordering::Relaxed);
    }
}

/// Runs the tasks until all are finished.
///
/// # Panics
///
/// With more than 64 tasks, and when none of those that are left is ready.
pub fn run<'a>(tasks: impl IntoIterator<Item = Pin<Box<dyn Future<Output = ()> + 'a>>>) {
    let ready = Arc::new(AtomicU64::new(0));
    let mut tasks: Vec<_> = tasks
        .into_iter()
        .enumerate()
        .map(|(index, task)| {
            let mask = 1_u64.checked_shl(index as u32).filter(|&mask| mask != 0);
            let bit = Bit { ready: ready.clone(), mask: mask.expect("at most 64 tasks") };
            ready.fetch_or(bit.mask, Ordering::Relaxed);
            (Waker::from(Arc::new(bit)), Some(task))
        })
        .collect();
    let mut left = tasks.len();
    while left > 0 {
        let mut now = ready.swap(0, Ordering::Relaxed);
        assert!(now != 0, "a task is ready");
        while now != 0 {
            let (waker, slot) = &mut tasks[now.trailing_zeros() as usize];
            now &= now - 1;
            let Some(task) = slot else { continue };
            if task.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
                *slot = None;
                left -= 1;
            }
        }
    }
}

/// Returns `Pending` once, and is ready for the next turn.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug, Default)]
pub struct YieldNow(bool);

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
