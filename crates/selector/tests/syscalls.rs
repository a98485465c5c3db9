//! The budget of system calls, counted with `strace` in a process of its own.
#![cfg(all(target_os = "linux", not(miri)))]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::child::{Call, WAITS, begin, count, end, traced};
use common::os::{Epoll, Polling};
use common::{Kind, SelectorKind, World};
use tulipa_selector::{Interest, Timeout};

const TURNS: usize = 100;

/// Everything that this layer could possibly call.
const ALL: &str = "epoll_pwait2,epoll_pwait,?epoll_wait,ppoll,?poll,epoll_ctl,epoll_create1,\
                   eventfd2,timerfd_create,timerfd_settime,read,write,close,dup3,fcntl,\
                   clock_gettime,clock_nanosleep,recvfrom,sendto";

#[track_caller]
fn assert_only_waits(calls: &[Call], waits: usize) {
    assert_eq!(count(calls, &WAITS), waits, "{calls:#?}");
    let others: Vec<_> = calls.iter().filter(|call| !WAITS.contains(&call.name.as_str())).collect();
    assert!(others.is_empty(), "{others:#?}");
}

fn ready_world() -> (World, common::Wire, tulipa_selector::Registration) {
    let mut world = Epoll::world();
    let wire = world.wire();
    let registration = world.register(&wire, Interest::READABLE, 1);
    wire.send();
    assert_eq!(world.who(), [1]);
    (world, wire, registration)
}

#[test]
fn a_turn_over_a_ready_socket_is_one_call_without_a_timeout() {
    traced(
        "a_turn_over_a_ready_socket_is_one_call_without_a_timeout",
        ALL,
        &[],
        || {
            let (mut world, _wire, _registration) = ready_world();
            begin();
            for _ in 0..TURNS {
                world.select(Timeout::Never).unwrap();
                assert_eq!(world.events.len(), 1);
            }
            end();
        },
        |calls| assert_only_waits(calls, TURNS),
    );
}

#[test]
fn a_turn_over_a_ready_socket_is_one_call_with_a_timeout() {
    traced(
        "a_turn_over_a_ready_socket_is_one_call_with_a_timeout",
        ALL,
        &[],
        || {
            let (mut world, _wire, _registration) = ready_world();
            let deadline = world.selector.now() + common::PATIENCE;
            begin();
            for turn in 0..TURNS {
                let timeout = match turn % 3 {
                    0 => Timeout::At(deadline),
                    1 => Timeout::After(Duration::from_micros(1_500)),
                    _ => Timeout::Immediate,
                };
                world.select(timeout).unwrap();
                assert_eq!(world.events.len(), 1);
            }
            end();
        },
        |calls| assert_only_waits(calls, TURNS),
    );
}

#[test]
fn an_idle_loop_makes_one_call_for_each_timeout() {
    traced(
        "an_idle_loop_makes_one_call_for_each_timeout",
        ALL,
        &[],
        || {
            let mut world = Epoll::world();
            let wire = world.wire();
            let _registration = world.register(&wire, Interest::READABLE, 1);
            begin();
            for _ in 0..3 {
                world.select(Duration::from_millis(20)).unwrap();
            }
            end();
        },
        |calls| assert_only_waits(calls, 3),
    );
}

#[test]
fn the_same_interest_costs_nothing_and_another_one_costs_one_call() {
    traced(
        "the_same_interest_costs_nothing_and_another_one_costs_one_call",
        ALL,
        &[],
        || {
            let (world, _wire, registration) = ready_world();
            begin();
            for _ in 0..TURNS {
                registration.set_interest(Interest::READABLE).unwrap();
                registration.set_data(9).unwrap();
                world.selector.get_key(registration.token()).unwrap();
                world.selector.keys();
                world.selector.now();
            }
            registration.set_interest(Interest::WRITABLE).unwrap();
            registration.set_interest(Interest::NONE).unwrap();
            registration.set_interest(Interest::NONE).unwrap();
            drop(registration);
            end();
        },
        |calls| {
            let names: Vec<_> = calls.iter().map(|call| call.name.as_str()).collect();
            assert_eq!(names, ["epoll_ctl", "epoll_ctl"], "a change, a delete: {calls:#?}");
            assert!(
                calls[0].line.contains("EPOLL_CTL_MOD") && calls[1].line.contains("EPOLL_CTL_DEL")
            );
        },
    );
}

