//! Policies around protocols: what they end and hold back, when exactly, and that they keep the order.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_loop::{EventLoop, LoopHandle, sleep};
use tulipa_protocols::{
    AfterEof, ConnectionLimits, Deadline, Detached, IdleTimeout, LineProtocol, LineReceiver, Next,
    Protocol, Throttle, TrafficLog, Transport, attach, connect_accepted_socket, create_connection,
    create_server,
};
use tulipa_testing::{
    Chunking, MemoryLink, MemoryNetwork, Moment, Path, Record, Simulation, VirtualLoop,
};

const SECOND: Duration = Duration::from_secs(1);

/// A virtual loop with a network, a server of `make`s protocols, and what a test does with it.
fn with_server<P: Protocol + 'static, F: Future<Output = ()> + 'static>(
    make: impl FnMut() -> P + 'static,
    test: impl FnOnce(MemoryNetwork) -> F + 'static,
) {
    let virtual_loop = VirtualLoop::new();
    let network = MemoryNetwork::new(virtual_loop.world(), 7);
    network.install(&virtual_loop.handle());
    let ended = virtual_loop.run_until_complete(async move {
        let server = network.on("server", create_server(":7", make)).await.unwrap();
        test(network).await;
        server.abort_clients();
        server.shutdown(SECOND).await;
    });
    ended.unwrap();
}

fn now() -> Instant {
    LoopHandle::current().time()
}

/// A client with its record.
async fn client() -> (Record, tulipa_protocols::Connection<tulipa_testing::Recorder>) {
    let record = Record::new();
    let connection = create_connection("server:7", || record.protocol()).await.unwrap();
    (record, connection)
}

#[test]
fn a_connection_on_which_nothing_moves_ends_in_time_and_says_so() {
    let record = Record::new();
    let errors = Rc::new(RefCell::new(String::new()));
    let (server, said) = (record.clone(), errors.clone());
    let make = move || {
        let said = said.clone();
        let protocol = server.reacting(move |moment, _| {
            if let Moment::Lost(Some(error)) = moment {
                *said.borrow_mut() = error.to_string();
            }
            Ok(AfterEof::Close)
        });
        IdleTimeout::new(60 * SECOND, protocol)
    };
    with_server(make, |_| async move {
        let (_, client) = client().await;
        let began = now();
        sleep(59 * SECOND).await;
        client.write(b"still here");
        client.wait_closed().await;
        assert_eq!(now() - began, 119 * SECOND, "a minute after the last byte");
    });
    assert_eq!(record.error(), Some(ErrorKind::TimedOut));
    let said = errors.take();
    assert!(said.ends_with("is idle: nothing has come or gone for 60s"), "{said}");
    record.assert_order();
}

#[test]
fn what_is_written_keeps_a_connection_from_being_idle_and_what_does_not_leave_does_not() {
    struct Ticks(Rc<Cell<bool>>);
    impl Protocol for Ticks {
        fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
            let (transport, go_on) = (transport.clone(), self.0.clone());
            drop(tulipa_loop::spawn(async move {
                while go_on.get() {
                    sleep(7 * SECOND).await;
                    transport.write(b"tick");
                }
                // Nobody reads it any more.
                loop {
                    sleep(SECOND).await;
                    if transport.write(&[0; 10_000]) == tulipa_protocols::Flow::Closed {
                        return;
                    }
                }
            }));
            Ok(())
        }

        fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }
    let go_on = Rc::new(Cell::new(true));
    let own = go_on.clone();
    with_server(
        move || IdleTimeout::new(8 * SECOND, Ticks(own.clone())),
        move |network| async move {
            network.set_default_path(Path::new().buffer(1000));
            let (record, client) = client().await;
            sleep(100 * SECOND).await;
            assert!(!record.is_lost(), "it is written to");
            client.pause_reading();
            go_on.set(false);
            // The last that leaves does so within eleven seconds, then eight and two more.
            sleep(22 * SECOND).await;
            client.resume_reading();
            client.wait_closed().await;
            assert!(record.is_lost());
        },
    );
}

