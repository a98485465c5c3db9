//! What is true of each direction of a stream.

use std::io::IoSlice;

use futures_lite::future::{poll_once, yield_now, zip};
use futures_lite::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{StreamCheck, pattern};

/// How many bytes a check sends: enough for several pieces of most streams, and little enough for one that carries
/// one byte at a time.
pub(super) const BYTES: usize = 10_000;

/// A writer that nobody reads from is stopped before it has written so many bytes: the largest buffers that
/// operating systems give a socket are below it.
const MOST_BUFFERED: usize = 64 << 20;

/// What a writer writes at once that is to fill all buffers.
const LARGE: usize = 4 * 1024;

/// A future that is polled so often without progress, each time after all others, is stopped.
const MOST_POLLS: usize = 1_000;

macro_rules! checks {
    ($($check:ident),* $(,)?) => { vec![$(StreamCheck::new(stringify!($check), $check)),*] };
}
pub(super) use checks;

pub(super) fn all<W, R>() -> Vec<StreamCheck<W, R>>
where
    W: AsyncWrite + Unpin + 'static,
    R: AsyncRead + Unpin + 'static,
{
    checks![
        bytes_arrive_once_and_in_order,
        bytes_arrive_one_at_a_time,
        pieces_arrive_in_order,
        nothing_is_written_and_nothing_is_read,
        what_was_flushed_arrives_without_more,
        the_end_comes_after_the_bytes_and_stays,
        a_closed_writer_can_be_closed_and_not_written,
        a_reader_that_waits_is_woken_by_bytes,
        a_reader_that_waits_is_woken_by_the_end,
        a_read_that_is_given_up_loses_nothing,
        a_write_that_is_given_up_is_written_whole_or_not_at_all,
        a_writer_without_a_reader_is_stopped_and_goes_on,
        a_writer_whose_reader_is_gone_fails,
        a_writer_that_is_dropped_ends_the_input,
    ]
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, data: &[u8]) {
    writer.write_all(data).await.expect("a connected stream can be written");
}

async fn finish<W: AsyncWrite + Unpin>(writer: &mut W, data: &[u8]) {
    send(writer, data).await;
    writer.flush().await.expect("what was written can be flushed");
    writer.close().await.expect("a connected stream can be closed");
}

pub(super) async fn receive<R: AsyncRead + Unpin>(reader: &mut R, count: usize) -> Vec<u8> {
    let mut data = vec![0; count];
    reader.read_exact(&mut data).await.expect("what was written can be read");
    data
}

pub(super) async fn rest<R: AsyncRead + Unpin>(reader: &mut R) -> Vec<u8> {
    let mut data = Vec::new();
    reader.read_to_end(&mut data).await.expect("the end comes");
    data
}

async fn bytes_arrive_once_and_in_order<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let data = pattern(BYTES);
    let (_, received) = zip(finish(&mut writer, &data), rest(&mut reader)).await;
    assert!(received == data, "{} bytes of {}, or others", received.len(), data.len());
}

async fn bytes_arrive_one_at_a_time<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let data = pattern(300);
    let write = async {
        for byte in &data {
            send(&mut writer, &[*byte]).await;
        }
        writer.flush().await.expect("what was written can be flushed");
    };
    let read = async {
        for byte in &data {
            assert_eq!(receive(&mut reader, 1).await, [*byte]);
        }
    };
    zip(write, read).await;
}

async fn pieces_arrive_in_order<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let data = pattern(1_000);
    let write = async {
        let mut written = 0;
        while written < data.len() {
            let (first, second) = data[written..].split_at((data.len() - written) / 3);
            let pieces = [IoSlice::new(first), IoSlice::new(&[]), IoSlice::new(second)];
            let count = writer.write_vectored(&pieces).await.expect("pieces can be written");
            assert!((1..=data.len() - written).contains(&count), "{count} bytes were written");
            written += count;
        }
        writer.close().await.expect("a connected stream can be closed");
    };
    let (_, received) = zip(write, rest(&mut reader)).await;
    assert!(received == data);
}

async fn nothing_is_written_and_nothing_is_read<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    assert_eq!(writer.write(&[]).await.expect("nothing can be written"), 0);
    let read = async {
        assert_eq!(receive(&mut reader, 1).await, b"x", "an empty write is no end");
        assert_eq!(reader.read(&mut []).await.expect("nothing can be read"), 0);
        assert_eq!(rest(&mut reader).await, b"y", "an empty read is no end either");
    };
    zip(finish(&mut writer, b"xy"), read).await;
}

