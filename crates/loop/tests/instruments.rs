//! Instruments and statistics.

mod common;

use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use common::{Drops, Journal, millis, secs, wire};
use tulipa_loop::{EventLoop, Instrument, LoopHandle, Origin, Statistics};
use tulipa_selector::{Readiness, Timeout};
use tulipa_testing::VirtualLoop;

#[derive(Debug, PartialEq)]
enum Told {
    BeforeSelect(Option<Duration>),
    AfterSelect(usize, Duration),
    Before(Origin, Option<u32>),
    After(Origin, Duration),
    Slow(Origin, Duration),
}

struct Journalist(Journal<Told>);

impl Instrument for Journalist {
    fn before_select(&self, timeout: Option<Duration>) {
        self.0.add(Told::BeforeSelect(timeout));
    }

    fn after_select(&self, events: usize, waited: Duration) {
        self.0.add(Told::AfterSelect(events, waited));
    }

    fn before_callback(&self, origin: Origin, location: Option<&'static Location<'static>>) {
        self.0.add(Told::Before(origin, location.map(Location::line)));
    }

    fn after_callback(&self, origin: Origin, took: Duration) {
        self.0.add(Told::After(origin, took));
    }

    fn slow_callback(
        &self,
        origin: Origin,
        location: Option<&'static Location<'static>>,
        took: Duration,
    ) {
        assert!(location.is_some());
        self.0.add(Told::Slow(origin, took));
    }
}

#[test]
fn an_instrument_hears_of_waits_callbacks_and_timers() {
    let told = Journal::new();
    let builder = EventLoop::builder().instrument(Rc::new(Journalist(told.clone())));
    let virtual_loop = VirtualLoop::from_builder(builder.debug(false));
    virtual_loop.world().set_autojump(true);
    let world = virtual_loop.world().clone();
    let soon = line!() + 1;
    virtual_loop.call_soon(move |_| world.advance(millis(7)));
    let later = line!() + 1;
    virtual_loop.call_later(secs(1), |handle| handle.stop());
    virtual_loop.run_forever().unwrap();
    let expected = [
        Told::BeforeSelect(Some(Duration::ZERO)),
        Told::AfterSelect(0, Duration::ZERO),
        Told::Before(Origin::Callback, Some(soon)),
        Told::After(Origin::Callback, millis(7)),
        Told::BeforeSelect(Some(millis(993))),
        Told::AfterSelect(0, millis(993)),
        Told::Before(Origin::Timer, Some(later)),
        Told::After(Origin::Timer, Duration::ZERO),
    ];
    assert_eq!(told.take(), expected);
    assert_eq!(virtual_loop.statistics().idle, millis(993));
}

#[test]
fn a_wait_without_a_deadline_has_no_timeout() {
    let told = Journal::new();
    let virtual_loop = VirtualLoop::new();
    virtual_loop.set_instrument(Some(Rc::new(Journalist(told.clone()))));
    let wire = wire(&virtual_loop, |handle, _| handle.stop());
    virtual_loop.world().set_ready(wire.id, Readiness::READABLE);
    virtual_loop.run_forever().unwrap();
    assert_eq!(told.take(), [Told::BeforeSelect(None), Told::AfterSelect(1, Duration::ZERO)]);
}

#[test]
fn the_main_future_is_watched_as_well() {
    let told = Journal::new();
    let virtual_loop = VirtualLoop::from_builder(EventLoop::builder().debug(false));
    virtual_loop.set_instrument(Some(Rc::new(Journalist(told.clone()))));
    let line = line!() + 1;
    virtual_loop.run_until_complete(async {}).unwrap();
    let told = told.take();
    assert!(told.contains(&Told::Before(Origin::Main, Some(line))), "{told:?}");
    assert!(told.contains(&Told::After(Origin::Main, Duration::ZERO)), "{told:?}");
}

#[test]
fn slow_callbacks_are_told_in_debug_mode_only() {
    let told = Journal::new();
    let virtual_loop = VirtualLoop::from_builder(EventLoop::builder().debug(false));
    virtual_loop.set_instrument(Some(Rc::new(Journalist(told.clone()))));
    for debug in [false, true] {
        virtual_loop.set_debug(debug);
        let world = virtual_loop.world().clone();
        virtual_loop.call_soon(move |_| world.advance(secs(1)));
        virtual_loop.run_until_idle();
        let slow = told.take().contains(&Told::Slow(Origin::Callback, secs(1)));
        assert_eq!(slow, debug);
    }
}

#[test]
fn an_instrument_may_be_removed_and_replaced_from_inside_a_callback_and_a_hook() {
    struct Removing(
        LoopHandle,
        #[expect(dead_code, reason = "it is there to be dropped")] common::DropToken,
    );
    impl Instrument for Removing {
        fn before_callback(&self, _: Origin, _: Option<&'static Location<'static>>) {
            self.0.set_instrument(None);
            self.0.call_soon(|handle| handle.stop());
        }
    }
    let virtual_loop = VirtualLoop::new();
    let drops = Drops::default();
    let removing = Rc::new(Removing(virtual_loop.handle(), drops.token()));
    virtual_loop.call_soon(move |handle| handle.set_instrument(Some(removing)));
    let journal = Journal::new();
    virtual_loop.call_soon(journal.note("second"));
    virtual_loop.run_forever().unwrap();
    assert_eq!((journal.len(), drops.count()), (1, 1));
}

#[test]
fn an_instrument_that_removed_itself_and_panics_when_it_is_dropped_is_reported() {
    struct Removing(LoopHandle);
    impl Instrument for Removing {
        fn before_callback(&self, _: Origin, _: Option<&'static Location<'static>>) {
            self.0.set_instrument(None);
        }
    }
    impl Drop for Removing {
        fn drop(&mut self) {
            panic!("of an instrument's destructor");
        }
    }
    let virtual_loop = VirtualLoop::new();
    let reports = common::journal_reports(&virtual_loop);
    virtual_loop.set_instrument(Some(Rc::new(Removing(virtual_loop.handle()))));
    let journal = Journal::new();
    virtual_loop.call_soon(journal.note(()));
    virtual_loop.run_until_idle();
    let reports = reports.take();
    assert_eq!((journal.len(), reports.len()), (1, 1));
    assert_eq!(reports[0].origin, Some(Origin::Instrument));
}

#[test]
fn statistics_count_what_the_loop_does() {
    let virtual_loop = VirtualLoop::new();
    assert_eq!(virtual_loop.statistics(), Statistics::default());
    let world = virtual_loop.world().clone();
    let wire = wire(&virtual_loop, move |_, _| {
        world.set_ready(tulipa_selector::VirtualId(1), Readiness::NONE);
    });
    virtual_loop.world().set_ready(wire.id, Readiness::READABLE);
    for _ in 0..5 {
        virtual_loop.call_soon(|_| ());
    }
    virtual_loop.call_soon(|_| ()).cancel();
    virtual_loop.call_later(millis(10), |_| ());
    virtual_loop.call_later(millis(12), |_| ());
    virtual_loop.call_later(secs(1), |_| ());
    let before = virtual_loop.statistics();
    assert_eq!((before.ready, before.timers, before.sources), (6, 3, 1));
    virtual_loop.world().advance(millis(15));
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    let after = virtual_loop.statistics();
    assert_eq!((after.turns, after.selects, after.events), (1, 1, 1));
    assert_eq!((after.callbacks, after.timers_fired), (5, 2));
    assert_eq!((after.ready, after.timers, after.sources), (0, 1, 1));
    assert_eq!((after.most_ready, after.most_lag, after.idle), (6, millis(5), Duration::ZERO));
}
