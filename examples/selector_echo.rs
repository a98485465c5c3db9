//! An echo server for many clients on the selector alone: no loop, no tasks, a table of callbacks.
//!
//! The number that a registration carries names its callback, as `key.data` does in the example of
//! Python's `selectors` module. Shown on the way: a client that does not read is not read from
//! either; what one client does ends nobody else; a server out of descriptors waits for better times
//! instead of spinning; SIGINT and SIGTERM let what is under way finish.
//!
//! `cargo run --release --example selector_echo [-- --bind ADDR | --unix PATH]`, then
//! `nc 127.0.0.1 PORT`.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_examples::serve::{self, Address, Listener, Stream, log, not_now};
use tulipa_selector::{DefaultSelector, Event, Events, Interest, Registration, Selector};
use tulipa_selector::{Timeout, Token};

const CALLBACKS: [fn(&mut Server, Event); 3] = [Server::accept, Server::serve, Server::stop];
const ACCEPT: u64 = 0;
const SERVE: u64 = 1;
const STOP: u64 = 2;

/// Read at once, and the most that is kept for a client that does not read: several packets for one
/// system call, and 16 MiB for a thousand such clients.
const CHUNK: usize = 16 * 1024;
/// Accepted in a row: newcomers must not keep those who are there waiting.
const ACCEPTS_PER_EVENT: usize = 64;
/// How soon to accept again after a failure, if no client leaves before.
const ACCEPT_RETRY: Duration = Duration::from_millis(500);
/// How long clients have to take their last bytes. A second signal ends the wait.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Accepting ⇄ Paused, then Draining, then Done.
#[derive(Clone, Copy)]
enum Phase {
    Accepting,
    /// Accepting has failed: not before this time, unless a client leaves.
    Paused(Instant),
    /// There is no listener any more; over at this time, or when the last client is gone.
    Draining(Instant),
    Done,
}

struct Server {
    phase: Phase,
    listener: Option<(Registration, Rc<Listener>)>,
    connections: HashMap<Token, Connection>,
    signals: Rc<UnixStream>,
    selector: DefaultSelector,
}

impl Server {
    fn accept(&mut self, _event: Event) {
        for _ in 0..ACCEPTS_PER_EVENT {
            let Some((_, listener)) = &self.listener else { return };
            match listener.accept() {
                Ok(stream) => match Connection::new(stream, &self.selector) {
                    Ok(new) => drop(self.connections.insert(new.watch.token(), new)),
                    Err(error) => log(format_args!("a client was turned away: {error}")),
                },
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if not_now(&error) => return,
                Err(error) => return self.pause(&error),
            }
        }
    }

    /// Out of descriptors, most likely. With its interest taken back the listener does not wake us.
    fn pause(&mut self, error: &io::Error) {
        log(format_args!("cannot accept for now: {error}"));
        let interest = self.listener.as_ref().map(|(watch, _)| watch.set_interest(Interest::NONE));
        debug_assert!(matches!(interest, Some(Ok(()))), "it only takes something back");
        self.phase = Phase::Paused(self.selector.now() + ACCEPT_RETRY);
    }

    fn resume(&mut self) {
        let Some((watch, _)) = &self.listener else { return };
        match watch.set_interest(Interest::READABLE) {
            Ok(()) => self.phase = Phase::Accepting,
            Err(error) => self.pause(&error),
        }
    }

    fn serve(&mut self, event: Event) {
        self.with_connection(event.token(), Connection::turn);
    }

    fn with_connection(&mut self, token: Token, act: fn(&mut Connection) -> io::Result<Next>) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match act(connection) {
            Ok(Next::Stay) => return,
            Ok(Next::Close) => {}
            Err(error) => log(format_args!("a client was lost: {error}")),
        }
        self.connections.remove(&token);
        if matches!(self.phase, Phase::Paused(_)) {
            self.resume();
        }
    }

    fn stop(&mut self, _event: Event) {
        if !matches!((&*self.signals).read(&mut [0; 16]), Ok(1..)) {
            return;
        }
        if matches!(self.phase, Phase::Draining(_)) {
            self.phase = Phase::Done;
            return;
        }
        self.phase = Phase::Draining(self.selector.now() + DRAIN_LIMIT);
        self.listener = None;
        for token in self.connections.keys().copied().collect::<Vec<_>>() {
            self.with_connection(token, Connection::drain);
        }
    }

    fn timeout(&self) -> Timeout {
        match self.phase {
            Phase::Accepting => Timeout::Never,
            Phase::Paused(until) | Phase::Draining(until) => Timeout::At(until),
            Phase::Done => Timeout::Immediate,
        }
    }

    fn look_at_the_clock(&mut self) {
        match self.phase {
            Phase::Draining(_) if self.connections.is_empty() => self.phase = Phase::Done,
            Phase::Draining(until) if self.selector.now() >= until => self.phase = Phase::Done,
            Phase::Paused(until) if self.selector.now() >= until => self.resume(),
            _ => {}
        }
    }
}

