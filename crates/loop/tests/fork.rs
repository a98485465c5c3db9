//! After `fork` a loop belongs to the parent: the child cannot run it, and its end there changes
//! nothing for the parent. Each test is in a process of its own, with one thread.
#![cfg(all(target_os = "linux", not(miri)))]

mod os;

use std::rc::Rc;

use os::{Counter, alone, pair, send, threads, turn};
use tulipa_loop::{AsyncFd, EventLoop, RunError};
use tulipa_selector::Timeout;

/// Runs `body` in a forked child, and waits for its end.
#[track_caller]
fn in_child(body: impl FnOnce()) {
    // SAFETY: `fork` copies this thread only; libtest's other thread, if there is one, waits and
    // holds no lock. The child ends with `_exit`, so nothing of the test runs twice.
    match unsafe { libc::fork() } {
        0 => {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(if ended.is_ok() { 0 } else { 1 }) }
        }
        child => {
            assert!(child > 0, "fork failed");
            let mut status = 0;
            // SAFETY: the pointer is valid.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child failed");
        }
    }
}

#[test]
fn b60_a_loop_does_not_run_in_a_forked_child() {
    alone("b60_a_loop_does_not_run_in_a_forked_child", || {
        let event_loop = EventLoop::new().unwrap();
        in_child(|| {
            let forked = |result| assert!(matches!(result, Err(RunError::Forked(_))));
            forked(event_loop.run_forever());
            forked(event_loop.run_once(Timeout::Never));
            forked(event_loop.run_until_complete(async {}));
            assert!(!event_loop.is_running());
        });
        event_loop.run_until_complete(async {}).unwrap();
    });
}

/// A loop with a reader, a writer and a waiting `AsyncFd`, ended in a child in some way.
fn end_in_child(test: &str, end: impl FnOnce(EventLoop, Rc<std::os::unix::net::UnixStream>)) {
    alone(test, || {
        let event_loop = EventLoop::new().unwrap();
        let (ours, theirs) = pair();
        let calls = Counter::default();
        event_loop.add_reader(ours.clone(), calls.callback()).unwrap();
        turn(&event_loop);
        let mut parts = Some((event_loop, end));
        in_child(|| {
            let (event_loop, end) = parts.take().unwrap();
            end(event_loop, ours.clone());
        });
        let (event_loop, _) = parts.unwrap();
        send(&theirs);
        turn(&event_loop);
        assert_eq!(calls.get(), 1, "the parent's registration is gone");
    });
}

#[test]
fn b60_a_child_that_drops_the_loop_leaves_the_parent_s_registrations_alone() {
    let test = "b60_a_child_that_drops_the_loop_leaves_the_parent_s_registrations_alone";
    end_in_child(test, |event_loop, _| drop(event_loop));
}

#[test]
fn b60_a_child_that_closes_the_loop_leaves_the_parent_s_registrations_alone() {
    let test = "b60_a_child_that_closes_the_loop_leaves_the_parent_s_registrations_alone";
    end_in_child(test, |event_loop, _| {
        event_loop.close().unwrap();
        assert!(event_loop.is_closed());
    });
}

#[test]
fn b60_a_child_can_make_a_loop_of_its_own() {
    alone("b60_a_child_can_make_a_loop_of_its_own", || {
        let parent = EventLoop::new().unwrap();
        let (ours, theirs) = pair();
        in_child(|| {
            drop(parent);
            let event_loop = EventLoop::new().unwrap();
            let fd = AsyncFd::new(&event_loop, ours).unwrap();
            send(&theirs);
            event_loop.run_until_complete(fd.readable()).unwrap().unwrap();
            let remote = event_loop.remote();
            std::thread::spawn(move || remote.stop().unwrap());
            event_loop.run_forever().unwrap();
        });
    });
}

#[cfg(feature = "signal")]
mod signals {
    use super::*;
    use tulipa_loop::LoopHandle;
    use tulipa_loop::signal::Signal;

    fn raise() {
        // SAFETY: `raise` has no preconditions.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
    }

    /// The bells of the signal handler are inherited by the child, so it must not listen to those
    /// that the parent listens to.
    #[test]
    fn b60_a_child_that_listens_to_signals_takes_none_of_the_parent_s() {
        alone("signals::b60_a_child_that_listens_to_signals_takes_none_of_the_parent_s", || {
            let event_loop = EventLoop::new().unwrap();
            event_loop.add_signal_handler(Signal::USER1, LoopHandle::stop).unwrap();
            raise();
            let mut parent = Some(event_loop);
            in_child(|| {
                drop(parent.take());
                let own = EventLoop::new().unwrap();
                let calls = Counter::default();
                own.add_signal_handler(Signal::USER1, calls.callback()).unwrap();
                turn(&own);
                turn(&own);
                assert_eq!(calls.get(), 0, "the signal was the parent's");
                raise();
                turn(&own);
                assert_eq!(calls.get(), 1);
            });
            // The bell still rings for the parent: this would wait for ever.
            let event_loop = parent.unwrap();
            let before = event_loop.statistics().events;
            turn(&event_loop);
            assert_eq!(event_loop.statistics().events, before + 1, "the child emptied the bell");
        });
    }
}

#[test]
fn the_tests_here_have_one_thread() {
    alone("the_tests_here_have_one_thread", || assert!(threads() <= 2));
}
