//! A million notifications from other threads, and none is lost (B16, B36).
//!
//! `TULIPA_STRESS` is the number of calls in each test; the ping-pong, which needs a switch of
//! threads for each call, makes a tenth of that unless it is set.
#![cfg(all(target_os = "linux", not(miri)))]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::os::{Epoll, Polling};
use common::{Kind, with_watchdog};
use tulipa_selector::Timeout;

const CALLS: usize = 1_000_000;
const THREADS: usize = 4;

/// Much longer than it takes: only a lost wake-up, which hangs for ever, meets it.
const WATCHDOG: Duration = Duration::from_secs(300);

fn asked_for() -> Option<usize> {
    std::env::var("TULIPA_STRESS").ok()?.parse().ok()
}

fn every_message_arrives<K: Kind>() {
    let calls = asked_for().unwrap_or(CALLS) / THREADS * THREADS;
    with_watchdog(WATCHDOG, move || {
        let mut world = K::world();
        let (send, messages) = mpsc::channel();
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (notifier, send) = (world.selector.notifier(), send.clone());
                thread::spawn(move || {
                    for message in 0..calls / THREADS {
                        send.send((thread, message)).expect("the loop listens");
                        notifier.notify().expect("the selector is open");
                    }
                })
            })
            .collect();
        let mut next = [0; THREADS];
        while next.iter().sum::<usize>() < calls {
            // Never: if the call that belongs to a message is lost, this does not end.
            world.select(Timeout::Never).expect("waiting never fails");
            for (thread, message) in messages.try_iter() {
                assert_eq!(message, next[thread], "in order, none twice");
                next[thread] += 1;
            }
        }
        threads.into_iter().for_each(|thread| thread.join().expect("it has sent all"));
        assert_eq!(next, [calls / THREADS; THREADS]);
    });
}

#[test]
fn b36_a_million_calls_of_four_threads_all_reach_epoll() {
    every_message_arrives::<Epoll>();
}

#[test]
fn b36_a_million_calls_of_four_threads_all_reach_polling() {
    every_message_arrives::<Polling>();
}

/// Each call meets a selector that is asleep or about to be, because it answers before the next.
fn every_ping_is_answered<K: Kind>() {
    let calls = asked_for().unwrap_or(CALLS / 10);
    with_watchdog(WATCHDOG, move || {
        let mut world = K::world();
        let notifier = world.selector.notifier();
        let (ping, pings) = mpsc::channel();
        let (pong, pongs) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            for call in 0..calls {
                ping.send(call).expect("the loop listens");
                notifier.notify().expect("the selector is open");
                assert_eq!(pongs.recv(), Ok(call));
            }
        });
        let mut answered = 0;
        while answered < calls {
            world.select(Timeout::Never).expect("waiting never fails");
            for call in pings.try_iter() {
                assert_eq!(call, answered);
                answered += 1;
                pong.send(call).expect("the caller waits");
            }
        }
        thread.join().expect("all were answered");
    });
}

#[test]
fn b16_every_ping_is_answered_by_epoll() {
    every_ping_is_answered::<Epoll>();
}

#[test]
fn b16_every_ping_is_answered_by_polling() {
    every_ping_is_answered::<Polling>();
}
