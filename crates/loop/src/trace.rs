//! Spans of `tracing` around tasks, by the names that tokio-console knows.
//!
//! | what | target | name or fields |
//! |---|---|---|
//! | a task, from its spawn to its end; entered at each step | `tulipa::task` | span `runtime.spawn`: `kind` = `task`, `task.name`, `task.id`, `fut`, `loc.file`, `loc.line`, `loc.col` |
//! | the main future of a run | `tulipa::task` | the same, `kind` = `block_on` |
//! | a step is scheduled | `runtime::waker` | event: `op` = `waker.wake`, `task.id` = the id of the task's span |
//!
//! All are at the level TRACE. While no subscriber wants that level the cost is one look at a global
//! number for each spawn and each wake. A wake by another thread is told when the loop hears of it.
//! What wakers do beside waking is not told.

use std::panic::Location;
use std::rc::Rc;

use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use tracing::{Level, Span};

use crate::TaskRef;
use crate::core::{Core, unheard};
use crate::task::Key;

/// Whether somebody may want to hear of tasks.
#[inline]
pub(crate) fn is_on() -> bool {
    STATIC_MAX_LEVEL >= LevelFilter::TRACE && LevelFilter::current() >= LevelFilter::TRACE
}

/// The span of a future; `None` if nobody wants it.
#[cold]
pub(crate) fn open(
    kind: &str,
    name: &str,
    id: u64,
    future: &str,
    location: &Location<'_>,
) -> Option<Rc<Span>> {
    let mut span = None;
    // Subscribers are the program's code, here and below.
    unheard(|| {
        let opened = tracing::span!(
            target: "tulipa::task",
            parent: None,
            Level::TRACE,
            "runtime.spawn",
            kind,
            task.name = name,
            task.id = id,
            fut = future,
            loc.file = location.file(),
            loc.line = location.line(),
            loc.col = location.column(),
        );
        span = (!opened.is_disabled()).then(|| Rc::new(opened));
    });
    span
}

/// Runs `f`, which does not unwind, inside of a span.
pub(crate) fn inside<T>(span: Option<&Span>, f: impl FnOnce() -> T) -> T {
    let Some(span) = span else { return f() };
    unheard(|| {
        span.with_subscriber(|(id, dispatch)| dispatch.enter(id));
    });
    let value = f();
    unheard(|| {
        span.with_subscriber(|(id, dispatch)| dispatch.exit(id));
    });
    value
}

/// Tells that what has a span was woken.
#[cold]
pub(crate) fn woken(span: Option<u64>) {
    let Some(span) = span else { return };
    unheard(|| {
        tracing::trace!(target: "runtime::waker", op = "waker.wake", task.id = span);
    });
}

impl TaskRef {
    /// Gives a task that was just spawned its span.
    #[cold]
    pub(crate) fn open_span(&self) {
        let Some(location) = self.location() else { return };
        let (name, id, future) = (self.name(), self.id().get(), self.future_type_name());
        let span = open("task", &name, id, future, location);
        self.set_span(span);
    }
}

impl Core {
    /// The id of a task's span, if tasks are being traced and it has one.
    #[inline]
    pub(crate) fn traced(&self, task: &Key) -> Option<u64> {
        if !is_on() {
            return None;
        }
        let tasks = self.tasks.borrow();
        let span = tasks.span(tasks.key_of(*task))?;
        span.id().map(|id| id.into_u64())
    }
}
