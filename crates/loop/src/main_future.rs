//! The future that `run_until_complete` drives: it lives on the caller's stack, so it need not be
//! `'static`, and it takes its turn in the ready queue like everything else.

use std::any::Any;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

use tracing::Span;

use crate::LoopHandle;
use crate::core::{Ready, unheard};
use crate::handle::with_current;
use crate::remote::Shared;
use crate::report::Origin;
use crate::trace;

/// Polls the future and says whether it has ended, keeping its result for itself.
type PollMain<'a> = dyn FnMut(&mut Context<'_>) -> bool + 'a;

pub(crate) struct MainFuture<'a> {
    poll: &'a mut PollMain<'a>,
    wake: Arc<WakeMain>,
    waker: Waker,
    location: &'static Location<'static>,
    context: crate::Context,
    span: Option<Rc<Span>>,
    state: State,
}

/// How far a main future is.
enum State {
    Pending,
    Ended,
    Panicked(Box<dyn Any + Send>),
}

/// Wakes a main future from anywhere: in the loop's ready queue on its own thread while it runs,
/// else through the loop's remote queue. Several wakes before a poll are one.
struct WakeMain {
    shared: Arc<Shared>,
    run: u64,
    scheduled: AtomicBool,
    /// The id of the future's span.
    traced: Option<u64>,
}

/// Tells the runs of all loops apart, so that a late waker of an earlier run wakes nobody.
static RUNS: AtomicU64 = AtomicU64::new(0);

impl Wake for WakeMain {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let local = with_current(self.shared.id, |core| {
            core.ready.borrow_mut().push(Ready::Main(self.run));
        });
        if local.is_none() {
            self.shared.wake_main(self.run);
        }
        if self.traced.is_some() {
            trace::woken(self.traced);
        }
    }
}

impl<'a> MainFuture<'a> {
    /// A main future that is polled at the next turn, in that context.
    #[track_caller]
    pub(crate) fn new(
        handle: &LoopHandle,
        context: crate::Context,
        poll: &'a mut PollMain<'a>,
    ) -> MainFuture<'a> {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let shared = handle.core.shared.clone();
        let location = Location::caller();
        let opened = trace::is_on().then(|| trace::open("block_on", "main", 0, "", location));
        let span = opened.flatten();
        let traced = span.as_ref().and_then(|span| span.id()).map(|id| id.into_u64());
        let scheduled = AtomicBool::new(true);
        let wake = Arc::new(WakeMain { shared, run, scheduled, traced });
        handle.core.ready.borrow_mut().push(Ready::Main(run));
        let waker = Waker::from(wake.clone());
        MainFuture { poll, wake, waker, location, context, span, state: State::Pending }
    }

    pub(crate) fn run(&self) -> u64 {
        self.wake.run
    }

    pub(crate) fn poll(&mut self, handle: &LoopHandle) {
        if !matches!(self.state, State::Pending) {
            return;
        }
        // Before the poll: a wake during it must schedule another one. A swap, because a wake that was
        // not needed must still show the poll what was written before it.
        self.wake.scheduled.swap(false, Ordering::AcqRel);
        let mut context = Context::from_waker(&self.waker);
        let (poll, inherited) = (&mut *self.poll, &mut self.context);
        let poll = || inherited.run(|| poll(&mut context));
        handle.core.polls_main.set(true);
        let span = self.span.clone();
        let watched = trace::inside(span.as_deref(), || {
            handle.core.watch(handle, Origin::Main, Some(self.location), poll)
        });
        handle.core.polls_main.set(false);
        match watched {
            Ok(false) => return,
            Ok(true) => self.state = State::Ended,
            Err(payload) => self.state = State::Panicked(payload),
        }
        handle.stop();
    }

    /// Whether the future has ended; resumes its panic if it ended with one.
    pub(crate) fn finish(self) -> bool {
        unheard(|| drop(self.span));
        match self.state {
            State::Pending => false,
            State::Ended => true,
            State::Panicked(payload) => std::panic::resume_unwind(payload),
        }
    }
}
