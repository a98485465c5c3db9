//! One turn of the loop, step by step. The numbers are those of `docs/architecture.md`.

use std::io;
use std::time::{Duration, Instant};

use tulipa_selector::Timeout;

use crate::LoopHandle;
use crate::core::{Core, Ready};
use crate::main_future::MainFuture;
use crate::report::Origin;
use crate::timers::Alarm;

/// For how many turns in a row the look at the operating system may be skipped while callbacks are
/// ready: a yield then costs no system call, and events wait for no more than eight turns.
const MOST_SKIPPED_SELECTS: u32 = 8;

/// For how long it may be skipped at the most, should those turns be long ones: events and the
/// timeouts of other programs are not late by more than this.
const LONGEST_SKIP: Duration = Duration::from_millis(1);

/// What a run of the loop remembers from turn to turn.
#[derive(Debug, Default)]
pub(crate) struct Run {
    skipped: u32,
    /// Until when looks may be skipped, if there was something to skip for at the last one.
    skip_until: Option<Instant>,
}

impl Core {
    /// Whether the next turn has something to do without being told by an event or a timer.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.borrow().is_empty() || !self.shared.is_empty() || !self.wires.is_empty()
    }
}

impl LoopHandle {
    /// One turn. It waits for at most `limit`, and not at all while there is work or the loop is
    /// stopping.
    pub(crate) fn turn(
        &self,
        run: &mut Run,
        limit: Timeout,
        main: &mut Option<MainFuture<'_>>,
    ) -> io::Result<()> {
        let core = &self.core;
        // 1: sources that want attention.
        self.attend_marked();

        // 2 to 4: events.
        let timeout = self.timeout(limit);
        let skipped = if timeout == Timeout::Immediate { self.may_skip(run) } else { None };
        let (now, selected) = match skipped {
            Some(now) => (Some(now), Ok(())),
            None => self.look_for_events(run, timeout),
        };

        // 5: timers that are due.
        self.fire_timers(now);

        // 6: what was ready at this point, and no more.
        core.receive();
        let count = core.ready.borrow().len();
        for _ in 0..count {
            let entry = core.ready.borrow_mut().pop();
            let Some(entry) = entry else { break };
            self.run_ready(entry, main);
            self.flush_marked();
        }
        self.reap_tasks();
        core.count(|statistics| {
            statistics.turns += 1;
            statistics.most_ready = statistics.most_ready.max(count);
        });
        // A selector that fails keeps nothing else from its turn.
        selected
    }

    /// How long this turn may wait.
    fn timeout(&self, limit: Timeout) -> Timeout {
        if self.core.stopping.get() || self.core.has_work() {
            return Timeout::Immediate;
        }
        let timer = self.core.timers.borrow().next();
        let Some(timer) = timer else { return limit };
        let limit = match limit {
            Timeout::Never => return Timeout::At(timer),
            Timeout::Immediate => return Timeout::Immediate,
            limit => limit.deadline(|| self.time()),
        };
        Timeout::At(limit.map_or(timer, |limit| limit.min(timer)))
    }

    /// Whether this turn can do without a look at the operating system; if so, the time, which is that of
    /// the turn's timers as well.
    fn may_skip(&self, run: &mut Run) -> Option<Instant> {
        let at_work = !self.core.ready.borrow().is_empty();
        if !at_work || self.core.stopping.get() || run.skipped >= MOST_SKIPPED_SELECTS {
            return None;
        }
        let until = run.skip_until?;
        let now = self.time();
        if now >= until {
            return None;
        }
        run.skipped += 1;
        Some(now)
    }

