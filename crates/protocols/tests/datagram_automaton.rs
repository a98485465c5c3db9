//! The order of callbacks over random re-entrant scripts on real datagram sockets.
//!
//! In each case some endpoints run over UDP and Unix sockets. Their protocols do random things with random transports in
//! every callback, return errors, and panic. `DatagramRecord` checks the order of the callbacks; here is checked that only
//! whole datagrams come that were sent, that each endpoint ends once and leaves nothing behind, and that the loop sleeps
//! when nothing happens. `TULIPA_CASES` says how many cases; there are an eighth of
//! that.

mod common;

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use common::{assert_sleeps, cases, descriptors, settle};
use tulipa_loop::{ErrorContext, EventLoop, LoopHandle};
use tulipa_protocols::{
    Address, DatagramEndpoint, DatagramTransport, Datagrams, WriteBufferLimits,
};
use tulipa_testing::{DatagramCall, DatagramMoment, DatagramRecord, DatagramRecorder, Random};

/// What a panic of a script says.
const SCRIPTED: &str = "a panic of the script";

struct Case {
    random: RefCell<Random>,
    transports: RefCell<Vec<DatagramTransport>>,
    addresses: RefCell<Vec<Address>>,
    /// How many more things the scripts may do.
    fuel: Cell<usize>,
    panics: Cell<usize>,
}

impl Case {
    fn below(&self, limit: usize) -> usize {
        self.random.borrow_mut().index(limit)
    }

    /// Bytes that tell their own length, so that a part of a datagram is no datagram.
    fn datagram(&self) -> Vec<u8> {
        let length = match self.below(8) {
            0 => 0,
            1..=5 => self.below(200),
            6 => self.below(9000),
            _ => 66_000,
        };
        let mut data = vec![7; length];
        for (place, byte) in data.iter_mut().zip((length as u32).to_be_bytes()) {
            *place = byte;
        }
        data
    }

    fn act(&self, own: &DatagramTransport) {
        let transports = self.transports.borrow().clone();
        let other = &transports[self.below(transports.len())];
        let transport = if self.below(3) == 0 { other } else { own };
        match self.below(20) {
            0 => transport.close(),
            1 => transport.abort(),
            2 => {
                let high = [0, 100, 5000, 60_000][self.below(4)];
                transport.set_write_buffer_limits(WriteBufferLimits { low: high / 3, high });
            }
            3 => drop(transport.send(&self.datagram())),
            4 => drop(transport.receive_with(|datagram| check_whole(datagram.data))),
            5 => drop(transport.try_receive(&mut [0; 10])),
            6 => drop(format!("{transport:?} {}", transport.get_write_buffer_size())),
            _ => {
                let addresses = self.addresses.borrow().clone();
                let to = &addresses[self.below(addresses.len())];
                for _ in 0..=self.below(40) {
                    transport.send_to(&self.datagram(), to);
                }
            }
        }
    }

    fn react(&self, transport: &DatagramTransport) -> io::Result<()> {
        for _ in 0..self.below(4) {
            let Some(left) = self.fuel.get().checked_sub(1) else { return Ok(()) };
            self.fuel.set(left);
            self.act(transport);
        }
        match self.below(60) {
            0 if self.fuel.get() > 0 => Err(io::Error::other("an error of the script")),
            1 if self.fuel.get() > 0 => {
                self.panics.set(self.panics.get() + 1);
                panic!("{SCRIPTED}");
            }
            _ => Ok(()),
        }
    }
}

#[track_caller]
fn check_whole(data: &[u8]) {
    let mut length = [0; 4];
    if data.len() >= 4 {
        length.copy_from_slice(&data[..4]);
        assert_eq!(u32::from_be_bytes(length) as usize, data.len(), "it is whole");
    }
}

fn options(case: &Case, kind: usize, directory: &std::path::Path, number: usize) -> Datagrams {
    let peer = case.addresses.borrow().first().cloned();
    match (kind, peer) {
        (0, _) => Datagrams::at("127.0.0.1:0"),
        (1, _) => Datagrams::at("[::1]:0"),
        (2, Some(Address::Inet(peer))) => Datagrams::to(peer),
        (3, Some(Address::Path(peer))) => {
            Datagrams::to_unix(peer).local_unix(directory.join(number.to_string()))
        }
        _ => Datagrams::at_unix(directory.join(number.to_string())),
    }
}

