//! `add_reader` and `add_writer`: callbacks for descriptors.
#![cfg(all(target_os = "linux", not(miri)))]

mod os;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use os::{
    Counter, Drops, Log, OnDrop, alone, drain, open_descriptors, pair, reporting, send, turn,
};
use tulipa_loop::{AsyncFd, EventLoop, LoopHandle};
use tulipa_selector::VirtualId;

#[test]
fn a_reader_runs_at_each_turn_while_there_is_something_to_read() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let calls = Counter::default();
    event_loop.add_reader(ours.clone(), calls.callback()).unwrap();
    turn(&event_loop);
    assert_eq!(calls.get(), 0);
    send(&theirs);
    for _ in 0..3 {
        turn(&event_loop);
    }
    assert_eq!(calls.get(), 3);
    drain(&ours);
    turn(&event_loop);
    assert_eq!(calls.get(), 3);
}

#[test]
fn a_writer_runs_at_each_turn_while_there_is_room() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let calls = Counter::default();
    event_loop.add_writer(ours.clone(), calls.callback()).unwrap();
    turn(&event_loop);
    turn(&event_loop);
    assert_eq!(calls.get(), 2);
    while std::io::Write::write(&mut &*ours, &[0; 65_536]).is_ok() {}
    turn(&event_loop);
    assert_eq!(calls.get(), 2, "the socket is full");
    drain(&theirs);
    turn(&event_loop);
    assert_eq!(calls.get(), 3);
}

#[test]
fn a_reader_and_a_writer_of_one_descriptor_are_independent() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let log = Log::default();
    event_loop.add_writer(ours.clone(), log.callback("writer")).unwrap();
    event_loop.add_reader(ours.clone(), log.callback("reader")).unwrap();
    send(&theirs);
    turn(&event_loop);
    assert_eq!(log.take(), ["reader", "writer"]);
    assert!(event_loop.remove_writer(&*ours));
    assert!(!event_loop.remove_writer(&*ours));
    turn(&event_loop);
    assert_eq!(log.take(), ["reader"]);
    event_loop.add_writer(ours.clone(), log.callback("writer")).unwrap();
    assert!(event_loop.remove_reader(&*ours));
    assert!(!event_loop.remove_reader(&*ours));
    turn(&event_loop);
    assert_eq!(log.take(), ["writer"]);
    assert!(event_loop.remove_writer(&*ours));
    turn(&event_loop);
    assert!(log.take().is_empty());
    assert_eq!(event_loop.statistics().sources, 0);
}

#[test]
fn a_second_reader_replaces_the_first_and_frees_it_at_once() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let (log, drops) = (Log::default(), Drops::default());
    let (guard, first) = (drops.guard(), log.clone());
    let reader = move |_: &LoopHandle| {
        os::keep(&guard);
        first.add("first");
    };
    event_loop.add_reader(ours.clone(), reader).unwrap();
    send(&theirs);
    event_loop.add_reader(ours.clone(), log.callback("second")).unwrap();
    assert_eq!(drops.count(), 1);
    turn(&event_loop);
    assert_eq!(log.take(), ["second"]);
    assert_eq!(event_loop.statistics().sources, 1);
}

#[test]
fn a_reader_that_is_removed_is_freed_at_once() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, _theirs) = pair();
    let drops = Drops::default();
    let guard = drops.guard();
    event_loop.add_reader(ours.clone(), move |_| os::keep(&guard)).unwrap();
    assert!(event_loop.remove_reader(&*ours));
    assert_eq!(drops.count(), 1);
    assert!(!event_loop.remove_reader(&*ours));
}

/// asyncio's `_run_once` calls it, and documents that it does not.
#[test]
fn a_reader_removed_in_the_batch_that_found_it_ready_does_not_run() {
    let event_loop = EventLoop::new().unwrap();
    let log = Log::default();
    let wires: Vec<_> = (0..8).map(|_| pair()).collect();
    for (index, (ours, theirs)) in wires.iter().enumerate() {
        let others: Vec<_> = wires.iter().map(|(ours, _)| ours.clone()).collect();
        let log = log.clone();
        let remove_the_others = move |handle: &LoopHandle| {
            log.add(index);
            for (_, other) in others.iter().enumerate().filter(|(other, _)| *other != index) {
                handle.remove_reader(&**other);
            }
        };
        event_loop.add_reader(ours.clone(), remove_the_others).unwrap();
        send(theirs);
    }
    turn(&event_loop);
    assert_eq!(log.take().len(), 1);
    turn(&event_loop);
    assert_eq!(log.take().len(), 1, "the one that is left");
}

