//! What streams keep at the most, counted, while a peer floods them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tulipa_loop::{EventLoop, spawn, yield_now};
use tulipa_streams::{ReadError, StreamReader, duplex};

/// Counts the bytes in use of each thread, and the most there were.
struct Counting;

thread_local! {
    static IN_USE: Cell<i64> = const { Cell::new(0) };
    static MOST: Cell<i64> = const { Cell::new(0) };
}

fn count(allocated: usize, freed: usize) {
    let _ = IN_USE.try_with(|cell| {
        cell.set(cell.get() + allocated as i64 - freed as i64);
        let _ = MOST.try_with(|most| most.set(most.get().max(cell.get())));
    });
}

// SAFETY: everything is passed on to `System`; counting touches thread-local cells that need neither
// allocation nor destruction.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many bytes a peer sends that never ends its line: 16 MiB, or what `TULIPA_FLOOD_BYTES` says.
fn flood() -> usize {
    let asked = std::env::var("TULIPA_FLOOD_BYTES").ok();
    asked.and_then(|bytes| bytes.parse().ok()).unwrap_or(16 << 20)
}

/// The memory that is in use while `read` deals with a peer that floods it, beyond what there was before.
fn most_in_use(read: impl AsyncFnOnce(&mut StreamReader)) -> i64 {
    let event_loop = EventLoop::new().unwrap();
    let test = async {
        let ((mut reader, _writer), far) = duplex().await.unwrap();
        let flood = spawn(async move {
            let (_reader, writer) = far;
            let piece = vec![b'x'; 64 * 1024];
            let mut left = flood();
            while left > 0 {
                let now = left.min(piece.len());
                if writer.write_all(&piece[..now]).await.is_err() {
                    return;
                }
                left -= now;
            }
        });
        let before = IN_USE.get();
        MOST.set(before);
        read(&mut reader).await;
        let most = MOST.get() - before;
        flood.cancel();
        most
    };
    event_loop.run_until_complete(test).unwrap()
}

/// What a flooded connection may use: both ends' queues and buffers, each of some hundred KiB at the most.
const BOUND: i64 = 1 << 20;

#[test]
fn b93_a_flood_without_a_newline_is_refused_piece_by_piece_in_bounded_memory() {
    let mut refused = 0;
    let most = most_in_use(async |reader| {
        loop {
            match reader.read_line().await {
                Err(ReadError::LimitOverrun(_)) => refused += 1,
                Ok(rest) => {
                    assert!(!rest.contains(&b'\n'));
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert!(refused > 0 && most < BOUND, "{refused} refused, {most} bytes");
}

#[test]
fn a_reader_that_does_not_read_holds_its_peer_back() {
    let most = most_in_use(async |_| {
        for _ in 0..1000 {
            yield_now().await;
        }
    });
    assert!(most < BOUND, "{most} bytes");
}

#[test]
fn a_flood_that_is_read_away_is_read_in_bounded_memory() {
    let mut received = 0;
    let most = most_in_use(async |reader| {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            received += count;
        }
    });
    assert_eq!(received, flood());
    assert!(most < BOUND, "{most} bytes");
}
