//! Anything from inside of every callback.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tulipa_protocols::{AfterEof, Flow, Transport, Unavailable, WriteBufferLimits};

use super::ends::finish;
use super::flow::fill;
use crate::transport::check::{End, Stage, panic_as_expected};
use crate::transport::record::{Call, Moment, Record};

/// The callbacks, apart from the last.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Made,
    Data,
    Eof,
    Pause,
    Resume,
    TimedOut,
}

const PLACES: [Place; 6] =
    [Place::Made, Place::Data, Place::Eof, Place::Pause, Place::Resume, Place::TimedOut];

impl Place {
    fn is(self, moment: Moment<'_>) -> bool {
        match moment {
            Moment::Made => self == Place::Made,
            Moment::Data(_) => self == Place::Data,
            Moment::Eof => self == Place::Eof,
            Moment::Pause => self == Place::Pause,
            Moment::Resume => self == Place::Resume,
            Moment::TimedOut => self == Place::TimedOut,
            Moment::Readable | Moment::Lost(_) => false,
        }
    }

    /// Makes the near end be called there.
    fn provoke(self, stage: &Stage<'_>, near: &End, far: &End) {
        match self {
            Place::Made => {}
            Place::Data => {
                far.write(b"some data");
            }
            Place::Eof => far.write_eof(),
            Place::TimedOut => near.set_timeout(Some(Duration::ZERO)),
            Place::Pause | Place::Resume => {
                near.set_write_buffer_limits(WriteBufferLimits { low: 0, high: 0 });
                far.pause_reading();
                fill(near);
                if self == Place::Resume {
                    stage.settle();
                    far.resume_reading();
                }
            }
        }
    }
}

/// Does something once in one callback of the near end.
fn at(
    stage: &Stage<'_>,
    place: Place,
    mut what: impl FnMut(&Transport, &Record) -> io::Result<AfterEof> + 'static,
) -> (End, End, Rc<Cell<bool>>) {
    let done = Rc::new(Cell::new(false));
    let (flag, near) = (done.clone(), stage.record());
    let record = near.clone();
    let near = near.reacting(move |moment, transport| {
        if place.is(moment) && !flag.replace(true) {
            return what(transport, &record);
        }
        Ok(AfterEof::KeepOpen)
    });
    let far = stage.record().reacting(|_, _| Ok(AfterEof::KeepOpen));
    let (near, far) = stage.connect(near, far);
    stage.until("both are connected", || near.record.is_made() && far.record.is_made());
    place.provoke(stage, &near, &far);
    stage.until("it was called there", || done.get());
    (near, far, done)
}

pub(crate) fn replaced(stage: &Stage<'_>) {
    for place in PLACES {
        let next = Rc::new(RefCell::new(Record::new()));
        let successor = next.clone();
        let (near, far, _) = at(stage, place, move |transport, record| {
            let next = Record::after(record);
            let protocol = next.reacting(|_, _| Ok(AfterEof::KeepOpen));
            *successor.borrow_mut() = next;
            transport.set_protocol(protocol, b"left over");
            Ok(AfterEof::KeepOpen)
        });
        let next = next.borrow().clone();
        far.resume_reading();
        stage.until("what was left over came", || next.count() == 9);
        assert_eq!(near.record.alive(), 0, "{place:?}: the old one is dropped");
        assert_eq!(next.bytes(), b"left over", "{place:?}");
        if place != Place::Eof {
            far.write(b", and more");
            stage.until("more came", || next.count() == 19);
            assert_eq!(next.bytes(), b"left over, and more", "{place:?}");
        }
        assert_eq!(near.with(|_, _| ()), Ok(()), "{place:?}: it is of the same type");
        near.abort();
        far.abort();
        stage.until("both are over", || next.is_lost() && far.record.is_lost());
        assert!(!near.record.is_lost(), "{place:?}: the old one is told nothing");
        next.assert_over();
        // It was not told again what the old one knew.
        assert!(!next.has(Call::Made) && !next.has(Call::Eof), "{place:?}: {next:?}");
    }
}

