//! The budget of system calls, counted with `strace` in a process of its own.
#![cfg(all(target_os = "linux", not(miri)))]

mod os;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use os::{Call, Counter, WAITS, begin, count, end, of_the_loop, pair, send, traced, turn};
use tulipa_loop::{EventLoop, LoopHandle};
use tulipa_selector::Timeout;

const TURNS: usize = 100;

/// Everything that a loop could possibly call.
const ALL: &str = "epoll_pwait2,epoll_pwait,?epoll_wait,ppoll,?poll,epoll_ctl,epoll_create1,\
                   eventfd2,timerfd_create,timerfd_settime,read,write,close,dup3,fcntl,\
                   clock_gettime,clock_nanosleep,recvfrom,sendto";

#[track_caller]
fn assert_only_waits(calls: &[Call], waits: std::ops::RangeInclusive<usize>) {
    assert!(waits.contains(&count(calls, &WAITS)), "{calls:#?}");
    let others = of_the_loop(calls);
    let others: Vec<_> =
        others.iter().filter(|call| !WAITS.contains(&call.name.as_str())).collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn p5_an_idle_loop_makes_no_wake_ups() {
    traced(
        "p5_an_idle_loop_makes_no_wake_ups",
        ALL,
        || {
            let event_loop = EventLoop::new().unwrap();
            let (wires, calls) = ([pair(), pair()], Counter::default());
            for (ours, _) in &wires {
                event_loop.add_reader(ours.clone(), calls.callback()).unwrap();
            }
            event_loop.call_later(Duration::from_secs(3600), |_| ());
            event_loop.call_later(Duration::from_millis(300), |handle| {
                end();
                handle.stop();
            });
            turn(&event_loop);
            begin();
            event_loop.run_forever().unwrap();
            assert_eq!(calls.get(), 0);
        },
        // One wait; a second one where the kernel's clock is coarser than ours.
        |calls| assert_only_waits(calls, 1..=2),
    );
}

#[test]
fn call_soon_and_timers_make_no_system_call() {
    traced(
        "call_soon_and_timers_make_no_system_call",
        ALL,
        || {
            let event_loop = EventLoop::new().unwrap();
            // Room for what follows, so that the allocator is quiet too.
            event_loop.call_soon(|_| ());
            turn(&event_loop);
            begin();
            for _ in 0..TURNS {
                event_loop.call_soon(|_| ());
                event_loop.call_soon(|_| ()).cancel();
                event_loop.call_later(Duration::from_secs(1), |_| ()).cancel();
                event_loop.time();
            }
            end();
        },
        |calls| assert!(calls.is_empty(), "{calls:#?}"),
    );
}

#[test]
fn a_local_wake_makes_no_system_call() {
    traced(
        "a_local_wake_makes_no_system_call",
        ALL,
        || {
            let event_loop = EventLoop::new().unwrap();
            let mut polls = 0;
            let wake = poll_fn(|context| {
                polls += 1;
                if polls == 1 {
                    begin();
                }
                for _ in 0..TURNS {
                    context.waker().wake_by_ref();
                }
                if polls == 5 {
                    end();
                    return Poll::Ready(());
                }
                Poll::Pending
            });
            event_loop.run_until_complete(wake).unwrap();
        },
        // Four turns that are at work: the look at the operating system is skipped or free.
        |calls| assert_only_waits(calls, 0..=4),
    );
}

#[test]
fn a_yield_costs_a_ninth_of_a_system_call_at_most_while_turns_are_short() {
    traced(
        "a_yield_costs_a_ninth_of_a_system_call_at_most_while_turns_are_short",
        ALL,
        || {
            let event_loop = EventLoop::new().unwrap();
            fn again(handle: &LoopHandle, left: usize) {
                if left > 0 {
                    handle.call_soon(move |handle| again(handle, left - 1));
                } else {
                    handle.stop();
                }
            }
            again(&event_loop, 900);
            begin();
            event_loop.run_forever().unwrap();
            end();
        },
        // One in nine turns, and one for each millisecond, however long the machine takes.
        |calls| assert_only_waits(calls, 90..=901),
    );
}

#[test]
fn a_turn_with_events_is_one_wait_and_nothing_else() {
    traced(
        "a_turn_with_events_is_one_wait_and_nothing_else",
        ALL,
        || {
            let event_loop = EventLoop::new().unwrap();
            let (wires, calls) = ([pair(), pair()], Counter::default());
            for (ours, theirs) in &wires {
                event_loop.add_reader(ours.clone(), calls.callback()).unwrap();
                send(theirs);
            }
            let remote = event_loop.remote();
            event_loop.call_later(Duration::from_secs(3600), |_| ());
            begin();
            for _ in 0..TURNS {
                event_loop.run_once(Timeout::Never).unwrap();
            }
            end();
            drop(remote);
            assert_eq!(calls.get(), 2 * TURNS);
        },
        |calls| {
            assert_only_waits(calls, TURNS..=TURNS);
        },
    );
}

#[test]
fn replacing_a_reader_makes_no_system_call() {
    traced(
        "replacing_a_reader_makes_no_system_call",
        ALL,
        || {
            let event_loop = EventLoop::new().unwrap();
            let (ours, _theirs) = pair();
            event_loop.add_reader(ours.clone(), |_| ()).unwrap();
            begin();
            for _ in 0..TURNS {
                event_loop.add_reader(ours.clone(), |_| ()).unwrap();
            }
            end();
        },
        |calls| assert!(calls.is_empty(), "{calls:#?}"),
    );
}

#[test]
fn b37_a_hundred_thousand_calls_from_other_threads_ring_at_most_once_for_each_sleep() {
    const THREADS: usize = 4;
    const EACH: usize = 25_000;
    traced(
        "b37_a_hundred_thousand_calls_from_other_threads_ring_at_most_once_for_each_sleep",
        "write,epoll_pwait2,epoll_pwait",
        || {
            let event_loop = EventLoop::new().unwrap();
            let run = Arc::new(AtomicUsize::new(0));
            event_loop.call_later(Duration::from_secs(3600), |_| ());
            begin();
            let callers: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (remote, run) = (event_loop.remote(), run.clone());
                    thread::spawn(move || {
                        for _ in 0..EACH {
                            let run = run.clone();
                            let call = move |handle: &LoopHandle| {
                                if run.fetch_add(1, SeqCst) + 1 == THREADS * EACH {
                                    handle.stop();
                                }
                            };
                            remote.call_soon(call).unwrap();
                        }
                    })
                })
                .collect();
            event_loop.run_forever().unwrap();
            callers.into_iter().for_each(|caller| caller.join().unwrap());
            end();
        },
        |calls| {
            // A wait with a timeout of zero is no sleep, and goes through `epoll_pwait`.
            let (rings, sleeps) = (count(calls, &["write"]), count(calls, &["epoll_pwait2"]));
            assert!(rings <= sleeps, "{rings} rings for {sleeps} sleeps");
        },
    );
}

