//! What the random programs of the reentrancy test are made of.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;

/// One thing that a callback does; the numbers choose among what there is.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    CallSoon,
    /// A call from "another thread", which joins the ready queue at step 6 of a turn.
    Remote,
    CallLater(u64),
    /// So many nanoseconds around now.
    CallAt(i64),
    /// A callback whose closure schedules another one when it is dropped.
    Scheduling,
    Cancel(usize),
    DropHandle(usize),
    CreateFuture,
    AddDone(usize),
    RemoveDone(usize),
    SetValue(usize),
    DropPromise(usize),
    CancelFuture(usize),
    DropFuture(usize),
    SetHandler(bool),
    SetInstrument(bool),
    SetDebug(bool),
    InsertSource,
    MakeReady(usize),
    RemoveSource(usize),
    Mark(usize),
    Stop,
    Look,
    Advance(u64),
    /// The rest of the operations of this callback is a panic.
    Panic,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let n = any::<usize>;
    prop_oneof![
        6 => Just(Op::CallSoon),
        2 => Just(Op::Remote),
        4 => (0..40u64).prop_map(Op::CallLater),
        2 => (-20..40i64).prop_map(Op::CallAt),
        2 => Just(Op::Scheduling),
        5 => n().prop_map(Op::Cancel),
        2 => n().prop_map(Op::DropHandle),
        2 => Just(Op::CreateFuture),
        3 => n().prop_map(Op::AddDone),
        1 => n().prop_map(Op::RemoveDone),
        1 => n().prop_map(Op::SetValue),
        1 => n().prop_map(Op::DropPromise),
        1 => n().prop_map(Op::CancelFuture),
        1 => n().prop_map(Op::DropFuture),
        1 => any::<bool>().prop_map(Op::SetHandler),
        1 => any::<bool>().prop_map(Op::SetInstrument),
        1 => any::<bool>().prop_map(Op::SetDebug),
        1 => Just(Op::InsertSource),
        3 => n().prop_map(Op::MakeReady),
        1 => n().prop_map(Op::RemoveSource),
        2 => n().prop_map(Op::Mark),
        1 => Just(Op::Stop),
        1 => Just(Op::Look),
        2 => (0..30u64).prop_map(Op::Advance),
        1 => Just(Op::Panic),
    ]
}

pub(crate) fn cases() -> u32 {
    std::env::var("TULIPA_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
}

/// The panics of the scripts are not worth a line each.
pub(crate) fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"as the script says") {
                before(info);
            }
        }));
    });
}

/// The n-th of a list, counted around.
pub(crate) fn pick<T>(list: &RefCell<Vec<Rc<T>>>, n: usize) -> Option<Rc<T>> {
    let list = list.borrow();
    (!list.is_empty()).then(|| list[n % list.len()].clone())
}

/// Takes the n-th out of a list, counted around.
pub(crate) fn take<T>(list: &RefCell<Vec<Rc<T>>>, n: usize) -> Option<Rc<T>> {
    let mut list = list.borrow_mut();
    if list.is_empty() {
        return None;
    }
    let place = n % list.len();
    Some(list.swap_remove(place))
}
