//! A server of lines, with what a server of strangers needs around it: limits for lines, for idle clients, for clients
//! that take all day to say something, and for how many there are.
//!
//! `upper TEXT`, `reverse TEXT`, `bytes N` (after which N raw bytes are counted), `quit`.
//!
//! `cargo run --example line_server [-- --bind ADDR | --unix PATH | --endpoint TEXT] [--idle SECONDS] [--clients N]`, then
//! `nc -C 127.0.0.1 PORT`. An endpoint is a text such as `tcp:8080:interface=127.0.0.1`, `unix:/run/lines:mode=660`,
//! `systemd:name=lines`.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::ValueExt;
use tulipa::{
    AfterRaw, ConnectionLimits, CrlfLine, Deadline, IdleTimeout, LineProtocol, LineReceiver, Next,
    Protocol, ServerEndpoint, Transport,
};
use tulipa_examples::serve::{self, Address, log};
use tulipa_examples::server;

/// No client stays for longer than a day.
const LONGEST_VISIT: Duration = Duration::from_secs(24 * 3600);
const LONGEST_LINE: usize = 1000;

#[derive(Default)]
struct Lines {
    /// How many raw bytes are still to come, and their sum so far.
    raw: usize,
    sum: u64,
}

fn answer(transport: &Transport, text: &str) {
    CrlfLine::send(transport, text.as_bytes());
}

impl LineProtocol for Lines {
    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> io::Result<Next> {
        let line = String::from_utf8_lossy(line);
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (command, rest.parse()) {
            ("upper", _) => answer(transport, &rest.to_uppercase()),
            ("reverse", _) => answer(transport, &rest.chars().rev().collect::<String>()),
            ("bytes", Ok(count @ 1..)) => {
                (self.raw, self.sum) = (count, 0);
                return Ok(Next::Raw);
            }
            ("quit", _) => {
                answer(transport, "bye");
                transport.close();
            }
            _ => answer(transport, "? upper TEXT, reverse TEXT, bytes N, quit"),
        }
        Ok(Next::Lines)
    }

    fn raw_data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<AfterRaw> {
        let used = data.len().min(self.raw);
        self.sum += data[..used].iter().map(|byte| u64::from(*byte)).sum::<u64>();
        self.raw -= used;
        if self.raw > 0 {
            return Ok(AfterRaw::Raw);
        }
        answer(transport, &format!("their sum is {}", self.sum));
        Ok(AfterRaw::Lines { used })
    }

    fn line_length_exceeded(
        &mut self,
        transport: &Transport,
        _: &[u8],
        limit: usize,
    ) -> io::Result<()> {
        answer(transport, &format!("? a line has at most {limit} bytes"));
        Ok(())
    }

    fn pause_writing(&mut self, transport: &Transport) -> io::Result<()> {
        transport.pause_reading();
        Ok(())
    }

    fn resume_writing(&mut self, transport: &Transport) -> io::Result<()> {
        transport.resume_reading();
        Ok(())
    }
}

/// What each client gets.
fn factory(idle: Duration, clients: usize) -> impl FnMut() -> Box<dyn Protocol> {
    let limits = ConnectionLimits::new().total(clients).refuse_with("? too many clients\r\n");
    move || {
        let lines = LineReceiver::new(Lines::default()).max_length(LONGEST_LINE);
        Box::new(limits.around(IdleTimeout::new(idle, Deadline::new(LONGEST_VISIT, lines))))
    }
}

fn main() -> ExitCode {
    let (mut idle, mut clients, mut endpoint) = (60.0, 1000, None::<ServerEndpoint>);
    let about = "Answers lines: upper TEXT, reverse TEXT, bytes N, quit.";
    let usage = " [--endpoint TEXT] [--idle SECONDS] [--clients N]";
    let address = Address::from_command_line_with(about, usage, |name, parser| {
        match name {
            "endpoint" => {
                let text = parser.value()?.string()?;
                endpoint =
                    Some(text.parse().map_err(|error| lexopt::Error::Custom(Box::new(error)))?);
            }
            "idle" => idle = parser.value()?.parse()?,
            "clients" => clients = parser.value()?.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    });
    let Some(idle) = Duration::try_from_secs_f64(idle).ok().filter(|idle| !idle.is_zero()) else {
        log(format_args!("--idle takes a number of seconds"));
        return ExitCode::from(2);
    };
    let factory = factory(idle, clients);
    serve::exit_code(match endpoint {
        Some(endpoint) => server::run_server(async move { endpoint.serve(factory).await }),
        None => server::run(&address, factory),
    })
}
