//! How connections end, and what can be done with them then.

use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

use bytes::Bytes;
use tulipa_protocols::{AfterEof, Flow, Unavailable, WriteBufferLimits};

use super::flow::fill;
use crate::transport::check::{End, Stage, pattern};
use crate::transport::record::{Call, Moment};

pub(crate) fn close_flushes(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    let data = pattern(3 << 20);
    near.write(&data);
    near.close();
    near.close();
    assert!(near.is_closing() && !near.is_reading());
    assert_eq!(near.write(b"too late"), Flow::Closed);
    stage.until("all has come", || far.record.is_eof() && near.record.is_lost());
    assert!(far.record.bytes() == data, "other bytes came");
    assert_eq!(near.record.calls().last(), Some(&Call::Lost(None)));
    far.close();
    stage.until("the far end is over", || far.record.is_lost());
    assert_eq!(far.record.error(), None);
}

pub(crate) fn close_reads_no_more(stage: &Stage<'_>) {
    let (near, far) = stage.with(|moment, transport| {
        if let Moment::Data(_) = moment {
            transport.close();
        }
        Ok(AfterEof::Close)
    });
    far.write(b"x");
    stage.until("it closes", || near.is_closing());
    far.write(b"nobody reads this");
    stage.until("it is over", || near.record.is_lost());
    assert_eq!(near.record.count(), 1);
}

pub(crate) fn abort(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    far.pause_reading();
    let written = fill(&near) + (1 << 20);
    near.write(&vec![7; 1 << 20]);
    near.abort();
    near.abort();
    assert!(near.is_closing());
    assert_eq!(near.get_write_buffer_size(), 0);
    assert_eq!(near.write(b"too late"), Flow::Closed);
    assert!(!near.record.is_lost(), "it is told later, not in the call");
    stage.until("it is over", || near.record.is_lost());
    assert_eq!(near.record.error(), None);
    far.resume_reading();
    stage.until("the far end knows", || far.record.is_eof() || far.record.is_lost());
    assert!(far.record.count() < written);
    far.abort();
    stage.until("the far end is over", || far.record.is_lost());
}

pub(crate) fn reset(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    near.reset();
    near.reset();
    stage.until("it is over", || near.record.is_lost());
    assert_eq!(near.record.error(), None);
    stage.until("the far end knows", || far.record.is_eof() || far.record.is_lost());
    if stage.shows_resets() {
        assert!(far.record.error().is_some(), "{:?}", far.record);
    }
    far.abort();
    stage.until("the far end is over", || far.record.is_lost());
}

pub(crate) fn half_close(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    near.write(b"the last words");
    near.write_eof();
    near.write_eof();
    assert_eq!(near.write(b"too late"), Flow::Closed);
    assert_eq!(near.write_vectored(&[IoSlice::new(b"too late")]), Flow::Closed);
    assert_eq!(near.write_bytes(Bytes::from_static(b"too late")), Flow::Closed);
    assert!(!near.is_closing() && near.is_reading());
    stage.until("the end has come", || far.record.is_eof());
    assert_eq!(far.record.calls(), [Call::Made, Call::Data(14), Call::Eof]);
    assert!(!far.is_reading() && !far.is_closing());
    let answer = pattern(500_000);
    far.write(&answer);
    stage.until("the answer has come", || near.record.count() == answer.len());
    assert!(near.record.bytes() == answer, "other bytes came");
    assert!(!near.record.is_lost() && !far.record.is_lost());
    far.write_eof();
    stage.until("both are over", || near.record.is_lost() && far.record.is_lost());
    let calls = [Call::Made, Call::Data(500_000), Call::Eof, Call::Lost(None)];
    let mut told = near.record.calls();
    told.retain(|call| !matches!(call, Call::Pause | Call::Resume));
    assert_eq!(told, calls);
    assert_eq!(far.record.error(), None);
}

pub(crate) fn eof_with_pending_data(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    let data = pattern(3 << 20);
    near.write(&data);
    near.write_eof();
    stage.until("the end has come", || far.record.is_eof());
    assert!(far.record.bytes() == data, "other bytes came");
    finish(stage, near, far);
}

