//! Connecting: to one address, from one, in time, over every kind of socket.
#![forbid(unsafe_code)]
#![cfg(unix)]

mod net;

use std::cell::Cell;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::time::Duration;

use net::{Blackhole, Book, Directory, Echo, Notes, Rig, echo_server, eventually, inet, open};
use net::{assert_served, refusing};
use tulipa_loop::spawn;
use tulipa_protocols::{
    Address, Connect, ConnectError, Listen, NetExt, Protocol, Transport, create_connection,
    create_server, create_unix_connection, create_unix_server,
};

fn connect_error(error: &io::Error) -> &ConnectError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).expect("it says what was tried")
}

#[test]
fn a_connection_is_made_before_it_is_returned_and_before_any_data() {
    let rig = Rig::new();
    rig.run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // The peer speaks first, at once.
        let peer = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(b"welcome").unwrap();
        });
        let notes = Notes::default();
        let connection = open(address, &notes).await.unwrap();
        assert!(notes.len() >= 1, "it was made before it was returned");
        assert_eq!(connection.peer_addr(), Some(address.into()));
        assert_eq!(notes.wait_for(4).await, ["made", "welcome", "eof", "lost"]);
        peer.join().unwrap();
    });
}

#[test]
fn the_factory_is_not_called_when_nothing_connects() {
    let rig = Rig::new();
    rig.run(async {
        let called = Cell::new(false);
        let address = refusing();
        let factory = || {
            called.set(true);
            Echo
        };
        let error = create_connection(address, factory).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(error.to_string(), format!("cannot connect to {address}: {}", attempt(&error)));
        let attempts = &connect_error(&error).attempts;
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].0, Address::Inet(address));
        assert!(!called.get());
    });
}

fn attempt(error: &io::Error) -> String {
    connect_error(error).attempts[0].1.to_string()
}

#[test]
fn b78_a_refused_connection_is_an_error_with_the_address() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        drop(UnixListener::bind(&path).unwrap());
        let error = create_unix_connection(&path, || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let error = create_unix_connection(directory.file("none"), || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_socket_is_not_connected_to_itself() {
    let rig = Rig::new();
    rig.run(async {
        // The operating system picks such a port once in ten thousands of times. No other test uses this address.
        let free = std::net::TcpListener::bind("127.0.0.9:0").unwrap().local_addr().unwrap();
        let error = Connect::to(free).local_addr(free).open(|| Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains("itself"), "{error}");
    });
}

#[test]
fn b78_a_blackhole_ends_with_the_timeout() {
    let rig = Rig::new();
    let hole = Blackhole::new();
    let connect = Connect::to(hole.address).timeout(Duration::from_secs(5)).open(|| Echo);
    let handle = rig.handle();
    let connecting = handle.spawn(connect);
    let before = rig.statistics();
    for _ in 0..20 {
        rig.turn();
    }
    // It waits, and does not ask again and again.
    assert!(rig.statistics().events <= before.events + 1, "{:?}", rig.statistics());
    rig.leap(Duration::from_secs(5));
    let error = rig.run(connecting).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let text = format!("cannot connect to {}: no answer in time", hole.address);
    assert_eq!(error.to_string(), text);
    assert_eq!((rig.statistics().timers, rig.statistics().tasks), (0, 0));
}

#[test]
fn the_timeout_includes_the_question_for_the_addresses() {
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
    let rig = Rig::new();
    tulipa_protocols::set_resolver(&rig, Some(Rc::new(Silent)));
    let connect = Connect::to("example:80").timeout(Duration::from_secs(5)).open(|| Echo);
    let connecting = rig.spawn(connect);
    rig.turn();
    rig.leap(Duration::from_secs(5));
    let error = rig.run(connecting).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn b78_a_unix_server_with_a_full_queue_is_waited_for() {
    let rig = Rig::new();
    let directory = Directory::new();
    let path = directory.file("socket");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    rig.run(async {
        let notes = Notes::default();
        let mut tasks = Vec::new();
        // More than the queue takes.
        for _ in 0..8 {
            let (path, notes) = (path.clone(), notes.clone());
            tasks.push(spawn(async move {
                let connection = create_unix_connection(path, || notes.tape()).await?;
                io::Result::Ok(connection)
            }));
        }
        eventually(|| notes.len() > 0).await;
        assert!(notes.len() < 8, "the queue is not full");
        // Whoever waits for room gets it when others were accepted.
        let accept = std::thread::spawn(move || -> Vec<_> {
            (0..8).map(|_| listener.accept().unwrap().0).collect()
        });
        for task in tasks {
            task.await.unwrap().unwrap().abort();
        }
        drop(accept.join().unwrap());
    });
}

#[test]
fn b78_a_unix_server_whose_queue_stays_full_is_given_up() {
    let rig = Rig::new();
    let directory = Directory::new();
    let path = directory.file("socket");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let opened = Rc::new(Cell::new(0));
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (path, opened) = (path.clone(), opened.clone());
        tasks.push(rig.spawn(async move {
            let result = create_unix_connection(path, || Echo).await;
            opened.set(opened.get() + 1);
            result
        }));
    }
    let turns = 100;
    for _ in 0..turns {
        rig.turn();
        rig.leap(Duration::from_millis(100));
    }
    assert_eq!(opened.get(), 8, "after {turns} retries");
    let results: Vec<_> = rig.run(async {
        let mut results = Vec::new();
        for task in tasks {
            results.push(task.await.unwrap());
        }
        results
    });
    let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(!refused.is_empty());
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(error.to_string().contains("stays full"), "{error}");
    }
    results.iter().flatten().for_each(|connection| connection.abort());
    rig.turn();
}

#[test]
fn an_address_of_our_own_is_bound_before_connecting() {
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        let own: SocketAddr = "127.0.0.2:0".parse().unwrap();
        let connect = Connect::to(address).local_addr(own);
        let connection = connect.open(|| Echo).await.unwrap();
        let local = connection.local_addr().unwrap().inet().unwrap();
        assert_eq!(local.ip(), own.ip());
        connection.abort();

        // The one of the right family is used.
        let handle = tulipa_loop::LoopHandle::current();
        let book = Book::of(&handle);
        book.enter("us", &["[::1]:0".parse().unwrap(), "127.0.0.3:0".parse().unwrap()]);
        let connection = Connect::to(address).local_addr("us:0").open(|| Echo).await.unwrap();
        let local = connection.local_addr().unwrap().inet().unwrap();
        assert_eq!(local.ip(), IpAddr::from(Ipv4Addr::new(127, 0, 0, 3)));
        connection.abort();
        server.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_local_address_that_does_not_fit_is_named_in_the_error() {
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        let v6: SocketAddr = "[::1]:0".parse().unwrap();
        let error = Connect::to(address).local_addr(v6).open(|| Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert!(error.to_string().contains("none of the local addresses"), "{error}");

        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _holder = std::net::TcpListener::bind(taken).unwrap();
        let error = Connect::to(address).local_addr(taken).open(|| Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&format!("cannot bind to {taken}")), "{error}");
        server.close();
    });
}

