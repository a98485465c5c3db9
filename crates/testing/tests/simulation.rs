//! Simulated scenarios: whole programs on a network with faults, many seeds each.

#![cfg(unix)]

mod scenarios;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use scenarios::{ANSWER, Answer, Collected, Echo, Guest, Member, Scripted};
use tulipa_loop::signal::Signal;
use tulipa_loop::{LoopHandle, sleep, spawn, timeout};
use tulipa_protocols::{Link, Transport, create_connection, create_server};
use tulipa_testing::{Fault, Faults, NetworkLink, Random, Sim, Simulation, Summary};

/// More than the clock jumps at once, and what follows takes.
const GRACE: Duration = Duration::from_secs(1500);

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
    let mut tasks = vec![spawn(clerk(sim.clone()))];
    for number in 0..sim.random(|random| random.within(1..=3)) {
        let (sim, network) = (sim.clone(), network.clone());
        tasks.push(spawn(network.on("client", one_client(sim, number))));
    }
    let (handle, signals) = (LoopHandle::current(), Rc::new(Cell::new(0)));
    let count = signals.clone();
    let counted = move |_: &LoopHandle| count.set(count.get() + 1);
    handle.add_signal_handler(Signal::USER1, counted).expect("the loop is open");
    sim.elsewhere().await;
    for task in tasks {
        task.await.expect("it does not panic");
    }
    handle.remove_signal_handler(Signal::USER1);
    assert!(
        signals.get() <= sim.network().fault_counts().of(Fault::Signal),
        "no signal comes twice"
    );
    assert_eq!(server.shutdown(GRACE).await, 0, "connections end by themselves");
}

/// Has jobs done in the executor, and is cancelled meanwhile: each is done once, or not at all if nobody waits.
async fn clerk(sim: Sim) {
    for number in 0..8 {
        let done = Arc::new(AtomicU64::new(0));
        let own = done.clone();
        let job = move || {
            own.fetch_add(1, SeqCst);
            number
        };
        let waiting =
            sim.endanger(async move { LoopHandle::current().run_in_executor(None, job).await });
        let result = waiting.await;
        match result {
            Ok(result) => {
                assert_eq!(result.expect("a job that is waited for is done"), number);
                assert_eq!(done.load(SeqCst), 1);
            }
            Err(_cancelled) => {
                // It may have been begun by then. Once nobody waits it is not begun.
                let begun = done.load(SeqCst);
                sleep(Duration::from_secs(5)).await;
                assert_eq!(done.load(SeqCst), begun, "a job that was cancelled is not begun later");
            }
        }
        let pause = sim.random(|random| random.duration(Duration::ZERO..=Duration::from_secs(2)));
        let _ = sim.endanger(sleep(pause)).await;
    }
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
    let connecting = sim.endanger(timeout(patience, connecting)).await;
    // Cancelled, or too late.
    let Ok(Ok(connected)) = connecting else { return };
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
        let closed = timeout(Duration::from_millis(200), connection.wait_closed());
        if matches!(sim.endanger(closed).await, Ok(Ok(()))) {
            break;
        }
        assert!(spoken <= story.written.get());
    }
    // P2: what was accepted has come back, or there was a reason for it not to.
    let broken = story.client.get().is_none_or(|client| sim.network().is_broken(client));
    let clean = !broken && !story.left.get();
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
#[expect(clippy::print_stdout, reason = "what was run is what `--nocapture` asks for")]
fn echo_keeps_its_promises_with_every_fault() {
    let summary = echo(500);
    // TULIPA_SIM_SEED runs one seed only.
    if summary.seeds >= 500 {
        // It sends no datagrams: `tests/datagrams.rs` does.
        let mut missing = summary.faults.missing();
        missing.retain(|fault| !Fault::DATAGRAM.contains(fault));
        assert_eq!(missing, [], "each fault happens: {:?}", summary.faults);
    }
    if summary.seeds >= 20_000 {
        let streams = Fault::ALL.into_iter().filter(|fault| !Fault::DATAGRAM.contains(fault));
        let seldom = streams.filter(|fault| summary.faults.of(*fault) < 1000);
        assert_eq!(seldom.collect::<Vec<_>>(), [], "each is often: {:?}", summary.faults);
    }
    println!("{} seeds, {:?} of virtual time", summary.seeds, summary.virtual_time);
    println!("{} turns, {} events, {:?}", summary.turns, summary.events, summary.faults);
    println!("hash of all: {:016x}", summary.hash());
}

