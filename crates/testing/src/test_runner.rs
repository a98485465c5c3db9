//! [`TestRunner`]: one test with a loop of its own.

use std::cell::RefCell;
use std::fmt::{self, Debug};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::{ErrorContext, EventLoop, JoinError, LoopHandle, Task};

use crate::leaks;
use crate::stage::{Limits, Stage};

/// How long a test may take by a real clock, and how long one in virtual time may wait for other threads,
/// unless it says otherwise. A test that hangs has to fail.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// How many turns the loop takes at the end of a strict test, so that what is about to end has ended:
/// a task that was just cancelled, or one that hands something on to another.
const SETTLING_TURNS: usize = 100;

/// What makes time pass in a test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clock {
    /// The clock moves only when the test awaits [`advance`](crate::advance).
    Virtual,
    /// The clock jumps to what is next whenever nothing can run, but not while a job is in the default
    /// executor.
    Autojump,
    /// Real time. The loop can watch descriptors.
    #[default]
    Real,
}

/// What a test may give: `()`, or a `Result<(), E>` with an error that can be shown.
#[diagnostic::on_unimplemented(
    message = "a test gives `()` or `Result<(), E>` where `E: Debug`, but this one gives `{Self}`",
    label = "this is not what a test gives"
)]
pub trait TestOutcome {
    /// Whether this alone makes the test fail.
    fn is_failure(&self) -> bool;
}

impl TestOutcome for () {
    fn is_failure(&self) -> bool {
        false
    }
}

impl<E: Debug> TestOutcome for Result<(), E> {
    fn is_failure(&self) -> bool {
        self.is_err()
    }
}

/// Runs one test on a loop of its own: what `#[tulipa::test]` does, for tests that are made in other ways.
/// Stands for asynctest's `TestCase`.
///
/// ```
/// use std::time::Duration;
/// use tulipa_loop::sleep;
/// use tulipa_testing::{Clock, TestRunner, elapsed};
///
/// TestRunner::new().clock(Clock::Autojump).strict(true).run(async {
///     sleep(Duration::from_secs(3600)).await;
///     assert_eq!(elapsed(), Duration::from_secs(3600));
/// });
/// ```
///
/// # What fails a test
/// - Its own panic, or its own `Err`.
/// - What is reported to the loop's exception handler: the panic of a task that nobody awaits, the error of
///   a detached one. Without this an assertion in a callback would fail unheard. A test that expects
///   reports sets a handler of its own.
/// - That it can never end: in virtual time nothing can run and nothing is due, or it takes ten million
///   turns; in real time, and if one is given, the [`timeout`](Self::timeout) is over. The message lists
///   what is pending.
/// - In a [`strict`](Self::strict) one, what it leaves behind.
///
/// # The end
/// Tasks that are left are cancelled and waited for, and the executor's threads have to end. In virtual time
/// the clock jumps meanwhile. A clean-up that does not end fails the test too.
#[derive(Clone, Debug, Default)]
#[must_use = "a test does nothing until `run`"]
pub struct TestRunner {
    clock: Clock,
    strict: bool,
    debug: Option<bool>,
    timeout: Option<Duration>,
}

impl TestRunner {
    /// A test by a real clock that may leave something behind.
    pub fn new() -> TestRunner {
        TestRunner::default()
    }

    /// What makes time pass.
    pub fn clock(mut self, clock: Clock) -> TestRunner {
        self.clock = clock;
        self
    }

    /// Whether tasks, timers, sources and registrations (readers, writers, descriptors that the loop
    /// watches) that are left at the end fail the test. What can run at the end without waiting runs before,
    /// for at most 100 turns. Stands for asynctest's `strict` and `fail_on`.
    pub fn strict(mut self, strict: bool) -> TestRunner {
        self.strict = strict;
        self
    }

    /// Turns debug mode on or off, whatever the environment says.
    pub fn debug(mut self, debug: bool) -> TestRunner {
        self.debug = Some(debug);
        self
    }

    /// How long the test may take by its clock. Unless it is set, [`DEFAULT_TIMEOUT`] by a real clock, and
    /// as long as it likes by a virtual one. A test that blocks its thread is not ended by it.
    pub fn timeout(mut self, timeout: Duration) -> TestRunner {
        self.timeout = Some(timeout);
        self
    }

