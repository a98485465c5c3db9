//! Sources: check-out and check-in, removal, panics, marks.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use common::{
    DropToken, Drops, FnSource, Journal, OnDrop, StrictLoop, journal_reports, strict_loop, wire,
    wire_source,
};
use tulipa_loop::{Flush, LoopHandle, Origin, Source};
use tulipa_selector::{Event, Interest, Readiness, Timeout, Token};

type Action = Rc<RefCell<Option<Box<dyn FnOnce(&LoopHandle)>>>>;

/// Does one thing when it is ready or attended.
struct Acting {
    action: Action,
    journal: Journal<&'static str>,
    _token: Option<DropToken>,
}

impl Acting {
    fn act(&self, handle: &LoopHandle) {
        let action = self.action.take();
        if let Some(action) = action {
            action(handle);
        }
    }
}

impl Source for Acting {
    fn ready(&mut self, handle: &LoopHandle, _: &Event) {
        self.journal.add("ready");
        self.act(handle);
    }

    fn attend(&mut self, handle: &LoopHandle) {
        self.journal.add("attend");
        self.act(handle);
    }
}

struct Scene {
    virtual_loop: StrictLoop,
    action: Action,
    journal: Journal<&'static str>,
    drops: Drops,
    wire: common::Wire,
}

fn scene() -> Scene {
    let virtual_loop = strict_loop();
    let (action, journal, drops) = (Action::default(), Journal::new(), Drops::default());
    let source =
        Acting { action: action.clone(), journal: journal.clone(), _token: Some(drops.token()) };
    let wire = wire_source(&virtual_loop, Box::new(source));
    Scene { virtual_loop, action, journal, drops, wire }
}

impl Scene {
    fn act(&self, action: impl FnOnce(&LoopHandle) + 'static) {
        self.action.replace(Some(Box::new(action)));
    }

    fn make_ready(&self) {
        self.virtual_loop.world().set_ready(self.wire.id, Readiness::READABLE);
    }

    fn turn(&self) {
        self.virtual_loop.run_once(Timeout::Immediate).unwrap();
    }
}

#[test]
fn a_ready_source_is_called_once_in_each_turn_until_it_is_served() {
    let scene = scene();
    scene.make_ready();
    scene.turn();
    scene.turn();
    assert_eq!(scene.journal.take(), ["ready", "ready"]);
    scene.virtual_loop.world().set_ready(scene.wire.id, Readiness::NONE);
    scene.turn();
    assert_eq!(scene.journal.len(), 0);
    assert_eq!(scene.virtual_loop.statistics().events, 2);
}

#[test]
fn a_source_with_no_interest_is_not_called() {
    let scene = scene();
    scene.make_ready();
    scene.wire.registration.set_interest(Interest::NONE).unwrap();
    scene.turn();
    assert_eq!(scene.journal.len(), 0);
}

#[test]
fn a_source_that_removes_itself_is_dropped_when_its_call_is_over() {
    let scene = scene();
    let (key, drops) = (scene.wire.key, scene.drops.clone());
    scene.act(move |handle| {
        assert!(handle.remove_source(key));
        assert!(!handle.remove_source(key));
        assert_eq!(drops.count(), 0, "it is running");
        assert_eq!(handle.statistics().sources, 0);
    });
    scene.make_ready();
    scene.turn();
    assert_eq!(scene.drops.count(), 1);
    scene.turn();
    assert_eq!(scene.journal.take(), ["ready"]);
}

#[test]
fn a_source_that_replaces_itself_does_not_take_the_successors_place() {
    let scene = scene();
    let (key, journal) = (scene.wire.key, scene.journal.clone());
    let successor: Rc<Cell<Option<Token>>> = Rc::default();
    let noted = successor.clone();
    scene.act(move |handle| {
        handle.remove_source(key);
        let log = journal.clone();
        let source = FnSource(move |_: &LoopHandle, _: &Event| log.add("successor"));
        noted.set(Some(handle.insert_source(Box::new(source)).unwrap()));
    });
    scene.make_ready();
    scene.turn();
    let successor = successor.get().unwrap();
    assert_eq!(successor.index(), scene.wire.key.index());
    assert_ne!(successor, scene.wire.key);
    scene.turn();
    assert_eq!(scene.journal.take(), ["ready"], "the old registration leads to nobody");
    scene.wire.registration.set_data(successor.to_bits()).unwrap();
    scene.turn();
    assert_eq!(scene.journal.take(), ["successor"]);
}