fn run(seed: u64, directory: &std::path::Path, seen: &mut [usize; 4]) {
    let reports = Rc::new(RefCell::new(Vec::new()));
    let event_loop = EventLoop::new().unwrap();
    let journal = reports.clone();
    let handler = move |_: &LoopHandle, context: &ErrorContext| {
        journal.borrow_mut().push(context.to_string());
    };
    event_loop.set_exception_handler(Some(Rc::new(handler)));
    let case = Rc::new(Case {
        random: RefCell::new(Random::new(seed)),
        transports: RefCell::default(),
        addresses: RefCell::default(),
        fuel: Cell::new(0),
        panics: Cell::new(0),
    });
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut endpoints: Vec<(DatagramRecord, DatagramEndpoint<DatagramRecorder>)> = Vec::new();
    for number in 0..2 + case.below(4) {
        let record = DatagramRecord::new();
        let own = case.clone();
        let protocol = record.reacting(move |moment, transport| {
            if let DatagramMoment::Datagram(data, _) = moment {
                check_whole(data);
            }
            own.react(transport)
        });
        let kind = case.below(5);
        let opening = options(&case, kind, directory, number).open(|| protocol);
        let endpoint = event_loop.run_until_complete(opening).unwrap().unwrap();
        case.transports.borrow_mut().push(endpoint.transport().clone());
        case.addresses.borrow_mut().extend(endpoint.local_addr());
        endpoints.push((record, endpoint));
    }
    case.addresses.borrow_mut().extend([
        Address::Inet(gone),
        Address::Unnamed,
        Address::Path(directory.join("nobody")),
    ]);
    case.fuel.set(60);
    for _ in 0..6 {
        let transports = case.transports.borrow().clone();
        case.act(&transports[case.below(transports.len())]);
        event_loop.run_once(std::time::Duration::from_micros(100)).unwrap();
    }
    settle(&event_loop);
    case.fuel.set(0);
    for (_, endpoint) in &endpoints {
        endpoint.close();
    }
    for (record, endpoint) in &endpoints {
        // Those whose peers read nothing any more are not waited for for ever.
        for _ in 0..200 {
            if !record.is_lost() {
                event_loop.run_once(std::time::Duration::from_millis(10)).unwrap();
            }
        }
        endpoint.abort();
    }
    settle(&event_loop);
    for (record, _) in &endpoints {
        record.assert_order();
        assert!(record.is_lost(), "seed {seed}: {:?}", record.calls());
        assert_eq!(record.alive(), 0, "seed {seed}");
        for call in record.calls() {
            match call {
                DatagramCall::Datagram(_) => seen[0] += 1,
                DatagramCall::Error(_) => seen[1] += 1,
                DatagramCall::Pause => seen[2] += 1,
                DatagramCall::Lost(Some(_)) => seen[3] += 1,
                _ => {}
            }
        }
    }
    assert_sleeps(&event_loop);
    let reports = reports.take();
    assert_eq!(reports.len(), case.panics.get(), "seed {seed}: {reports:#?}");
    assert!(reports.iter().all(|report| report.contains(SCRIPTED)), "seed {seed}: {reports:#?}");
}

#[test]
fn datagrams_and_callbacks_keep_their_order_whatever_anybody_does() {
    let directory: PathBuf =
        std::env::temp_dir().join(format!("tulipa-dg-automaton-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).unwrap();
    let before = descriptors();
    let mut seen = [0; 4];
    // Each has several waits for quiet.
    let many = cases().div_ceil(8);
    for seed in 0..many {
        run(seed, &directory, &mut seen);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "seed {seed}: files");
    }
    assert_eq!(descriptors(), before);
    if many >= 32 {
        assert!(
            seen.iter().all(|count| *count > 0),
            "datagrams, errors, pauses, failures: {seen:?}"
        );
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