#[test]
fn a_writer_removed_by_the_reader_of_the_same_event_does_not_run() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let log = Log::default();
    event_loop.add_writer(ours.clone(), log.callback("writer")).unwrap();
    let own = ours.clone();
    event_loop.add_reader(ours, move |handle| assert!(handle.remove_writer(&*own))).unwrap();
    send(&theirs);
    turn(&event_loop);
    assert!(log.take().is_empty());
}

#[test]
fn a_reader_may_remove_itself() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let (calls, drops, own) = (Counter::default(), Drops::default(), ours.clone());
    let (mut count, guard) = (calls.callback(), drops.guard());
    let reader = move |handle: &LoopHandle| {
        os::keep(&guard);
        count(handle);
        assert!(handle.remove_reader(&*own));
        assert!(!handle.remove_reader(&*own));
    };
    event_loop.add_reader(ours.clone(), reader).unwrap();
    send(&theirs);
    turn(&event_loop);
    turn(&event_loop);
    assert_eq!((calls.get(), drops.count()), (1, 1));
    assert_eq!((event_loop.statistics().sources, Rc::strong_count(&ours)), (0, 1));
}

#[test]
fn a_reader_may_replace_itself_and_the_new_one_waits_for_the_next_turn() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let (log, own) = (Log::default(), ours.clone());
    let second = log.clone();
    let first = move |handle: &LoopHandle| {
        second.add("first");
        handle.add_reader(own.clone(), second.callback("second")).unwrap();
    };
    event_loop.add_reader(ours, first).unwrap();
    send(&theirs);
    turn(&event_loop);
    assert_eq!(log.take(), ["first"]);
    turn(&event_loop);
    assert_eq!(log.take(), ["second"]);
}

#[test]
fn a_reader_may_remove_itself_and_add_itself_again() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let (log, own) = (Log::default(), ours.clone());
    let again = log.clone();
    let reader = move |handle: &LoopHandle| {
        assert!(handle.remove_reader(&*own));
        handle.add_writer(own.clone(), again.callback("writer")).unwrap();
        handle.add_reader(own.clone(), again.callback("reader")).unwrap();
    };
    event_loop.add_reader(ours, reader).unwrap();
    send(&theirs);
    turn(&event_loop);
    assert!(log.take().is_empty(), "the event was for those who were there");
    turn(&event_loop);
    assert_eq!(log.take(), ["reader", "writer"]);
}

#[test]
fn a_regular_file_and_the_null_device_are_always_ready() {
    let event_loop = EventLoop::new().unwrap();
    for path in [std::env::current_exe().unwrap(), "/dev/null".into()] {
        let file = Rc::new(File::open(path).unwrap());
        let calls = Counter::default();
        event_loop.add_reader(file.clone(), calls.callback()).unwrap();
        for _ in 0..3 {
            // It would wait for ever if the file were not ready.
            event_loop.run_once(os::PATIENCE).unwrap();
        }
        assert_eq!(calls.get(), 3);
        // A foreign main loop that sleeps until then must not sleep at all.
        assert!(event_loop.next_deadline().is_some());
        assert!(event_loop.remove_reader(&*file));
        assert_eq!(event_loop.next_deadline(), None);
        turn(&event_loop);
        assert_eq!(calls.get(), 3);
    }
}

#[test]
fn the_reader_hears_that_the_peer_is_gone() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let calls = Counter::default();
    event_loop.add_reader(ours.clone(), calls.callback()).unwrap();
    drop(theirs);
    // Not at once: a child that another test is just starting has it open until it executes.
    event_loop.run_once(os::PATIENCE).unwrap();
    turn(&event_loop);
    assert_eq!((calls.get(), drain(&ours)), (2, 0));
}

