//! The table of `Transport`: every method in every state, cell by cell.

mod common;

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tulipa_protocols::{AfterEof, Detached, Flow, Transport, WriteBufferLimits};
use tulipa_testing::{Call, Record, ToyRecords};

/// The columns of the table, and the states that its text below speaks of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Opening,
    Open,
    /// The output was ended, and that is done.
    OutputEnded,
    /// The peer has ended its side.
    InputEnded,
    Paused,
    /// `close` with something still to be written.
    Closing,
    /// Writing has failed, and what has come is not delivered yet.
    Broken,
    Over,
}

use State::{Broken, Closing, InputEnded, Open, Opening, OutputEnded, Over, Paused};

const STATES: [State; 8] = [Opening, Open, OutputEnded, InputEnded, Paused, Closing, Broken, Over];

struct Subject {
    connection: Detached,
    record: Record,
}

impl Subject {
    /// A connection in a state, with something in the queue where something can be.
    fn new(state: State) -> Subject {
        let record = Record::new();
        let protocol = record.reacting(|_, _| Ok(AfterEof::KeepOpen));
        if state == Opening {
            let connection = Detached::filtered(protocol, ToyRecords::client());
            return Subject { connection, record };
        }
        let mut connection = Detached::new(protocol);
        let transport = connection.transport().clone();
        match state {
            Opening | Open => {}
            OutputEnded => transport.write_eof(),
            InputEnded => connection.feed_eof(),
            Paused => transport.pause_reading(),
            Closing => {
                connection.set_room(Some(0));
                transport.write(b"queued");
                transport.close();
            }
            Broken => {
                // Known by a write that goes to the link at once, and not told yet.
                connection.probe().fail(ErrorKind::BrokenPipe.into());
                assert_eq!(transport.write(&[0; 100_000]), Flow::Closed);
                return Subject { connection, record };
            }
            Over => transport.abort(),
        }
        connection.run();
        Subject { connection, record }
    }

    fn transport(&self) -> &Transport {
        self.connection.transport()
    }

    /// The kind of the error that the connection ends with when it is run; `None` if it goes on.
    fn end(&mut self) -> Option<Option<ErrorKind>> {
        self.connection.run();
        self.record.assert_order();
        self.record.is_lost().then(|| self.record.error())
    }
}

fn is_closed(state: State) -> bool {
    matches!(state, Closing | Broken | Over)
}

#[test]
fn the_states_of_the_table_are_what_they_are_called() {
    for state in STATES {
        let mut subject = Subject::new(state);
        let text = format!("{:?}", subject.transport());
        let shown = match state {
            Opening => "Opening",
            Closing => "Closing",
            Broken => "Broken",
            Over => "Ended",
            _ => "Open",
        };
        assert!(text.starts_with(&format!("<Transport {shown} ")), "{state:?}: {text}");
        let over = subject.end();
        let expected = match state {
            Broken => Some(Some(ErrorKind::BrokenPipe)),
            Over => Some(None),
            _ => None,
        };
        assert_eq!(over, expected, "{state:?}");
    }
}

#[test]
fn writes_of_every_kind_in_every_state() {
    let kinds: [fn(&Transport) -> Flow; 4] = [
        |transport| transport.write(b"bytes"),
        |transport| transport.write_vectored(&[IoSlice::new(b"by"), IoSlice::new(b"tes")]),
        |transport| transport.write_bytes(Bytes::from_static(b"bytes")),
        |transport| transport.write(b""),
    ];
    for state in STATES {
        for kind in kinds {
            let subject = Subject::new(state);
            let before = subject.transport().get_write_buffer_size();
            let closed = is_closed(state) || state == OutputEnded;
            let expected = if closed { Flow::Closed } else { Flow::Ready };
            assert_eq!(kind(subject.transport()), expected, "{state:?}");
            if closed {
                assert_eq!(subject.transport().get_write_buffer_size(), before, "{state:?}");
            }
        }
    }
}

#[test]
fn write_eof_in_every_state() {
    for state in STATES {
        let mut subject = Subject::new(state);
        let was_over = subject.record.is_lost();
        subject.transport().write_eof();
        let ended = subject.end();
        match state {
            Opening => assert_eq!(subject.transport().write(b"x"), Flow::Closed),
            Open | Paused | OutputEnded => {
                assert!(subject.connection.probe().is_output_ended() && ended.is_none());
            }
            InputEnded => assert_eq!(ended, Some(None), "both sides have ended"),
            Closing => assert_eq!(ended, None),
            Broken => assert_eq!(ended, Some(Some(ErrorKind::BrokenPipe))),
            Over => assert!(was_over),
        }
    }
}

