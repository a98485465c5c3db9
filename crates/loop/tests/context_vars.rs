//! Context variables: who inherits what, and what stays with whom.

#[path = "task_common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{Log, OnDrop, reporting_loop};
use proptest::prelude::*;
use tulipa_loop::{
    Context, ContextVar, LoopHandle, copy_context, current_task, sleep, spawn, spawn_eager,
    task_group, yield_now,
};
use tulipa_testing::VirtualLoop;

static NUMBER: ContextVar<u32> = ContextVar::new("number");
static NAME: ContextVar<String> = ContextVar::new("name");

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_variable_has_a_value_from_set_to_reset() {
    assert_eq!(NUMBER.get(), None);
    let one = NUMBER.set(1);
    let two = NUMBER.set(2);
    NAME.set("x".to_owned());
    assert_eq!((NUMBER.get(), NAME.get().as_deref()), (Some(2), Some("x")));
    two.reset();
    assert_eq!(NUMBER.get(), Some(1));
    one.reset();
    assert_eq!((NUMBER.get(), NAME.get().as_deref()), (None, Some("x")));
    let length = NAME.with(|name| name.map(String::len));
    assert_eq!(length, Some(1));
}

#[test]
fn two_variables_of_one_type_and_name_are_two() {
    static OTHER: ContextVar<u32> = ContextVar::new("number");
    NUMBER.set(1);
    assert_eq!(OTHER.get(), None);
    OTHER.set(2);
    assert_eq!((NUMBER.get(), OTHER.get()), (Some(1), Some(2)));
}

#[test]
fn a_scope_ends_with_its_closure_also_by_a_panic_and_whatever_was_set_in_it() {
    NUMBER.set(1);
    let seen = NUMBER.sync_scope(2, || {
        let before = NUMBER.get();
        NUMBER.set(3);
        before
    });
    assert_eq!((seen, NUMBER.get()), (Some(2), Some(1)));
    let panicked =
        catch_unwind(|| NUMBER.sync_scope(4, || std::panic::resume_unwind(Box::new(()))));
    assert!(panicked.is_err());
    assert_eq!(NUMBER.get(), Some(1));
}

#[test]
fn a_value_may_use_the_variables_when_it_is_dropped() {
    struct Loud;
    impl Drop for Loud {
        fn drop(&mut self) {
            NUMBER.set(NUMBER.get().unwrap_or(0) + 1);
        }
    }
    static LOUD: ContextVar<Loud> = ContextVar::new("loud");
    drop(LOUD.set(Loud));
    drop(LOUD.set(Loud));
    assert_eq!(NUMBER.get(), Some(1));
    LOUD.sync_scope(Loud, || ());
    assert_eq!(NUMBER.get(), Some(2));
}

#[test]
fn a_context_is_a_copy_that_changes_by_itself() {
    NUMBER.set(1);
    let mut context = copy_context();
    NUMBER.set(2);
    assert_eq!(context.get(&NUMBER), Some(1));
    let copy = context.clone();
    context.run(|| {
        assert_eq!(NUMBER.get(), Some(1));
        NUMBER.set(3);
        NAME.set("inside".to_owned());
    });
    assert_eq!((context.get(&NUMBER), context.len()), (Some(3), 2));
    assert_eq!((copy.get(&NUMBER), copy.len()), (Some(1), 1));
    assert_eq!((NUMBER.get(), NAME.get()), (Some(2), None));
    let panicked =
        catch_unwind(AssertUnwindSafe(|| context.run(|| std::panic::resume_unwind(Box::new(())))));
    assert!(panicked.is_err());
    assert_eq!((NUMBER.get(), context.get(&NUMBER)), (Some(2), Some(3)));
    assert!(Context::new().is_empty() && !context.is_empty());
}

