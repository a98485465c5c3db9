//! Bytes arrive, all of them and in order.

use std::io::IoSlice;

use bytes::Bytes;
use tulipa_protocols::{AfterEof, Flow};

use crate::transport::check::{Stage, pattern};
use crate::transport::record::{Call, Moment};

pub(crate) fn bytes_arrive_in_order(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    assert_eq!(near.write(b"hello "), Flow::Ready);
    near.write(b"");
    near.write(b"there");
    far.write(b"and back");
    stage.until("both have come", || far.record.count() == 11 && near.record.count() == 8);
    assert_eq!(far.record.bytes(), b"hello there");
    assert_eq!(near.record.bytes(), b"and back");
    near.close();
    stage.until("the end has come", || far.record.is_eof());
    far.close();
    stage.until("both are over", || near.record.is_lost() && far.record.is_lost());
    assert_eq!(near.record.calls(), [Call::Made, Call::Data(8), Call::Lost(None)]);
    assert_eq!(far.record.calls(), [Call::Made, Call::Data(11), Call::Eof, Call::Lost(None)]);
}

pub(crate) fn before_made(stage: &Stage<'_>) {
    let (near, far) = (stage.record(), stage.record());
    let (near, far) = stage.connect(near.protocol(), far.protocol());
    near.write(b"early");
    near.write_bytes(Bytes::from(pattern(30_000)));
    near.close_when_made(stage);
    stage.until("all has come", || far.record.is_lost() && near.record.is_lost());
    assert_eq!(far.record.bytes()[..5], *b"early");
    assert!(far.record.bytes()[5..] == pattern(30_000));
}

impl crate::transport::check::End {
    /// A close during a handshake is an abort.
    fn close_when_made(&self, stage: &Stage<'_>) {
        stage.until("it is connected", || self.record.is_made());
        self.close();
    }
}

/// More than any buffer on the way holds.
const LARGE: usize = 12 << 20;

pub(crate) fn large_both_ways(stage: &Stage<'_>) {
    if stage.is_swapped() {
        return; // It is the same from both sides, and takes the most time.
    }
    let (near, far) = stage.quiet();
    let there = pattern(LARGE);
    let back: Vec<_> = there.iter().map(|byte| !byte).collect();
    for (this, that) in there.chunks(1 << 20).zip(back.chunks(100_000)) {
        near.write(this);
        far.write(that);
    }
    back.chunks(100_000).skip(there.chunks(1 << 20).count()).for_each(|chunk| {
        far.write(chunk);
    });
    stage.until("all has come", || far.record.count() >= LARGE && near.record.count() >= LARGE);
    assert!(far.record.bytes() == there && near.record.bytes() == back, "other bytes came");
    assert_eq!(near.get_write_buffer_size(), 0);
}

pub(crate) fn many_small(stage: &Stage<'_>) {
    const MANY: usize = 100_000;
    let (near, far) = stage.quiet();
    let data = pattern(MANY);
    data.iter().for_each(|byte| {
        near.write(&[*byte]);
    });
    stage.until("all has come", || far.record.count() >= MANY);
    assert!(far.record.bytes() == data, "other bytes came");
}

pub(crate) fn thousands_of_pieces(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    let data = pattern(300_000);
    // More than the 1,024 of one system call, empty ones among them.
    let mut pieces: Vec<_> = data.chunks(100).map(IoSlice::new).collect();
    (0..pieces.len()).step_by(7).for_each(|place| pieces.insert(place, IoSlice::new(&[])));
    let mut leading = vec![IoSlice::new(&[]); 2000];
    leading.append(&mut pieces);
    near.write_vectored(&leading);
    near.write_vectored(&[]);
    near.write_vectored(&[IoSlice::new(&[])]);
    stage.until("all has come", || far.record.count() >= data.len());
    assert!(far.record.bytes() == data, "other bytes came");
}

pub(crate) fn kinds_of_writes(stage: &Stage<'_>) {
    let (near, far) = stage.with(|moment, transport| {
        if let Moment::Made = moment {
            transport.write(b"first");
        }
        Ok(AfterEof::KeepOpen)
    });
    let data = pattern(600_000);
    let sizes = [0, 1, 100, 1023, 1024, 5000, 16_383, 16_384, 70_000, 200_000];
    let mut rest = &data[..];
    let mut turn = 0;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes[turn % sizes.len()].min(rest.len()));
        match turn % 3 {
            0 => near.write(now),
            1 => near.write_bytes(Bytes::copy_from_slice(now)),
            _ => near.write_vectored(&[IoSlice::new(now)]),
        };
        rest = later;
        turn += 1;
        if turn % 4 == 0 {
            stage.event_loop().run_once(tulipa_selector::Timeout::Immediate).expect("a turn");
        }
    }
    stage.until("all has come", || far.record.count() >= data.len() + 5);
    let received = far.record.bytes();
    assert!(received[..5] == *b"first" && received[5..] == data, "other bytes came");
}
