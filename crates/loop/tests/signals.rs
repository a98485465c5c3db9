//! Signals as callbacks, streams and futures. Each test is in a process of its own.
#![cfg(all(target_os = "linux", feature = "signal", not(miri)))]

mod os;

use std::cell::Cell;
use std::ffi::c_int;
use std::io::ErrorKind;
use std::panic::Location;
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;
use std::{mem, ptr, thread};

use futures_lite::StreamExt;
use os::{Counter, Drops, Log, OnDrop, alone, open_descriptors, reporting, threads, turn};
use tulipa_loop::signal::Signal;
use tulipa_loop::{EventLoop, Instrument, LoopHandle, Origin};

/// Sends a signal to this thread: its handler has run when this returns.
fn raise(signal: Signal) {
    // SAFETY: `raise` has no preconditions.
    assert_eq!(unsafe { libc::raise(signal.as_raw()) }, 0);
}

/// Sends a signal to this process, to be handled by any thread.
fn kill(signal: Signal) {
    let signal = rustix::process::Signal::from_named_raw(signal.as_raw()).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
}

/// The flag that the C library sets for itself, and does not set back.
const SA_RESTORER: c_int = 0x0400_0000;

/// What `sigaction` says about a signal: the handler, the flags, the signals that are blocked.
type Disposition = (usize, c_int, Vec<c_int>);

fn disposition(signal: Signal) -> Disposition {
    // SAFETY: all zeros is a valid `sigaction` to fill in, and the pointers are valid.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        assert_eq!(libc::sigaction(signal.as_raw(), ptr::null(), &mut action), 0);
        let blocked = (1..=64).filter(|other| libc::sigismember(&action.sa_mask, *other) == 1);
        (action.sa_sigaction, action.sa_flags & !SA_RESTORER, blocked.collect())
    }
}

/// How often the program's own handler has run.
static OWN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn own_handler(_: c_int) {
    OWN.fetch_add(1, SeqCst);
}

/// What a program or a library did before the loop came.
fn install(signal: Signal, handler: usize, flags: c_int) {
    // SAFETY: all zeros is a valid `sigaction`; the handler only adds to an atomic.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaddset(&mut action.sa_mask, libc::SIGHUP);
        assert_eq!(libc::sigaction(signal.as_raw(), &action, ptr::null_mut()), 0);
    }
}

fn install_own(signal: Signal) {
    install(signal, own_handler as extern "C" fn(c_int) as usize, libc::SA_NODEFER);
}

#[test]
fn a_handler_runs_on_the_loop_as_a_callback_and_may_do_anything() {
    alone("a_handler_runs_on_the_loop_as_a_callback_and_may_do_anything", || {
        let event_loop = EventLoop::new().unwrap();
        let log = Log::default();
        let inside = log.clone();
        let handler = move |handle: &LoopHandle| {
            assert!(LoopHandle::try_current().is_some() && handle.is_running());
            inside.add("handler");
            let after = inside.clone();
            handle.call_soon(move |_| after.add("callback"));
            handle.stop();
        };
        event_loop.add_signal_handler(Signal::USER1, handler).unwrap();
        raise(Signal::USER1);
        assert!(log.take().is_empty(), "not inside of the signal");
        event_loop.run_forever().unwrap();
        turn(&event_loop);
        assert_eq!(log.take(), ["handler", "callback"]);
        turn(&event_loop);
        assert!(log.take().is_empty());
    });
}

#[test]
fn a_second_handler_replaces_the_first_and_removal_says_whether_there_was_one() {
    alone("a_second_handler_replaces_the_first_and_removal_says_whether_there_was_one", || {
        let event_loop = EventLoop::new().unwrap();
        let (log, drops) = (Log::default(), Drops::default());
        let (guard, first) = (drops.guard(), log.clone());
        let handler = move |_: &LoopHandle| {
            os::keep(&guard);
            first.add("first");
        };
        assert!(!event_loop.remove_signal_handler(Signal::USER1));
        event_loop.add_signal_handler(Signal::USER1, handler).unwrap();
        assert!(!event_loop.remove_signal_handler(Signal::USER2));
        event_loop.add_signal_handler(Signal::USER1, log.callback("second")).unwrap();
        assert_eq!(drops.count(), 1);
        raise(Signal::USER1);
        turn(&event_loop);
        assert_eq!(log.take(), ["second"]);
        assert!(event_loop.remove_signal_handler(Signal::USER1));
        assert!(!event_loop.remove_signal_handler(Signal::USER1));
    });
}