#[test]
fn a_source_that_another_one_removed_is_not_called_any_more() {
    let scene = scene();
    let log = scene.journal.clone();
    let second = wire(&scene.virtual_loop, move |_, _| log.add("second"));
    scene.virtual_loop.world().set_ready(second.id, Readiness::READABLE);
    let key = second.key;
    scene.act(move |handle| assert!(handle.remove_source(key)));
    scene.make_ready();
    scene.turn();
    assert_eq!(scene.journal.take(), ["ready"], "although its event was in the batch");
}

#[test]
fn an_event_whose_registration_was_dropped_in_the_batch_does_not_surface() {
    let scene = scene();
    let log = scene.journal.clone();
    let second = wire(&scene.virtual_loop, move |_, _| log.add("second"));
    scene.virtual_loop.world().set_ready(second.id, Readiness::READABLE);
    let registration = second.registration;
    scene.act(move |_| drop(registration));
    scene.make_ready();
    scene.turn();
    assert_eq!(scene.journal.take(), ["ready"]);
}

#[test]
fn a_source_that_panics_is_reported_and_dropped_and_the_others_are_called() {
    let scene = scene();
    let reports = journal_reports(&scene.virtual_loop);
    let log = scene.journal.clone();
    let second = wire(&scene.virtual_loop, move |_, _| log.add("second"));
    scene.virtual_loop.world().set_ready(second.id, Readiness::READABLE);
    scene.act(|_| panic!("of a source"));
    scene.make_ready();
    scene.turn();
    assert_eq!(scene.journal.take(), ["ready", "second"]);
    assert_eq!(scene.drops.count(), 1);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(
        (reports[0].origin, reports[0].text.as_str()),
        (Some(Origin::Source), "of a source")
    );
    assert_eq!(scene.virtual_loop.statistics().sources, 1);
}

#[test]
fn a_panic_while_attending_ends_the_source_too() {
    let scene = scene();
    let reports = journal_reports(&scene.virtual_loop);
    scene.act(|_| panic!("while attending"));
    scene.virtual_loop.wires().mark(scene.wire.key);
    scene.turn();
    assert_eq!((scene.drops.count(), reports.len()), (1, 1));
}

#[test]
fn a_source_whose_destructor_panics_when_it_removed_itself_is_reported() {
    struct Bad(Rc<Cell<Option<Token>>>);
    impl Source for Bad {
        fn ready(&mut self, handle: &LoopHandle, _: &Event) {
            handle.remove_source(self.0.get().unwrap());
        }
    }
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("of a destructor");
        }
    }
    let virtual_loop = strict_loop();
    let reports = journal_reports(&virtual_loop);
    let key = Rc::new(Cell::new(None));
    let wire = wire_source(&virtual_loop, Box::new(Bad(key.clone())));
    key.set(Some(wire.key));
    virtual_loop.world().set_ready(wire.id, Readiness::READABLE);
    virtual_loop.run_once(Timeout::Immediate).unwrap();
    let reports = reports.take();
    assert_eq!((reports.len(), reports[0].origin), (1, Some(Origin::Release)));
}

#[test]
fn a_mark_makes_the_loop_attend_at_the_next_turn_without_waiting() {
    let scene = scene();
    scene.virtual_loop.world().set_autojump(true);
    scene.virtual_loop.wires().mark(scene.wire.key);
    assert_eq!(scene.virtual_loop.next_deadline(), Some(scene.virtual_loop.time()));
    // It would be a deadlock to wait here.
    scene.virtual_loop.call_soon(|handle| handle.stop());
    scene.virtual_loop.run_forever().unwrap();
    assert_eq!(scene.journal.take(), ["attend"]);
}

#[test]
fn a_mark_while_attending_waits_for_the_next_turn() {
    let scene = scene();
    let key = scene.wire.key;
    scene.act(move |handle| handle.wires().mark(key));
    scene.virtual_loop.wires().mark(key);
    scene.turn();
    assert_eq!(scene.journal.take(), ["attend"]);
    assert!(scene.virtual_loop.next_deadline().is_some());
    scene.turn();
    assert_eq!(scene.journal.take(), ["attend"]);
    scene.turn();
    assert_eq!(scene.journal.len(), 0);
}

