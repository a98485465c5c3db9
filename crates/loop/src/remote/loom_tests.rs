//! Every interleaving of a call and those who cancel it: exactly one of them has the closure. And of
//! threads that send with a loop that receives or closes: what was accepted is received, once.

use std::panic::Location;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use loom::thread;

use tulipa_selector::{Selector, VirtualSelector};

use super::{Call, Message, RemoteError, Shared};

fn call<F>(closure: F) -> Arc<Call<F>> {
    Arc::new(Call { closure: super::Mutex::new(Some(closure)), location: Location::caller() })
}

/// What the loop does in `RemoteCall::run`, without a loop.
fn run(call: &Call<impl FnOnce()>) {
    if let Some(closure) = call.take() {
        closure();
    }
}

#[test]
fn loom_of_a_cancel_and_the_call_itself_exactly_one_wins() {
    loom::model(|| {
        let ran = Arc::new(AtomicUsize::new(0));
        let own = ran.clone();
        let call = call(move || {
            own.fetch_add(1, SeqCst);
        });
        let theirs = call.clone();
        let canceller = thread::spawn(move || usize::from(theirs.take().is_some()));
        run(&call);
        let cancelled = canceller.join().unwrap();
        assert_eq!(ran.load(SeqCst) + cancelled, 1);
    });
}

#[test]
fn loom_of_two_cancels_one_is_in_time_and_both_see_that_it_is_over() {
    loom::model(|| {
        let call = call(|| ());
        let cancels: Vec<_> = (0..2)
            .map(|_| {
                let call = call.clone();
                thread::spawn(move || {
                    let in_time = call.take().is_some();
                    assert!(call.closure.lock().unwrap().is_none());
                    in_time
                })
            })
            .collect();
        let in_time = cancels.into_iter().map(|cancel| cancel.join().unwrap());
        assert_eq!(in_time.filter(|in_time| *in_time).count(), 1);
    });
}

/// What the caller wrote before the call is seen by the closure, and what the closure wrote is seen
/// by a cancel that was too late.
#[test]
fn loom_b61_who_comes_too_late_sees_that_the_closure_was_taken() {
    loom::model(|| {
        let cell = Arc::new(loom::cell::UnsafeCell::new(0));
        let theirs = cell.clone();
        // SAFETY: whoever takes the closure is the only one who writes; loom checks it.
        let call = call(move || theirs.with_mut(|value| unsafe { *value += 1 }));
        let other = call.clone();
        let runner = thread::spawn(move || run(&other));
        run(&call);
        runner.join().unwrap();
        // SAFETY: both are done.
        assert_eq!(cell.with(|value| unsafe { *value }), 1);
    });
}

fn shared() -> Arc<Shared> {
    // The doorbell has models of its own, where it is.
    Arc::new(Shared::new(1, VirtualSelector::new().notifier()))
}

/// Sends so many messages, and counts those that were accepted.
fn sender(shared: &Arc<Shared>, messages: usize) -> thread::JoinHandle<usize> {
    let shared = shared.clone();
    thread::spawn(move || {
        let sent = (0..messages).map(|_| shared.send(Message::Stop));
        sent.filter(|sent| !matches!(sent, Err(RemoteError::LoopClosed))).count()
    })
}

#[test]
fn loom_b39_what_was_accepted_before_the_close_is_received_by_it() {
    loom::model(|| {
        let shared = shared();
        let senders = [sender(&shared, 1), sender(&shared, 1)];
        // As `Core::close_shared` does.
        shared.queue.close();
        let mut received = 0;
        while shared.queue.pop().is_ok() {
            received += 1;
        }
        let accepted: usize = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        assert_eq!(received, accepted);
        assert!(matches!(shared.send(Message::Stop), Err(RemoteError::LoopClosed)));
    });
}

#[test]
fn loom_b36_a_loop_that_receives_while_others_send_gets_every_message_once() {
    loom::model(|| {
        let shared = shared();
        let sender = sender(&shared, 2);
        // As `Core::receive` does: what is there, and no more.
        let receive = || (0..shared.queue.len()).filter(|_| shared.queue.pop().is_ok()).count();
        let early = receive();
        assert_eq!(sender.join().unwrap(), 2);
        assert_eq!(early + receive(), 2);
        assert!(shared.is_empty());
    });
}
