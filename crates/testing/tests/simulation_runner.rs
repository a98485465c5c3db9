//! `Simulation`: what fails a run, and what it says then.

#![cfg(unix)]

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::Stream;
use tulipa_loop::signal::Signal;
use tulipa_loop::{LoopHandle, sleep, spawn, timeout};
use tulipa_protocols::{Protocol, Transport, create_connection, create_server};
use tulipa_testing::{Fault, Faults, Random, Sim, Simulation, VirtualLoop, simulate};

const SECOND: Duration = Duration::from_secs(1);

/// What a simulation that fails says. The environment that chooses seeds is left to others.
#[track_caller]
fn failure<F: Future<Output = ()> + 'static>(program: impl Fn(Sim) -> F) -> String {
    failure_of(&Simulation::new().seeds(4), program)
}

#[track_caller]
fn failure_of<F: Future<Output = ()> + 'static>(
    simulation: &Simulation,
    program: impl Fn(Sim) -> F,
) -> String {
    let run = AssertUnwindSafe(|| simulation.run(program));
    let payload = catch_unwind(run).expect_err("the simulation fails");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => resume_unwind(payload),
    }
}

struct Ignore;

impl Protocol for Ignore {
    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failing_seed_says_how_to_see_it_again() {
    let text = failure(|sim| async move {
        let seed = sim.seed();
        sim.invariant(move || if seed == 2 { Err("two".to_owned()) } else { Ok(()) });
        sleep(SECOND).await;
    });
    assert_eq!(
        text,
        "seed 2 failed: two\nto see it again: TULIPA_SIM_SEED=2 cargo test \
         a_failing_seed_says_how_to_see_it_again"
    );
}

#[test]
fn a_panic_of_the_program_is_the_panic_of_the_test() {
    let run = AssertUnwindSafe(|| simulate(|_| async { resume_unwind(Box::new(7_u8)) }));
    assert_eq!(catch_unwind(run).unwrap_err().downcast_ref(), Some(&7_u8));
}

#[test]
fn a_program_that_waits_for_nothing_cannot_make_progress() {
    let text = failure(|sim| async move {
        sim.calm();
        pending().await
    });
    assert!(text.contains("nothing can make progress"), "{text}");
    assert!(text.contains("pending: <Task pending name='simulation'"), "{text}");
}

#[test]
fn a_program_that_goes_on_for_too_long_fails() {
    let simulation = Simulation::new().seeds(1).patience(10 * SECOND);
    let text = failure_of(&simulation, |_| sleep(1000 * SECOND));
    assert!(text.contains("it is not done 10s after the last fault"), "{text}");
}

#[test]
fn a_program_leaves_no_task_no_timer_and_no_server() {
    let task = failure(|_| async { drop(spawn(pending::<()>())) });
    assert!(task.contains("left: <Task pending"), "{task}");
    let timer = failure(|_| async {
        LoopHandle::current().call_later(SECOND, |_| {});
    });
    assert!(timer.contains("left: 1 timer"), "{timer}");
    let server = failure(|_| async {
        create_server("localhost:7", || Ignore).await.unwrap();
    });
    assert!(server.contains("left: a registration"), "{server}");
}

#[test]
fn a_report_to_the_exception_handler_fails_a_run() {
    let text = failure(|_| async {
        LoopHandle::current().call_soon(|_| resume_unwind(Box::new("an assertion")));
        sleep(SECOND).await;
    });
    assert!(text.contains("panic in a callback: an assertion"), "{text}");
}

#[test]
fn faults_are_over_after_a_while_or_when_the_program_says_so() {
    let simulation = Simulation::new().seeds(10).faults(Faults::none().with(Fault::Stall, 1000));
    let calm_at = Rc::new(RefCell::new(Vec::new()));
    let times = calm_at.clone();
    simulation.clone().stormy(5 * SECOND).run(move |sim| {
        let (times, start) = (times.clone(), LoopHandle::current().time());
        async move {
            assert!(!sim.is_calm());
            sim.wait_for_calm().await;
            assert!(sim.is_calm() && !sim.strikes(Fault::Stall));
            times.borrow_mut().push(LoopHandle::current().time() - start);
        }
    });
    assert!(calm_at.borrow().iter().all(|time| *time <= 5 * SECOND));
    simulation.run(|sim| async move {
        sim.calm();
        assert!(sim.is_calm() && !sim.strikes(Fault::Stall));
    });
}

#[test]
fn each_seed_has_faults_of_its_own() {
    let simulation = Simulation::new().seeds(50).faults(Faults::none().with(Fault::Stall, 500));
    let struck = Rc::new(Cell::new(0));
    let count = struck.clone();
    let summary = simulation.run(move |sim| {
        let count = count.clone();
        async move {
            let strikes = (0..100).filter(|_| sim.strikes(Fault::Stall)).count();
            count.set(count.get() + u64::from(strikes > 0));
        }
    });
    assert!((10..40).contains(&struck.get()), "about half of them: {}", struck.get());
    assert!(summary.faults.of(Fault::Stall) > struck.get());
}

#[test]
fn who_waits_for_somebody_outside_is_woken_in_any_order() {
    let orders = Rc::new(RefCell::new(Vec::new()));
    let seen = orders.clone();
    Simulation::new().seeds(20).run(move |sim| {
        let seen = seen.clone();
        async move {
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks = (0..3).map(|number| {
                let (sim, order) = (sim.clone(), order.clone());
                spawn(async move {
                    sim.elsewhere().await;
                    order.borrow_mut().push(number);
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
            seen.borrow_mut().push(order.take());
        }
    });
    let mut orders = orders.take();
    orders.sort();
    orders.dedup();
    assert!(orders.len() > 3, "{orders:?}");
}

#[test]
fn a_sabotaged_protocol_panics_and_its_connection_ends() {
    let faults = Faults::none().with(Fault::CallbackPanic, 1000);
    let summary = Simulation::new().seeds(20).faults(faults).run(|sim| async move {
        let server = create_server("localhost:7", || Ignore).await.unwrap();
        let protocol = sim.sabotage(Ignore);
        if let Ok(connection) = create_connection("localhost:7", || protocol).await {
            connection.close();
            connection.wait_closed().await;
        }
        server.shutdown(SECOND).await;
    });
    assert!(summary.faults.of(Fault::CallbackPanic) > 0);
}

#[test]
fn random_numbers_of_a_run_are_those_of_its_seed() {
    let draw = || {
        let drawn = Rc::new(RefCell::new(Vec::new()));
        let numbers = drawn.clone();
        Simulation::new().seeds(3).run(move |sim| {
            numbers.borrow_mut().push(sim.random(Random::next_u64));
            async {}
        });
        drawn.take()
    };
    assert_eq!(draw(), draw());
}

#[test]
fn a_year_of_hourly_timers_is_over_soon() {
    const HOURS: u32 = 365 * 24;
    let virtual_loop = VirtualLoop::new();
    let chimes = Rc::new(Cell::new(0));
    chime(&virtual_loop, &chimes);
    virtual_loop.advance(HOURS * 3600 * SECOND);
    assert_eq!(chimes.get(), HOURS);
    assert_eq!(virtual_loop.elapsed(), HOURS * 3600 * SECOND);
}

fn chime(handle: &LoopHandle, chimes: &Rc<Cell<u32>>) {
    let chimes = chimes.clone();
    handle.call_later(3600 * SECOND, move |handle| {
        chimes.set(chimes.get() + 1);
        chime(handle, &chimes);
    });
}

#[test]
fn timers_are_late_and_fire_once_when_the_clock_has_jumped() {
    let faults = Faults::none().with(Fault::ClockJump, 300).with(Fault::ClockStall, 300);
    let summary = Simulation::new().seeds(20).faults(faults).run(|_| async {
        let (handle, fired) = (LoopHandle::current(), Rc::new(Cell::new(0)));
        let start = handle.time();
        for second in 1..=20 {
            let fired = fired.clone();
            handle.call_later(second * SECOND, move |handle| {
                assert!(handle.time() >= start + second * SECOND, "never early");
                fired.set(fired.get() + 1);
                assert_eq!(fired.get(), second, "in order, and once");
            });
        }
        sleep(21 * SECOND).await;
        assert_eq!(fired.get(), 20);
    });
    assert!(summary.faults.of(Fault::ClockJump) > 0 && summary.faults.of(Fault::ClockStall) > 0);
}

#[test]
fn jobs_of_the_executor_are_part_of_the_seeds_run() {
    let run = || {
        Simulation::new().seeds(30).run(|sim| async move {
            for number in 0..5 {
                // It is submitted inside, so that it is known who waits for it.
                let job = async move {
                    LoopHandle::current().run_in_executor(None, move || number).await
                };
                let done = sim.endanger(job).await;
                sim.note(format_args!("{number}: {}", done.is_ok()));
                if let Ok(done) = done {
                    assert_eq!(done.unwrap(), number);
                }
            }
        })
    };
    let (one, other) = (run(), run());
    assert_eq!(one.hashes, other.hashes);
    for fault in [Fault::JobBeforeCancel, Fault::JobAfterCancel, Fault::TaskCancelled] {
        assert!(one.faults.of(fault) > 0, "{fault:?}");
    }
}

#[test]
fn a_program_without_signal_handlers_is_sent_no_signal() {
    let faults = Faults::none().with(Fault::Signal, 1000);
    let none = Simulation::new().seeds(10).faults(faults.clone()).run(|_| sleep(SECOND));
    assert_eq!(none.faults.of(Fault::Signal), 0);
    let some = Simulation::new().seeds(10).faults(faults).run(|_| async {
        let mut signals = LoopHandle::current().signals(&[Signal::USER1]).unwrap();
        let _ = timeout(
            SECOND,
            std::future::poll_fn(|context| {
                Stream::poll_next(std::pin::Pin::new(&mut signals), context)
            }),
        )
        .await;
    });
    assert!(some.faults.of(Fault::Signal) > 0);
}
