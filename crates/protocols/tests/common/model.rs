//! What the receivers have to give, found in the simplest way, and how they are compared with it. The fuzz targets
//! use it too.
#![allow(dead_code, unreachable_pub, reason = "each user takes a part of it")]

use std::cell::RefCell;
use std::io;
use std::mem;
use std::rc::Rc;

use tulipa_protocols::{
    AfterEof, AfterRaw, Detached, Int8StringReceiver, Int16StringReceiver, Int32StringReceiver,
    LineOnlyReceiver, LineProtocol, LineReceiver, NetstringReceiver, Next, Protocol,
    StringProtocol, Transport,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Message(Vec<u8>),
    /// Raw bytes, however they were cut.
    Raw(Vec<u8>),
    Eof(Vec<u8>),
    Lost(Option<io::ErrorKind>),
}

/// How bytes come: cut at these sizes, one after the other and over again; and what the program does.
#[derive(Clone, Debug)]
pub struct Plan {
    pub cuts: Vec<usize>,
    /// It pauses after each so many messages; 0 is never.
    pub pause_after: usize,
    /// Reading goes on only when everything and the end has come.
    pub late: bool,
    pub limit: usize,
}

#[derive(Clone, Default)]
pub struct Collect {
    events: Rc<RefCell<Vec<Event>>>,
    pause_after: usize,
    count: usize,
    raw_left: usize,
}

/// A line that begins so asks for raw bytes: three for each step from `a` of the letter behind it.
fn raw_wanted(line: &[u8]) -> usize {
    match line {
        [b'R', letter @ b'a'..=b'z', ..] => usize::from(letter - b'a') * 3,
        _ => 0,
    }
}

impl Collect {
    fn message(&mut self, transport: &Transport, message: &[u8]) {
        assert!(transport.is_reading(), "a message while reading is paused");
        self.events.borrow_mut().push(Event::Message(message.to_vec()));
        self.count += 1;
        if self.pause_after > 0 && self.count.is_multiple_of(self.pause_after) {
            transport.pause_reading();
        }
    }

    fn eof(&mut self, unfinished: &[u8]) {
        self.events.borrow_mut().push(Event::Eof(unfinished.to_vec()));
    }

    fn lost(&mut self, error: Option<io::Error>) {
        self.events.borrow_mut().push(Event::Lost(error.map(|error| error.kind())));
    }
}

impl LineProtocol for Collect {
    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> io::Result<Next> {
        self.message(transport, line);
        self.raw_left = raw_wanted(line);
        Ok(if self.raw_left > 0 { Next::Raw } else { Next::Lines })
    }

    fn raw_data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<AfterRaw> {
        let used = data.len().min(self.raw_left);
        self.raw_left -= used;
        let mut events = self.events.borrow_mut();
        match events.last_mut() {
            Some(Event::Raw(raw)) => raw.extend_from_slice(&data[..used]),
            _ => events.push(Event::Raw(data[..used].to_vec())),
        }
        Ok(if self.raw_left > 0 { AfterRaw::Raw } else { AfterRaw::Lines { used } })
    }

    fn eof_received(&mut self, _: &Transport, unfinished: &[u8]) -> io::Result<AfterEof> {
        self.eof(unfinished);
        Ok(AfterEof::Close)
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        self.lost(error);
    }
}

impl StringProtocol for Collect {
    fn string_received(&mut self, transport: &Transport, string: &[u8]) -> io::Result<()> {
        self.message(transport, string);
        Ok(())
    }

    fn eof_received(&mut self, _: &Transport, unfinished: &[u8]) -> io::Result<AfterEof> {
        self.eof(unfinished);
        Ok(AfterEof::Close)
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        self.lost(error);
    }
}

/// Feeds a receiver as planned, and gives what came of it.
fn run<P: Protocol + 'static>(
    plan: &Plan,
    input: &[u8],
    make: impl FnOnce(Collect) -> P,
) -> Vec<Event> {
    let collect = Collect { pause_after: plan.pause_after, ..Collect::default() };
    let events = collect.events.clone();
    let mut connection = Detached::new(make(collect));
    let resume = |connection: &mut Detached| {
        for _ in 0..=input.len() {
            if connection.is_over() || connection.transport().is_reading() {
                return;
            }
            let before = events.borrow().len();
            connection.run();
            assert_eq!(events.borrow().len(), before, "something came while reading was paused");
            connection.transport().resume_reading();
            connection.run();
            if events.borrow().len() == before {
                return;
            }
        }
    };
    let mut rest = input;
    let mut cuts = plan.cuts.iter().copied().filter(|cut| *cut > 0).cycle();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(cuts.next().unwrap_or(usize::MAX)));
        connection.feed(now);
        if !plan.late {
            resume(&mut connection);
        }
        rest = later;
    }
    connection.feed_eof();
    resume(&mut connection);
    mem::take(&mut *events.borrow_mut())
}

