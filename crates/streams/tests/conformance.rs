//! What streams promise, over everything that carries bytes: memory that cuts them into pieces of one byte, a filter,
//! TCP, Unix sockets.

mod common;

use std::io::{ErrorKind, IoSlice};

use bytes::Bytes;
use common::each_way;
use futures_lite::future::zip;
use tulipa_loop::spawn;
use tulipa_protocols::{Flow, WriteBufferLimits};
use tulipa_streams::{
    DEFAULT_LIMIT, IncompleteRead, LimitOverrun, ReadError, ReadWrite, StreamReader, StreamWriter,
};

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|place| (place * 31 % 251) as u8).collect()
}

async fn rest(reader: &mut StreamReader) -> Vec<u8> {
    reader.read_to_end(1 << 24).await.expect("the end comes")
}

#[test]
fn read_gives_what_is_there_and_nothing_at_the_end() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"abc");
        let mut got = Vec::new();
        let mut buffer = [0; 2];
        while got.len() < 3 {
            let count = reader.read(&mut buffer).await.unwrap();
            assert!((1..=2).contains(&count));
            got.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(got, b"abc");
        assert_eq!(reader.read(&mut []).await.unwrap(), 0);
        assert!(!reader.at_eof());
        writer.write_eof();
        assert_eq!(reader.read(&mut buffer).await.unwrap(), 0);
        assert_eq!(reader.read(&mut buffer).await.unwrap(), 0);
        assert!(reader.at_eof());
    });
}

#[test]
fn read_exact_gives_exactly_that_many() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"abcdef");
        let mut buffer = [0; 4];
        reader.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"abcd");
        assert_eq!(reader.lend_exact(0).await.unwrap(), b"");
        assert_eq!(reader.lend_exact(2).await.unwrap(), b"ef");
    });
}

#[test]
fn b88_read_exact_of_ten_times_the_limit() {
    for way in common::WAYS {
        let limit = if way == common::Way::Memory(1) { 100 } else { 10_000 };
        way.run(limit, async |(mut reader, _w), (_r, writer)| {
            let data = pattern(10 * limit);
            let sent = data.clone();
            let sending = spawn(async move { writer.write_all(&sent).await });
            assert_eq!(reader.lend_exact(10 * limit).await.unwrap(), data);
            sending.await.unwrap().unwrap();
        });
    }
}

#[test]
fn b89_the_end_at_every_offset_is_an_end_for_every_read() {
    for count in 0..6 {
        each_way(async |(mut reader, _w), (_r, writer)| {
            writer.write(&b"abcde"[..count]);
            drop((writer, _r));
            let partial = b"abcde"[..count].to_vec();
            let error = reader.lend_exact(6).await.unwrap_err();
            let ReadError::Incomplete(error) = error else { panic!("{error}") };
            assert_eq!(error, IncompleteRead { partial, expected: Some(6) });
            assert!(reader.at_eof());
            // And it stays so.
            let none = IncompleteRead { partial: Vec::new(), expected: None };
            let error = reader.read_until(b"x").await.unwrap_err();
            let ReadError::Incomplete(error) = error else { panic!("{error}") };
            assert_eq!(error, none);
            assert_eq!(reader.read_line().await.unwrap(), b"");
            assert_eq!(reader.fill().await.unwrap(), b"");
            assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0);
            assert_eq!(reader.read_to_end(0).await.unwrap(), b"");
            assert_eq!(reader.lend_exact(0).await.unwrap(), b"");
        });
    }
}

#[test]
fn read_until_at_the_end_gives_what_there_was() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"one;two");
        writer.write_eof();
        assert_eq!(reader.read_until(b";").await.unwrap(), b"one;");
        let error = reader.read_until(b";").await.unwrap_err();
        let ReadError::Incomplete(error) = error else { panic!("{error}") };
        assert_eq!(error, IncompleteRead { partial: b"two".to_vec(), expected: None });
        assert_eq!(std::io::Error::from(ReadError::from(error)).kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn read_until_takes_the_separator_that_ends_first() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"a--b--;c;aaab.");
        let separators: [&[u8]; 3] = [b"--;", b";", b"--"];
        assert_eq!(reader.read_until_any(&separators).await.unwrap(), b"a--");
        // Two that end together are one end.
        assert_eq!(reader.read_until_any(&[b"--;", b";"]).await.unwrap(), b"b--;");
        assert_eq!(reader.read_until_any(&[b"--;", b";"]).await.unwrap(), b"c;");
        assert_eq!(reader.read_until(b"aab").await.unwrap(), b"aaab");
        let empty: [&[&[u8]]; 3] = [&[], &[b""], &[b"x", b""]];
        for empty in empty {
            let error = reader.read_until_any(empty).await.unwrap_err();
            let ReadError::Io(error) = error else { panic!("{error}") };
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(reader.lend_exact(1).await.unwrap(), b".");
    });
}