async fn what_was_flushed_arrives_without_more<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    for message in [&b"one"[..], b"two", b"three"] {
        let write = async {
            send(&mut writer, message).await;
            writer.flush().await.expect("what was written can be flushed");
        };
        let (_, received) = zip(write, receive(&mut reader, message.len())).await;
        assert_eq!(received, message);
    }
}

async fn the_end_comes_after_the_bytes_and_stays<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let (_, received) = zip(finish(&mut writer, b"last"), rest(&mut reader)).await;
    assert_eq!(received, b"last");
    for _ in 0..3 {
        assert_eq!(reader.read(&mut [0; 10]).await.expect("the end is no error"), 0);
    }
}

async fn a_closed_writer_can_be_closed_and_not_written<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let write = async {
        finish(&mut writer, b"").await;
        writer.close().await.expect("closing twice is once");
        let written = writer.write_all(b"late").await;
        let written = written.and(writer.flush().await);
        assert!(written.is_err(), "nothing is written behind the end");
    };
    let (_, received) = zip(write, rest(&mut reader)).await;
    assert_eq!(received, b"");
}

async fn a_reader_that_waits_is_woken_by_bytes<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let write = async {
        // The other one has been polled before.
        yield_now().await;
        send(&mut writer, b"wake").await;
        writer.flush().await.expect("what was written can be flushed");
    };
    let (received, _) = zip(receive(&mut reader, 4), write).await;
    assert_eq!(received, b"wake");
}

async fn a_reader_that_waits_is_woken_by_the_end<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let close = async {
        yield_now().await;
        finish(&mut writer, b"").await;
    };
    let (received, _) = zip(rest(&mut reader), close).await;
    assert_eq!(received, b"");
}

async fn a_read_that_is_given_up_loses_nothing<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let data = pattern(500);
    let read = async {
        let (mut received, mut ended) = (Vec::new(), false);
        while !ended {
            let mut buffer = [0; 7];
            // Given up after one poll; if that gave nothing, the next one waits for it.
            let polled = poll_once(reader.read(&mut buffer)).await;
            let count = match polled {
                Some(count) => count,
                None => reader.read(&mut buffer).await,
            };
            let count = count.expect("what was written can be read");
            received.extend_from_slice(&buffer[..count]);
            ended = count == 0;
        }
        received
    };
    let (_, received) = zip(finish(&mut writer, &data), read).await;
    assert!(received == data);
}

async fn a_write_that_is_given_up_is_written_whole_or_not_at_all<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let data = pattern(BYTES);
    let write = async {
        let mut written = 0;
        while written < data.len() {
            match poll_once(writer.write(&data[written..])).await {
                Some(count) => written += count.expect("a connected stream can be written"),
                None => yield_now().await,
            }
        }
        writer.close().await.expect("a connected stream can be closed");
    };
    let (_, received) = zip(write, rest(&mut reader)).await;
    assert!(received == data, "{} bytes of {}, or others", received.len(), data.len());
}

async fn a_writer_without_a_reader_is_stopped_and_goes_on<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let data = pattern(LARGE);
    let (mut written, mut polls) = (0, 0);
    while polls < MOST_POLLS {
        let from = written % LARGE;
        match poll_once(writer.write(&data[from..])).await {
            Some(count) => {
                written += count.expect("a connected stream can be written");
                polls = 0;
            }
            None => polls += 1,
        }
        assert!(written < MOST_BUFFERED, "{written} bytes were written and nobody reads them");
        yield_now().await;
    }
    let close = async { writer.close().await.expect("a connected stream can be closed") };
    let (_, received) = zip(close, rest(&mut reader)).await;
    assert_eq!(received.len(), written);
    let mut expected = data.iter().cycle();
    assert!(received.iter().all(|byte| expected.next() == Some(byte)));
}

async fn a_writer_whose_reader_is_gone_fails<W, R>(mut writer: W, reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    drop(reader);
    let data = pattern(LARGE);
    for _ in 0..MOST_BUFFERED / LARGE {
        let written = writer.write_all(&data).await;
        if written.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    panic!("{MOST_BUFFERED} bytes were written to nobody");
}

async fn a_writer_that_is_dropped_ends_the_input<W, R>(mut writer: W, mut reader: R)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let write = async {
        send(&mut writer, b"last words").await;
        writer.flush().await.expect("what was written can be flushed");
        drop(writer);
    };
    let read = async {
        let mut data = Vec::new();
        // An end without a goodbye may be an error.
        let _ = reader.read_to_end(&mut data).await;
        data
    };
    let (_, received) = zip(write, read).await;
    assert_eq!(received, b"last words");
}