#[test]
fn a_task_has_its_own_copy_and_keeps_it_from_step_to_step() {
    let virtual_loop = VirtualLoop::new();
    let done = virtual_loop.run_until_complete(async {
        NUMBER.set(1);
        let child = spawn(async {
            yield_now().await;
            assert_eq!(NUMBER.get(), Some(1));
            NUMBER.set(2);
            yield_now().await;
            let grandchild = spawn(async { NUMBER.get() });
            (NUMBER.get(), grandchild.await.unwrap())
        });
        // Neither sees what the other sets after the spawn.
        NUMBER.set(3);
        let seen = child.await.unwrap();
        (seen, NUMBER.get())
    });
    assert_eq!(done.unwrap(), ((Some(2), Some(2)), Some(3)));
    assert_eq!(NUMBER.get(), None, "what the main future sets stays inside");
}

#[test]
fn the_main_future_inherits_from_its_caller_and_other_tasks_from_whoever_spawned_them() {
    let virtual_loop = VirtualLoop::new();
    let before = virtual_loop.spawn(async { NUMBER.get() });
    NUMBER.set(1);
    let after = virtual_loop.spawn(async { NUMBER.get() });
    let seen = virtual_loop.run_until_complete(async {
        yield_now().await;
        (before.await.unwrap(), after.await.unwrap(), NUMBER.get())
    });
    assert_eq!(seen.unwrap(), (None, Some(1), Some(1)));
    assert_eq!(NUMBER.get(), Some(1), "the caller has its context back");
}

#[test]
fn an_eager_task_leaves_its_parents_context_alone() {
    let virtual_loop = VirtualLoop::new();
    virtual_loop
        .run_until_complete(async {
            NUMBER.set(1);
            let child = spawn_eager(async {
                NUMBER.set(NUMBER.get().unwrap() + 1);
                yield_now().await;
                NUMBER.get()
            });
            assert_eq!(NUMBER.get(), Some(1));
            assert_eq!(child.await.unwrap(), Some(2));
        })
        .unwrap();
}

#[test]
fn callbacks_and_timers_inherit_and_do_not_leak_into_each_other() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let look = |name: &'static str| {
        let log = log.clone();
        move |handle: &LoopHandle| {
            log.add(format!("{name} {:?}", NUMBER.get()));
            NUMBER.set(100);
            let log = log.clone();
            handle.call_soon(move |_| log.add(format!("{name}'s {:?}", NUMBER.get())));
        }
    };
    virtual_loop.call_soon(look("none"));
    NUMBER.set(1);
    virtual_loop.call_soon(look("one"));
    virtual_loop.call_later(SECOND, look("timer"));
    NUMBER.set(2);
    virtual_loop.call_soon(look("two"));
    virtual_loop.advance(SECOND);
    assert_eq!(
        log.take(),
        [
            "none None",
            "one Some(1)",
            "two Some(2)",
            "none's Some(100)",
            "one's Some(100)",
            "two's Some(100)",
            "timer Some(1)",
            "timer's Some(100)"
        ]
    );
    assert_eq!(NUMBER.get(), Some(2));
}

#[test]
fn a_callback_and_a_task_can_be_given_another_context() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let mut context = Context::new();
    context.run(|| NUMBER.set(5));
    NUMBER.set(1);
    let said = log.clone();
    context.run(|| virtual_loop.call_soon(move |_| said.add(format!("{:?}", NUMBER.get()))));
    let task = virtual_loop.task().context(context.clone()).spawn(async {
        NUMBER.set(NUMBER.get().unwrap() + 1);
        yield_now().await;
    });
    let empty = virtual_loop.task().context(Context::new()).spawn(async { NUMBER.get() });
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["Some(5)"]);
    assert_eq!((task.context().get(&NUMBER), context.get(&NUMBER)), (Some(6), Some(5)));
    assert_eq!(virtual_loop.run_until_complete(empty.into_future()).unwrap().unwrap(), None);
}

#[test]
fn a_task_tells_its_context_while_it_runs_too() {
    let virtual_loop = VirtualLoop::new();
    let task = virtual_loop.spawn(async {
        NUMBER.set(4);
        let own = current_task().unwrap().context();
        yield_now().await;
        own.get(&NUMBER)
    });
    assert!(task.context().is_empty());
    virtual_loop.run_once(Duration::ZERO).unwrap();
    assert_eq!(task.context().get(&NUMBER), Some(4));
    let inner = virtual_loop.run_until_complete(async { task.await.unwrap() });
    assert_eq!(inner.unwrap(), Some(4));
}

