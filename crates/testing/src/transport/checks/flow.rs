//! Flow control: of what is written, and of what is read.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;

use tulipa_protocols::{AfterEof, Flow, WriteBufferLimits};

use super::ends::finish;
use crate::transport::check::{End, Stage, pattern};
use crate::transport::record::{Call, Moment};

/// More than what the way to the peer holds.
const MUCH: usize = 16 << 20;

/// Writes until something waits.
pub(super) fn fill(end: &End) -> usize {
    let chunk = vec![7; 64 * 1024];
    let mut written = 0;
    while end.get_write_buffer_size() == 0 && !end.is_closing() {
        end.write(&chunk);
        written += chunk.len();
        assert!(written < MUCH, "the way to the peer never fills up");
    }
    written
}

/// Writes until something waits even when the loop is quiet: an operating system may find more room after a while.
fn fill_up(stage: &Stage<'_>, end: &End) -> usize {
    let mut written = 0;
    while end.get_write_buffer_size() == 0 {
        written += fill(end);
        assert!(written < MUCH, "the way to the peer never fills up");
        stage.settle();
    }
    written
}

pub(crate) fn limits(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    let standard = WriteBufferLimits { low: 16 * 1024, high: 64 * 1024 };
    assert_eq!(near.get_write_buffer_limits(), standard);
    far.pause_reading();
    near.set_write_buffer_limits(WriteBufferLimits { low: 10, high: 10 << 20 });
    stage.settle();
    let mut written = fill_up(stage, &near);
    let size = near.get_write_buffer_size();
    assert!(!near.record.has(Call::Pause), "{size} bytes are below the high limit");
    near.set_write_buffer_limits(WriteBufferLimits { low: 0, high: size + 100 });
    assert_eq!(near.write(&pattern(100)), Flow::Ready);
    stage.settle();
    assert!(!near.record.is_paused(), "at the high limit is not above it");
    assert_eq!(near.get_write_buffer_size(), size + 100);
    assert_eq!(near.write(b"x"), Flow::Full);
    written += 101;
    stage.until("it is paused", || near.record.is_paused());
    stage.assert_sleeps();
    far.resume_reading();
    stage.until("it is resumed", || !near.record.is_paused());
    stage.until("all has come", || far.record.count() == written);
    assert_eq!(near.record.calls(), [Call::Made, Call::Pause, Call::Resume]);
    finish(stage, near, far);
}

pub(crate) fn zero(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    far.pause_reading();
    let written = fill(&near);
    near.set_write_buffer_limits(WriteBufferLimits { low: 0, high: 0 });
    stage.until("it is paused", || near.record.is_paused());
    assert_eq!(near.write(b"x"), Flow::Full);
    far.resume_reading();
    stage.until("it is resumed", || !near.record.is_paused());
    stage.until("all has come", || far.record.count() == written + 1);
    finish(stage, near, far);
}

pub(crate) fn new_limits(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    far.pause_reading();
    near.set_write_buffer_limits(WriteBufferLimits { low: 0, high: 10 << 20 });
    fill_up(stage, &near);
    for _ in 0..3 {
        near.set_write_buffer_limits(WriteBufferLimits { low: 0, high: 0 });
        stage.until("it is paused", || near.record.is_paused());
        let limits = WriteBufferLimits { low: 10 << 20, high: 10 << 20 };
        near.set_write_buffer_limits(limits);
        assert_eq!(near.get_write_buffer_limits(), limits);
        stage.until("it is resumed", || !near.record.is_paused());
    }
    finish(stage, near, far);
}

pub(crate) fn alternates(stage: &Stage<'_>) {
    const TOTAL: usize = 4 << 20;
    let left = Rc::new(Cell::new(TOTAL));
    let most = Rc::new(Cell::new(0));
    let (writing, seen) = (left.clone(), most.clone());
    let (near, far) = stage.with(move |moment, transport| {
        if matches!(moment, Moment::Made | Moment::Resume) {
            let chunk = pattern(10_000);
            while writing.get() > 0 {
                let count = chunk.len().min(writing.get());
                writing.set(writing.get() - count);
                let flow = transport.write(&chunk[..count]);
                seen.set(seen.get().max(transport.get_write_buffer_size()));
                if flow == Flow::Full {
                    break;
                }
            }
        }
        Ok(AfterEof::KeepOpen)
    });
    stage.until("all has come", || far.record.count() == TOTAL);
    assert_eq!(left.get(), 0);
    // What filters add to the bytes is little.
    assert!(most.get() < 64 * 1024 + 2 * 10_000, "{} bytes were waiting", most.get());
    finish(stage, near, far);
}

pub(crate) fn cap(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    far.pause_reading();
    near.set_max_write_buffer(Some(1 << 20));
    let chunk = pattern(100_000);
    let mut written = 0;
    while near.write(&chunk) != Flow::Closed {
        written += chunk.len();
        assert!(written < MUCH, "it never ends");
    }
    stage.until("it is over", || near.record.is_lost());
    assert_eq!(near.record.error(), Some(ErrorKind::Other));
    finish(stage, near, far);
}

pub(crate) fn pause_in_data(stage: &Stage<'_>) {
    let (near, far) = stage.with(|moment, transport| {
        if let Moment::Data(_) = moment {
            transport.pause_reading();
        }
        Ok(AfterEof::KeepOpen)
    });
    let data = pattern(2 << 20);
    far.write(&data);
    far.write_eof();
    let mut rounds = 0;
    while near.record.count() < data.len() {
        let before = near.record.count();
        assert!(!near.record.is_eof());
        near.resume_reading();
        stage.until("something comes", || near.record.count() > before);
        let after = near.record.count();
        assert!(!near.is_reading());
        if rounds < 5 {
            stage.assert_sleeps();
        }
        assert_eq!(near.record.count(), after, "nothing comes while it is paused");
        rounds += 1;
    }
    assert!(rounds > 1);
    assert!(near.record.bytes() == data, "other bytes came");
    near.resume_reading();
    stage.until("the end comes", || near.record.is_eof());
    finish(stage, near, far);
}

pub(crate) fn pause_in_made(stage: &Stage<'_>) {
    let (near, far) = stage.with(|moment, transport| {
        if let Moment::Made = moment {
            transport.pause_reading();
        }
        Ok(AfterEof::KeepOpen)
    });
    far.write(b"not yet");
    stage.assert_sleeps();
    assert_eq!(near.record.count(), 0);
    near.resume_reading();
    stage.until("it comes", || near.record.count() == 7);
    finish(stage, near, far);
}

pub(crate) fn pause_twice(stage: &Stage<'_>) {
    let (near, far) = stage.quiet();
    near.pause_reading();
    near.pause_reading();
    far.write(b"not yet");
    stage.settle();
    assert_eq!(near.record.count(), 0);
    near.resume_reading();
    near.resume_reading();
    assert!(near.is_reading());
    near.pause_reading();
    assert!(!near.is_reading());
    stage.settle();
    assert_eq!(near.record.count(), 0);
    near.resume_reading();
    stage.until("it comes", || near.record.count() == 7);
    finish(stage, near, far);
}
