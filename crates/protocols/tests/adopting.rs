//! Sockets that came from elsewhere: accepted by others, inherited, made by a supervisor.
#![forbid(unsafe_code)]
#![cfg(unix)]

mod net;
#[cfg(target_os = "linux")]
#[path = "../../loop/tests/os/mod.rs"]
mod os;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use net::{Directory, Echo, Notes, PATIENCE, Rig, assert_served, eventually, inet, poll_times};
use tulipa_protocols::{Address, Connect, Listen, connect_accepted_socket};

#[test]
fn a_blocking_socket_is_made_non_blocking_and_used() {
    let rig = Rig::new();
    rig.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let notes = Notes::default();
        let connection = connect_accepted_socket(accepted, || notes.tape()).await.unwrap();
        assert_eq!(notes.take(), ["made"]);
        assert_eq!(connection.peer_addr(), Some(peer.into()));
        let flags = connection.with_fd(|fd| rustix::fs::fcntl_getfl(fd)).unwrap().unwrap();
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
        client.write_all(b"hello").unwrap();
        assert_eq!(notes.wait_for(1).await, ["hello"]);
        connection.write(b"and you");
        connection.close();
        connection.wait_closed().await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "and you");
    });
}

#[test]
fn what_is_no_connected_stream_socket_is_refused_with_a_reason() {
    let rig = Rig::new();
    rig.run(async {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let (datagram, _other) = UnixDatagram::pair().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let descriptors: [(OwnedFd, &str); 5] = [
            (reader, "a connection needs a socket: "),
            (writer, "a connection needs a socket: "),
            (file.into(), "a connection needs a socket: "),
            (datagram.into(), "a connection needs a stream socket, not one of the type "),
            (udp.into(), "a connection needs a stream socket, not one of the type "),
        ];
        for (descriptor, why) in descriptors {
            let copy = descriptor.try_clone().unwrap();
            let error = connect_accepted_socket(descriptor, || Echo).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().starts_with(why), "{error}");
            let why = why.replace("a connection", "a server");
            let error = Listen::on_socket(copy).serve(|| Echo).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().starts_with(&why), "{error}");
        }

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = connect_accepted_socket(listener, || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        assert!(error.to_string().starts_with("cannot use a socket as a connection: "), "{error}");
    });
}

#[test]
fn what_nobody_could_connect_to_is_refused_as_a_server() {
    let rig = Rig::new();
    rig.run(async {
        use socket2::{Domain, Socket, Type};
        for domain in [Domain::IPV4, Domain::IPV6, Domain::UNIX] {
            let socket = Socket::new(domain, Type::STREAM, None).unwrap();
            let error = Listen::on_socket(socket).serve(|| Echo).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("bound to an address"), "{error}");
        }
        // A connection is no listener.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let local = client.local_addr().unwrap();
        let error = Listen::on_socket(client).serve(|| Echo).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot listen on {local}: ")), "{error}");
    });
}

#[test]
fn a_socket_that_a_supervisor_has_made_is_served() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(&path).unwrap();
        let address = tcp.local_addr().unwrap();
        // The supervisor keeps them, for the next one who is to serve.
        let kept = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
        // Whoever came before there was anybody to serve them is served too.
        let mut early = TcpStream::connect(address).unwrap();
        early.write_all(b"early").unwrap();
        for _ in 0..2 {
            let tcp = kept.0.try_clone().unwrap();
            let unix = kept.1.try_clone().unwrap();
            let first = Listen::on_socket(tcp).serve(|| Echo).await.unwrap();
            let second = Listen::on_socket(unix).serve(|| Echo).await.unwrap();
            assert_eq!(first.local_addrs(), [Address::Inet(address)]);
            assert_eq!(second.local_addrs(), [Address::Path(path.clone())]);
            assert_served(Connect::to(address)).await;
            assert_served(Connect::to_unix(&path)).await;
            first.shutdown(PATIENCE).await;
            second.shutdown(PATIENCE).await;
            assert!(path.exists(), "it is the supervisor's");
        }
        early.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut echo = [0; 5];
        early.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"early");
        drop((tcp, unix));
    });
}

