//! The two ends of a simulated connection, and what is on its way between them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tulipa_selector::{Readiness, VirtualId};

use super::core::{CLIENT, Core, PairId};
use super::faults::Fault;
use super::path::{Chunking, Path};
use crate::trace::Hasher;

/// In how many pieces one write arrives at most, where the path says that pieces are random.
const MOST_PIECES: u64 = 4;

/// How long a source that is said to be ready and is not stays so, if nobody looks.
const SPURIOUS: Duration = Duration::from_millis(1);

pub(super) struct Pair {
    path: Path,
    pub(super) ends: [End; 2],
}

/// One end: what it has sent and what it has received.
pub(super) struct End {
    pub(super) address: SocketAddr,
    pub(super) source: VirtualId,
    /// What it has sent and the other end has not received, in order.
    wire: VecDeque<Parcel>,
    /// Until when the way is busy with what was sent.
    busy_until: Option<Instant>,
    last_arrival: Option<Instant>,
    /// How many bytes it may still send before the other end reads some.
    room: usize,
    output: Output,
    /// What has arrived here and was not read.
    inbox: VecDeque<u8>,
    input: Input,
    /// The program has dropped it.
    pub(super) gone: bool,
    /// Whether the other end was told that nobody is here.
    refused: bool,
    /// How many bytes of what it has sent have arrived.
    arrived: u64,
    /// After how many of them what happens.
    pub(super) doom: Option<(u64, Fault)>,
    /// What it has sent stands still until then.
    pub(super) stalled_until: Option<Instant>,
    /// It is not said to be ready before then.
    pub(super) hidden_until: Option<Instant>,
    shown: Readiness,
    pub(super) spurious: Readiness,
}

struct Parcel {
    arrives: Instant,
    what: What,
}

enum What {
    Data(Vec<u8>),
    Fin,
    Reset,
    /// The other end has read so many bytes.
    Room(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Flowing,
    /// `shutdown` was called, or the way broke so that it looks like it.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Flowing,
    /// The other end has ended its output.
    Ended,
    Reset,
}

impl Pair {
    pub(super) fn new(path: Path, addresses: [SocketAddr; 2], sources: [VirtualId; 2]) -> Pair {
        let end = |side: usize| End::new(addresses[side], sources[side], path.buffer);
        Pair { ends: [end(0), end(1)], path }
    }
}

impl End {
    fn new(address: SocketAddr, source: VirtualId, room: usize) -> End {
        End {
            address,
            source,
            wire: VecDeque::new(),
            busy_until: None,
            last_arrival: None,
            room,
            output: Output::Flowing,
            inbox: VecDeque::new(),
            input: Input::Flowing,
            gone: false,
            refused: false,
            arrived: 0,
            doom: None,
            stalled_until: None,
            hidden_until: None,
            shown: Readiness::NONE,
            spurious: Readiness::NONE,
        }
    }

    /// The connection is reset: what has come can still be read, nothing more comes or goes.
    pub(super) fn be_reset(&mut self) {
        self.input = Input::Reset;
        self.output = Output::Ended;
        // What it has broken off itself stays so.
        self.wire.retain(|parcel| matches!(parcel.what, What::Reset));
    }