enum Next {
    Stay,
    Close,
}

/// Open → (the server drains: idle ones close at once) Finishing → Parting.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Open,
    /// Echoes what has already arrived.
    Finishing,
    /// Our end is closed. To close all of it while the client still sends would reset the
    /// connection and destroy our last bytes on their way, so what comes is read and dropped.
    Parting,
}

struct Connection {
    stream: Rc<Stream>,
    watch: Registration,
    /// At most [`CHUNK`] bytes. Nothing is read before they are written.
    unsent: Vec<u8>,
    stage: Stage,
}

impl Connection {
    fn new(stream: Stream, selector: &dyn Selector) -> io::Result<Connection> {
        let stream = Rc::new(stream);
        let watch = selector.register(stream.clone().into(), Interest::READABLE, SERVE)?;
        Ok(Connection { stream, watch, unsent: Vec::new(), stage: Stage::Open })
    }

    /// One read, one write: nobody gets more of a turn than others.
    fn turn(&mut self) -> io::Result<Next> {
        if !self.unsent.is_empty() {
            return self.send();
        }
        match (self.receive()?, self.stage) {
            (Some(0), _) => Ok(Next::Close),
            (Some(_), Stage::Parting) => {
                self.unsent.clear();
                Ok(Next::Stay)
            }
            (Some(_), _) => self.send(),
            (None, Stage::Finishing) => {
                self.stage = Stage::Parting;
                self.stream.shutdown_write()?;
                self.watch.set_interest(Interest::READABLE)?;
                Ok(Next::Stay)
            }
            (None, _) => Ok(Next::Stay),
        }
    }

    /// The server stops.
    fn drain(&mut self) -> io::Result<Next> {
        self.stage = Stage::Finishing;
        match self.unsent.is_empty() && matches!(self.receive()?, None | Some(0)) {
            true => Ok(Next::Close),
            false => self.send(),
        }
    }

    /// How much has come, 0 being the end; `None` is nothing yet.
    fn receive(&mut self) -> io::Result<Option<usize>> {
        let mut chunk = [0; CHUNK];
        match (&*self.stream).read(&mut chunk) {
            Ok(n) => {
                self.unsent.extend_from_slice(&chunk[..n]);
                Ok(Some(n))
            }
            Err(error) if not_now(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self) -> io::Result<Next> {
        match (&*self.stream).write(&self.unsent) {
            // What is left moves to a vector of its own, so an idle client costs no memory.
            Ok(sent) => self.unsent = self.unsent.split_off(sent),
            Err(error) if not_now(&error) => {}
            Err(error) => return Err(error),
        }
        // One who is finishing gets another turn also if nothing more comes.
        let all_sent = self.unsent.is_empty() && self.stage == Stage::Open;
        self.watch.set_interest(if all_sent { Interest::READABLE } else { Interest::WRITABLE })?;
        Ok(Next::Stay)
    }
}

fn run(address: &Address) -> io::Result<()> {
    serve::raise_descriptor_limit();
    let selector = DefaultSelector::new()?;
    let signals = Rc::new(serve::shutdown_signals()?);
    let _stop = selector.register(signals.clone().into(), Interest::READABLE, STOP)?;
    let listener = Rc::new(Listener::bind(address)?);
    let watch = selector.register(listener.clone().into(), Interest::READABLE, ACCEPT)?;
    listener.announce()?;

    let (phase, listener) = (Phase::Accepting, Some((watch, listener)));
    let mut server = Server { phase, listener, connections: HashMap::new(), signals, selector };
    let mut events = Events::new();
    while !matches!(server.phase, Phase::Done) {
        server.selector.select(&mut events, server.timeout())?;
        for event in &events {
            CALLBACKS[event.data() as usize](&mut server, event);
        }
        server.look_at_the_clock();
    }
    Ok(())
}

fn main() -> ExitCode {
    let address = Address::from_command_line("Sends back what it receives.");
    serve::exit_code(run(&address))
}