#[test]
fn done_callbacks_inherit_from_whoever_adds_them() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let (promise, future) = virtual_loop.create_future::<()>();
    let task = virtual_loop.spawn(async { drop(NUMBER.set(9)) });
    for number in [1, 2] {
        NUMBER.sync_scope(number, || {
            let (one, other) = (log.clone(), log.clone());
            future.add_done_callback(move |_, _| one.add(format!("future {:?}", NUMBER.get())));
            task.add_done_callback(move |_, _| other.add(format!("task {:?}", NUMBER.get())));
        });
    }
    promise.set(()).unwrap();
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["future Some(1)", "future Some(2)", "task Some(1)", "task Some(2)"]);
    // Of a task that has ended.
    NUMBER.set(3);
    let last = log.clone();
    task.add_done_callback(move |_, _| last.add(format!("late {:?}", NUMBER.get())));
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["late Some(3)"]);
}

#[cfg(unix)]
#[test]
#[cfg_attr(miri, ignore = "a real selector")]
fn a_reader_inherits_once_and_keeps_what_it_sets() {
    let event_loop = tulipa_loop::EventLoop::new().unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(theirs);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    NUMBER.set(1);
    event_loop
        .add_reader(Rc::new(ours), move |handle| {
            let number = NUMBER.get().unwrap();
            log.borrow_mut().push(number);
            NUMBER.set(number + 1);
            if number == 3 {
                handle.stop();
            }
        })
        .unwrap();
    NUMBER.set(100);
    event_loop.run_forever().unwrap();
    assert_eq!(*seen.borrow(), [1, 2, 3]);
    assert_eq!(NUMBER.get(), Some(100));
}

#[test]
fn calls_and_tasks_from_another_thread_inherit_from_it() {
    let virtual_loop = VirtualLoop::new();
    let remote = virtual_loop.remote();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (one, other) = (seen.clone(), seen.clone());
    let thread = thread::spawn(move || {
        NUMBER.set(7);
        remote.call_soon(move |_| one.lock().unwrap().push(NUMBER.get())).unwrap();
        let spawned = remote.spawn(move || async move {
            yield_now().await;
            other.lock().unwrap().push(NUMBER.get());
        });
        drop(spawned.unwrap());
    });
    thread.join().unwrap();
    NUMBER.set(1);
    virtual_loop.run_until_idle();
    assert_eq!(*seen.lock().unwrap(), [Some(7), Some(7)]);
}

#[test]
fn children_of_a_group_inherit_from_where_they_are_spawned() {
    let virtual_loop = VirtualLoop::new();
    let sum = virtual_loop.run_until_complete(task_group(async |group| {
        NUMBER.set(1);
        let one = group.spawn(async { Ok::<_, ()>(NUMBER.get().unwrap()) }).unwrap();
        NUMBER.set(2);
        let two = group.spawn(async { Ok(NUMBER.get().unwrap()) }).unwrap();
        Ok((one.await.unwrap(), two.await.unwrap()))
    }));
    assert_eq!(sum.unwrap().unwrap(), (1, 2));
}

