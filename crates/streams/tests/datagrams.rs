//! Datagrams for tasks.
#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tulipa_loop::{EventLoop, spawn, timeout, yield_now};
use tulipa_protocols::{Datagrams, WriteBufferLimits};
use tulipa_streams::DatagramStream;

fn run<F: Future>(future: F) -> F::Output {
    let limited = async { timeout(Duration::from_secs(60), future).await.expect("it ends") };
    EventLoop::new().unwrap().run_until_complete(limited).unwrap()
}

fn inet(stream: &DatagramStream) -> SocketAddr {
    stream.local_addr().unwrap().inet().unwrap()
}

#[test]
fn streams_send_and_receive_whole_datagrams() {
    run(async {
        let server = DatagramStream::bind("[::1]:0").await.unwrap();
        let client = DatagramStream::connect(inet(&server)).await.unwrap();
        let mut buffer = [0; 100];
        for data in [&b"one"[..], b"", b"three"] {
            client.send(data).await.unwrap();
            let received = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..received.length], data);
            assert!(!received.truncated);
            server.send_to(data, &received.from).await.unwrap();
            assert_eq!(client.recv(&mut buffer).await.unwrap(), data.len());
        }
        assert_eq!(client.peer_addr(), server.local_addr());
    });
}

#[test]
fn what_is_longer_than_the_buffer_is_said_to_be() {
    run(async {
        let server = DatagramStream::bind("127.0.0.1:0").await.unwrap();
        let client = DatagramStream::connect(inet(&server)).await.unwrap();
        for _ in 0..2 {
            client.send(b"12345").await.unwrap();
        }
        let received = server.recv_from(&mut [0; 4]).await.unwrap();
        assert!(received.truncated && received.length == 4);
        let error = server.recv(&mut [0; 3]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    });
}

/// Polls a future so many times at most, a turn between each two, and drops it. What it gave, if it was done.
async fn poll_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        let poll = |context: &mut Context<'_>| Poll::Ready(future.as_mut().poll(context));
        if let Poll::Ready(output) = std::future::poll_fn(poll).await {
            return Some(output);
        }
        yield_now().await;
    }
    None
}

#[test]
fn a_receive_dropped_at_any_poll_loses_nothing() {
    run(async {
        let server = DatagramStream::bind("127.0.0.1:0").await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut next, mut buffer) = (0_u32, [0; 4]);
        for number in 0..300_u32 {
            // Sometimes somebody asks before it is there, sometimes after.
            let before = if number % 3 == 0 { number as usize % 4 } else { 0 };
            for (step, times) in [before, number as usize % 5].into_iter().enumerate() {
                let received = poll_times(server.recv_from(&mut buffer), times).await;
                if let Some(received) = received {
                    assert_eq!(received.unwrap().length, 4);
                    assert_eq!(u32::from_be_bytes(buffer), next, "none is lost, none overtakes");
                    next += 1;
                }
                if step == 0 {
                    client.send_to(&number.to_be_bytes(), inet(&server)).unwrap();
                }
            }
        }
        while next < 300 {
            server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(u32::from_be_bytes(buffer), next);
            next += 1;
        }
    });
}

#[test]
fn a_send_dropped_before_there_is_room_sends_nothing() {
    run(async {
        let directory = std::env::temp_dir().join(format!("tulipa-ds-{}", std::process::id()));
        let _ = std::fs::remove_file(&directory);
        let full = UnixDatagram::bind(&directory).unwrap();
        full.set_nonblocking(true).unwrap();
        let client = DatagramStream::open(Datagrams::to_unix(&directory)).await.unwrap();
        client.transport().set_write_buffer_limits(WriteBufferLimits { low: 0, high: 100 });
        let mut sent = 0_u32;
        while poll_times(client.send(&sent.to_be_bytes()), 3).await.is_some() {
            sent += 1;
            assert!(sent < 100_000, "it fills");
        }
        let (mut received, mut buffer) = (0, [0; 4]);
        while received < sent {
            match full.recv(&mut buffer) {
                Ok(_) => {
                    assert_eq!(u32::from_be_bytes(buffer), received);
                    received += 1;
                }
                Err(_) => yield_now().await,
            }
        }
        client.flush().await;
        assert_eq!(full.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        std::fs::remove_file(&directory).unwrap();
    });
}

#[test]
fn a_refusal_is_told_by_the_next_receive_and_the_stream_goes_on() {
    run(async {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        let there = gone.local_addr().unwrap();
        drop(gone);
        let client = DatagramStream::connect(there).await.unwrap();
        client.send(b"nobody").await.unwrap();
        let refused = client.recv(&mut [0; 10]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let server = DatagramStream::bind(there).await.unwrap();
        client.send(b"somebody").await.unwrap();
        assert_eq!(server.recv(&mut [0; 10]).await.unwrap(), 8);
        client.send(&vec![0; 70_000]).await.unwrap();
        client.flush().await;
        client.recv(&mut [0; 10]).await.unwrap_err();
        assert!(client.take_error().is_none());
    });
}

#[test]
fn a_close_ends_a_receive_and_a_drop_sends_what_is_queued() {
    run(async {
        let server = DatagramStream::bind("127.0.0.1:0").await.unwrap();
        let client = DatagramStream::connect(inet(&server)).await.unwrap();
        client.send(b"last words").await.unwrap();
        drop(client);
        assert_eq!(server.recv(&mut [0; 20]).await.unwrap(), 10);
        let transport = server.transport().clone();
        let waiting = spawn(async move {
            let mut buffer = [0; 10];
            let error = server.recv(&mut buffer).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
            server.send_to(b"", "127.0.0.1:9".parse::<SocketAddr>().unwrap()).await.unwrap_err();
        });
        yield_now().await;
        transport.close();
        waiting.await.unwrap();
        transport.wait_closed().await;
    });
}

#[test]
fn several_tasks_receive_each_a_datagram_of_its_own() {
    run(async {
        let server = std::rc::Rc::new(DatagramStream::bind("127.0.0.1:0").await.unwrap());
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let server = server.clone();
                spawn(async move {
                    let mut buffer = [0; 1];
                    server.recv(&mut buffer).await.unwrap();
                    buffer[0]
                })
            })
            .collect();
        yield_now().await;
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..5 {
            client.send_to(&[number], inet(&server)).unwrap();
        }
        let mut all = Vec::new();
        for task in tasks {
            all.push(task.await.unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
    });
}
