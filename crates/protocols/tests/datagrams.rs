//! Datagram endpoints over the operating system's sockets.

mod common;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::rc::Rc;

use common::{Strict, assert_sleeps, settle, strict_loop, until};
use tulipa_protocols::{
    Address, DatagramEndpoint, DatagramError, DatagramProtocol, Datagrams, Family, Flow, NetExt,
    WriteBufferLimits, create_datagram_endpoint,
};
use tulipa_testing::{DatagramCall, DatagramMoment, DatagramRecord, DatagramRecorder};

/// For how long a test waits for a datagram before it fails.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

type Endpoint = DatagramEndpoint<DatagramRecorder>;

fn open<P: DatagramProtocol + 'static>(
    event_loop: &Strict,
    how: Datagrams,
    protocol: P,
) -> DatagramEndpoint<P> {
    try_open(event_loop, how, protocol).unwrap()
}

fn try_open<P: DatagramProtocol + 'static>(
    event_loop: &Strict,
    how: Datagrams,
    protocol: P,
) -> io::Result<DatagramEndpoint<P>> {
    event_loop.run_until_complete(how.open(|| protocol)).unwrap()
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_addr().unwrap().inet().unwrap()
}

/// A directory of the test's own.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("tulipa-dg-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two endpoints at addresses of their own, and what each was told.
fn two(event_loop: &Strict, at: &str) -> [(DatagramRecord, Endpoint); 2] {
    [0, 1].map(|_| {
        let record = DatagramRecord::new();
        let endpoint = open(event_loop, Datagrams::at(at), record.protocol());
        (record, endpoint)
    })
}

/// A record of an echo server, and the server.
fn echo(event_loop: &Strict, how: Datagrams) -> (DatagramRecord, Endpoint) {
    let record = DatagramRecord::new();
    let protocol = record.reacting(|moment, transport| {
        if let DatagramMoment::Datagram(data, from) = moment {
            transport.send_to(data, from);
        }
        Ok(())
    });
    let endpoint = open(event_loop, how, protocol);
    (record, endpoint)
}

fn end(event_loop: &Strict, endpoints: &[(DatagramRecord, Endpoint)]) {
    for (_, endpoint) in endpoints {
        endpoint.close();
    }
    for (record, _) in endpoints {
        until(event_loop, "the end", || record.is_lost());
        record.assert_order();
        assert_eq!(record.calls().last(), Some(&DatagramCall::Lost(None)));
    }
    settle(event_loop);
    for (record, _) in endpoints {
        assert_eq!(record.alive(), 0);
    }
}

#[test]
fn datagrams_go_both_ways_over_both_families() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let event_loop = strict_loop();
        let both = two(&event_loop, at);
        let [(one, near), (other, far)] = &both;
        assert_eq!(near.send_to(b"to", address(far)), Flow::Ready);
        until(&event_loop, "a datagram", || other.count() == 1);
        assert_eq!(other.senders(), [Address::Inet(address(near))]);
        far.send_to(b"fro", &other.senders()[0]);
        until(&event_loop, "an answer", || one.count() == 1);
        assert_eq!(one.datagrams(), [b"fro"]);
        end(&event_loop, &both);
    }
}

#[test]
fn a_connected_endpoint_receives_from_its_peer_only() {
    let event_loop = strict_loop();
    let server = echo(&event_loop, Datagrams::at("127.0.0.1:0"));
    let record = DatagramRecord::new();
    let how = Datagrams::to(address(&server.1));
    let client = open(&event_loop, how, record.protocol());
    assert_eq!(client.peer_addr(), server.1.local_addr());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"stranger", address(&client)).unwrap();
    client.send(b"friend");
    until(&event_loop, "an answer", || record.count() == 1);
    settle(&event_loop);
    assert_eq!(record.datagrams(), [b"friend"]);
    end(&event_loop, &[server, (record, client)]);
}

