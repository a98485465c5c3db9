//! Connections that are made again: after exact delays, until they are stopped.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_loop::{ErrorContext, LoopHandle, sleep, timeout};
use tulipa_protocols::{
    Connect, Protocol, Reconnect, Reconnecting, ReconnectingBuilder, RetryPolicy, Server,
    Transport, create_server,
};
use tulipa_testing::{Chunking, MemoryNetwork, Path, Record, Simulation, VirtualLoop};

const SECOND: Duration = Duration::from_secs(1);

struct Quiet;

impl Protocol for Quiet {
    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

fn with_network<F: Future<Output = ()> + 'static>(
    test: impl FnOnce(MemoryNetwork) -> F + 'static,
) -> Vec<String> {
    let virtual_loop = VirtualLoop::new();
    let network = MemoryNetwork::new(virtual_loop.world(), 7);
    network.install(&virtual_loop.handle());
    network.host("server");
    let reports = Rc::new(RefCell::new(Vec::new()));
    let journal = reports.clone();
    virtual_loop.set_exception_handler(Some(Rc::new(
        move |_: &LoopHandle, context: &ErrorContext| {
            journal.borrow_mut().push(context.to_string());
        },
    )));
    virtual_loop.run_until_complete(test(network)).unwrap();
    reports.take()
}

/// The seconds at which attempts began, and what else happened.
#[derive(Clone)]
struct Journal {
    began: Instant,
    lines: Rc<RefCell<Vec<String>>>,
}

impl Journal {
    fn new() -> Journal {
        Journal { began: LoopHandle::current().time(), lines: Rc::default() }
    }

    fn watch(&self, builder: ReconnectingBuilder) -> ReconnectingBuilder {
        let journal = self.clone();
        builder.observe(move |event| {
            let at = LoopHandle::current().time() - journal.began;
            let what = match event {
                Reconnect::Connecting => return journal.note(format!("{at:?} connecting")),
                Reconnect::Failed(error) => format!("failed: {:?}", error.kind()),
                Reconnect::Connected => "connected".into(),
                Reconnect::Lost(lived) => format!("lost after {lived:?}"),
                Reconnect::Waiting(delay) => format!("retry in {delay:?}"),
                Reconnect::GivenUp => "given up".into(),
                _ => "something else".into(),
            };
            journal.note(what);
        })
    }

    fn note(&self, line: String) {
        self.lines.borrow_mut().push(line);
    }

    fn attempts(&self) -> Vec<String> {
        let lines = self.lines.borrow();
        let attempts = lines.iter().filter_map(|line| line.strip_suffix(" connecting"));
        attempts.map(str::to_owned).collect()
    }
}

async fn server(network: &MemoryNetwork) -> Server {
    network.on("server", create_server(":7", || Quiet)).await.unwrap()
}

#[test]
fn attempts_come_after_exactly_the_delays_of_the_policy() {
    let reports = with_network(|_| async {
        let journal = Journal::new();
        let client = journal.watch(Reconnecting::to("server:7")).start(|| Quiet);
        sleep(170 * SECOND).await;
        assert_eq!(journal.attempts(), ["0ns", "1s", "3s", "7s", "15s", "45s", "105s", "165s"]);
        assert_eq!(client.attempts(), 8);
        client.stop();
        client.stopped().await;
        sleep(1000 * SECOND).await;
        assert_eq!(client.attempts(), 8);
    });
    assert_eq!(reports, [""; 0]);
}

#[test]
fn the_delays_begin_anew_after_a_connection_that_has_lived_for_long_enough() {
    with_network(|network| async move {
        let journal = Journal::new();
        let client = journal.watch(Reconnecting::to("server:7")).start(|| Quiet);
        sleep(2 * SECOND).await;
        // Failed at 0 and at 1: the last delay was two seconds, the connection is made at 3.
        let server = server(&network).await;
        sleep(5 * SECOND).await;
        server.abort_clients();
        sleep(SECOND / 2).await;
        // It lived for four seconds: not more than twice as long.
        sleep(4 * SECOND).await;
        server.abort_clients();
        sleep(10 * SECOND).await;
        // Now for half a second.
        sleep(20 * SECOND).await;
        server.abort_clients();
        sleep(3 * SECOND).await;
        let lines = journal.lines.borrow().join("; ");
        assert_eq!(
            lines,
            "0ns connecting; failed: ConnectionRefused; retry in 1s; 1s connecting; \
             failed: ConnectionRefused; retry in 2s; 3s connecting; connected; lost after 4s; \
             retry in 4s; 11s connecting; connected; lost after 500ms; retry in 8s; \
             19.5s connecting; connected; lost after 22s; retry in 1s; 42.5s connecting; connected"
        );
        client.stop();
        client.stopped().await;
        server.shutdown(SECOND).await;
    });
}

