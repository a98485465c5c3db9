//! What debug mode and instruments say of tasks.

mod common;

use std::cell::RefCell;
use std::future::pending;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use common::{Drops, Journal, capture_logs};
use tulipa_loop::{
    Cancelled, Elapsed, ErrorContext, EventLoop, Instrument, LoopHandle, Origin, Task, TaskRef,
    TaskStatus, TimeoutEnded,
};
use tulipa_testing::VirtualLoop;

fn quiet_loop(debug: bool) -> VirtualLoop {
    let builder = EventLoop::builder().debug(debug).exception_handler(|_, _| ());
    VirtualLoop::from_builder(builder)
}

#[test]
fn debug_mode_names_tasks_that_end_without_having_been_polled() {
    for debug in [false, true] {
        let (line, logs) = capture_logs(|| {
            let virtual_loop = quiet_loop(debug);
            let cancelled = virtual_loop.task().name("unused").spawn(async {});
            let line = line!() - 1;
            cancelled.cancel();
            let polled = virtual_loop.spawn(pending::<()>());
            virtual_loop.run_until_idle();
            polled.cancel();
            virtual_loop.run_until_idle();
            drop(virtual_loop.task().name("late").spawn(async {}));
            line
        });
        let logs: Vec<_> = logs.iter().map(|log| log.message.as_str()).collect();
        if !debug {
            assert!(logs.is_empty(), "{logs:?}");
            continue;
        }
        assert_eq!(logs.len(), 2, "{logs:?}");
        let place = format!("spawned at {}:{line}> was never polled", file!());
        assert!(logs[0].starts_with("<Task cancelling name='unused'"), "{}", logs[0]);
        assert!(logs[0].ends_with(&place), "{}", logs[0]);
        assert!(logs[1].starts_with("<Task pending name='late'"), "{}", logs[1]);
    }
}

struct Tasks(Journal<String>);

impl Instrument for Tasks {
    fn before_callback(&self, origin: Origin, _: Option<&'static Location<'static>>) {
        self.0.add(format!("step of {origin}"));
    }

    fn task_spawned(&self, task: &TaskRef) {
        self.0.add(format!("spawned {} {:?}", task.name(), task.status()));
        task.set_name(format!("renamed-{}", task.id()));
    }

    fn task_ended(&self, task: &TaskRef, status: TaskStatus) {
        self.0.add(format!("ended {} {status:?} {}", task.name(), task.is_done()));
    }
}

#[test]
fn an_instrument_hears_of_every_task_from_the_spawn_to_its_end() {
    let virtual_loop = quiet_loop(false);
    let journal = Journal::new();
    virtual_loop.set_instrument(Some(Rc::new(Tasks(journal.clone()))));
    let done = virtual_loop.spawn(async {});
    let cancelled = virtual_loop.spawn(pending::<()>());
    drop(virtual_loop.spawn(async { panic!("on purpose") }));
    cancelled.cancel();
    virtual_loop.run_once(Duration::ZERO).unwrap();
    let expected = [
        "spawned Task-1 Pending",
        "spawned Task-2 Pending",
        "spawned Task-3 Pending",
        "step of a task",
        "ended renamed-1 Finished true",
        "ended renamed-2 Cancelled true",
        "step of a task",
        "ended renamed-3 Panicked true",
    ];
    assert_eq!(journal.take(), expected);
    drop(done);
}

/// Does something once when it hears of a task.
#[derive(Default)]
struct Meddler {
    at_spawn: RefCell<Option<Box<dyn FnOnce()>>>,
    at_end: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Instrument for Meddler {
    fn task_spawned(&self, _: &TaskRef) {
        let meddle = self.at_spawn.take();
        meddle.into_iter().for_each(|meddle| meddle());
    }

    fn task_ended(&self, _: &TaskRef, _: TaskStatus) {
        let meddle = self.at_end.take();
        meddle.into_iter().for_each(|meddle| meddle());
    }
}

#[test]
fn an_instrument_may_drop_the_handle_of_a_task_that_has_just_ended() {
    let reports = Journal::new();
    let virtual_loop = quiet_loop(false);
    let journal = reports.clone();
    virtual_loop.set_exception_handler(Some(Rc::new(
        move |_: &LoopHandle, context: &ErrorContext| journal.add(context.to_string()),
    )));
    let meddler = Rc::new(Meddler::default());
    virtual_loop.set_instrument(Some(meddler.clone()));
    let ended = Journal::new();
    let task = virtual_loop.spawn(async { panic!("on purpose") });
    let journal = ended.clone();
    task.add_done_callback(move |_, status| journal.add(status));
    *meddler.at_end.borrow_mut() = Some(Box::new(move || drop::<Task<()>>(task)));
    virtual_loop.run_until_idle();
    assert_eq!(ended.take(), [TaskStatus::Panicked], "who waits for it is told");
    let reports = reports.take();
    assert_eq!(reports.len(), 1, "nobody took the panic: {reports:?}");
    assert!(reports[0].contains("on purpose"), "{reports:?}");
}

#[test]
fn an_instrument_may_close_the_loop_when_a_task_is_spawned() {
    let event_loop = Rc::new(EventLoop::builder().exception_handler(|_, _| ()).build().unwrap());
    let meddler = Rc::new(Meddler::default());
    event_loop.set_instrument(Some(meddler.clone()));
    let closing = event_loop.clone();
    *meddler.at_spawn.borrow_mut() = Some(Box::new(move || closing.close().unwrap()));
    let drops = Drops::default();
    let token = drops.token();
    let task = event_loop.spawn(async move {
        let _token = token;
        pending::<()>().await;
    });
    assert!(task.is_cancelled());
    assert_eq!(drops.count(), 1, "its future was dropped with the loop");
}

#[test]
fn a_value_that_panics_when_it_is_dropped_with_its_handle_leaves_nothing_behind() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            resume_unwind(Box::new("destructor"));
        }
    }
    let virtual_loop = quiet_loop(false);
    let task = virtual_loop.spawn(async { Panics });
    let reference = task.reference();
    virtual_loop.run_until_idle();
    assert!(reference.location().is_some());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(task))).is_err());
    assert!(reference.location().is_none(), "the loop has forgotten it");
}

#[test]
fn the_errors_of_tasks_say_what_happened() {
    assert_eq!(Cancelled.to_string(), "the future was cancelled");
    assert_eq!(Elapsed.to_string(), "the time was over first");
    assert_eq!(TimeoutEnded.to_string(), "the timeout has ended and cannot be rescheduled");
}
