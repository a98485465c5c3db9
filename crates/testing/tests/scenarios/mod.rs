//! Parts of the simulated scenarios: the order of callbacks, patterns of bytes, scripts.
#![allow(dead_code, reason = "not every scenario needs all of it")]

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::LoopHandle;
use tulipa_protocols::{AfterEof, Protocol, Transport, WriteBufferLimits};
use tulipa_testing::{Random, Sim};

/// P1: checks the order in which a protocol is called. A violation is a panic, which the loop reports, which
/// fails the run.
#[derive(Debug, Default)]
pub(crate) struct Order {
    state: State,
    paused: bool,
    eof: bool,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    New,
    Made,
    Lost,
}

impl Order {
    pub(crate) fn made(&mut self) {
        assert_eq!(self.state, State::New, "connection_made comes first and once");
        self.state = State::Made;
    }

    pub(crate) fn data(&mut self, data: &[u8]) {
        self.middle("data_received");
        assert!(!self.eof, "data_received after eof_received");
        assert!(!data.is_empty(), "data_received without data");
    }

    pub(crate) fn eof(&mut self) {
        self.middle("eof_received");
        assert!(!std::mem::replace(&mut self.eof, true), "eof_received twice");
    }

    pub(crate) fn paused(&mut self, paused: bool) {
        self.middle("pause_writing or resume_writing");
        assert_ne!(self.paused, paused, "pause_writing and resume_writing take turns");
        self.paused = paused;
    }

    pub(crate) fn lost(&mut self) {
        // Nobody is told of the beginning if that panics.
        assert_ne!(self.state, State::Lost, "connection_lost comes once");
        self.state = State::Lost;
    }

    fn middle(&self, what: &str) {
        assert_eq!(self.state, State::Made, "{what} comes between the beginning and the end");
    }
}

/// The byte at a place of the stream of a connection, so that bytes that are lost, doubled or moved are seen.
pub(crate) fn pattern(stream: u64, place: usize) -> u8 {
    let mixed = (place as u64 ^ stream << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

pub(crate) fn bytes(stream: u64, from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|place| pattern(stream, place)).collect()
}

/// Echoes, and stops reading while it cannot write.
pub(crate) struct Echo {
    pub(crate) order: Order,
    pub(crate) sim: Sim,
    pub(crate) most: Rc<Cell<usize>>,
}

impl Echo {
    pub(crate) fn new(sim: &Sim, most: &Rc<Cell<usize>>) -> Echo {
        Echo { order: Order::default(), sim: sim.clone(), most: most.clone() }
    }
}

impl Protocol for Echo {
    fn connection_made(&mut self, _: &Transport) -> io::Result<()> {
        self.order.made();
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        self.order.data(data);
        transport.write(data);
        self.most.set(self.most.get().max(transport.get_write_buffer_size()));
        Ok(())
    }

    fn eof_received(&mut self, _: &Transport) -> io::Result<AfterEof> {
        self.order.eof();
        Ok(AfterEof::Close)
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.order.paused(true);
        transport.pause_reading();
        Ok(())
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.order.paused(false);
        transport.resume_reading();
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, _: Option<io::Error>) {
        self.order.lost();
    }
}

/// What became of a scripted client.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) written: Cell<usize>,
    pub(crate) received: Cell<usize>,
    /// It has ended it before all was written and read.
    pub(crate) left: Cell<bool>,
    pub(crate) lost: Cell<bool>,
    pub(crate) error: RefCell<Option<io::Error>>,
    pub(crate) client: Cell<Option<SocketAddr>>,
}

/// Which turn of the loop this is.
fn turn() -> u64 {
    LoopHandle::current().statistics().turns
}

/// A client that writes a pattern and expects it back, and does anything in any callback.
pub(crate) struct Scripted {
    pub(crate) order: Order,
    pub(crate) stream: u64,
    pub(crate) total: usize,
    pub(crate) random: Random,
    pub(crate) story: Rc<Story>,
    /// How wild it is: how many of a thousand calls end the connection early.
    pub(crate) leaves: u16,
    ended: bool,
    /// The turn in which it has done something last.
    acted: u64,
}

impl Scripted {
    pub(crate) fn new(
        stream: u64,
        total: usize,
        leaves: u16,
        random: Random,
    ) -> (Scripted, Rc<Story>) {
        let story = Rc::new(Story::default());
        let client = Scripted {
            order: Order::default(),
            stream,
            total,
            random,
            story: story.clone(),
            leaves,
            ended: false,
            acted: 0,
        };
        (client, story)
    }

    /// What it does in every callback.
    fn act(&mut self, transport: &Transport) {
        self.acted = turn();
        for _ in 0..self.random.below(4) {
            match self.random.below(8) {
                0..=2 => self.write(transport),
                3 => transport.pause_reading(),
                4 => transport.resume_reading(),
                5 => {
                    let high = 1 << self.random.within(0..=17);
                    let low = self.random.index(high + 1);
                    transport.set_write_buffer_limits(WriteBufferLimits { low, high });
                }
                6 => transport.set_timeout(Some(Duration::from_secs(3000))),
                _ if self.random.chance(self.leaves) => self.leave(transport),
                _ => {}
            }
        }
        self.go_on(transport);
    }