#[test]
fn a_mark_of_a_source_that_is_gone_is_passed_over() {
    let scene = scene();
    let wires = scene.virtual_loop.wires();
    wires.mark(scene.wire.key);
    assert!(scene.virtual_loop.remove_source(scene.wire.key));
    assert_eq!(scene.drops.count(), 1, "dropped at once");
    let source = FnSource(|_: &LoopHandle, _: &Event| unreachable!());
    let successor = scene.virtual_loop.insert_source(Box::new(source)).unwrap();
    assert_eq!(successor.index(), scene.wire.key.index());
    scene.turn();
    assert_eq!(scene.journal.len(), 0);
    assert!(format!("{wires:?}").contains("marked: 0"));
}

#[test]
fn wires_do_not_keep_the_loop_alive_and_outlive_it() {
    let scene = scene();
    let wires = scene.virtual_loop.wires();
    let Scene { virtual_loop, drops, wire, .. } = scene;
    drop(virtual_loop);
    assert_eq!(drops.count(), 1);
    wires.mark(wire.key);
    drop(wire.registration);
}

#[test]
fn a_source_may_do_anything_while_it_is_out() {
    let scene = scene();
    let (key, drops, journal) = (scene.wire.key, scene.drops.clone(), scene.journal.clone());
    scene.act(move |handle| {
        let guard = OnDrop::new({
            let handle = handle.clone();
            move || drop(handle.call_soon(|_| ()))
        });
        let source = FnSource(move |_: &LoopHandle, _: &Event| {
            let _ = &guard;
        });
        let other = handle.insert_source(Box::new(source)).unwrap();
        handle.wires().mark(key);
        handle.wires().mark(other);
        assert!(handle.remove_source(other));
        handle.call_soon(journal.note("callback"));
        handle.set_exception_handler(None);
        handle.stop();
        let _ = (handle.statistics(), format!("{handle:?}"), handle.next_deadline());
        assert_eq!(drops.count(), 0);
    });
    scene.make_ready();
    scene.turn();
    assert_eq!(scene.journal.take(), ["ready", "callback"]);
}

#[test]
fn a_closed_loop_passes_marks_over() {
    let virtual_loop = common::strict_loop();
    let wires = virtual_loop.wires();
    virtual_loop.close().unwrap();
    wires.mark(Token::from_bits(0));
    assert_eq!(format!("{wires:?}"), "Wires { marked: 0, .. }");
}

type Attended = Box<dyn FnMut(&LoopHandle)>;

/// Notes that it was flushed.
struct Output(Journal<&'static str>);

impl Flush for Output {
    fn flush(&self) {
        self.0.add("flush");
    }
}

/// Notes each call, and what it is told to do when it is attended.
struct Attending {
    journal: Journal<&'static str>,
    attended: Option<Attended>,
}

impl Source for Attending {
    fn ready(&mut self, _: &LoopHandle, _: &Event) {}

    fn attend(&mut self, handle: &LoopHandle) {
        self.journal.add("attend");
        if let Some(attended) = &mut self.attended {
            attended(handle);
        }
    }

    fn as_any(&mut self) -> Option<&mut dyn std::any::Any> {
        Some(self)
    }
}

fn attending(virtual_loop: &StrictLoop, journal: &Journal<&'static str>) -> Token {
    let source = Attending { journal: journal.clone(), attended: None };
    virtual_loop.insert_source(Box::new(source)).unwrap()
}

fn output() -> (Rc<Output>, Journal<&'static str>) {
    let journal = Journal::new();
    (Rc::new(Output(journal.clone())), journal)
}

#[test]
fn output_is_flushed_right_after_the_callback_task_step_or_timer_that_asked_for_it() {
    let virtual_loop = strict_loop();
    let (output, journal) = output();
    let mark = |name: &'static str| {
        let (wires, output, journal) = (virtual_loop.wires(), output.clone(), journal.clone());
        move || {
            wires.flush_soon(output);
            journal.add(name);
        }
    };
    let (callback, timer, step) = (mark("callback"), mark("timer"), mark("step"));
    virtual_loop.call_later(std::time::Duration::ZERO, move |_| timer());
    virtual_loop.call_soon(move |_| callback());
    virtual_loop.call_soon(journal.note("next callback"));
    virtual_loop.spawn(async move { step() }).detach();
    virtual_loop.call_soon(journal.note("last callback"));
    virtual_loop.run_until_idle();
    let expected =
        ["timer", "flush", "callback", "flush", "next callback", "step", "flush", "last callback"];
    assert_eq!(journal.take(), expected);
}

