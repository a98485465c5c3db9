//! Moving a live connection between the two styles, and putting a filter under it.

mod common;

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use common::{each_way, in_memory, in_virtual_time};
use futures_lite::future::{poll_once, zip};
use tulipa_loop::{LoopHandle, sleep, spawn};
use tulipa_protocols::{AfterEof, attach};
use tulipa_streams::{DEFAULT_LIMIT, StreamProtocol, Streams, open_link};
use tulipa_testing::{Call, Moment, Record, ToyRecords};

const SECOND: Duration = Duration::from_secs(1);

/// What a record wrote down was in order, but for the beginning, of which the streams were told.
#[track_caller]
fn assert_order_behind_streams(record: &Record) {
    let mut violations = record.violations();
    violations.retain(|violation| !violation.ends_with("before connection_made"));
    assert!(violations.is_empty(), "{violations:?} in {record:?}");
}

#[test]
fn a_protocol_takes_over_with_what_was_read_and_not_used() {
    each_way(async |(mut reader, writer), (_r, peer)| {
        peer.write(b"header\nbody");
        peer.flush_or_wait().await;
        assert_eq!(reader.read_line().await.unwrap(), b"header\n");
        let record = Record::new();
        let clone = writer.clone();
        let transport = reader.into_protocol(writer, record.protocol());
        peer.write(b" and more");
        peer.write_eof();
        transport.wait_closed().await;
        assert_eq!(record.bytes(), b"body and more");
        assert_order_behind_streams(&record);
        assert!(record.is_eof());
        assert!(!record.has(Call::Made), "that was told before");
        drop(clone);
    });
}

/// Waits until it was sent, where the peer takes that much without being asked.
trait FlushOrWait {
    async fn flush_or_wait(&self);
}

impl FlushOrWait for tulipa_streams::StreamWriter {
    async fn flush_or_wait(&self) {
        for _ in 0..10 {
            if poll_once(self.flush()).await.is_some() {
                return;
            }
            tulipa_loop::yield_now().await;
        }
    }
}

#[test]
fn a_clone_of_the_writer_still_writes_for_a_protocol_and_closes_nothing() {
    in_memory(async |(reader, writer), (mut peer, peer_writer)| {
        let record = Record::new();
        let clone = writer.clone();
        let transport = reader.into_protocol(writer, record.protocol());
        clone.write(b"from the clone\n");
        assert_eq!(peer.read_line().await.unwrap(), b"from the clone\n");
        drop(clone);
        sleep(SECOND).await;
        assert!(!transport.is_closing());
        drop((peer, peer_writer));
        transport.wait_closed().await;
        assert_order_behind_streams(&record);
    });
}

#[test]
#[should_panic = "both halves must be of one connection"]
fn halves_of_two_connections_are_a_bug() {
    in_memory(async |(reader, _w), (_r, other)| {
        reader.into_protocol(other, Record::new().protocol());
    });
}

#[test]
fn streams_take_over_from_a_protocol_with_what_it_did_not_use() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(1000);
        let record = Record::new();
        let taken: Rc<RefCell<Option<Streams>>> = Rc::default();
        let take = taken.clone();
        let protocol = record.reacting(move |moment, transport| {
            if let Moment::Data(data) = moment {
                let used = data.iter().position(|byte| *byte == b'\n').unwrap() + 1;
                let streams = StreamProtocol::take_over(transport, &data[used..], 100);
                *take.borrow_mut() = Some(streams);
            }
            Ok(AfterEof::Close)
        });
        let connection = attach(&LoopHandle::current(), near, protocol).unwrap();
        let (mut peer_reader, peer) = open_link(far, DEFAULT_LIMIT).await.unwrap();
        peer.write(b"STREAMS\none\ntw");
        sleep(SECOND).await;
        assert_eq!(record.alive(), 0, "the protocol is gone");
        let (mut reader, writer) = taken.take().expect("they were made");
        assert_eq!(reader.limit(), 100);
        assert_eq!(reader.read_line().await.unwrap(), b"one\n");
        peer.write(b"o\n");
        assert_eq!(reader.read_line().await.unwrap(), b"two\n");
        writer.write(b"answer\n");
        assert_eq!(peer_reader.read_line().await.unwrap(), b"answer\n");
        assert!(connection.with(|_, _| ()).is_err(), "it was replaced");
        // And back again.
        peer.write(b"for the protocol");
        let record = Record::new();
        reader.into_protocol(writer, record.protocol());
        sleep(SECOND).await;
        assert_eq!(record.bytes(), b"for the protocol");
        drop((peer, peer_reader));
        connection.wait_closed().await;
        assert_order_behind_streams(&record);
        assert_eq!(record.error(), None);
    });
}

#[test]
fn an_upgrade_puts_a_filter_under_both_halves() {
    each_way(async |near, far| {
        let ((mut near, near_writer), (mut far, far_writer)) = (near, far);
        let client = async {
            near_writer.write(b"UPGRADE\n");
            // In clear before, through the filter behind.
            near_writer.upgrade(&mut near, ToyRecords::client()).await.unwrap();
            near_writer.write(b"hidden\n");
            assert_eq!(near.read_line().await.unwrap(), b"answer\n");
        };
        let server = async {
            assert_eq!(far.read_line().await.unwrap(), b"UPGRADE\n");
            // What of the client's hello came with the line is the filter's.
            let filter = ToyRecords::server();
            let counts = filter.counts();
            far_writer.upgrade(&mut far, filter).await.unwrap();
            assert_eq!(far.buffered(), b"");
            assert_eq!(far.read_line().await.unwrap(), b"hidden\n");
            far_writer.write(b"answer\n");
            assert!(counts.records.get() > 0, "it went through the filter");
        };
        zip(client, server).await;
        near_writer.close();
        drop(near);
        assert_eq!(far.read_line().await.unwrap(), b"");
    });
}

#[test]
fn an_upgrade_whose_handshake_fails_is_an_error_and_the_end() {
    in_memory(async |(mut near, near_writer), (_r, far_writer)| {
        far_writer.write(b"this is no record at all");
        let error = near_writer.upgrade(&mut near, ToyRecords::client()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        assert!(near_writer.is_closing());
        let again = near_writer.upgrade(&mut near, ToyRecords::client()).await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn an_upgrade_that_is_given_up_goes_on() {
    in_memory(async |(mut near, near_writer), (mut far, far_writer)| {
        assert!(poll_once(near_writer.upgrade(&mut near, ToyRecords::client())).await.is_none());
        near_writer.write(b"hidden\n");
        far_writer.upgrade(&mut far, ToyRecords::server()).await.unwrap();
        assert_eq!(far.read_line().await.unwrap(), b"hidden\n");
    });
}

#[test]
fn a_task_that_reads_while_the_connection_ends_hears_of_it() {
    each_way(async |(mut reader, writer), peer| {
        let reading = spawn(async move { reader.read_line().await.map(<[u8]>::to_vec) });
        tulipa_loop::yield_now().await;
        drop(peer);
        assert_eq!(reading.await.unwrap().unwrap(), b"");
        drop(writer);
    });
}