fn notify_an_awake_selector<K: Kind>() {
    let mut world = K::world();
    let notifier = world.selector.notifier();
    world.select(Timeout::Immediate).unwrap();
    begin();
    for _ in 0..TURNS {
        notifier.notify().unwrap();
    }
    end();
    world.select(Timeout::Never).unwrap();
    assert!(world.events.is_notified());
}

#[test]
fn notifying_an_awake_epoll_selector_costs_nothing() {
    let test = "notifying_an_awake_epoll_selector_costs_nothing";
    traced(test, ALL, &[], notify_an_awake_selector::<Epoll>, |calls| assert_only_waits(calls, 0));
}

#[test]
fn notifying_an_awake_polling_selector_costs_nothing() {
    let test = "notifying_an_awake_polling_selector_costs_nothing";
    traced(test, ALL, &[], notify_an_awake_selector::<Polling>, |calls| {
        assert_only_waits(calls, 0)
    });
}

/// Calls from four threads, and a loop that sleeps as often as it can.
fn call_a_busy_loop(calls: usize, sleep: Timeout) {
    const THREADS: usize = 4;
    let mut world = Epoll::world();
    let said = Arc::new(AtomicUsize::new(0));
    begin();
    // Nobody calls yet: where the wait may sleep it does, so there is a sleep to be counted.
    world.select(sleep).unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (notifier, said) = (world.selector.notifier(), said.clone());
            std::thread::spawn(move || {
                for _ in 0..calls / THREADS {
                    said.fetch_add(1, SeqCst);
                    notifier.notify().unwrap();
                }
            })
        })
        .collect();
    while said.load(SeqCst) < calls || threads.iter().any(|thread| !thread.is_finished()) {
        world.select(sleep).unwrap();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    end();
}

#[test]
fn b37_calls_to_a_loop_that_never_sleeps_ring_nothing() {
    let test = "b37_calls_to_a_loop_that_never_sleeps_ring_nothing";
    traced(
        test,
        "eventfd2,write",
        &[],
        || call_a_busy_loop(100_000, Timeout::Immediate),
        |calls| {
            assert_eq!(count(calls, &["write"]), 0, "{calls:#?}");
        },
    );
}

#[test]
fn b37_a_hundred_thousand_calls_ring_at_most_once_for_each_sleep() {
    let test = "b37_a_hundred_thousand_calls_ring_at_most_once_for_each_sleep";
    let trace = "write,epoll_pwait2,epoll_pwait";
    let sleep = Timeout::After(Duration::from_millis(1));
    traced(
        test,
        trace,
        &[],
        || call_a_busy_loop(100_000, sleep),
        |calls| {
            // A wait with a timeout of zero is no sleep, and goes through `epoll_pwait`.
            let (rings, sleeps) = (count(calls, &["write"]), count(calls, &["epoll_pwait2"]));
            assert!(rings <= sleeps, "{rings} rings for {sleeps} sleeps");
            assert!(sleeps > 0);
        },
    );
}

#[test]
fn b38_a_bell_that_cannot_be_rung_is_reported() {
    let injection = "write:error=EPERM on anon_inode:[eventfd]";
    traced(
        "b38_a_bell_that_cannot_be_rung_is_reported",
        "write",
        &[injection],
        || {
            let mut world = Epoll::world();
            // From now on every call rings.
            world.selector.backend_fd().unwrap();
            let error = world.selector.notifier().notify().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
            world.select(Timeout::Immediate).unwrap();
        },
        |_| {},
    );
}

#[test]
fn b38_a_full_bell_is_rung_enough() {
    let injection = "write:error=EAGAIN on anon_inode:[eventfd]";
    traced(
        "b38_a_full_bell_is_rung_enough",
        "write",
        &[injection],
        || {
            let mut world = Epoll::world();
            world.selector.backend_fd().unwrap();
            world.selector.notifier().notify().unwrap();
            world.select(Timeout::Never).unwrap();
            assert!(world.events.is_notified());
        },
        |_| {},
    );
}
