//! `oneshot`: the value, or the end of the other side.

mod common;

use common::Task;
use tulipa_sync::{ReceiverDropped, SenderDropped, oneshot};

#[test]
fn the_value_arrives_before_and_after_the_receiver_waits() {
    let (sender, receiver) = oneshot::channel();
    sender.send(1).unwrap();
    assert!(receiver.is_ready());
    assert_eq!(Task::new(receiver).expect(), Ok(1));

    let (sender, receiver) = oneshot::channel();
    let mut receiver = Task::waiting(receiver);
    sender.send(2).unwrap();
    assert!(receiver.is_woken());
    assert_eq!(receiver.expect(), Ok(2));
}

#[test]
fn dropping_the_sender_is_told() {
    let (sender, receiver) = oneshot::channel::<u8>();
    let mut receiver = Task::waiting(receiver);
    drop(sender);
    assert!(receiver.is_woken());
    assert_eq!(receiver.expect(), Err(SenderDropped));
}

#[test]
fn a_value_nobody_will_receive_comes_back() {
    let (sender, receiver) = oneshot::channel();
    drop(receiver);
    assert_eq!(sender.send("tulip"), Err(ReceiverDropped("tulip")));
}

#[test]
fn a_receiver_polled_by_reference_keeps_the_value() {
    let (sender, mut receiver) = oneshot::channel();
    Task::waiting(&mut receiver).cancel();
    sender.send(3).unwrap();
    assert_eq!(Task::new(&mut receiver).expect(), Ok(3));
    assert_eq!(Task::new(receiver).expect(), Err(SenderDropped), "it is received once");
}

#[test]
fn closed_is_ready_when_the_receiver_goes() {
    let (mut sender, receiver) = oneshot::channel::<u8>();
    let mut closed = Task::waiting(sender.closed());
    drop(receiver);
    assert!(closed.is_woken());
    closed.expect();
    drop(closed);
    assert!(sender.is_closed());
    assert!(Task::new(sender.closed()).poll().is_ready());
}

#[test]
fn a_value_that_is_not_received_is_dropped_with_the_receiver() {
    let alive = std::rc::Rc::new(());
    let (sender, receiver) = oneshot::channel();
    sender.send(alive.clone()).unwrap();
    drop(receiver);
    assert_eq!(std::rc::Rc::strong_count(&alive), 1);
}