    fn write(&mut self, transport: &Transport) {
        let from = self.story.written.get();
        let count = (1 << self.random.within(0..=14)).min(self.total - from);
        let data = bytes(self.stream, from, count);
        if transport.is_closing() || self.ended || count == 0 {
            return;
        }
        let _ = match self.random.below(3) {
            0 => transport.write(&data),
            1 => {
                let middle = self.random.index(count);
                let (first, rest) = data.split_at(middle);
                transport.write_vectored(&[
                    IoSlice::new(first),
                    IoSlice::new(&[]),
                    IoSlice::new(rest),
                ])
            }
            _ => transport.write_bytes(data.into()),
        };
        self.story.written.set(from + count);
    }

    fn leave(&mut self, transport: &Transport) {
        self.story.left.set(true);
        match self.random.below(3) {
            0 => transport.close(),
            1 => transport.abort(),
            _ => transport.reset(),
        }
    }

    /// Ends its side when all is written.
    fn go_on(&mut self, transport: &Transport) {
        if self.story.written.get() == self.total && !self.ended {
            self.ended = true;
            transport.write_eof();
        }
    }
}

impl Protocol for Scripted {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        self.order.made();
        self.story.client.set(transport.local_addr().and_then(|address| address.inet()));
        self.act(transport);
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        self.order.data(data);
        let from = self.story.received.get();
        assert!(
            data == bytes(self.stream, from, data.len()),
            "the bytes are not those that were sent"
        );
        self.story.received.set(from + data.len());
        assert!(self.story.received.get() <= self.story.written.get(), "bytes out of nowhere");
        self.act(transport);
        Ok(())
    }

    fn eof_received(&mut self, transport: &Transport) -> io::Result<AfterEof> {
        self.order.eof();
        self.act(transport);
        Ok(AfterEof::Close)
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.order.paused(true);
        self.act(transport);
        Ok(())
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        self.order.paused(false);
        self.act(transport);
        Ok(())
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<io::Error>) {
        self.order.lost();
        self.story.lost.set(true);
        *self.story.error.borrow_mut() = error;
        // Nothing of this has any effect.
        self.act(transport);
    }
}

impl Scripted {
    /// Somebody outside of its callbacks has it act.
    pub(crate) fn poke(&mut self, transport: &Transport) {
        let low = transport.get_write_buffer_limits().low;
        let resumed = transport.get_write_buffer_size() > low || !self.order.paused;
        // What it has done in this turn, setting limits say, has its consequences in the next one.
        let told = resumed || self.acted == turn();
        assert!(told || transport.is_closing(), "who may write again is told so");
        transport.resume_reading();
        if !transport.is_closing() {
            self.write(transport);
            self.go_on(transport);
        }
    }
}

/// A member of a chat, at the server.
pub(crate) struct Member {
    room: Rc<RefCell<Vec<Transport>>>,
    line: Vec<u8>,
}

impl Member {
    pub(crate) fn new(room: &Rc<RefCell<Vec<Transport>>>) -> Member {
        Member { room: room.clone(), line: Vec::new() }
    }
}

impl Protocol for Member {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        self.room.borrow_mut().push(transport.clone());
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        for byte in data {
            self.line.push(*byte);
            if *byte == b'\n' {
                for member in self.room.borrow().iter() {
                    member.write(&self.line);
                }
                self.line.clear();
            }
        }
        Ok(())
    }

    fn connection_lost(&mut self, transport: &Transport, _: Option<io::Error>) {
        self.room.borrow_mut().retain(|member| member != transport);
    }
}

/// A member of a chat, at home.
#[derive(Default)]
pub(crate) struct Guest(Vec<u8>);

impl Guest {
    /// Who has said which line, as far as it was heard.
    pub(crate) fn lines(&self) -> Vec<(usize, usize)> {
        let text = String::from_utf8(self.0.clone()).expect("it is text");
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let parse = |line: &str| {
            let (who, line) = line.trim_end().split_once(' ').expect("who, and which line");
            (who.parse().expect("a number"), line.parse().expect("a number"))
        };
        whole.map(parse).collect()
    }
}

impl Protocol for Guest {
    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }
}

/// How many bytes an [`Answer`] has.
pub(crate) const ANSWER: usize = 4_000;

/// Answers without being asked.
pub(crate) struct Answer;

impl Protocol for Answer {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        transport.write(&bytes(0, 0, ANSWER));
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Collects an answer.
#[derive(Clone, Default)]
pub(crate) struct Collected(pub(crate) Rc<Found>);

#[derive(Default)]
pub(crate) struct Found {
    pub(crate) count: Cell<usize>,
    pub(crate) error: Cell<Option<io::ErrorKind>>,
}

impl Protocol for Collected {
    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        let from = self.0.count.get();
        assert!(data == bytes(0, from, data.len()), "the bytes are not those that were sent");
        self.0.count.set(from + data.len());
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        self.0.error.set(error.map(|error| error.kind()));
    }
}
