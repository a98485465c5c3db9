//! Known bugs of other streams, by their number in the catalogue that the test names use, and what is near them.
//!
//! | bugs | where |
//! |---|---|
//! | B88, B89 | `conformance` |
//! | B90 | here, and at every poll in `dropped_futures` |
//! | B93, B94 | here and in `read_until`, and the unit tests of the reader, which count |
//! | B96 | `servers` |
//! | B97 | `copying` |

mod common;

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use common::{each_way, in_memory, in_real_time, in_virtual_time, over, tcp_sockets};
use futures_lite::future::{or, poll_once};
use tulipa_loop::{sleep, spawn, timeout, yield_now};
use tulipa_protocols::{Bell, Flow, Link, MemoryLink, SocketLink, WriteBufferLimits};
use tulipa_selector::Source;
use tulipa_streams::{DEFAULT_LIMIT, ReadError, open_link};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn b90_a_read_that_was_given_up_can_be_made_again() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"half ");
        yield_now().await;
        assert!(poll_once(reader.read_line()).await.is_none());
        assert!(poll_once(reader.lend_exact(100)).await.is_none());
        writer.write(b"and half\n");
        assert_eq!(reader.read_line().await.unwrap(), b"half and half\n");
    });
}

#[test]
fn a_search_that_was_given_up_does_not_hide_other_separators() {
    in_memory(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"one,two\nthree;four");
        sleep(SECOND).await;
        assert!(poll_once(reader.read_until(b"|")).await.is_none());
        assert_eq!(reader.read_until(b",").await.unwrap(), b"one,");
        assert!(poll_once(reader.read_until_any(&[b"|", b"||"])).await.is_none());
        assert_eq!(reader.read_line().await.unwrap(), b"two\n");
        assert!(poll_once(reader.read_line()).await.is_none());
        assert_eq!(reader.read_until(b";").await.unwrap(), b"three;");
    });
}

#[test]
fn b91_ten_drains_at_once_all_end() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(1000);
        let ((_r, writer), (mut peer, _w)) = over(near, far, DEFAULT_LIMIT).await;
        assert_eq!(writer.write(&[7; 100_000]), Flow::Full);
        let drains = Vec::from_iter((0..10).map(|_| {
            let writer = writer.clone();
            spawn(async move { writer.drain().await })
        }));
        sleep(SECOND).await;
        assert!(drains.iter().all(|drain| !drain.is_done()));
        peer.lend_exact(100_000).await.unwrap();
        for drain in drains {
            drain.await.unwrap().unwrap();
        }
    });
}

#[test]
fn ten_drains_at_once_all_hear_of_the_failure() {
    in_virtual_time(async |rig| {
        let (near, mut far) = rig.memory(1000);
        let (_r, writer) = open_link(near, DEFAULT_LIMIT).await.unwrap();
        assert_eq!(writer.write(&[7; 100_000]), Flow::Full);
        let drains = Vec::from_iter((0..10).map(|_| {
            let writer = writer.clone();
            spawn(async move { writer.drain().await })
        }));
        sleep(SECOND).await;
        far.reset();
        drop(far);
        for drain in drains {
            let error = drain.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(writer.flush().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(writer.wait_closed().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn b92_a_task_that_only_writes_and_drains_lets_others_run() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        let reading = spawn(async move {
            let mut count = 0;
            while count < 10_000 {
                let lent = reader.fill().await.unwrap().len();
                reader.consume(lent);
                count += lent;
            }
        });
        // It would go on for ever if the reader never had its turn.
        let writing = async {
            loop {
                writer.write(b"0123456789");
                writer.drain().await.unwrap();
            }
        };
        or(async { reading.await.unwrap() }, writing).await;
    });
}

#[test]
fn b92_a_drain_of_a_closed_connection_waits_for_a_turn() {
    each_way(async |(_reader, writer), _peer| {
        writer.close();
        let other = spawn(async {
            for _ in 0..5 {
                yield_now().await;
            }
        });
        while !other.is_done() {
            writer.drain().await.unwrap_err();
        }
    });
}

#[test]
fn b93_a_flood_without_a_line_end_takes_no_more_than_the_limit_and_one_read() {
    in_virtual_time(async |rig| {
        const FLOOD: usize = 8 << 20;
        let (near, far) = rig.memory(300_000);
        let ((mut reader, _w), (_r, writer)) = over(near, far, DEFAULT_LIMIT).await;
        let flood = spawn(async move {
            for _ in 0..FLOOD / (64 * 1024) {
                writer.write_all(&[b'x'; 64 * 1024]).await.unwrap();
            }
            writer.write_eof();
        });
        let (mut dropped, mut most) = (0, 0);
        loop {
            match reader.read_line().await {
                Err(ReadError::LimitOverrun(error)) => {
                    // All of it, as no end was in it.
                    most = most.max(error.consumed);
                    dropped += error.consumed;
                }
                line => break assert!(line.unwrap().len() <= DEFAULT_LIMIT),
            }
        }
        flood.await.unwrap();
        assert!(dropped > FLOOD - DEFAULT_LIMIT, "{dropped}");
        assert!(most <= DEFAULT_LIMIT + 256 * 1024, "{most}");
    });
}

#[test]
fn a_writer_to_a_peer_that_does_not_read_keeps_a_bounded_amount() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(1000);
        let ((_r, writer), _far) = over(near, far, DEFAULT_LIMIT).await;
        writer.transport().set_write_buffer_limits(WriteBufferLimits { low: 0, high: 5_000 });
        let data = vec![7; 10 << 20];
        assert!(poll_once(writer.write_all(&data)).await.is_none());
        assert!(writer.transport().get_write_buffer_size() <= 5_000 + 256 * 1024);
    });
}

