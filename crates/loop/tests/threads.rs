//! Other threads: `Remote`, wakers, several loops, and who may go where.
#![cfg(not(miri))]

use std::cell::RefCell;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tulipa_loop::{
    AsyncFd, Builder, Cancelled, ErrorContext, EventLoop, ExecutorJob, Handle, Instrument, Job,
    JobError, JobHandle, LoopClosed, LoopFuture, LoopHandle, Map, Promise, Ready, Remote,
    RemoteError, RemoteHandle, RunError, SharedFuture, Source, Statistics, Stragglers, ThreadPool,
    ThreadPoolBuilder, TimerHandle, Wires,
};
use tulipa_selector::{Notifier, Timeout};

const PATIENCE: Duration = Duration::from_secs(60);

/// How many calls a stress test makes: the full number in release mode and where `TULIPA_STRESS`
/// asks for it.
fn stress(full: usize) -> usize {
    let is_full = !cfg!(debug_assertions) || std::env::var_os("TULIPA_STRESS").is_some();
    if is_full { full } else { full / 10 }
}

fn turn(event_loop: &EventLoop) {
    event_loop.run_once(Timeout::Immediate).unwrap();
}

/// Says in which thread it is dropped.
struct Tell(mpsc::Sender<ThreadId>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().id());
    }
}

fn keep<T>(_: &T) {}

/// Whether a type is `Send` and `Sync`: an inherent constant, where its bound holds, hides the one
/// of the trait.
struct Probe<T: ?Sized>(PhantomData<T>);

trait Otherwise {
    const SEND: bool = false;
    const SYNC: bool = false;
}

impl<T: ?Sized> Otherwise for Probe<T> {}

impl<T: ?Sized + Send> Probe<T> {
    const SEND: bool = true;
}

mod sync_probe {
    use super::Probe;

    impl<T: ?Sized + Sync> Probe<T> {
        pub(crate) const SYNC: bool = true;
    }
}

macro_rules! assert_auto_traits {
    ($($kind:ident: $($type:ty),* $(,)?;)*) => { $($(
        let expected = match stringify!($kind) {
            "Both" => (true, true),
            "Send" => (true, false),
            "Neither" => (false, false),
            other => panic!("{other}"),
        };
        let found = (<Probe<$type>>::SEND, <Probe<$type>>::SYNC);
        assert_eq!(found, expected, "{} (Send, Sync)", stringify!($type));
    )*)* };
}

#[test]
fn b61_only_what_is_made_for_other_threads_may_go_there() {
    assert_auto_traits! {
        Both: Remote, RemoteHandle, Notifier, RemoteError, LoopClosed, RunError, ThreadPool,
            ThreadPoolBuilder, Stragglers, Statistics, Cancelled, JobHandle<u8>, Job,
            JobHandle<std::cell::Cell<u8>>, ExecutorJob<u8>, Waker,
            Map<std::vec::IntoIter<u8>, u8, fn(u8) -> u8>;
        Send: JobError;
        Neither: EventLoop, LoopHandle, Builder, Handle, TimerHandle, Promise<u8>, LoopFuture<u8>,
            SharedFuture<u8>, AsyncFd<std::net::TcpStream>, Ready<'static>, dyn Source,
            dyn Instrument, ErrorContext, Wires, JobHandle<Rc<u8>>;
    }
    #[cfg(unix)]
    assert_auto_traits! { Neither: tulipa_loop::Stdin; }
    #[cfg(all(unix, feature = "signal"))]
    assert_auto_traits! {
        Both: tulipa_loop::signal::Signal;
        Neither: tulipa_loop::signal::SignalStream;
    }
}

#[test]
fn p4_calls_from_many_threads_run_once_each_and_in_the_order_of_their_thread() {
    const THREADS: usize = 4;
    let each = stress(1_000_000) / THREADS;
    let event_loop = EventLoop::new().unwrap();
    let next = Arc::new([const { AtomicUsize::new(0) }; THREADS]);
    let callers: Vec<_> = (0..THREADS)
        .map(|caller| {
            let (remote, next) = (event_loop.remote(), next.clone());
            thread::spawn(move || {
                for number in 0..each {
                    let next = next.clone();
                    let call = move |handle: &LoopHandle| {
                        assert_eq!(next[caller].fetch_add(1, Ordering::Relaxed), number);
                        let run: usize = next.iter().map(|n| n.load(Ordering::Relaxed)).sum();
                        if run == each * THREADS {
                            handle.stop();
                        }
                    };
                    remote.call_soon(call).unwrap();
                }
            })
        })
        .collect();
    event_loop.run_forever().unwrap();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    turn(&event_loop);
    assert!(next.iter().all(|next| next.load(SeqCst) == each));
}

