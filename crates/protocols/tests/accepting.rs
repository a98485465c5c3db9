//! The accept loop: fair, and not to be stopped by anything that accepting may say.
#![forbid(unsafe_code)]
#![cfg(all(target_os = "linux", not(miri)))]

mod net;
#[path = "../../loop/tests/os/mod.rs"]
mod os;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use net::open;
use net::{Directory, Echo, Notes, PATIENCE, Rig, assert_served, echo_server, eventually, inet};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tulipa_loop::LoopHandle;
use tulipa_protocols::{Connect, Detached, Listen, Protocol, Server, Transport, create_server};

/// What a listener accepts for one event.
const MOST: usize = 64;
/// How long it rests.
const REST: Duration = Duration::from_secs(1);

fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect_timeout(&address, PATIENCE).unwrap()).collect()
}

#[test]
fn b15_accepts_are_bounded_in_each_turn() {
    let rig = Rig::new();
    let server = rig.run(Listen::on("127.0.0.1:0").backlog(1000).serve(|| Echo)).unwrap();
    rig.turn();
    let clients = connect(inet(&server), 3 * MOST + 5);
    let ticks = Notes::default();
    fn tick(handle: &LoopHandle, server: Server, ticks: Notes) {
        ticks.add(server.client_count().to_string());
        if ticks.len() < 5 {
            handle.call_later(Duration::ZERO, move |handle| tick(handle, server, ticks));
        }
    }
    // A timer that is always due comes after each batch.
    tick(&rig, server.clone(), ticks.clone());
    for _ in 0..8 {
        rig.turn();
    }
    assert_eq!(ticks.take(), ["0", "64", "128", "192", "197"]);
    rig.run(server.shutdown(PATIENCE));
    drop(clients);
}

/// Leaves this process so many numbers for new descriptors.
fn limit_descriptors(more: usize) {
    let open = os::open_descriptors();
    let mut free = (0..).filter(|number| !open.contains_key(number));
    let limit = free.nth(more).unwrap();
    let limit = u64::try_from(limit).unwrap();
    let limit = Rlimit { current: Some(limit), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
}

fn lift_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// A server of a process in which nothing else opens anything, and a crowd of clients, for whom there
/// are not enough descriptors.
fn crowd(rig: &Rig) -> (Server, Vec<TcpStream>) {
    let (server, address) = rig.run(echo_server());
    rig.turn();
    let clients = connect(address, 10);
    limit_descriptors(3);
    rig.turn();
    (server, clients)
}

fn assert_one_report(rig: &Rig, server: &Server) {
    let reports = rig.reports();
    let [report] = &reports[..] else { panic!("{reports:#?}") };
    let text = format!(
        "{} accepts nothing for 1s: the system is out of resources: Too many open files",
        inet(server)
    );
    assert!(report.starts_with(&text), "{report}");
}

#[test]
fn b12_out_of_descriptors_a_server_rests_and_does_not_spin() {
    os::alone("b12_out_of_descriptors_a_server_rests_and_does_not_spin", || {
        let rig = Rig::new();
        let (server, clients) = crowd(&rig);
        assert!((1..10).contains(&server.client_count()), "{server:?}");
        assert_one_report(&rig, &server);
        let (before, served) = (rig.statistics(), server.client_count());
        rig.turn();
        // The wait is a wait.
        rig.run(async { tulipa_loop::sleep(REST / 4).await });
        let after = rig.statistics();
        assert!(after.selects - before.selects < 20, "{before:?} {after:?}");
        assert_eq!(after.events, before.events, "nobody asks for the listener");
        assert_eq!(server.client_count(), served);
        lift_limit();
        rig.leap(REST);
        rig.run(eventually(|| server.client_count() == clients.len()));
        rig.run(server.shutdown(PATIENCE));
    });
}

#[test]
fn b14_there_is_one_retry_timer_and_one_report_for_each_shortage() {
    os::alone("b14_there_is_one_retry_timer_and_one_report_for_each_shortage", || {
        let rig = Rig::new();
        let (server, mut clients) = crowd(&rig);
        assert_one_report(&rig, &server);
        let served = server.client_count();
        for _ in 0..10 {
            assert_eq!(rig.statistics().timers, 1);
            rig.leap(REST);
            rig.turn();
            rig.turn();
        }
        assert_eq!(server.client_count(), served);
        assert!(rig.reports().is_empty(), "it is the same shortage");

        // When there are enough again all are served, and the next shortage is another one.
        lift_limit();
        rig.leap(REST);
        rig.run(eventually(|| server.client_count() == clients.len()));
        for client in &mut clients {
            client.write_all(b"x").unwrap();
        }
        rig.run(async {
            for _ in 0..10 {
                tulipa_loop::sleep(Duration::from_millis(1)).await;
            }
        });
        for client in &mut clients {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        assert_eq!(rig.statistics().timers, 0);
        clients.extend(connect(inet(&server), 5));
        limit_descriptors(0);
        rig.turn();
        assert_one_report(&rig, &server);
        assert_eq!(rig.statistics().timers, 1);
        // A server that is closed meanwhile leaves no timer.
        server.close();
        assert_eq!(rig.statistics().timers, 0);
        lift_limit();
        rig.run(server.shutdown(PATIENCE));
    });
}

/// Set for the child: what accepting is made to say.
const ERROR: &str = "TULIPA_ACCEPT_ERROR";

/// Runs the test again, with the first accept4 of its process made to fail.
fn with_failing_accept(test: &str, errors: &[&str], body: impl FnOnce(&str)) {
    if let Ok(error) = std::env::var(ERROR)
        && os::is_child(test)
    {
        return body(&error);
    }
    if !can_inject() {
        return skip(test);
    }
    for error in errors {
        let mut strace = Command::new("strace");
        let inject = format!("inject=accept4:error={error}:when=1");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=accept4", "-e", &inject]);
        os::select_test(strace.arg(os::test_binary()).env(ERROR, error), test);
        let output = strace.stdin(Stdio::null()).output().expect("strace runs");
        os::assert_passed(&format!("{test} ({error})"), &output);
    }
}

#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn skip(test: &str) {
    println!("skipped: {test} needs a strace that makes system calls fail");
}

fn can_inject() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", "inject=accept4:error=EPERM", "true"]);
    strace.stdout(Stdio::null()).stderr(Stdio::null());
    strace.status().is_ok_and(|status| status.success())
}

