//! Circles in the await graph, its text, and its view from one task upwards.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use tulipa_loop::{
    AwaiterId, Task, capture_call_graph, format_call_graph, print_call_graph, sleep, spawn,
    yield_now,
};
use tulipa_sync::Lock;
use tulipa_testing::VirtualLoop;

const SECOND: Duration = Duration::from_secs(1);

fn id<T>(task: &Task<T>) -> AwaiterId {
    AwaiterId::Task(task.id())
}

/// Two tasks that take two locks in opposite orders.
fn deadlocked() -> (VirtualLoop, [u32; 3]) {
    let virtual_loop = VirtualLoop::new();
    let locks = Rc::new((Lock::new(()).named("left"), Lock::new(()).named("right")));
    let created = line!() - 1;
    let other = locks.clone();
    let one = virtual_loop.task().name("one").spawn(async move {
        let _left = other.0.lock().await;
        sleep(SECOND).await;
        let _right = other.1.lock().await;
    });
    let first = line!() - 5;
    let two = virtual_loop.task().name("two").spawn(async move {
        let _right = locks.1.lock().await;
        sleep(SECOND).await;
        let _left = locks.0.lock().await;
    });
    let second = line!() - 5;
    virtual_loop.advance(4 * SECOND);
    drop((one, two));
    (virtual_loop, [created, first, second])
}

#[test]
fn a_deadlock_is_a_cycle_and_the_text_says_all_of_it() {
    let (virtual_loop, [created, one, two]) = deadlocked();
    let graph = virtual_loop.await_graph();
    let (id, file) = (virtual_loop.id(), file!());
    let expected = format!(
        "await graph of loop {id}: 2 tasks
* Task(name='one', id=1) waiting, spawned at {file}:{one}
  | lock `right` created at {file}:{created}, owned by 'two', for 3s
* Task(name='two', id=2) waiting, spawned at {file}:{two}
  | lock `left` created at {file}:{created}, owned by 'one', for 3s
! cycle: 'one' -> 'two' -> 'one'
"
    );
    assert_eq!(graph.to_string(), expected);
    let members: Vec<_> = graph.cycles()[0].members().map(|id| id.to_string()).collect();
    assert_eq!(members, ["1", "2"]);
}

#[test]
fn the_call_graph_of_a_deadlock_ends() {
    let (virtual_loop, [created, one, two]) = deadlocked();
    let first = &virtual_loop.all_tasks()[0];
    let file = file!();
    let function = first.future_type_name();
    let frame = |line| format!("File '{file}', line {line}, in async {function}()");
    let lock = |name, owner| {
        format!("lock `{name}` created at {file}:{created}, owned by '{owner}', for 3s")
    };
    let (one, two) = (frame(one), frame(two));
    let (left, right) = (lock("left", "one"), lock("right", "two"));
    let expected = format!(
        "* Task(name='one', id=0x1)
  + Call stack:
  |   {one}
  + Waiting on:
  |   {right}
  + Awaited by:
    * Task(name='two', id=0x2)
      + Call stack:
      |   {two}
      + Waiting on:
      |   {left}
      + Awaited by:
        * Task(name='one', id=0x1)
          + Call stack:
          |   {one}
          + Waiting on:
          |   {right}"
    );
    assert_eq!(format_call_graph(Some(first)), expected);
    let mut written = Vec::new();
    print_call_graph(Some(first), &mut written).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), expected + "\n");
}

#[test]
fn without_a_task_there_is_no_call_graph() {
    assert!(capture_call_graph(None).is_none());
    assert_eq!(format_call_graph(None), "");
    let mut written = Vec::new();
    print_call_graph(None, &mut written).unwrap();
    assert!(written.is_empty());
    let virtual_loop = VirtualLoop::new();
    let task = virtual_loop.spawn(async { capture_call_graph(None) });
    virtual_loop.run_until_idle();
    let (reference, mut task) = (task.reference(), task);
    let graph = task.try_result().unwrap().unwrap().unwrap();
    assert_eq!(graph.id, AwaiterId::Task(reference.id()));
    assert_eq!(graph.call_stack[0].location.file(), file!());
    assert!(capture_call_graph(Some(&reference)).is_none());
}

#[test]
fn joins_in_a_circle_are_a_cycle_and_a_chain_is_none() {
    let virtual_loop = VirtualLoop::new();
    let slot: Rc<RefCell<Option<Task<()>>>> = Rc::default();
    let taken = slot.clone();
    let first = virtual_loop.spawn(async move {
        yield_now().await;
        let other = taken.take().unwrap();
        // The sleep would end it, so it is a cycle but not for ever.
        or(async { drop(other.await) }, sleep(SECOND)).await;
    });
    let second = virtual_loop.spawn(async move { drop(first.await) });
    *slot.borrow_mut() = Some(second);
    let outside = virtual_loop.spawn(async { spawn(sleep(2 * SECOND)).await.is_ok() });
    virtual_loop.run_until_idle();
    let cycles = virtual_loop.await_graph().cycles();
    assert_eq!(cycles.len(), 1);
    assert_eq!(cycles[0].to_string(), "'Task-1' -> 'Task-2' -> 'Task-1'");
    virtual_loop.advance(SECOND);
    assert!(virtual_loop.await_graph().cycles().is_empty());
    assert!(!outside.is_done());
}

#[test]
fn who_waits_for_a_task_is_told() {
    let virtual_loop = VirtualLoop::new();
    let child = virtual_loop.spawn(virtual_loop.sleep(SECOND));
    let target = id(&child);
    let parent = virtual_loop.task().name("parent").spawn(async { child.await.is_ok() });
    virtual_loop.run_until_idle();
    let graph = virtual_loop.await_graph();
    let awaited_by: Vec<_> =
        graph.awaited_by(target).map(|(node, edge)| (&*node.name, edge.kind)).collect();
    assert_eq!(awaited_by, [("parent", "join")]);
    drop(parent);
}

#[test]
fn a_long_chain_of_tasks_can_be_looked_at() {
    let length: u32 = 20_000;
    let virtual_loop = VirtualLoop::new();
    let mut last = virtual_loop.spawn(pending::<()>());
    let first = last.reference();
    for _ in 1..length {
        last = virtual_loop.spawn(async move { drop(last.await) });
    }
    virtual_loop.run_until_idle();
    let graph = virtual_loop.await_graph();
    assert_eq!(graph.nodes.len(), length as usize);
    assert!(graph.cycles().is_empty());
    // No deeper than can be read.
    assert_eq!(format_call_graph(Some(&first)).matches("* Task").count(), 65);
}