#[test]
fn a_socket_that_is_bound_and_does_not_listen_yet_is_served() {
    let rig = Rig::new();
    rig.run(async {
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&any.into()).unwrap();
        let server = Listen::on_socket(socket).serve(|| Echo).await.unwrap();
        assert_served(Connect::to(inet(&server))).await;
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn b04_a_socket_is_closed_when_its_adoption_is_given_up() {
    let rig = Rig::new();
    rig.run(async {
        for times in 0..2 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let pending = poll_times(connect_accepted_socket(ours, || Echo), times).await;
            assert!(pending);
            theirs.set_nonblocking(true).unwrap();
            eventually(|| matches!(theirs.read(&mut [0]), Ok(0))).await;
        }
        // Nobody gave that one up.
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let connection = connect_accepted_socket(ours, || Echo).await.unwrap();
        theirs.set_nonblocking(true).unwrap();
        theirs.write_all(b"x").unwrap();
        eventually(|| matches!(theirs.read(&mut [0]), Ok(1))).await;
        connection.abort();
        connection.wait_closed().await;
    });
}

#[test]
fn the_options_of_a_socket_are_there_until_it_is_closed() {
    let rig = Rig::new();
    rig.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let local = client.local_addr().unwrap();
        let connection = connect_accepted_socket(client, || Echo).await.unwrap();
        for on in [true, false] {
            connection.set_nodelay(on).unwrap();
            assert_eq!(connection.nodelay().unwrap(), on);
            connection.set_keepalive(on.then_some(Duration::from_secs(77))).unwrap();
            assert_eq!(connection.keepalive().unwrap(), on);
        }
        connection.set_recv_buffer_size(50_000).unwrap();
        assert!(connection.recv_buffer_size().unwrap() >= 50_000);
        connection.set_send_buffer_size(60_000).unwrap();
        assert!(connection.send_buffer_size().unwrap() >= 60_000);
        let ttl = connection.with_fd(|fd| socket2::SockRef::from(&fd).set_ttl_v4(3));
        ttl.unwrap().unwrap();

        let info = connection.get_extra_info("sockname").unwrap();
        assert_eq!(info.downcast_ref::<Address>(), Some(&Address::Inet(local)));
        assert!(connection.get_extra_info("colour").is_none());

        connection.abort();
        connection.wait_closed().await;
        for error in [
            connection.set_nodelay(true).unwrap_err(),
            connection.nodelay().unwrap_err(),
            connection.set_keepalive(None).unwrap_err(),
            connection.keepalive().unwrap_err(),
            connection.set_recv_buffer_size(1).unwrap_err(),
            connection.recv_buffer_size().unwrap_err(),
            connection.set_send_buffer_size(1).unwrap_err(),
            connection.send_buffer_size().unwrap_err(),
            connection.with_fd(|_| ()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NotConnected);
        }
        // The addresses are known for ever.
        let peer = connection.get_extra_info("peername").unwrap();
        let expected = Address::Inet(listener.local_addr().unwrap());
        assert_eq!(peer.downcast_ref::<Address>(), Some(&expected));
        assert_eq!(connection.local_addr(), Some(Address::Inet(local)));
    });
}

#[test]
fn options_that_a_socket_does_not_have_are_errors() {
    let rig = Rig::new();
    rig.run(async {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let connection = connect_accepted_socket(ours, || Echo).await.unwrap();
        connection.set_nodelay(true).unwrap_err();
        connection.nodelay().unwrap_err();
        assert_eq!(connection.peer_addr(), Some(Address::Unnamed));
        connection.abort();
        // In memory there is no socket at all.
        let (transport, _probe) = tulipa_protocols::Transport::detached();
        assert_eq!(transport.set_nodelay(true).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(transport.with_fd(|_| ()).unwrap_err().kind(), ErrorKind::Unsupported);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_listening_descriptor_is_handed_to_another_process() {
    use std::cell::Cell;
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};
    use std::rc::Rc;
    let test = "a_listening_descriptor_is_handed_to_another_process";
    if os::is_child(test) {
        let rig = Rig::new();
        return rig.run(async {
            let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
            let accepted = Rc::new(Cell::new(0));
            let counted = accepted.clone();
            let factory = move || {
                counted.set(counted.get() + 1);
                Echo
            };
            let server = Listen::on_socket(socket).serve(factory).await.unwrap();
            eventually(|| accepted.get() == 1 && server.client_count() == 0).await;
            server.close();
        });
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = Command::new(os::test_binary());
    os::select_test(&mut command, test);
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The command had our copy. From here on nobody else could accept.
    drop(command);
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"hand over").unwrap();
    let mut echo = [0; 9];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"hand over");
    drop(client);
    os::assert_passed(test, &child.wait_with_output().unwrap());
}