    /// Looks, and tells the sources. Gives the time too where it had to be read.
    fn look_for_events(
        &self,
        run: &mut Run,
        timeout: Timeout,
    ) -> (Option<Instant>, io::Result<()>) {
        let core = &self.core;
        let watched = core.is_watched();
        let started = watched.then(|| {
            let started = self.time();
            core.instrument(self, |hook| hook.before_select(timeout.remaining(|| started)));
            started
        });
        let mut events = core.events.take();
        let selected = self.select(&mut events, timeout);
        if let Some(started) = started {
            let waited = self.time().saturating_duration_since(started);
            core.count(|statistics| statistics.idle += waited);
            core.instrument(self, |hook| hook.after_select(events.len(), waited));
        }
        core.count(|statistics| {
            statistics.selects += 1;
            statistics.events += events.len() as u64;
        });
        self.dispatch(&mut events);
        core.events.set(events);
        run.skipped = 0;
        // Only a loop that has something to skip for needs to know when it looked last.
        let now = (!core.ready.borrow().is_empty()).then(|| self.time());
        run.skip_until = now.and_then(|now| now.checked_add(LONGEST_SKIP));
        (now, selected)
    }

    /// Waits, having looked without waiting for as long as [`busy_poll`](crate::Builder::busy_poll)
    /// says.
    fn select(&self, events: &mut tulipa_selector::Events, timeout: Timeout) -> io::Result<()> {
        let core = &self.core;
        if core.busy_poll.is_zero() || timeout == Timeout::Immediate {
            return core.selector.select(events, timeout);
        }
        let started = self.time();
        let deadline = timeout.deadline(|| started);
        let spin_until = started.checked_add(core.busy_poll);
        loop {
            core.selector.select(events, Timeout::Immediate)?;
            let now = self.time();
            let over = deadline.is_some_and(|deadline| deadline <= now);
            if over || !events.is_empty() || events.is_notified() {
                return Ok(());
            }
            // A clock that does not move is a virtual one: there is no time to spin away.
            if now == started || spin_until.is_some_and(|spin_until| spin_until <= now) {
                return core.selector.select(events, Timeout::from(deadline));
            }
            std::hint::spin_loop();
        }
    }

    /// Fires what is due by one reading of the clock, that of this turn if there was one since the wait. What is
    /// set meanwhile waits for the next turn.
    fn fire_timers(&self, now: Option<Instant>) {
        let core = &self.core;
        let Some(next) = core.timers.borrow().next() else { return };
        let now = now.unwrap_or_else(|| self.time());
        if next > now {
            return;
        }
        let lag = now.saturating_duration_since(next);
        let mut due = core.due.take();
        core.timers.borrow_mut().take_due(now, &mut due);
        let mut fired = 0;
        for key in due.drain(..) {
            // It may have been cancelled by one that was due before it.
            let alarm = core.timers.borrow_mut().remove(key);
            let Some(alarm) = alarm else { continue };
            fired += 1;
            match alarm {
                Alarm::Call(callback) => {
                    let (origin, location) = (callback.origin, Some(callback.location));
                    core.run_user(self, origin, location, || (callback.run)(self));
                }
                Alarm::Wake(waker) => core.release(self, || waker.wake()),
                Alarm::Mark(key) => self.with_source(key, |source| source.attend(self)),
            }
            self.flush_marked();
        }
        core.due.set(due);
        core.count(|statistics| {
            statistics.timers_fired += fired;
            statistics.most_lag = statistics.most_lag.max(lag);
        });
    }

    fn run_ready(&self, entry: Ready, main: &mut Option<MainFuture<'_>>) {
        let core = &self.core;
        match entry {
            Ready::Cancelled => return,
            Ready::Call(callback) => {
                let (origin, location) = (callback.origin, Some(callback.location));
                core.run_user(self, origin, location, || (callback.run)(self));
            }
            Ready::Remote(call) if !call.is_pending() => {
                core.release(self, || drop(call));
                return;
            }
            Ready::Remote(call) => {
                let location = Some(call.location());
                core.run_user(self, Origin::Callback, location, || call.run(self));
                core.release(self, || drop(call));
            }
            Ready::Main(run) => {
                if let Some(main) = main.as_mut().filter(|main| main.run() == run) {
                    main.poll(self);
                }
                return;
            }
            Ready::Task(task) => self.run_task(task),
        }
        core.count(|statistics| statistics.callbacks += 1);
    }
}
