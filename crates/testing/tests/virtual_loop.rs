//! What a `VirtualLoop` promises.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tulipa_loop::{EventLoop, LoopHandle, RunError, Source};
use tulipa_selector::{Event, Interest, Readiness, VirtualHandle, VirtualId};
use tulipa_testing::VirtualLoop;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

type Journal<T> = Rc<RefCell<Vec<T>>>;

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Notes the time, in seconds since `start`, and a name.
fn note(
    virtual_loop: &VirtualLoop,
    journal: &Journal<(u64, &'static str)>,
    name: &'static str,
) -> impl FnOnce(&LoopHandle) + use<> {
    let (start, journal) = (virtual_loop.time() - virtual_loop.elapsed(), journal.clone());
    move |handle| journal.borrow_mut().push(((handle.time() - start).as_secs(), name))
}

#[test]
fn the_clock_stands_still_by_itself() {
    let virtual_loop = VirtualLoop::default();
    let before = virtual_loop.time();
    virtual_loop.run_until_idle();
    assert_eq!(virtual_loop.time(), before);
    assert_eq!(virtual_loop.elapsed(), Duration::ZERO);
}

#[test]
fn advance_fires_each_timer_at_its_own_time_and_ends_exactly_at_the_target() {
    let virtual_loop = VirtualLoop::new();
    let journal = Journal::default();
    virtual_loop.call_later(secs(3), note(&virtual_loop, &journal, "three"));
    virtual_loop.call_later(secs(1), note(&virtual_loop, &journal, "one"));
    virtual_loop.call_later(secs(5), note(&virtual_loop, &journal, "at the target"));
    virtual_loop.call_later(secs(6), note(&virtual_loop, &journal, "behind it"));
    virtual_loop.advance(secs(5));
    assert_eq!(journal.take(), [(1, "one"), (3, "three"), (5, "at the target")]);
    assert_eq!(virtual_loop.elapsed(), secs(5));
    virtual_loop.advance(Duration::from_nanos(999_999_999));
    assert_eq!(journal.borrow().len(), 0);
    virtual_loop.advance(Duration::from_nanos(1));
    assert_eq!(journal.take(), [(6, "behind it")]);
}

#[test]
fn advance_runs_what_is_scheduled_meanwhile_at_its_own_time_too() {
    let virtual_loop = Rc::new(VirtualLoop::new());
    let journal = Journal::default();
    let (first, second, third) = (
        note(&virtual_loop, &journal, "first"),
        note(&virtual_loop, &journal, "second"),
        note(&virtual_loop, &journal, "third"),
    );
    virtual_loop.call_later(secs(2), move |handle| {
        first(handle);
        handle.call_later(secs(2), |handle| {
            second(handle);
            handle.call_soon(third);
        });
    });
    virtual_loop.call_later(secs(3), note(&virtual_loop, &journal, "between"));
    virtual_loop.advance(secs(10));
    let expected = [(2, "first"), (3, "between"), (4, "second"), (4, "third")];
    assert_eq!(journal.take(), expected);
    assert_eq!(virtual_loop.elapsed(), secs(10));
}

#[test]
fn advance_by_nothing_runs_what_is_ready_and_due() {
    let virtual_loop = VirtualLoop::new();
    let journal = Journal::default();
    virtual_loop.call_soon(note(&virtual_loop, &journal, "soon"));
    virtual_loop.call_later(Duration::ZERO, note(&virtual_loop, &journal, "timer"));
    virtual_loop.advance(Duration::ZERO);
    assert_eq!(journal.take(), [(0, "timer"), (0, "soon")]);
}

#[test]
fn what_is_ready_at_the_start_runs_before_the_clock_moves() {
    let virtual_loop = VirtualLoop::new();
    let journal = Journal::default();
    virtual_loop.call_soon(note(&virtual_loop, &journal, "now"));
    virtual_loop.advance(secs(9));
    assert_eq!(journal.take(), [(0, "now")]);
}

struct Noting {
    journal: Journal<u64>,
    world: VirtualHandle,
    id: VirtualId,
}

impl Source for Noting {
    fn ready(&mut self, handle: &LoopHandle, _: &Event) {
        self.journal.borrow_mut().push(handle.statistics().turns);
        self.world.set_ready(self.id, Readiness::NONE);
    }
}

#[test]
fn advance_plays_the_script_of_the_world_at_its_own_times() {
    let virtual_loop = VirtualLoop::new();
    let world = virtual_loop.world().clone();
    let (id, journal) = (world.new_source(), Journal::default());
    let source = Noting { journal: journal.clone(), world: world.clone(), id };
    let key = virtual_loop.insert_source(Box::new(source)).unwrap();
    let selector = virtual_loop.selector();
    let registration = selector.register(id.into(), Interest::READABLE, key.to_bits()).unwrap();
    for second in [1, 2, 3] {
        world.script(world.now() + secs(second), id, Readiness::READABLE);
    }
    virtual_loop.advance(secs(2));
    assert_eq!(journal.take().len(), 2);
    virtual_loop.advance(secs(2));
    assert_eq!(journal.take().len(), 1);
    drop(registration);
}

#[test]
fn what_becomes_ready_after_the_wait_of_a_turn_is_seen_before_the_clock_moves() {
    let virtual_loop = VirtualLoop::new();
    let world = virtual_loop.world().clone();
    let (id, journal) = (world.new_source(), Journal::default());
    let source = Noting { journal: journal.clone(), world: world.clone(), id };
    let key = virtual_loop.insert_source(Box::new(source)).unwrap();
    let selector = virtual_loop.selector();
    let registration = selector.register(id.into(), Interest::READABLE, key.to_bits()).unwrap();
    let ready = world.clone();
    virtual_loop.call_soon(move |_| ready.set_ready(id, Readiness::READABLE));
    assert!(!world.has_events());
    virtual_loop.run_until_idle();
    assert_eq!(journal.take().len(), 1);
    assert!(!world.has_events());
    drop(registration);
}

#[test]
fn a_program_that_is_never_idle_is_a_panic_and_not_a_hang() {
    fn forever(handle: &LoopHandle) {
        handle.call_soon(forever);
    }
    let virtual_loop = VirtualLoop::new();
    forever(&virtual_loop);
    let panicked = catch_unwind(AssertUnwindSafe(|| virtual_loop.run_until_idle()));
    let payload = panicked.unwrap_err();
    let text = payload.downcast_ref::<String>().unwrap();
    assert!(text.starts_with("the program is still at work after"), "{text}");
}

#[test]
fn run_until_complete_jumps_over_a_year_at_once() {
    let virtual_loop = VirtualLoop::new();
    let (promise, future) = virtual_loop.create_future();
    virtual_loop.call_later(YEAR, move |_| promise.set("a year later").unwrap());
    assert_eq!(virtual_loop.run_until_complete(future).unwrap(), Ok("a year later"));
    assert_eq!(virtual_loop.elapsed(), YEAR);
    assert!(virtual_loop.statistics().turns < 5);
}

#[test]
fn run_until_complete_stops_at_every_timer_on_the_way() {
    let virtual_loop = VirtualLoop::new();
    let journal = Journal::default();
    for name in ["one", "two"] {
        virtual_loop.call_later(secs(1), note(&virtual_loop, &journal, name));
    }
    let (promise, future) = virtual_loop.create_future();
    virtual_loop.call_later(secs(2), move |_| promise.set(()).unwrap());
    virtual_loop.call_later(secs(3), note(&virtual_loop, &journal, "too late"));
    assert_eq!(virtual_loop.run_until_complete(future).unwrap(), Ok(()));
    assert_eq!(journal.take(), [(1, "one"), (1, "two")]);
    assert_eq!(virtual_loop.elapsed(), secs(2));
}

#[test]
fn a_deadlock_is_an_error() {
    let virtual_loop = VirtualLoop::new();
    let error = virtual_loop.run_until_complete(pending::<()>()).unwrap_err();
    let RunError::Select(error) = error else { panic!("{error}") };
    assert_eq!(error.kind(), ErrorKind::Deadlock);
    assert!(error.to_string().contains("nothing can make progress"), "{error}");
    assert_eq!(virtual_loop.run_until_complete(async { 1 }).unwrap(), 1, "the loop goes on");
}

#[test]
fn the_clock_does_not_go_on_jumping_after_run_until_complete() {
    let virtual_loop = VirtualLoop::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        virtual_loop.run_until_complete(poll_fn(|_| -> Poll<()> { panic!("of the future") }))
    }));
    assert!(panicked.is_err());
    let _ = virtual_loop.run_until_complete(pending::<()>());
    virtual_loop.call_later(secs(5), |_| ());
    virtual_loop.run_once(secs(1)).unwrap();
    assert_eq!(virtual_loop.elapsed(), Duration::ZERO);
}