#[test]
fn b117_a_connected_endpoint_may_name_its_peer_and_nobody_else() {
    let event_loop = strict_loop();
    let server = echo(&event_loop, Datagrams::at("127.0.0.1:0"));
    let record = DatagramRecord::new();
    let how = Datagrams::to(address(&server.1));
    let client = open(&event_loop, how, record.protocol());
    client.send_to(b"one", address(&server.1));
    until(&event_loop, "an answer", || record.count() == 1);
    client.send_to(b"two", SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
    client.send_to(b"three", address(&server.1));
    until(&event_loop, "an answer", || record.count() == 2);
    assert_eq!(server.0.datagrams(), [&b"one"[..], b"three"]);
    assert!(record.has(&DatagramCall::Error(io::ErrorKind::InvalidInput)));
    assert!(record.errors()[0].contains("127.0.0.1:9: the endpoint is connected to"));
    end(&event_loop, &[server, (record, client)]);
}

#[test]
fn b111_empty_datagrams_arrive() {
    let event_loop = strict_loop();
    let directory = Directory::new("empty");
    for how in [Datagrams::at("127.0.0.1:0"), Datagrams::at_unix(directory.file("server"))] {
        let server = echo(&event_loop, how);
        let record = DatagramRecord::new();
        let how = match server.1.local_addr().unwrap() {
            Address::Inet(inet) => Datagrams::to(inet),
            other => Datagrams::to_unix(other.path().unwrap()).local_unix(directory.file("client")),
        };
        let client = open(&event_loop, how, record.protocol());
        for data in [&b""[..], b"", b"x", b""] {
            client.send(data);
        }
        until(&event_loop, "all of them", || record.count() == 4);
        assert_eq!(record.datagrams(), [&b""[..], b"", b"x", b""]);
        end(&event_loop, &[server, (record, client)]);
    }
}

#[test]
fn b112_empty_datagrams_count_for_flow_control() {
    let event_loop = strict_loop();
    let directory = Directory::new("flood");
    let full = UnixDatagram::bind(directory.file("full")).unwrap();
    let record = DatagramRecord::new();
    let how = Datagrams::to_unix(directory.file("full"));
    let client = open(&event_loop, how, record.protocol());
    client.set_write_buffer_limits(WriteBufferLimits { low: 1000, high: 10_000 });
    let mut sent = 0;
    while client.send(b"") == Flow::Ready {
        sent += 1;
        assert!(sent < 100_000, "empty ones count");
    }
    until(&event_loop, "a pause", || record.is_paused());
    assert!(client.get_write_buffer_size() > 10_000);
    assert_sleeps(&event_loop);
    full.set_nonblocking(true).unwrap();
    let received = Cell::new(0);
    until(&event_loop, "all that was sent", || {
        while full.recv(&mut [0; 10]).is_ok() {
            received.set(received.get() + 1);
        }
        received.get() == sent + 1
    });
    settle(&event_loop);
    assert!(!record.is_paused());
    end(&event_loop, &[(record, client)]);
}

#[test]
fn b113_a_refusal_is_told_and_the_endpoint_stays_open() {
    let event_loop = strict_loop();
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
    let there = gone.local_addr().unwrap();
    drop(gone);
    let record = DatagramRecord::new();
    let client = open(&event_loop, Datagrams::to(there), record.protocol());
    client.send(b"nobody");
    let refused = DatagramCall::Error(io::ErrorKind::ConnectionRefused);
    until(&event_loop, "a refusal", || record.has(&refused));
    // The same address comes to life, and what is sent now is not lost to an old error.
    let server = UdpSocket::bind(there).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send(b"somebody");
    settle(&event_loop);
    let mut data = [0; 20];
    let (count, from) = server.recv_from(&mut data).unwrap();
    assert_eq!(&data[..count], b"somebody");
    server.send_to(b"yes", from).unwrap();
    until(&event_loop, "an answer", || record.count() == 1);
    end(&event_loop, &[(record, client)]);
}

#[test]
fn b113_a_send_that_meets_an_old_error_is_made_again() {
    let event_loop = strict_loop();
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
    let there = gone.local_addr().unwrap();
    drop(gone);
    let record = DatagramRecord::new();
    let client = open(&event_loop, Datagrams::to(there), record.protocol());
    client.send(b"nobody");
    // Sends the first, which leaves an error behind, before the loop looks.
    client.set_write_buffer_limits(WriteBufferLimits { low: 0, high: 0 });
    client.send(b"nobody either");
    let server = UdpSocket::bind(there).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send(b"somebody");
    assert_eq!(client.get_write_buffer_size(), 0);
    let mut data = [0; 20];
    let (count, _) = server.recv_from(&mut data).unwrap();
    assert_eq!(&data[..count], b"somebody");
    settle(&event_loop);
    assert!(record.has(&DatagramCall::Error(io::ErrorKind::ConnectionRefused)));
    end(&event_loop, &[(record, client)]);
}

#[test]
fn b115_a_datagram_that_is_too_long_is_told_and_the_next_is_sent() {
    let event_loop = strict_loop();
    let both = two(&event_loop, "127.0.0.1:0");
    let [(one, near), (other, far)] = &both;
    near.send_to(b"before", address(far));
    near.send_to(&vec![7; 70_000], address(far));
    near.send_to(b"after", address(far));
    until(&event_loop, "both", || other.count() == 2);
    settle(&event_loop);
    assert_eq!(other.datagrams(), [&b"before"[..], b"after"]);
    let errors = one.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains(&format!("cannot send to {}", address(far))), "{errors:?}");
    end(&event_loop, &both);
}