    /// Runs the test, as a task of the name `test`, and gives what it gives.
    ///
    /// # Panics
    /// With the test's panic, and as written [above](TestRunner#what-fails-a-test). If the test fails by
    /// itself, whatever else went wrong is said on the standard error.
    #[track_caller]
    pub fn run<F>(self, test: F) -> F::Output
    where
        F: Future + 'static,
        F::Output: TestOutcome,
    {
        let reports = Reports::default();
        let stage = Stage::new(self.clock, self.builder(&reports));
        let clock = stage.clock().enter();
        let handle = stage.event_loop().handle();
        let mut task = handle.task().name("test").spawn(test);
        let limits = self.limits();
        if let Err(reason) = stage.run_until_done(&task, limits) {
            let pending = leaks::of(&handle);
            let pending = leaks::list("pending", &pending) + &leaks::await_graph(&handle);
            let mut findings = Findings(vec![format!("the test cannot end: {reason}{pending}")]);
            findings.0.append(&mut reports.take());
            ignore_reports(&handle);
            drop((task, stage, clock));
            panic!("{findings}");
        }
        let result = take_result(&mut task);
        drop(task);
        let mut findings = Findings::default();
        if self.strict && matches!(&result, Ok(value) if !value.is_failure()) {
            stage.settle(SETTLING_TURNS);
            let left = leaks::of(&handle);
            if !left.is_empty() {
                let left = leaks::list("left", &left);
                findings.0.push(format!("the test has left something behind{left}"));
            }
        }
        findings.0.extend(end(&stage, limits));
        drop((stage, clock));
        findings.0.append(&mut reports.take());
        settle(result, &findings)
    }

    fn builder(&self, reports: &Reports) -> tulipa_loop::Builder {
        let builder = EventLoop::builder().exception_handler(reports.handler());
        match self.debug {
            Some(debug) => builder.debug(debug),
            None => builder,
        }
    }

    fn limits(&self) -> Limits {
        let default = (self.clock == Clock::Real).then_some(DEFAULT_TIMEOUT);
        let threads = match self.clock {
            Clock::Real => self.timeout.unwrap_or(DEFAULT_TIMEOUT),
            _ => DEFAULT_TIMEOUT,
        };
        Limits { clock: self.timeout.or(default), threads }
    }
}

/// Ends what the test has left, and gives what did not end well.
fn end(stage: &Stage, limits: Limits) -> Vec<String> {
    let handle = stage.event_loop().handle();
    let mut findings = Vec::new();
    if let Err(reason) = stage.cancel_all_tasks(limits) {
        let pending = leaks::list("pending", &leaks::of(&handle));
        ignore_reports(&handle);
        findings.push(format!("tasks that were cancelled at the end go on: {reason}{pending}"));
    }
    if let Err(reason) = stage.shut_down_executor(limits.threads) {
        findings.push(format!("the default executor does not end: {reason}"));
    }
    findings
}

/// For a loop whose tasks are dropped, which is reported: they have been listed as pending.
fn ignore_reports(handle: &LoopHandle) {
    handle.set_exception_handler(Some(Rc::new(|_: &LoopHandle, _: &ErrorContext| {})));
}

fn take_result<T>(task: &mut Task<T>) -> Result<T, JoinError> {
    task.try_result().expect("a task that has ended has a result, and nobody has taken it")
}

/// Gives the test's result, or fails if it did not.
#[track_caller]
fn settle<T: TestOutcome>(result: Result<T, JoinError>, findings: &Findings) -> T {
    match result {
        Ok(value) if value.is_failure() => {
            findings.say();
            value
        }
        Ok(value) if findings.0.is_empty() => value,
        Ok(_) => panic!("{findings}"),
        Err(JoinError::Panicked(payload)) => {
            findings.say();
            resume_unwind(payload)
        }
        Err(error) => {
            findings.say();
            panic!("the test did not end by itself: {error}")
        }
    }
}

/// What was reported to the exception handler.
#[derive(Clone, Default)]
struct Reports(Rc<RefCell<Vec<String>>>);

impl Reports {
    fn handler(&self) -> impl Fn(&LoopHandle, &ErrorContext) + use<> {
        let reports = self.0.clone();
        move |_, context| {
            // Written before the borrow: the error's own code does it.
            let text = format!("reported to the exception handler: {context}");
            reports.borrow_mut().push(text);
        }
    }

    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// Everything that is wrong with a test.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    /// For a test that fails anyway, with a message of its own.
    #[expect(clippy::print_stderr, reason = "a test harness shows what a test writes")]
    fn say(&self) {
        for finding in &self.0 {
            eprintln!("also: {finding}");
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}
