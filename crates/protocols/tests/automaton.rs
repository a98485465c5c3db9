//! The order of callbacks over random re-entrant scripts on real sockets.
//!
//! In each case some connections run over TCP and Unix sockets with small buffers. Their protocols do
//! random things with random transports in every callback, and return errors, and panic; the peers write,
//! read slowly, end their side, reset. `Record` checks the order of the callbacks; here is checked what
//! became of the bytes, that each connection ends once and leaves nothing behind, and that the
//! loop sleeps when nothing happens. `TULIPA_CASES` says how many cases.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::{cases, connect_link, descriptors, shrink, tcp, unix};
use tulipa_loop::{ErrorContext, EventLoop, LoopHandle};
use tulipa_protocols::{
    AfterEof, Connection, Flow, Transport, WriteBufferLimits, connect_accepted_socket,
};
use tulipa_selector::Timeout;
use tulipa_testing::{Call, Moment, Record, Recorder};

/// How often what is worth to be tested has happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Connections whose peer got all that was written, up to an orderly end.
    whole: u64,
    paused: u64,
    eof: u64,
    timed_out: u64,
    reset: u64,
    broken: u64,
}

/// What a panic of a script says.
const SCRIPTED: &str = "a panic of the script";

/// Numbers that are the same for the same seed.
struct Random(Cell<u64>);

impl Random {
    fn below(&self, limit: usize) -> usize {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut mixed = self.0.get();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn one_in(&self, odds: usize) -> bool {
        self.below(odds) == 0
    }
}

/// One connection and what is known of it.
struct Line {
    record: Record,
    transport: RefCell<Option<Transport>>,
    connection: RefCell<Option<Connection<Recorder>>>,
    /// What was accepted for the peer.
    accepted: RefCell<Vec<u8>>,
    /// What was refused first.
    refused: RefCell<Option<Vec<u8>>>,
    /// What the protocols have used.
    used: RefCell<Vec<u8>>,
    /// Whether the program has closed it, so that no data may follow.
    closed: Cell<bool>,
    /// Whether it may have dropped output: aborted, or a callback failed.
    aborted: Cell<bool>,
    /// What the peer has sent and got.
    peer: RefCell<Peer>,
}

#[derive(Default)]
struct Peer {
    socket: Option<Socket>,
    sent: Vec<u8>,
    received: Vec<u8>,
    /// Whether everything that was sent to it has come, up to a clean end.
    at_end: bool,
    /// Whether one of the two has reset the connection.
    has_reset: bool,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

struct Case {
    random: Random,
    lines: RefCell<Vec<Rc<Line>>>,
    /// How many more things the scripts may do.
    fuel: Cell<usize>,
    next: Cell<u8>,
    problems: RefCell<Vec<String>>,
}

impl Case {
    fn problem(&self, what: String) {
        self.problems.borrow_mut().push(what);
    }

    /// Bytes that differ from those before them.
    fn bytes(&self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| {
                self.next.set(self.next.get().wrapping_mul(5).wrapping_add(113));
                self.next.get()
            })
            .collect()
    }

    fn some_line(&self) -> Option<Rc<Line>> {
        let lines = self.lines.borrow();
        if lines.is_empty() { None } else { Some(lines[self.random.below(lines.len())].clone()) }
    }