#[test]
fn one_seed_gives_one_hash_in_three_runs() {
    let [one, two, three] = [(); 3].map(|()| echo(20).hashes);
    assert_eq!(one, two);
    assert_eq!(two, three);
    let different: BTreeSet<_> = one.iter().collect();
    assert_eq!(different.len(), one.len(), "each seed has a run of its own");
}

/// Streams without protocols, read and written by the clock: what happens depends on nothing but the simulation, timers
/// and tasks.
async fn wires_scenario(sim: Sim) {
    let network = sim.network().clone();
    let address = SocketAddr::new(network.host("server"), 7);
    let listener = network.bind(address).expect("the address is free");
    listener.listen(4);
    let mut tasks = Vec::new();
    for number in 0..3 {
        let sim = sim.clone();
        let connecting = network.clone();
        tasks.push(spawn(network.on("client", async move {
            let Ok(link) = connecting.connect_link(address).await else { return };
            talk(&sim, link, number).await;
        })));
    }
    for number in 3..23 {
        sleep(Duration::from_millis(50)).await;
        if let Ok(link) = listener.accept() {
            let sim = sim.clone();
            tasks.push(spawn(async move { talk(&sim, link, number).await }));
        }
    }
    for task in tasks {
        task.await.expect("it does not panic");
    }
}

async fn talk(sim: &Sim, mut link: NetworkLink, number: u64) {
    for round in 0..20 {
        let count = sim.random(|random| random.index(2000));
        let written = link.write(&[IoSlice::new(&vec![number as u8; count])]);
        let read = link.read(&mut [0; 1000]);
        let kinds = (written.map_err(|error| error.kind()), read.map_err(|error| error.kind()));
        sim.note(format_args!("{number}.{round}: {kinds:?}"));
        sleep(sim.random(|random| random.duration(Duration::ZERO..=Duration::from_millis(90))))
            .await;
    }
}

/// The hash of each of the first seeds. They are the same in any build, on any machine, with any number of threads
/// beside; the message below says when they change.
const HASHES: [u64; 8] = [
    0x81bfe8b6a91289c6,
    0x9bc6a7ccd90795b3,
    0x4146ebd35cbbd751,
    0x2be204154ff3b730,
    0xe39ab349c4ceec27,
    0x1734d8301d6d2619,
    0x41d294cd088002e5,
    0x8e851cff96037bb7,
];

#[test]
fn one_seed_gives_one_hash_in_every_build() {
    let chosen = ["TULIPA_SIM_SEED", "TULIPA_SIM_SEEDS", "TULIPA_SIM_FIRST_SEED"];
    if chosen.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let hashes = Simulation::new().seeds(HASHES.len() as u64).run(wires_scenario).hashes;
    let renewed: Vec<_> = hashes.iter().map(|hash| format!("0x{hash:016x}")).collect();
    assert!(
        hashes == HASHES,
        "a seed gives another run than it did. If the simulation was changed to do that (a new fault, another network), \
         the new table is\n[{}]\nOtherwise something has come in that is not the same everywhere: an address, a hash \
         map's order, a clock, a thread.",
        renewed.join(", ")
    );
}

