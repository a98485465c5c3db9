//! `sock_*`: operations on plain sockets. One file: what holds for one of the nine is tested for all of them.
#![forbid(unsafe_code)]
#![cfg(unix)]

mod common;
mod net;
#[cfg(target_os = "linux")]
#[path = "../../loop/tests/os/mod.rs"]
mod os;

use std::cell::Cell;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::rc::Rc;

use common::{pattern, shrink};
use net::{Directory, Echo, Rig, poll_times, refusing};
use socket2::{Domain, Socket, Type};
use tulipa_loop::{AsyncFd, yield_now};
use tulipa_protocols::{
    Address, DatagramProtocol, DatagramTransport, Datagrams, Link, NetExt, SendAllError,
    SendFileError, attach, connect_accepted_socket, sock_accept, sock_connect, sock_recv,
    sock_recv_fds, sock_recv_into, sock_recvfrom, sock_recvfrom_into, sock_send_fds, sock_sendall,
    sock_sendfile, sock_sendto,
};
use tulipa_selector::Source;

fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

fn socket(domain: Domain, kind: Type) -> Socket {
    let socket = Socket::new(domain, kind, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

#[test]
fn bytes_go_both_ways_over_one_socket_at_the_same_time() {
    let rig = Rig::new();
    rig.run(async {
        let (near, far) = pair();
        let data = pattern(2_000_000);
        let reads = async |socket: &UnixStream| {
            let mut bytes = Vec::new();
            while bytes.len() < data.len() {
                let part = sock_recv(socket, 50_000).await.unwrap();
                assert!(!part.is_empty() && part.len() <= 50_000);
                bytes.extend(part);
            }
            assert!(bytes == data);
        };
        let there =
            futures_lite::future::zip(sock_sendall(&near, &data), sock_sendall(&far, &data));
        let back = futures_lite::future::zip(reads(&near), reads(&far));
        let ((one, other), _) = futures_lite::future::zip(there, back).await;
        one.unwrap();
        other.unwrap();
        sock_sendall(&near, b"").await.unwrap();
        drop(near);
        assert_eq!(sock_recv(&far, 10).await.unwrap(), b"", "the end");
    });
    assert_eq!(rig.statistics().sources, 0);
}

#[test]
fn a_blocking_socket_does_not_block_the_loop() {
    let rig = Rig::new();
    rig.run(async {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut buffer = [0; 16];
        {
            let mut waits = std::pin::pin!(sock_recv_into(&near, &mut buffer));
            assert!(futures_lite::future::poll_once(waits.as_mut()).await.is_none());
            far.write_all(b"hello").unwrap();
            assert_eq!(waits.await.unwrap(), 5);
        }
        assert_eq!(&buffer[..5], b"hello");
        // More than it takes without a reader.
        let data = pattern(1_000_000);
        let sends = sock_sendall(&near, &data);
        let reads = rig.run_in_executor(None, move || {
            let mut bytes = vec![0; 1_000_000];
            far.read_exact(&mut bytes).unwrap();
            bytes
        });
        let (sent, read) = futures_lite::future::zip(sends, reads).await;
        sent.unwrap();
        assert!(read.unwrap() == data);
    });
}

#[test]
fn datagrams_come_with_their_senders() {
    let rig = Rig::new();
    rig.run(async {
        let (one, other) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = Address::from(other.local_addr().unwrap());
        let from = Address::from(one.local_addr().unwrap());
        assert_eq!(sock_sendto(&one, b"hello", &to).await.unwrap(), 5);
        assert_eq!(sock_sendto(&one, b"", &to).await.unwrap(), 0);
        assert_eq!(sock_sendto(&one, b"longer", &to).await.unwrap(), 6);
        assert_eq!(
            sock_recvfrom(&other, 100).await.unwrap(),
            (b"hello".to_vec(), Some(from.clone()))
        );
        assert_eq!(sock_recvfrom(&other, 100).await.unwrap(), (Vec::new(), Some(from.clone())));
        let mut buffer = [0; 4];
        assert_eq!(sock_recvfrom_into(&other, &mut buffer).await.unwrap(), (4, Some(from)));
        assert_eq!(&buffer, b"long");

        let directory = Directory::new();
        let (here, there) = (directory.file("here"), directory.file("there"));
        let (one, other) =
            (UnixDatagram::bind(&here).unwrap(), UnixDatagram::bind(&there).unwrap());
        let to = Address::Path(there);
        assert_eq!(sock_sendto(&one, b"hi", &to).await.unwrap(), 2);
        let (data, from) = sock_recvfrom(&other, 100).await.unwrap();
        assert_eq!((&data[..], from), (&b"hi"[..], Some(Address::Path(here))));
        let nobody = Address::Path(directory.file("nobody"));
        let error = sock_sendto(&one, b"hi", &nobody).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(
            error.to_string().starts_with(&format!("to {nobody}: cannot send to a socket: ")),
            "{error}"
        );
        // A stream has none, or says nothing of it.
        let (near, far) = pair();
        sock_sendall(&near, b"x").await.unwrap();
        let (data, from) = sock_recvfrom(&far, 1).await.unwrap();
        assert!(data == b"x" && matches!(from, None | Some(Address::Unnamed)));
    });
}

#[test]
fn connecting_and_accepting() {
    let rig = Rig::new();
    rig.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let client = socket(Domain::IPV4, Type::STREAM);
        let accepts = sock_accept(&listener);
        let connects = sock_connect(&client, address);
        let (accepted, connected) = futures_lite::future::zip(accepts, connects).await;
        connected.unwrap();
        let (accepted, from) = accepted.unwrap();
        assert_eq!(from.inet(), client.local_addr().unwrap().as_socket());
        assert!(rustix::fs::fcntl_getfl(&accepted).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        assert!(rustix::io::fcntl_getfd(&accepted).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        sock_sendall(&client, b"hello").await.unwrap();
        assert_eq!(sock_recv(&accepted, 10).await.unwrap(), b"hello");
        // A name is asked for; the address that counts is of the socket's family.
        let named = socket(Domain::IPV4, Type::STREAM);
        sock_connect(&named, ("localhost", address.port())).await.unwrap();

        let refused = socket(Domain::IPV4, Type::STREAM);
        let nobody = refusing();
        let error = sock_connect(&refused, nobody).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with(&format!("cannot connect a socket to {nobody}: ")));
        let six = socket(Domain::IPV6, Type::STREAM);
        let error = sock_connect(&six, "127.0.0.1:1").await.unwrap_err();
        assert!(error.to_string().contains("no address of the socket's family"), "{error}");
        let blocking = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let error = sock_connect(&blocking, address).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot connect a socket: the socket has to be non-blocking");

        let directory = Directory::new();
        let path = directory.file("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let error = sock_accept(&listener).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        listener.set_nonblocking(true).unwrap();
        let client = socket(Domain::UNIX, Type::STREAM);
        sock_connect(&client, Address::Path(path)).await.unwrap();
        let (_accepted, from) = sock_accept(&listener).await.unwrap();
        assert_eq!(from, Address::Unnamed);
    });
}

#[test]
fn what_is_no_socket_is_an_error_that_says_what_was_tried() {
    let rig = Rig::new();
    rig.run(async {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let error = sock_recv(&reader, 1).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot receive from a socket: "), "{error}");
        let error = sock_send_fds(&reader, b"x", &[]).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot send descriptors: "), "{error}");
        let error = sock_sendfile(&reader, &reader, ..).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot send a file: "), "{error}");
    });
}

#[test]
fn sendall_says_how_much_was_sent_before_it_failed() {
    let rig = Rig::new();
    rig.run(async {
        let (near, far) = pair();
        let data = pattern(5_000_000);
        let sends = sock_sendall(&near, &data);
        let ends = async {
            for _ in 0..10 {
                yield_now().await;
            }
            drop(far);
        };
        let (sent, ()) = futures_lite::future::zip(sends, ends).await;
        let error = sent.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
        let error = error.into_inner().unwrap().downcast::<SendAllError>().unwrap();
        assert!(error.sent > 0 && error.sent < 5_000_000, "{error}");
    });
}

/// A link over a socket that the program has a share of.
struct Shared(Rc<UnixStream>);

impl Link for Shared {
    fn source(&self) -> Source {
        Source::shared(self.0.clone())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self.0).write_vectored(pieces)
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Write)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[test]
fn a_descriptor_that_a_transport_uses_is_refused_until_that_is_over() {
    let rig = Rig::new();
    rig.run(async {
        let (near, far) = pair();
        let near = Rc::new(near);
        let number = near.as_raw_fd();
        let connection = attach(&rig, Shared(near.clone()), Echo).unwrap();
        // Before it is made, and afterwards, and while nothing of it is watched.
        for round in 0..3 {
            let used = format!("descriptor {number} is used by a transport");
            let assert_used = |error: io::Error| {
                assert_eq!(error.kind(), ErrorKind::AlreadyExists);
                assert!(error.to_string().ends_with(&used), "{error}");
            };
            assert_used(rig.add_reader(near.clone(), |_| {}).unwrap_err());
            assert_used(rig.add_writer(near.clone(), |_| {}).unwrap_err());
            assert_used(AsyncFd::new(&rig, near.clone()).unwrap_err());
            assert_used(attach(&rig, Shared(near.clone()), Echo).unwrap_err());
            assert_used(sock_recv(&*near, 1).await.unwrap_err());
            assert_used(sock_recv_into(&*near, &mut [0]).await.unwrap_err());
            assert_used(sock_recvfrom(&*near, 1).await.unwrap_err());
            assert_used(sock_recvfrom_into(&*near, &mut [0]).await.unwrap_err());
            assert_used(sock_sendall(&*near, b"x").await.unwrap_err());
            assert_used(sock_sendto(&*near, b"x", &Address::Unnamed).await.unwrap_err());
            assert_used(sock_connect(&*near, Address::Unnamed).await.unwrap_err());
            assert_used(sock_accept(&*near).await.unwrap_err());
            assert_used(sock_sendfile(&*near, &*near, ..).await.unwrap_err());
            assert_used(sock_send_fds(&*near, b"x", &[]).await.unwrap_err());
            assert_used(sock_recv_fds(&*near, &mut [0], 1).await.unwrap_err());
            if round == 1 {
                connection.pause_reading();
            }
            yield_now().await;
            yield_now().await;
        }
        assert!(!rig.remove_reader(&*near) && !rig.remove_writer(&*near));
        connection.abort();
        connection.wait_closed().await;
        // Its descriptor is still open, and free.
        sock_sendall(&*near, b"x").await.unwrap();
        assert_eq!(sock_recv(&far, 10).await.unwrap(), b"x");
        rig.add_reader(near.clone(), |_| {}).unwrap();
        // A reader is no transport, but the selector has it.
        let again = attach(&rig, Shared(near.clone()), Echo).unwrap();
        again.wait_closed().await;
        rig.remove_reader(&*near);
        let again = attach(&rig, Shared(near.clone()), Echo).unwrap();
        yield_now().await;
        yield_now().await;
        assert!(!again.is_closing());
        again.abort();
        again.wait_closed().await;
    });
}

#[test]
fn the_descriptors_of_connections_and_of_datagram_endpoints_are_theirs() {
    struct Silent;
    impl DatagramProtocol for Silent {
        fn datagram_received(
            &mut self,
            _: &DatagramTransport,
            _: &[u8],
            _: &Address,
        ) -> io::Result<()> {
            Ok(())
        }
    }

    let rig = Rig::new();
    let wires = rig.wires();
    rig.run(async {
        let (near, _far) = pair();
        let number = near.as_raw_fd();
        let connection = connect_accepted_socket(near, || Echo).await.unwrap();
        assert!(wires.check_unclaimed(number).is_err());
        connection.abort();
        connection.wait_closed().await;
        yield_now().await;
        assert!(wires.check_unclaimed(number).is_ok());

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = udp.as_raw_fd();
        let endpoint = Datagrams::on_socket(udp).open(|| Silent).await.unwrap();
        assert!(wires.check_unclaimed(number).is_err());
        endpoint.abort();
        endpoint.wait_closed().await;
        yield_now().await;
        assert!(wires.check_unclaimed(number).is_ok());
    });
}

#[test]
#[cfg(target_os = "linux")]
fn b03_a_number_that_is_used_again_at_once_belongs_to_its_new_owner() {
    os::alone("b03_a_number_that_is_used_again_at_once_belongs_to_its_new_owner", || {
        let rig = Rig::new();
        rig.run(async {
            let mut number = None;
            for round in 0..1000 {
                let (near, far) = pair();
                let same = near.as_raw_fd();
                assert_eq!(*number.get_or_insert(same), same, "the number is used again");
                if round % 2 == 0 {
                    poll_times(sock_recv(&near, 10), 1).await;
                    sock_sendall(&far, b"x").await.unwrap();
                    assert_eq!(sock_recv(&near, 10).await.unwrap(), b"x");
                } else {
                    // A transport, which goes in the same turn in which the next one comes.
                    let connection = connect_accepted_socket(near, || Echo).await.unwrap();
                    sock_sendall(&far, b"x").await.unwrap();
                    assert_eq!(sock_recv(&far, 10).await.unwrap(), b"x");
                    connection.abort();
                    connection.wait_closed().await;
                    yield_now().await;
                }
            }
        });
        assert_eq!(rig.statistics().sources, 0);
    });
}

#[test]
fn a_task_that_never_has_to_wait_lets_others_run() {
    let rig = Rig::new();
    rig.run(async {
        let (near, far) = pair();
        sock_sendall(&near, &[7; 5000]).await.unwrap();
        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        let other = rig.create_task(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        for _ in 0..5000 {
            assert_eq!(sock_recv(&far, 1).await.unwrap(), [7]);
        }
        assert!(turns.get() >= 70, "{}", turns.get());
        other.cancel();
        other.await.unwrap_err();
    });
}

fn file_of(data: &[u8]) -> std::fs::File {
    let directory = Directory::new();
    let path = directory.file("data");
    std::fs::write(&path, data).unwrap();
    std::fs::File::open(&path).unwrap()
}

#[test]
fn b85_a_file_is_sent_over_a_plain_socket_and_its_position_tells_how_far() {
    let rig = Rig::new();
    let data = pattern(3_000_000);
    let mut file = file_of(&data);
    for blocking in [false, true] {
        let (near, mut far) = pair();
        far.set_nonblocking(false).unwrap();
        near.set_nonblocking(!blocking).unwrap();
        shrink(&near);
        file.seek(SeekFrom::Start(7)).unwrap();
        let reads = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).unwrap();
            bytes
        });
        rig.run(async {
            assert_eq!(sock_sendfile(&near, &file, 1000..2_500_000).await.unwrap(), 2_499_000);
            assert_eq!(sock_sendfile(&near, &file, 0..0).await.unwrap(), 0);
            assert_eq!(sock_sendfile(&near, &file, 2_999_999..u64::MAX).await.unwrap(), 1);
        });
        assert_eq!(file.stream_position().unwrap(), 3_000_000);
        drop(near);
        let expected = [&data[1000..2_500_000], &data[2_999_999..]].concat();
        assert!(reads.join().unwrap() == expected, "blocking: {blocking}");
    }
    // Given up, and cut off by the peer.
    let (near, far) = pair();
    rig.run(async {
        poll_times(sock_sendfile(&near, &file, 10..), 2).await;
        let place = file.stream_position().unwrap();
        assert!(place > 10 && place < 3_000_000, "{place}");
        let sends = sock_sendfile(&near, &file, place..);
        let ends = async {
            yield_now().await;
            drop(far);
        };
        let (sent, ()) = futures_lite::future::zip(sends, ends).await;
        let error = sent.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
        let error = error.into_inner().unwrap().downcast::<SendFileError>().unwrap();
        assert_eq!(file.stream_position().unwrap(), place + error.sent);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = sock_sendfile(&udp, &file, ..).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot send a file: it needs a stream socket");
    });
}