fn ends_once(stage: &Stage<'_>, near: &End, far: &End, place: Place) {
    far.resume_reading();
    stage.until("it is over", || near.record.is_lost());
    near.record.assert_over();
    stage.until("the far end knows", || far.record.is_eof() || far.record.is_lost());
    far.abort();
    stage.until("the far end is over", || far.record.is_lost());
    let last = near.record.calls().pop();
    assert!(matches!(last, Some(Call::Lost(_))), "{place:?}: {:?}", near.record);
}

pub(crate) fn closes(stage: &Stage<'_>) {
    for place in PLACES {
        let (near, far, _) = at(stage, place, |transport, _| {
            transport.write(b"goodbye");
            transport.close();
            Ok(AfterEof::KeepOpen)
        });
        ends_once(stage, &near, &far, place);
        assert_eq!(near.record.error(), None, "{place:?}");
        assert!(far.record.bytes().ends_with(b"goodbye"), "{place:?}");
    }
}

pub(crate) fn aborts(stage: &Stage<'_>) {
    for place in PLACES {
        let (near, far, _) = at(stage, place, |transport, _| {
            transport.abort();
            transport.close();
            Ok(AfterEof::Close)
        });
        ends_once(stage, &near, &far, place);
        assert_eq!(near.record.error(), None, "{place:?}");
    }
}

pub(crate) fn errors(stage: &Stage<'_>) {
    for place in PLACES {
        let (near, far, _) = at(stage, place, |transport, _| {
            transport.write(b"dropped");
            Err(io::ErrorKind::InvalidData.into())
        });
        ends_once(stage, &near, &far, place);
        assert_eq!(near.record.error(), Some(io::ErrorKind::InvalidData), "{place:?}");
    }
}

pub(crate) fn panics(stage: &Stage<'_>) {
    for place in PLACES {
        stage.expect_panics(1);
        let (near, far, _) = at(stage, place, |_, _| panic_as_expected());
        ends_once(stage, &near, &far, place);
        assert_eq!(near.record.error(), Some(io::ErrorKind::Other), "{place:?}");
    }
}

pub(crate) fn foreign(stage: &Stage<'_>) {
    let (first, first_far) = stage.quiet();
    let other = first.transport().clone();
    let (second, second_far) = stage.with(move |moment, _| {
        if let Moment::Data(data) = moment {
            other.write(data);
            if data.ends_with(b"!") {
                other.close();
            }
        }
        Ok(AfterEof::KeepOpen)
    });
    second_far.write(b"through another one");
    stage.until("it came", || first_far.record.count() == 19);
    second_far.write(b"!");
    stage.until("it was closed", || first.record.is_lost());
    assert_eq!(first_far.record.bytes(), b"through another one!");
    first_far.abort();
    finish(stage, second, second_far);
    stage.until("all are over", || first_far.record.is_lost());
}

pub(crate) fn connection(stage: &Stage<'_>) {
    let inside = Rc::new(Cell::new(None));
    let seen = inside.clone();
    let (near, far) = stage.quiet();
    let own = near.connection.clone();
    near.set_protocol(
        near.record.reacting(move |moment, _| {
            if let Moment::Data(_) = moment {
                seen.set(Some(own.with(|_, _| ())));
                own.post(|_, transport| {
                    transport.write(b"posted");
                });
            }
            Ok(AfterEof::KeepOpen)
        }),
        &[],
    );
    assert_eq!(near.with(|_, transport| transport.write(b"with, ")), Ok(Flow::Ready));
    far.write(b"x");
    stage.until("it was posted", || far.record.count() == 12);
    assert_eq!(far.record.bytes(), b"with, posted");
    assert_eq!(inside.take(), Some(Err(Unavailable::Busy)));
    finish(stage, near, far);
}