pub(crate) fn kept_open(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    far.write_eof();
    stage.until("the end has come", || near.record.is_eof());
    stage.assert_sleeps();
    assert!(!near.record.is_lost() && !far.record.is_lost());
    near.pause_reading();
    near.resume_reading();
    stage.assert_sleeps();
    near.close();
    stage.until("both are over", || near.record.is_lost() && far.record.is_lost());
    assert_eq!((near.record.error(), far.record.error()), (None, None));
    assert_eq!(near.record.calls(), [Call::Made, Call::Eof, Call::Lost(None)]);
}

pub(crate) fn eof_closes(stage: &Stage<'_>) {
    let (near, far) = stage.with(|moment, transport| {
        if let Moment::Eof = moment {
            transport.write(b"goodbye");
        }
        Ok(AfterEof::Close)
    });
    far.write_eof();
    stage.until("both are over", || near.record.is_lost() && far.record.is_lost());
    assert_eq!(near.record.calls(), [Call::Made, Call::Eof, Call::Lost(None)]);
    assert_eq!(far.record.bytes(), b"goodbye");
    assert_eq!(far.record.error(), None);
}

pub(crate) fn both_close(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    near.close();
    far.close();
    stage.until("both are over", || near.record.is_lost() && far.record.is_lost());
    near.record.assert_over();
    far.record.assert_over();
}

pub(crate) fn loop_closes(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    near.write(b"never read");
    stage.event_loop().close().expect("it is not running");
    for end in [&near, &far] {
        end.record.assert_over();
        assert_eq!(end.record.error(), Some(ErrorKind::ConnectionAborted));
    }
}

pub(crate) fn after_the_end(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    let addresses = (near.peer_addr(), near.local_addr());
    near.close();
    stage.until("it is over", || near.record.is_lost());
    let before = near.record.calls();
    assert_eq!(near.write(b"x"), Flow::Closed);
    assert_eq!(near.write_bytes(Bytes::from(pattern(100_000))), Flow::Closed);
    assert_eq!(near.write_vectored(&[IoSlice::new(b"x")]), Flow::Closed);
    near.write_eof();
    near.pause_reading();
    near.resume_reading();
    near.close();
    near.abort();
    near.reset();
    near.set_timeout(Some(Duration::ZERO));
    near.set_write_buffer_limits(WriteBufferLimits { low: 0, high: 0 });
    near.set_max_write_buffer(Some(0));
    let next = stage.record();
    near.set_protocol(next.protocol(), b"left over");
    assert_eq!(next.alive(), 0, "a protocol for a connection that is over is dropped");
    assert!(near.is_closing() && !near.is_reading());
    assert_eq!(near.get_write_buffer_size(), 0);
    let kind = |result: io::Result<usize>| result.map_err(|error| error.kind());
    assert_eq!(kind(near.try_read(&mut [0; 10])), Err(ErrorKind::NotConnected));
    assert_eq!((near.peer_addr(), near.local_addr()), addresses);
    assert_eq!(near.with(|_, _| ()), Err(Unavailable::Closed));
    near.post(|_, _| panic!("the protocol is gone"));
    assert!(near.with_fd(|_| ()).is_err());
    stage.pass(Duration::from_millis(5));
    assert_eq!(near.record.calls(), before);
    far.abort();
    stage.until("the far end is over", || far.record.is_lost());
}

pub(crate) fn timeout(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    near.set_timeout(Some(Duration::from_secs(3600)));
    far.set_timeout(Some(Duration::from_secs(3600)));
    stage.settle();
    far.set_timeout(Some(Duration::ZERO));
    far.set_timeout(None);
    near.set_timeout(Some(Duration::from_millis(20)));
    stage.pass(Duration::from_millis(50));
    let count = |end: &End| end.record.calls().iter().filter(|c| **c == Call::TimedOut).count();
    assert_eq!((count(&near), count(&far)), (1, 0));
    near.set_timeout(Some(Duration::ZERO));
    stage.pass(Duration::from_millis(5));
    assert_eq!(count(&near), 2);
    finish(stage, near, far);
}

/// Ends a connection that is still there.
pub(crate) fn finish(stage: &Stage<'_>, near: End, far: End) {
    near.abort();
    far.abort();
    stage.until("both are over", || near.record.is_lost() && far.record.is_lost());
    near.record.assert_over();
    far.record.assert_over();
}