#[test]
fn b127_removing_a_handler_restores_the_disposition_exactly() {
    alone("b127_removing_a_handler_restores_the_disposition_exactly", || {
        install(Signal::HANGUP, libc::SIG_IGN, 0);
        install_own(Signal::USER2);
        let event_loop = EventLoop::new().unwrap();
        for signal in [Signal::USER1, Signal::HANGUP, Signal::USER2, Signal::CHILD] {
            let before = disposition(signal);
            event_loop.add_signal_handler(signal, |_| ()).unwrap();
            let ours = disposition(signal);
            assert_ne!(ours.0, before.0);
            assert_ne!(ours.1 & libc::SA_RESTART, 0, "system calls go on");
            event_loop.add_signal_handler(signal, |_| ()).unwrap();
            let stream = event_loop.signals(&[signal]).unwrap();
            assert!(event_loop.remove_signal_handler(signal));
            assert_eq!(disposition(signal), ours, "the stream still listens");
            drop(stream);
            assert_eq!(disposition(signal), before);
        }
        raise(Signal::HANGUP);
        raise(Signal::USER2);
        assert_eq!(OWN.load(SeqCst), 1);
    });
}

#[test]
fn b127_closing_or_dropping_a_loop_restores_the_dispositions() {
    alone("b127_closing_or_dropping_a_loop_restores_the_dispositions", || {
        install_own(Signal::USER2);
        let all = [Signal::USER1, Signal::USER2, Signal::TERMINATE];
        let before = all.map(disposition);
        for close in [true, false] {
            let event_loop = EventLoop::new().unwrap();
            let drops = Drops::default();
            for signal in all {
                let guard = drops.guard();
                event_loop.add_signal_handler(signal, move |_| os::keep(&guard)).unwrap();
            }
            let stream = event_loop.signals(&all).unwrap();
            raise(Signal::TERMINATE);
            if close {
                event_loop.close().unwrap();
                assert!(!event_loop.remove_signal_handler(Signal::USER1));
                let error = event_loop.add_signal_handler(Signal::USER1, |_| ()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotConnected);
            }
            drop(event_loop);
            assert_eq!(all.map(disposition), before);
            assert_eq!(drops.count(), 3);
            drop(stream);
        }
    });
}

/// Runs loops in threads until each has seen the signal.
#[test]
fn b127_a_signal_reaches_every_loop_in_every_thread() {
    alone("b127_a_signal_reaches_every_loop_in_every_thread", || {
        let before = disposition(Signal::USER1);
        let (ready, is_ready) = mpsc::channel();
        let run = || {
            let ready = ready.clone();
            thread::spawn(move || {
                let event_loop = EventLoop::new().unwrap();
                event_loop.add_signal_handler(Signal::USER1, LoopHandle::stop).unwrap();
                ready.send(()).unwrap();
                event_loop.run_forever().unwrap();
                disposition(Signal::USER1)
            })
        };
        let loops = [run(), run(), run()];
        for _ in &loops {
            is_ready.recv_timeout(os::PATIENCE).unwrap();
        }
        kill(Signal::USER1);
        for thread in loops {
            assert_ne!(thread.join().unwrap(), before);
        }
        assert_eq!(disposition(Signal::USER1), before, "after the last one");
    });
}

#[test]
fn signals_that_are_pending_together_come_in_the_order_of_their_numbers() {
    alone("signals_that_are_pending_together_come_in_the_order_of_their_numbers", || {
        let event_loop = EventLoop::new().unwrap();
        let log = Log::default();
        let real_time = Signal::from_raw(64).unwrap();
        let all = [real_time, Signal::TERMINATE, Signal::HANGUP, Signal::USER1, Signal::WINDOW];
        for signal in all {
            let handler = log.callback(&signal.as_raw().to_string());
            event_loop.add_signal_handler(signal, handler).unwrap();
        }
        for signal in all {
            raise(signal);
            raise(signal);
        }
        turn(&event_loop);
        assert_eq!(log.take(), ["1", "10", "15", "28", "64"]);
    });
}

#[test]
fn b126_a_storm_of_one_signal_hides_no_other() {
    alone("b126_a_storm_of_one_signal_hides_no_other", || {
        // One that is still on its way to another thread when the loop goes must not end the test.
        install(Signal::USER1, libc::SIG_IGN, 0);
        let event_loop = EventLoop::new().unwrap();
        let users = Counter::default();
        event_loop.add_signal_handler(Signal::USER1, users.callback()).unwrap();
        event_loop.add_signal_handler(Signal::TERMINATE, LoopHandle::stop).unwrap();
        let storm = thread::spawn(|| {
            for number in 0..100_000 {
                if number == 50_000 {
                    kill(Signal::TERMINATE);
                }
                kill(Signal::USER1);
            }
        });
        event_loop.run_forever().unwrap();
        storm.join().unwrap();
        turn(&event_loop);
        assert!((1..=100_000).contains(&users.get()), "{}", users.get());
    });
}