    /// What it is ready for.
    fn readiness(&self) -> Readiness {
        let readable = !self.inbox.is_empty() || self.input != Input::Flowing;
        let writable = self.room > 0 || self.output == Output::Ended;
        let readable = if readable { Readiness::READABLE } else { Readiness::NONE };
        let writable = if writable { Readiness::WRITABLE } else { Readiness::NONE };
        readable | writable
    }
}

/// What the program does with its end.
impl Core {
    pub(super) fn read(&mut self, id: PairId, side: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let short = self.random.chance(self.faults.per_mille(Fault::ShortRead));
        let Some(pair) = self.pairs.get_mut(&id) else { return Err(gone()) };
        let end = &mut pair.ends[side];
        end.spurious = Readiness::NONE;
        let there = end.inbox.len().min(buffer.len());
        if there == 0 {
            let result = match end.input {
                Input::Flowing => Err(io::ErrorKind::WouldBlock.into()),
                Input::Ended => Ok(0),
                Input::Reset => Err(io::ErrorKind::ConnectionReset.into()),
            };
            self.note(format_args!("read {id}.{side}: {result:?}"));
            self.refresh(id, side);
            return result;
        }
        let mut count = match pair.path.chunking {
            Chunking::Whole => there,
            Chunking::OneByte => 1,
            Chunking::Random => 1 + self.random.index(there),
        };
        if short && count > 1 {
            self.counts.count(Fault::ShortRead);
            count = 1 + self.random.index(count - 1);
        }
        let mut hash = Hasher::new();
        for (place, byte) in buffer.iter_mut().zip(end.inbox.drain(..count)) {
            *place = byte;
        }
        hash.bytes(&buffer[..count]);
        self.note(format_args!("read {id}.{side}: {count} bytes {:x}", hash.0));
        self.send(id, side, What::Room(count));
        self.refresh(id, side);
        Ok(count)
    }

