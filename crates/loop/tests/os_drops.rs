//! The futures that need the operating system, dropped after each number of polls: nothing is left behind,
//! and what they waited for is still there for the next one.
#![cfg(all(unix, not(miri)))]

use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::Poll;

use tulipa_loop::{AsyncFd, EventLoop, LoopHandle, to_thread, yield_now};

/// More polls than any future here takes while nothing happens.
const MOST_POLLS: usize = 5;

/// Polls a future so many times, a turn of the loop after each, and drops it. Gives what it gave.
async fn give_up_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(value) = polled {
            return Some(value);
        }
        yield_now().await;
    }
    None
}

fn run(program: impl Future<Output = ()>) {
    run_with_sources(0, program);
}

/// The loop has so many sources of its own in the end.
fn run_with_sources(sources: usize, program: impl Future<Output = ()>) {
    let event_loop = EventLoop::new().unwrap();
    event_loop.run_until_complete(program).unwrap();
    let statistics = event_loop.statistics();
    assert_eq!((statistics.sources, statistics.timers, statistics.tasks), (sources, 0, 0));
    assert_eq!(event_loop.selector().keys().len(), sources);
}

#[test]
fn waiting_for_a_descriptor() {
    for polls in 0..MOST_POLLS {
        run(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let ours = AsyncFd::new(&LoopHandle::current(), ours).unwrap();
            assert!(give_up_after(polls, ours.readable()).await.is_none());
            let two =
                (give_up_after(polls, ours.readable()), give_up_after(polls, ours.readable()));
            assert!(futures_lite::future::zip(two.0, two.1).await.0.is_none());
            // There is room, which the loop may not have looked for yet.
            let _ = give_up_after(polls, ours.writable()).await;
            theirs.write_all(b"!").unwrap();
            let mut byte = [0];
            ours.read_with(|mut stream| stream.read(&mut byte)).await.unwrap();
            assert_eq!(&byte, b"!");
        });
    }
}

#[test]
fn waiting_for_a_thread() {
    for polls in 0..MOST_POLLS {
        run(async {
            let (free, freed) = std::sync::mpsc::channel::<()>();
            // Blocked until it was given up.
            assert!(give_up_after(polls, to_thread(move || freed.recv())).await.is_none());
            drop(free);
            assert_eq!(to_thread(|| 42).await.unwrap(), 42);
        });
    }
}

#[cfg(feature = "signal")]
#[test]
fn waiting_for_ctrl_c() {
    for polls in 0..MOST_POLLS {
        // A loop that has listened to a signal keeps the pipe that tells it of them.
        run_with_sources(1, async {
            let waiting = LoopHandle::current().ctrl_c().unwrap();
            assert!(give_up_after(polls, waiting).await.is_none());
        });
    }
}
