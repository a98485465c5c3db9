//! Every future of the streams is polled some number of times and dropped, for each number of times there is. What comes
//! afterwards shows that nothing was lost.

mod common;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use common::{in_memory, in_virtual_time, over};
use tulipa_loop::{sleep, spawn};
use tulipa_protocols::WriteBufferLimits;
use tulipa_streams::{DEFAULT_LIMIT, ReadError, StreamReader, StreamWriter, Streams};
use tulipa_testing::ToyRecords;

const SECOND: Duration = Duration::from_secs(1);
const DATA: &[u8] = b"one two;\nthree";

/// More polls than anything here takes.
const MOST_POLLS: usize = 100;

/// Polls a future so many times at most, then drops it.
async fn give_up_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The last poll is the last.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Reads with `read`, given up after each number of polls while the bytes come one by one, and then all the rest:
/// what `read` gave and the rest is everything. It gives `None` if it was given up.
fn reads(read: impl AsyncFn(&mut StreamReader, usize) -> Option<Vec<u8>>) {
    let mut finished = false;
    for polls in 0..MOST_POLLS {
        in_memory(async |(mut reader, _writer), (peer_reader, peer)| {
            let feeding = spawn(async move {
                for byte in DATA {
                    sleep(SECOND).await;
                    peer.write(&[*byte]);
                }
                peer.write_eof();
                (peer_reader, peer)
            });
            let first = read(&mut reader, polls).await;
            finished = first.is_some();
            let mut all = first.unwrap_or_default();
            all.extend(reader.read_to_end(1000).await.unwrap());
            assert_eq!(all, DATA, "given up after {polls} polls");
            feeding.await.unwrap();
        });
    }
    assert!(finished, "it ends within {MOST_POLLS} polls");
}

#[test]
fn read() {
    reads(async |reader, polls| {
        let mut buffer = [0; 5];
        let count = give_up_after(polls, reader.read(&mut buffer)).await?.unwrap();
        Some(buffer[..count].to_vec())
    });
}

#[test]
fn fill() {
    reads(async |reader, polls| {
        let count = give_up_after(polls, reader.fill()).await?.unwrap().len();
        let filled = reader.buffered()[..count].to_vec();
        reader.consume(count);
        Some(filled)
    });
}

#[test]
fn read_exact() {
    reads(async |reader, polls| {
        let mut buffer = [0; 6];
        give_up_after(polls, reader.read_exact(&mut buffer)).await?.unwrap();
        Some(buffer.to_vec())
    });
}

#[test]
fn lend_exact() {
    reads(async |reader, polls| {
        Some(give_up_after(polls, reader.lend_exact(10)).await?.unwrap().to_vec())
    });
}

#[test]
fn read_until() {
    reads(async |reader, polls| {
        Some(give_up_after(polls, reader.read_until(b";")).await?.unwrap().to_vec())
    });
}

#[test]
fn read_until_any() {
    reads(async |reader, polls| {
        let read = reader.read_until_any(&[b"three", b";\n"]);
        Some(give_up_after(polls, read).await?.unwrap().to_vec())
    });
}

#[test]
fn read_line() {
    reads(async |reader, polls| {
        Some(give_up_after(polls, reader.read_line()).await?.unwrap().to_vec())
    });
}

#[test]
fn read_to_end() {
    reads(async |reader, polls| {
        Some(give_up_after(polls, reader.read_to_end(1000)).await?.unwrap())
    });
}

#[test]
fn a_read_that_meets_the_end() {
    reads(async |reader, polls| {
        match give_up_after(polls, reader.read_until(b"|")).await?.unwrap_err() {
            ReadError::Incomplete(error) => Some(error.partial),
            error => panic!("{error}"),
        }
    });
}

/// Does something with a writer, given up after each number of polls while the peer reads slowly, then closes. The peer
/// must get the first part of `data`, and all of it if `whole`.
fn writes(data: &[u8], whole: bool, write: impl AsyncFn(&StreamWriter, usize)) {
    for polls in 0..MOST_POLLS {
        in_virtual_time(async |rig| {
            let (near, far) = rig.memory(100);
            let ((reader, writer), (mut peer, peer_writer)) = over(near, far, DEFAULT_LIMIT).await;
            writer.transport().set_write_buffer_limits(WriteBufferLimits { low: 10, high: 50 });
            let reading = spawn(async move {
                let mut got = Vec::new();
                loop {
                    sleep(SECOND).await;
                    let mut buffer = [0; 60];
                    let count = peer.read(&mut buffer).await.unwrap();
                    if count == 0 {
                        return got;
                    }
                    got.extend_from_slice(&buffer[..count]);
                }
            });
            write(&writer, polls).await;
            drop((reader, writer));
            let got = reading.await.unwrap();
            assert!(data.starts_with(&got), "given up after {polls} polls");
            assert!(!whole || got.len() == data.len(), "given up after {polls} polls");
            drop(peer_writer);
        });
    }
}

#[test]
fn write_all() {
    let data = Vec::from_iter((0..200_000).map(|place| place as u8));
    writes(&data, false, async |writer, polls| {
        let _given_up = give_up_after(polls % 10, writer.write_all(&data)).await;
    });
}

#[test]
fn drain() {
    writes(&[7; 1000], true, async |writer, polls| {
        writer.write(&[7; 1000]);
        let _given_up = give_up_after(polls, writer.drain()).await;
    });
}

#[test]
fn flush() {
    writes(&[7; 1000], true, async |writer, polls| {
        writer.write(&[7; 1000]);
        let _given_up = give_up_after(polls, writer.flush()).await;
    });
}

#[test]
fn wait_closed() {
    writes(&[7; 1000], true, async |writer, polls| {
        writer.write(&[7; 1000]);
        writer.close();
        let _given_up = give_up_after(polls, writer.wait_closed()).await;
    });
}

#[test]
fn upgrade() {
    for polls in 0..20 {
        in_memory(async |near: Streams, far: Streams| {
            let ((mut near, near_writer), (mut far, far_writer)) = (near, far);
            let server = spawn(async move {
                assert_eq!(far.read_line().await.unwrap(), b"UPGRADE\n");
                far_writer.upgrade(&mut far, ToyRecords::server()).await.unwrap();
                assert_eq!(far.read_line().await.unwrap(), b"hidden\n");
                far_writer.write(b"answer\n");
                far_writer.flush().await.unwrap();
                sleep(SECOND).await;
            });
            near_writer.write(b"UPGRADE\n");
            let upgrade = near_writer.upgrade(&mut near, ToyRecords::client());
            if give_up_after(polls, upgrade).await.is_none() && polls == 0 {
                // It was never begun.
                near_writer.upgrade(&mut near, ToyRecords::client()).await.unwrap();
            }
            near_writer.write(b"hidden\n");
            assert_eq!(near.read_line().await.unwrap(), b"answer\n");
            server.await.unwrap();
        });
    }
}