#[test]
fn a_deadline_ends_a_connection_that_sends_a_byte_now_and_then() {
    let record = Record::new();
    let server = record.clone();
    with_server(
        move || Deadline::new(10 * SECOND, server.protocol()),
        |_| async move {
            let (_, client) = client().await;
            let began = now();
            for _ in 0..20 {
                sleep(SECOND - Duration::from_millis(1)).await;
                client.write(b"x");
            }
            client.wait_closed().await;
            assert!(now() - began < 21 * SECOND);
        },
    );
    assert_eq!(record.error(), Some(ErrorKind::TimedOut));
    assert_eq!(record.count(), 10, "it was ended after ten seconds");
    record.assert_order();
}

#[test]
fn a_deadline_that_is_lifted_ends_nothing() {
    let record = Record::new();
    let server = record.clone();
    let make = move || {
        Deadline::with(10 * SECOND, |lift| {
            server.reacting(move |moment, _| {
                if matches!(moment, Moment::Data(b"request")) {
                    lift.lift();
                }
                Ok(AfterEof::Close)
            })
        })
    };
    with_server(make, |_| async move {
        let (_, client) = client().await;
        client.write(b"request");
        sleep(1000 * SECOND).await;
        assert!(!client.is_closing());
        client.close();
        client.wait_closed().await;
    });
    assert_eq!(record.error(), None);
}

#[test]
fn reading_is_no_faster_than_the_throttle_lets_it() {
    let record = Record::new();
    let server = record.clone();
    with_server(
        move || Throttle::new(server.protocol()).read_limit(1000),
        |network| async move {
            network.set_default_path(Path::new().buffer(100_000));
            let (_, client) = client().await;
            client.write(&[7; 10_100]);
            client.close();
            client.wait_closed().await;
            sleep(20 * SECOND).await;
        },
    );
    assert_eq!(record.count(), 10_100);
    record.assert_order();
}

/// When how much had come.
#[derive(Clone, Default)]
struct Stamps(Rc<RefCell<Vec<(Instant, usize)>>>);

impl Protocol for Stamps {
    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        let mut stamps = self.0.borrow_mut();
        let before = stamps.last().map_or(0, |(_, count)| *count);
        stamps.push((now(), before + data.len()));
        Ok(())
    }
}

/// Checks that bytes came with a rate of 1000 in a second after a burst of 100, and no slower.
fn assert_pace(began: Instant, stamps: &Stamps, total: usize) {
    let stamps = stamps.0.borrow();
    for (when, count) in stamps.iter() {
        let most = 100 + (*when - began).as_millis() as usize;
        assert!(*count <= most, "{count} after {:?}", *when - began);
    }
    let (last, count) = stamps.last().expect("something came");
    assert_eq!(*count, total);
    let ideal = Duration::from_millis(total as u64 - 100);
    assert!(*last - began <= ideal + SECOND / 20, "{:?} instead of {ideal:?}", *last - began);
    assert!(stamps.len() <= 3 + total / 50, "{} pieces of {total} bytes", stamps.len());
}

#[test]
fn a_throttle_holds_its_rate_exactly_each_way() {
    for reads in [true, false] {
        let stamps = Stamps::default();
        let began = Rc::new(Cell::new(None));
        let (own, reader, at) = (stamps.clone(), reads, began.clone());
        let make = move || {
            let limited = Throttle::new(own.clone());
            if reader { limited.read_limit(1000) } else { limited.write_limit(1000) }
        };
        let (stamps2, at2) = (stamps.clone(), at);
        if reads {
            with_server(make, move |_| async move {
                at2.set(Some(now()));
                let (_, client) = client().await;
                client.write(&[7; 5100]);
                sleep(30 * SECOND).await;
            });
        } else {
            // The client has the throttle.
            with_server(
                move || stamps2.clone(),
                move |_| async move {
                    let throttled = move || Throttle::new(Stamps::default()).write_limit(1000);
                    at2.set(Some(now()));
                    let client = create_connection("server:7", throttled).await.unwrap();
                    client.write(&[7; 5100]);
                    client.close();
                    client.wait_closed().await;
                    sleep(SECOND).await;
                },
            );
        }
        assert_pace(began.get().unwrap(), &stamps, 5100);
    }
}