#[test]
fn b13_an_error_about_one_connection_leaves_the_next_client_alone() {
    let errors = [
        "ECONNABORTED",
        "EPROTO",
        "EINTR",
        "EPERM",
        "ENETDOWN",
        "ENETUNREACH",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENOPROTOOPT",
        "EOPNOTSUPP",
        "ETIMEDOUT",
        "EAGAIN",
        "ENONET",
    ];
    let test = "b13_an_error_about_one_connection_leaves_the_next_client_alone";
    with_failing_accept(test, &errors, |_| {
        let rig = Rig::new();
        let (server, address) = rig.run(echo_server());
        // Nothing is reported, and nobody waits for a second.
        rig.run(assert_served(Connect::to(address)));
        assert_eq!(rig.statistics().timers, 0);
        rig.run(server.shutdown(PATIENCE));
    });
}

#[test]
fn b13_any_other_error_is_reported_and_the_client_is_served_after_a_rest() {
    let errors = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EINVAL", "EBADF", "EIO", "ENOSR"];
    let test = "b13_any_other_error_is_reported_and_the_client_is_served_after_a_rest";
    with_failing_accept(test, &errors, |error| {
        let rig = Rig::new();
        let (server, address) = rig.run(echo_server());
        rig.turn();
        let notes = Notes::default();
        let connection = rig.run(open(address, &notes)).unwrap();
        rig.run(eventually(|| rig.statistics().timers > 0));
        assert_eq!(server.client_count(), 0);
        let reports = rig.reports();
        assert_eq!(reports.len(), 1, "{reports:#?}");
        let exhausted = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"].contains(&error);
        let why = if exhausted { "out of resources: " } else { "accept failed: " };
        assert!(reports[0].contains(why), "{reports:?}");
        rig.leap(REST);
        connection.write(b"ping");
        assert_eq!(rig.run(notes.wait_for(2)), ["made", "ping"]);
        connection.abort();
        rig.run(server.shutdown(PATIENCE));
    });
}

#[test]
fn a_factory_that_panics_ends_one_connection_and_is_called_for_the_next() {
    let rig = Rig::new();
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let server = rig.run(create_server("127.0.0.1:0", move || {
        counted.set(counted.get() + 1);
        assert!(counted.get() != 1, "not the first one");
        Echo
    }));
    let server = server.unwrap();
    let address = inet(&server);
    let mut unlucky = TcpStream::connect(address).unwrap();
    rig.run(assert_served(Connect::to(address)));
    assert_eq!(unlucky.read(&mut [0]).unwrap(), 0);
    assert_eq!(calls.get(), 2);
    let reports = rig.reports();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    assert!(reports[0].starts_with("panic in a protocol's factory: not the first one"));
    rig.run(server.shutdown(PATIENCE));
}

