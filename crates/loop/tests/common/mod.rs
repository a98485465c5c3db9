//! What the tests share: journals, drop counters, sources made of closures, captured logs.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};
use tulipa_loop::{ErrorContext, LoopHandle, Origin, Source};
use tulipa_selector::{Event, Interest, Registration, Token, VirtualId};
use tulipa_testing::VirtualLoop;

/// A list that callbacks write and the test reads.
pub(crate) struct Journal<T>(Rc<RefCell<Vec<T>>>);

impl<T> Clone for Journal<T> {
    fn clone(&self) -> Journal<T> {
        Journal(self.0.clone())
    }
}

impl<T> Journal<T> {
    pub(crate) fn new() -> Journal<T> {
        Journal(Rc::default())
    }

    pub(crate) fn add(&self, entry: T) {
        self.0.borrow_mut().push(entry);
    }

    pub(crate) fn take(&self) -> Vec<T> {
        self.0.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

impl<T: 'static> Journal<T> {
    /// A callback that adds an entry.
    pub(crate) fn note(&self, entry: T) -> impl FnOnce(&LoopHandle) + use<T> {
        let journal = self.clone();
        move |_| journal.add(entry)
    }
}

/// Counts how many of its tokens were dropped, and on which thread: tokens are `!Send`.
#[derive(Clone, Default)]
pub(crate) struct Drops(Rc<Cell<usize>>);

pub(crate) struct DropToken(Rc<Cell<usize>>);

impl Drops {
    pub(crate) fn token(&self) -> DropToken {
        DropToken(self.0.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.get()
    }
}

impl Drop for DropToken {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Does something when it is dropped.
pub(crate) struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    pub(crate) fn new(f: F) -> OnDrop<F> {
        OnDrop(Some(f))
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

/// A source that does what a closure says.
pub(crate) struct FnSource<F>(pub(crate) F);

impl<F: FnMut(&LoopHandle, &Event)> Source for FnSource<F> {
    fn ready(&mut self, handle: &LoopHandle, event: &Event) {
        (self.0)(handle, event);
    }
}

/// A loop in virtual time that fails the test if anything panicked in it, an assertion in a callback
/// above all. Setting another exception handler ends that.
pub(crate) struct StrictLoop {
    virtual_loop: VirtualLoop,
    failures: Journal<String>,
}

pub(crate) fn strict_loop() -> StrictLoop {
    let (virtual_loop, failures) = (VirtualLoop::new(), Journal::new());
    let journal = failures.clone();
    virtual_loop.set_exception_handler(Some(Rc::new(
        move |_: &LoopHandle, context: &ErrorContext| journal.add(context.to_string()),
    )));
    StrictLoop { virtual_loop, failures }
}

impl Deref for StrictLoop {
    type Target = VirtualLoop;

    fn deref(&self) -> &VirtualLoop {
        &self.virtual_loop
    }
}

impl Drop for StrictLoop {
    fn drop(&mut self) {
        let failures = self.failures.take();
        if !std::thread::panicking() {
            assert!(failures.is_empty(), "{failures:?}");
        }
    }
}

/// A virtual source that is readable, and what happens then.
pub(crate) struct Wire {
    pub(crate) id: VirtualId,
    pub(crate) key: Token,
    pub(crate) registration: Registration,
}

/// Registers a closure as a source, which is ready for nothing yet.
pub(crate) fn wire(
    virtual_loop: &VirtualLoop,
    ready: impl FnMut(&LoopHandle, &Event) + 'static,
) -> Wire {
    wire_source(virtual_loop, Box::new(FnSource(ready)))
}

/// Registers a source, which is ready for nothing yet.
pub(crate) fn wire_source(virtual_loop: &VirtualLoop, source: Box<dyn Source>) -> Wire {
    let id = virtual_loop.world().new_source();
    let key = virtual_loop.insert_source(source).unwrap();
    let selector = virtual_loop.selector();
    let registration = selector.register(id.into(), Interest::READABLE, key.to_bits()).unwrap();
    Wire { id, key, registration }
}

pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// One failure that a loop reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) origin: Option<Origin>,
    pub(crate) line: Option<u32>,
    pub(crate) text: String,
}

/// Makes a loop write its failures into a journal.
pub(crate) fn journal_reports(handle: &LoopHandle) -> Journal<Report> {
    let reports = Journal::new();
    let journal = reports.clone();
    handle.set_exception_handler(Some(Rc::new(move |_: &LoopHandle, context: &ErrorContext| {
        journal.add(Report {
            origin: context.origin,
            line: context.location.map(|location| location.line()),
            text: context.failure.to_string(),
        });
    })));
    reports
}

/// One event of `tracing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) level: Level,
    pub(crate) target: String,
    pub(crate) message: String,
    /// The other fields, as `name=value`.
    pub(crate) fields: Vec<String>,
}

/// Collects what this thread logs for `tulipa` while `f` runs.
pub(crate) fn capture_logs<T>(f: impl FnOnce() -> T) -> (T, Vec<Logged>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let result = tracing::subscriber::with_default(Capture(events.clone()), f);
    let events = std::mem::take(&mut *events.lock().unwrap_or_else(PoisonError::into_inner));
    (result, events)
}

struct Capture(Arc<Mutex<Vec<Logged>>>);

impl Subscriber for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tulipa"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let metadata = event.metadata();
        let mut logged = Logged {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut logged);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(logged);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Logged {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push(format!("{name}={value:?}")),
        }
    }
}
