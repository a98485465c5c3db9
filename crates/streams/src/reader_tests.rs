//! What reading costs, in bytes that are searched and moved and kept, however the input is cut.

use std::cell::Cell;
use std::time::Duration;

use tulipa_loop::sleep;
use tulipa_protocols::MemoryLink;
use tulipa_testing::VirtualLoop;

use super::StreamReader;
use crate::{ReadError, StreamWriter, open_link};

thread_local! {
    static SEARCHED: Cell<usize> = const { Cell::new(0) };
    static MOVED: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn searched(bytes: usize) {
    SEARCHED.set(SEARCHED.get() + bytes);
}

pub(super) fn moved(bytes: usize) {
    MOVED.set(MOVED.get() + bytes);
}

/// Runs `test` with a reader and the far writer; memory between them holds `capacity` bytes.
fn with_reader(capacity: usize, limit: usize, test: impl AsyncFnOnce(StreamReader, StreamWriter)) {
    let virtual_loop = VirtualLoop::new();
    let (near, far) = MemoryLink::pair(capacity);
    let test = async {
        let (reader, _writer) = open_link(near, limit).await.unwrap();
        let (_reader, writer) = open_link(far, limit).await.unwrap();
        SEARCHED.set(0);
        MOVED.set(0);
        test(reader, writer).await;
    };
    virtual_loop.run_until_complete(test).unwrap();
}

#[test]
fn b93_what_comes_byte_by_byte_is_searched_once_and_moved_little() {
    const COUNT: usize = 50_000;
    with_reader(1, 64 * 1024, async |mut reader, writer| {
        writer.write(&[b'x'; COUNT]);
        writer.write(b"\r\n");
        assert_eq!(reader.read_until(b"\r\n").await.unwrap().len(), COUNT + 2);
        // Each byte, and once more the one before it, as the separator may begin there.
        assert!((COUNT..=2 * COUNT + 10).contains(&SEARCHED.get()), "{}", SEARCHED.get());
        assert!(MOVED.get() <= COUNT, "{}", MOVED.get());
        writer.write(&[b'x'; COUNT]);
        writer.write(b"\n");
        SEARCHED.set(0);
        assert_eq!(reader.read_line().await.unwrap().len(), COUNT + 1);
        assert_eq!(SEARCHED.get(), COUNT + 1);
        assert!(MOVED.get() <= COUNT, "{}", MOVED.get());
    });
}

#[test]
fn many_short_lines_in_large_pieces_are_searched_once_and_moved_little() {
    const LINES: usize = 10_000;
    with_reader(100_000, 64 * 1024, async |mut reader, writer| {
        writer.write(&b"a line\n".repeat(LINES));
        for _ in 0..LINES {
            assert_eq!(reader.read_line().await.unwrap(), b"a line\n");
        }
        // The piece of a line at the end of each read is searched, moved, and searched no more.
        assert!(SEARCHED.get() <= 2 * LINES * 7, "{}", SEARCHED.get());
        assert!(MOVED.get() <= LINES * 7, "{}", MOVED.get());
    });
}

#[test]
fn a_separator_that_never_comes_is_not_searched_in_everything_for_each_that_does() {
    const LINES: usize = 10_000;
    with_reader(100_000, 64 * 1024, async |mut reader, writer| {
        writer.write(&b"a line\n".repeat(LINES));
        for _ in 0..LINES {
            assert_eq!(reader.read_until_any(&[b"\r\n", b"\n"]).await.unwrap(), b"a line\n");
        }
        assert!(SEARCHED.get() <= 300 * LINES, "{}", SEARCHED.get());
        let long = [b'x'; 50_000];
        SEARCHED.set(0);
        writer.write(&long);
        writer.write(b"\n");
        assert_eq!(reader.read_until_any(&[b"\r\n", b"\n"]).await.unwrap().len(), 50_001);
        assert!(SEARCHED.get() <= 5 * long.len(), "{}", SEARCHED.get());
    });
}

#[test]
fn b93_lines_over_the_limit_cost_what_they_are_long() {
    const COUNT: usize = 100_000;
    with_reader(1, 1000, async |mut reader, writer| {
        writer.write(&[b'x'; COUNT]);
        writer.write_eof();
        let mut overruns = 0;
        while let Err(ReadError::LimitOverrun(_)) = reader.read_line().await {
            overruns += 1;
        }
        assert_eq!(overruns, COUNT / 1001);
        assert!(SEARCHED.get() <= 3 * COUNT, "{}", SEARCHED.get());
    });
}

#[test]
fn a_reader_keeps_what_it_may_look_through_and_one_read_and_nothing_when_it_has_nothing() {
    const LIMIT: usize = 10_000;
    with_reader(1 << 20, LIMIT, async |mut reader, writer| {
        writer.write(&vec![b'x'; 1 << 20]);
        sleep(Duration::from_secs(1)).await;
        let error = reader.read_until(b"\n").await.unwrap_err();
        assert!(matches!(error, ReadError::LimitOverrun(_)), "{error}");
        assert!(reader.buffer.bytes.len() <= 2 * (LIMIT + 16 * 1024));
        // Asked again and again it reads no more.
        let before = reader.buffer.len();
        assert!(reader.read_until(b"\n").await.is_err());
        assert_eq!(reader.buffer.len(), before);
        reader.lend_exact(1 << 20).await.unwrap();
        assert!(futures_lite::future::poll_once(reader.read_line()).await.is_none());
        assert_eq!(reader.buffer.bytes.len(), 0, "it waits without a buffer");
        writer.write_eof();
        assert_eq!(reader.fill().await.unwrap(), b"");
        assert_eq!(reader.buffer.bytes.len(), 0, "nor at the end");
    });
}

#[test]
fn a_separator_at_the_border_of_a_window_is_found() {
    for place in 200..600 {
        let mut data = vec![b'x'; 700];
        data[place..place + 4].copy_from_slice(b"abcd");
        for from in [0, 1, place - 3, place] {
            let found = super::find_first_end(&data, from, &[b"|", b"abcd", b"cd", b"bcde"]);
            assert_eq!(found, Some((place, place + 4)), "from {from}");
            let found = super::find_first_end(&data, from, &[b"cdx", b"abcdx"]);
            assert_eq!(found, Some((place, place + 5)), "from {from}");
        }
    }
}
