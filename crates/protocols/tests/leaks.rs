//! Nothing is left behind and nothing is closed twice: descriptors are counted in processes of their own. While
//! one is started it holds copies of all that its parent has open, so tests of what is closed stand elsewhere.
#![forbid(unsafe_code)]
#![cfg(all(target_os = "linux", not(miri)))]

mod net;
#[path = "../../loop/tests/os/mod.rs"]
mod os;

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use net::{Blackhole, Book, Directory, Echo, Rig, assert_served, echo_server, eventually};
use net::{poll_times, refusing};
use os::{alone, open_descriptors};
use tulipa_loop::yield_now;
use tulipa_protocols::{
    Connect, Datagrams, Listen, connect_accepted_socket, connect_read_pipe, connect_write_pipe,
    create_connection, create_unix_server,
};
use tulipa_testing::DatagramRecord;

#[test]
fn a_pipe_that_is_given_up_at_any_poll_leaks_nothing() {
    alone("a_pipe_that_is_given_up_at_any_poll_leaks_nothing", || {
        let rig = Rig::new();
        rig.run(async {
            let before = open_descriptors();
            let sources = rig.statistics().sources;
            for times in 0..12 {
                // Those that are made end with their other end.
                let (reader, far) = rustix::pipe::pipe().unwrap();
                poll_times(connect_read_pipe(reader, || Echo), times).await;
                drop(far);
                let (far, writer) = rustix::pipe::pipe().unwrap();
                poll_times(connect_write_pipe(writer, || Echo), times).await;
                drop(far);
                // One that is refused.
                poll_times(connect_read_pipe(std::fs::File::open("/").unwrap(), || Echo), times)
                    .await;
                // One that lives, until its other end goes.
                let (reader, writer) = rustix::pipe::pipe().unwrap();
                let reads = connect_read_pipe(reader, || Echo).await.unwrap();
                connect_write_pipe(writer, || Echo).await.unwrap().close();
                reads.wait_closed().await;
            }
            eventually(|| {
                open_descriptors().keys().eq(before.keys()) && rig.statistics().sources == sources
            })
            .await;
        });
    });
}

#[test]
fn a_connect_future_dropped_at_any_poll_leaks_nothing() {
    alone("a_connect_future_dropped_at_any_poll_leaks_nothing", || {
        let rig = Rig::new();
        let hole = Blackhole::new();
        let directory = Directory::new();
        let path = directory.file("socket");
        rig.run(async {
            let book = Book::of(&rig);
            let (server, address) = echo_server().await;
            let unix_server = create_unix_server(&path, || Echo).await.unwrap();
            book.enter("one", &[address]);
            book.enter("two", &[hole.address, address]);
            book.enter("three", &[refusing(), hole.address, hole.address]);
            let before = open_descriptors();
            let sources = rig.statistics().sources;
            for times in 0..12 {
                for name in ["one:1", "two:1", "three:1"] {
                    let delay = Some(Duration::from_millis(2));
                    let connect = Connect::to(name).happy_eyeballs_delay(delay);
                    poll_times(connect.timeout(Duration::from_secs(50)).open(|| Echo), times).await;
                }
                poll_times(Connect::to_unix(&path).open(|| Echo), times).await;
                let (ours, _theirs) = UnixStream::pair().unwrap();
                poll_times(connect_accepted_socket(ours, || Echo), times).await;
                server.abort_clients();
                unix_server.abort_clients();
            }
            eventually(|| {
                server.abort_clients();
                unix_server.abort_clients();
                open_descriptors().keys().eq(before.keys()) && rig.statistics().sources == sources
            })
            .await;
            server.close();
            unix_server.close();
        });
    });
}

#[test]
fn b04_a_descriptor_is_closed_exactly_once_when_connecting_is_cancelled() {
    let test = "b04_a_descriptor_is_closed_exactly_once_when_connecting_is_cancelled";
    os::traced(
        test,
        "close",
        || {
            let rig = Rig::new();
            let hole = Blackhole::new();
            os::begin();
            rig.run(async {
                let (server, address) = echo_server().await;
                for times in 0..4 {
                    poll_times(Connect::to(address).open(|| Echo), times).await;
                    poll_times(Connect::to(hole.address).open(|| Echo), times).await;
                    let (ours, _theirs) = UnixStream::pair().unwrap();
                    poll_times(connect_accepted_socket(ours, || Echo), times).await;
                    // Numbers are used again at once by somebody else.
                    let other = std::fs::File::open("/dev/null").unwrap();
                    yield_now().await;
                    drop(other);
                }
                server.shutdown(Duration::ZERO).await;
            });
            drop(rig);
            os::end();
        },
        |calls| {
            assert!(calls.len() > 12, "{calls:#?}");
            let twice = calls.iter().find(|call| call.line.contains("EBADF"));
            assert!(twice.is_none(), "{twice:?}");
        },
    );
}

