//! Passes connections on to another server, with back-pressure both ways: who reads slowly on one side makes
//! us read slowly on the other, so no more than a buffer waits here, whatever the amount.
//!
//! The end of one side is the end of that direction only; a failure on one side is a reset on the other.
//!
//! `cargo run --example proxy -- --to HOST:PORT [--bind ADDR | --unix PATH]`

#![forbid(unsafe_code)]

use std::process::ExitCode;

use tulipa::pipe_to;
use tulipa_examples::serve::{self, Address, log};
use tulipa_examples::server;

fn main() -> ExitCode {
    let mut to = None;
    let about = "Passes connections on to another server.";
    let address = Address::from_command_line_with(about, " --to HOST:PORT", |name, parser| {
        if name == "to" {
            to = Some(parser.value()?.to_string_lossy().into_owned());
        }
        Ok(name == "to")
    });
    let Some(to) = to else {
        log(format_args!("--to HOST:PORT is missing"));
        return ExitCode::from(2);
    };
    let factory = move || pipe_to(to.as_str()).on_error(|error| log(format_args!("{error}")));
    serve::exit_code(server::run(&address, factory))
}