    fn size(&self) -> usize {
        match self.random.below(8) {
            0 => 0,
            1..=4 => 1 + self.random.below(100),
            5 => 1000 + self.random.below(3000),
            6 => 16_000 + self.random.below(10_000),
            _ => 60_000 + self.random.below(60_000),
        }
    }
}

fn protocol(case: &Rc<Case>, line: &Rc<Line>) -> Recorder {
    let (case, own) = (case.clone(), Rc::downgrade(line));
    line.record.reacting(move |moment, transport| {
        let Some(line) = own.upgrade() else { return Ok(AfterEof::Close) };
        react(&case, &line, moment, transport)
    })
}

fn react(
    case: &Rc<Case>,
    line: &Rc<Line>,
    moment: Moment<'_>,
    transport: &Transport,
) -> io::Result<AfterEof> {
    let random = &case.random;
    if line.transport.borrow().is_none() {
        *line.transport.borrow_mut() = Some(transport.clone());
    }
    if let Moment::Data(data) = moment {
        if line.closed.get() {
            case.problem(format!("data after close: {:?}", line.record));
        }
        let swaps = random.one_in(12) && !transport.is_closing();
        let left = if swaps { random.below(data.len() + 1) } else { 0 };
        let (now, later) = data.split_at(data.len() - left);
        line.used.borrow_mut().extend_from_slice(now);
        if swaps {
            transport.set_protocol(protocol(case, line), later);
        }
    }
    for _ in 0..random.below(4) {
        act(case);
    }
    let lost = matches!(moment, Moment::Lost(_));
    match random.below(60) {
        0 => {
            line.aborted.set(true);
            line.closed.set(true);
            Err(io::Error::other("an error of the script"))
        }
        1 if !lost => {
            line.aborted.set(true);
            line.closed.set(true);
            std::panic::resume_unwind(Box::new(SCRIPTED));
        }
        n if n % 2 == 0 => Ok(AfterEof::KeepOpen),
        _ => Ok(AfterEof::Close),
    }
}

/// Does one random thing to one random transport.
fn act(case: &Rc<Case>) {
    if case.fuel.get() == 0 {
        return;
    }
    case.fuel.set(case.fuel.get() - 1);
    let Some(line) = case.some_line() else { return };
    let transport = line.transport.borrow().clone();
    let Some(transport) = transport else { return };
    let random = &case.random;
    match random.below(40) {
        0..=9 => write(case, &line, &transport),
        10..=12 => transport.pause_reading(),
        13..=17 => transport.resume_reading(),
        18 => transport.write_eof(),
        19 | 20 => {
            line.closed.set(true);
            transport.close();
        }
        21 => {
            line.aborted.set(true);
            line.closed.set(true);
            if random.one_in(2) { transport.abort() } else { transport.reset() }
        }
        22 | 23 => transport.set_protocol(protocol(case, &line), &[]),
        24..=26 => {
            let high = [0, 1, 1000, 64 * 1024][random.below(4)];
            let low = random.below(high + 1);
            transport.set_write_buffer_limits(WriteBufferLimits { low, high });
        }
        27 => {
            let time = [None, Some(Duration::ZERO), Some(Duration::from_millis(1))];
            transport.set_timeout(time[random.below(3)]);
        }
        28 => {
            let connection = line.connection.borrow().clone();
            let case = case.clone();
            if let Some(connection) = connection {
                connection.post(move |_, _| act(&case));
            }
        }
        29 => {
            let connection = line.connection.borrow().clone();
            let case = case.clone();
            if let Some(connection) = connection {
                let _ = connection.with(move |_, _| act(&case));
            }
        }
        30 => {
            let mut buffer = vec![0; 1 + random.below(2000)];
            if let Ok(count) = transport.try_read(&mut buffer) {
                line.used.borrow_mut().extend_from_slice(&buffer[..count]);
            }
        }
        31 => {
            let _ = format!("{transport:?}");
            let _ = (transport.peer_addr(), transport.local_addr());
            let _ = transport.get_extra_info("peername");
        }
        _ => {}
    }
}

fn write(case: &Case, line: &Line, transport: &Transport) {
    let data = case.bytes(case.size());
    let flow = match case.random.below(3) {
        0 => transport.write(&data),
        1 => transport.write_bytes(Bytes::from(data.clone())),
        _ => {
            let size = 1 + case.random.below(2000);
            let mut pieces: Vec<_> = data.chunks(size).map(IoSlice::new).collect();
            pieces.insert(0, IoSlice::new(&[]));
            transport.write_vectored(&pieces)
        }
    };
    match flow {
        // The first part of it may have left before writing failed.
        Flow::Closed => {
            line.refused.borrow_mut().get_or_insert(data);
        }
        Flow::Ready | Flow::Full => line.accepted.borrow_mut().extend_from_slice(&data),
    }
}

/// The peer does one random thing.
fn peer_acts(case: &Case, line: &Line) {
    let mut peer = line.peer.borrow_mut();
    let random = &case.random;
    match random.below(30) {
        0..=9 => {
            let data = case.bytes(1 + random.below(5000));
            peer.write(&data);
        }
        10..=19 => peer.read(1 + random.below(20_000)),
        20 => peer.half_close(),
        21 => {
            peer.read(usize::MAX);
            peer.close(random.one_in(2));
        }
        _ => {}
    }
}

impl Peer {
    fn write(&mut self, data: &[u8]) {
        let count = match &mut self.socket {
            Some(Socket::Tcp(socket)) => socket.write(data),
            Some(Socket::Unix(socket)) => socket.write(data),
            None => return,
        };
        match count {
            Ok(count) => self.sent.extend_from_slice(&data[..count]),
            // Told once: a read would say that it is an end.
            Err(error) => self.has_reset |= error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    fn read(&mut self, mut most: usize) {
        let mut buffer = vec![0; most.min(20_000)];
        while most > 0 {
            let size = buffer.len().min(most);
            let count = match &mut self.socket {
                Some(Socket::Tcp(socket)) => socket.read(&mut buffer[..size]),
                Some(Socket::Unix(socket)) => socket.read(&mut buffer[..size]),
                None => return,
            };
            match count {
                Ok(0) => {
                    self.at_end = !self.has_reset;
                    return;
                }
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    most -= count;
                }
                // Closing with something unread resets the connection; the next read is an end then.
                Err(error) => {
                    self.has_reset |= error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    fn half_close(&mut self) {
        let _ = match &self.socket {
            Some(Socket::Tcp(socket)) => socket.shutdown(std::net::Shutdown::Write),
            Some(Socket::Unix(socket)) => socket.shutdown(std::net::Shutdown::Write),
            None => Ok(()),
        };
    }

    fn close(&mut self, reset: bool) {
        // With something unread it is a reset anyway.
        self.has_reset = true;
        match self.socket.take() {
            Some(Socket::Tcp(socket)) if reset => common::reset(socket),
            socket => drop(socket),
        }
    }
}

fn open(event_loop: &EventLoop, case: &Rc<Case>) {
    let line = Rc::new(Line {
        record: Record::new(),
        transport: RefCell::default(),
        connection: RefCell::default(),
        accepted: RefCell::default(),
        refused: RefCell::default(),
        used: RefCell::default(),
        closed: Cell::new(false),
        aborted: Cell::new(false),
        peer: RefCell::default(),
    });
    let random = &case.random;
    let (ours, theirs): (std::os::fd::OwnedFd, _) = if random.one_in(2) {
        let (ours, theirs) = tcp();
        if random.one_in(2) {
            shrink(&ours);
        }
        theirs.set_nonblocking(true).unwrap();
        (ours.into(), Socket::Tcp(theirs))
    } else {
        let (ours, theirs) = unix();
        if random.one_in(2) {
            shrink(&ours);
        }
        theirs.set_nonblocking(true).unwrap();
        (ours.into(), Socket::Unix(theirs))
    };
    line.peer.borrow_mut().socket = Some(theirs);
    case.lines.borrow_mut().push(line.clone());
    let protocol = protocol(case, &line);
    if random.one_in(4) {
        let connection = connect_link(event_loop, ours, protocol);
        *line.transport.borrow_mut() = Some(connection.transport().clone());
        *line.connection.borrow_mut() = Some(connection);
    } else {
        let connected = connect_accepted_socket(ours, || protocol);
        // It may be over at once.
        if let Ok(connection) = event_loop.run_until_complete(connected).unwrap() {
            *line.connection.borrow_mut() = Some(connection);
        }
    }
}

/// Runs the loop until nothing is to be done and nothing happens.
fn quiesce(event_loop: &EventLoop, case: &Case) {
    for _ in 0..20_000 {
        let before = event_loop.statistics();
        event_loop.run_once(Timeout::Immediate).unwrap();
        let after = event_loop.statistics();
        let now = event_loop.time();
        let at_work = event_loop.next_deadline().is_some_and(|next| next <= now);
        if !at_work && before.events == after.events {
            return;
        }
    }
    let lines = case.lines.borrow();
    let states: Vec<_> = lines.iter().map(|line| format!("{:?}", line.transport)).collect();
    case.problem(format!("the loop spins: {states:#?}"));
}

fn run(seed: u64, seen: &mut Seen) {
    let before = descriptors();
    let reports = Rc::new(RefCell::new(Vec::new()));
    let case = Rc::new(Case {
        random: Random(Cell::new(seed)),
        lines: RefCell::default(),
        fuel: Cell::new(300),
        next: Cell::new(0),
        problems: RefCell::default(),
    });
    {
        let event_loop = EventLoop::new().unwrap();
        let journal = reports.clone();
        event_loop.set_exception_handler(Some(Rc::new(
            move |_: &LoopHandle, context: &ErrorContext| {
                journal.borrow_mut().push(context.to_string());
            },
        )));
        event_loop.run_once(Timeout::Immediate).unwrap();
        for _ in 0..1 + case.random.below(4) {
            open(&event_loop, &case);
        }
        script(&event_loop, &case);
        finish(&event_loop, &case);
    }
    for line in case.lines.borrow().iter() {
        judge(&case, line, seen);
        line.peer.borrow_mut().socket = None;
    }
    for report in reports.borrow().iter().filter(|report| !report.contains(SCRIPTED)) {
        case.problem(format!("reported: {report}"));
    }
    let lines = case.lines.take();
    for line in &lines {
        line.transport.take();
        line.connection.take();
    }
    drop(lines);
    let problems = case.problems.take();
    assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
    assert_eq!(descriptors(), before, "seed {seed}: descriptors");
}

fn script(event_loop: &EventLoop, case: &Rc<Case>) {
    for _ in 0..10 + case.random.below(60) {
        match case.random.below(10) {
            0..=4 => {
                let Some(line) = case.some_line() else { continue };
                peer_acts(case, &line);
            }
            5 => {
                let case = case.clone();
                event_loop.call_soon(move |_| act(&case));
            }
            6 => act(case),
            7 if case.random.one_in(4) => quiesce(event_loop, case),
            _ => event_loop.run_once(Timeout::Immediate).unwrap(),
        }
    }
    case.fuel.set(0);
    quiesce(event_loop, case);
}

/// Ends what has not ended: by the peers, by the program, by closing the loop.
fn finish(event_loop: &EventLoop, case: &Rc<Case>) {
    let lines = case.lines.borrow().clone();
    let close = case.random.one_in(2);
    for line in &lines {
        if close && let Some(transport) = &*line.transport.borrow() {
            line.closed.set(true);
            transport.close();
        }
    }
    quiesce(event_loop, case);
    // Windows of tiny sockets open by timers of the kernel's.
    let started = event_loop.time();
    loop {
        let over = |line: &Rc<Line>| !line.record.is_made() || line.record.is_lost();
        let received = || lines.iter().map(|line| line.peer.borrow().received.len()).sum::<usize>();
        let before = received();
        lines.iter().for_each(|line| line.peer.borrow_mut().read(usize::MAX));
        quiesce(event_loop, case);
        if before == received() && (!close || lines.iter().all(over)) {
            break;
        }
        if event_loop.time() - started > Duration::from_secs(20) {
            break;
        }
        event_loop.run_once(Duration::from_millis(1)).unwrap();
    }
    if case.random.one_in(3) {
        return;
    }
    for line in &lines {
        if !line.record.is_lost() {
            if close && !line.aborted.get() && line.record.is_made() {
                case.problem(format!("does not close: {line:?}", line = line.transport.borrow()));
            }
            line.aborted.set(true);
            if let Some(transport) = &*line.transport.borrow() {
                transport.abort();
            }
        }
    }
    quiesce(event_loop, case);
    for line in &lines {
        if !line.record.is_lost() || line.record.alive() != 0 {
            case.problem(format!("not over after an abort: {:?}", line.record));
        }
        line.peer.borrow_mut().read(usize::MAX);
    }
    let sources = event_loop.statistics().sources;
    if sources != 0 {
        case.problem(format!("{sources} sources are left"));
    }
}

fn judge(case: &Case, line: &Line, seen: &mut Seen) {
    for violation in line.record.violations() {
        case.problem(format!("{violation} in {:?}", line.record));
    }
    if !line.record.is_lost() || line.record.alive() != 0 {
        case.problem(format!("not over, {} alive: {:?}", line.record.alive(), line.record));
        return;
    }
    let peer = line.peer.borrow();
    if !peer.sent.starts_with(&line.used.borrow()) {
        case.problem(format!("other bytes came than were sent: {:?}", line.record));
    }
    let accepted = line.accepted.borrow();
    let refused = line.refused.take().unwrap_or_default();
    let possible = [&accepted[..], &refused].concat();
    if !possible.starts_with(&peer.received) {
        case.problem(format!("the peer got other bytes than were written: {:?}", line.record));
    }
    let orderly = line.record.error().is_none() && !line.aborted.get();
    if orderly && peer.at_end && peer.received.len() == accepted.len() && !accepted.is_empty() {
        seen.whole += 1;
    }
    for call in line.record.calls() {
        match call {
            Call::Pause => seen.paused += 1,
            Call::Eof => seen.eof += 1,
            Call::TimedOut => seen.timed_out += 1,
            Call::Lost(Some(io::ErrorKind::ConnectionReset)) => seen.reset += 1,
            Call::Lost(Some(io::ErrorKind::BrokenPipe)) => seen.broken += 1,
            _ => {}
        }
    }
    if orderly && peer.at_end && peer.received.len() < accepted.len() {
        let (got, accepted) = (peer.received.len(), accepted.len());
        case.problem(format!("{got} of {accepted} bytes arrived: {:?}", line.record));
    }
}

#[test]
fn p1_p2_p9_callbacks_and_bytes_keep_their_order_whatever_anybody_does() {
    let start = std::env::var("TULIPA_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seen = Seen::default();
    if let Some(seed) = start {
        return run(seed, &mut seen);
    }
    (0..cases()).for_each(|seed| run(seed, &mut seen));
    let Seen { whole, paused, eof, timed_out, reset, broken } = seen;
    // Scripts that never come to the point would prove nothing.
    let least = [whole, paused, eof, timed_out, reset, broken].into_iter().min();
    assert!(least >= Some(cases() / 100), "{seen:?} in {} cases", cases());
}