/// A call comes at any moment of the loop's falling asleep: this hangs if one is overlooked.
#[test]
fn b36_no_call_is_overlooked_by_a_loop_that_falls_asleep() {
    let event_loop = EventLoop::new().unwrap();
    let remote = event_loop.remote();
    let (ping, on_ping) = mpsc::channel();
    let other = thread::spawn(move || {
        for turns in on_ping {
            for _ in 0..turns {
                thread::yield_now();
            }
            remote.call_soon(LoopHandle::stop).unwrap();
        }
    });
    for round in 0..stress(50_000) {
        ping.send(round % 5).unwrap();
        event_loop.run_forever().unwrap();
    }
    drop(ping);
    other.join().unwrap();
}

#[test]
fn of_a_cancel_and_the_call_itself_exactly_one_wins() {
    let event_loop = EventLoop::new().unwrap();
    let (remote, rounds) = (event_loop.remote(), stress(100_000));
    let (run, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    struct Count(Arc<AtomicUsize>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let (ran, drops) = (run.clone(), dropped.clone());
    let other = thread::spawn(move || {
        let mut cancelled = 0;
        for round in 0..rounds {
            let (ran, guard) = (ran.clone(), Count(drops.clone()));
            let call = move |_: &LoopHandle| {
                keep(&guard);
                ran.fetch_add(1, SeqCst);
            };
            let handle = remote.call_soon(call).unwrap();
            if round % 3 == 0 {
                thread::yield_now();
            }
            let won = handle.cancel();
            cancelled += usize::from(won);
            assert!(!handle.is_pending() && !handle.cancel());
        }
        remote.stop().unwrap();
        cancelled
    });
    event_loop.run_forever().unwrap();
    let cancelled = other.join().unwrap();
    turn(&event_loop);
    assert_eq!(run.load(SeqCst) + cancelled, rounds);
    assert_eq!(dropped.load(SeqCst), rounds);
}

#[test]
fn a_call_that_is_cancelled_is_dropped_on_the_thread_that_cancels() {
    let event_loop = EventLoop::new().unwrap();
    let remote = event_loop.remote();
    let (tell, told) = mpsc::channel();
    let other = thread::spawn(move || {
        let tell = Tell(tell);
        let handle = remote.call_soon(move |_| keep(&tell)).unwrap();
        assert!(handle.is_pending() && format!("{handle:?}").contains("threads.rs"));
        assert!(handle.cancel());
        thread::current().id()
    });
    let other = other.join().unwrap();
    assert_eq!(told.try_recv().unwrap(), other);
    turn(&event_loop);
    assert!(told.try_recv().is_err());
}

#[test]
fn a_closed_loop_refuses_calls_and_drops_them_on_the_caller_s_thread() {
    let event_loop = EventLoop::new().unwrap();
    let remote = event_loop.remote();
    assert!(!remote.is_closed());
    drop(event_loop);
    assert!(remote.is_closed());
    let (tell, told) = mpsc::channel();
    let other = thread::spawn(move || {
        let tell = Tell(tell);
        let refused = remote.call_soon(move |_| keep(&tell));
        assert!(matches!(refused, Err(RemoteError::LoopClosed)));
        assert!(matches!(remote.stop(), Err(RemoteError::LoopClosed)));
        thread::current().id()
    });
    let other = other.join().unwrap();
    assert_eq!(told.try_recv().unwrap(), other);
}

#[test]
fn calls_that_wait_when_the_loop_closes_are_dropped_on_its_thread() {
    let event_loop = EventLoop::new().unwrap();
    let remote = event_loop.remote();
    let (tell, told) = mpsc::channel();
    let other = thread::spawn(move || {
        let (first, second) = (Tell(tell.clone()), Tell(tell));
        drop(remote.call_soon(move |_| keep(&first)).unwrap());
        remote.call_soon(move |_| keep(&second)).unwrap()
    });
    let handle = other.join().unwrap();
    event_loop.close().unwrap();
    let here = thread::current().id();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [here, here]);
    assert!(!handle.is_pending() && !handle.cancel());
}

/// A destructor, run by `close`, calls the loop again through its remote.
#[test]
fn a_call_that_is_dropped_may_call_the_closing_loop() {
    struct Calls(Remote, mpsc::Sender<bool>);
    impl Drop for Calls {
        fn drop(&mut self) {
            let _ = self.1.send(self.0.call_soon(|_| ()).is_err());
        }
    }
    let event_loop = EventLoop::new().unwrap();
    let (tell, told) = mpsc::channel();
    let calls = Calls(event_loop.remote(), tell);
    event_loop.remote().call_soon(move |_| keep(&calls)).unwrap();
    event_loop.close().unwrap();
    assert!(told.try_recv().unwrap());
}

#[test]
fn b39_a_loop_may_go_while_other_threads_call_it() {
    for _ in 0..stress(100) {
        let event_loop = EventLoop::new().unwrap();
        let run = Arc::new(AtomicUsize::new(0));
        // More than there are cores: some are always stopped in the middle of a call.
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (remote, run) = (event_loop.remote(), run.clone());
                thread::spawn(move || {
                    let mut accepted = 0;
                    loop {
                        let run = run.clone();
                        let call = move |_: &LoopHandle| {
                            run.fetch_add(1, SeqCst);
                        };
                        match remote.call_soon(call) {
                            Ok(_) => accepted += 1,
                            Err(RemoteError::LoopClosed) => return accepted,
                            Err(error) => panic!("{error}"),
                        }
                        // Or the loop hardly ever gets its turn, and then has millions of calls to run.
                        thread::yield_now();
                    }
                })
            })
            .collect();
        event_loop.call_soon(|handle| drop(handle.call_soon(LoopHandle::stop)));
        event_loop.run_forever().unwrap();
        drop(event_loop);
        let accepted: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        assert!(run.load(SeqCst) <= accepted, "one ran that was said to be refused");
    }
}

