//! Several loops behind one address, over real sockets and threads.

mod common;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use tulipa_loop::{ErrorContext, EventLoop, LoopHandle, to_thread};
use tulipa_protocols::{Distribution, Protocol, RetryPolicy, Transport, WorkerPool, Workers};

const ALL: [Distribution; 3] =
    [Distribution::ReusePort, Distribution::RoundRobin, Distribution::LeastConnections];
const GRACE: Duration = Duration::from_secs(30);

/// Says in which thread it is, then echoes; `stop` ends its loop, `panic` panics.
struct Echo;

fn own_thread() -> String {
    format!("{:?}\n", std::thread::current().id())
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        transport.write(own_thread().as_bytes());
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        match data {
            b"stop" => LoopHandle::current().stop(),
            b"panic" => std::panic::resume_unwind(Box::new("as asked")),
            data => drop(transport.write(data) == tulipa_protocols::Flow::Closed),
        }
        Ok(())
    }
}

/// A client in a thread of its own: it blocks.
struct Client(TcpStream, String);

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Client> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut thread = Vec::new();
        while thread.last() != Some(&b'\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            thread.push(byte[0]);
        }
        Ok(Client(stream, String::from_utf8_lossy(&thread).into_owned()))
    }

    fn round_trip(&mut self) -> io::Result<()> {
        self.0.write_all(b"hello")?;
        let mut answer = [0; 5];
        self.0.read_exact(&mut answer)?;
        assert_eq!(&answer, b"hello");
        Ok(())
    }

    fn is_at_end(&mut self) -> bool {
        !matches!(self.0.read(&mut [0]), Ok(count) if count > 0)
    }
}

fn address(pool: &WorkerPool) -> SocketAddr {
    pool.local_addr().inet().expect("an internet address")
}

/// Runs a test on a loop, and gives what that reported.
fn run<F: Future<Output = ()> + 'static>(test: F) -> Vec<String> {
    let event_loop = EventLoop::new().unwrap();
    let reports = Rc::new(RefCell::new(Vec::new()));
    let journal = reports.clone();
    event_loop.set_exception_handler(Some(Rc::new(
        move |_: &LoopHandle, context: &ErrorContext| {
            journal.borrow_mut().push(context.to_string());
        },
    )));
    event_loop.run_until_complete(test).unwrap();
    drop(event_loop);
    reports.take()
}

async fn connect(pool: &WorkerPool) -> Client {
    let address = address(pool);
    to_thread(move || Client::connect(address)).await.unwrap().unwrap()
}

#[test]
fn every_distribution_serves_and_ends_in_order() {
    for distribution in ALL {
        let reports = run(async move {
            let workers = Workers::on("127.0.0.1:0").count(3).distribution(distribution);
            let pool = workers.serve(|| || Echo).await.unwrap();
            assert_eq!((pool.count(), pool.running()), (3, 3));
            let mut clients = Vec::new();
            for _ in 0..12 {
                clients.push(connect(&pool).await);
            }
            let seen: BTreeSet<_> = clients.iter().map(|client| client.1.clone()).collect();
            assert!(!seen.contains(&own_thread()), "nobody is served by the supervisor");
            if distribution != Distribution::ReusePort {
                assert_eq!(seen.len(), 3);
            }
            assert_eq!(pool.connections().iter().sum::<usize>(), 12);
            let at_work = to_thread(move || {
                clients.iter_mut().try_for_each(Client::round_trip).map(|()| clients)
            });
            let mut clients = at_work.await.unwrap().unwrap();
            assert_eq!(pool.shutdown(GRACE).await, 0);
            let ended = to_thread(move || clients.iter_mut().all(Client::is_at_end));
            assert!(ended.await.unwrap());
        });
        assert_eq!(reports, [""; 0], "{distribution:?}");
    }
}

#[test]
fn connections_are_handed_over_in_turn() {
    run(async {
        let workers = Workers::on("127.0.0.1:0").count(3).distribution(Distribution::RoundRobin);
        let pool = workers.serve(|| || Echo).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..9 {
            // Each is over before the next comes.
            seen.push(connect(&pool).await.1);
        }
        assert_eq!(seen[..3], seen[3..6]);
        assert_eq!(seen[..3], seen[6..]);
        assert_eq!(seen[..3].iter().collect::<BTreeSet<_>>().len(), 3);
        pool.shutdown(GRACE).await;
    });
}

#[test]
fn who_has_the_fewest_connections_gets_the_next() {
    run(async {
        let workers =
            Workers::on("127.0.0.1:0").count(2).distribution(Distribution::LeastConnections);
        let pool = workers.serve(|| || Echo).await.unwrap();
        let (one, two) = (connect(&pool).await, connect(&pool).await);
        assert_ne!(one.1, two.1);
        // Two more for each; then all of the first one's go.
        let (three, four) = (connect(&pool).await, connect(&pool).await);
        let mut clients = [one, two, three, four];
        clients.sort_by(|a, b| a.1.cmp(&b.1));
        let [first, second, third, fourth] = clients;
        assert_eq!((&first.1, &third.1), (&second.1, &fourth.1));
        let free = first.1.clone();
        drop((first, second));
        while pool.connections().iter().sum::<usize>() > 2 {
            tulipa_loop::sleep(Duration::from_millis(1)).await;
        }
        let (five, six) = (connect(&pool).await, connect(&pool).await);
        assert_eq!((&five.1, &six.1), (&free, &free));
        pool.shutdown(GRACE).await;
    });
}

