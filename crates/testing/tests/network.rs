//! `MemoryNetwork`: programs as they are, on a network in memory.

#![cfg(unix)]

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::{LoopHandle, sleep, spawn};
use tulipa_protocols::{
    AfterEof, Connect, Listen, Protocol, Transport, create_connection, create_server,
    create_unix_server,
};
use tulipa_testing::{
    Chunking, Clock, Fault, Faults, MemoryNetwork, Path, TestRunner, VirtualLoop, elapsed, world,
};

const SECOND: Duration = Duration::from_secs(1);

/// A loop with a network.
struct Rig {
    virtual_loop: VirtualLoop,
    network: MemoryNetwork,
}

impl Rig {
    fn new() -> Rig {
        Rig::seeded(1)
    }

    fn seeded(seed: u64) -> Rig {
        let virtual_loop = VirtualLoop::new();
        virtual_loop.set_exception_handler(None);
        let network = MemoryNetwork::new(virtual_loop.world(), seed);
        network.install(&virtual_loop);
        Rig { virtual_loop, network }
    }

    #[track_caller]
    fn run<T>(&self, test: impl Future<Output = T>) -> T {
        self.virtual_loop.run_until_complete(test).expect("the test ends")
    }
}

/// What a connection has seen: clones are the same log.
#[derive(Clone, Default)]
struct Log(Rc<Seen>);

#[derive(Default)]
struct Seen {
    pieces: RefCell<Vec<Vec<u8>>>,
    times: RefCell<Vec<Duration>>,
    paused: Cell<usize>,
    resumed: Cell<usize>,
    eof: Cell<bool>,
    lost: Cell<Option<Option<ErrorKind>>>,
    transport: RefCell<Option<Transport>>,
}

impl Log {
    fn bytes(&self) -> Vec<u8> {
        self.0.pieces.borrow().concat()
    }

    fn transport(&self) -> Transport {
        self.0.transport.borrow().clone().expect("it is connected")
    }

    async fn lost(&self) -> Option<ErrorKind> {
        self.transport().wait_closed().await;
        self.0.lost.get().expect("it is over")
    }
}

struct Logging {
    log: Log,
    echo: bool,
    closes: bool,
    after_eof: AfterEof,
    start: std::time::Instant,
}

fn logging(log: &Log) -> Logging {
    let start = tulipa_loop::LoopHandle::current().time();
    Logging { log: log.clone(), echo: false, closes: false, after_eof: AfterEof::Close, start }
}

fn echoing(log: &Log) -> Logging {
    Logging { echo: true, ..logging(log) }
}

impl Protocol for Logging {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        *self.log.0.transport.borrow_mut() = Some(transport.clone());
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        let now = tulipa_loop::LoopHandle::current().time();
        self.log.0.pieces.borrow_mut().push(data.to_vec());
        self.log.0.times.borrow_mut().push(now - self.start);
        if self.echo {
            transport.write(data);
        }
        if self.closes {
            transport.close();
        }
        Ok(())
    }

    fn eof_received(&mut self, _: &Transport) -> io::Result<AfterEof> {
        self.log.0.eof.set(true);
        Ok(self.after_eof)
    }

    fn pause_writing(&mut self, _: &Transport) -> io::Result<()> {
        self.log.0.paused.set(self.log.0.paused.get() + 1);
        Ok(())
    }

    fn resume_writing(&mut self, _: &Transport) -> io::Result<()> {
        self.log.0.resumed.set(self.log.0.resumed.get() + 1);
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        self.log.0.lost.set(Some(error.map(|error| error.kind())));
    }
}

/// A server on the host `server`, and a client on the host `client`.
async fn pair(network: &MemoryNetwork) -> (Log, Log) {
    let (near, far) = (Log::default(), Log::default());
    let log = far.clone();
    network.on("server", create_server(":7", move || logging(&log))).await.unwrap();
    let own = near.clone();
    network.on("client", create_connection("server:7", move || logging(&own))).await.unwrap();
    // The server accepts it in the same instant, if no time is taken.
    while far.0.transport.borrow().is_none() {
        tulipa_loop::yield_now().await;
    }
    (near, far)
}

#[test]
fn connecting_takes_a_round_trip_and_bytes_take_half_of_one() {
    let rig = Rig::new();
    rig.network.set_path("client", "server", Path::new().latency(SECOND..=SECOND));
    rig.run(async {
        let (near, far) = pair(&rig.network).await;
        assert_eq!(rig.virtual_loop.elapsed(), 2 * SECOND);
        near.transport().write(b"hello");
        sleep(SECOND / 2).await;
        assert_eq!(far.bytes(), b"");
        sleep(SECOND).await;
        assert_eq!(far.bytes(), b"hello");
        assert_eq!(*far.0.times.borrow(), [2 * SECOND]);
    });
}

