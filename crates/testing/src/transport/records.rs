//! A toy protocol of records, as a filter: it does to bytes what TLS does, without protecting anything.
//!
//! A record is its kind (1 byte), its length (2 bytes, big end first), and so many bytes.
//!
//! | kind | from | bytes |
//! |---|---|---|
//! | 0 hello | the client, once | a key |
//! | 1 welcome | the server, once | a key |
//! | 2 data | both | the program's, each combined with the key |
//! | 3 change | both | the next key; to be answered |
//! | 4 changed | both | the key that was asked for |
//! | 5 goodbye | both | none |

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use tulipa_protocols::{Filter, FilterState};

const HELLO: u8 = 0;
const WELCOME: u8 = 1;
const DATA: u8 = 2;
const CHANGE: u8 = 3;
const CHANGED: u8 = 4;
const GOODBYE: u8 = 5;

/// The largest record's bytes: TLS's limit, so that a large write makes several.
const LARGEST: usize = 16 * 1024;

/// A [`Filter`] with a handshake of two messages, records, changes of keys that want an answer, and a goodbye
/// without which the end is an error. For tests of transports: it protects nothing.
#[derive(Debug)]
pub struct ToyRecords {
    is_client: bool,
    state: FilterState,
    received: Vec<u8>,
    plaintext: VecDeque<u8>,
    outgoing: Vec<u8>,
    /// The keys that what is sent and what is received are combined with.
    sending: u8,
    receiving: u8,
    /// After how many bytes it asks for another key.
    change_after: Option<usize>,
    since_change: usize,
    said_goodbye: bool,
    count: Rc<Counts>,
}

/// What a [`ToyRecords`] has seen.
#[derive(Debug, Default)]
pub struct Counts {
    /// How often it has asked for a change of keys.
    pub asked: Cell<usize>,
    /// How many answers it has got.
    pub answered: Cell<usize>,
    /// How many records of data have come.
    pub records: Cell<usize>,
}

impl ToyRecords {
    /// The side that speaks first.
    pub fn client() -> ToyRecords {
        let mut client = ToyRecords::new(true);
        client.send(HELLO, &[0x5a]);
        client
    }

    /// The side that answers.
    pub fn server() -> ToyRecords {
        ToyRecords::new(false)
    }

    fn new(is_client: bool) -> ToyRecords {
        ToyRecords {
            is_client,
            state: FilterState::Handshaking,
            received: Vec::new(),
            plaintext: VecDeque::new(),
            outgoing: Vec::new(),
            sending: 0,
            receiving: 0,
            change_after: None,
            since_change: 0,
            said_goodbye: false,
            count: Rc::default(),
        }
    }

    /// Makes it ask for another key whenever it has sent so many bytes.
    pub fn change_after(mut self, bytes: usize) -> ToyRecords {
        self.change_after = Some(bytes);
        self
    }

    /// What it has seen, to be looked at later.
    pub fn counts(&self) -> Rc<Counts> {
        self.count.clone()
    }

    /// The bytes of a record, for a test that plays the peer.
    pub fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).expect("a record is below 64 KiB");
        let [high, low] = length.to_be_bytes();
        [&[kind, high, low], bytes].concat()
    }

    fn send(&mut self, kind: u8, bytes: &[u8]) {
        self.outgoing.extend(ToyRecords::record(kind, bytes));
    }

    fn take(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let expected = match self.state {
            FilterState::Handshaking => [HELLO, WELCOME][usize::from(self.is_client)] == kind,
            FilterState::Open => kind >= DATA,
            FilterState::Closed => false,
        };
        match (kind, bytes) {
            (HELLO | WELCOME, &[key]) if expected => {
                self.receiving = key;
                if !self.is_client {
                    self.send(WELCOME, &[!key]);
                }
                (self.sending, self.receiving) =
                    if self.is_client { (0x5a, key) } else { (!key, key) };
                self.state = FilterState::Open;
            }
            (DATA, bytes) if expected => {
                bump(&self.count.records);
                let key = self.receiving;
                self.plaintext.extend(bytes.iter().map(|byte| byte ^ key));
            }
            (CHANGE, &[key]) if expected => {
                self.receiving = key;
                self.send(CHANGED, &[key]);
            }
            (CHANGED, &[_]) if expected => bump(&self.count.answered),
            (GOODBYE, []) if expected => self.state = FilterState::Closed,
            _ => return Err(invalid(format!("a record of the kind {kind} in {:?}", self.state))),
        }
        Ok(())
    }
}

fn bump(count: &Cell<usize>) {
    count.set(count.get() + 1);
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Filter for ToyRecords {
    fn state(&self) -> FilterState {
        self.state
    }

    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.received.extend_from_slice(bytes);
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        let mut result = Ok(());
        while let &[kind, high, low, ref behind @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length > LARGEST {
                result = Err(invalid(format!("a record of {length} bytes")));
                break;
            }
            if behind.len() < length {
                break;
            }
            let (bytes, next) = behind.split_at(length);
            result = self.take(kind, bytes);
            if result.is_err() {
                break;
            }
            rest = next;
        }
        self.received = rest.to_vec();
        result
    }

    fn receive_eof(&mut self) -> io::Result<()> {
        match self.state {
            FilterState::Closed => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no goodbye before the end")),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.plaintext.len().min(buffer.len());
        if count == 0 && self.state != FilterState::Closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (place, byte) in buffer.iter_mut().zip(self.plaintext.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    fn has_plaintext(&self) -> bool {
        !self.plaintext.is_empty()
    }

    fn write(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        let count = plaintext.len().min(LARGEST);
        if self.change_after.is_some_and(|limit| self.since_change >= limit) {
            self.since_change = 0;
            let key = self.sending.wrapping_add(7);
            self.send(CHANGE, &[key]);
            self.sending = key;
            bump(&self.count.asked);
        }
        let key = self.sending;
        let hidden: Vec<_> = plaintext[..count].iter().map(|byte| byte ^ key).collect();
        self.send(DATA, &hidden);
        self.since_change += count;
        Ok(count)
    }

    fn transmit(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.outgoing);
    }

    fn close(&mut self) {
        if self.state != FilterState::Handshaking && !self.said_goodbye {
            self.said_goodbye = true;
            self.send(GOODBYE, &[]);
        }
    }
}