#[test]
fn a_loop_that_ends_is_reported_and_replaced_and_the_others_go_on() {
    for distribution in ALL {
        let reports = run(async move {
            let quick = RetryPolicy::fixed([Duration::from_millis(1)]);
            let workers = Workers::on("127.0.0.1:0").count(2).distribution(distribution);
            let pool = workers.restarts(quick).serve(|| || Echo).await.unwrap();
            let mut victim = connect(&pool).await;
            let mut others = Vec::new();
            for _ in 0..20 {
                let other = connect(&pool).await;
                if other.1 != victim.1 {
                    others.push(other);
                }
            }
            victim.0.write_all(b"stop").unwrap();
            let ended = to_thread(move || victim.is_at_end());
            assert!(ended.await.unwrap(), "its connections are lost");
            while pool.restarts() == 0 || pool.running() < 2 {
                tulipa_loop::sleep(Duration::from_millis(1)).await;
            }
            let at_work = to_thread(move || others.iter_mut().try_for_each(Client::round_trip));
            at_work.await.unwrap().unwrap();
            let mut again = connect(&pool).await;
            let at_work = to_thread(move || again.round_trip());
            at_work.await.unwrap().unwrap();
            assert_eq!(pool.restarts(), 1);
            pool.shutdown(GRACE).await;
        });
        assert_eq!(reports.len(), 1, "{distribution:?}: {reports:?}");
        assert!(reports[0].contains("has died and is started again in 1ms"), "{reports:?}");
    }
}

#[test]
fn a_panic_of_a_protocol_ends_its_connection_and_no_worker() {
    run(async {
        let pool = Workers::on("127.0.0.1:0").count(1).serve(|| || Echo).await.unwrap();
        let mut other = connect(&pool).await;
        let mut victim = connect(&pool).await;
        victim.0.write_all(b"panic").unwrap();
        let ended = to_thread(move || victim.is_at_end());
        assert!(ended.await.unwrap());
        let at_work = to_thread(move || other.round_trip());
        at_work.await.unwrap().unwrap();
        assert_eq!((pool.running(), pool.restarts()), (1, 0));
        pool.shutdown(GRACE).await;
    });
}

#[test]
fn a_panic_at_the_start_is_an_error_and_later_a_death() {
    let reports = run(async {
        let panics = || -> fn() -> Echo { std::panic::resume_unwind(Box::new("no factory")) };
        let failed = Workers::on("127.0.0.1:0").count(2).serve(panics).await.unwrap_err();
        assert!(failed.to_string().contains("no factory"), "{failed}");
        // The second and the third life of a worker end at once.
        let lives = Arc::new(AtomicUsize::new(0));
        let lived = lives.clone();
        let quick = RetryPolicy::fixed([Duration::from_millis(1)]).max_retries(10);
        let workers = Workers::on("127.0.0.1:0").count(1).restarts(quick);
        let make = move || {
            if (1..3).contains(&lived.fetch_add(1, Ordering::SeqCst)) {
                std::panic::resume_unwind(Box::new("not yet"));
            }
            || Echo
        };
        let pool = workers.serve(make).await.unwrap();
        pool.remotes()[0].stop().unwrap();
        while pool.restarts() < 3 || pool.running() < 1 {
            tulipa_loop::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(lives.load(Ordering::SeqCst), 4);
        pool.shutdown(GRACE).await;
    });
    assert_eq!(reports.len(), 3, "{reports:?}");
}

#[test]
fn an_address_that_cannot_be_had_is_an_error() {
    run(async {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        for distribution in ALL {
            let workers = Workers::on(address).count(2).distribution(distribution);
            let error = workers.serve(|| || Echo).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{distribution:?}");
            assert!(error.to_string().contains(&address.to_string()), "{error}");
        }
    });
}

#[test]
fn clients_that_do_not_take_their_last_bytes_are_aborted_after_the_grace() {
    struct Talks;
    impl Protocol for Talks {
        fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
            transport.write(own_thread().as_bytes());
            transport.write(&vec![1; 64 << 20]);
            Ok(())
        }

        fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }
    run(async {
        let pool = Workers::on("127.0.0.1:0").count(2).serve(|| || Talks).await.unwrap();
        let _one = connect(&pool).await;
        let _two = connect(&pool).await;
        assert_eq!(pool.shutdown(Duration::from_millis(1)).await, 2);
    });
}

#[test]
fn workers_end_with_their_pool_and_with_its_loop() {
    for distribution in ALL {
        let (sender, receiver) = std::sync::mpsc::channel();
        run(async move {
            let workers = Workers::on("127.0.0.1:0").count(2).distribution(distribution);
            let pool = workers.serve(|| || Echo).await.unwrap();
            let mut client = connect(&pool).await;
            drop(pool);
            let ended = to_thread(move || client.is_at_end());
            assert!(ended.await.unwrap());
            let workers = Workers::on("127.0.0.1:0").count(2).distribution(distribution);
            let pool = workers.serve(|| || Echo).await.unwrap();
            sender.send(connect(&pool).await).unwrap();
            // The loop ends while they serve.
            drop(tulipa_loop::spawn(async move {
                let _pool = pool;
                std::future::pending::<()>().await;
            }));
        });
        let mut client: Client = receiver.recv().unwrap();
        assert!(client.is_at_end());
    }
}

#[test]
fn what_is_made_in_a_worker_need_not_be_send() {
    run(async {
        let make = || {
            let shared = Rc::new(std::cell::Cell::new(0));
            let thread: ThreadId = std::thread::current().id();
            move || {
                assert_eq!(std::thread::current().id(), thread);
                shared.set(shared.get() + 1);
                Echo
            }
        };
        let pool = Workers::on("127.0.0.1:0").count(2).serve(make).await.unwrap();
        connect(&pool).await.round_trip().unwrap();
        pool.shutdown(GRACE).await;
    });
}