#[test]
fn a_throttled_writer_is_paused_and_the_loop_sleeps_meanwhile() {
    let record = Record::new();
    let virtual_loop = VirtualLoop::new();
    let (near, far) = MemoryLink::pair(1 << 20);
    let handle = virtual_loop.handle();
    let throttled = Throttle::new(record.protocol()).write_limit(10_000);
    let near = attach(&handle, near, throttled).unwrap();
    let received = Record::new();
    let _far = attach(&handle, far, received.protocol()).unwrap();
    virtual_loop.run_until_idle();
    near.write(&[1; 100_000]);
    virtual_loop.run_until_idle();
    assert!(record.is_paused());
    let before = virtual_loop.statistics().turns;
    virtual_loop.advance(SECOND);
    let turns = virtual_loop.statistics().turns - before;
    assert!(turns < 200, "{turns} turns for twenty pieces");
    assert!((10_000..=11_000).contains(&received.count()), "{}", received.count());
    virtual_loop.advance(9 * SECOND);
    assert!(!record.is_paused());
    assert_eq!(received.count(), 100_000);
    record.assert_order();
}

#[test]
fn a_throttle_over_sockets_keeps_the_loop_asleep_between_two_pieces() {
    let event_loop = common::strict_loop();
    let (near, far) = common::tcp();
    far.set_nonblocking(true).unwrap();
    let record = Record::new();
    // So slow that nothing more is due in this test.
    let throttled = Throttle::new(record.protocol()).read_limit(1).write_limit(1).burst(10);
    let connected = connect_accepted_socket(near, || throttled);
    let near = event_loop.run_until_complete(connected).unwrap().unwrap();
    common::fill(&far, &[5; 1000]);
    near.write(&[6; 1000]);
    common::until(&event_loop, "ten bytes have come", || record.count() >= 10);
    common::assert_sleeps(&event_loop);
    assert!((10..15).contains(&record.count()), "{}", record.count());
    let (written, _) = common::drain(&far).unwrap();
    assert!((10..15).contains(&written.len()), "{}", written.len());
    near.abort();
    event_loop.run_until_complete(near.wait_closed()).unwrap();
}

#[test]
fn one_connection_too_many_is_refused_and_a_place_that_is_left_is_free() {
    let record = Record::new();
    let refused = Rc::new(Cell::new(0));
    let limits = ConnectionLimits::new().total(3).per_peer(2).refuse_with("busy");
    let (own, made, seen) = (limits.clone(), record.clone(), refused.clone());
    let make = move || {
        let (made, seen) = (made.clone(), seen.clone());
        own.around(Told { record: made.protocol(), seen, made: false })
    };
    with_server(make, move |network| async move {
        let (first, second) = (client().await, client().await);
        let third = client().await;
        third.1.wait_closed().await;
        assert_eq!(third.0.bytes(), b"busy");
        assert_eq!((limits.count(), limits.refused()), (2, 1));
        let other =
            network.on("other", create_connection("server:7", Silent::default)).await.unwrap();
        let full =
            network.on("third", create_connection("server:7", Silent::default)).await.unwrap();
        full.wait_closed().await;
        assert_eq!((limits.count(), limits.refused()), (3, 2));
        first.1.close();
        first.1.wait_closed().await;
        sleep(SECOND).await;
        let again = client().await;
        sleep(SECOND).await;
        assert_eq!((limits.count(), limits.refused()), (3, 2));
        for connection in [&second.1, &again.1] {
            connection.close();
        }
        other.close();
        sleep(SECOND).await;
        assert_eq!(limits.count(), 0);
    });
    assert_eq!(refused.get(), 2, "each refused protocol was told the end and nothing else");
    record.assert_order();
}

#[derive(Default)]
struct Silent;

impl Protocol for Silent {
    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Counts those that were told of their end only; the others write down what they are told.
struct Told {
    record: tulipa_testing::Recorder,
    seen: Rc<Cell<usize>>,
    made: bool,
}

impl Protocol for Told {
    fn connection_made(&mut self, _: &Transport) -> io::Result<()> {
        self.made = true;
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        assert!(self.made);
        self.record.data_received(transport, data)
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        if !self.made {
            assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::ConnectionRefused));
            self.seen.set(self.seen.get() + 1);
        }
    }
}

#[test]
fn a_policy_holds_when_the_protocol_is_replaced() {
    struct HandsOn;
    impl Protocol for HandsOn {
        fn data_received(&mut self, transport: &Transport, _: &[u8]) -> io::Result<()> {
            transport.set_protocol(Silent, &[]);
            Ok(())
        }
    }
    let limits = ConnectionLimits::new().total(5);
    let own = limits.clone();
    with_server(
        move || own.around(IdleTimeout::new(10 * SECOND, HandsOn)),
        move |_| async move {
            let (_, client) = client().await;
            client.write(b"go");
            let began = now();
            sleep(SECOND).await;
            assert_eq!(limits.count(), 1, "it is still there");
            client.wait_closed().await;
            assert!(now() - began <= 13 * SECOND);
            sleep(SECOND).await;
            assert_eq!(limits.count(), 0);
        },
    );
}