#[test]
fn b79_races_leak_no_descriptors() {
    alone("b79_races_leak_no_descriptors", || {
        let rig = Rig::new();
        let hole = Blackhole::new();
        rig.run(async {
            let (server, address) = echo_server().await;
            let book = Book::of(&rig);
            book.enter("good", &[hole.address, refusing(), address, address]);
            book.enter("bad", &[refusing(), "255.255.255.255:1".parse().unwrap()]);
            let before = open_descriptors();
            for _ in 0..20 {
                let connect = Connect::to("good:1").happy_eyeballs_delay(Some(Duration::ZERO));
                assert_served(connect).await;
                create_connection("bad:1", || Echo).await.unwrap_err();
            }
            eventually(|| server.client_count() == 0).await;
            assert_eq!(open_descriptors(), before);
            server.close();
        });
    });
}

#[test]
fn adopting_and_refusing_leaks_no_descriptors() {
    alone("adopting_and_refusing_leaks_no_descriptors", || {
        let rig = Rig::new();
        rig.run(async {
            let before = open_descriptors();
            for _ in 0..10 {
                let (ours, theirs) = UnixStream::pair().unwrap();
                let connection = connect_accepted_socket(ours, || Echo).await.unwrap();
                drop(theirs);
                connection.wait_closed().await;
                let file = std::fs::File::open("/dev/null").unwrap();
                connect_accepted_socket(file, || Echo).await.unwrap_err();
                let (datagram, _other) = UnixDatagram::pair().unwrap();
                Listen::on_socket(datagram).serve(|| Echo).await.unwrap_err();
            }
            assert_eq!(open_descriptors(), before);
        });
    });
}

/// Opens an endpoint, and closes it when it is there.
async fn opened_and_closed(how: Datagrams, record: DatagramRecord) {
    if let Ok(endpoint) = how.open(|| record.protocol()).await {
        endpoint.close();
        endpoint.wait_closed().await;
    }
}

#[test]
fn a_datagram_endpoint_dropped_at_any_poll_leaks_nothing() {
    alone("a_datagram_endpoint_dropped_at_any_poll_leaks_nothing", || {
        let rig = Rig::new();
        let directory = Directory::new();
        rig.run(async {
            let record = DatagramRecord::new();
            let round = |how, times| poll_times(opened_and_closed(how, record.clone()), times);
            // Threads of the resolver come with the first name.
            round(Datagrams::to("localhost:9"), 100).await;
            let before = open_descriptors();
            let sources = rig.statistics().sources;
            for times in 0..6 {
                let (path, own) = (directory.file("socket"), directory.file("own"));
                round(Datagrams::at("127.0.0.1:0"), times).await;
                round(Datagrams::to("localhost:9"), times).await;
                round(Datagrams::at_unix(&path), times).await;
                // What is refused, too.
                let (stream, _other) = UnixStream::pair().unwrap();
                round(Datagrams::on_socket(stream), times).await;
                let nobody = directory.file("nobody");
                round(Datagrams::to_unix(nobody).local_unix(&own), times).await;
                assert!(!own.exists(), "its file goes with it");
            }
            eventually(|| {
                open_descriptors().keys().eq(before.keys()) && rig.statistics().sources == sources
            })
            .await;
            assert_eq!(record.alive(), 0);
            assert!(!directory.file("socket").exists());
        });
    });
}

#[test]
fn descriptors_that_come_with_a_datagram_are_not_kept() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    alone("descriptors_that_come_with_a_datagram_are_not_kept", || {
        let rig = Rig::new();
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        rig.run(async {
            let record = DatagramRecord::new();
            let opening = Datagrams::on_socket(ours).open(|| record.protocol());
            let endpoint = opening.await.unwrap();
            let before = open_descriptors();
            for _ in 0..5 {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let files = [file.as_fd(), file.as_fd(), file.as_fd()];
                assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
                let data = [std::io::IoSlice::new(b"take these")];
                rustix::net::sendmsg(&theirs, &data, &mut control, SendFlags::empty()).unwrap();
            }
            eventually(|| record.count() == 5).await;
            assert_eq!(record.datagrams()[4], b"take these");
            assert_eq!(open_descriptors(), before);
            endpoint.close();
            endpoint.wait_closed().await;
        });
    });
}
