//! Happy eyeballs (RFC 8305): several addresses of one host.
#![forbid(unsafe_code)]
#![cfg(unix)]

mod net;

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use net::{Blackhole, Book, Echo, Notes, Rig, assert_served, echo_server, eventually, refusing};
use tulipa_loop::spawn;
use tulipa_protocols::{Address, Connect, ConnectError, create_connection};

fn attempts(error: &std::io::Error) -> Vec<SocketAddr> {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectError>());
    let attempts = &error.expect("it says what was tried").attempts;
    attempts.iter().map(|(address, _)| address.inet().expect("an internet address")).collect()
}

#[test]
fn addresses_that_refuse_are_passed_over_at_once() {
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        let book = Book::of(&rig);
        book.enter("host", &[refusing(), refusing(), address]);
        // The delay is never waited for.
        let delay = Some(Duration::from_secs(3600));
        assert_served(Connect::to("host:1").happy_eyeballs_delay(delay)).await;
        assert_served(Connect::to("host:1").happy_eyeballs_delay(None)).await;
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn b79_an_address_that_does_not_answer_does_not_keep_the_next_one_waiting() {
    let rig = Rig::new();
    let hole = Blackhole::new();
    let (server, address) = rig.run(echo_server());
    let book = Book::of(&rig);
    book.enter("host", &[hole.address, address]);
    let notes = Notes::default();
    let made = notes.clone();
    let delay = Duration::from_secs(1000);
    let connect = Connect::to("host:1").happy_eyeballs_delay(Some(delay));
    let connecting = rig.spawn(connect.open(move || made.tape()));
    for _ in 0..20 {
        rig.turn();
    }
    assert_eq!(server.client_count(), 0, "not before the delay is over");
    rig.leap(delay);
    let connection = rig.run(connecting).unwrap().unwrap();
    assert_eq!(notes.take(), ["made"]);
    assert_eq!(connection.peer_addr(), Some(Address::Inet(address)));
    assert_eq!((rig.statistics().timers, rig.statistics().tasks), (0, 0));
    connection.abort();
    rig.run(server.shutdown(Duration::ZERO));
}

#[test]
fn without_a_delay_addresses_are_tried_one_after_the_other_in_the_resolvers_order() {
    let rig = Rig::new();
    rig.run(async {
        let book = Book::of(&rig);
        let v6: SocketAddr = "[::1]:1".parse().unwrap();
        let (first, second) = (refusing(), refusing());
        book.enter("host", &[first, second, v6]);
        let connect = Connect::to("host:1").happy_eyeballs_delay(None);
        let error = connect.open(|| Echo).await.unwrap_err();
        assert_eq!(attempts(&error), [first, second, v6]);
        // With one the families take turns.
        let error = create_connection("host:1", || Echo).await.unwrap_err();
        assert_eq!(attempts(&error), [first, v6, second]);
    });
}

#[test]
fn b79_all_errors_are_reported_with_their_addresses() {
    let rig = Rig::new();
    rig.run(async {
        let book = Book::of(&rig);
        let addresses = [refusing(), "255.255.255.255:1".parse().unwrap(), refusing()];
        book.enter("host", &addresses);
        let error = create_connection("host:1", || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(attempts(&error), addresses);
        let text = error.to_string();
        assert!(text.starts_with("cannot connect to host:1: "), "{text}");
        for address in addresses {
            assert!(text.contains(&format!("{address}: ")), "{text}");
        }
    });
}

#[test]
fn b79_a_host_without_addresses_is_an_error() {
    let rig = Rig::new();
    rig.run(async {
        let book = Book::of(&rig);
        book.enter("nowhere", &[]);
        let error = create_connection("nowhere:1", || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "cannot resolve nowhere: it has no addresses");
    });
}

#[test]
fn b79_exactly_one_wins_and_the_losers_are_closed() {
    let rig = Rig::new();
    rig.run(async {
        // They all answer, and nobody is waited for before the next begins.
        let listeners: Vec<_> = (0..8).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let book = Book::of(&rig);
        book.enter("host", &addresses);
        for _ in 0..50 {
            let notes = Notes::default();
            let connect = Connect::to("host:1").happy_eyeballs_delay(Some(Duration::ZERO));
            let connection = connect.open(|| notes.tape()).await.unwrap();
            assert_eq!(notes.take(), ["made"]);
            let winner = connection.peer_addr().unwrap().inet().unwrap();
            let mut open = Vec::new();
            for listener in &listeners {
                listener.set_nonblocking(true).unwrap();
                while let Ok((client, _)) = listener.accept() {
                    client.set_nonblocking(true).unwrap();
                    open.push(client);
                }
            }
            for client in &mut open {
                let is_winner = client.local_addr().unwrap() == winner;
                // An end or a reset; or nothing yet.
                let end = client.read(&mut [0]).map_err(|error| error.kind());
                assert_eq!(end == Err(ErrorKind::WouldBlock), is_winner, "{end:?}");
            }
            connection.abort();
        }
    });
}

#[test]
fn an_error_that_comes_late_does_not_undo_a_connection() {
    let rig = Rig::new();
    let hole = Blackhole::new();
    let (server, address) = rig.run(echo_server());
    Book::of(&rig).enter("host", &[hole.address, refusing(), address]);
    let delay = Duration::from_secs(1000);
    let connect = Connect::to("host:1").happy_eyeballs_delay(Some(delay));
    let connecting = rig.spawn(connect.open(|| Echo));
    rig.run(eventually(|| rig.statistics().sources > 1));
    rig.leap(delay);
    let connection = rig.run(connecting).unwrap().unwrap();
    assert_eq!(connection.peer_addr(), Some(Address::Inet(address)));
    connection.abort();
    rig.run(server.shutdown(Duration::ZERO));
}

#[test]
fn a_race_that_is_given_up_ends_its_attempts() {
    let rig = Rig::new();
    let holes = [Blackhole::new(), Blackhole::new()];
    Book::of(&rig).enter("host", &holes.each_ref().map(|hole| hole.address));
    let sources = rig.statistics().sources;
    rig.run(async {
        let connect = Connect::to("host:1").happy_eyeballs_delay(Some(Duration::from_millis(1)));
        let connecting = spawn(connect.open(|| Echo));
        eventually(|| rig.statistics().sources == sources + 2).await;
        connecting.cancel();
        assert!(connecting.await.is_err());
        eventually(|| rig.statistics().sources == sources && rig.statistics().tasks <= 1).await;
    });
}
