//! What every event loop is, in four functions: `initialize`, `get_next_message`,
//! `process_message` and `main`.
//!
//! There is nothing below but a selector. Messages come from a timer and from a socket; the program
//! talks to itself three times and ends.
//!
//! `cargo run --example loop_skeleton`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_selector::{DefaultSelector, Events, Interest, Registration, Selector, Source, Timeout};

const TICKS: u32 = 3;
const TICK: Duration = Duration::from_millis(10);
/// More than one greeting: what is longer would arrive as two messages.
const LONGEST_MESSAGE: usize = 64;

enum Message {
    Tick,
    Received(String),
    Quit,
}

struct Program {
    selector: DefaultSelector,
    events: Events,
    inbox: Rc<UnixStream>,
    _watch: Registration,
    outbox: Option<UnixStream>,
    ticks: u32,
    next_tick: Instant,
}

fn initialize() -> io::Result<Program> {
    let selector = DefaultSelector::new()?;
    let (inbox, outbox) = UnixStream::pair()?;
    inbox.set_nonblocking(true)?;
    let inbox = Rc::new(inbox);
    Ok(Program {
        _watch: selector.register(Source::shared(inbox.clone()), Interest::READABLE, 0)?,
        events: Events::new(),
        inbox,
        outbox: Some(outbox),
        ticks: 0,
        next_tick: selector.now() + TICK,
        selector,
    })
}

/// The only place where the program waits.
fn get_next_message(program: &mut Program) -> io::Result<Message> {
    loop {
        let next_tick =
            if program.outbox.is_some() { Timeout::At(program.next_tick) } else { Timeout::Never };
        program.selector.select(&mut program.events, next_tick)?;

        // What has arrived comes before the timer, however late it is: the order is always the same.
        if program.events.iter().next().is_some() {
            let mut buffer = [0; LONGEST_MESSAGE];
            return match (&*program.inbox).read(&mut buffer)? {
                0 => Ok(Message::Quit),
                n => Ok(Message::Received(String::from_utf8_lossy(&buffer[..n]).into_owned())),
            };
        }
        // A wait may end early with nothing, so look at the clock.
        if program.outbox.is_some() && program.selector.now() >= program.next_tick {
            program.next_tick += TICK;
            return Ok(Message::Tick);
        }
    }
}

/// Returns whether the program goes on.
fn process_message(program: &mut Program, message: Message) -> io::Result<bool> {
    match message {
        Message::Tick => {
            program.ticks += 1;
            println!("tick {}", program.ticks);
            if let Some(outbox) = &mut program.outbox {
                write!(outbox, "greeting {}", program.ticks)?;
            }
            if program.ticks == TICKS {
                program.outbox = None;
            }
        }
        Message::Received(text) => println!("received {text:?}"),
        Message::Quit => {
            println!("nobody is left to talk to");
            return Ok(false);
        }
    }
    Ok(true)
}

fn main() -> io::Result<()> {
    let mut program = initialize()?;
    loop {
        let message = get_next_message(&mut program)?;
        if !process_message(&mut program, message)? {
            return Ok(());
        }
    }
}
