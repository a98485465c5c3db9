//! Every kind of datagram endpoint, through the conformance suite.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::path::PathBuf;

use tulipa_loop::EventLoop;
use tulipa_protocols::{Address, DatagramEndpoint, Datagrams};
use tulipa_testing::{
    DatagramBench, DatagramRecorder, MemoryNetwork, VirtualLoop, check_datagrams,
};

type Endpoint = DatagramEndpoint<DatagramRecorder>;

struct Udp(EventLoop, &'static str);

impl DatagramBench for Udp {
    fn event_loop(&self) -> &EventLoop {
        &self.0
    }

    fn open(&self, protocol: DatagramRecorder) -> io::Result<Endpoint> {
        self.0.run_until_complete(Datagrams::at(self.1).open(|| protocol)).unwrap()
    }

    fn connect(&self, protocol: DatagramRecorder, to: &Address) -> io::Result<Endpoint> {
        let how = Datagrams::to(to.inet().unwrap());
        self.0.run_until_complete(how.open(|| protocol)).unwrap()
    }
}

#[test]
fn udp_endpoints_conform() {
    check_datagrams(|| Udp(EventLoop::new().unwrap(), "127.0.0.1:0"));
}

#[test]
fn udp_endpoints_over_ipv6_conform() {
    check_datagrams(|| Udp(EventLoop::new().unwrap(), "[::1]:0"));
}

struct Unix(EventLoop, PathBuf, Cell<usize>);

impl Unix {
    fn new() -> Unix {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tulipa-dg-conformance-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Unix(EventLoop::new().unwrap(), path, Cell::new(0))
    }

    fn next(&self) -> PathBuf {
        self.2.set(self.2.get() + 1);
        self.1.join(self.2.get().to_string())
    }
}

impl DatagramBench for Unix {
    fn event_loop(&self) -> &EventLoop {
        &self.0
    }

    fn open(&self, protocol: DatagramRecorder) -> io::Result<Endpoint> {
        let how = Datagrams::at_unix(self.next());
        self.0.run_until_complete(how.open(|| protocol)).unwrap()
    }

    fn connect(&self, protocol: DatagramRecorder, to: &Address) -> io::Result<Endpoint> {
        let how = Datagrams::to_unix(to.path().unwrap()).local_unix(self.next());
        self.0.run_until_complete(how.open(|| protocol)).unwrap()
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

#[test]
fn unix_datagram_endpoints_conform() {
    check_datagrams(Unix::new);
}

struct Memory(VirtualLoop);

impl DatagramBench for Memory {
    fn event_loop(&self) -> &EventLoop {
        &self.0
    }

    fn open(&self, protocol: DatagramRecorder) -> io::Result<Endpoint> {
        self.0.run_until_complete(Datagrams::at("127.0.0.1:0").open(|| protocol)).unwrap()
    }

    fn connect(&self, protocol: DatagramRecorder, to: &Address) -> io::Result<Endpoint> {
        let how = Datagrams::to(to.inet().unwrap());
        self.0.run_until_complete(how.open(|| protocol)).unwrap()
    }
}

#[test]
fn simulated_datagram_endpoints_conform() {
    check_datagrams(|| {
        let virtual_loop = VirtualLoop::new();
        MemoryNetwork::new(virtual_loop.world(), 1).install(&virtual_loop);
        Memory(virtual_loop)
    });
}
