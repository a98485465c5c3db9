//! A proxy that treats connections badly, with a seed.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_loop::LoopHandle;
use tulipa_protocols::{AfterEof, Connect, Endpoint, Protocol, Server, Transport, create_server};

use crate::Random;

/// In how many pieces what is received at once is passed on at most: enough to cut any message somewhere.
const MOST_PIECES: u64 = 8;

/// Above so many bytes that wait for their time a side is not read: about what a socket's buffer holds.
const MOST_WAITING: usize = 256 * 1024;

/// Nobody waits for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How a [`chaos_proxy`] treats connections. What one connection meets depends on the seed and on how many came
/// before it; how the bytes come in decides what is cut where.
///
/// ```
/// use std::time::Duration;
/// use tulipa_testing::Chaos;
///
/// let bad_day = Chaos::new(7)
///     .delay(Duration::ZERO..=Duration::from_millis(50))
///     .split(true)
///     .stall(10, Duration::from_millis(100)..=Duration::from_secs(1))
///     .reset(100, 10_000);
/// # let _ = bad_day;
/// ```
#[derive(Clone, Debug)]
pub struct Chaos {
    random: Random,
    delay: RangeInclusive<Duration>,
    split: bool,
    stalls: u16,
    stall: RangeInclusive<Duration>,
    resets: u16,
    reset_within: u64,
}

impl Chaos {
    /// Nothing bad yet.
    pub fn new(seed: u64) -> Chaos {
        let none = Duration::ZERO..=Duration::ZERO;
        Chaos {
            random: Random::new(seed),
            delay: none.clone(),
            split: false,
            stalls: 0,
            stall: none,
            resets: 0,
            reset_within: 0,
        }
    }

    /// How long what was received waits before it is passed on. Nothing overtakes anything.
    pub fn delay(mut self, delay: RangeInclusive<Duration>) -> Chaos {
        self.delay = delay;
        self
    }

    /// Whether what was received is passed on in pieces.
    pub fn split(mut self, split: bool) -> Chaos {
        self.split = split;
        self
    }

    /// How many of a thousand pieces, and all behind them, wait for how long.
    pub fn stall(mut self, per_mille: u16, stall: RangeInclusive<Duration>) -> Chaos {
        (self.stalls, self.stall) = (per_mille, stall);
        self
    }

    /// How many of a thousand directions of connections are reset, on both sides, after at most so many
    /// bytes.
    pub fn reset(mut self, per_mille: u16, within_bytes: u64) -> Chaos {
        (self.resets, self.reset_within) = (per_mille, within_bytes);
        self
    }

    /// What makes the protocols of a proxy in front of a server, for those who make their own
    /// [`Server`].
    pub fn factory<E: Into<Endpoint>>(mut self, to: E) -> impl FnMut() -> ChaosProtocol + use<E> {
        let to = to.into();
        move || {
            let random = self.random.fork();
            let way = Rc::new(Way::new(Chaos { random, ..self.clone() }));
            ChaosProtocol { way, side: NEAR, to: Some(to.clone()) }
        }
    }
}

/// A server on the current loop that passes its connections on to another one, and treats them badly: over
/// real sockets, or over a [`MemoryNetwork`](crate::MemoryNetwork).
///
/// # Errors
/// As [`create_server`]. A client for whom the other server cannot be reached is reset.
///
/// # Cancel safety
/// As [`create_server`].
///
/// # Panics
/// Outside of a running loop.
pub async fn chaos_proxy(
    listen: impl Into<Endpoint>,
    to: impl Into<Endpoint>,
    chaos: Chaos,
) -> io::Result<Server> {
    create_server(listen, chaos.factory::<Endpoint>(to.into())).await
}

/// The side of the client, and the one of the server.
const NEAR: usize = 0;
const FAR: usize = 1;

/// One side of a connection through a [`chaos_proxy`].
pub struct ChaosProtocol {
    way: Rc<Way>,
    side: usize,
    to: Option<Endpoint>,
}

/// A connection through the proxy.
struct Way {
    chaos: Chaos,
    random: RefCell<Random>,
    ends: [OnceCell<Transport>; 2],
    /// From each side to the other.
    lanes: [Lane; 2],
}

#[derive(Default)]
struct Lane {
    /// When the last of what waits is passed on.
    last: Cell<Option<Instant>>,
    waiting: Cell<usize>,
    /// The other side takes no more.
    blocked: Cell<bool>,
    passed: Cell<u64>,
    /// After so many bytes everything is reset.
    doom: Cell<Option<u64>>,
}

impl Way {
    fn new(chaos: Chaos) -> Way {
        let mut random = chaos.random.clone();
        let lanes = [Lane::default(), Lane::default()];
        for lane in &lanes {
            if random.chance(chaos.resets) {
                lane.doom.set(Some(random.within(0..=chaos.reset_within)));
            }
        }
        Way { chaos, random: RefCell::new(random), ends: Default::default(), lanes }
    }

