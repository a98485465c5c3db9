//! Protocols that cut what comes into messages: Twisted's `basic` receivers.
//!
//! The problem: bytes are cut anywhere, a program may pause, close, or hand the connection on in the middle of
//! what has come, and none of that may lose a byte or look at one twice.
//!
//! The trick: messages are looked for where the bytes were received, and only what is unfinished is kept. It is moved
//! once, behind what was kept before, and searched from where the last look has ended. So the cost is that of the bytes,
//! however they are cut. A receiver that has to stop because reading was paused keeps the rest where it is, and tells
//! the transport so (`keep_input`): when reading goes on, and before anything else is read, it is called with no bytes.
//! Nothing can overtake what it keeps, the end least of all, as the end is found by reading.
//!
//! | after a message | what becomes of the rest |
//! |---|---|
//! | reading goes on | it is looked at |
//! | reading is paused | it is kept until reading goes on; dropped if the connection is over before |
//! | the connection is closing | it is dropped: who closes wants no more |
//! | another protocol is to take over | it is that protocol's |
//! | a filter is to be put in ([`Next::Filter`]) | it is that filter's |
//! | a filter was put in by hand | the connection fails: what came in clear must not pass for protected |

mod lines;
mod strings;

#[cfg(test)]
mod tests;

use std::io;
use std::mem;

use crate::state::{Input as Flowing, Phase};
use crate::{Filter, Transport};

pub use lines::{AfterRaw, LineProtocol, LineReceiver, Next};
pub use strings::{
    CrlfLine, Framing, Int8, Int8StringReceiver, Int16, Int16StringReceiver, Int32,
    Int32StringReceiver, IntPrefix, LineOnlyReceiver, Netstring, NetstringReceiver, Receiver,
    StringProtocol,
};

/// A message is longer than its receiver allows. It is inside of the [`io::Error`], of the kind
/// [`InvalidData`](io::ErrorKind::InvalidData), with which the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {what} of {length} bytes or more has come; the limit is {limit}")]
#[non_exhaustive]
pub struct TooLong {
    /// What came: `"line"`, `"netstring"`, `"string"`.
    pub what: &'static str,
    /// How long it is, as far as is known.
    pub length: u64,
    /// The limit.
    pub limit: usize,
}

impl From<TooLong> for io::Error {
    fn from(error: TooLong) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// An empty buffer that is larger is not kept: an idle connection should be small.
const KEPT_WHEN_EMPTY: usize = 1024;

/// What a look at the front of the input has found.
enum Step {
    /// No message yet.
    Wait,
    /// A message of so many bytes with all that is around it; it was delivered.
    Used(usize),
    /// The same, and what follows goes through a filter.
    Filter(usize, Box<dyn Filter>),
}

/// What has come and is no message yet, or waits for reading to go on.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
}

impl Input {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Takes what has come, and delivers all messages in it by `step`, which is given what is left each time.
    fn feed(
        &mut self,
        transport: &Transport,
        data: &[u8],
        step: impl FnMut(&[u8]) -> io::Result<Step>,
    ) -> io::Result<()> {
        if self.rest().is_empty() {
            let used = deliver(transport, data, step)?;
            self.append(&data[used..]);
            return Ok(());
        }
        self.append(data);
        // Out while the program is called.
        let (bytes, start) = (mem::take(&mut self.bytes), self.start);
        let used = deliver(transport, &bytes[start..], step)?;
        (self.bytes, self.start) = (bytes, start + used);
        self.shrink();
        Ok(())
    }

    fn append(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if self.start > 0 {
            #[cfg(test)]
            tests::moved(self.bytes.len() - self.start);
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        #[cfg(test)]
        tests::moved(data.len());
        self.bytes.extend_from_slice(data);
    }

    fn shrink(&mut self) {
        if self.rest().is_empty() {
            self.bytes.clear();
            self.start = 0;
            if self.bytes.capacity() > KEPT_WHEN_EMPTY {
                self.bytes = Vec::new();
            }
        }
    }
}

/// Delivers messages as long as there are any and the program wants them. How much was used.
fn deliver(
    transport: &Transport,
    input: &[u8],
    mut step: impl FnMut(&[u8]) -> io::Result<Step>,
) -> io::Result<usize> {
    let state = &*transport.state;
    let mut used = 0;
    while used < input.len() {
        match (state.phase(), state.input.get()) {
            (Phase::Closing | Phase::Ended, _) => return Ok(input.len()),
            (_, Flowing::Paused) => {
                state.keep_input();
                return Ok(used);
            }
            _ => {}
        }
        match step(&input[used..])? {
            Step::Wait => return Ok(used),
            Step::Used(count) => used += count,
            Step::Filter(count, filter) => {
                state.upgrade(filter, &input[used + count..])?;
                return Ok(input.len());
            }
        }
        if state.has_successor() {
            state.unread(&input[used..]);
            return Ok(input.len());
        }
        if state.phase() == Phase::Opening && used < input.len() {
            let error = "a filter was put in while bytes in clear were left: return `Next::Filter`";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
    Ok(used)
}