#[test]
fn bytes_are_not_faster_than_the_bandwidth() {
    let rig = Rig::new();
    rig.network.set_default_path(Path::new().bandwidth(100));
    rig.run(async {
        let (near, far) = pair(&rig.network).await;
        near.transport().write(&[1; 500]);
        tulipa_loop::yield_now().await;
        near.transport().write(&[2; 500]);
        sleep(20 * SECOND).await;
        assert_eq!(*far.0.times.borrow(), [5 * SECOND, 10 * SECOND]);
        assert_eq!(far.bytes().len(), 1000);
    });
}

#[test]
fn whoever_does_not_read_keeps_the_other_from_writing() {
    let rig = Rig::new();
    rig.network.set_default_path(Path::new().buffer(1000));
    rig.run(async {
        let (near, far) = pair(&rig.network).await;
        far.transport().pause_reading();
        sleep(SECOND).await;
        near.transport().write(&[7; 100_000]);
        sleep(SECOND).await;
        assert_eq!(near.transport().get_write_buffer_size(), 99_000);
        assert_eq!((near.0.paused.get(), near.0.resumed.get()), (1, 0));
        far.transport().resume_reading();
        sleep(SECOND).await;
        assert_eq!((near.0.paused.get(), near.0.resumed.get()), (1, 1));
        assert_eq!(far.bytes(), [7; 100_000]);
    });
}

#[test]
fn bytes_come_in_the_pieces_that_the_path_says() {
    for (chunking, expected) in [(Chunking::Whole, 1), (Chunking::OneByte, 100)] {
        let rig = Rig::new();
        rig.network.set_default_path(Path::new().chunking(chunking));
        rig.run(async {
            let (near, far) = pair(&rig.network).await;
            near.transport().write(&[9; 100]);
            sleep(SECOND).await;
            assert_eq!(far.0.pieces.borrow().len(), expected);
            assert_eq!(far.bytes(), [9; 100]);
        });
    }
    let rig = Rig::new();
    rig.network.set_default_path(Path::new().chunking(Chunking::Random));
    rig.run(async {
        let (near, far) = pair(&rig.network).await;
        let sent: Vec<u8> = (0..=255).collect();
        near.transport().write(&sent);
        sleep(SECOND).await;
        assert!((2..256).contains(&far.0.pieces.borrow().len()));
        assert_eq!(far.bytes(), sent);
    });
}

#[test]
fn a_stalled_way_loses_nothing() {
    let rig = Rig::new();
    rig.run(async {
        let (near, far) = pair(&rig.network).await;
        rig.network.stall("client", "server");
        near.transport().write(b"one");
        sleep(3600 * SECOND).await;
        near.transport().write(b" two");
        sleep(SECOND).await;
        assert_eq!(far.bytes(), b"");
        rig.network.resume("server", "client");
        sleep(SECOND).await;
        assert_eq!(far.bytes(), b"one two");
    });
}

#[test]
fn a_broken_connection_is_an_error_on_both_sides() {
    let rig = Rig::new();
    rig.run(async {
        let (near, far) = pair(&rig.network).await;
        let client = near.transport().local_addr().unwrap().inet().unwrap();
        assert!(!rig.network.is_broken(client));
        rig.network.break_connections("server", "client");
        assert_eq!(near.lost().await, Some(ErrorKind::ConnectionReset));
        assert_eq!(far.lost().await, Some(ErrorKind::ConnectionReset));
        assert!(rig.network.is_broken(client));
        assert_eq!(rig.network.connections(), 0);
    });
}

#[test]
fn one_side_may_end_its_output_and_go_on_reading() {
    let rig = Rig::new();
    rig.run(async {
        let (near, far) = (Log::default(), Log::default());
        let log = far.clone();
        let factory = move || Logging { after_eof: AfterEof::KeepOpen, ..logging(&log) };
        create_server("localhost:7", factory).await.unwrap();
        create_connection("localhost:7", || logging(&near)).await.unwrap();
        near.transport().write(b"question");
        near.transport().write_eof();
        sleep(SECOND).await;
        assert_eq!((far.bytes(), far.0.eof.get()), (b"question".to_vec(), true));
        far.transport().write(b"answer");
        far.transport().close();
        assert_eq!((near.lost().await, near.bytes()), (None, b"answer".to_vec()));
    });
}

