//! The spans of tasks, by the names that tokio-console looks for.

#[path = "task_common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::reporting_loop;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Event, Metadata, Subscriber};
use tulipa_loop::{LoopHandle, current_task, sleep, spawn, spawn_eager, yield_now};
use tulipa_testing::VirtualLoop;

/// Writes down what it is told, and does something with the current loop each time.
#[derive(Clone, Default)]
struct Console(Arc<Inner>);

#[derive(Default)]
struct Inner {
    next: AtomicU64,
    names: Mutex<BTreeMap<u64, String>>,
    log: Mutex<Vec<String>>,
}

/// The fields of a span or an event.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value.to_string());
    }
}

impl Console {
    fn add(&self, entry: String) {
        // Anything may be done in a subscriber.
        if let Some(handle) = LoopHandle::try_current() {
            drop((handle.statistics(), handle.all_tasks(), current_task()));
            handle.call_soon(|_| ());
        }
        self.0.log.lock().unwrap().push(entry);
    }

    fn name(&self, id: u64) -> String {
        self.0.names.lock().unwrap()[&id].clone()
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.log.lock().unwrap())
    }
}

impl Subscriber for Console {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.name() == "runtime.spawn" || metadata.target() == "runtime::waker"
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let (id, name) = (self.0.next.fetch_add(1, SeqCst) + 1, fields.0["task.name"].clone());
        self.0.names.lock().unwrap().insert(id, name.clone());
        let mut entry = format!("new {name}:");
        for key in ["kind", "task.id", "loc.file", "loc.line", "loc.col"] {
            write!(entry, " {key}={}", fields.0[key]).unwrap();
        }
        self.add(entry);
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let id = fields.0["task.id"].parse().unwrap();
        self.add(format!("{} {}", fields.0["op"], self.name(id)));
    }

    fn enter(&self, id: &Id) {
        self.add(format!("enter {}", self.name(id.into_u64())));
    }

    fn exit(&self, id: &Id) {
        self.add(format!("exit {}", self.name(id.into_u64())));
    }

    fn try_close(&self, id: Id) -> bool {
        self.add(format!("close {}", self.name(id.into_u64())));
        true
    }
}

/// What a console sees of a program on a loop of its own.
fn watched(program: impl FnOnce(&VirtualLoop)) -> Vec<String> {
    let console = Console::default();
    with_default(console.clone(), || {
        let (virtual_loop, reports) = reporting_loop();
        program(&virtual_loop);
        drop(virtual_loop);
        assert!(reports.take().is_empty());
    });
    console.take()
}

#[test]
fn a_task_has_a_span_from_its_spawn_to_its_end_which_each_step_enters() {
    let line = line!() + 2;
    let seen = watched(|virtual_loop| {
        let task = virtual_loop.task().name("fetch").spawn(yield_now());
        virtual_loop.run_until_idle();
        assert!(task.is_done());
    });
    let place = format!("loc.file={} loc.line={line}", file!());
    assert!(seen[0].starts_with(&format!("new fetch: kind=task task.id=1 {place} loc.col=")));
    let rest = ["enter fetch", "waker.wake fetch", "exit fetch", "enter fetch", "exit fetch"];
    assert_eq!(seen[1..6].iter().filter(|entry| !rest.contains(&entry.as_str())).count(), 0);
    assert_eq!(seen[1], "enter fetch");
    assert_eq!(seen[6..], ["close fetch"], "also while its handle lives");
}

#[test]
fn wakes_are_told_with_the_span_of_whom_they_wake_wherever_they_come_from() {
    let seen = watched(|virtual_loop| {
        let here =
            virtual_loop.task().name("here").spawn(async { sleep(Duration::from_secs(1)).await });
        let (waker, receive) = std::sync::mpsc::channel();
        let there = virtual_loop.task().name("there").spawn(async move {
            let mut first = true;
            std::future::poll_fn(|context| {
                if std::mem::take(&mut first) {
                    waker.send(context.waker().clone()).unwrap();
                    return std::task::Poll::Pending;
                }
                std::task::Poll::Ready(())
            })
            .await;
        });
        virtual_loop.run_until_idle();
        let waker = receive.recv().unwrap();
        thread::spawn(move || waker.wake()).join().unwrap();
        virtual_loop.run_until_idle();
        assert!(there.is_done() && !here.is_done());
        virtual_loop.advance(Duration::from_secs(1));
        assert!(here.is_done());
    });
    let wakes: Vec<_> = seen.iter().filter(|entry| entry.starts_with("waker")).collect();
    assert_eq!(wakes, ["waker.wake there", "waker.wake here"]);
}

#[test]
fn the_main_future_has_a_span_of_its_own_kind_and_an_eager_task_one_inside() {
    let seen = watched(|virtual_loop| {
        virtual_loop
            .run_until_complete(async {
                let task = spawn_eager(async {});
                assert!(task.is_done());
            })
            .unwrap();
    });
    assert!(seen[0].starts_with("new main: kind=block_on task.id=0 "), "{seen:?}");
    let order = seen[1..].iter().map(|entry| entry.split(':').next().unwrap());
    let order: Vec<_> = order.collect();
    assert_eq!(
        order,
        [
            "enter main",
            "new Task-1",
            "enter Task-1",
            "exit Task-1",
            "close Task-1",
            "exit main",
            "close main"
        ]
    );
}

#[test]
fn a_cancelled_task_and_one_that_panics_close_their_spans_too() {
    let seen = watched(|virtual_loop| {
        let cancelled = virtual_loop.spawn(std::future::pending::<()>());
        let mut panics = virtual_loop.spawn(async { std::panic::resume_unwind(Box::new(())) });
        virtual_loop.run_until_idle();
        cancelled.cancel();
        virtual_loop.run_until_idle();
        let result: Result<(), _> = panics.try_result().unwrap();
        assert!(result.is_err());
    });
    let closed: Vec<_> = seen.iter().filter(|entry| entry.starts_with("close")).collect();
    assert_eq!(closed, ["close Task-2", "close Task-1"]);
    let (entered, left) = ("enter", "exit");
    let count = |what: &str| seen.iter().filter(|entry| entry.starts_with(what)).count();
    assert_eq!(count(entered), count(left));
}

#[test]
fn a_subscriber_that_panics_harms_no_task() {
    struct Panics;
    impl Subscriber for Panics {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            matches!(metadata.target(), "tulipa::task" | "runtime::waker")
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {
            std::panic::resume_unwind(Box::new("event"));
        }
        fn enter(&self, _: &Id) {
            std::panic::resume_unwind(Box::new("enter"));
        }
        fn exit(&self, _: &Id) {
            std::panic::resume_unwind(Box::new("exit"));
        }
        fn try_close(&self, _: Id) -> bool {
            std::panic::resume_unwind(Box::new("close"));
        }
    }
    with_default(Panics, || {
        let virtual_loop = VirtualLoop::new();
        let result = virtual_loop.run_until_complete(async {
            let task = spawn(async {
                yield_now().await;
                5
            });
            task.await.unwrap()
        });
        assert_eq!(result.unwrap(), 5);
    });
}
