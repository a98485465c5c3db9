//! A proxy that treats connections badly, for trying out what a client or a server does then: it delays, cuts into
//! pieces, stalls and resets, the same way again for the same seed.
//!
//! `cargo run --example chaos_proxy -- --to HOST:PORT [--seed N] [--delay MS] [--stall PER_MILLE] [--reset PER_MILLE]
//! [--bind ADDR | --unix PATH]`
//!
//! Delays are up to so many milliseconds, stalls up to a second; a direction that is reset is so within its first
//! 10,000 bytes.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use tulipa::testing::Chaos;
use tulipa_examples::serve::{self, Address, log};
use tulipa_examples::server;

const USAGE: &str =
    " --to HOST:PORT [--seed N] [--delay MS] [--stall PER_MILLE] [--reset PER_MILLE]";
const LONGEST_STALL: Duration = Duration::from_secs(1);
const RESET_WITHIN: u64 = 10_000;

#[derive(Default)]
struct Wishes {
    to: Option<String>,
    seed: u64,
    delay: u16,
    stall: u16,
    reset: u16,
}

impl Wishes {
    fn chaos(&self) -> Chaos {
        Chaos::new(self.seed)
            .split(true)
            .delay(Duration::ZERO..=Duration::from_millis(self.delay.into()))
            .stall(self.stall, Duration::ZERO..=LONGEST_STALL)
            .reset(self.reset, RESET_WITHIN)
    }
}

fn main() -> ExitCode {
    let mut wishes = Wishes::default();
    let about = "Passes connections on to another server, and treats them badly.";
    let address = Address::from_command_line_with(about, USAGE, |name, parser| {
        use lexopt::ValueExt;
        match name {
            "to" => wishes.to = Some(parser.value()?.to_string_lossy().into_owned()),
            "seed" => wishes.seed = parser.value()?.parse()?,
            "delay" => wishes.delay = parser.value()?.parse()?,
            "stall" => wishes.stall = parser.value()?.parse()?,
            "reset" => wishes.reset = parser.value()?.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    });
    let Some(to) = wishes.to.clone() else {
        log(format_args!("--to HOST:PORT is missing"));
        return ExitCode::from(2);
    };
    serve::exit_code(server::run(&address, wishes.chaos().factory(to)))
}