#[test]
fn what_is_to_be_flushed_outside_of_the_loop_is_flushed_when_it_runs() {
    let virtual_loop = strict_loop();
    let (output, journal) = output();
    virtual_loop.wires().flush_soon(output);
    assert!(virtual_loop.next_deadline().is_some(), "there is work");
    virtual_loop.run_until_idle();
    assert_eq!(journal.take(), ["flush"]);
}

#[test]
fn a_source_can_be_replaced_while_it_is_called_and_at_no_other_time() {
    let virtual_loop = strict_loop();
    let (old, new) = (Journal::new(), Journal::new());
    let successor =
        std::cell::RefCell::new(Some(Attending { journal: new.clone(), attended: None }));
    let key = Rc::new(Cell::new(Token::from_bits(0)));
    let attended = {
        let key = key.clone();
        move |handle: &LoopHandle| {
            let next = successor.take().expect("it is attended once");
            assert!(handle.replace_source(key.get(), Box::new(next)).is_ok());
        }
    };
    let source = Attending { journal: old.clone(), attended: Some(Box::new(attended)) };
    key.set(virtual_loop.insert_source(Box::new(source)).unwrap());
    let another = Box::new(Attending { journal: new.clone(), attended: None });
    assert!(virtual_loop.replace_source(key.get(), another).is_err());
    virtual_loop.wires().mark(key.get());
    virtual_loop.run_until_idle();
    virtual_loop.wires().mark(key.get());
    virtual_loop.run_until_idle();
    assert_eq!((old.take(), new.take()), (vec!["attend"], vec!["attend"]));
    assert_eq!(virtual_loop.statistics().sources, 1);
}

#[test]
fn a_source_can_be_borrowed_unless_it_is_being_called_or_gone() {
    use tulipa_loop::SourceUnavailable::{Busy, Gone};
    let virtual_loop = strict_loop();
    let key = attending(&virtual_loop, &Journal::new());
    {
        let mut source = virtual_loop.borrow_source(key).unwrap();
        assert!(source.downcast::<Attending>().is_some());
        assert!(source.downcast::<Acting>().is_none());
        assert_eq!(virtual_loop.borrow_source(key).unwrap_err(), Busy);
    }
    let source = virtual_loop.borrow_source(key).unwrap();
    virtual_loop.remove_source(key);
    drop(source);
    assert_eq!(virtual_loop.borrow_source(key).unwrap_err(), Gone);
}

#[test]
fn a_source_is_attended_at_the_time_asked_for_unless_that_is_cancelled() {
    let virtual_loop = strict_loop();
    let journal = Journal::new();
    let key = attending(&virtual_loop, &journal);
    let second = std::time::Duration::from_secs(1);
    virtual_loop.mark_at(key, virtual_loop.time() + second);
    let cancelled = virtual_loop.mark_at(key, virtual_loop.time() + second);
    virtual_loop.cancel_mark(cancelled);
    virtual_loop.advance(second - std::time::Duration::from_nanos(1));
    assert_eq!(journal.len(), 0);
    virtual_loop.advance(second);
    assert_eq!(journal.take(), ["attend"]);
}

#[test]
fn a_loop_keeps_one_local_of_each_type_until_it_closes() {
    let drops = Drops::default();
    let virtual_loop = strict_loop();
    let first = virtual_loop.local(|_| Cell::new(1));
    first.set(2);
    assert_eq!(virtual_loop.local(|_| Cell::new(1)).get(), 2);
    // It may hold the loop without keeping it alive.
    let local = virtual_loop.local(|handle| (handle.clone(), drops.token()));
    drop(local);
    assert_eq!(drops.count(), 0);
    virtual_loop.close().unwrap();
    assert_eq!(drops.count(), 1);
}