/// Whether a wait does not block: `epoll_pwait(3, [], 1024, 0, NULL, 8)`.
fn is_immediate(call: &Call) -> bool {
    let arguments = call.line.rsplit_once("], ").or_else(|| call.line.split_once(", "));
    let after = arguments.map_or("", |(_, after)| after);
    after
        .split(", ")
        .nth(1)
        .is_some_and(|timeout| timeout == "0" || timeout.contains("tv_sec=0, tv_nsec=0"))
}

#[test]
fn b37_calls_to_a_loop_that_never_sleeps_ring_nothing() {
    traced(
        "b37_calls_to_a_loop_that_never_sleeps_ring_nothing",
        "write",
        || {
            let event_loop = EventLoop::new().unwrap();
            let remote = event_loop.remote();
            let (done, on_done) = mpsc::channel();
            // Always at work, so it never sleeps.
            fn work(handle: &LoopHandle, on_done: Rc<RefCell<mpsc::Receiver<()>>>) {
                if on_done.borrow().try_recv().is_ok() {
                    handle.stop();
                } else {
                    handle.call_soon(move |handle| work(handle, on_done));
                }
            }
            work(&event_loop, Rc::new(RefCell::new(on_done)));
            begin();
            let caller = thread::spawn(move || {
                for _ in 0..50_000 {
                    remote.call_soon(|_| ()).unwrap();
                }
                done.send(()).unwrap();
            });
            event_loop.run_forever().unwrap();
            caller.join().unwrap();
            end();
        },
        |calls| assert_eq!(count(calls, &["write"]), 0, "{calls:#?}"),
    );
}

#[test]
fn busy_poll_looks_without_waiting_and_then_waits() {
    traced(
        "busy_poll_looks_without_waiting_and_then_waits",
        ALL,
        || {
            let busy = Duration::from_millis(2);
            let event_loop = EventLoop::builder().busy_poll(busy).build().unwrap();
            event_loop.call_later(Duration::from_millis(500), LoopHandle::stop);
            begin();
            event_loop.run_forever().unwrap();
            end();
        },
        |calls| {
            assert_only_waits(calls, 2..=usize::MAX);
            let calls = of_the_loop(calls);
            assert!(is_immediate(calls[0]), "{:?}", calls[0]);
            // A second long wait where the kernel's clock is coarser than ours.
            let long = calls.iter().filter(|call| !is_immediate(call)).count();
            assert!((1..=2).contains(&long), "{long} of {}", calls.len());
        },
    );
}

#[test]
fn busy_poll_that_is_longer_than_the_wait_never_sleeps() {
    traced(
        "busy_poll_that_is_longer_than_the_wait_never_sleeps",
        ALL,
        || {
            let busy = Duration::from_secs(3600);
            let event_loop = EventLoop::builder().busy_poll(busy).build().unwrap();
            event_loop.call_later(Duration::from_millis(5), LoopHandle::stop);
            begin();
            event_loop.run_forever().unwrap();
            end();
        },
        |calls| {
            assert_only_waits(calls, 1..=usize::MAX);
            assert!(of_the_loop(calls).into_iter().all(is_immediate), "{calls:#?}");
        },
    );
}