#[test]
fn b115_a_truncated_datagram_is_told_apart_from_a_whole_one() {
    let event_loop = strict_loop();
    let directory = Directory::new("truncated");
    let path = directory.file("server");
    for how in [Datagrams::at("[::1]:0"), Datagrams::at_unix(&path)] {
        let record = DatagramRecord::new();
        let server = open(&event_loop, how.max_datagram_size(5), record.protocol());
        match server.local_addr().unwrap() {
            Address::Inet(to) => {
                let socket = UdpSocket::bind("[::1]:0").unwrap();
                for data in [&b"12345"[..], b"123456", b""] {
                    socket.send_to(data, to).unwrap();
                }
            }
            _ => {
                let socket = UnixDatagram::unbound().unwrap();
                for data in [&b"12345"[..], b"123456", b""] {
                    socket.send_to(data, &path).unwrap();
                }
            }
        }
        until(&event_loop, "three", || record.calls().len() == 4);
        let expected = [
            DatagramCall::Made,
            DatagramCall::Datagram(b"12345".into()),
            DatagramCall::Truncated(b"12345".into()),
            DatagramCall::Datagram(b"".into()),
        ];
        assert_eq!(record.calls(), expected);
        end(&event_loop, &[(record, server)]);
    }
}

/// A protocol without `truncated_received`.
struct Plain(Rc<RefCell<Vec<io::Error>>>);

impl DatagramProtocol for Plain {
    fn datagram_received(
        &mut self,
        _: &tulipa_protocols::DatagramTransport,
        _: &[u8],
        _: &Address,
    ) -> io::Result<()> {
        panic!("it was not whole");
    }

    fn error_received(
        &mut self,
        _: &tulipa_protocols::DatagramTransport,
        error: io::Error,
    ) -> io::Result<()> {
        self.0.borrow_mut().push(error);
        Ok(())
    }
}

#[test]
fn b115_without_a_method_for_it_a_truncated_datagram_is_an_error() {
    let event_loop = strict_loop();
    let errors = Rc::new(RefCell::new(Vec::new()));
    let how = Datagrams::at("127.0.0.1:0").max_datagram_size(2);
    let server = open(&event_loop, how, Plain(errors.clone()));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"123", server.local_addr().unwrap().inet().unwrap()).unwrap();
    until(&event_loop, "an error", || !errors.borrow().is_empty());
    let error = errors.borrow_mut().remove(0);
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let inner = error.get_ref().unwrap().downcast_ref::<DatagramError>().unwrap();
    assert_eq!(inner.address, Some(Address::Inet(socket.local_addr().unwrap())));
    server.close();
    settle(&event_loop);
}

#[test]
fn an_address_of_another_family_is_an_error_and_ends_nothing() {
    let event_loop = strict_loop();
    let both = two(&event_loop, "127.0.0.1:0");
    let [(one, near), (other, far)] = &both;
    let wrong = [
        Address::Inet("[::1]:9".parse().unwrap()),
        Address::Path("/nowhere".into()),
        Address::Path(format!("/{}", "x".repeat(200)).into()),
        Address::Path("/a\0b".into()),
        Address::Abstract(b"nobody".to_vec()),
        Address::Unnamed,
        Address::Inet("127.0.0.1:0".parse().unwrap()),
    ];
    for wrong in &wrong {
        near.send_to(b"lost", wrong);
        near.send_to(b"kept", address(far));
    }
    until(&event_loop, "those between", || other.count() == wrong.len());
    settle(&event_loop);
    assert_eq!(one.errors().len(), wrong.len(), "{:#?}", one.errors());
    end(&event_loop, &both);
}