    pub(super) fn write(
        &mut self,
        id: PairId,
        side: usize,
        pieces: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let short = self.random.chance(self.faults.per_mille(Fault::ShortWrite));
        let Some(pair) = self.pairs.get_mut(&id) else { return Err(gone()) };
        let end = &mut pair.ends[side];
        end.spurious = Readiness::NONE;
        let failed = match (end.input, end.output) {
            (Input::Reset, _) => Some(io::ErrorKind::ConnectionReset),
            (_, Output::Ended) => Some(io::ErrorKind::BrokenPipe),
            _ => None,
        };
        if let Some(kind) = failed {
            self.note(format_args!("write {id}.{side}: {kind:?}"));
            return Err(kind.into());
        }
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut count = total.min(end.room);
        if short && count > 0 {
            self.counts.count(Fault::ShortWrite);
            count = self.random.index(count);
        }
        self.note(format_args!("write {id}.{side}: {count} of {total} bytes"));
        if count == 0 {
            self.refresh(id, side);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut bytes = Vec::with_capacity(count);
        for piece in pieces {
            let wanted = piece.len().min(count - bytes.len());
            bytes.extend_from_slice(&piece[..wanted]);
        }
        if let Some(pair) = self.pairs.get_mut(&id) {
            pair.ends[side].room -= count;
        }
        self.send_bytes(id, side, bytes);
        self.refresh(id, side);
        Ok(count)
    }

    pub(super) fn shutdown(&mut self, id: PairId, side: usize) -> io::Result<()> {
        self.note(format_args!("shutdown {id}.{side}"));
        let Some(pair) = self.pairs.get_mut(&id) else { return Err(gone()) };
        let end = &mut pair.ends[side];
        if end.input == Input::Reset {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if std::mem::replace(&mut end.output, Output::Ended) == Output::Flowing {
            self.send(id, side, What::Fin);
        }
        self.refresh(id, side);
        Ok(())
    }

    /// The program has dropped its end. What it has not read makes that a reset, as in an operating
    /// system.
    pub(super) fn drop_end(&mut self, id: PairId, side: usize, reset: bool) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let end = &mut pair.ends[side];
        if std::mem::replace(&mut end.gone, true) {
            return;
        }
        let reset = reset || !end.inbox.is_empty();
        let output = std::mem::replace(&mut end.output, Output::Ended);
        let was_reset = end.input == Input::Reset;
        let (source, peer) = (end.source, &pair.ends[1 - side]);
        let (other, knows) = (peer.gone, peer.input == Input::Reset);
        // A reset that was made up by a fault has not come from the peer, who learns of it by what it sends.
        let reset = reset || was_reset;
        self.free_source(source);
        self.note(format_args!("drop {id}.{side}{}", if reset { " with a reset" } else { "" }));
        match output {
            _ if reset && knows => {}
            _ if reset => self.send(id, side, What::Reset),
            Output::Flowing => self.send(id, side, What::Fin),
            Output::Ended => {}
        }
        if other {
            self.pairs.remove(&id);
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// What is on its way.
impl Core {
    fn send_bytes(&mut self, id: PairId, side: usize, mut bytes: Vec<u8>) {
        let random = self.pairs.get(&id).is_some_and(|p| p.path.chunking == Chunking::Random);
        let pieces = if random { self.random.within(1..=MOST_PIECES) } else { 1 };
        for _ in 1..pieces {
            if bytes.len() < 2 {
                break;
            }
            let rest = bytes.split_off(1 + self.random.index(bytes.len() - 1));
            let first = std::mem::replace(&mut bytes, rest);
            self.send(id, side, What::Data(first));
        }
        self.send(id, side, What::Data(bytes));
    }

    /// Puts something on its way, behind all that is on it.
    fn send(&mut self, id: PairId, side: usize, what: What) {
        let now = self.now();
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let latency = self.random.duration(pair.path.latency.clone());
        let end = &mut pair.ends[side];
        let mut leaves = end.busy_until.map_or(now, |busy| busy.max(now));
        if let (What::Data(bytes), Some(bandwidth)) = (&what, pair.path.bandwidth) {
            let nanos = bytes.len() as u64 * 1_000_000_000 / bandwidth;
            leaves += Duration::from_nanos(nanos);
            end.busy_until = Some(leaves);
        }
        if matches!(what, What::Room(_)) {
            // An acknowledgement waits for nothing but its turn.
            leaves = now;
        }
        let arrives = (leaves + latency).max(end.last_arrival.unwrap_or(now));
        end.last_arrival = Some(arrives);
        let first = end.wire.is_empty();
        end.wire.push_back(Parcel { arrives, what });
        if arrives <= now {
            self.pump(id, side);
        } else if first {
            self.at(arrives, move |core| core.pump(id, side));
        }
    }

    /// Delivers what one end has sent and what has come to the other by now.
    pub(super) fn pump(&mut self, id: PairId, side: usize) {
        let now = self.now();
        loop {
            let Some(pair) = self.pairs.get_mut(&id) else { return };
            let addresses = [0, 1].map(|side: usize| pair.ends[side].address.ip());
            let end = &mut pair.ends[side];
            let Some(next) = end.wire.front().map(|parcel| parcel.arrives) else { return };
            let resumes = end.stalled_until.filter(|until| *until > now);
            if let Some(again) = resumes.or((next > now).then_some(next)) {
                return self.at(again, move |core| core.pump(id, side));
            }
            end.stalled_until = None;
            // Whoever lets it move again pumps.
            if self.is_stalled(addresses[0], addresses[1]) {
                return;
            }
            if self.strikes(Fault::Stall) {
                let stall = Duration::from_millis(1)..=Duration::from_secs(10);
                let until = now + self.random.duration(stall);
                self.note(format_args!("stall {id}.{side}"));
                if let Some(pair) = self.pairs.get_mut(&id) {
                    pair.ends[side].stalled_until = Some(until);
                }
                continue;
            }
            let parcel = self.pairs.get_mut(&id).and_then(|p| p.ends[side].wire.pop_front());
            if let Some(parcel) = parcel {
                self.deliver(id, side, parcel.what);
            }
        }
    }

    fn deliver(&mut self, id: PairId, side: usize, what: What) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        match what {
            What::Room(count) => {
                pair.ends[1 - side].room += count;
                debug_assert!(pair.ends[1 - side].room <= pair.path.buffer, "no room is made up");
            }
            What::Data(bytes) => self.deliver_bytes(id, side, bytes),
            What::Fin => {
                self.note(format_args!("arrive {id}.{}: the end", 1 - side));
                if let Some(pair) = self.pairs.get_mut(&id) {
                    let peer = &mut pair.ends[1 - side];
                    if peer.input == Input::Flowing {
                        peer.input = Input::Ended;
                    }
                }
            }
            What::Reset => {
                self.note(format_args!("arrive {id}.{}: a reset", 1 - side));
                if let Some(pair) = self.pairs.get_mut(&id) {
                    pair.ends[1 - side].be_reset();
                }
            }
        }
        self.refresh(id, 1 - side);
    }

    fn deliver_bytes(&mut self, id: PairId, side: usize, mut bytes: Vec<u8>) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let end = &mut pair.ends[side];
        let left = end.doom.map_or(u64::MAX, |(after, _)| after.saturating_sub(end.arrived));
        let (doomed, cut) = (left <= bytes.len() as u64, left < bytes.len() as u64);
        if cut {
            bytes.truncate(left as usize);
        }
        end.arrived += bytes.len() as u64;
        let peer = &mut pair.ends[1 - side];
        if peer.input == Input::Reset {
            return;
        }
        if peer.gone || peer.input == Input::Ended {
            return self.refuse(id, side);
        }
        peer.inbox.extend(&bytes);
        debug_assert!(peer.inbox.len() <= pair.path.buffer, "no more is received than was allowed");
        self.note(format_args!("arrive {id}.{}: {} bytes", 1 - side, bytes.len()));
        if doomed {
            self.meet_doom(id, side, cut);
        }
    }

    /// Bytes have come where nobody is to read them: their sender is told so, once.
    fn refuse(&mut self, id: PairId, side: usize) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        if !std::mem::replace(&mut pair.ends[1 - side].refused, true) {
            self.send(id, 1 - side, What::Reset);
        }
    }

    fn meet_doom(&mut self, id: PairId, side: usize, cut: bool) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let Some((_, fault)) = pair.ends[side].doom.take() else { return };
        let client = pair.ends[CLIENT].address;
        self.counts.count(fault);
        self.note(format_args!("{fault:?} {id}.{side}"));
        self.mark_broken(client);
        if fault == Fault::Reset {
            return self.break_off(id);
        }
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        if fault == Fault::HalfClose {
            // Whoever has left is not taken for somebody who may still read.
            let stays = |parcel: &Parcel| matches!(parcel.what, What::Room(_) | What::Reset);
            pair.ends[side].wire.retain(stays);
            pair.ends[side].output = Output::Ended;
        }
        let peer = &mut pair.ends[1 - side];
        if peer.input == Input::Flowing {
            peer.input = Input::Ended;
        }
        if cut && fault == Fault::Fin {
            self.refuse(id, side);
        }
        self.refresh(id, side);
        self.refresh(id, 1 - side);
    }