#[test]
fn close_in_every_state() {
    for state in STATES {
        let mut subject = Subject::new(state);
        subject.transport().close();
        assert!(subject.transport().is_closing(), "{state:?}");
        let expected = match state {
            Closing => None,
            Broken => Some(Some(ErrorKind::BrokenPipe)),
            _ => Some(None),
        };
        assert_eq!(subject.end(), expected, "{state:?}");
    }
}

#[test]
fn a_close_during_a_handshake_says_what_is_lost_by_it() {
    let mut subject = Subject::new(Opening);
    subject.transport().write(b"never sent");
    subject.transport().close();
    assert_eq!(subject.end(), Some(Some(ErrorKind::ConnectionAborted)));
}

#[test]
fn abort_and_reset_in_every_state() {
    for state in STATES {
        for reset in [false, true] {
            let mut subject = Subject::new(state);
            if reset {
                subject.transport().reset()
            } else {
                subject.transport().abort()
            }
            assert!(subject.transport().is_closing(), "{state:?}");
            let error = (state == Broken).then_some(ErrorKind::BrokenPipe);
            assert_eq!(subject.end(), Some(error), "{state:?}");
            let shown = subject.connection.probe().is_reset();
            assert_eq!(shown, reset && state != Over, "{state:?}");
        }
    }
}

#[test]
fn pausing_resuming_and_is_reading_in_every_state() {
    for state in STATES {
        let subject = Subject::new(state);
        let transport = subject.transport();
        let reads = matches!(state, Opening | Open | OutputEnded);
        assert_eq!(transport.is_reading(), reads, "{state:?}");
        transport.pause_reading();
        assert!(!transport.is_reading(), "{state:?}");
        transport.resume_reading();
        let can = !is_closed(state) && state != InputEnded;
        assert_eq!(transport.is_reading(), can, "{state:?}");
    }
}

#[test]
fn is_closing_and_the_size_of_what_waits_in_every_state() {
    for state in STATES {
        let subject = Subject::new(state);
        assert_eq!(subject.transport().is_closing(), is_closed(state), "{state:?}");
        let waiting = if state == Closing { 6 } else { 0 };
        assert_eq!(subject.transport().get_write_buffer_size(), waiting, "{state:?}");
    }
}

#[test]
fn try_read_in_every_state() {
    for state in STATES {
        let subject = Subject::new(state);
        let result = subject.transport().try_read(&mut [0; 8]).map_err(|error| error.kind());
        let expected = match state {
            Opening | Open | OutputEnded | Paused => Err(ErrorKind::WouldBlock),
            InputEnded => Ok(0),
            Closing | Over => Err(ErrorKind::NotConnected),
            Broken => Err(ErrorKind::BrokenPipe),
        };
        assert_eq!(result, expected, "{state:?}");
        let taken = Subject::new(state).transport().read_with(<[u8]>::to_vec);
        assert_eq!(taken, None, "{state:?}");
    }
}

#[test]
fn try_read_reads_what_is_there_also_while_reading_is_paused() {
    let subject = Subject::new(Paused);
    subject.connection.probe().feed(b"wanted now");
    let mut buffer = [0; 6];
    assert_eq!(subject.transport().try_read(&mut buffer).unwrap(), 6);
    assert_eq!(subject.transport().read_with(<[u8]>::to_vec), Some(b" now".to_vec()));
    assert_eq!(subject.transport().try_read(&mut []).unwrap(), 0);
    assert_eq!(subject.record.calls(), [Call::Made]);
}

#[test]
fn set_protocol_in_every_state() {
    for state in STATES {
        let mut subject = Subject::new(state);
        let next = Record::after(&subject.record);
        subject.transport().set_protocol(next.protocol(), b"left");
        if state == Over {
            assert_eq!(next.alive(), 0, "it is dropped");
            continue;
        }
        subject.connection.run();
        assert_eq!(subject.record.alive(), 0, "{state:?}");
        match state {
            Opening => assert_eq!(next.calls(), []),
            Open | OutputEnded | InputEnded => assert_eq!(next.bytes(), b"left", "{state:?}"),
            Paused => {
                assert_eq!(next.calls(), []);
                subject.transport().resume_reading();
                subject.connection.run();
                assert_eq!(next.bytes(), b"left");
            }
            Closing => {
                subject.connection.set_room(None);
                assert_eq!(next.calls(), [Call::Lost(None)]);
            }
            Broken => {
                let lost = Call::Lost(Some(ErrorKind::BrokenPipe));
                assert_eq!(next.calls(), [Call::Data(4), lost]);
            }
            Over => {}
        }
        next.assert_order();
    }
}

