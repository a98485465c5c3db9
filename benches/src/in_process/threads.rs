//! Other threads: calls, questions and answers, the executor.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tulipa_loop::EventLoop;

use super::{consume, tokio_local, tulipa};
use crate::cores;
use crate::measure::Cases;

/// How long a loop looks before it sleeps, where it does.
const SPIN: Duration = Duration::from_micros(50);

/// What threads ask of tokio's runtime: there is no such way into a `LocalSet`.
const SPAWN: &str = "tokio Handle::spawn";

pub(super) fn calls(title: &'static str) -> Cases<'static> {
    let (event_loop, (runtime, _)) = (tulipa(), tokio_local());
    Cases::new(title, SPAWN)
        .case("tulipa Remote::call_soon", move |n| {
            let remote = event_loop.remote();
            let caller = thread::spawn(move || {
                for i in 0..n {
                    remote.call_soon(move |_| consume(i)).expect("the loop is open");
                }
                remote.stop().expect("the loop is open");
            });
            event_loop.run_forever().expect("it runs");
            caller.join().expect("no panic");
        })
        .target(0.50)
        .case(SPAWN, move |n| {
            let handle = runtime.handle().clone();
            let (done, all_done) = tokio::sync::oneshot::channel();
            let caller = thread::spawn(move || {
                for i in 0..n {
                    handle.spawn(async move { consume(i) });
                }
                handle.spawn(async move { done.send(()) });
            });
            runtime.block_on(all_done).expect("it is sent");
            caller.join().expect("no panic");
        })
        .case("calloop channel", move |n| {
            let mut peer: calloop::EventLoop<'_, bool> =
                calloop::EventLoop::try_new().expect("a loop");
            let (sender, channel) = calloop::channel::channel();
            let inserted = peer.handle().insert_source(channel, |event, (), over| match event {
                calloop::channel::Event::Msg(i) => consume(i),
                calloop::channel::Event::Closed => *over = true,
            });
            inserted.expect("room");
            let caller = thread::spawn(move || {
                for i in 0..n {
                    sender.send(i).expect("the loop is there");
                }
            });
            let mut over = false;
            while !over {
                peer.dispatch(None, &mut over).expect("it runs");
            }
            caller.join().expect("no panic");
        })
}

/// A thread on another core asks the sleeping loop for something and waits for the answer: two wake-ups in
/// turn. Both are kept where they are, or the scheduler would put them on one core.
pub(super) fn questions(title: &'static str) -> Cases<'static> {
    let ask = |event_loop: &EventLoop, n: u64| {
        let remote = event_loop.remote();
        let asker = thread::spawn(move || {
            cores::pin(cores::LOAD);
            for _ in 0..n {
                let (answer, answered) = mpsc::channel();
                let asked = remote.call_soon(move |_| answer.send(()).expect("it is awaited"));
                asked.expect("the loop is open");
                answered.recv().expect("the loop answers");
            }
            remote.stop().expect("the loop is open");
        });
        cores::on(cores::SERVER, || event_loop.run_forever()).expect("it runs");
        asker.join().expect("no panic");
    };
    let sleeping = tulipa();
    let spinning = EventLoop::builder().busy_poll(SPIN).build().expect("there are descriptors");
    let (runtime, _) = tokio_local();
    Cases::new(title, SPAWN)
        .case("tulipa Remote::call_soon", move |n| ask(&sleeping, n))
        .case("the same, busy_poll of 50 µs", move |n| ask(&spinning, n))
        .case(SPAWN, move |n| {
            let handle = runtime.handle().clone();
            let (done, all_done) = tokio::sync::oneshot::channel();
            let asker = thread::spawn(move || {
                cores::pin(cores::LOAD);
                for _ in 0..n {
                    let (answer, answered) = mpsc::channel();
                    handle.spawn(async move { answer.send(()) });
                    answered.recv().expect("the runtime answers");
                }
                handle.spawn(async move { done.send(()) });
            });
            cores::on(cores::SERVER, || runtime.block_on(all_done)).expect("it is sent");
            asker.join().expect("no panic");
        })
}

pub(super) fn executor(title: &'static str) -> Cases<'static> {
    let (event_loop, (runtime, _)) = (tulipa(), tokio_local());
    Cases::new(title, "tokio spawn_blocking")
        .case("tulipa run_in_executor", move |n| {
            let future = async {
                for _ in 0..n {
                    event_loop.run_in_executor(None, || ()).await.expect("it runs");
                }
            };
            event_loop.run_until_complete(future).expect("it runs");
        })
        .target(0.95)
        .case("tokio spawn_blocking", move |n| {
            runtime.block_on(async {
                for _ in 0..n {
                    tokio::task::spawn_blocking(|| ()).await.expect("it runs");
                }
            });
        })
}