    fn end(&self, side: usize, action: impl FnOnce(&Transport)) {
        self.ends[side].get().map(action);
    }

    /// Reads a side, or does not.
    fn regulate(&self, side: usize) {
        let lane = &self.lanes[side];
        let wait = lane.blocked.get() || lane.waiting.get() > MOST_WAITING;
        let both = self.ends[1 - side].get().is_some();
        let regulate =
            if wait || !both { Transport::pause_reading } else { Transport::resume_reading };
        self.end(side, regulate);
    }

    /// When what is received now is passed on.
    fn time(&self, handle: &LoopHandle, side: usize) -> Instant {
        let delay = self.random.borrow_mut().duration(self.chaos.delay.clone());
        let mut stall = Duration::ZERO;
        if self.random.borrow_mut().chance(self.chaos.stalls) {
            stall = self.random.borrow_mut().duration(self.chaos.stall.clone());
        }
        let lane = &self.lanes[side];
        let now = handle.time();
        let time = (now + delay).max(lane.last.get().unwrap_or(now)) + stall;
        lane.last.set(Some(time));
        time
    }

    fn pass(self: &Rc<Way>, side: usize, data: &[u8]) {
        let lane = &self.lanes[side];
        let left = lane.doom.get().map_or(u64::MAX, |doom| doom.saturating_sub(lane.passed.get()));
        let doomed = left <= data.len() as u64;
        let mut rest = if doomed { &data[..left as usize] } else { data };
        lane.passed.set(lane.passed.get() + rest.len() as u64);
        let most = if self.chaos.split { MOST_PIECES } else { 1 };
        let pieces = self.random.borrow_mut().within(1..=most);
        for left in (0..pieces).rev() {
            let half = self.random.borrow_mut().index(rest.len() + 1);
            let (piece, later) = rest.split_at(if left == 0 { rest.len() } else { half });
            rest = later;
            if !piece.is_empty() {
                self.pass_piece(side, piece.to_vec());
            }
        }
        if doomed {
            self.later(side, |way| {
                [NEAR, FAR].iter().for_each(|side| way.end(*side, Transport::reset))
            });
        }
        self.regulate(side);
    }

    fn pass_piece(self: &Rc<Way>, side: usize, piece: Vec<u8>) {
        let waiting = &self.lanes[side].waiting;
        waiting.set(waiting.get() + piece.len());
        self.later(side, move |way| {
            let waiting = &way.lanes[side].waiting;
            waiting.set(waiting.get() - piece.len());
            way.end(1 - side, |other| {
                other.write(&piece);
            });
            way.regulate(side);
        });
    }

    /// Does something behind all that waits to be passed on.
    fn later(self: &Rc<Way>, side: usize, act: impl FnOnce(&Rc<Way>) + 'static) {
        // A loop that is closed ends both sides by itself.
        let Some(handle) = LoopHandle::try_current() else { return };
        let (time, way) = (self.time(&handle, side), self.clone());
        handle.call_at(time, move |_| act(&way));
    }
}

/// Connects to the server for a client, who is not read from before.
async fn pass_on(way: Rc<Way>, to: Endpoint) {
    let far = || ChaosProtocol { way: way.clone(), side: FAR, to: None };
    match Connect::to(to).timeout(CONNECT_TIMEOUT).open(far).await {
        Ok(server) => {
            way.end(NEAR, |client| {
                if client.is_closing() {
                    server.abort();
                }
            });
            way.regulate(NEAR);
        }
        Err(_) => way.end(NEAR, Transport::reset),
    }
}

impl Protocol for ChaosProtocol {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        let _first = self.way.ends[self.side].set(transport.clone());
        if let Some(to) = self.to.take() {
            transport.pause_reading();
            drop(LoopHandle::current().spawn(pass_on(self.way.clone(), to)));
        }
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        self.way.pass(self.side, data);
        Ok(())
    }

    fn eof_received(&mut self, _: &Transport) -> io::Result<AfterEof> {
        let side = self.side;
        self.way.later(side, move |way| way.end(1 - side, Transport::write_eof));
        Ok(AfterEof::KeepOpen)
    }

    fn pause_writing(&mut self, _: &Transport) -> io::Result<()> {
        self.way.lanes[1 - self.side].blocked.set(true);
        self.way.regulate(1 - self.side);
        Ok(())
    }

    fn resume_writing(&mut self, _: &Transport) -> io::Result<()> {
        self.way.lanes[1 - self.side].blocked.set(false);
        self.way.regulate(1 - self.side);
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        let side = self.side;
        let end = if error.is_some() { Transport::reset } else { Transport::close };
        self.way.later(side, move |way| way.end(1 - side, end));
    }
}

impl fmt::Debug for ChaosProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChaosProtocol").field("side", &self.side).finish_non_exhaustive()
    }
}
