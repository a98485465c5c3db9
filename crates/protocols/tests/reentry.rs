//! The program's code in the middle of the engine: filters that use their transport, destructors of buffers,
//! and whatever a program does while it has borrowed a protocol.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use common::{assert_sleeps, connect, drain, pattern, settle, strict_loop, unix, until};
use tulipa_protocols::{AfterEof, Detached, Filter, FilterState, Flow, Unavailable};
use tulipa_testing::{Call, Record, ToyRecords};

type Hook = Box<dyn FnMut(&'static str)>;

/// A filter that changes nothing and calls the program at each of its methods.
struct Open {
    hook: Rc<RefCell<Option<Hook>>>,
    incoming: VecDeque<u8>,
    /// What one read gives at most.
    most: usize,
    outgoing: Vec<u8>,
}

impl Open {
    fn new(hook: impl FnMut(&'static str) + 'static) -> Open {
        let hook: Hook = Box::new(hook);
        Open {
            hook: Rc::new(RefCell::new(Some(hook))),
            incoming: VecDeque::new(),
            most: usize::MAX,
            outgoing: Vec::new(),
        }
    }

    fn at(&self, point: &'static str) {
        // What the hook does may come here again.
        let hook = self.hook.borrow_mut().take();
        if let Some(mut hook) = hook {
            hook(point);
            *self.hook.borrow_mut() = Some(hook);
        }
    }
}

impl Filter for Open {
    fn state(&self) -> FilterState {
        FilterState::Open
    }

    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at("receive");
        self.incoming.extend(bytes);
        Ok(())
    }

    fn receive_eof(&mut self) -> io::Result<()> {
        self.at("receive_eof");
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.at("read");
        let most = buffer.len().min(self.most);
        match self.incoming.read(&mut buffer[..most])? {
            0 => Err(ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn has_plaintext(&self) -> bool {
        !self.incoming.is_empty()
    }

    fn write(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        self.at("write");
        // Not more than a record at a time.
        let count = plaintext.len().min(16 * 1024);
        self.outgoing.extend_from_slice(&plaintext[..count]);
        Ok(count)
    }

    fn transmit(&mut self, out: &mut Vec<u8>) {
        self.at("transmit");
        out.append(&mut self.outgoing);
    }

    fn close(&mut self) {
        self.at("close");
    }
}

#[test]
fn a_connection_that_is_ended_in_the_middle_of_its_handshake_stays_so() {
    for close in [false, true] {
        let record = Record::new();
        let mut connection = Detached::new(record.protocol());
        let transport = connection.transport().clone();
        let (ended, done) = (transport.clone(), Cell::new(false));
        let filter = Open::new(move |point| {
            if point == "transmit" && !done.replace(true) {
                if close { ended.close() } else { ended.abort() }
            }
        });
        transport.upgrade(filter, &[]).unwrap();
        connection.run();
        assert!(transport.is_closing() && connection.is_over());
        assert_eq!(record.calls(), [Call::Made, Call::Lost(None)]);
        assert!(connection.probe().is_closed());
    }
}

#[test]
fn what_a_filter_makes_the_program_write_follows_the_write_at_hand() {
    for size in [100, 20_000, 300_000] {
        let record = Record::new();
        let mut connection = Detached::new(record.protocol());
        let transport = connection.transport().clone();
        let (again, done) = (transport.clone(), Cell::new(false));
        let filter = Open::new(move |point| {
            if point == "write" && !done.replace(true) {
                again.write(b"behind it");
            }
        });
        transport.upgrade(filter, &[]).unwrap();
        connection.run();
        // The link takes some of it, and no more.
        connection.set_room(Some(50));
        transport.write(&pattern(size));
        connection.run();
        connection.set_room(None);
        let mut expected = pattern(size);
        expected.extend_from_slice(b"behind it");
        assert!(connection.written() == expected, "{size}");
    }
}

#[test]
fn what_is_done_with_a_borrowed_protocol_takes_effect_whatever_the_loop_does_meanwhile() {
    let event_loop = strict_loop();
    let (ours, theirs) = unix();
    theirs.set_nonblocking(true).unwrap();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    settle(&event_loop);
    // Whatever is to be flushed is flushed behind the task's step, and this connection is out then.
    let own = connection.clone();
    event_loop.call_soon(move |handle| {
        let handle = handle.clone();
        let lent = own.with(|_, transport| {
            transport.write(b"flushed");
            handle.spawn_eager(async {}).detach();
        });
        lent.unwrap();
    });
    settle(&event_loop);
    connection.write(b" and more");
    settle(&event_loop);
    assert_eq!(drain(&theirs).unwrap(), (b"flushed and more".to_vec(), false));
    // The same with a whole run of the loop.
    let lent = connection.with(|_, transport| {
        transport.close();
        settle(&event_loop);
    });
    lent.unwrap();
    until(&event_loop, "the end", || record.is_lost());
}

#[test]
fn a_loop_that_is_dropped_while_a_protocol_is_borrowed_ends_its_connection() {
    let event_loop = tulipa_loop::EventLoop::new().unwrap();
    let (ours, mut theirs) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    connection.with(|_, _| drop(event_loop)).unwrap();
    assert!(record.is_lost());
    assert_eq!(record.error(), Some(ErrorKind::ConnectionAborted));
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    assert_eq!(connection.with(|_, _| ()), Err(Unavailable::Closed));
}

/// A buffer that tells of its drop.
struct Kept(Vec<u8>, #[expect(dead_code, reason = "its drop counts")] Arc<()>);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[test]
fn bytes_written_to_a_connection_that_is_over_are_not_kept() {
    let event_loop = strict_loop();
    let (ours, _theirs) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    connection.abort();
    until(&event_loop, "the end", || record.is_lost());
    let alive = Arc::new(());
    for size in [10, 2000, 200_000] {
        assert_eq!(
            connection.write_bytes(Bytes::from_owner(Kept(vec![7; size], alive.clone()))),
            Flow::Closed
        );
    }
    settle(&event_loop);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn what_a_filter_has_for_the_one_in_front_of_it_is_read_to_the_end_however_small_its_pieces() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    connection.upgrade(Open { most: 1, ..Open::new(|_| {}) }, &[]).unwrap();
    settle(&event_loop);
    connection.upgrade(ToyRecords::server(), &[]).unwrap();
    theirs.write_all(&ToyRecords::record(0, &[0])).unwrap();
    until(&event_loop, "the answer", || connection.get_write_buffer_size() == 0);
    settle(&event_loop);
    // It comes in one read, and no event tells of any of it again.
    theirs.write_all(&ToyRecords::record(2, &pattern(1000))).unwrap();
    until(&event_loop, "the data", || record.count() == 1000);
    assert_eq!(record.bytes(), pattern(1000));
    assert_sleeps(&event_loop);
}

#[test]
fn what_a_filter_has_decoded_is_delivered_to_the_end_however_small_its_pieces() {
    let event_loop = strict_loop();
    let (ours, mut theirs) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    connection.upgrade(Open { most: 1, ..Open::new(|_| {}) }, &[]).unwrap();
    settle(&event_loop);
    for round in 1..4 {
        theirs.write_all(&pattern(1000)).unwrap();
        until(&event_loop, "the data", || record.count() == round * 1000);
    }
    assert_sleeps(&event_loop);
}

#[test]
fn what_was_left_over_at_the_end_of_the_input_goes_to_a_filter() {
    let record = Record::new();
    let mut connection = Detached::new(record.reacting(|_, _| Ok(AfterEof::KeepOpen)));
    connection.feed_eof();
    let filter = Open::new(|_| {});
    connection.transport().upgrade(filter, b"left over").unwrap();
    connection.run();
    assert_eq!(record.bytes(), b"left over");
}

#[test]
fn who_waits_for_the_end_is_not_woken_by_every_write() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let event_loop = strict_loop();
    let (ours, _theirs) = unix();
    let record = Record::new();
    let connection = connect(&event_loop, ours, record.protocol());
    settle(&event_loop);
    let count = Arc::new(Count(0.into()));
    let waker = std::task::Waker::from(count.clone());
    let mut context = std::task::Context::from_waker(&waker);
    let mut end = Box::pin(connection.wait_closed());
    for _ in 0..10 {
        assert!(end.as_mut().poll(&mut context).is_pending());
        connection.write(b"x");
        settle(&event_loop);
    }
    assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 0);
    connection.close();
    settle(&event_loop);
    assert!(end.as_mut().poll(&mut context).is_ready());
    assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 1);
}
