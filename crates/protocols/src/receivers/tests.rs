//! What receiving costs, in bytes that are searched and moved, however the input is cut.

use std::cell::Cell;
use std::io;

use super::{Int32StringReceiver, LineOnlyReceiver, LineProtocol, LineReceiver, Next};
use super::{NetstringReceiver, StringProtocol};
use crate::{Detached, Protocol, Transport};

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

#[derive(Default)]
struct Count {
    messages: usize,
    pauses: bool,
}

impl Count {
    fn message(&mut self, transport: &Transport) {
        self.messages += 1;
        if self.pauses {
            transport.pause_reading();
        }
    }
}

impl LineProtocol for Count {
    fn line_received(&mut self, transport: &Transport, _: &[u8]) -> io::Result<Next> {
        self.message(transport);
        Ok(Next::Lines)
    }
}

impl StringProtocol for Count {
    fn string_received(&mut self, transport: &Transport, _: &[u8]) -> io::Result<()> {
        self.message(transport);
        Ok(())
    }
}

/// What it costs to be fed pieces of one size.
fn cost(receiver: impl Protocol + 'static, input: &[u8], size: usize) -> (usize, usize) {
    SEARCHED.set(0);
    MOVED.set(0);
    let mut connection = Detached::new(receiver);
    for piece in input.chunks(size) {
        connection.feed(piece);
        while !connection.transport().is_reading() {
            assert!(!connection.transport().is_closing(), "the input is right");
            connection.transport().resume_reading();
            connection.run();
        }
    }
    (SEARCHED.get(), MOVED.get())
}

const SIZES: [usize; 5] = [1, 2, 7, 1000, usize::MAX];

#[test]
fn lines_are_searched_once_and_moved_at_most_twice_however_they_are_cut() {
    let input = [b"x".repeat(10_000), b"\r\n".to_vec()].concat().repeat(20);
    for size in SIZES {
        let pieces = input.len().div_ceil(size);
        for (searched, moved) in [
            cost(LineReceiver::new(Count::default()), &input, size),
            cost(LineOnlyReceiver::new(Count::default()), &input, size),
        ] {
            assert!(searched <= input.len() + pieces, "{searched} searched by {size}");
            assert!(moved <= 2 * input.len(), "{moved} moved by {size}");
        }
    }
}

#[test]
fn whole_messages_are_delivered_from_where_they_were_received() {
    let lines = b"a line\r\n".repeat(1000);
    let (_, moved) = cost(LineReceiver::new(Count::default()), &lines, usize::MAX);
    assert_eq!(moved, 0);
    let strings = b"6:string,".repeat(1000);
    let (_, moved) = cost(NetstringReceiver::new(Count::default()), &strings, usize::MAX);
    assert_eq!(moved, 0);
}

#[test]
fn a_pause_after_each_line_of_a_large_piece_costs_no_more() {
    let input = b"\r\n".repeat(100_000);
    let pauses = || Count { pauses: true, ..Count::default() };
    let (searched, moved) = cost(LineReceiver::new(pauses()), &input, usize::MAX);
    assert!(searched <= input.len() + 2, "{searched}");
    assert!(moved <= 2 * input.len(), "{moved}");
}

#[test]
fn strings_are_moved_at_most_twice_however_they_are_cut() {
    let netstrings = [b"10000:".to_vec(), b"x".repeat(10_000), b",".to_vec()].concat().repeat(20);
    let prefixed = [10_000_u32.to_be_bytes().to_vec(), b"x".repeat(10_000)].concat().repeat(20);
    for size in SIZES {
        let (_, moved) = cost(NetstringReceiver::new(Count::default()), &netstrings, size);
        assert!(moved <= 2 * netstrings.len(), "{moved} moved by {size}");
        let (_, moved) = cost(Int32StringReceiver::new(Count::default()), &prefixed, size);
        assert!(moved <= 2 * prefixed.len(), "{moved} moved by {size}");
    }
}

#[test]
fn a_line_that_is_too_long_and_left_out_is_searched_once() {
    struct LeavesOut;
    impl LineProtocol for LeavesOut {
        fn line_received(&mut self, _: &Transport, line: &[u8]) -> io::Result<Next> {
            assert_eq!(line, b"short");
            Ok(Next::Lines)
        }

        fn line_length_exceeded(&mut self, _: &Transport, _: &[u8], _: usize) -> io::Result<()> {
            Ok(())
        }
    }
    let input = [b"short\r\n".to_vec(), b"x".repeat(100_000), b"\r\nshort\r\n".to_vec()].concat();
    for size in SIZES {
        let receiver = LineReceiver::new(LeavesOut).max_length(100);
        let (searched, _) = cost(receiver, &input, size);
        let pieces = input.len().div_ceil(size);
        assert!(searched <= input.len() + 2 * pieces + 100, "{searched} searched by {size}");
    }
}