#[test]
fn closing_with_unread_input_resets() {
    let rig = Rig::new();
    rig.run(async {
        let (near, far) = pair(&rig.network).await;
        far.transport().pause_reading();
        sleep(SECOND).await;
        near.transport().write(b"unheard");
        sleep(SECOND).await;
        far.transport().close();
        assert_eq!(far.lost().await, None);
        assert_eq!(near.lost().await, Some(ErrorKind::ConnectionReset));
    });
}

#[test]
fn nobody_connects_where_nobody_listens() {
    let rig = Rig::new();
    rig.run(async {
        rig.network.host("server");
        let log = Log::default();
        let refused = create_connection("server:7", || logging(&log)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(
            refused.to_string(),
            "cannot connect to server:7: 10.0.0.1:7: connection refused"
        );
        let unknown = create_connection("nowhere:7", || logging(&log)).await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::NotFound);
        let unix = create_unix_server("/tmp/x", || logging(&Log::default())).await.unwrap_err();
        assert_eq!(unix.kind(), ErrorKind::Unsupported);
    });
}

#[test]
fn an_address_is_taken_once_and_free_again_when_its_server_is_closed() {
    let rig = Rig::new();
    rig.run(async {
        let log = Log::default();
        let serve = |port: u16| {
            let log = log.clone();
            rig.network.on("server", create_server(("", port), move || logging(&log)))
        };
        let server = serve(0).await.unwrap();
        let port = server.local_addrs()[0].inet().unwrap().port();
        assert_ne!(port, 0);
        assert_eq!(serve(port).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_ne!(serve(0).await.unwrap().local_addrs(), server.local_addrs());
        server.close();
        serve(port).await.unwrap();
    });
}

#[test]
fn a_server_that_does_not_accept_is_waited_for_in_vain() {
    let rig = Rig::new();
    rig.run(async {
        let log = Log::default();
        let server =
            Listen::on("localhost:7").backlog(0).serve(move || logging(&log)).await.unwrap();
        let own = Log::default();
        let timeout = Connect::to("localhost:7").timeout(5 * SECOND);
        let late = timeout.open(|| logging(&own)).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        let late = create_connection("localhost:7", || logging(&own)).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        assert_eq!(rig.virtual_loop.elapsed(), (5 + 127) * SECOND);
        drop(server);
    });
}

#[test]
fn who_was_not_accepted_is_reset_when_the_server_closes() {
    let rig = Rig::new();
    rig.run(async {
        let listener = rig.network.bind(([127, 0, 0, 1], 7).into()).unwrap();
        listener.listen(10);
        let near = Log::default();
        create_connection("localhost:7", || logging(&near)).await.unwrap();
        drop(listener);
        assert_eq!(near.lost().await, Some(ErrorKind::ConnectionReset));
    });
}

#[test]
fn an_attempt_that_was_given_up_is_a_reset_for_who_accepts_it() {
    let rig = Rig::new();
    rig.network.set_default_path(Path::new().latency(SECOND..=SECOND));
    rig.run(async {
        let far = Log::default();
        let log = far.clone();
        create_server("localhost:7", move || logging(&log)).await.unwrap();
        let hasty = Connect::to("localhost:7").timeout(SECOND * 3 / 2);
        assert!(hasty.open(|| logging(&Log::default())).await.is_err());
        assert_eq!(far.lost().await, Some(ErrorKind::ConnectionReset));
    });
}

#[test]
fn what_code_starts_runs_on_the_host_of_that_code() {
    let rig = Rig::new();
    rig.run(async {
        let far = Log::default();
        let log = far.clone();
        rig.network.on("server", create_server(":7", move || logging(&log))).await.unwrap();
        let client = async {
            let connecting = async {
                let connection = create_connection("server:7", || logging(&Log::default())).await;
                connection.unwrap().local_addr().unwrap().to_string()
            };
            spawn(connecting).await.unwrap()
        };
        let local = rig.network.on("client", client).await;
        assert!(local.starts_with("10.0.0.2:"), "{local}");
        sleep(SECOND).await;
        assert_eq!(far.transport().peer_addr().unwrap().to_string(), local);
        assert_eq!(far.transport().local_addr().unwrap().to_string(), "10.0.0.1:7");
        // Each host is its own localhost.
        let own = || logging(&Log::default());
        assert!(create_connection("127.0.0.1:7", own).await.is_err());
        assert!(rig.network.on("server", create_connection("127.0.0.1:7", own)).await.is_ok());
    });
}

#[test]
fn faults_change_nothing_of_what_is_received_if_they_are_harmless() {
    for seed in 0..20 {
        let rig = Rig::seeded(seed);
        rig.network.set_faults(Faults::of(&Fault::HARMLESS));
        rig.run(async {
            let (near, far) = (Log::default(), Log::default());
            let log = far.clone();
            create_server("localhost:7", move || echoing(&log)).await.unwrap();
            create_connection("localhost:7", || logging(&near)).await.unwrap();
            let sent: Vec<u8> = (0..20_000_u32).map(|place| (place % 251) as u8).collect();
            near.transport().write(&sent);
            near.transport().write_eof();
            assert_eq!(near.lost().await, None);
            assert_eq!((near.bytes() == sent, far.bytes() == sent), (true, true));
        });
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let rig = Rig::seeded(seed);
        rig.network.keep_trace();
        let random = Path::new().latency(SECOND / 10..=SECOND).chunking(Chunking::Random);
        rig.network.set_default_path(random);
        rig.run(async {
            let (near, far) = pair(&rig.network).await;
            near.transport().write(&[5; 3000]);
            sleep(5 * SECOND).await;
            far.transport().close();
            near.lost().await;
        });
        rig.network.trace()
    };
    let (one, again, other) = (trace(1), trace(1), trace(2));
    assert_eq!(one.lines(), again.lines());
    assert_eq!((one.hash(), one.events()), (again.hash(), again.events()));
    assert_ne!(one.hash(), other.hash());
    assert!(one.lines()[0].ends_with("bind 10.0.0.1:7"), "{:?}", one.lines());
}

#[test]
fn who_closes_when_data_comes_with_output_left_does_not_spin() {
    let rig = Rig::new();
    rig.network.set_default_path(Path::new().buffer(1000));
    let (near, far) = (Log::default(), Log::default());
    rig.run(async {
        let log = far.clone();
        create_server("localhost:7", move || logging(&log)).await.unwrap();
        let closing = || Logging { closes: true, ..logging(&near) };
        create_connection("localhost:7", closing).await.unwrap();
        sleep(SECOND).await;
    });
    far.transport().pause_reading();
    rig.virtual_loop.run_until_idle();
    near.transport().write(&[7; 10_000]);
    rig.virtual_loop.run_until_idle();
    for _ in 0..3 {
        far.transport().write(b"close");
        // It would be at work for ever.
        rig.virtual_loop.run_until_idle();
    }
    assert_eq!(near.bytes(), b"close");
    far.transport().resume_reading();
    rig.virtual_loop.run_until_idle();
    assert_eq!(far.bytes(), [7; 10_000]);
}

#[test]
fn a_test_with_a_jumping_clock_has_a_network_in_its_world() {
    TestRunner::new().clock(Clock::Autojump).strict(true).run(async {
        let network = MemoryNetwork::new(&world(), 1);
        network.install(&LoopHandle::current());
        network.set_default_path(Path::new().latency(SECOND..=SECOND));
        let far = Log::default();
        let log = far.clone();
        let server = create_server("localhost:7", move || echoing(&log)).await.unwrap();
        let near = Log::default();
        create_connection("localhost:7", || logging(&near)).await.unwrap();
        assert_eq!(elapsed(), 2 * SECOND);
        near.transport().write(b"hello");
        near.transport().write_eof();
        assert_eq!(near.lost().await, None);
        assert_eq!((near.bytes(), elapsed()), (b"hello".to_vec(), 4 * SECOND));
        assert_eq!(server.shutdown(SECOND).await, 0);
    });
}

/// Found by a web server whose rows came in pairs: the clock moved on before a row was seen.
#[test]
fn what_a_task_sends_is_received_before_the_clock_moves() {
    TestRunner::new().clock(Clock::Autojump).strict(true).run(async {
        let network = MemoryNetwork::new(&world(), 1);
        network.install(&LoopHandle::current());
        let far = Log::default();
        let log = far.clone();
        let server = create_server("localhost:7", move || logging(&log)).await.unwrap();
        let near = Log::default();
        create_connection("localhost:7", || logging(&near)).await.unwrap();
        for _ in 0..4 {
            sleep(SECOND).await;
            near.transport().write(b"x");
        }
        near.transport().close();
        assert_eq!(far.lost().await, None);
        assert_eq!(*far.0.times.borrow(), [1, 2, 3, 4].map(|count| count * SECOND));
        server.shutdown(SECOND).await;
    });
}