#[test]
fn an_async_scope_holds_in_every_poll_and_in_destructors_and_nowhere_else() {
    let (virtual_loop, reports) = reporting_loop();
    let log = Log::default();
    let inner = log.clone();
    let task = virtual_loop.spawn(async move {
        NUMBER.set(1);
        let (outside, dropped) = (inner.clone(), inner.clone());
        let scope = NUMBER.scope(2, async move {
            let _dropped = OnDrop(move || dropped.add(format!("dropped {:?}", NUMBER.get())));
            inner.add(format!("inside {:?}", NUMBER.get()));
            NUMBER.set(3);
            sleep(SECOND).await;
            inner.add(format!("later {:?}", NUMBER.get()));
            pending::<()>().await;
        });
        let mut scope = Box::pin(scope);
        poll_fn(|context| {
            let polled = scope.as_mut().poll(context);
            outside.add(format!("outside {:?}", NUMBER.get()));
            polled
        })
        .await;
    });
    virtual_loop.advance(SECOND);
    task.cancel();
    virtual_loop.run_until_idle();
    let said = log.take();
    assert_eq!(
        said,
        [
            "inside Some(2)",
            "outside Some(1)",
            "later Some(3)",
            "outside Some(1)",
            "dropped Some(3)"
        ]
    );
    assert!(reports.take().is_empty());
}

#[test]
fn a_scope_that_is_never_polled_drops_its_future_inside() {
    let log = Log::default();
    let dropped = log.clone();
    let guard = OnDrop(move || dropped.add(format!("{:?}", NUMBER.get())));
    drop(NUMBER.scope(6, async move { drop(guard) }));
    assert_eq!(log.take(), ["Some(6)"]);
}

#[test]
fn the_destructors_of_a_cancelled_task_run_in_its_context() {
    let virtual_loop = VirtualLoop::new();
    let log = Log::default();
    let dropped = log.clone();
    let task = virtual_loop.spawn(async move {
        NUMBER.set(8);
        let _dropped = OnDrop(move || dropped.add(format!("{:?}", NUMBER.get())));
        pending::<()>().await;
    });
    virtual_loop.run_until_idle();
    task.cancel();
    virtual_loop.run_until_idle();
    assert_eq!(log.take(), ["Some(8)"]);
}

#[test]
fn a_waker_that_sets_a_variable_changes_nothing_for_others() {
    struct Sets;
    impl std::task::Wake for Sets {
        fn wake(self: Arc<Self>) {
            NUMBER.set(66);
        }
    }
    let virtual_loop = VirtualLoop::new();
    let waker = Waker::from(Arc::new(Sets));
    let mut sleeping = None;
    let polled = virtual_loop.run_until_complete(async {
        let sleeping = sleeping.insert(Box::pin(sleep(SECOND)));
        sleeping.as_mut().poll(&mut std::task::Context::from_waker(&waker))
    });
    assert_eq!(polled.unwrap(), Poll::Pending);
    let log = Log::default();
    let said = log.clone();
    virtual_loop.call_later(SECOND, move |_| said.add(format!("{:?}", NUMBER.get())));
    virtual_loop.advance(2 * SECOND);
    assert_eq!(log.take(), ["None"]);
    assert_eq!(NUMBER.get(), None);
}

#[test]
fn values_leave_with_the_last_task_that_has_them() {
    static SHARED: ContextVar<Arc<()>> = ContextVar::new("shared");
    let (virtual_loop, reports) = reporting_loop();
    let value = Arc::new(());
    let given = value.clone();
    let task = virtual_loop.spawn(async move {
        SHARED.set(given);
        drop(spawn(sleep(SECOND)));
    });
    virtual_loop.run_until_idle();
    assert_eq!(Arc::strong_count(&value), 2, "the child is there");
    drop(task);
    virtual_loop.advance(SECOND);
    assert_eq!(Arc::strong_count(&value), 1);
    assert!(reports.take().is_empty());
}

#[test]
fn names_are_shown_and_values_are_not() {
    NUMBER.set(1);
    NAME.set("secret".to_owned());
    let token = NUMBER.set(2);
    assert_eq!(format!("{NUMBER:?}"), "<ContextVar name='number'>");
    let context = format!("{:?}", copy_context());
    assert!(context.contains("number") && context.contains("name") && !context.contains("secret"));
    assert_eq!(format!("{token:?}"), "<ContextToken of 'number', which had a value>");
    assert_eq!(format!("{:?}", NUMBER.scope(1, async {})), "<ContextScope of 'number'>");
}

