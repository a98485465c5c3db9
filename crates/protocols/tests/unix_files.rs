//! The files of Unix sockets: who makes them, who may remove them.
#![forbid(unsafe_code)]
#![cfg(unix)]

mod net;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use net::{Directory, Echo, PATIENCE, Rig, assert_served, eventually};
use tulipa_protocols::{Address, Connect, Listen, create_unix_server};

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

#[test]
fn the_file_is_made_and_removed_with_the_server() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        let server = create_unix_server(&path, || Echo).await.unwrap();
        assert_eq!(server.local_addrs(), [Address::Path(path.clone())]);
        assert!(is_socket(&path));
        assert_served(Connect::to_unix(&path)).await;
        server.close();
        assert!(!path.exists());
        server.wait_closed().await;
        // It need not be.
        let listen = Listen::on_unix(&path).remove_file(false);
        listen.serve(|| Echo).await.unwrap().close();
        assert!(is_socket(&path));
    });
}

#[test]
fn b86_a_stale_file_is_removed_first() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        drop(UnixListener::bind(&path).unwrap());
        let held = fs::hard_link(&path, directory.file("the same"));
        held.unwrap();
        let stale = inode(&path);
        let server = create_unix_server(&path, || Echo).await.unwrap();
        assert_ne!(inode(&path), stale);
        assert_served(Connect::to_unix(&path)).await;
        server.shutdown(PATIENCE).await;
    });
}

#[test]
fn b86_a_socket_that_somebody_listens_on_is_not_stolen() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        let server = create_unix_server(&path, || Echo).await.unwrap();
        let error = create_unix_server(&path, || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let text = format!("cannot listen on unix:{}: ", path.display());
        assert!(error.to_string().starts_with(&text), "{error}");
        assert_served(Connect::to_unix(&path)).await;
        // The look at who is there was a client of a moment.
        eventually(|| server.client_count() == 0).await;
        server.shutdown(PATIENCE).await;
    });
}

#[cfg(target_os = "linux")]
#[test]
fn b86_a_server_with_a_full_queue_is_alive() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let error = create_unix_server(&path, || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(is_socket(&path));
    });
}

#[test]
fn other_files_are_refused_and_left_alone() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("file");
        fs::write(&path, "precious").unwrap();
        let link = directory.file("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let stale = directory.file("stale");
        drop(UnixListener::bind(&stale).unwrap());
        let link_to_stale = directory.file("link to stale");
        std::os::unix::fs::symlink(&stale, &link_to_stale).unwrap();
        for path in [&path, &link, &link_to_stale, &directory.path().to_owned()] {
            let error = create_unix_server(path, || Echo).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
            assert!(error.to_string().contains("exists and is no socket"), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert!(is_socket(&stale));

        // A socket of another type is in use for all that can be told.
        let datagram = directory.file("datagram");
        let _holder = UnixDatagram::bind(&datagram).unwrap();
        let error = create_unix_server(&datagram, || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(is_socket(&datagram));

        let error = create_unix_server(directory.file("no/such"), || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no/such"), "{error}");
    });
}

#[test]
fn b86_the_file_of_another_server_is_not_removed() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        let first = create_unix_server(&path, || Echo).await.unwrap();
        // Somebody removes the file, and another server takes the path.
        fs::remove_file(&path).unwrap();
        let second = create_unix_server(&path, || Echo).await.unwrap();
        first.close();
        assert_served(Connect::to_unix(&path)).await;
        second.shutdown(PATIENCE).await;
        assert!(!path.exists());
        // Or a file that is no socket at all.
        let third = create_unix_server(&path, || Echo).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        third.close();
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    });
}

#[test]
fn b86_a_server_whose_file_was_renamed_goes_on_and_leaves_it() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let (path, renamed) = (directory.file("socket"), directory.file("renamed"));
        let first = create_unix_server(&path, || Echo).await.unwrap();
        fs::rename(&path, &renamed).unwrap();
        assert_served(Connect::to_unix(&renamed)).await;
        // That is how servers follow one another without a gap: the new one takes the place of the old one.
        let next = create_unix_server(&path, || Echo).await.unwrap();
        fs::rename(&path, &renamed).unwrap();
        first.shutdown(PATIENCE).await;
        assert_served(Connect::to_unix(&renamed)).await;
        next.shutdown(PATIENCE).await;
        assert!(is_socket(&renamed));
    });
}

#[test]
fn b86_a_bind_that_fails_removes_nothing() {
    let rig = Rig::new();
    rig.run(async {
        let directory = Directory::new();
        let path = directory.file("socket");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
        let listen = Listen::on_unix(&path).and(taken.1);
        listen.serve(|| Echo).await.unwrap_err();
        assert!(!path.exists(), "what it had made itself it removes");
        let holder = UnixListener::bind(&path).unwrap();
        let listen = Listen::on("127.0.0.1:0").and_unix(&path);
        listen.serve(|| Echo).await.unwrap_err();
        assert!(is_socket(&path));
        drop(holder);
    });
}