#[test]
fn the_writer_of_a_pipe_hears_that_the_reader_is_gone() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = rustix::pipe::pipe().unwrap();
    let calls = Counter::default();
    event_loop.add_writer(Rc::new(theirs), calls.callback()).unwrap();
    drop(ours);
    event_loop.run_once(os::PATIENCE).unwrap();
    assert_eq!(calls.get(), 1);
}

#[test]
fn what_has_no_descriptor_is_unsupported() {
    let event_loop = EventLoop::new().unwrap();
    let error = event_loop.add_reader(VirtualId(1), |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(event_loop.statistics().sources, 0);
}

#[test]
fn a_closed_loop_takes_no_readers_and_has_none() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, _theirs) = pair();
    event_loop.add_reader(ours.clone(), |_| ()).unwrap();
    event_loop.close().unwrap();
    let drops = Drops::default();
    let guard = drops.guard();
    let error = event_loop.add_reader(ours.clone(), move |_| os::keep(&guard)).unwrap_err();
    assert_eq!((error.kind(), drops.count()), (ErrorKind::NotConnected, 1));
    let error = event_loop.add_writer(ours.clone(), |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert!(!event_loop.remove_reader(&*ours) && !event_loop.remove_writer(&*ours));
    assert_eq!(Rc::strong_count(&ours), 1);
}