#[test]
fn descriptors_go_to_another_owner_with_the_first_byte() {
    let rig = Rig::new();
    rig.run(async {
        let (near, far) = pair();
        let (one, mut other) = UnixStream::pair().unwrap();
        let file = file_of(b"in the file");
        let fds = [one.as_fd(), file.as_fd()];
        // More bytes than it takes at once: the descriptors come once.
        let data = pattern(500_000);
        let sends = sock_send_fds(&near, &data, &fds);
        let receives = async {
            let (mut bytes, mut all) = (Vec::<u8>::new(), Vec::new());
            while bytes.len() < data.len() {
                let mut buffer = vec![0; 100_000];
                let (count, fds) = sock_recv_fds(&far, &mut buffer, 2).await.unwrap();
                assert!(count > 0);
                bytes.extend(&buffer[..count]);
                all.extend(fds);
            }
            assert!(bytes == data);
            all
        };
        let (sent, received) = futures_lite::future::zip(sends, receives).await;
        sent.unwrap();
        drop((one, file));
        let [one, file]: [OwnedFd; 2] = received.try_into().unwrap();
        for fd in [&one, &file] {
            assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "in the file");
        UnixStream::from(one).write_all(b"hello").unwrap();
        let mut buffer = [0; 5];
        other.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
        // None is none, and the end is the end.
        sock_send_fds(&near, b"x", &[]).await.unwrap();
        let (count, fds) = sock_recv_fds(&far, &mut buffer, 253).await.unwrap();
        assert!(count == 1 && fds.is_empty());
        drop(near);
        let (count, fds) = sock_recv_fds(&far, &mut buffer, 0).await.unwrap();
        assert!(count == 0 && fds.is_empty());
    });
}