#[test]
fn without_a_peer_a_send_needs_an_address() {
    let event_loop = strict_loop();
    let record = DatagramRecord::new();
    let how = Datagrams::unbound(Family::V4);
    let endpoint = open(&event_loop, how, record.protocol());
    endpoint.send(b"whereto");
    until(&event_loop, "an error", || record.errors().len() == 1);
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    endpoint.send_to(b"there", server.local_addr().unwrap());
    settle(&event_loop);
    let (count, _) = server.recv_from(&mut [0; 10]).unwrap();
    assert_eq!(count, 5);
    end(&event_loop, &[(record, endpoint)]);
}

#[test]
fn unix_datagrams_are_answered_by_name() {
    let event_loop = strict_loop();
    let directory = Directory::new("unix");
    let server = echo(&event_loop, Datagrams::at_unix(directory.file("server")));
    let record = DatagramRecord::new();
    let how = Datagrams::to_unix(directory.file("server")).local_unix(directory.file("client"));
    let client = open(&event_loop, how, record.protocol());
    client.send(b"hello");
    until(&event_loop, "an answer", || record.count() == 1);
    assert_eq!(server.0.senders(), [Address::Path(directory.file("client"))]);
    let nameless = UnixDatagram::unbound().unwrap();
    nameless.send_to(b"who", directory.file("server")).unwrap();
    until(&event_loop, "an error", || server.0.errors().len() == 1);
    assert_eq!(server.0.senders()[1], Address::Unnamed);
    end(&event_loop, &[server, (record, client)]);
    assert!(!directory.file("server").exists() && !directory.file("client").exists());
}

#[test]
fn a_unix_receiver_that_stays_full_costs_its_own_datagrams_and_no_turns() {
    let event_loop = strict_loop();
    let directory = Directory::new("full");
    let full = UnixDatagram::bind(directory.file("full")).unwrap();
    let alive = UnixDatagram::bind(directory.file("alive")).unwrap();
    alive.set_nonblocking(true).unwrap();
    let record = DatagramRecord::new();
    let how = Datagrams::at_unix(directory.file("own"));
    let endpoint = open(&event_loop, how, record.protocol());
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", directory.file("full")).is_ok() {}
    let [to_full, to_alive] = ["full", "alive"].map(|name| Address::Path(directory.file(name)));
    let before = event_loop.statistics().turns;
    for _ in 0..3 {
        endpoint.send_to(b"lost", &to_full);
        endpoint.send_to(b"kept", &to_alive);
    }
    let received = Cell::new(0);
    until(&event_loop, "the others", || {
        while alive.recv(&mut [0; 10]).is_ok() {
            received.set(received.get() + 1);
        }
        received.get() == 3
    });
    until(&event_loop, "three errors", || record.errors().len() == 3);
    assert!(record.has(&DatagramCall::Error(io::ErrorKind::WouldBlock)));
    // The clock of the waits, not of the processor, makes the turns of `until`.
    assert!(event_loop.statistics().turns - before < 2000, "it does not spin");
    drop(full);
    end(&event_loop, &[(record, endpoint)]);
}

#[test]
fn a_unix_peer_that_is_gone_is_an_error_and_no_end() {
    let event_loop = strict_loop();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let record = DatagramRecord::new();
    let endpoint = open(&event_loop, Datagrams::on_socket(ours), record.protocol());
    theirs.send(b"last words").unwrap();
    drop(theirs);
    until(&event_loop, "the last words", || record.count() == 1);
    endpoint.send(b"hello?");
    until(&event_loop, "an error", || !record.errors().is_empty());
    assert!(!endpoint.is_closing());
    assert_sleeps(&event_loop);
    end(&event_loop, &[(record, endpoint)]);
}