#[test]
fn a_descriptor_that_something_else_uses_is_refused() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let fd = AsyncFd::new(&event_loop, theirs).unwrap();
    let duplicate = BorrowedAgain(fd.as_fd().as_raw_fd(), ours.clone());
    let error = event_loop.add_reader(Rc::new(duplicate), |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(event_loop.statistics().sources, 1);
    event_loop.add_reader(ours.clone(), |_| ()).unwrap();
    let error = AsyncFd::new(&event_loop, BorrowedAgain(ours.as_raw_fd(), ours)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(event_loop.statistics().sources, 2);
}

/// The number of a descriptor that somebody keeps open.
#[derive(Debug)]
struct BorrowedAgain(i32, #[allow(dead_code, reason = "keeps it open")] Rc<UnixStream>);

impl AsFd for BorrowedAgain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the tests keep the descriptor of this number open.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

#[test]
fn a_descriptor_is_open_while_it_has_a_callback_and_closed_once_after() {
    alone("a_descriptor_is_open_while_it_has_a_callback_and_closed_once_after", || {
        let event_loop = EventLoop::new().unwrap();
        let (ours, theirs) = pair();
        let number = ours.as_raw_fd();
        let is_open = || open_descriptors().contains_key(&number);
        event_loop.add_reader(ours.clone(), |_| ()).unwrap();
        event_loop.add_writer(ours.clone(), |_| ()).unwrap();
        let weak = Rc::downgrade(&ours);
        drop(ours);
        turn(&event_loop);
        let ours = weak.upgrade().expect("the loop owns it");
        assert!(event_loop.remove_reader(&*ours));
        drop(ours);
        assert!(is_open(), "the writer is left");
        let ours = weak.upgrade().expect("the loop owns it");
        assert!(event_loop.remove_writer(&*ours));
        drop(ours);
        assert!(!is_open() && weak.upgrade().is_none());
        // Its number belongs to somebody else now, who must not be closed.
        let new = File::open("/dev/null").unwrap();
        assert_eq!(new.as_raw_fd(), number);
        drop(event_loop);
        assert!(is_open());
        drop((new, theirs));
    });
}

#[test]
fn closing_the_loop_lets_go_of_the_descriptors() {
    let event_loop = EventLoop::new().unwrap();
    let wires: Vec<_> = (0..10).map(|_| pair()).collect();
    let drops = Drops::default();
    for (ours, _) in &wires {
        let (reader, writer) = (drops.guard(), drops.guard());
        event_loop.add_reader(ours.clone(), move |_| os::keep(&reader)).unwrap();
        event_loop.add_writer(ours.clone(), move |_| os::keep(&writer)).unwrap();
    }
    event_loop.close().unwrap();
    assert_eq!(drops.count(), 20);
    assert!(wires.iter().all(|(ours, _)| Rc::strong_count(ours) == 1));
}

#[test]
fn p10_readers_leave_no_descriptor_behind() {
    alone("p10_readers_leave_no_descriptor_behind", || {
        let before = open_descriptors();
        for close in [true, false] {
            let event_loop = EventLoop::new().unwrap();
            let wires: Vec<_> = (0..20).map(|_| pair()).collect();
            for (ours, theirs) in &wires {
                event_loop.add_reader(ours.clone(), |_| ()).unwrap();
                event_loop.add_writer(ours.clone(), |_| ()).unwrap();
                send(theirs);
            }
            drop(wires);
            turn(&event_loop);
            if close {
                event_loop.close().unwrap();
            }
            drop(event_loop);
            assert_eq!(open_descriptors(), before);
        }
    });
}

#[test]
fn b03_a_descriptor_closed_and_opened_again_in_one_turn_is_a_new_one() {
    let event_loop = EventLoop::new().unwrap();
    let calls = Counter::default();
    let stale = Counter::default();
    let mut reused = 0;
    let mut last = -1;
    for _ in 0..1_000 {
        let (ours, theirs) = pair();
        send(&theirs);
        event_loop.add_reader(ours.clone(), stale.callback()).unwrap();
        assert!(event_loop.remove_reader(&*ours));
        drop((ours, theirs));
        let (ours, theirs) = pair();
        reused += usize::from(ours.as_raw_fd() == last);
        last = ours.as_raw_fd();
        event_loop.add_reader(ours.clone(), calls.callback()).expect("not registered already");
        send(&theirs);
        turn(&event_loop);
        assert!(event_loop.remove_reader(&*ours));
    }
    assert_eq!((calls.get(), stale.get()), (1_000, 0));
    assert!(reused > 900, "the test did not test reuse: {reused}");
}

#[test]
fn b03_a_number_reused_inside_a_batch_gets_no_event_of_its_predecessor() {
    let event_loop = EventLoop::new().unwrap();
    let wires: Rc<RefCell<Vec<_>>> = Rc::default();
    let fresh = Counter::default();
    for _ in 0..2 {
        let (ours, theirs) = pair();
        send(&theirs);
        let (shared, fresh) = (wires.clone(), fresh.clone());
        let reopen_the_other = move |handle: &LoopHandle| {
            let old: Vec<(Rc<UnixStream>, UnixStream)> = shared.take();
            for (ours, _) in &old {
                handle.remove_reader(&**ours);
            }
            drop(old);
            for _ in 0..2 {
                let (ours, theirs) = pair();
                handle.add_reader(ours.clone(), fresh.callback()).unwrap();
                shared.borrow_mut().push((ours, theirs));
            }
        };
        event_loop.add_reader(ours.clone(), reopen_the_other).unwrap();
        wires.borrow_mut().push((ours, theirs));
    }
    turn(&event_loop);
    turn(&event_loop);
    assert_eq!((fresh.get(), wires.borrow().len()), (0, 2));
}

#[test]
fn a_panic_in_a_reader_is_reported_and_the_reader_stays() {
    let (event_loop, reports) = reporting();
    let (ours, theirs) = pair();
    event_loop.add_reader(ours.clone(), |_| panic!("ouch")).unwrap();
    event_loop.add_writer(ours, |_| panic!("argh")).unwrap();
    send(&theirs);
    for _ in 0..2 {
        turn(&event_loop);
        let reports = reports.take();
        assert_eq!(reports.len(), 2);
        assert!(reports[0].contains("panic in a reader: ouch (created at"), "{reports:?}");
        assert!(reports[0].contains("readers.rs"), "{reports:?}");
        assert!(reports[1].contains("panic in a writer: argh"), "{reports:?}");
    }
}

#[test]
fn a_reader_that_removes_itself_and_panics_is_reported_and_gone() {
    let (event_loop, reports) = reporting();
    let (ours, theirs) = pair();
    let own = ours.clone();
    let reader = move |handle: &LoopHandle| {
        handle.remove_reader(&*own);
        panic!("ouch");
    };
    event_loop.add_reader(ours.clone(), reader).unwrap();
    send(&theirs);
    turn(&event_loop);
    turn(&event_loop);
    assert_eq!((reports.take().len(), Rc::strong_count(&ours)), (1, 1));
}

/// Calls everything that concerns a descriptor, from a destructor.
fn meddler(handle: LoopHandle, fd: Rc<UnixStream>, calls: Drops) -> impl FnMut(&LoopHandle) {
    let meddle = OnDrop(move || {
        drop(calls.guard());
        handle.remove_writer(&*fd);
        let added = handle.add_reader(fd.clone(), |_| ());
        assert_eq!(added.is_err(), handle.is_closed());
        handle.remove_reader(&*fd);
        handle.call_soon(|_| ());
        let _ = format!("{handle:?} {:?}", handle.statistics());
        handle.stop();
    });
    move |_| os::keep(&meddle)
}

#[test]
fn the_destructor_of_a_callback_may_call_back() {
    let (event_loop, reports) = reporting();
    let (ours, theirs) = pair();
    let calls = Drops::default();
    let add = |event_loop: &EventLoop| {
        let reader = meddler(event_loop.handle(), ours.clone(), calls.clone());
        event_loop.add_reader(ours.clone(), reader).unwrap();
        let writer = meddler(event_loop.handle(), ours.clone(), calls.clone());
        event_loop.add_writer(ours.clone(), writer).unwrap();
    };
    add(&event_loop);
    event_loop.remove_reader(&*ours);
    event_loop.remove_writer(&*ours);
    assert_eq!(calls.count(), 2);
    add(&event_loop);
    event_loop.add_reader(ours.clone(), |_| ()).unwrap();
    add(&event_loop);
    send(&theirs);
    turn(&event_loop);
    let handle = event_loop.handle();
    drop(event_loop);
    assert_eq!(calls.count(), 6);
    assert!(handle.is_closed() && reports.take().is_empty());
    drop(handle);
    assert_eq!(Rc::strong_count(&ours), 1);
}

/// A descriptor that calls the loop when it is asked for its number, and when it is dropped.
struct Talking {
    fd: UnixStream,
    handle: LoopHandle,
    other: Rc<UnixStream>,
    asked: Rc<Cell<usize>>,
}

impl AsFd for Talking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.asked.set(self.asked.get() + 1);
        self.handle.remove_reader(&*self.other);
        let _ = self.handle.add_reader(self.other.clone(), |_| ());
        self.fd.as_fd()
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        self.handle.remove_reader(&*self.other);
        let _ = self.handle.add_writer(self.other.clone(), |_| ());
    }
}

