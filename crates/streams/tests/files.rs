//! Files on the executor.

mod common;

use std::fs::OpenOptions;
use std::io::{ErrorKind, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use common::in_real_time;
use futures_lite::StreamExt;
use futures_lite::future::poll_once;
use tulipa_streams::fs::{self, File};

/// A file that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tulipa-files-{}-{count}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_file_is_written_and_read() {
    in_real_time(async |_| {
        let scratch = Scratch::new();
        let mut file = File::create(&scratch.0).await.unwrap();
        file.write_all(b"hello ").await.unwrap();
        file.write_all(b"world").await.unwrap();
        assert_eq!(file.position(), 11);
        file.sync_all().await.unwrap();
        drop(file);
        let mut file = File::open(&scratch.0).await.unwrap();
        let mut buffer = [0; 6];
        assert_eq!(file.read(&mut buffer).await.unwrap(), 6);
        assert_eq!(&buffer, b"hello ");
        assert_eq!(file.read(&mut []).await.unwrap(), 0);
        assert_eq!(file.read_to_string().await.unwrap(), "world");
        assert_eq!(file.read(&mut buffer).await.unwrap(), 0);
        assert_eq!(file.metadata().await.unwrap().len(), 11);
    });
}

#[test]
fn a_file_has_a_place_that_is_moved() {
    in_real_time(async |_| {
        let scratch = Scratch::new();
        fs::write(&scratch.0, "0123456789").await.unwrap();
        let mut options = OpenOptions::new();
        let mut file = File::open_with(&scratch.0, options.read(true).write(true)).await.unwrap();
        assert_eq!(file.seek(SeekFrom::End(-3)).await.unwrap(), 7);
        assert_eq!(file.read_to_end().await.unwrap(), b"789");
        assert_eq!(file.seek(SeekFrom::Start(2)).await.unwrap(), 2);
        file.write_all(b"xy").await.unwrap();
        assert_eq!(file.seek(SeekFrom::Current(1)).await.unwrap(), 5);
        let mut buffer = [0; 2];
        assert_eq!(file.read(&mut buffer).await.unwrap(), 2);
        assert_eq!(&buffer, b"56");
        let error = file.seek(SeekFrom::Current(-100)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        file.set_len(4).await.unwrap();
        assert_eq!(fs::read_to_string(&scratch.0).await.unwrap(), "01xy");
    });
}

#[test]
fn a_write_goes_where_the_program_has_read_to_and_not_where_the_buffer_has() {
    in_real_time(async |_| {
        let scratch = Scratch::new();
        fs::write(&scratch.0, "one\ntwo\nthree\n").await.unwrap();
        let mut options = OpenOptions::new();
        let mut file = File::open_with(&scratch.0, options.read(true).write(true)).await.unwrap();
        assert_eq!(file.read_line().await.unwrap().unwrap(), "one");
        assert_eq!(file.position(), 4);
        file.write_all(b"TWO").await.unwrap();
        assert_eq!(fs::read(&scratch.0).await.unwrap(), b"one\nTWO\nthree\n");
        assert_eq!(file.read_line().await.unwrap().unwrap(), "");
        assert_eq!(file.read_line().await.unwrap().unwrap(), "three");
    });
}

#[test]
fn the_lines_of_a_file_are_a_stream() {
    in_real_time(async |_| {
        let scratch = Scratch::new();
        let long = "x".repeat(60_000);
        let text = format!("one\n\r\n{long}\n{long}\nlast");
        fs::write(&scratch.0, text).await.unwrap();
        let mut file = File::open(&scratch.0).await.unwrap();
        let lines: Vec<String> = file.lines().try_collect().await.unwrap();
        assert_eq!(lines, ["one", "", &long, &long, "last"]);
        assert!(file.lines().next().await.is_none());
    });
}

#[test]
fn a_bad_line_is_an_error_and_the_last_one() {
    in_real_time(async |_| {
        let scratch = Scratch::new();
        for bad in [b"\xff\n".to_vec(), vec![b'x'; 200_000]] {
            fs::write(&scratch.0, [b"good\n", &bad[..]].concat()).await.unwrap();
            let mut file = File::open(&scratch.0).await.unwrap();
            let mut lines = file.lines();
            assert_eq!(lines.next().await.unwrap().unwrap(), "good");
            let error = lines.next().await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(lines.next().await.is_none());
        }
    });
}

#[test]
fn what_cannot_be_opened_is_an_error() {
    in_real_time(async |_| {
        let scratch = Scratch::new();
        assert_eq!(File::open(&scratch.0).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fs::read(&scratch.0).await.unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(&scratch.0, [0xff]).await.unwrap();
        let error = fs::read_to_string(&scratch.0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    });
}

#[test]
fn a_read_that_was_given_up_loses_nothing() {
    in_real_time(async |_| {
        let scratch = Scratch::new();
        fs::write(&scratch.0, "one\ntwo\n").await.unwrap();
        let mut file = File::open(&scratch.0).await.unwrap();
        for _ in 0..3 {
            if let Some(line) = poll_once(file.read_line()).await {
                // The thread was faster.
                assert_eq!(line.unwrap().unwrap(), "one");
                file.seek(SeekFrom::Start(0)).await.unwrap();
            }
        }
        assert_eq!(file.read_line().await.unwrap().unwrap(), "one");
        assert_eq!(file.read_to_end().await.unwrap(), b"two\n");
    });
}

#[test]
fn appending_goes_to_the_end() {
    in_real_time(async |_| {
        let scratch = Scratch::new();
        fs::write(&scratch.0, "one\n").await.unwrap();
        let mut options = OpenOptions::new();
        let mut file = File::open_with(&scratch.0, options.append(true)).await.unwrap();
        file.write_all(b"two\n").await.unwrap();
        file.write_all(b"three\n").await.unwrap();
        assert_eq!(fs::read(&scratch.0).await.unwrap(), b"one\ntwo\nthree\n");
    });
}

#[test]
fn a_stream_sends_a_file_in_the_order_of_its_writes() {
    let event_loop = tulipa_loop::EventLoop::new().unwrap();
    let path = std::env::temp_dir().join(format!("tulipa-stream-file-{}", std::process::id()));
    let data: Vec<u8> =
        (0..500_000_u32).map(|place| (place.wrapping_mul(place) / 7) as u8).collect();
    std::fs::write(&path, &data).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    event_loop
        .run_until_complete(async {
            // Through memory there is nothing that the operating system could do by itself.
            for sockets in [true, false] {
                let ((_, writer), (mut reader, _other)) = if sockets {
                    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
                    let near = tulipa_protocols::SocketLink::adopt(near).unwrap();
                    let far = tulipa_protocols::SocketLink::adopt(far).unwrap();
                    let near = tulipa_streams::open_link(near, 65536).await.unwrap();
                    (near, tulipa_streams::open_link(far, 65536).await.unwrap())
                } else {
                    tulipa_streams::duplex().await.unwrap()
                };
                let sends = async {
                    writer.write(b"before ");
                    assert_eq!(writer.sendfile(&file, 1..).await.unwrap(), 499_999);
                    writer.write(b" behind");
                    writer.write_eof();
                    writer
                };
                let mut all = Vec::new();
                let reads = async {
                    loop {
                        let part = reader.fill().await.unwrap().to_vec();
                        if part.is_empty() {
                            break;
                        }
                        reader.consume(part.len());
                        all.extend(part);
                    }
                };
                let (writer, ()) = futures_lite::future::zip(sends, reads).await;
                assert!(all == [&b"before "[..], &data[1..], b" behind"].concat());
                writer.close();
                writer.wait_closed().await.unwrap();
                let error = writer.sendfile(&file, ..).await.unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
            }
        })
        .unwrap();
}
