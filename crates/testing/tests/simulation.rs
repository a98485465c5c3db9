//! Simulated scenarios: whole programs on a network with faults, many seeds each.

#![cfg(unix)]

mod scenarios;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use scenarios::{Echo, Scripted};
use tulipa_loop::{sleep, spawn, timeout};
use tulipa_protocols::{create_connection, create_server};
use tulipa_testing::{Fault, Sim, Simulation, Summary};

const GRACE: Duration = Duration::from_secs(600);

/// A server that echoes, and a few clients that do anything.
async fn echo_scenario(sim: Sim) {
    let most = Rc::new(Cell::new(0));
    let (network, own, largest) = (sim.network().clone(), sim.clone(), most.clone());
    let server = create_server(":7", move || own.sabotage(Echo::new(&own, &largest)));
    let server = network.on("server", server).await.expect("the address is free");
    // P6: no more is kept than the high limit and what one call writes.
    sim.invariant(move || match most.get() {
        0..=330_000 => Ok(()),
        most => Err(format!("{most} bytes were kept for one connection")),
    });
    let mut clients = Vec::new();
    for number in 0..sim.random(|random| random.within(1..=3)) {
        let (sim, network) = (sim.clone(), network.clone());
        clients.push(spawn(network.on("client", one_client(sim, number))));
    }
    sim.elsewhere().await;
    for client in clients {
        client.await.expect("a client does not panic");
    }
    assert_eq!(server.shutdown(GRACE).await, 0, "connections end by themselves");
}

async fn one_client(sim: Sim, number: u64) {
    let start = sim.random(|random| random.duration(Duration::ZERO..=Duration::from_secs(5)));
    sleep(start).await;
    let (total, leaves, random) = sim.random(|random| {
        let leaves = if random.chance(300) { 100 } else { 0 };
        let most = 1 << random.within(0..=14);
        (random.index(most), leaves, random.fork())
    });
    let (client, story) = Scripted::new(number, total, leaves, random);
    let own = sim.clone();
    let connecting = create_connection("server:7", move || own.sabotage(client));
    let patience =
        sim.random(|random| random.duration(Duration::from_secs(1)..=Duration::from_secs(300)));
    let Ok(connected) = timeout(patience, connecting).await else { return };
    let Ok(connection) = connected else {
        let counts = sim.network().fault_counts();
        let caused = counts != Default::default();
        assert!(caused, "connecting fails only because of a fault");
        return;
    };
    // A client that says nothing in connection_made is made to.
    connection.set_timeout(Some(Duration::from_secs(3000)));
    while !story.lost.get() {
        let spoken = story.written.get();
        let poke = connection.post(move |client, transport| client.get_mut().poke(transport));
        drop(poke);
        if timeout(Duration::from_millis(200), connection.wait_closed()).await.is_ok() {
            break;
        }
        assert!(spoken <= story.written.get());
    }
    // P2: what was accepted has come back, or there was a reason for it not to.
    let broken = story.client.get().is_none_or(|client| sim.network().is_broken(client));
    let sabotaged = sim.network().fault_counts().of(Fault::CallbackPanic) > 0;
    let clean = !broken && !sabotaged && !story.left.get();
    if clean {
        assert_eq!(
            story.error.borrow().as_ref().map(io::Error::kind),
            None,
            "no error without a reason"
        );
        assert_eq!(story.received.get(), total, "all bytes have come back");
    }
}

fn echo(seeds: u64) -> Summary {
    Simulation::new().seeds(seeds).run(echo_scenario)
}

#[test]
fn echo_keeps_its_promises_with_every_fault() {
    let summary = echo(500);
    assert_eq!(summary.faults.missing(), [], "{summary:?}");
    eprintln!("{:?}", summary.faults);
    eprintln!(
        "{} seeds, {:?}, {} turns, {} events",
        summary.seeds, summary.virtual_time, summary.turns, summary.events
    );
}