#[test]
fn read_line_gives_lines_then_what_is_left_then_nothing() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"one\n\ntwo\r\nthree");
        writer.write_eof();
        for line in [&b"one\n"[..], b"\n", b"two\r\n", b"three", b"", b""] {
            assert_eq!(reader.read_line().await.unwrap(), line);
        }
        assert!(reader.at_eof());
    });
}

#[test]
fn fill_lends_and_consume_takes() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"abc");
        let mut got = Vec::new();
        while got.len() < 3 {
            let lent = reader.fill().await.unwrap();
            got.push(lent[0]);
            reader.consume(1);
        }
        assert_eq!(got, b"abc");
        writer.write_eof();
        assert_eq!(reader.fill().await.unwrap(), b"");
    });
}

#[test]
fn the_limit_stops_a_search_and_leaves_the_bytes() {
    for way in common::WAYS {
        way.run(10, async |(mut reader, _w), (_r, writer)| {
            assert_eq!(reader.limit(), 10);
            writer.write(b"0123456789;"); // ten before the separator are allowed
            assert_eq!(reader.read_until(b";").await.unwrap(), b"0123456789;");
            writer.write(b"0123456789-;rest");
            writer.write_eof();
            let error = reader.read_until(b";").await.unwrap_err();
            let ReadError::LimitOverrun(error) = error else { panic!("{error}") };
            assert_eq!(error, LimitOverrun { consumed: 11, limit: 10 });
            // Nothing is lost, and it can be asked again.
            assert!(matches!(reader.read_until(b";").await, Err(ReadError::LimitOverrun(_))));
            assert_eq!(reader.lend_exact(11).await.unwrap(), b"0123456789-");
            assert_eq!(reader.read_until(b";").await.unwrap(), b";");
            assert_eq!(rest(&mut reader).await, b"rest");
        });
    }
}

#[test]
fn a_line_over_the_limit_is_dropped_and_the_next_one_is_read() {
    for way in common::WAYS {
        way.run(10, async |(mut reader, _w), (_r, writer)| {
            writer.write(b"0123456789\n");
            assert_eq!(reader.read_line().await.unwrap(), b"0123456789\n");
            writer.write(&[b'x'; 40]);
            writer.write(b"\nnext\n");
            // How often depends on how it is cut: what is dropped is what has come.
            let mut overruns = 0;
            let line = loop {
                match reader.read_line().await {
                    Ok(line) if line.first() == Some(&b'x') => assert!(line.len() <= 11),
                    Ok(b"\n") => {}
                    Ok(line) => break line.to_vec(),
                    Err(ReadError::LimitOverrun(_)) => overruns += 1,
                    Err(error) => panic!("{error}"),
                }
            };
            assert_eq!(line, b"next\n");
            assert!((1..=4).contains(&overruns), "{overruns}");
        });
    }
}

#[test]
fn read_to_end_has_a_bound_of_its_own() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"0123456789");
        writer.write_eof();
        let error = reader.read_to_end(9).await.unwrap_err();
        assert!(matches!(error, ReadError::LimitOverrun(LimitOverrun { limit: 9, .. })), "{error}");
        assert_eq!(reader.read_to_end(10).await.unwrap(), b"0123456789");
        assert_eq!(reader.read_to_end(10).await.unwrap(), b"");
    });
}

#[test]
fn everything_that_writes_writes_in_order() {
    each_way(async |(mut reader, _w), (_r, writer)| {
        writer.write(b"one ");
        writer.write_vectored(&[IoSlice::new(b"two "), IoSlice::new(b""), IoSlice::new(b"three ")]);
        writer.write_bytes(Bytes::from_static(b"four "));
        writer.write_all(b"five ").await.unwrap();
        writer.write(b"six");
        writer.close();
        assert_eq!(writer.write(b"dropped"), Flow::Closed);
        assert_eq!(rest(&mut reader).await, b"one two three four five six");
        drop((reader, _w));
        writer.wait_closed().await.unwrap();
    });
}