#[test]
fn connections_go_over_ipv6_and_unix_sockets_with_and_without_a_file() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        let listen = Listen::on("[::1]:0").and_unix(&path);
        let server = listen.serve(|| Echo).await.unwrap();
        assert_eq!(server.local_addrs().len(), 2);
        assert_served(Connect::to(inet(&server))).await;
        assert_served(Connect::to_unix(&path)).await;
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[cfg(target_os = "linux")]
#[test]
fn connections_go_over_abstract_names() {
    let rig = Rig::new();
    rig.run(async {
        let name = format!("tulipa-{}", std::process::id());
        let server = Listen::on_abstract(name.clone()).serve(|| Echo).await.unwrap();
        assert_eq!(server.local_addrs(), [Address::Abstract(name.clone().into())]);
        assert_eq!(server.local_addrs()[0].to_string(), format!("unix:@{name}"));
        assert_served(Connect::to_abstract(name.clone())).await;
        let error = Listen::on_abstract(name.clone()).serve(|| Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        server.shutdown(Duration::from_secs(1)).await;
        let error = Connect::to_abstract(name).open(|| Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_path_that_is_too_long_is_an_error() {
    let rig = Rig::new();
    rig.run(async {
        let path = "x".repeat(200);
        let error = create_unix_connection(&path, || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = create_unix_server(&path, || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn an_endpoint_that_makes_no_sense_is_an_error_and_no_panic() {
    let rig = Rig::new();
    rig.run(async {
        for text in ["", "localhost", "localhost:", "localhost:65536", "::1:80", "a:b:c", ":-1"] {
            let error = create_connection(text, || Echo).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            let error = create_server(text, || Echo).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
        assert!(create_connection("a\0b:80", || Echo).await.is_err());
    });
}

#[test]
fn a_factory_that_panics_leaves_no_connection() {
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        let connecting = spawn(async move {
            fn factory() -> Echo {
                panic!("no protocol today")
            }
            create_connection(address, factory).await
        });
        assert!(connecting.await.is_err());
        // The server sees it come and go.
        assert_served(Connect::to(address)).await;
        eventually(|| server.client_count() == 0).await;
        server.close();
    });
}

#[test]
fn a_protocol_that_fails_in_connection_made_is_still_connected_for_its_creator() {
    struct Fails(Notes);
    impl Protocol for Fails {
        fn connection_made(&mut self, _: &Transport) -> io::Result<()> {
            Err(io::Error::other("I do not want it"))
        }

        fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
            self.0.add(error.unwrap().to_string());
        }
    }
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        let notes = Notes::default();
        let connection = create_connection(address, || Fails(notes.clone())).await.unwrap();
        connection.wait_closed().await;
        assert_eq!(notes.take(), ["I do not want it"]);
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn the_same_is_there_as_methods_of_the_handle() {
    let rig = Rig::new();
    let directory = Directory::new();
    let path = directory.file("socket");
    let server = rig.run(rig.create_server("127.0.0.1:0", || Echo)).unwrap();
    let unix_server = rig.run(rig.create_unix_server(&path, || Echo)).unwrap();
    let (notes, address) = (Notes::default(), inet(&server));
    // From a callback, where nothing can be awaited.
    let made = notes.clone();
    rig.call_soon(move |handle| {
        let connecting = handle.create_connection(address, move || made.tape());
        let task = handle.spawn(async move {
            connecting.await.unwrap().write(b"1");
        });
        drop(task);
    });
    assert_eq!(rig.run(notes.wait_for(2)), ["made", "1"]);
    let made = notes.clone();
    let connection = rig.run(rig.create_unix_connection(&path, move || made.tape())).unwrap();
    connection.write(b"2");
    assert_eq!(rig.run(notes.wait_for(2)), ["made", "2"]);
    connection.abort();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let connection = rig.run(rig.connect_accepted_socket(ours, || Echo)).unwrap();
    drop(theirs);
    rig.run(async {
        connection.wait_closed().await;
        server.shutdown(Duration::ZERO).await;
        unix_server.shutdown(Duration::ZERO).await;
    });
    assert_eq!(server.get_loop().id(), rig.id());
}