/// What one message at the front of some input is.
enum Cut {
    Whole { message: (usize, usize), used: usize },
    Partial,
    Wrong,
}

fn line(input: &[u8], limit: usize) -> Cut {
    match input.windows(2).position(|pair| pair == b"\r\n") {
        Some(place) if place <= limit => Cut::Whole { message: (0, place), used: place + 2 },
        None if input.len() < limit + 2 => Cut::Partial,
        _ => Cut::Wrong,
    }
}

fn netstring(input: &[u8], limit: usize) -> Cut {
    let digits = input.iter().position(|byte| !byte.is_ascii_digit());
    let known = digits.unwrap_or(input.len());
    let text = std::str::from_utf8(&input[..known]).unwrap();
    // Twenty nines are more than any limit here.
    let length = text.parse::<u128>().unwrap_or(if text.is_empty() { 0 } else { u128::MAX });
    if known == 0 || (text.starts_with('0') && text.len() > 1) || length > limit as u128 {
        return Cut::Wrong;
    }
    let end = known + 1 + length as usize;
    match (digits.map(|place| input[place]), input.get(end)) {
        (None, _) => Cut::Partial,
        (Some(b':'), None) => Cut::Partial,
        (Some(b':'), Some(b',')) => Cut::Whole { message: (known + 1, end), used: end + 1 },
        _ => Cut::Wrong,
    }
}

fn prefixed(width: usize, input: &[u8], limit: usize) -> Cut {
    let Some(head) = input.get(..width) else { return Cut::Partial };
    let length = head.iter().fold(0, |length, byte| length * 256 + usize::from(*byte));
    match () {
        () if length > limit => Cut::Wrong,
        () if input.len() < width + length => Cut::Partial,
        () => Cut::Whole { message: (width, width + length), used: width + length },
    }
}

/// What is to come of some input.
fn expected(
    mut input: &[u8],
    limit: usize,
    raw: bool,
    cut: impl Fn(&[u8], usize) -> Cut,
) -> Vec<Event> {
    let mut events = Vec::new();
    while !input.is_empty() {
        match cut(input, limit) {
            Cut::Whole { message, used } => {
                let message = &input[message.0..message.1];
                events.push(Event::Message(message.to_vec()));
                input = &input[used..];
                let wanted = if raw { raw_wanted(message) } else { 0 };
                let taken = wanted.min(input.len());
                if taken > 0 {
                    events.push(Event::Raw(input[..taken].to_vec()));
                }
                input = &input[taken..];
            }
            Cut::Partial => break,
            Cut::Wrong => {
                events.push(Event::Lost(Some(io::ErrorKind::InvalidData)));
                return events;
            }
        }
    }
    events.push(Event::Eof(input.to_vec()));
    events.push(Event::Lost(None));
    events
}

pub fn check_lines(plan: &Plan, input: &[u8]) {
    let limit = plan.limit;
    let found = run(plan, input, |collect| LineReceiver::new(collect).max_length(limit));
    assert_eq!(found, expected(input, limit, true, line), "{plan:?} {}", input.escape_ascii());
    let found = run(plan, input, |collect| LineOnlyReceiver::new(collect).max_length(limit));
    assert_eq!(found, expected(input, limit, false, line), "{plan:?} {}", input.escape_ascii());
}

pub fn check_netstrings(plan: &Plan, input: &[u8]) {
    let limit = plan.limit;
    let found = run(plan, input, |collect| NetstringReceiver::new(collect).max_length(limit));
    let expected = expected(input, limit, false, netstring);
    assert_eq!(found, expected, "{plan:?} {}", input.escape_ascii());
}

pub fn check_int_strings(plan: &Plan, input: &[u8]) {
    let limit = plan.limit;
    let found = run(plan, input, |collect| Int8StringReceiver::new(collect).max_length(limit));
    assert_eq!(found, expected(input, limit, false, |input, most| prefixed(1, input, most)));
    let found = run(plan, input, |collect| Int16StringReceiver::new(collect).max_length(limit));
    assert_eq!(found, expected(input, limit, false, |input, most| prefixed(2, input, most)));
    let found = run(plan, input, |collect| Int32StringReceiver::new(collect).max_length(limit));
    assert_eq!(found, expected(input, limit, false, |input, most| prefixed(4, input, most)));
}
