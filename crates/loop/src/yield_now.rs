//! [`yield_now`]: one turn of the loop.

use std::future::poll_fn;
use std::task::Poll;

/// Lets everything else run once: the task goes on in the loop's next turn, after a look for events.
/// Stands for `await asyncio.sleep(0)`.
///
/// # Cancel safety
/// There is nothing to lose.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