#[test]
fn while_a_job_is_in_the_default_executor_the_clock_does_not_run_away_from_it() {
    let virtual_loop = VirtualLoop::new();
    let fired = Rc::new(Cell::new(false));
    let timer = fired.clone();
    virtual_loop.call_later(secs(1), move |_| timer.set(true));
    let job = virtual_loop.run_in_executor(None, || 6 * 7);
    let answer = virtual_loop.run_until_complete(job).unwrap().unwrap();
    assert_eq!((answer, fired.get(), virtual_loop.elapsed()), (42, false, Duration::ZERO));
    virtual_loop.advance(secs(1));
    assert!(fired.get());
}

#[test]
fn while_somebody_holds_it_the_clock_does_not_jump() {
    let virtual_loop = VirtualLoop::new();
    let fired = Rc::new(Cell::new(false));
    let timer = fired.clone();
    virtual_loop.call_later(secs(1), move |_| timer.set(true));
    let (hold, remote) = (virtual_loop.world().hold(), virtual_loop.remote());
    let worker = std::thread::spawn(move || {
        let _hold = hold;
        remote.stop().unwrap();
    });
    virtual_loop.world().set_autojump(true);
    virtual_loop.run_forever().unwrap();
    worker.join().unwrap();
    assert_eq!((fired.get(), virtual_loop.elapsed()), (false, Duration::ZERO));
}

#[test]
fn options_of_the_builder_are_kept_and_its_selector_is_replaced() {
    let virtual_loop = VirtualLoop::from_builder(EventLoop::builder().debug(true));
    assert!(virtual_loop.debug());
    assert_eq!(virtual_loop.selector().name(), "virtual");
    assert!(format!("{virtual_loop:?}").contains("selector=virtual"));
}

#[test]
fn advance_inside_of_the_loop_is_a_panic_that_the_loop_survives() {
    let virtual_loop = Rc::new(VirtualLoop::new());
    let reported = Rc::new(Cell::new(0));
    let count = reported.clone();
    virtual_loop.set_exception_handler(Some(Rc::new(move |_: &LoopHandle, _: &_| {
        count.set(count.get() + 1);
    })));
    let this = virtual_loop.clone();
    virtual_loop.call_soon(move |_| this.advance(secs(1)));
    virtual_loop.run_until_idle();
    assert_eq!((reported.get(), virtual_loop.elapsed()), (1, Duration::ZERO));
}
