//! Datagrams through the simulated network: what it does to them, and a program that gets along with it.
#![cfg(unix)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::{sleep, spawn, timeout};
use tulipa_streams::DatagramStream;
use tulipa_testing::{
    DatagramCall, DatagramRecord, Fault, Faults, MemoryNetwork, Path, Sim, Simulation, VirtualLoop,
};

/// How many requests a client makes, and how often one at most.
const REQUESTS: u64 = 10;
const MOST_TRIES: usize = 300;

type Done = Rc<RefCell<BTreeMap<u64, u64>>>;

fn answer(request: u64) -> u64 {
    request.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17)
}

/// Does each request once, however often it comes, and answers each time. What is no request is passed over.
async fn server(stream: DatagramStream, done: Done) {
    let mut buffer = [0; 64];
    loop {
        let received = match stream.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(_) if stream.transport().is_closing() => return,
            Err(_) => continue,
        };
        let request = <[u8; 8]>::try_from(&buffer[..received.length]);
        let Some(request) = request.ok().filter(|_| !received.truncated) else { continue };
        let request = u64::from_be_bytes(request);
        if !done.borrow().contains_key(&request) {
            sleep(Duration::from_millis(3)).await;
            *done.borrow_mut().entry(request).or_insert(0) += 1;
        }
        let mut reply = request.to_be_bytes().to_vec();
        reply.extend_from_slice(&answer(request).to_be_bytes());
        if stream.send_to(&reply, &received.from).await.is_err() {
            return;
        }
    }
}

/// Asks until it is answered. Answers to earlier requests, and what is none, are passed over.
async fn ask(stream: &DatagramStream, request: u64) -> u64 {
    let mut buffer = [0; 64];
    for _ in 0..MOST_TRIES {
        stream.send(&request.to_be_bytes()).await.expect("the stream is open");
        let waiting = timeout(Duration::from_millis(300), async {
            loop {
                let Ok(received) = stream.recv_from(&mut buffer).await else { continue };
                let data = &buffer[..received.length];
                if !received.truncated && data.len() == 16 && data[..8] == request.to_be_bytes() {
                    return u64::from_be_bytes(data[8..].try_into().expect("8 bytes"));
                }
            }
        });
        if let Ok(answer) = waiting.await {
            return answer;
        }
    }
    panic!("request {request} was never answered")
}

async fn requests(sim: Sim) {
    let (network, done) = (sim.network().clone(), Done::default());
    network.set_default_path(
        Path::new().latency(Duration::from_millis(1)..=Duration::from_millis(40)),
    );
    let listening = network.on("server", DatagramStream::bind(":9")).await.expect("it is free");
    let transport = listening.transport().clone();
    let serving = spawn(network.on("server", server(listening, done.clone())));
    let seen = done.clone();
    sim.invariant(move || match seen.borrow().values().find(|times| **times != 1) {
        Some(times) => Err(format!("a request was done {times} times")),
        None => Ok(()),
    });
    let clients: Vec<_> = (0..3)
        .map(|client| {
            let done = done.clone();
            spawn(network.on(&format!("client{client}"), async move {
                let stream = DatagramStream::connect("server:9").await.expect("there is a way");
                for number in 0..REQUESTS {
                    let request = client * REQUESTS + number;
                    assert_eq!(ask(&stream, request).await, answer(request));
                    assert!(
                        done.borrow().contains_key(&request),
                        "it was done before it was answered"
                    );
                }
            }))
        })
        .collect();
    for client in clients {
        client.await.expect("it does not panic");
    }
    assert_eq!(done.borrow().len() as u64, 3 * REQUESTS);
    transport.close();
    serving.await.expect("it does not panic");
    transport.wait_closed().await;
}

fn faults() -> Faults {
    let harmless = [Fault::ShortWrite, Fault::ShuffledEvents, Fault::Interrupted];
    let more = Faults::of(&Fault::DATAGRAM);
    harmless.into_iter().fold(more, |all, fault| all.with(fault, 200))
}

