//! Lines as a stream, and futures-io's traits.

mod common;

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use common::{Way, each_way, in_memory, in_virtual_time, over};
use futures_lite::future::{or, poll_once, zip};
use futures_lite::io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt};
use futures_lite::{StreamExt, stream};
use tulipa_loop::{sleep, spawn};
use tulipa_protocols::WriteBufferLimits;
use tulipa_streams::{DEFAULT_LIMIT, ReadError, ReadWrite, open_link};

#[test]
fn lines_are_text_without_their_ends() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"one\n\r\ntw\xc3\xb6\r\nthree\r");
        writer.write_eof();
        let lines: Vec<String> = reader.lines().try_collect().await.unwrap();
        assert_eq!(lines, ["one", "", "twö", "three"]);
        assert!(reader.lines().next().await.is_none());
    });
}

#[test]
fn byte_lines_are_as_they_came() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"one\n\xff\r\nthree");
        writer.write_eof();
        let lines: Vec<Vec<u8>> = reader.byte_lines().try_collect().await.unwrap();
        assert_eq!(lines, [&b"one\n"[..], b"\xff\r\n", b"three"]);
    });
}

#[test]
fn a_stream_of_lines_goes_on_behind_a_bad_line_and_ends_with_the_connection() {
    Way::Memory(64 * 1024).run(10, async |(mut reader, _w), (peer_reader, writer)| {
        writer.write(b"one\n0123456789-\n\xff\xff\ntwo\n");
        writer.flush().await.unwrap();
        let mut lines = reader.lines();
        assert_eq!(lines.next().await.unwrap().unwrap(), "one");
        let error = lines.next().await.unwrap().unwrap_err();
        assert!(matches!(error, ReadError::LimitOverrun(_)), "{error}");
        let error = io::Error::from(lines.next().await.unwrap().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        // Giving up the stream loses nothing.
        drop(lines);
        let mut lines = reader.lines();
        assert_eq!(lines.next().await.unwrap().unwrap(), "two");
        writer.transport().reset();
        drop((peer_reader, writer));
        let error = io::Error::from(lines.next().await.unwrap().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(lines.next().await.is_none());
    });
}

/// The halves as a library sees them that knows only the traits.
fn as_traits<S: Into<ReadWrite>>(streams: S) -> impl AsyncBufRead + AsyncWrite + Unpin {
    streams.into()
}

#[test]
fn a_library_that_knows_only_the_traits_can_read_and_write() {
    use futures_lite::io::{AsyncBufReadExt, AsyncReadExt};

    each_way(async |near, far| {
        let (mut near, mut far) = (as_traits(near), as_traits(far));
        let talk = async {
            near.write_all(b"first\nsecond\nrest").await.unwrap();
            near.flush().await.unwrap();
            near.close().await.unwrap();
            let mut answer = String::new();
            near.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "answer");
        };
        let listen = async {
            let mut lines = Vec::new();
            far.read_until(b'\n', &mut lines).await.unwrap();
            let mut more = String::new();
            far.read_line(&mut more).await.unwrap();
            assert_eq!((&lines[..], &more[..]), (&b"first\n"[..], "second\n"));
            let mut rest = [0; 4];
            far.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"rest");
            assert_eq!(far.read(&mut rest).await.unwrap(), 0);
            far.write_all(b"answer").await.unwrap();
            far.close().await.unwrap();
        };
        zip(talk, listen).await;
    });
}

#[test]
fn poll_write_takes_no_more_than_there_is_room_for() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(1000);
        let ((_r, mut writer), (mut peer, _w)) = over(near, far, DEFAULT_LIMIT).await;
        writer.transport().set_write_buffer_limits(WriteBufferLimits { low: 100, high: 5_000 });
        let data = vec![7; 10 << 20];
        let written = Rc::new(Cell::new(0));
        let count = written.clone();
        let transport = writer.transport().clone();
        let writing = spawn(async move {
            let mut rest = &data[..];
            while !rest.is_empty() {
                let taken = AsyncWriteExt::write(&mut writer, rest).await.unwrap();
                count.set(count.get() + taken);
                rest = &rest[taken..];
            }
            AsyncWriteExt::flush(&mut writer).await.unwrap();
            AsyncWriteExt::close(&mut writer).await.unwrap();
        });
        sleep(Duration::from_secs(1)).await;
        assert!(written.get() <= 5_000 + 2 * 64 * 1024, "{}", written.get());
        assert!(transport.get_write_buffer_size() <= 5_000 + 64 * 1024);
        assert_eq!(peer.read_to_end(10 << 20).await.unwrap().len(), 10 << 20);
        writing.await.unwrap();
    });
}

#[test]
fn poll_write_alone_lets_others_run() {
    each_way(async |(mut reader, _w), (_r, mut writer)| {
        let other = spawn(async move { reader.lend_exact(1000).await.unwrap().len() });
        let writing = async {
            loop {
                AsyncWriteExt::write(&mut writer, b"0123456789").await.unwrap();
            }
        };
        assert_eq!(or(async { other.await.unwrap() }, writing).await, 1000);
    });
}

#[test]
fn writing_by_the_trait_fails_as_writing_does() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(1000);
        let (_reader, mut writer) = open_link(near, DEFAULT_LIMIT).await.unwrap();
        drop(far);
        let error = loop {
            if let Err(error) = AsyncWriteExt::write(&mut writer, &[7; 10_000]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        let error = AsyncWriteExt::flush(&mut writer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
    in_memory(async |(_reader, mut writer), _peer| {
        AsyncWriteExt::close(&mut writer).await.unwrap();
        let error = AsyncWriteExt::write(&mut writer, b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        AsyncWriteExt::close(&mut writer).await.unwrap();
    });
}

#[test]
fn a_wait_of_one_clone_is_not_that_of_another() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(10);
        let ((_r, mut writer), (mut peer, _w)) = over(near, far, DEFAULT_LIMIT).await;
        writer.write(&[7; 100_000]);
        assert!(poll_once(AsyncWriteExt::flush(&mut writer)).await.is_none());
        let mut clone = writer.clone();
        assert!(poll_once(AsyncWriteExt::write(&mut clone, b"x")).await.is_none());
        // One that waits for something else now.
        assert!(poll_once(AsyncWriteExt::write(&mut writer, b"x")).await.is_none());
        let reading = spawn(async move { peer.lend_exact(100_001).await.unwrap().len() });
        AsyncWriteExt::write(&mut clone, b"x").await.unwrap();
        assert_eq!(reading.await.unwrap(), 100_001);
        AsyncWriteExt::flush(&mut writer).await.unwrap();
    });
}

#[test]
fn fill_buf_and_consume_lend_and_take() {
    use futures_lite::io::AsyncBufReadExt;

    in_memory(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"abcdef");
        let pinned = Pin::new(&mut reader);
        assert_eq!(AsyncBufReadExt::fill_buf(pinned.get_mut()).await.unwrap(), b"abcdef");
        AsyncBufReadExt::consume(&mut reader, 2);
        let mut buffer = [0; 2];
        let read = std::future::poll_fn(|context| {
            AsyncRead::poll_read(Pin::new(&mut reader), context, &mut buffer)
        });
        assert_eq!(read.await.unwrap(), 2);
        assert_eq!(&buffer, b"cd");
        let rest = stream::iter(reader.buffered().iter().copied());
        assert_eq!(rest.collect::<Vec<u8>>().await, b"ef");
    });
}