#[test]
fn b45_an_earlier_timer_from_another_thread_shortens_the_wait() {
    let event_loop = EventLoop::new().unwrap();
    let far = event_loop.call_later(PATIENCE * 60, |_| panic!("the far timer"));
    let remote = event_loop.remote();
    let other = thread::spawn(move || {
        let earlier = |handle: &LoopHandle| {
            handle.call_later(Duration::from_millis(1), LoopHandle::stop);
        };
        remote.call_soon(earlier).unwrap();
    });
    event_loop.run_forever().unwrap();
    other.join().unwrap();
    far.cancel();
}

#[test]
fn stop_from_another_thread_ends_a_loop_that_waits() {
    let event_loop = EventLoop::new().unwrap();
    for _ in 0..100 {
        let remote = event_loop.remote();
        let other = thread::spawn(move || remote.stop().unwrap());
        event_loop.run_forever().unwrap();
        other.join().unwrap();
    }
}

/// A flag that is set before the wake is seen by the poll that the wake causes, also when the wake
/// comes at the moment at which a poll begins. An earlier wake causes that poll; the delay between
/// the two is swept.
#[test]
fn b36_a_wake_of_the_main_future_from_another_thread_is_never_lost() {
    type Slot = Mutex<Option<(Waker, Arc<AtomicBool>)>>;
    let event_loop = EventLoop::new().unwrap();
    let (slot, over) = (Arc::<Slot>::default(), Arc::new(AtomicBool::new(false)));
    let (theirs, their_over) = (slot.clone(), over.clone());
    let other = thread::spawn(move || {
        let mut delay = 0;
        while !their_over.load(SeqCst) {
            let Some((waker, flag)) = theirs.lock().unwrap().take() else {
                thread::yield_now();
                continue;
            };
            waker.wake_by_ref();
            delay = (delay + 7) % 1_000;
            for _ in 0..delay {
                std::hint::black_box(delay);
            }
            flag.store(true, Ordering::Release);
            waker.wake();
        }
    });
    let (tell, told) = mpsc::channel();
    let watchdog = thread::spawn(move || {
        if told.recv_timeout(PATIENCE).is_err() {
            // The loop sleeps for ever, so nobody else can say it.
            panic_out("a wake was lost");
        }
    });
    for _ in 0..stress(200_000) {
        let flag = Arc::new(AtomicBool::new(false));
        let mut sent = false;
        let wait = poll_fn(|context| {
            if flag.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut sent, true) {
                *slot.lock().unwrap() = Some((context.waker().clone(), flag.clone()));
            }
            Poll::Pending
        });
        event_loop.run_until_complete(wait).unwrap();
    }
    tell.send(()).unwrap();
    over.store(true, SeqCst);
    other.join().unwrap();
    watchdog.join().unwrap();
}

#[expect(clippy::print_stderr, reason = "the last words of a process that hangs")]
fn panic_out(why: &str) {
    eprintln!("{why}");
    std::process::abort();
}

