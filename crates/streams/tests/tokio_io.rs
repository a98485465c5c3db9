//! tokio's traits: code that is written for them runs here, without tokio's runtime.
#![cfg(feature = "tokio-io")]

mod common;

use common::{each_way, in_virtual_time, over};
use futures_lite::future::zip;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tulipa_loop::spawn;
use tulipa_streams::{DEFAULT_LIMIT, ReadWrite};

#[test]
fn code_for_tokio_reads_and_writes() {
    each_way(async |near, far| {
        let (mut near, mut far) = (ReadWrite::from(near), ReadWrite::from(far));
        let talk = async {
            near.write_all(b"first\nsecond").await.unwrap();
            near.write_u32(7).await.unwrap();
            near.flush().await.unwrap();
            near.shutdown().await.unwrap();
            let mut answer = String::new();
            near.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "answer");
        };
        let listen = async {
            let mut line = String::new();
            AsyncBufReadExt::read_line(&mut far, &mut line).await.unwrap();
            assert_eq!(line, "first\n");
            let mut word = [0; 6];
            far.read_exact(&mut word).await.unwrap();
            assert_eq!((&word, far.read_u32().await.unwrap()), (b"second", 7));
            assert_eq!(far.read(&mut word).await.unwrap(), 0);
            far.write_all(b"answer").await.unwrap();
            far.shutdown().await.unwrap();
        };
        zip(talk, listen).await;
    });
}

#[test]
fn code_for_tokio_copies_with_back_pressure() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(1000);
        let (client, proxy_near) = over(near, far, DEFAULT_LIMIT).await;
        let (near, far) = rig.memory(1000);
        let (proxy_far, mut server) = over(near, far, DEFAULT_LIMIT).await;
        let proxy = spawn(async move {
            let (mut near, mut far) = (ReadWrite::from(proxy_near), ReadWrite::from(proxy_far));
            tokio::io::copy_bidirectional(&mut near, &mut far).await
        });
        let sending = spawn(async move {
            client.1.write_all(&[7; 1 << 20]).await.unwrap();
            client.1.write_eof();
            client
        });
        assert_eq!(server.0.read_to_end(1 << 20).await.unwrap().len(), 1 << 20);
        server.1.write(b"answer\n");
        server.1.write_eof();
        let (reader, _writer) = sending.await.unwrap();
        let mut lines = BufReader::new(reader).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "answer");
        assert_eq!(proxy.await.unwrap().unwrap(), (1 << 20, 7));
    });
}