#[test]
fn whoever_waits_gets_each_connection_and_a_stop_closes_it() {
    with_network(|network| async move {
        let record = Record::new();
        let made = record.clone();
        let client = Reconnecting::to("server:7").start(move || made.protocol());
        let waiting = client.clone();
        let waiter = tulipa_loop::spawn(async move { waiting.when_connected().await });
        assert!(client.connection().is_none());
        sleep(2 * SECOND).await;
        let server = server(&network).await;
        let connection = waiter.await.unwrap().unwrap();
        assert_eq!(client.when_connected().await.unwrap().transport(), connection.transport());
        client.stop();
        client.stop();
        client.stopped().await;
        assert!(client.connection().is_none() && connection.is_closing());
        assert_eq!(client.when_connected().await.unwrap_err().kind(), ErrorKind::NotConnected);
        record.assert_order();
        assert!(record.is_lost());
        server.shutdown(SECOND).await;
    });
}

#[test]
fn a_stop_gives_up_an_attempt_and_a_wait() {
    with_network(|network| async move {
        // Nobody answers: packets do not come through.
        network.stall("localhost", "server");
        let client = Reconnecting::to("server:7").start(|| Quiet);
        let waiting = client.clone();
        let waiter = tulipa_loop::spawn(async move { waiting.when_connected().await });
        sleep(SECOND).await;
        let before = LoopHandle::current().time();
        client.stop();
        client.stopped().await;
        assert_eq!(LoopHandle::current().time(), before, "at once");
        assert_eq!(waiter.await.unwrap().unwrap_err().kind(), ErrorKind::NotConnected);
        network.resume("localhost", "server");
        let client = Reconnecting::to("server:7").start(|| Quiet);
        sleep(SECOND / 2).await;
        client.stop();
        client.stopped().await;
        assert_eq!(client.attempts(), 1);
        assert_eq!(network.connections(), 0);
    });
}

#[test]
fn who_gives_up_tells_those_who_wait_or_the_exception_handler() {
    let reports = with_network(|_| async {
        let policy = RetryPolicy::fixed([SECOND]).max_retries(2);
        let journal = Journal::new();
        let builder = journal.watch(Reconnecting::to("server:7")).policy(policy.clone());
        let client = builder.start(|| Quiet);
        let failed = client.when_connected().await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::ConnectionRefused);
        assert!(failed.to_string().contains("server:7"), "{failed}");
        client.stopped().await;
        assert_eq!(journal.attempts(), ["0ns", "1s", "2s"]);
        assert_eq!(journal.lines.borrow().last().map(String::as_str), Some("given up"));
        assert!(client.when_connected().await.is_err());
        let alone = Reconnecting::to("server:7").policy(policy).start(|| Quiet);
        alone.stopped().await;
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].starts_with("gave up connecting after 3 attempts"), "{reports:?}");
}

#[test]
fn a_factory_that_panics_is_a_failed_attempt() {
    let reports = with_network(|network| async move {
        let server = server(&network).await;
        let count = Rc::new(Cell::new(0));
        let client = Reconnecting::with(|| Connect::to("server:7")).start(move || {
            count.set(count.get() + 1);
            if count.get() == 1 {
                std::panic::resume_unwind(Box::new("no protocol today"));
            }
            Quiet
        });
        let connected = timeout(2 * SECOND, client.when_connected()).await.unwrap();
        assert!(connected.is_ok());
        assert_eq!(client.attempts(), 2);
        client.stop();
        client.stopped().await;
        server.shutdown(SECOND).await;
    });
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("no protocol today"), "{reports:?}");
}

#[test]
fn a_connection_comes_back_over_bad_networks_as_long_as_it_is_wanted() {
    for chunking in [Chunking::Random, Chunking::OneByte] {
        Simulation::new().seeds(60).run(move |sim| async move {
            sim.network().set_default_path(Path::new().chunking(chunking));
            let records = Rc::new(RefCell::new(Vec::new()));
            let serving = sim.network().on("server", create_server(":7", || Quiet));
            let server = serving.await.unwrap();
            let (made, chaos) = (records.clone(), sim.clone());
            let policy = RetryPolicy::exponential(SECOND, 10 * SECOND).jitter(0.2).seed(sim.seed());
            let client = Reconnecting::with(|| Connect::to("server:7").timeout(5 * SECOND))
                .policy(policy)
                .start(move || {
                    let record = Record::new();
                    made.borrow_mut().push(record.clone());
                    chaos.sabotage(record.protocol())
                });
            sim.wait_for_calm().await;
            let connected = timeout(60 * SECOND, client.when_connected()).await;
            assert!(connected.is_ok(), "it is connected when all is calm");
            server.abort_clients();
            sleep(60 * SECOND).await;
            assert!(client.connection().is_some(), "and is again");
            client.stop();
            client.stopped().await;
            server.shutdown(SECOND).await;
            for record in records.borrow().iter() {
                record.assert_order();
                assert_eq!(record.alive(), 0);
            }
        });
    }
}