#[test]
fn a_factory_may_close_its_server_which_keeps_the_connection() {
    let rig = Rig::new();
    let own: Rc<RefCell<Option<Server>>> = Rc::default();
    let shared = own.clone();
    let directory = Directory::new();
    let path = directory.file("socket");
    let server = rig.run(Listen::on("127.0.0.1:0").and_unix(&path).serve(move || {
        let server = shared.borrow_mut().take().expect("it is called once");
        server.close();
        server.close_clients();
        server.abort_clients();
        assert!(!server.is_serving() && server.local_addrs().is_empty());
        Echo
    }));
    let server = server.unwrap();
    let address = inet(&server);
    own.replace(Some(server.clone()));
    let clients = connect(address, 5);
    rig.run(eventually(|| !server.is_serving()));
    assert!(!path.exists());
    // The one that is being accepted is the last one.
    assert_eq!(server.client_count(), 1);
    for (number, mut client) in clients.into_iter().enumerate() {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        if number > 0 {
            // Nobody accepts it any more.
            assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
            continue;
        }
        client.write_all(b"?").unwrap();
        let reader = std::thread::spawn(move || client.read(&mut [0]).unwrap());
        rig.run(eventually(|| reader.is_finished()));
        assert_eq!(reader.join().unwrap(), 1);
    }
    rig.run(server.wait_closed());
}

#[test]
fn a_factory_whose_destructor_panics_does_not_keep_the_server_from_closing() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a bad end");
        }
    }
    let rig = Rig::new();
    let directory = Directory::new();
    let (first, second) = (directory.file("first"), directory.file("second"));
    let bomb = Bomb;
    let server = rig.run(Listen::on_unix(&first).and_unix(&second).serve(move || {
        let _bomb = &bomb;
        Echo
    }));
    let server = server.unwrap();
    server.close();
    assert!(!first.exists() && !second.exists());
    rig.run(server.wait_closed());
    let reports = rig.reports();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("a bad end"), "{reports:?}");
}

#[test]
fn connections_have_the_options_of_their_server() {
    struct Options(Notes);
    impl Protocol for Options {
        fn connection_made(&mut self, transport: &Transport) -> std::io::Result<()> {
            self.0.add(format!("{} {}", transport.nodelay()?, transport.keepalive()?));
            transport.close();
            Ok(())
        }

        fn data_received(&mut self, _: &Transport, _: &[u8]) -> std::io::Result<()> {
            Ok(())
        }
    }
    let rig = Rig::new();
    rig.run(async {
        for (nodelay, keepalive) in [(true, false), (false, true)] {
            let notes = Notes::default();
            let made = notes.clone();
            let listen = Listen::on("127.0.0.1:0").nodelay(nodelay).keepalive(keepalive);
            let server = listen.serve(move || Options(made.clone())).await.unwrap();
            let connect = Connect::to(inet(&server)).nodelay(nodelay).keepalive(keepalive);
            let connection = connect.open(|| Options(notes.clone())).await.unwrap();
            eventually(|| notes.len() == 2).await;
            let expected = format!("{nodelay} {keepalive}");
            assert_eq!(notes.take(), [expected.clone(), expected]);
            connection.abort();
            server.shutdown(PATIENCE).await;
        }
    });
}

#[test]
fn b82_a_client_that_sends_a_byte_a_second_ends_at_the_deadline() {
    /// Wants a line within ten seconds, however it comes.
    struct Line;
    impl Protocol for Line {
        fn connection_made(&mut self, transport: &Transport) -> std::io::Result<()> {
            transport.set_timeout(Some(Duration::from_secs(10)));
            Ok(())
        }

        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> std::io::Result<()> {
            if data.contains(&b'\n') {
                transport.set_timeout(None);
            }
            Ok(())
        }
    }
    let rig = Rig::new();
    let server = rig.run(create_server("127.0.0.1:0", || Line)).unwrap();
    let address = inet(&server);
    let mut slow = TcpStream::connect(address).unwrap();
    let mut good = TcpStream::connect(address).unwrap();
    rig.run(eventually(|| server.client_count() == 2));
    good.write_all(b"a line\n").unwrap();
    for _ in 0..9 {
        slow.write_all(b"x").unwrap();
        for _ in 0..5 {
            rig.turn();
        }
        rig.leap(Duration::from_secs(1));
    }
    assert_eq!(server.client_count(), 2);
    rig.leap(Duration::from_secs(1));
    rig.run(eventually(|| server.client_count() == 1));
    rig.run(server.shutdown(PATIENCE));
}

#[test]
fn what_happens_to_connections_is_logged() {
    let (_, lines) = net::logged(|| {
        let rig = Rig::new();
        rig.run(async {
            let (server, address) = echo_server().await;
            assert_served(Connect::to(address)).await;
            // The server has seen its client go.
            eventually(|| server.client_count() == 0).await;
            server.shutdown(PATIENCE).await;
        });
        let mut connection = Detached::new(Echo);
        connection.probe().set_room(Some(0));
        connection.feed(&[0; 100 << 10]);
        connection.probe().set_room(None);
        connection.run();
    });
    for start in [
        "DEBUG event loop made id=",
        "DEBUG listening address=127.0.0.1:",
        "DEBUG connected peer=127.0.0.1:",
        "TRACE accepted server=127.0.0.1:",
        "TRACE end of input key=",
        "TRACE writing paused key=",
        "TRACE writing resumed key=",
    ] {
        let found = lines.iter().filter(|line| line.starts_with(start));
        assert_eq!(found.count(), 1, "{start}: {lines:#?}");
    }
}
