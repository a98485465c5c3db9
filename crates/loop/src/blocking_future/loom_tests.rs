//! Every interleaving of a loop that starts a task for another thread with that thread, which cancels
//! it and goes: the request reaches the task or keeps it from being started, and how the task ended is
//! heard of by one of the two.

use std::panic::Location;
use std::thread::ThreadId;

use loom::sync::Arc;
use loom::thread;
use tulipa_selector::Token;

use super::{Cancel, Link};

const KEY: Token = Token::from_bits(1);

fn link() -> Arc<Link> {
    let thread: ThreadId = std::thread::current().id();
    Arc::new(Link::new(thread, Location::caller()))
}

/// What the loop did.
struct Ran {
    started: bool,
    cancelled: bool,
    reports: bool,
}

/// What the loop does, without a loop: the future is made between the first two steps.
fn run(link: &Link) -> Ran {
    if !link.begin() {
        return Ran { started: false, cancelled: false, reports: false };
    }
    let cancelled = link.started(KEY);
    Ran { started: true, cancelled, reports: link.ended() }
}

#[test]
fn loom_how_a_task_ended_is_heard_of_by_its_loop_or_by_the_holder_of_its_future() {
    loom::model(|| {
        let link = link();
        let holder = thread::spawn({
            let link = link.clone();
            move || link.abandon()
        });
        let ran = run(&link);
        assert!(ran.started && !ran.cancelled);
        assert!(ran.reports != holder.join().unwrap(), "one of the two");
    });
}

#[test]
fn loom_a_cancel_before_the_end_is_never_lost_and_neither_is_a_panic_of_the_clean_up() {
    loom::model(|| {
        let link = link();
        let holder = thread::spawn({
            let link = link.clone();
            move || (link.cancel(), link.abandon())
        });
        let ran = run(&link);
        let (cancel, takes) = holder.join().unwrap();
        match cancel {
            Cancel::ByLoop => assert!(ran.cancelled || !ran.started),
            Cancel::Task(key) => assert!(key == KEY && ran.started && !ran.cancelled),
            Cancel::TooLate => assert!(ran.started && !ran.cancelled && takes),
        }
        assert!(!ran.started || ran.reports != takes, "one of the two");
    });
}
