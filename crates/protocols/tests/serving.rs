//! Servers: where they listen, how they begin and how they end.
#![forbid(unsafe_code)]
#![cfg(unix)]

mod net;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use net::{Book, Directory, Echo, Notes, PATIENCE, Rig, assert_served, echo_server, eventually};
use net::{inet, open};
use tulipa_loop::{spawn, yield_now};
use tulipa_protocols::{
    Address, Connect, Listen, Protocol, Server, Transport, create_connection, create_server,
    create_unix_server,
};

const SECOND: Duration = Duration::from_secs(1);

fn addresses(server: &Server) -> Vec<SocketAddr> {
    server.local_addrs().iter().filter_map(Address::inet).collect()
}

/// Writes more than the operating system takes, and never reads.
struct Flood;

impl Protocol for Flood {
    fn connection_made(&mut self, transport: &Transport) -> std::io::Result<()> {
        transport.write(&vec![7; 32 << 20]);
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_server_listens_on_each_address_of_a_host_once() {
    let rig = Rig::new();
    rig.run(async {
        let (v4, v6) = ("127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap());
        Book::of(&rig).enter("host", &[v4, v6, v4, v6]);
        let server = Listen::on("host:0").and("127.0.0.2:0").serve(|| Echo).await.unwrap();
        let addresses = addresses(&server);
        let hosts: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
        let other = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(hosts, [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), other]);
        for address in addresses {
            assert_ne!(address.port(), 0);
            assert_served(Connect::to(address)).await;
        }
        server.shutdown(SECOND).await;
    });
}

#[test]
fn an_address_that_the_machine_does_not_have_is_passed_over() {
    let rig = Rig::new();
    rig.run(async {
        let foreign = "192.0.2.1:0".parse().unwrap();
        let book = Book::of(&rig);
        book.enter("host", &[foreign, "127.0.0.1:0".parse().unwrap()]);
        let server = create_server("host:0", || Echo).await.unwrap();
        assert_eq!(server.local_addrs().len(), 1);
        server.close();
        book.enter("elsewhere", &[foreign]);
        let error = create_server("elsewhere:0", || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert!(error.to_string().starts_with("cannot listen on 192.0.2.1:0: "), "{error}");
    });
}

#[test]
fn when_one_address_is_taken_none_is_kept() {
    let rig = Rig::new();
    rig.run(async {
        let (other, taken) = echo_server().await;
        let sources = rig.statistics().sources;
        let directory = Directory::new();
        let path = directory.file("socket");
        let listen = Listen::on_unix(&path).and("127.0.0.3:0").and(taken);
        let error = listen.serve(|| Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: ")), "{error}");
        assert!(!path.exists());
        assert_eq!(rig.statistics().sources, sources);
        other.close();
    });
}

#[test]
fn the_empty_host_is_every_address_and_ipv6_sockets_take_ipv6_only() {
    let rig = Rig::new();
    rig.run(async {
        let server = create_server(":0", || Echo).await.unwrap();
        let addresses = addresses(&server);
        let unspecified = [IpAddr::from(Ipv6Addr::UNSPECIFIED), Ipv4Addr::UNSPECIFIED.into()];
        assert_eq!(addresses.iter().map(SocketAddr::ip).collect::<Vec<_>>(), unspecified);
        let (v6, v4) = (addresses[0].port(), addresses[1].port());
        assert_served(Connect::to(("::1", v6))).await;
        assert_served(Connect::to(("127.0.0.1", v4))).await;
        if v6 != v4 {
            let error = create_connection(("127.0.0.1", v6), || Echo).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        server.shutdown(SECOND).await;
        // So both may have the same port.
        let listen = Listen::on(("0.0.0.0", v4)).and(("::", v4));
        listen.serve(|| Echo).await.unwrap().close();
    });
}

#[test]
fn servers_share_a_port_if_both_say_so() {
    let rig = Rig::new();
    rig.run(async {
        let first = Listen::on("127.0.0.1:0").reuse_port(true).serve(|| Echo).await.unwrap();
        let address = inet(&first);
        let error = create_server(address, || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let second = Listen::on(address).reuse_port(true).serve(|| Echo).await.unwrap();
        first.close();
        assert_served(Connect::to(address)).await;
        second.shutdown(SECOND).await;
    });
}

#[test]
fn an_address_whose_connections_are_fading_is_taken_unless_said_otherwise() {
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        // The side that closes first has to remember the connection for a while.
        let notes = Notes::default();
        let client = open(address, &notes).await.unwrap();
        eventually(|| server.client_count() == 1).await;
        server.shutdown(SECOND).await;
        client.wait_closed().await;
        let strict = Listen::on(address).reuse_address(false).serve(|| Echo).await;
        if cfg!(target_os = "linux") {
            assert_eq!(strict.unwrap_err().kind(), ErrorKind::AddrInUse);
        }
        create_server(address, || Echo).await.unwrap().close();
    });
}

#[cfg(target_os = "linux")]
#[test]
fn the_backlog_says_how_many_may_wait() {
    let rig = Rig::new();
    let waiting = |backlog| {
        let listen = Listen::on("127.0.0.1:0").backlog(backlog);
        let server = rig.run(listen.serve(|| Echo)).unwrap();
        let address = inet(&server);
        // The loop does not run meanwhile.
        let limit = Duration::from_millis(100);
        let clients: Vec<_> =
            (0..20).map_while(|_| TcpStream::connect_timeout(&address, limit).ok()).collect();
        server.close();
        clients.len()
    };
    assert!(waiting(2) <= 4);
    assert_eq!(waiting(100), 20);
    assert_eq!(waiting(u32::MAX), 20);
}

#[test]
fn a_server_may_be_made_now_and_start_to_serve_later() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        let listen = Listen::on("127.0.0.1:0").and_unix(&path).start_serving(false);
        let server = listen.serve(|| Echo).await.unwrap();
        let address = inet(&server);
        assert!(!server.is_serving());
        let error = create_connection(address, || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        UnixStream::connect(&path).unwrap_err();
        server.start_serving().unwrap();
        assert!(server.is_serving());
        server.start_serving().unwrap();
        assert_served(Connect::to(address)).await;
        assert_served(Connect::to_unix(&path)).await;
        server.shutdown(SECOND).await;
        assert!(!server.is_serving());
        assert_eq!(server.start_serving().unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_listen_that_fails_says_where() {
    let rig = Rig::new();
    rig.run(async {
        // Two may have bound the same address, but only one may listen.
        let quiet = |to| Listen::on(to).start_serving(false).serve(|| Echo);
        let first = quiet("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
        let address = inet(&first);
        let second = quiet(address).await.unwrap();
        let third = Listen::on("127.0.0.1:0").and(address).start_serving(false);
        let third = third.serve(|| Echo).await.unwrap();
        first.start_serving().unwrap();
        for server in [&second, &third] {
            let error = server.start_serving().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            let text = format!("cannot listen on {address}: ");
            assert!(error.to_string().starts_with(&text), "{error}");
            assert!(!server.is_serving());
        }
        first.close();
        second.start_serving().unwrap();
        assert_served(Connect::to(address)).await;
        third.close();
        second.shutdown(SECOND).await;
    });
}

#[test]
fn close_stops_listening_and_leaves_connections_alone() {
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        let notes = Notes::default();
        let connection = open(address, &notes).await.unwrap();
        eventually(|| server.client_count() == 1).await;
        assert_eq!(server.with_sockets(|_| ()).len(), 1);
        server.close();
        server.close();
        assert!(server.local_addrs().is_empty());
        assert!(server.with_sockets(|_| ()).is_empty());
        let error = create_connection(address, || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        connection.write(b"still here");
        assert_eq!(notes.wait_for(2).await, ["made", "still here"]);
        connection.close();
        server.wait_closed().await;
    });
}

#[test]
fn b80_wait_closed_waits_for_both_in_either_order() {
    let rig = Rig::new();
    rig.run(async {
        // Closed first, then the last client leaves; and the other way round.
        for close_first in [true, false] {
            let (server, address) = echo_server().await;
            let connection = open(address, &Notes::default()).await.unwrap();
            eventually(|| server.client_count() == 1).await;
            let waiting = server.clone();
            let waiting = spawn(async move { waiting.wait_closed().await });
            if close_first {
                server.close();
            } else {
                connection.close();
                eventually(|| server.client_count() == 0).await;
            }
            for _ in 0..5 {
                yield_now().await;
            }
            assert!(!waiting.is_done());
            if close_first {
                connection.close();
            } else {
                server.close();
            }
            waiting.await.unwrap();
            // It is over, so nobody waits.
            server.wait_closed().await;
        }
    });
}

#[test]
fn several_may_wait_and_give_up() {
    let rig = Rig::new();
    rig.run(async {
        let (server, _) = echo_server().await;
        let wait = || {
            let server = server.clone();
            spawn(async move { server.wait_closed().await })
        };
        let (first, second, third) = (wait(), wait(), wait());
        yield_now().await;
        second.cancel();
        assert!(second.await.is_err());
        server.close();
        first.await.unwrap();
        third.await.unwrap();
    });
}

#[test]
fn close_clients_lets_them_finish_and_abort_clients_does_not() {
    let rig = Rig::new();
    for abort in [false, true] {
        let server = rig.run(create_server("127.0.0.1:0", || Flood)).unwrap();
        let address = inet(&server);
        let mut client = TcpStream::connect(address).unwrap();
        rig.run(eventually(|| server.client_count() == 1));
        // It is told in the next turn that it is connected.
        rig.turn();
        server.close();
        if abort {
            server.abort_clients();
        } else {
            server.close_clients();
        }
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // An abort may be seen as a reset.
            let _ = client.read_to_end(&mut bytes);
            bytes.len()
        });
        rig.run(server.wait_closed());
        let received = reader.join().unwrap();
        assert_eq!(received == 32 << 20, !abort, "{received} bytes");
    }
}

#[test]
fn b80_a_shutdown_with_an_idle_client_ends_at_once() {
    let rig = Rig::new();
    let (server, address) = rig.run(echo_server());
    let mut client = TcpStream::connect(address).unwrap();
    rig.run(eventually(|| server.client_count() == 1));
    assert_eq!(rig.run(server.shutdown(PATIENCE * 10)), 0);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    // And again there is nothing to do.
    assert_eq!(rig.run(server.shutdown(Duration::ZERO)), 0);
}

#[test]
fn b80_a_shutdown_aborts_who_never_reads_when_the_grace_is_over() {
    let rig = Rig::new();
    let server = rig.run(create_server("127.0.0.1:0", || Flood)).unwrap();
    let address = inet(&server);
    let _stuck = TcpStream::connect(address).unwrap();
    rig.run(eventually(|| server.client_count() == 1));
    let grace = PATIENCE / 2;
    let ending = server.clone();
    let ending = rig.spawn(async move { ending.shutdown(grace).await });
    for _ in 0..20 {
        rig.turn();
    }
    assert!(!ending.is_done());
    assert!(!server.is_serving());
    rig.leap(grace);
    assert_eq!(rig.run(ending).unwrap(), 1);
    assert_eq!(server.client_count(), 0);
}

#[test]
fn clients_that_end_while_the_server_shuts_down_do_no_harm() {
    let rig = Rig::new();
    let (server, address) = rig.run(echo_server());
    let mut clients: Vec<_> = (0..12).map(|_| TcpStream::connect(address).unwrap()).collect();
    rig.run(eventually(|| server.client_count() == 12));
    for (number, client) in clients.iter_mut().enumerate() {
        match number % 3 {
            0 => client.shutdown(std::net::Shutdown::Write).unwrap(),
            1 => client.write_all(b"unread").unwrap(),
            _ => {}
        }
    }
    let ending = server.clone();
    let ending = rig.spawn(async move { ending.shutdown(PATIENCE).await });
    clients.truncate(8);
    assert_eq!(rig.run(ending).unwrap(), 0);
    for mut client in clients {
        // Whoever has sent what was not read may see a reset.
        let _ = client.read_to_end(&mut Vec::new());
    }
}

#[test]
fn serve_forever_ends_when_the_server_is_closed() {
    let rig = Rig::new();
    rig.run(async {
        let server = Listen::on("127.0.0.1:0").start_serving(false).serve(|| Echo).await.unwrap();
        let address = inet(&server);
        let serving = server.clone();
        let serving = spawn(async move { serving.serve_forever().await });
        yield_now().await;
        assert!(server.is_serving());
        assert_served(Connect::to(address)).await;
        // One at a time, which does not end the first.
        let error = server.serve_forever().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_served(Connect::to(address)).await;
        server.close();
        serving.await.unwrap().unwrap();
        let error = server.serve_forever().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn b80_serve_forever_that_is_cancelled_closes_the_server_and_does_not_wait_for_clients() {
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        let notes = Notes::default();
        let idle = open(address, &notes).await.unwrap();
        eventually(|| server.client_count() == 1).await;
        let serving = server.clone();
        let serving = spawn(async move { serving.serve_forever().await });
        yield_now().await;
        serving.cancel();
        assert!(serving.await.is_err());
        assert!(!server.is_serving());
        create_connection(address, || Echo).await.unwrap_err();
        idle.write(b"alive");
        assert_eq!(notes.wait_for(2).await, ["made", "alive"]);
        server.shutdown(SECOND).await;
    });
}

#[test]
fn b81_a_server_whose_handles_are_gone_serves_on() {
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        drop(server);
        for _ in 0..3 {
            assert_served(Connect::to(address)).await;
        }
    });
}

#[test]
fn a_closed_loop_closes_its_servers() {
    let rig = Rig::new();
    let directory = Directory::new();
    let path = directory.file("socket");
    let dropped = Rc::new(());
    let held = dropped.clone();
    let server = rig.run(create_unix_server(&path, move || {
        let _held = &held;
        Echo
    }));
    let server = server.unwrap();
    let notes = Notes::default();
    let client = rig.run(Connect::to_unix(&path).open(|| notes.tape())).unwrap();
    rig.run(eventually(|| server.client_count() == 1));
    rig.close().unwrap();
    assert!(!server.is_serving());
    assert!(!path.exists());
    assert_eq!(server.client_count(), 0);
    assert_eq!(Rc::strong_count(&dropped), 1, "the factory is dropped");
    assert!(client.is_closing());
    assert_eq!(notes.take(), ["made", "lost: the event loop was closed"]);
    server.close();
    server.close_clients();
    server.abort_clients();
}

#[test]
fn a_server_that_was_never_finished_is_closed() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        let sources = rig.statistics().sources;
        // It is given up while it asks for the addresses of the second.
        struct Silent;
        impl tulipa_protocols::Resolver for Silent {
            fn resolve(
                &self,
                _: &tulipa_loop::LoopHandle,
                _: &str,
                _: u16,
            ) -> tulipa_protocols::Resolved {
                Box::pin(std::future::pending())
            }
        }
        tulipa_protocols::set_resolver(&rig, Some(Rc::new(Silent)));
        let serve = Listen::on_unix(&path).and("host:0").serve(|| Echo);
        let serving = spawn(serve);
        yield_now().await;
        assert!(path.exists());
        serving.cancel();
        assert!(serving.await.is_err());
        assert!(!path.exists());
        assert_eq!(rig.statistics().sources, sources);
    });
}

#[test]
fn a_server_tells_what_it_is() {
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        let text = format!("{server:?}");
        assert!(text.starts_with(&format!("<Server Serving on [{address}] sockets=[")), "{text}");
        assert_eq!(server.get_loop().id(), rig.id());
        server.close();
        assert_eq!(format!("{server:?}"), "<Server Closed on [] sockets=[] clients=0>");
    });
}