#[test]
fn a_reader_that_is_not_asked_reads_nothing() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(100);
        let ((mut reader, _w), (_r, writer)) = over(near, far, DEFAULT_LIMIT).await;
        writer.transport().set_write_buffer_limits(WriteBufferLimits { low: 0, high: 0 });
        writer.write(&[7; 1000]);
        sleep(SECOND).await;
        assert_eq!(reader.buffered(), b"");
        assert_eq!(writer.transport().get_write_buffer_size(), 900);
        // One that is asked reads what it is asked for; for a few bytes, what one read gives.
        assert_eq!(reader.read(&mut [0; 64]).await.unwrap(), 64);
        sleep(SECOND).await;
        assert_eq!(writer.transport().get_write_buffer_size(), 836);
        assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 10);
        sleep(SECOND).await;
        assert_eq!(
            (reader.buffered().len(), writer.transport().get_write_buffer_size()),
            (90, 736)
        );
    });
}

#[test]
fn b95_what_came_before_a_reset_is_read_before_the_error() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(100_000);
        let ((mut reader, writer), (_r, peer)) = over(near, far, DEFAULT_LIMIT).await;
        peer.write_all(&[7; 90_000]).await.unwrap();
        peer.flush().await.unwrap();
        peer.transport().reset();
        sleep(SECOND).await;
        assert_eq!(reader.lend_exact(90_000).await.unwrap(), [7; 90_000]);
        for _ in 0..2 {
            let error = reader.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(writer.drain().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn b95_what_came_before_a_reset_is_read_before_the_error_over_tcp() {
    in_real_time(async |_| {
        let (ours, mut theirs) = tcp_sockets();
        let (mut reader, _writer) =
            open_link(SocketLink::adopt(ours).unwrap(), DEFAULT_LIMIT).await.unwrap();
        theirs.write_all(b"last words\n").unwrap();
        socket2::SockRef::from(&theirs.as_fd()).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        assert_eq!(reader.read_line().await.unwrap(), b"last words\n");
        let error = reader.read_line().await.unwrap_err();
        assert_eq!(io::Error::from(error).kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn b95_what_came_before_writing_failed_is_read_before_the_error() {
    for one_by_one in [false, true] {
        in_virtual_time(async |rig| {
            let (near, far) = rig.memory(600_000);
            let ((mut reader, writer), (peer_reader, peer)) = over(near, far, DEFAULT_LIMIT).await;
            peer.write_all(&[7; 500_000]).await.unwrap();
            peer.flush().await.unwrap();
            drop((peer_reader, peer));
            sleep(SECOND).await;
            writer.write(b"nobody reads this");
            sleep(SECOND).await;
            assert!(writer.is_closing());
            let mut count = 0;
            if one_by_one {
                while count < 500_000 {
                    count += reader.read(&mut [0; 1]).await.unwrap();
                }
            } else {
                reader.lend_exact(500_000).await.unwrap();
            }
            let error = reader.fill().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        });
    }
}

#[test]
fn writing_to_a_peer_that_is_gone_fails_with_the_reason_wherever_it_is_noticed() {
    in_virtual_time(async |rig| {
        for what in 0..4 {
            let (near, far) = rig.memory(1000);
            let (_reader, writer) = open_link(near, DEFAULT_LIMIT).await.unwrap();
            drop(far);
            writer.write(b"x");
            let result = match what {
                0 => writer.flush().await,
                1 => writer.wait_closed().await,
                2 => writer.write_all(&[7; 1 << 20]).await,
                _ => loop {
                    if let Err(error) = writer.drain().await {
                        break Err(error);
                    }
                },
            };
            assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe, "{what}");
        }
    });
}

#[test]
fn writing_after_write_eof_is_an_error_where_it_can_be_one() {
    each_way(async |(_reader, writer), _peer| {
        writer.write_eof();
        assert_eq!(writer.write(b"x"), Flow::Closed);
        assert_eq!(writer.write_all(b"x").await.unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(!writer.is_closing());
    });
}

/// Counts how often it is written to, and read from with something to give.
struct Counting(MemoryLink, Rc<Cell<usize>>, Rc<Cell<usize>>);

impl Link for Counting {
    fn source(&self) -> Source {
        self.0.source()
    }

    fn set_bell(&mut self, bell: Bell) {
        self.0.set_bell(bell);
    }

    fn has_input(&self) -> bool {
        self.0.has_input()
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.2.set(self.2.get() + 1);
        Ok(count)
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.1.set(self.1.get() + 1);
        self.0.write(pieces)
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.0.shutdown()
    }
}

#[test]
fn writes_of_one_step_leave_together() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(1000);
        let writes = Rc::new(Cell::new(0));
        let near = Counting(near, writes.clone(), Rc::default());
        let ((_r, writer), (mut peer, _w)) = over(near, far, DEFAULT_LIMIT).await;
        for steps in 1..4 {
            for _ in 0..10 {
                writer.write(b"0123456789");
            }
            assert_eq!(writes.get(), steps - 1, "they wait for the end of the step");
            peer.lend_exact(100).await.unwrap();
            assert_eq!(writes.get(), steps);
        }
        // Waiting for them sends them too.
        writer.write(b"x");
        writer.write(b"y");
        assert!(poll_once(writer.flush()).await.is_some());
        assert_eq!(writes.get(), 4);
    });
}

#[test]
fn wakers_of_many_tasks_that_read_in_turn_find_the_right_one() {
    in_memory(async |(reader, _w), (_r, writer)| {
        let reader = Rc::new(tulipa_sync::Lock::new(reader));
        let tasks = Vec::from_iter((0..10).map(|_| {
            let reader = reader.clone();
            spawn(async move { reader.lock().await.read_line().await.unwrap().to_vec() })
        }));
        for _ in 0..10 {
            sleep(SECOND).await;
            writer.write(b"line\n");
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), b"line\n");
        }
    });
}

#[test]
fn a_reader_polled_by_one_task_and_then_by_another_wakes_the_other() {
    in_memory(async |(mut reader, _w), (_r, writer)| {
        {
            let mut read = pin!(reader.read_line());
            assert!(poll_once(read.as_mut()).await.is_none());
        }
        let other = spawn(async move { reader.read_line().await.unwrap().to_vec() });
        sleep(SECOND).await;
        writer.write(b"x\n");
        assert_eq!(other.await.unwrap(), b"x\n");
    });
}

#[test]
fn reads_of_a_few_bytes_each_do_not_ask_the_system_each_time() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(10_000);
        let reads = Rc::new(Cell::new(0));
        let near = Counting(near, Rc::default(), reads.clone());
        let ((mut reader, _w), (_r, writer)) = over(near, far, DEFAULT_LIMIT).await;
        writer.write_all(&[7; 5000]).await.unwrap();
        writer.write_eof();
        let mut byte = [0];
        for _ in 0..5000 {
            assert_eq!((reader.read(&mut byte).await.unwrap(), byte), (1, [7]));
        }
        assert_eq!(reader.read(&mut byte).await.unwrap(), 0);
        assert!(reader.at_eof());
        assert!(reads.get() <= 3, "{} reads", reads.get());
    });
}

#[test]
fn a_drain_of_a_connection_that_is_closing_does_not_wait_for_its_peer() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(10);
        let ((_r, writer), _far) = over(near, far, DEFAULT_LIMIT).await;
        // Between the low limit and the high one, and nobody reads.
        writer.write(&[7; 30_000]);
        writer.close();
        let drained = timeout(SECOND, writer.drain()).await.expect("it waits for nobody");
        assert_eq!(drained.unwrap_err().kind(), ErrorKind::NotConnected);
        writer.transport().abort();
    });
}