#[test]
fn what_would_lose_descriptors_is_refused_before_anything_is_sent() {
    let rig = Rig::new();
    rig.run(async {
        let (near, _far) = pair();
        let too_many = vec![near.as_fd(); 254];
        for (data, fds) in [(&b"x"[..], &too_many[..]), (b"", &too_many[..1])] {
            let error = sock_send_fds(&near, data, fds).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        let error = sock_recv_fds(&near, &mut [0], 254).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let (tcp, _peer) = common::tcp();
        let error = sock_send_fds(&tcp, b"x", &[near.as_fd()]).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot send descriptors: only Unix sockets take them");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn more_descriptors_than_were_asked_for_are_all_closed() {
    os::alone("more_descriptors_than_were_asked_for_are_all_closed", || {
        let rig = Rig::new();
        rig.run(async {
            let (near, far) = pair();
            let before = os::open_descriptors();
            // Space for an odd number has room for one more.
            for (sent, most) in [(1, 0), (2, 1), (3, 1), (4, 3), (253, 5), (253, 252)] {
                let fds = vec![near.as_fd(); sent];
                sock_send_fds(&near, b"x", &fds).await.unwrap();
                let error = sock_recv_fds(&far, &mut [0; 8], most).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidData, "{sent} and {most}: {error}");
                assert_eq!(os::open_descriptors(), before, "{sent} and {most}");
            }
            // Those that nobody asks for at all.
            sock_send_fds(&near, b"xy", &[near.as_fd()]).await.unwrap();
            assert_eq!(sock_recv(&far, 1).await.unwrap(), b"x");
            assert_eq!(sock_recv_fds(&far, &mut [0; 8], 3).await.unwrap().0, 1);
            assert_eq!(os::open_descriptors(), before);
            sock_send_fds(&near, b"x", &vec![near.as_fd(); 253]).await.unwrap();
            let (_, fds) = sock_recv_fds(&far, &mut [0; 8], 253).await.unwrap();
            assert_eq!(fds.len(), 253);
            drop(fds);
            // The process has no room for them.
            let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            limit.current = Some(60);
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
            sock_send_fds(&near, b"x", &[near.as_fd(); 100]).await.unwrap();
            let error = sock_recv_fds(&far, &mut [0; 8], 100).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            assert_eq!(os::open_descriptors(), before);
        });
    });
}

/// Drops a future after each number of polls up to a dozen.
async fn at_every_poll<F: Future>(mut begin: impl FnMut() -> F) {
    for times in 0..12 {
        poll_times(begin(), times).await;
    }
}

#[test]
#[cfg(target_os = "linux")]
fn b03_each_operation_that_is_dropped_at_any_poll_leaves_nothing_behind() {
    os::alone("b03_each_operation_that_is_dropped_at_any_poll_leaves_nothing_behind", || {
        let rig = Rig::new();
        rig.run(async {
            let hole = net::Blackhole::new();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let file = file_of(&pattern(400_000));
            let data = pattern(3_000_000);
            // The executor's threads come and stay.
            poll_times(sock_sendfile(&UnixStream::pair().unwrap().0, &file, ..), 9).await;
            let (near, far) = pair();
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            let before = os::open_descriptors();
            let sources = rig.statistics().sources;
            at_every_poll(|| sock_recv(&near, 10)).await;
            at_every_poll(async || sock_recv_into(&near, &mut [0; 10]).await).await;
            at_every_poll(|| sock_recvfrom(&udp, 10)).await;
            at_every_poll(async || sock_recvfrom_into(&udp, &mut [0; 10]).await).await;
            at_every_poll(|| sock_accept(&listener)).await;
            at_every_poll(async || sock_recv_fds(&near, &mut [0; 10], 3).await).await;
            at_every_poll(|| sock_sendall(&near, &data)).await;
            at_every_poll(|| sock_send_fds(&near, &data, &[])).await;
            at_every_poll(|| sock_sendfile(&near, &file, ..)).await;
            near.set_nonblocking(false).unwrap();
            at_every_poll(|| sock_sendfile(&near, &file, ..)).await;
            for times in 0..6 {
                let client = socket(Domain::IPV4, Type::STREAM);
                poll_times(sock_connect(&client, hole.address), times).await;
            }
            assert_eq!(rig.statistics().sources, sources);
            assert_eq!(rig.selector().keys().len(), sources);
            drop(far);
            net::eventually(|| os::open_descriptors().len() < before.len()).await;
        });
    });
}

#[test]
fn the_loops_handle_has_the_same_operations() {
    let rig = Rig::new();
    let handle = rig.handle();
    rig.run(async {
        let (near, far) = pair();
        handle.sock_sendall(&near, b"hello").await.unwrap();
        assert_eq!(handle.sock_recv(&far, 2).await.unwrap(), b"he");
        assert_eq!(handle.sock_recv_into(&far, &mut [0; 2]).await.unwrap(), 2);
        assert_eq!(handle.sock_recvfrom(&far, 9).await.unwrap().0, b"o");
        handle.sock_send_fds(&near, b"x", &[near.as_fd()]).await.unwrap();
        assert_eq!(handle.sock_recv_fds(&far, &mut [0], 1).await.unwrap().1.len(), 1);
        let file = file_of(b"text");
        assert_eq!(handle.sock_sendfile(&near, &file, 1..).await.unwrap(), 3);
        assert_eq!(handle.sock_recvfrom_into(&far, &mut [0; 9]).await.unwrap().0, 3);
        let (one, other) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = other.local_addr().unwrap().into();
        assert_eq!(handle.sock_sendto(&one, b"abc", &to).await.unwrap(), 3);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let client = socket(Domain::IPV4, Type::STREAM);
        let connects = handle.sock_connect(&client, listener.local_addr().unwrap());
        let accepts = handle.sock_accept(&listener);
        let (connected, accepted) = futures_lite::future::zip(connects, accepts).await;
        connected.unwrap();
        let _: (OwnedFd, Address) = accepted.unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let reads = handle.connect_read_pipe(reader, || Echo).await.unwrap();
        let writes = handle.connect_write_pipe(writer, || Echo).await.unwrap();
        writes.close();
        reads.wait_closed().await;
        let _: TcpStream = Socket::into(client);
    });
}
