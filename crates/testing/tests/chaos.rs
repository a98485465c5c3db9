//! `chaos_proxy`, over a simulated network and over sockets.

#![cfg(unix)]

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use tulipa_protocols::{Protocol, Transport, create_connection, create_server};
use tulipa_testing::{Chaos, Clock, MemoryNetwork, TestRunner, VirtualLoop, chaos_proxy};

const GRACE: Duration = Duration::from_secs(20);

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        transport.write(data);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Client {
    received: Rc<RefCell<Vec<u8>>>,
    pieces: Rc<Cell<usize>>,
    lost: Rc<Cell<Option<ErrorKind>>>,
}

impl Protocol for Client {
    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        self.received.borrow_mut().extend_from_slice(data);
        self.pieces.set(self.pieces.get() + 1);
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        self.lost.set(error.map(|error| error.kind()));
    }
}

/// Sends bytes through a proxy to an echo server, and waits for the end.
async fn through(chaos: Chaos, sent: &[u8]) -> Client {
    let far = create_server("127.0.0.1:0", || Echo).await.unwrap();
    let address = far.local_addrs()[0].inet().unwrap();
    let proxy = chaos_proxy("127.0.0.1:0", address, chaos).await.unwrap();
    let address = proxy.local_addrs()[0].inet().unwrap();
    let client = Client::default();
    let own = client.clone();
    let connection = create_connection(address, move || own).await.unwrap();
    connection.write(sent);
    connection.write_eof();
    connection.wait_closed().await;
    assert_eq!(proxy.shutdown(GRACE).await + far.shutdown(GRACE).await, 0);
    client
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|place| (place % 251) as u8).collect()
}

fn simulated<T>(test: impl Future<Output = T>) -> (T, Duration) {
    let virtual_loop = VirtualLoop::new();
    MemoryNetwork::new(virtual_loop.world(), 1).install(&virtual_loop);
    let result = virtual_loop.run_until_complete(test).expect("it ends");
    (result, virtual_loop.elapsed())
}

#[test]
fn what_is_split_delayed_and_stalled_arrives_whole() {
    let sent = bytes(1_000_000);
    let second = Duration::from_secs(1);
    let chaos = |seed| {
        let calm = Chaos::new(seed).split(true).delay(Duration::ZERO..=second / 10);
        calm.stall(100, second..=60 * second)
    };
    for seed in 0..5 {
        let (client, took) = simulated(through(chaos(seed), &sent));
        assert_eq!(client.lost.get(), None);
        assert!(*client.received.borrow() == sent, "seed {seed}");
        assert!(took > second, "it takes its time: {took:?}");
    }
    let (client, _) = simulated(through(Chaos::new(0).split(true), b"hello, world"));
    assert!(client.pieces.get() > 0 && *client.received.borrow() == b"hello, world");
}

#[test]
fn what_is_reset_is_reset_for_both_after_some_bytes() {
    let sent = bytes(10_000);
    for seed in 0..20 {
        let (client, _) = simulated(through(Chaos::new(seed).reset(1000, 5_000), &sent));
        assert_eq!(client.lost.get(), Some(ErrorKind::ConnectionReset), "seed {seed}");
        assert!(client.received.borrow().len() <= 5_000);
        assert!(sent.starts_with(&client.received.borrow()));
    }
}

#[test]
fn a_client_for_whom_there_is_no_server_is_reset() {
    let (lost, _) = simulated(async {
        let proxy = chaos_proxy("localhost:1", "localhost:2", Chaos::new(0)).await.unwrap();
        let client = Client::default();
        let own = client.clone();
        let connection = create_connection("localhost:1", move || own).await.unwrap();
        connection.wait_closed().await;
        proxy.shutdown(GRACE).await;
        client.lost.get()
    });
    assert_eq!(lost, Some(ErrorKind::ConnectionReset));
}

#[test]
fn sockets_are_treated_as_badly() {
    TestRunner::new().clock(Clock::Real).run(async {
        let sent = bytes(300_000);
        let chaos = Chaos::new(3).split(true).delay(Duration::ZERO..=Duration::from_micros(500));
        let client = through(chaos, &sent).await;
        assert!(*client.received.borrow() == sent && client.lost.get().is_none());
        let client = through(Chaos::new(3).reset(1000, 5_000), &sent).await;
        assert!(client.lost.get().is_some() && sent.starts_with(&client.received.borrow()));
    });
}