#[test]
fn both_directions_at_once_with_much_data() {
    for way in common::WAYS {
        let count = if way == common::Way::Memory(1) { 3_000 } else { 300_000 };
        way.run(64 * 1024, async |(mut near, near_writer), (mut far, far_writer)| {
            let (there, back) = (pattern(count), pattern(count / 2));
            let (expected_there, expected_back) = (there.clone(), back.clone());
            let send = |writer: StreamWriter, data: Vec<u8>| async move {
                writer.write_all(&data).await.unwrap();
                writer.write_eof();
            };
            let send_there = spawn(send(near_writer, there));
            let send_back = spawn(send(far_writer, back));
            let (at_far, at_near) = zip(far.read_to_end(count), near.read_to_end(count)).await;
            assert!(at_far.unwrap() == expected_there);
            assert!(at_near.unwrap() == expected_back);
            send_there.await.unwrap();
            send_back.await.unwrap();
        });
    }
}

#[test]
fn the_end_of_one_side_leaves_the_other_open() {
    each_way(async |(mut near, near_writer), (mut far, far_writer)| {
        near_writer.write(b"question");
        near_writer.write_eof();
        assert_eq!(near_writer.write(b"!"), Flow::Closed);
        assert_eq!(rest(&mut far).await, b"question");
        far_writer.write(b"answer");
        far_writer.close();
        assert_eq!(rest(&mut near).await, b"answer");
        near_writer.wait_closed().await.unwrap();
        far_writer.wait_closed().await.unwrap();
    });
}

#[test]
fn dropping_both_halves_closes_after_what_was_written() {
    each_way(async |(mut reader, writer), (far, far_writer)| {
        far_writer.write(b"last words");
        drop(far);
        tulipa_loop::yield_now().await;
        assert!(!far_writer.is_closing(), "the writer is still there");
        let clone = far_writer.clone();
        drop(far_writer);
        assert!(!clone.is_closing(), "and so is its clone");
        let transport = clone.transport().clone();
        drop(clone);
        assert!(transport.is_closing());
        assert_eq!(rest(&mut reader).await, b"last words");
        drop((reader, writer));
        transport.wait_closed().await;
    });
}

#[test]
fn a_closed_connection_is_the_end_for_its_own_reader() {
    each_way(async |(mut reader, writer), (far, far_writer)| {
        let waiting = spawn(async move { reader.read(&mut [0; 1]).await });
        tulipa_loop::yield_now().await;
        writer.close();
        drop((far, far_writer));
        assert_eq!(waiting.await.unwrap().unwrap(), 0);
        assert_eq!(writer.drain().await.unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(writer.write_all(b"x").await.unwrap_err().kind(), ErrorKind::NotConnected);
        writer.wait_closed().await.unwrap();
        writer.flush().await.unwrap();
    });
}

/// The public suite, which knows nothing of ours but the traits of futures-io.
fn passes_the_public_suite(ways: &[common::Way]) {
    for way in ways {
        tulipa_testing::check_stream(|check| {
            way.run(DEFAULT_LIMIT, async |near, far| {
                // Little to wait for where each byte comes alone.
                for (_, writer) in [&near, &far] {
                    let limits = WriteBufferLimits { low: 100, high: 1_000 };
                    writer.transport().set_write_buffer_limits(limits);
                }
                check.run(ReadWrite::from(near), ReadWrite::from(far)).await;
            });
        });
    }
}

#[test]
fn streams_through_memory_pass_the_public_suite() {
    use common::Way::{Filtered, Memory};
    passes_the_public_suite(&[Memory(1), Memory(7), Memory(64 * 1024), Filtered(64 * 1024)]);
}

#[test]
fn streams_through_a_simulated_network_pass_the_public_suite() {
    use common::Way::Simulated;
    passes_the_public_suite(&[Simulated(1), Simulated(2), Simulated(3)]);
}

#[test]
fn streams_over_sockets_pass_the_public_suite() {
    passes_the_public_suite(&[common::Way::Tcp, common::Way::Unix]);
}

#[test]
fn the_two_halves_are_one_way_streams() {
    for way in common::WAYS {
        tulipa_testing::check_one_way_stream(|check| {
            way.run(DEFAULT_LIMIT, async |(reader, other), (far, writer)| {
                let limits = WriteBufferLimits { low: 100, high: 1_000 };
                writer.transport().set_write_buffer_limits(limits);
                // What is dropped with an end is its reader or its writer, and nothing else.
                drop((other, far));
                check.run(writer, reader).await;
            });
        });
    }
}