#[test]
fn a_source_may_call_the_loop_from_as_fd_and_from_its_destructor() {
    let event_loop = EventLoop::new().unwrap();
    let (other, _theirs) = pair();
    let asked = Rc::new(Cell::new(0));
    for remove in [true, false] {
        let (fd, _peer) = UnixStream::pair().unwrap();
        let (handle, other, asked) = (event_loop.handle(), other.clone(), asked.clone());
        let source = Rc::new(Talking { fd, handle, other, asked });
        event_loop.add_reader(source.clone(), |_| ()).unwrap();
        event_loop.add_writer(source.clone(), |_| ()).unwrap();
        turn(&event_loop);
        if remove {
            assert!(event_loop.remove_reader(&*source) && event_loop.remove_writer(&*source));
        }
    }
    assert!(asked.get() > 0);
    event_loop.close().unwrap();
}

#[test]
fn the_destructor_of_a_reader_may_panic() {
    let (event_loop, reports) = reporting();
    let wires: Vec<_> = (0..3).map(|_| pair()).collect();
    for (ours, theirs) in &wires {
        let own = ours.clone();
        let armed = OnDrop(|| panic!("in a destructor"));
        let reader = move |handle: &LoopHandle| {
            os::keep(&armed);
            handle.remove_reader(&*own);
        };
        event_loop.add_reader(ours.clone(), reader).unwrap();
        send(theirs);
    }
    event_loop.remove_reader(&*pair().0);
    turn(&event_loop);
    assert_eq!(reports.take().len(), 3, "each is reported");
    assert_eq!(event_loop.statistics().sources, 0);
    drop(event_loop);
    assert!(wires.iter().all(|(ours, _)| Rc::strong_count(ours) == 1));
}