#[test]
fn upgrade_in_every_state() {
    for state in STATES {
        let subject = Subject::new(state);
        let result = subject.transport().upgrade(ToyRecords::client(), &[]);
        let possible = matches!(state, Open | Paused | InputEnded);
        assert_eq!(
            result.map_err(|error| error.kind()),
            if possible { Ok(()) } else { Err(ErrorKind::NotConnected) },
            "{state:?}"
        );
    }
}

#[test]
fn set_timeout_in_every_state() {
    for state in STATES {
        let mut subject = Subject::new(state);
        subject.transport().set_timeout(Some(Duration::from_secs(1)));
        subject.connection.run();
        subject.connection.advance(Duration::from_secs(2));
        let told = subject.record.has(Call::TimedOut);
        let expected = !matches!(state, Opening | Broken | Over);
        assert_eq!(told, expected, "{state:?}");
        if state == Opening {
            assert_eq!(subject.record.calls(), [Call::Lost(Some(ErrorKind::TimedOut))]);
        }
        subject.record.assert_order();
    }
}

#[test]
fn limits_in_every_state() {
    let limits = WriteBufferLimits { low: 1, high: 2 };
    for state in STATES {
        let mut subject = Subject::new(state);
        let before = subject.record.calls();
        subject.transport().set_write_buffer_limits(limits);
        assert_eq!(subject.transport().get_write_buffer_limits(), limits);
        subject.transport().set_max_write_buffer(Some(1));
        subject.transport().set_max_write_buffer(None);
        subject.connection.run();
        let pauses = subject.record.has(Call::Pause);
        assert_eq!(pauses, state == Closing, "{state:?}: six bytes wait while it closes");
        if state == Over {
            assert_eq!(subject.record.calls(), before);
        }
    }
}

#[test]
#[should_panic = "the low limit (3) must not be above the high one (2)"]
fn limits_the_wrong_way_round_are_the_callers_mistake() {
    Subject::new(Open).transport().set_write_buffer_limits(WriteBufferLimits { low: 3, high: 2 });
}

#[test]
fn addresses_and_extra_info_in_every_state() {
    for state in STATES {
        let subject = Subject::new(state);
        let transport = subject.transport();
        assert!(transport.peer_addr().is_some(), "{state:?}");
        assert!(transport.get_extra_info("peername").is_some(), "{state:?}");
        assert!(transport.get_extra_info("no such thing").is_none(), "{state:?}");
        let kind = transport.with_fd(|_| ()).map_err(|error| error.kind());
        let expected = if state == Over { ErrorKind::NotConnected } else { ErrorKind::Unsupported };
        assert_eq!(kind, Err(expected), "{state:?}");
        assert!(transport.set_nodelay(true).is_err() && transport.set_keepalive(None).is_err());
    }
}

#[test]
fn the_same_in_every_state_from_inside_of_connection_lost() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (record, journal) = (Record::new(), seen.clone());
    let mut connection = Detached::new(record.reacting(move |moment, transport| {
        if let tulipa_testing::Moment::Lost(_) = moment {
            journal.borrow_mut().push(transport.write(b"x"));
            transport.write_eof();
            transport.close();
            transport.abort();
            transport.reset();
            transport.pause_reading();
            transport.resume_reading();
            transport.set_timeout(Some(Duration::ZERO));
            transport.set_protocol(Record::new().protocol(), b"left");
            assert!(transport.upgrade(ToyRecords::client(), b"left").is_err());
            assert!(transport.try_read(&mut [0]).is_err());
        }
        Ok(AfterEof::KeepOpen)
    }));
    connection.transport().abort();
    connection.run();
    connection.advance(Duration::from_secs(1));
    assert_eq!(*seen.borrow(), [Flow::Closed]);
    assert_eq!(record.calls(), [Call::Made, Call::Lost(None)]);
    assert!(connection.is_over() && connection.probe().is_closed());
}