#[test]
fn requests_are_answered_whatever_the_network_does_to_datagrams() {
    let summary = Simulation::new().seeds(100).faults(faults()).run(requests);
    if summary.seeds >= 100 {
        for fault in Fault::DATAGRAM.into_iter().chain([Fault::ShortWrite]) {
            assert!(summary.faults.of(fault) > 0, "{fault:?} happens: {:?}", summary.faults);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let hash = || Simulation::new().seeds(3).faults(faults()).run(requests);
    assert_eq!(format!("{:?}", hash().faults), format!("{:?}", hash().faults));
}

/// What comes of ten datagrams with one fault, which strikes always.
fn with_fault(fault: Fault) -> (Vec<DatagramCall>, u64, String) {
    let virtual_loop = VirtualLoop::new();
    let network = MemoryNetwork::new(virtual_loop.world(), 3);
    network.keep_trace();
    network.install(&virtual_loop);
    network.set_faults(Faults::none().with(fault, 1000));
    let record = DatagramRecord::new();
    let told = record.clone();
    virtual_loop
        .run_until_complete(async {
            let datagrams = tulipa_protocols::Datagrams::at(":9");
            let server = network.on("server", datagrams.open(|| record.protocol())).await?;
            let client = DatagramStream::connect("server:9").await?;
            for number in 0..10 {
                client.send(&[number, 7]).await?;
            }
            client.flush().await;
            sleep(Duration::from_secs(10)).await;
            server.abort();
            server.wait_closed().await;
            io::Result::Ok(())
        })
        .unwrap()
        .unwrap();
    told.assert_order();
    let calls = told.calls();
    let inner = calls[1..calls.len() - 1].to_vec();
    (inner, network.fault_counts().of(fault), format!("{:?}", network.trace()))
}

#[test]
fn each_fault_of_datagrams_does_what_it_says_and_is_counted() {
    let datagram = |number: u8| DatagramCall::Datagram(vec![number, 7]);
    let (calls, count, trace) = with_fault(Fault::DatagramLost);
    assert_eq!((calls.len(), count), (0, 10));
    assert!(trace.contains("lost"), "{trace}");
    let (calls, count, _) = with_fault(Fault::DatagramDuplicated);
    let twice: Vec<_> = (0..10).flat_map(|number| [datagram(number), datagram(number)]).collect();
    assert_eq!((calls, count), (twice, 10));
    let (calls, count, _) = with_fault(Fault::DatagramEmpty);
    let empty = DatagramCall::Datagram(Vec::new());
    let before: Vec<_> = (0..10).flat_map(|number| [empty.clone(), datagram(number)]).collect();
    assert_eq!((calls, count), (before, 10));
    let (calls, count, _) = with_fault(Fault::DatagramTruncated);
    let cut = |call: &DatagramCall| matches!(call, DatagramCall::Truncated(data) if data.len() < 2);
    assert!(calls.len() == 10 && calls.iter().all(cut) && count == 10, "{calls:?}");
    let (calls, count, _) = with_fault(Fault::DatagramReordered);
    let in_order: Vec<_> = (0..10).map(datagram).collect();
    assert_ne!(calls, in_order);
    assert!(in_order.iter().all(|sent| calls.contains(sent)) && count == 10);
}

#[test]
fn simulated_datagrams_behave_as_those_of_an_operating_system() {
    let virtual_loop = VirtualLoop::new();
    let network = MemoryNetwork::new(virtual_loop.world(), 1);
    network.install(&virtual_loop);
    virtual_loop
        .run_until_complete(async {
            let mut buffer = [0; 100];
            let client = network.on("client", DatagramStream::connect("server:9")).await;
            assert_eq!(client.unwrap_err().kind(), io::ErrorKind::NotFound);
            network.host("server");
            let client = network.on("client", DatagramStream::connect("server:9")).await?;
            client.send(b"nobody").await?;
            let refused = client.recv(&mut buffer).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let server = network.on("server", DatagramStream::bind(":9")).await?;
            let taken = network.on("server", DatagramStream::bind(":9")).await.unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
            client.send(b"").await?;
            let received = server.recv_from(&mut buffer).await?;
            assert_eq!((received.length, Some(received.from)), (0, client.local_addr()));
            let stranger = network.on("client", DatagramStream::bind(":0")).await?;
            let to = client.local_addr().and_then(|address| address.inet()).expect("an address");
            stranger.send_to(b"not yours", to).await?;
            server.send_to(b"yours", to).await?;
            assert_eq!(client.recv(&mut buffer).await?, 5);
            client.send(&vec![0; 65_508]).await?;
            client.flush().await;
            assert!(client.recv(&mut buffer).await.unwrap_err().to_string().contains("send"));
            let nowhere: SocketAddr = "192.0.2.1:9".parse().expect("an address");
            stranger.send_to(b"", nowhere).await?;
            stranger.flush().await;
            let error = stranger.recv(&mut buffer).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
            // What finds no room is lost.
            for _ in 0..100 {
                client.send(&[1; 1000]).await?;
            }
            client.flush().await;
            let mut count = 0;
            while timeout(Duration::from_secs(1), server.recv(&mut [0; 1000])).await.is_ok() {
                count += 1;
            }
            assert_eq!(count, 64 * 1024 / 1064);
            io::Result::Ok(())
        })
        .unwrap()
        .unwrap();
}

#[test]
fn b114_a_socket_that_mostly_takes_nothing_gets_all_of_it_in_order() {
    let virtual_loop = VirtualLoop::new();
    let network = MemoryNetwork::new(virtual_loop.world(), 5);
    network.install(&virtual_loop);
    network.set_faults(Faults::none().with(Fault::ShortWrite, 900));
    let (sent, told) = (DatagramRecord::new(), DatagramRecord::new());
    virtual_loop
        .run_until_complete(async {
            let datagrams = tulipa_protocols::Datagrams::at(":9");
            let server = datagrams.open(|| told.protocol()).await?;
            let client = tulipa_protocols::Datagrams::to("127.0.0.1:9");
            let client = client.open(|| sent.protocol()).await?;
            let limits = tulipa_protocols::WriteBufferLimits { low: 500, high: 3000 };
            client.set_write_buffer_limits(limits);
            for number in 0..200_u8 {
                client.send(&[number; 3]);
                if number % 50 == 49 {
                    client.drained().await;
                }
            }
            client.close();
            client.wait_closed().await;
            sleep(Duration::from_secs(1)).await;
            server.close();
            server.wait_closed().await;
            io::Result::Ok(())
        })
        .unwrap()
        .unwrap();
    let expected: Vec<_> = (0..200_u8).map(|number| vec![number; 3]).collect();
    assert_eq!(told.datagrams(), expected);
    sent.assert_order();
    assert!(sent.has(&DatagramCall::Pause) && sent.has(&DatagramCall::Resume));
    assert!(network.fault_counts().of(Fault::ShortWrite) > 200);
}