#[test]
fn b40_a_waker_may_be_cloned_woken_and_dropped_anywhere_and_after_the_loop() {
    let kept: Arc<Mutex<Vec<Waker>>> = Arc::default();
    let event_loop = EventLoop::new().unwrap();
    for _ in 0..3 {
        let mut polls = 0;
        let wait = poll_fn(|context| {
            polls += 1;
            let kept = kept.clone();
            let waker = context.waker().clone();
            let other = thread::spawn(move || {
                waker.wake_by_ref();
                kept.lock().unwrap().push(waker.clone());
                waker.wake();
            });
            if polls == 3 {
                other.join().unwrap();
                return Poll::Ready(());
            }
            Poll::Pending
        });
        event_loop.run_until_complete(wait).unwrap();
        kept.lock().unwrap().iter().for_each(Waker::wake_by_ref);
    }
    // Those of earlier runs wake nobody.
    let mut polls = 0;
    let once = poll_fn(|_| {
        polls += 1;
        kept.lock().unwrap().iter().for_each(Waker::wake_by_ref);
        Poll::<()>::Pending
    });
    event_loop.call_soon(|handle| {
        handle.call_soon(|handle| drop(handle.call_soon(LoopHandle::stop)));
    });
    assert!(matches!(event_loop.run_until_complete(once), Err(RunError::Stopped(_))));
    assert_eq!(polls, 1);
    drop(event_loop);
    let wakers = std::mem::take(&mut *kept.lock().unwrap());
    let other = thread::spawn(move || {
        thread_local! { static LATE: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) } }
        // These are dropped while the thread's locals are.
        LATE.set(wakers.clone());
        for waker in wakers {
            drop(waker.clone());
            waker.wake();
        }
    });
    other.join().unwrap();
}

#[test]
fn b40_a_waker_woken_while_the_locals_of_its_thread_are_dropped_does_nothing_bad() {
    struct WakesOnDrop(Waker);
    impl Drop for WakesOnDrop {
        fn drop(&mut self) {
            self.0.wake_by_ref();
        }
    }
    thread_local! { static LATE: RefCell<Option<WakesOnDrop>> = const { RefCell::new(None) } }
    let other = thread::spawn(|| {
        // Before the loop's own local, so that it is dropped after that.
        LATE.set(None);
        let event_loop = EventLoop::new().unwrap();
        let wait = poll_fn(|context| {
            LATE.set(Some(WakesOnDrop(context.waker().clone())));
            Poll::Ready(())
        });
        event_loop.run_until_complete(wait).unwrap();
    });
    other.join().unwrap();
}

#[test]
fn several_loops_in_several_threads_call_each_other() {
    const LOOPS: usize = 4;
    let hops = stress(100_000);
    let (tell, told) = mpsc::channel();
    let threads: Vec<_> = (0..LOOPS)
        .map(|index| {
            let tell = tell.clone();
            thread::spawn(move || {
                let event_loop = EventLoop::new().unwrap();
                tell.send((index, event_loop.remote())).unwrap();
                drop(tell);
                event_loop.run_forever().unwrap();
                event_loop.statistics().callbacks
            })
        })
        .collect();
    let mut ring: Vec<_> = (0..LOOPS).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    ring.sort_by_key(|(index, _)| *index);
    let ring: Arc<[Remote]> = ring.into_iter().map(|(_, remote)| remote).collect();
    fn hop(ring: Arc<[Remote]>, left: usize) {
        let next = ring.clone();
        let call = move |handle: &LoopHandle| match left {
            0 => next.iter().for_each(|remote| remote.stop().unwrap()),
            _ => {
                assert!(handle.is_running());
                hop(next, left - 1);
            }
        };
        ring[left % LOOPS].call_soon(call).unwrap();
    }
    hop(ring, hops);
    let calls: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(calls, hops as u64 + 1);
}

#[test]
fn a_call_before_the_loop_runs_waits_for_it() {
    let event_loop = EventLoop::new().unwrap();
    let remote = event_loop.remote();
    thread::spawn(move || remote.call_soon(LoopHandle::stop).map(drop)).join().unwrap().unwrap();
    assert!(event_loop.next_deadline().is_some(), "there is work");
    event_loop.run_forever().unwrap();
}

#[test]
fn a_panic_in_a_remote_call_is_reported_with_its_place() {
    let reports = Rc::new(RefCell::new(Vec::new()));
    let log = reports.clone();
    let handler = move |_: &LoopHandle, context: &ErrorContext| {
        log.borrow_mut().push(context.to_string());
    };
    let event_loop = EventLoop::builder().exception_handler(handler).build().unwrap();
    let remote = event_loop.remote();
    let other = thread::spawn(move || drop(remote.call_soon(|_| panic!("ouch")).unwrap()));
    other.join().unwrap();
    turn(&event_loop);
    let reports = reports.take();
    assert!(reports[0].contains("panic in a callback: ouch") && reports[0].contains("threads.rs"));
}
