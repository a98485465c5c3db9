//! Streams for libraries that ask for `Send`.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{each_way, in_memory, in_real_time, over, tcp};
use futures_lite::future::{block_on, zip};
use futures_lite::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tulipa_streams::{DEFAULT_LIMIT, ReadWrite, SendReadWrite};

const fn is_send_and_sync<T: Send + Sync>() {}
const _: () = is_send_and_sync::<SendReadWrite>();

#[test]
fn streams_that_are_send_read_and_write() {
    each_way(async |near, far| {
        let (mut near, mut far) =
            (ReadWrite::from(near).into_send(), ReadWrite::from(far).into_send());
        let talk = async {
            near.write_all(b"first\nsecond").await.unwrap();
            near.flush().await.unwrap();
            near.close().await.unwrap();
            let mut answer = String::new();
            near.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "answer");
        };
        let listen = async {
            let mut line = String::new();
            far.read_line(&mut line).await.unwrap();
            let mut rest = String::new();
            far.read_to_string(&mut rest).await.unwrap();
            assert_eq!((&*line, &*rest), ("first\n", "second"));
            far.write_all(b"answer").await.unwrap();
            far.close().await.unwrap();
        };
        zip(talk, listen).await;
    });
}

#[cfg(feature = "tokio-io")]
#[test]
fn streams_that_are_send_read_and_write_for_tokio() {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
    each_way(async |near, far| {
        let (mut near, mut far) =
            (ReadWrite::from(near).into_send(), ReadWrite::from(far).into_send());
        let talk = async {
            AsyncWriteExt::write_all(&mut near, b"first\n").await.unwrap();
            near.write_u32(7).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let listen = async {
            let mut line = String::new();
            AsyncBufReadExt::read_line(&mut far, &mut line).await.unwrap();
            assert_eq!((&*line, far.read_u32().await.unwrap()), ("first\n", 7));
            assert_eq!(AsyncReadExt::read(&mut far, &mut [0]).await.unwrap(), 0);
        };
        zip(talk, listen).await;
    });
}

#[test]
fn streams_that_are_send_are_taken_out_again() {
    in_memory(async |near, far| {
        let send = ReadWrite::from(near).into_send();
        let (_reader, writer) = send.into_inner().split();
        writer.write(b"from the halves\n");
        let mut far = ReadWrite::from(far);
        assert_eq!(far.reader.read_line().await.unwrap(), b"from the halves\n");
    });
}

#[test]
fn streams_that_are_send_panic_elsewhere_and_close_when_they_are_dropped_there() {
    in_real_time(async |_| {
        let (near, far) = tcp();
        let (near, mut far) = over(near, far, DEFAULT_LIMIT).await;
        let mut send = ReadWrite::from(near).into_send();
        let abroad = std::thread::spawn(move || {
            let used = catch_unwind(AssertUnwindSafe(|| block_on(send.read(&mut [0]))));
            drop(send);
            used
        });
        let panic = abroad.join().unwrap().unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("outside of its loop's thread"), "{text}");
        assert_eq!(far.0.read_to_end(100).await.unwrap(), b"");
    });
}
