//! What is true of both directions of a stream together.

use futures_lite::future::{poll_once, zip};
use futures_lite::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use super::one_way::{BYTES, checks, receive, rest};
use super::{StreamCheck, pattern};

pub(super) fn all<S>() -> Vec<StreamCheck<S, S>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    checks![
        questions_are_answered,
        both_directions_at_once,
        a_reader_that_waits_does_not_keep_its_stream_from_writing,
    ]
}

pub(super) fn half_closing<S>() -> Vec<StreamCheck<S, S>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    checks![the_end_of_one_side_leaves_the_other_open, both_sides_can_be_ended_at_once]
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, data: &[u8]) {
    stream.write_all(data).await.expect("a connected stream can be written");
    stream.flush().await.expect("what was written can be flushed");
}

async fn questions_are_answered<S: AsyncRead + AsyncWrite + Unpin>(mut near: S, mut far: S) {
    let data = pattern(1_000);
    let ask = async {
        for round in 1..20 {
            say(&mut near, &data[..round * 10]).await;
            assert_eq!(receive(&mut near, round).await, data[round..2 * round]);
        }
    };
    let answer = async {
        for round in 1..20 {
            assert_eq!(receive(&mut far, round * 10).await, data[..round * 10]);
            say(&mut far, &data[round..2 * round]).await;
        }
    };
    zip(ask, answer).await;
}

async fn both_directions_at_once<S: AsyncRead + AsyncWrite + Unpin>(near: S, far: S) {
    let (there, back) = (pattern(BYTES), pattern(BYTES / 2));
    let ((mut near_reader, mut near_writer), (mut far_reader, mut far_writer)) =
        (split(near), split(far));
    let writes = zip(say(&mut near_writer, &there), say(&mut far_writer, &back));
    let reads = zip(receive(&mut far_reader, BYTES), receive(&mut near_reader, BYTES / 2));
    let (_, (at_far, at_near)) = zip(writes, reads).await;
    assert!(at_far == there && at_near == back);
}

async fn a_reader_that_waits_does_not_keep_its_stream_from_writing<S>(mut near: S, mut far: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    assert!(poll_once(near.read(&mut [0; 1])).await.is_none(), "there is nothing to read");
    let (_, received) = zip(say(&mut near, b"question"), receive(&mut far, 8)).await;
    assert_eq!(received, b"question");
    let (_, received) = zip(say(&mut far, b"answer"), receive(&mut near, 6)).await;
    assert_eq!(received, b"answer");
}

async fn the_end_of_one_side_leaves_the_other_open<S>(mut near: S, mut far: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let data = pattern(BYTES);
    let end = async {
        say(&mut near, b"question").await;
        near.close().await.expect("a connected stream can be closed");
    };
    let (_, received) = zip(end, rest(&mut far)).await;
    assert_eq!(received, b"question");
    let answer = async {
        say(&mut far, &data).await;
        far.close().await.expect("a connected stream can be closed");
    };
    let (_, received) = zip(answer, rest(&mut near)).await;
    assert!(received == data, "{} bytes of {}, or others", received.len(), data.len());
}

async fn both_sides_can_be_ended_at_once<S: AsyncRead + AsyncWrite + Unpin>(
    mut near: S,
    mut far: S,
) {
    let (one, other) = zip(near.close(), far.close()).await;
    one.and(other).expect("a connected stream can be closed");
    let (one, other) = zip(rest(&mut near), rest(&mut far)).await;
    assert!(one.is_empty() && other.is_empty());
}
