//! Copying from one connection to another, as a proxy does.

mod common;

use std::time::Duration;

use common::{Rig, in_virtual_time, over};
use tulipa_loop::{sleep, spawn};
use tulipa_protocols::WriteBufferLimits;
use tulipa_streams::{DEFAULT_LIMIT, Streams, copy, copy_bidirectional};

const SECOND: Duration = Duration::from_secs(1);

/// A client, the two ends of the proxy, and a server.
async fn chain(rig: &Rig, capacity: usize) -> (Streams, Streams, Streams, Streams) {
    let (near, far) = rig.memory(capacity);
    let (client, near) = over(near, far, DEFAULT_LIMIT).await;
    let (near_link, far_link) = rig.memory(capacity);
    let (far, server) = over(near_link, far_link, DEFAULT_LIMIT).await;
    (client, near, far, server)
}

#[test]
fn copy_takes_everything_until_the_end() {
    in_virtual_time(async |rig| {
        let (client, mut near, far, mut server) = chain(&rig, 1000).await;
        let sending = spawn(async move {
            client.1.write_all(&[7; 300_000]).await.unwrap();
            client.1.write_eof();
            client
        });
        let reading = spawn(async move { server.0.read_to_end(1 << 20).await.unwrap().len() });
        assert_eq!(copy(&mut near.0, &far.1).await.unwrap(), 300_000);
        drop(far);
        assert_eq!(reading.await.unwrap(), 300_000);
        sending.await.unwrap();
    });
}

#[test]
fn b97_a_byte_alone_is_passed_on_and_not_kept_until_more_comes() {
    in_virtual_time(async |rig| {
        let (mut client, mut near, mut far, mut server) = chain(&rig, 1000).await;
        let proxy = spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        for _ in 0..3 {
            client.1.write(b"?");
            assert_eq!(server.0.lend_exact(1).await.unwrap(), b"?");
            server.1.write(b"!");
            assert_eq!(client.0.lend_exact(1).await.unwrap(), b"!");
        }
        drop((client, server));
        assert_eq!(proxy.await.unwrap().unwrap(), (3, 3));
    });
}

#[test]
fn b97_the_end_of_one_direction_is_passed_on_and_the_other_goes_on() {
    in_virtual_time(async |rig| {
        let (mut client, mut near, mut far, mut server) = chain(&rig, 10).await;
        let proxy = spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        client.1.write(b"a question that is longer than the memory");
        client.1.write_eof();
        let question = server.0.read_to_end(1000).await.unwrap();
        assert_eq!(question.len(), 41);
        assert!(!proxy.is_done());
        server.1.write(b"answer");
        server.1.write_eof();
        assert_eq!(client.0.read_to_end(1000).await.unwrap(), b"answer");
        assert_eq!(proxy.await.unwrap().unwrap(), (41, 6));
    });
}

#[test]
fn b97_two_floods_against_each_other_do_not_stop() {
    in_virtual_time(async |rig| {
        let (client, mut near, mut far, server) = chain(&rig, 100).await;
        let proxy = spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        let ends = [client, server].map(|(mut reader, writer)| {
            // The reader begins late, so that everything on the way is full before.
            let sending = spawn(async move {
                writer.write_all(&[7; 500_000]).await.unwrap();
                writer.write_eof();
            });
            let reading = spawn(async move {
                sleep(SECOND).await;
                assert_eq!(reader.read_to_end(1 << 20).await.unwrap().len(), 500_000);
            });
            (sending, reading)
        });
        for (sending, reading) in ends {
            sending.await.unwrap();
            reading.await.unwrap();
        }
        assert_eq!(proxy.await.unwrap().unwrap(), (500_000, 500_000));
    });
}

#[test]
fn b97_a_slow_reader_slows_the_other_end() {
    in_virtual_time(async |rig| {
        let (client, mut near, mut far, mut server) = chain(&rig, 1000).await;
        far.1.transport().set_write_buffer_limits(WriteBufferLimits { low: 10, high: 1000 });
        let far_transport = far.1.transport().clone();
        let proxy = spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        client.1.write(&[7; 1 << 20]);
        client.1.write_eof();
        sleep(SECOND).await;
        assert!(far_transport.get_write_buffer_size() <= 1000 + 256 * 1024);
        assert!(client.1.transport().get_write_buffer_size() > 700_000);
        assert_eq!(server.0.read_to_end(1 << 20).await.unwrap().len(), 1 << 20);
        drop((client, server));
        proxy.await.unwrap().unwrap();
    });
}

#[test]
fn a_failure_on_one_side_ends_both() {
    in_virtual_time(async |rig| {
        let (mut client, mut near, mut far, server) = chain(&rig, 1000).await;
        let proxy = spawn(async move {
            let result = copy_bidirectional(&mut near, &mut far).await;
            (result, near, far)
        });
        client.1.write(b"x");
        sleep(SECOND).await;
        server.1.transport().reset();
        assert_eq!(client.0.read_line().await.unwrap(), b"", "the client is not kept waiting");
        let (result, _near, _far) = proxy.await.unwrap();
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_copy_that_is_given_up_loses_and_doubles_nothing() {
    for polls in 1..30 {
        in_virtual_time(async |rig| {
            let (client, mut near, far, mut server) = chain(&rig, 10).await;
            far.1.transport().set_write_buffer_limits(WriteBufferLimits { low: 0, high: 5 });
            let data = Vec::from_iter(0..=255_u8);
            client.1.write(&data);
            client.1.write_eof();
            let reading = spawn(async move { server.0.read_to_end(1000).await.unwrap() });
            {
                let mut copying = std::pin::pin!(copy(&mut near.0, &far.1));
                for _ in 0..polls {
                    if futures_lite::future::poll_once(copying.as_mut()).await.is_some() {
                        break;
                    }
                    tulipa_loop::yield_now().await;
                }
            }
            copy(&mut near.0, &far.1).await.unwrap();
            far.1.write_eof();
            assert_eq!(reading.await.unwrap(), data, "given up after {polls} polls");
        });
    }
}
