//! Two connections that are joined: what comes on one goes out on the other.

mod common;

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::sleep;
use tulipa_protocols::{
    AfterEof, Connect, Connection, PipeTo, Protocol, Transport, attach, connect_accepted_socket,
    create_connection, create_server, pipe_to,
};
use tulipa_testing::{
    Chunking, Fault, Faults, MemoryLink, Moment, Path, Record, Recorder, Simulation, VirtualLoop,
};

const SECOND: Duration = Duration::from_secs(1);

struct Quiet;

impl Protocol for Quiet {
    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Two pairs in memory: the outer ends have records, the inner ones are there to be joined.
struct Bench {
    virtual_loop: VirtualLoop,
    records: [Record; 2],
    outer: [Connection<Recorder>; 2],
    inner: [Connection<Quiet>; 2],
}

fn bench(capacity: usize) -> Bench {
    let virtual_loop = VirtualLoop::new();
    let handle = virtual_loop.handle();
    let records = [Record::new(), Record::new()];
    let mut inner = Vec::new();
    let outer = records.each_ref().map(|record| {
        let (near, far) = MemoryLink::pair(capacity);
        inner.push(attach(&handle, far, Quiet).unwrap());
        let protocol = record.reacting(|_, _| Ok(AfterEof::KeepOpen));
        attach(&handle, near, protocol).unwrap()
    });
    virtual_loop.run_until_idle();
    let inner = inner.try_into().expect("two");
    Bench { virtual_loop, records, outer, inner }
}

#[test]
fn joined_connections_pass_everything_on_both_ways_and_the_ends_one_by_one() {
    let Bench { virtual_loop, records, outer, inner } = bench(100);
    inner[0].pipe_to(inner[1].transport());
    outer[0].write(&common::pattern(10_000));
    outer[1].write(b"back");
    virtual_loop.run_until_idle();
    assert_eq!(records[1].bytes(), common::pattern(10_000));
    assert_eq!(records[0].bytes(), b"back");
    outer[0].write_eof();
    virtual_loop.run_until_idle();
    assert!(records[1].is_eof() && !records[0].is_eof());
    outer[1].write(b"more");
    outer[1].write_eof();
    virtual_loop.run_until_idle();
    assert_eq!(records[0].bytes(), b"backmore");
    for (record, inner) in records.iter().zip(&inner) {
        assert!(record.is_lost() && inner.is_closing());
        assert_eq!(record.error(), None);
        record.assert_order();
    }
}

#[test]
fn who_reads_slowly_on_one_side_is_waited_for_on_the_other() {
    let Bench { virtual_loop, records, outer, inner } = bench(1000);
    inner[0].pipe_to(inner[1].transport());
    outer[1].pause_reading();
    outer[0].write(&vec![1; 10 << 20]);
    virtual_loop.run_until_idle();
    let waits = inner[1].get_write_buffer_size();
    let limits = inner[1].get_write_buffer_limits();
    assert!(waits <= limits.high + 1000, "{waits} bytes wait in the middle");
    assert!(!inner[0].is_reading());
    outer[1].resume_reading();
    virtual_loop.run_until_idle();
    assert_eq!(records[1].count(), 10 << 20);
    assert!(inner[0].is_reading());
    records.iter().for_each(Record::assert_order);
}

#[test]
fn a_failure_on_one_side_is_a_reset_on_the_other() {
    let Bench { virtual_loop, records, outer, inner } = bench(1000);
    inner[0].pipe_to(inner[1].transport());
    virtual_loop.run_until_idle();
    outer[0].reset();
    virtual_loop.run_until_idle();
    assert_eq!(records[1].error(), Some(ErrorKind::ConnectionReset));
    assert!(inner.iter().all(|inner| inner.is_closing()));
}

#[test]
fn what_was_true_before_two_connections_are_joined_is_passed_on_too() {
    // One has ended its side.
    let Bench { virtual_loop, records, outer, inner } = bench(1000);
    inner[0].pause_reading();
    outer[0].write(b"last words");
    outer[0].write_eof();
    virtual_loop.run_until_idle();
    inner[0].pipe_to(inner[1].transport());
    virtual_loop.run_until_idle();
    assert_eq!(records[1].bytes(), b"last words");
    assert!(records[1].is_eof());
    // One has much to write already, and was told to pause.
    let Bench { virtual_loop, records, outer, inner } = bench(1000);
    outer[1].pause_reading();
    inner[1].write(&vec![1; 1 << 20]);
    virtual_loop.run_until_idle();
    inner[0].pipe_to(inner[1].transport());
    assert!(!inner[0].is_reading());
    outer[0].write(b"behind it");
    outer[1].resume_reading();
    virtual_loop.run_until_idle();
    assert!(records[1].bytes().ends_with(b"behind it"));
    // One is over.
    let Bench { virtual_loop, records, inner, .. } = bench(1000);
    inner[1].abort();
    virtual_loop.run_until_idle();
    inner[0].pipe_to(inner[1].transport());
    virtual_loop.run_until_idle();
    assert!(records[0].is_eof() || records[0].is_lost());
}

/// A peer that says back what it hears, and notes it.
fn echo(record: &Record) -> Recorder {
    record.reacting(|moment, transport| {
        if let Moment::Data(data) = moment {
            transport.write(data);
        }
        Ok(AfterEof::Close)
    })
}

/// Whether anything breaks, or is only slow and cut anywhere.
fn proxy_over(chunking: Chunking, breaks: bool) {
    let faults = if breaks { Faults::all() } else { Faults::of(&Fault::HARMLESS) };
    Simulation::new().faults(faults).seeds(20).run(move |sim| async move {
        let network = sim.network();
        network.set_default_path(Path::new().chunking(chunking).buffer(500));
        let heard = Record::new();
        let far = heard.clone();
        let serving = network.on("server", create_server(":7", move || echo(&far)));
        let server = serving.await.unwrap();
        let proxying = network.on("proxy", create_server(":8", || pipe_to("server:7")));
        let proxy = proxying.await.unwrap();
        let (sent, record) = (common::pattern(3000), Record::new());
        if let Ok(client) = create_connection("proxy:8", || record.protocol()).await {
            client.write(&sent);
            client.write_eof();
            sim.wait_for_calm().await;
            sim.calm();
            let ended = tulipa_loop::timeout(600 * SECOND, client.wait_closed()).await;
            if !breaks {
                assert!(ended.is_ok());
                assert_eq!((heard.count(), record.count()), (sent.len(), sent.len()));
                assert_eq!(record.error(), None);
            }
            // There are faults that nobody can see: the far side waits for ever.
            client.abort();
            client.wait_closed().await;
            assert!(sent.starts_with(&heard.bytes()));
            assert!(sent.starts_with(&record.bytes()));
            record.assert_order();
        }
        sim.calm();
        for server in [proxy, server] {
            server.shutdown(60 * SECOND).await;
        }
    });
}

#[test]
fn a_proxy_in_one_line_loses_nothing_over_bad_networks() {
    for chunking in [Chunking::Random, Chunking::OneByte] {
        proxy_over(chunking, false);
        proxy_over(chunking, true);
    }
}

#[test]
fn a_proxy_whose_server_is_not_there_resets_its_client() {
    let event_loop = common::strict_loop();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let (near, far) = common::tcp();
    let connected = connect_accepted_socket(near, || PipeTo::with(Connect::to(address)));
    let near = event_loop.run_until_complete(connected).unwrap().unwrap();
    event_loop.run_until_complete(near.wait_closed()).unwrap();
    let error = io::Read::read(&mut &far, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_client_that_is_ended_ends_the_attempt_to_connect_for_it() {
    let virtual_loop = VirtualLoop::new();
    let network = tulipa_testing::MemoryNetwork::new(virtual_loop.world(), 7);
    network.install(&virtual_loop.handle());
    let ended = virtual_loop.run_until_complete(async move {
        network.host("server");
        network.stall("localhost", "server");
        let proxy = create_server(":8", || pipe_to("server:7")).await.unwrap();
        let lost = Rc::new(RefCell::new(Record::new()));
        let record = lost.borrow().clone();
        let client = create_connection("localhost:8", || record.protocol()).await.unwrap();
        sleep(SECOND).await;
        proxy.abort_clients();
        client.wait_closed().await;
        proxy.shutdown(SECOND).await;
        network.resume("localhost", "server");
        sleep(SECOND).await;
        assert_eq!(network.connections(), 0);
    });
    ended.unwrap();
}
