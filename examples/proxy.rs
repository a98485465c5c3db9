//! Passes connections on to another server, with back-pressure both ways: who reads slowly on one side makes
//! us read slowly on the other, so no more than a buffer waits here, whatever the amount.
//!
//! The end of one side is the end of that direction only; a failure on one side is a reset on the other.
//!
//! `cargo run --example proxy -- --to HOST:PORT [--bind ADDR | --unix PATH]`

#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use tulipa::{AfterEof, Connect, LoopHandle, Protocol, Transport};
use tulipa_examples::serve::{self, Address, log};
use tulipa_examples::server;

/// Nobody waits for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One side of a connection that is passed on.
struct Side {
    /// Where to connect to, for the side that comes first.
    to: Option<Rc<str>>,
    other: Rc<OnceCell<Transport>>,
}

impl Side {
    fn other(&self, action: impl FnOnce(&Transport)) {
        self.other.get().map(action);
    }
}

/// Connects to the server for a client, who is not read from before.
async fn pass_on(client: Transport, to: Rc<str>, other: Rc<OnceCell<Transport>>) {
    let far_side = || Side { to: None, other: Rc::new(OnceCell::from(client.clone())) };
    match Connect::to(&*to).timeout(CONNECT_TIMEOUT).open(far_side).await {
        // The client may be gone.
        Ok(server) if client.is_closing() => server.abort(),
        Ok(server) => {
            let _first = other.set(server.transport().clone());
            client.resume_reading();
        }
        Err(error) => {
            log(format_args!("{error}"));
            client.reset();
        }
    }
}

impl Protocol for Side {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        if let Some(to) = self.to.take() {
            transport.pause_reading();
            let passing = pass_on(transport.clone(), to, self.other.clone());
            drop(LoopHandle::current().spawn(passing));
        }
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        self.other(|other| {
            other.write(data);
        });
        Ok(())
    }

    fn pause_writing(&mut self, _: &Transport) -> io::Result<()> {
        self.other(Transport::pause_reading);
        Ok(())
    }

    fn resume_writing(&mut self, _: &Transport) -> io::Result<()> {
        self.other(Transport::resume_reading);
        Ok(())
    }

    fn eof_received(&mut self, _: &Transport) -> io::Result<AfterEof> {
        self.other(Transport::write_eof);
        Ok(AfterEof::KeepOpen)
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        match error {
            Some(_) => self.other(Transport::reset),
            None => self.other(Transport::close),
        }
    }
}

fn main() -> ExitCode {
    let mut to = None;
    let about = "Passes connections on to another server.";
    let address = Address::from_command_line_with(about, " --to HOST:PORT", |name, parser| {
        if name == "to" {
            to = Some(Rc::from(parser.value()?.to_string_lossy()));
        }
        Ok(name == "to")
    });
    let Some(to) = to else {
        log(format_args!("--to HOST:PORT is missing"));
        return ExitCode::from(2);
    };
    let factory = move || Side { to: Some(Rc::clone(&to)), other: Rc::default() };
    serve::exit_code(server::run(&address, factory))
}