    /// Says what an end is ready for.
    pub(super) fn refresh(&mut self, id: PairId, side: usize) {
        let now = self.now();
        let delayed = self.random.chance(self.faults.per_mille(Fault::DelayedReadiness));
        let spurious = self.random.chance(self.faults.per_mille(Fault::SpuriousReadiness));
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let end = &mut pair.ends[side];
        if end.gone {
            return;
        }
        let ready = end.readiness();
        if delayed && end.hidden_until.is_none() && !(ready - end.shown).is_none() {
            let late = Duration::from_micros(10)..=Duration::from_millis(50);
            let until = now + self.random.duration(late);
            end.hidden_until = Some(until);
            self.counts.count(Fault::DelayedReadiness);
            self.at(until, move |core| core.refresh(id, side));
        }
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let end = &mut pair.ends[side];
        if spurious && ready != (Readiness::READABLE | Readiness::WRITABLE) {
            end.spurious = Readiness::READABLE | Readiness::WRITABLE;
            self.counts.count(Fault::SpuriousReadiness);
            self.at(now + SPURIOUS, move |core| core.sober(id, side));
        }
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let end = &mut pair.ends[side];
        if end.hidden_until.is_some_and(|until| until <= now) {
            end.hidden_until = None;
        }
        // What was said already stays said: readiness does not go away by itself.
        end.shown = if end.hidden_until.is_some() { ready - (ready - end.shown) } else { ready };
        let (source, shown) = (end.source, end.shown | end.spurious);
        self.world.set_ready(source, shown);
    }

    /// Nobody has looked at a source that was said to be ready: it is no more.
    fn sober(&mut self, id: PairId, side: usize) {
        if let Some(pair) = self.pairs.get_mut(&id) {
            pair.ends[side].spurious = Readiness::NONE;
            self.refresh(id, side);
        }
    }
}