#[test]
#[cfg_attr(miri, ignore = "a runner listens to signals, for which Miri has no system calls")]
fn a_runner_runs_its_main_task_in_a_copy_of_its_callers_context() {
    let runner = tulipa_loop::Runner::with_loop(
        tulipa_loop::EventLoop::builder()
            .selector(tulipa_selector::VirtualSelector::new())
            .build()
            .unwrap(),
    );
    let mut context = Context::new();
    context.run(|| drop(NUMBER.set(3)));
    let main = async || {
        yield_now().await;
        NUMBER.get().inspect(|number| drop(NUMBER.set(number + 1)))
    };
    assert_eq!(context.run(|| runner.run(main())).unwrap(), Some(3));
    assert_eq!(context.run(|| runner.run(main())).unwrap(), Some(3));
    assert_eq!(runner.run(main()).unwrap(), None);
}

/// What a task of a random program does.
#[derive(Clone, Debug)]
enum Op {
    Set(usize, u32),
    Yield,
    /// A child that does the rest of these, while its parent goes on.
    Spawn(Vec<Op>),
    Callback(Vec<Op>),
    Scope(usize, u32, Vec<Op>),
}

static VARS: [ContextVar<u32>; 3] =
    [ContextVar::new("a"), ContextVar::new("b"), ContextVar::new("c")];

type Model = [Option<u32>; 3];

fn seen() -> Model {
    [0, 1, 2].map(|variable: usize| VARS[variable].get())
}

/// Does the operations beside a model of the context; each difference is a failure.
fn perform(ops: Vec<Op>, mut model: Model, wrong: Log) -> Pin<Box<dyn Future<Output = Model>>> {
    Box::pin(async move {
        for op in ops {
            if seen() != model {
                wrong.add(format!("{:?} instead of {model:?} before {op:?}", seen()));
            }
            match op {
                Op::Set(variable, value) => {
                    VARS[variable].set(value);
                    model[variable] = Some(value);
                }
                Op::Yield => yield_now().await,
                Op::Spawn(ops) => drop(spawn(perform(ops, model, wrong.clone()))),
                Op::Callback(ops) => {
                    let wrong = wrong.clone();
                    LoopHandle::current().call_soon(move |handle| {
                        // A callback cannot wait, but what it spawns can.
                        VARS[0].set(1000);
                        let model = [Some(1000), model[1], model[2]];
                        drop(handle.spawn(perform(ops, model, wrong)));
                    });
                }
                Op::Scope(variable, value, ops) => {
                    let mut inner = model;
                    inner[variable] = Some(value);
                    let inner =
                        VARS[variable].scope(value, perform(ops, inner, wrong.clone())).await;
                    // What it set of other variables stays.
                    let outer = model[variable];
                    model = inner;
                    model[variable] = outer;
                }
            }
        }
        model
    })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let leaf = prop_oneof![
        (0..3usize, 0..100u32).prop_map(|(variable, value)| Op::Set(variable, value)),
        Just(Op::Yield),
    ];
    let op = leaf.prop_recursive(4, 40, 6, |inner| {
        let ops = proptest::collection::vec(inner, 0..6);
        prop_oneof![
            ops.clone().prop_map(Op::Spawn),
            ops.clone().prop_map(Op::Callback),
            (0..3usize, 100..200u32, ops)
                .prop_map(|(variable, value, ops)| Op::Scope(variable, value, ops)),
        ]
    });
    proptest::collection::vec(op, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..Default::default() })]

    #[test]
    fn contexts_follow_the_model(ops in ops()) {
        let (virtual_loop, reports) = reporting_loop();
        let wrong = Log::default();
        virtual_loop.run_until_complete(perform(ops, [None; 3], wrong.clone())).unwrap();
        virtual_loop.run_until_idle();
        prop_assert_eq!(wrong.take(), Vec::<String>::new());
        prop_assert_eq!(reports.take(), Vec::<String>::new());
        prop_assert_eq!(seen(), [None; 3]);
        prop_assert!(virtual_loop.all_tasks().is_empty());
    }
}

fn cases() -> u32 {
    std::env::var("TULIPA_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
}