/// Each of many clients is answered.
async fn crowd_scenario(sim: Sim) {
    let most = Rc::new(Cell::new(0));
    let (network, own) = (sim.network().clone(), sim.clone());
    let server = create_server(":7", move || Echo::new(&own, &most));
    let server = network.on("server", server).await.expect("the address is free");
    let served = Rc::new(Cell::new(0));
    let clients = (0..40).map(|number| {
        let (sim, served) = (sim.clone(), served.clone());
        spawn(network.on("client", async move {
            let (client, story) = Scripted::new(number, 100, 0, sim.random(Random::fork));
            let connection = create_connection("server:7", || client).await.expect("it is there");
            while !story.lost.get() {
                let poke = |client: &mut Scripted, transport: &Transport| client.poke(transport);
                drop(connection.post(poke));
                let _ = timeout(Duration::from_secs(1), connection.wait_closed()).await;
            }
            assert_eq!(story.received.get(), 100);
            served.set(served.get() + 1);
        }))
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client does not panic");
    }
    assert_eq!(served.get(), 40);
    assert_eq!(server.shutdown(GRACE).await, 0);
}

#[test]
fn each_of_many_clients_is_served_whatever_harmless_happens() {
    Simulation::new().seeds(10).faults(Faults::of(&Fault::HARMLESS)).run(crowd_scenario);
}

/// Everybody hears what anybody says, in the order in which each one said it.
async fn chat_scenario(sim: Sim, harmless: bool) {
    let network = sim.network().clone();
    let room = Rc::<RefCell<Vec<Transport>>>::default();
    let (own, server_room) = (sim.clone(), room.clone());
    let factory = move || own.sabotage(Member::new(&server_room));
    let server = network.on("server", create_server(":7", factory)).await.expect("it is free");
    let mut guests = Vec::new();
    let heard = Rc::new(RefCell::new(Vec::new()));
    for number in 0..GUESTS {
        let (heard, sim) = (heard.clone(), sim.clone());
        guests.push(spawn(network.on("guests", async move {
            let Ok(guest) = create_connection("server:7", Guest::default).await else { return };
            // They all listen before anybody speaks, unless something keeps them from it.
            sleep(Duration::from_secs(30)).await;
            for line in 0..LINES {
                guest.write(format!("{number} {line}\n").as_bytes());
                sleep(
                    sim.random(|random| random.duration(Duration::ZERO..=Duration::from_secs(1))),
                )
                .await;
            }
            sim.calm();
            sleep(Duration::from_secs(60)).await;
            if let Ok(lines) = guest.with(|guest, _| guest.lines()) {
                heard.borrow_mut().push(lines);
            }
            guest.close();
            guest.wait_closed().await;
        })));
    }
    for guest in guests {
        guest.await.expect("a guest does not panic");
    }
    server.shutdown(GRACE).await;
    let heard = heard.borrow();
    for lines in heard.iter() {
        check_lines(lines, harmless);
    }
    assert!(!harmless || heard.len() == GUESTS, "nobody was lost");
}

const GUESTS: usize = 6;
const LINES: usize = 8;

fn check_lines(lines: &[(usize, usize)], complete: bool) {
    for speaker in 0..GUESTS {
        let said = lines.iter().filter(|(who, _)| *who == speaker).map(|(_, line)| *line);
        let said: Vec<_> = said.collect();
        assert!(said.windows(2).all(|pair| pair[1] == pair[0] + 1), "in order: {said:?}");
        assert!(!complete || said.len() == LINES, "everything of {speaker}: {said:?}");
    }
}

#[test]
fn everybody_in_a_chat_hears_everybody_in_order() {
    let harmless = Faults::of(&Fault::HARMLESS);
    Simulation::new().seeds(20).faults(harmless).run(|sim| chat_scenario(sim, true));
    Simulation::new().seeds(40).run(|sim| chat_scenario(sim, false));
}

/// A server that is shut down has its answers delivered first.
async fn shutdown_scenario(sim: Sim) {
    let network = sim.network().clone();
    let server = network.on("server", create_server(":7", || Answer)).await.expect("it is free");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let sim = sim.clone();
        clients.push(spawn(network.on("client", async move {
            let collected = Collected::default();
            let client = collected.clone();
            let Ok(connection) = create_connection("server:7", move || client).await else {
                return;
            };
            let address = connection.local_addr().and_then(|address| address.inet());
            connection.wait_closed().await;
            let broken = address.is_none_or(|address| sim.network().is_broken(address));
            let (count, error) = (collected.0.count.get(), collected.0.error.get());
            // Without a fault it is all of it, or nothing if the server was closed first.
            let whole = count == ANSWER || count == 0;
            assert!(broken || whole, "{count} bytes, {error:?}");
        })));
    }
    sleep(sim.random(|random| random.duration(Duration::ZERO..=Duration::from_secs(1)))).await;
    let aborted = server.shutdown(Duration::from_secs(100_000)).await;
    assert_eq!((aborted, server.client_count()), (0, 0));
    let late = network.on("client", create_connection("server:7", || Answer)).await;
    assert!(late.is_err(), "nobody connects to what is closed");
    for client in clients {
        client.await.expect("a client does not panic");
    }
}

#[test]
fn a_server_that_is_shut_down_finishes_its_answers() {
    Simulation::new().seeds(100).patience(Duration::from_secs(200_000)).run(shutdown_scenario);
}