#[test]
fn a_socket_that_exists_is_adopted_and_others_are_refused() {
    let event_loop = strict_loop();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bound = socket.local_addr().unwrap();
    let server = echo(&event_loop, Datagrams::on_socket(socket));
    assert_eq!(address(&server.1), bound);
    let record = DatagramRecord::new();
    let stream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = try_open(&event_loop, Datagrams::on_socket(stream), record.protocol());
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let file = std::fs::File::open("/dev/null").unwrap();
    let refused = try_open(&event_loop, Datagrams::on_socket(file), record.protocol());
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let how = Datagrams::on_socket(socket).reuse_port(true);
    let refused = try_open(&event_loop, how, record.protocol());
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(!record.is_made());
    end(&event_loop, &[server]);
}

#[test]
fn two_ends_of_different_families_are_refused() {
    let event_loop = strict_loop();
    let record = DatagramRecord::new();
    let how = Datagrams::to("127.0.0.1:9").local("[::1]:0");
    let refused = try_open(&event_loop, how, record.protocol()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("from [::1]:0 to 127.0.0.1:9"), "{refused}");
    let how = Datagrams::to("127.0.0.1:9").family(Family::V6);
    try_open(&event_loop, how, record.protocol()).unwrap_err();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let how = Datagrams::at(taken.local_addr().unwrap());
    let refused = try_open(&event_loop, how, record.protocol()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    assert!(refused.to_string().contains(&taken.local_addr().unwrap().to_string()), "{refused}");
}

#[test]
fn a_port_is_shared_by_those_who_agree() {
    let event_loop = strict_loop();
    let record = DatagramRecord::new();
    let how = Datagrams::at("127.0.0.1:0").reuse_port(true);
    let one = open(&event_loop, how, record.protocol());
    let how = Datagrams::at(address(&one)).reuse_port(true);
    let second = DatagramRecord::new();
    let other = open(&event_loop, how, second.protocol());
    let third = DatagramRecord::new();
    try_open(&event_loop, Datagrams::at(address(&one)), third.protocol()).unwrap_err();
    end(&event_loop, &[(record, one), (second, other)]);
}

#[test]
fn with_broadcast_a_peer_is_only_where_sends_go() {
    let event_loop = strict_loop();
    let record = DatagramRecord::new();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let how = Datagrams::to(server.local_addr().unwrap()).broadcast(true);
    let client = open(&event_loop, how, record.protocol());
    assert!(client.broadcast().unwrap());
    assert_eq!(client.peer_addr(), None);
    client.send(b"to all");
    settle(&event_loop);
    let (_, from) = server.recv_from(&mut [0; 10]).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, from.port()));
    stranger.send_to(b"from anybody", to).unwrap();
    until(&event_loop, "an answer", || record.count() == 1);
    end(&event_loop, &[(record, client)]);
}

#[test]
fn groups_are_joined_and_left() {
    let event_loop = strict_loop();
    let record = DatagramRecord::new();
    let endpoint = open(&event_loop, Datagrams::at("127.0.0.1:0"), record.protocol());
    let group = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251));
    endpoint.set_multicast_loop(true).unwrap();
    endpoint.set_multicast_ttl(1).unwrap();
    // A machine without a network has no interface for it, except the loopback one.
    if endpoint.join_multicast(group, 1).is_ok() {
        endpoint.join_multicast(group, 1).unwrap_err();
        endpoint.leave_multicast(group, 1).unwrap();
    }
    endpoint.leave_multicast(group, 1).unwrap_err();
    endpoint.join_multicast(IpAddr::V4(Ipv4Addr::LOCALHOST), 1).unwrap_err();
    endpoint.join_multicast(IpAddr::V6(Ipv6Addr::LOCALHOST), 1).unwrap_err();
    end(&event_loop, &[(record, endpoint.clone())]);
    let gone = endpoint.join_multicast(group, 1).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotConnected);
}

#[test]
fn the_function_and_the_handle_make_the_same() {
    let event_loop = strict_loop();
    let record = DatagramRecord::new();
    let made = create_datagram_endpoint("localhost:0", || record.protocol());
    let one = event_loop.run_until_complete(made).unwrap().unwrap();
    let made = event_loop.create_datagram_endpoint("localhost:0", || record.protocol());
    let other = event_loop.run_until_complete(made).unwrap().unwrap();
    assert!(record.is_made());
    assert_ne!(one.transport(), other.transport());
    one.abort();
    other.abort();
    settle(&event_loop);
    assert_eq!(record.alive(), 0);
}