/// All of them around one protocol.
fn all<P: Protocol>(inner: P, limits: &ConnectionLimits) -> impl Protocol + use<P> {
    let paced = Throttle::new(inner).read_limit(50_000).write_limit(50_000);
    let logged = TrafficLog::new(paced, "all");
    limits.around(Deadline::new(3000 * SECOND, IdleTimeout::new(600 * SECOND, logged)))
}

#[test]
fn all_policies_around_each_other_keep_the_order_and_lose_nothing_over_bad_networks() {
    for chunking in [Chunking::Random, Chunking::OneByte] {
        Simulation::new().seeds(60).run(move |sim| async move {
            sim.network().set_default_path(Path::new().chunking(chunking));
            let limits = ConnectionLimits::new();
            let (records, own) = (Rc::new(RefCell::new(Vec::new())), limits.clone());
            let (made, chaos) = (records.clone(), sim.clone());
            let factory = move || {
                let record = Record::new();
                made.borrow_mut().push(record.clone());
                all(chaos.sabotage(record.protocol()), &own)
            };
            let server = sim.network().on("server", create_server(":7", factory)).await.unwrap();
            let sent: Vec<u8> = (0..3000_u32).map(|n| n as u8).collect();
            if let Ok(client) = create_connection("server:7", Silent::default).await {
                client.write(&sent);
                client.close();
                client.wait_closed().await;
            }
            sim.calm();
            sleep(100 * SECOND).await;
            server.close();
            server.wait_closed().await;
            for record in records.borrow().iter() {
                record.assert_order();
                assert!(sent.starts_with(&record.bytes()));
                // One whose first callback panics is told nothing else than the end.
                assert!(record.is_lost());
            }
            assert_eq!(limits.count(), 0, "no place is lost");
        });
    }
}

#[test]
fn a_receiver_inside_of_policies_pauses_and_goes_on() {
    struct Pauses(Rc<RefCell<Vec<Vec<u8>>>>);
    impl LineProtocol for Pauses {
        fn line_received(&mut self, transport: &Transport, line: &[u8]) -> io::Result<Next> {
            self.0.borrow_mut().push(line.to_vec());
            transport.pause_reading();
            Ok(Next::Lines)
        }
    }
    let lines = Rc::new(RefCell::new(Vec::new()));
    let receiver = LineReceiver::new(Pauses(lines.clone()));
    let mut connection = Detached::new(all(receiver, &ConnectionLimits::new()));
    connection.feed(b"one\r\ntwo\r\nthree\r\n");
    connection.feed_eof();
    for count in 1..=3 {
        assert_eq!(lines.borrow().len(), count);
        assert!(!connection.is_over());
        connection.transport().resume_reading();
        connection.run();
    }
    assert!(connection.is_over());
}

#[test]
fn a_throttled_connection_that_is_detached_goes_by_the_time_of_its_test() {
    let record = Record::new();
    let throttled = Throttle::new(record.protocol()).read_limit(1000).write_limit(100);
    let mut connection = Detached::new(throttled);
    connection.feed(&[1; 1000]);
    connection.transport().write(&[2; 50]);
    assert_eq!((record.count(), connection.written().len()), (100, 10));
    connection.advance(Duration::from_millis(200));
    assert_eq!((record.count(), connection.written().len()), (200, 10));
    connection.advance(10 * SECOND);
    connection.advance(10 * SECOND);
    connection.advance(10 * SECOND);
}

#[test]
fn timers_of_policies_end_with_their_connections() {
    let event_loop = EventLoop::new().unwrap();
    let (near, far) = common::tcp();
    let inner = IdleTimeout::new(1000 * SECOND, Deadline::new(1000 * SECOND, Silent));
    let connected = connect_accepted_socket(near, || inner);
    let near = event_loop.run_until_complete(connected).unwrap().unwrap();
    assert!(event_loop.statistics().timers >= 2);
    drop(far);
    event_loop.run_until_complete(near.wait_closed()).unwrap();
    common::settle(&event_loop);
    assert_eq!(event_loop.statistics().timers, 0);
}
