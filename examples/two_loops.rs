//! Two loops in two threads play ping-pong: each holds the other's `Remote`.
//!
//! `cargo run --example two_loops`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::sync::mpsc;
use std::thread;

use tulipa_loop::{EventLoop, LoopHandle, Remote};

const ROUNDS: u32 = 3;

fn ping(remotes: (Remote, Remote), round: u32, _handle: &LoopHandle) {
    println!("ping {round}");
    let (_, pong_loop) = &remotes;
    let sent = pong_loop.clone().call_soon(move |handle| pong(remotes, round, handle));
    sent.expect("the other loop runs until it is told to stop");
}

fn pong(remotes: (Remote, Remote), round: u32, handle: &LoopHandle) {
    println!("pong {round}");
    let (ping_loop, _) = remotes.clone();
    let sent = if round < ROUNDS {
        ping_loop.call_soon(move |handle| ping(remotes, round + 1, handle)).map(drop)
    } else {
        handle.stop();
        ping_loop.stop()
    };
    sent.expect("the other loop runs until it is told to stop");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = EventLoop::new()?;
    let (send, receive) = mpsc::channel();
    // A loop stays in the thread that made it.
    let there = thread::spawn(move || -> Result<(), String> {
        let there = EventLoop::new().map_err(|error| error.to_string())?;
        send.send(there.remote()).map_err(|error| error.to_string())?;
        there.run_forever().map_err(|error| error.to_string())
    });
    let remotes = (here.remote(), receive.recv()?);
    here.call_soon(move |handle| ping(remotes, 1, handle));
    here.run_forever()?;
    there.join().expect("the other thread does not panic")?;
    println!("both loops have ended");
    Ok(())
}
