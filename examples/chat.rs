//! A chat: what one client writes, all others read. A protocol may write to any transport, so the room is
//! a list of them.
//!
//! One who does not read makes nobody wait: above a limit the room lets go of them.
//!
//! `cargo run --example chat [-- --bind ADDR | --unix PATH]`, then several times `nc 127.0.0.1 PORT`.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use tulipa::{Protocol, Transport};
use tulipa_examples::serve::{self, Address};
use tulipa_examples::server;

/// Longer lines are not from somebody who writes by hand.
const LONGEST_LINE: usize = 4096;
/// What may wait for one who does not read: an hour of talk.
const MOST_UNREAD: usize = 1 << 20;

#[derive(Default)]
struct Room {
    members: RefCell<BTreeMap<u32, Transport>>,
    last: Cell<u32>,
}

impl Room {
    fn tell_others(&self, from: u32, line: &[u8]) {
        // A transport calls nobody back, so the list may stay borrowed.
        for (_, member) in self.members.borrow().iter().filter(|(number, _)| **number != from) {
            member.write(line);
        }
    }
}

struct Member {
    room: Rc<Room>,
    number: u32,
    line: Vec<u8>,
}

impl Member {
    fn new(room: &Rc<Room>) -> Member {
        room.last.set(room.last.get() + 1);
        Member { room: room.clone(), number: room.last.get(), line: Vec::new() }
    }
}

impl Protocol for Member {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        transport.set_max_write_buffer(Some(MOST_UNREAD));
        let mut members = self.room.members.borrow_mut();
        let greeting = format!("you are #{}, with {} others\n", self.number, members.len());
        transport.write(greeting.as_bytes());
        members.insert(self.number, transport.clone());
        drop(members);
        self.room.tell_others(self.number, format!("#{} is here\n", self.number).as_bytes());
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() > LONGEST_LINE {
                return Err(io::Error::other("the line is too long"));
            }
            if part.ends_with(b"\n") {
                let line = [format!("#{}: ", self.number).as_bytes(), &self.line].concat();
                self.room.tell_others(self.number, &line);
                self.line.clear();
            }
        }
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, _: Option<io::Error>) {
        // One whose connection failed in the beginning was never there.
        let was_here = self.room.members.borrow_mut().remove(&self.number).is_some();
        if was_here {
            self.room.tell_others(self.number, format!("#{} is gone\n", self.number).as_bytes());
        }
    }
}

fn main() -> ExitCode {
    let address = Address::from_command_line("Lets its clients talk to each other.");
    let room = Rc::new(Room::default());
    serve::exit_code(server::run(&address, move || Member::new(&room)))
}