#[test]
fn b126_a_signal_that_comes_while_a_handler_is_added_goes_to_the_old_handler_or_the_new_one() {
    let test =
        "b126_a_signal_that_comes_while_a_handler_is_added_goes_to_the_old_handler_or_the_new_one";
    alone(test, || {
        install_own(Signal::USER1);
        let event_loop = EventLoop::new().unwrap();
        let (go, on_go) = mpsc::channel();
        let (sent, on_sent) = mpsc::channel();
        let sender = thread::spawn(move || {
            while on_go.recv().is_ok() {
                raise(Signal::USER1);
                sent.send(()).unwrap();
            }
        });
        let seen = Counter::default();
        for round in 1..=5_000 {
            go.send(()).unwrap();
            event_loop.add_signal_handler(Signal::USER1, seen.callback()).unwrap();
            on_sent.recv_timeout(os::PATIENCE).unwrap();
            turn(&event_loop);
            assert_eq!(seen.get() + OWN.load(SeqCst), round, "a signal vanished");
            event_loop.remove_signal_handler(Signal::USER1);
        }
        drop(go);
        sender.join().unwrap();
    });
}

#[test]
fn a_stream_gives_the_signals_that_came_and_ends_with_the_loop() {
    alone("a_stream_gives_the_signals_that_came_and_ends_with_the_loop", || {
        let event_loop = EventLoop::new().unwrap();
        let mut both = event_loop.signals(&[Signal::USER1, Signal::USER2]).unwrap();
        let mut one = event_loop.signals(&[Signal::USER2]).unwrap();
        event_loop.call_soon(|_| [Signal::USER2, Signal::USER1].into_iter().for_each(raise));
        let three = event_loop
            .run_until_complete(async { (both.next().await, both.next().await, one.next().await) });
        let expected = (Some(Signal::USER1), Some(Signal::USER2), Some(Signal::USER2));
        assert_eq!(three.unwrap(), expected);
        raise(Signal::USER1);
        turn(&event_loop);
        event_loop.close().unwrap();
        let rest = futures_lite::future::block_on(async { (both.next().await, both.next().await) });
        assert_eq!(rest, (Some(Signal::USER1), None), "what came is not lost");
        let error = event_loop.signals(&[Signal::USER1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn b59_ctrl_c_is_taken_from_the_call_until_the_future_is_dropped() {
    alone("b59_ctrl_c_is_taken_from_the_call_until_the_future_is_dropped", || {
        let event_loop = EventLoop::new().unwrap();
        let before = disposition(Signal::INTERRUPT);
        let (first, second) = (event_loop.ctrl_c().unwrap(), event_loop.ctrl_c().unwrap());
        raise(Signal::INTERRUPT);
        event_loop.run_until_complete(first).unwrap().unwrap();
        assert_ne!(disposition(Signal::INTERRUPT), before);
        event_loop.run_until_complete(second).unwrap().unwrap();
        assert_eq!(disposition(Signal::INTERRUPT), before, "the second one ends the program");
        let third = event_loop.ctrl_c().unwrap();
        event_loop.close().unwrap();
        let error = futures_lite::future::block_on(third).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn a_signal_that_cannot_be_handled_is_invalid_input() {
    alone("a_signal_that_cannot_be_handled_is_invalid_input", || {
        let event_loop = EventLoop::new().unwrap();
        let libc_own = 33;
        for number in [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGFPE, libc_own] {
            let signal = Signal::from_raw(number).unwrap();
            let error = event_loop.add_signal_handler(signal, |_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{number}: {error}");
            let before = disposition(Signal::USER1);
            let error = event_loop.signals(&[Signal::USER1, signal]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{number}: {error}");
            assert_eq!(disposition(Signal::USER1), before, "nothing is left behind");
        }
        assert!([0, -1, 65, c_int::MAX].into_iter().all(|n| Signal::from_raw(n).is_none()));
    });
}

#[test]
fn p12_a_child_process_starts_with_the_default_dispositions_and_an_empty_mask() {
    alone("p12_a_child_process_starts_with_the_default_dispositions_and_an_empty_mask", || {
        let event_loop = EventLoop::new().unwrap();
        let all = [Signal::USER1, Signal::TERMINATE, Signal::CHILD, Signal::WINDOW];
        for signal in all {
            event_loop.add_signal_handler(signal, |_| ()).unwrap();
        }
        let output = Command::new("cat").arg("/proc/self/status").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert_eq!((field("SigBlk:"), field("SigCgt:")), (0, 0), "{text}");
        let pipe = Signal::from_raw(libc::SIGPIPE).unwrap();
        for signal in all.into_iter().chain([pipe]) {
            assert_eq!(field("SigIgn:") & (1 << (signal.as_raw() - 1)), 0, "{text}");
        }
    });
}

/// Tells another thread that the loop is about to wait.
struct BeforeSelect(mpsc::Sender<()>);

impl Instrument for BeforeSelect {
    fn before_select(&self, _timeout: Option<Duration>) {
        let _ = self.0.send(());
    }

    fn before_callback(&self, origin: Origin, location: Option<&'static Location<'static>>) {
        let _ = location;
        assert_eq!(origin, Origin::Signal);
    }
}

#[test]
fn a_signal_ends_the_wait_of_a_loop_whichever_thread_gets_it() {
    alone("a_signal_ends_the_wait_of_a_loop_whichever_thread_gets_it", || {
        let (begun, on_begun) = mpsc::channel();
        let instrument = BeforeSelect(begun);
        let event_loop = EventLoop::builder().instrument(Rc::new(instrument)).build().unwrap();
        event_loop.add_signal_handler(Signal::USER1, LoopHandle::stop).unwrap();
        let sender = thread::spawn(move || {
            let mut kinds = [kill, raise].into_iter().cycle();
            // One for each wait; the loop ends before its handler is removed.
            while on_begun.recv_timeout(os::PATIENCE).is_ok() {
                kinds.next().unwrap()(Signal::USER1);
            }
        });
        for _ in 0..200 {
            event_loop.run_forever().unwrap();
        }
        event_loop.set_instrument(None);
        sender.join().unwrap();
    });
}

#[test]
fn a_loop_needs_no_thread_to_listen() {
    alone("a_loop_needs_no_thread_to_listen", || {
        let before = threads();
        let event_loop = EventLoop::new().unwrap();
        event_loop.add_signal_handler(Signal::USER1, LoopHandle::stop).unwrap();
        raise(Signal::USER1);
        event_loop.run_forever().unwrap();
        assert_eq!(threads(), before);
    });
}

#[test]
fn the_sixty_fifth_loop_is_told_so_and_leaves_nothing_behind() {
    alone("the_sixty_fifth_loop_is_told_so_and_leaves_nothing_behind", || {
        let loops: Vec<_> = (0..65).map(|_| EventLoop::new().unwrap()).collect();
        for event_loop in &loops[..64] {
            event_loop.add_signal_handler(Signal::USER1, LoopHandle::stop).unwrap();
        }
        let before = (open_descriptors(), disposition(Signal::USER2));
        for _ in 0..3 {
            let error = loops[64].add_signal_handler(Signal::USER2, |_| ()).unwrap_err();
            assert!(error.to_string().contains("64 event loops"), "{error}");
            assert_eq!(loops[64].statistics().sources, 0);
        }
        assert!(!loops[64].remove_signal_handler(Signal::USER2));
        assert_eq!((open_descriptors(), disposition(Signal::USER2)), before);
        raise(Signal::USER1);
        for event_loop in &loops[..64] {
            event_loop.run_forever().unwrap();
        }
        loops[0].close().unwrap();
        loops[64].add_signal_handler(Signal::USER1, LoopHandle::stop).unwrap();
        raise(Signal::USER1);
        loops[64].run_forever().unwrap();
        drop(loops);
        let bells = open_descriptors().len();
        for _ in 0..100 {
            let event_loop = EventLoop::new().unwrap();
            event_loop.add_signal_handler(Signal::USER1, |_| ()).unwrap();
        }
        assert_eq!(open_descriptors().len(), bells, "places are used again");
    });
}

#[test]
fn a_panic_in_a_handler_is_reported_and_the_handler_stays() {
    alone("a_panic_in_a_handler_is_reported_and_the_handler_stays", || {
        let (event_loop, reports) = reporting();
        event_loop.add_signal_handler(Signal::USER1, |_| panic!("ouch")).unwrap();
        for _ in 0..2 {
            raise(Signal::USER1);
            turn(&event_loop);
            let reports = reports.take();
            assert_eq!(reports.len(), 1);
            assert!(reports[0].contains("panic in a signal handler: ouch (created at"));
        }
    });
}

#[test]
fn a_signal_that_came_before_its_handler_was_removed_is_not_delivered() {
    alone("a_signal_that_came_before_its_handler_was_removed_is_not_delivered", || {
        let event_loop = EventLoop::new().unwrap();
        let (one, two) = (Counter::default(), Counter::default());
        event_loop.add_signal_handler(Signal::USER1, one.callback()).unwrap();
        let remove = |handle: &LoopHandle| assert!(handle.remove_signal_handler(Signal::USER1));
        event_loop.add_signal_handler(Signal::HANGUP, remove).unwrap();
        raise(Signal::USER1);
        raise(Signal::HANGUP);
        turn(&event_loop);
        turn(&event_loop);
        assert_eq!(one.get(), 0);
        event_loop.add_signal_handler(Signal::USER1, two.callback()).unwrap();
        turn(&event_loop);
        assert_eq!(two.get(), 0);
    });
}

#[test]
fn a_handler_may_remove_or_replace_itself_and_its_destructor_may_call_back() {
    alone("a_handler_may_remove_or_replace_itself_and_its_destructor_may_call_back", || {
        let (event_loop, reports) = reporting();
        let before = disposition(Signal::USER1);
        let log = Log::default();
        let (second, handle) = (log.clone(), event_loop.handle());
        let dropped = OnDrop(move || {
            let _ = handle.add_signal_handler(Signal::USER2, |_| ());
            handle.remove_signal_handler(Signal::USER2);
            drop(handle.signals(&[Signal::USER2]));
        });
        let first = move |handle: &LoopHandle| {
            os::keep(&dropped);
            second.add("first");
            let third = second.clone();
            let remove = move |handle: &LoopHandle| {
                third.add("second");
                assert!(handle.remove_signal_handler(Signal::USER1));
            };
            handle.add_signal_handler(Signal::USER1, remove).unwrap();
        };
        event_loop.add_signal_handler(Signal::USER1, first).unwrap();
        for _ in 0..2 {
            raise(Signal::USER1);
            turn(&event_loop);
        }
        assert_eq!(log.take(), ["first", "second"]);
        assert_eq!(disposition(Signal::USER1), before);
        let handle = event_loop.handle();
        let closing = Rc::new(Cell::new(false));
        let said = closing.clone();
        let meddle = OnDrop(move || {
            said.set(handle.add_signal_handler(Signal::USER1, |_| ()).is_err());
            handle.remove_signal_handler(Signal::USER1);
        });
        event_loop.add_signal_handler(Signal::USER1, move |_| os::keep(&meddle)).unwrap();
        drop(event_loop);
        assert!(closing.get() && reports.take().is_empty());
        assert_eq!(disposition(Signal::USER1), before);
    });
}

#[test]
fn a_delivered_signal_is_told_as_if_it_had_come() {
    alone("a_delivered_signal_is_told_as_if_it_had_come", || {
        let event_loop = EventLoop::new().unwrap();
        assert!(!event_loop.deliver_signal(Signal::USER1), "nobody listens");
        let count = Counter::default();
        event_loop.add_signal_handler(Signal::USER1, count.callback()).unwrap();
        let mut stream = event_loop.signals(&[Signal::USER1]).unwrap();
        assert!(event_loop.deliver_signal(Signal::USER1));
        assert!(!event_loop.deliver_signal(Signal::USER2));
        let signal = event_loop.run_until_complete(stream.next()).unwrap();
        assert_eq!((signal, count.get()), (Some(Signal::USER1), 1));
    });
}

#[test]
fn a_loop_in_virtual_time_hears_of_delivered_signals_and_no_others() {
    alone("a_loop_in_virtual_time_hears_of_delivered_signals_and_no_others", || {
        let before = disposition(Signal::USER1);
        let virtual_loop = tulipa_testing::VirtualLoop::new();
        let count = Counter::default();
        virtual_loop.add_signal_handler(Signal::USER1, count.callback()).unwrap();
        assert_eq!(disposition(Signal::USER1), before, "the process's signals are left alone");
        let mut stream = virtual_loop.signals(&[Signal::TERMINATE]).unwrap();
        virtual_loop.deliver_signal(Signal::USER1);
        virtual_loop.deliver_signal(Signal::TERMINATE);
        let signal = virtual_loop.run_until_complete(stream.next()).unwrap();
        assert_eq!((signal, count.get()), (Some(Signal::TERMINATE), 1));
        assert!(virtual_loop.remove_signal_handler(Signal::USER1));
        assert!(!virtual_loop.deliver_signal(Signal::USER1));
        virtual_loop.close().unwrap();
        assert_eq!(futures_lite::future::block_on(stream.next()), None);
    });
}
