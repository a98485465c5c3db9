//! Names and addresses: who is asked, when, and for what.
#![forbid(unsafe_code)]
#![cfg(unix)]

mod net;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use net::{Book, Echo, Rig, assert_served, echo_server, inet, logged, refusing};
use tulipa_loop::{Executor, ExecutorError, Job, Stragglers, spawn, yield_now};
use tulipa_protocols::{
    Connect, Family, Hints, NetExt, SocketType, create_connection, create_server, getaddrinfo,
    getnameinfo, set_resolver,
};

#[test]
fn numeric_addresses_never_touch_the_resolver() {
    let rig = Rig::new();
    rig.run(async {
        let book = Book::of(&rig);
        let (server, address) = echo_server().await;
        let v6_server = create_server("[::1]:0", || Echo).await.unwrap();
        let (port, v6_port) = (address.port(), inet(&v6_server).port());
        assert_served(Connect::to(address)).await;
        assert_served(Connect::to(format!("127.0.0.1:{port}"))).await;
        assert_served(Connect::to(("127.0.0.1", port))).await;
        assert_served(Connect::to((IpAddr::from(Ipv4Addr::LOCALHOST), port))).await;
        assert_served(Connect::to(format!("[::1]:{v6_port}"))).await;
        assert_served(Connect::to(("::1", v6_port))).await;
        assert_served(Connect::to(("[::1]", v6_port)).local_addr("[::1]:0")).await;
        create_server(":0", || Echo).await.unwrap().close();
        assert!(book.asked.take().is_empty());
        server.shutdown(Duration::from_secs(1)).await;
        v6_server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn zone_ids_go_to_the_resolver() {
    let rig = Rig::new();
    rig.run(async {
        let book = Book::of(&rig);
        let (server, address) = echo_server().await;
        book.enter("fe80::1%lo", &[address]);
        assert_served(Connect::to("[fe80::1%lo]:80")).await;
        assert_served(Connect::to(("fe80::1%lo", 80))).await;
        assert_eq!(book.asked.take(), ["fe80::1%lo", "fe80::1%lo"]);
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[cfg(target_os = "linux")]
#[test]
fn the_system_resolver_knows_zone_ids() {
    let rig = Rig::new();
    rig.run(async {
        let index = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
        let index: u32 = index.trim().parse().unwrap();
        let hints = Hints { socket_type: Some(SocketType::Stream), ..Hints::default() };
        let found = getaddrinfo("fe80::1%lo", "80", hints).await.unwrap();
        let SocketAddr::V6(address) = found[0].address else { panic!("{found:?}") };
        assert_eq!((address.scope_id(), address.port()), (index, 80));
    });
}

#[test]
fn names_are_resolved_by_whoever_the_loop_is_told_to_ask() {
    let rig = Rig::new();
    rig.run(async {
        let book = Book::of(&rig);
        book.enter("here", &["127.0.0.1:0".parse().unwrap()]);
        let server = create_server("here:0", || Echo).await.unwrap();
        let address = inet(&server);
        book.enter("there", &[address]);
        assert_served(Connect::to("there:1")).await;
        assert_eq!(book.asked.take(), ["here", "there"]);
        let error = create_connection("nowhere:1", || Echo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "cannot resolve nowhere: no such name");
        // And again by the operating system.
        set_resolver(&rig, None);
        assert_served(Connect::to(("localhost", address.port()))).await;
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn the_system_resolver_gives_the_port_that_was_asked_for() {
    let rig = Rig::new();
    rig.run(async {
        let (server, address) = echo_server().await;
        assert_served(Connect::to(("localhost", address.port()))).await;
        server.shutdown(Duration::from_secs(1)).await;
        let named = create_server("localhost:0", || Echo).await.unwrap();
        assert!(named.local_addrs().iter().all(|address| {
            let address = address.inet().unwrap();
            address.ip().is_loopback() && address.port() != 0
        }));
        named.close();
    });
}

#[test]
fn an_executor_that_refuses_is_an_error_and_not_a_hang() {
    struct Refusing;
    impl Executor for Refusing {
        fn execute(&self, _: Job) -> Result<(), ExecutorError> {
            Err(ExecutorError::ShutDown)
        }

        fn shutdown(&self) {}

        fn shutdown_and_wait(&self, _: Option<Duration>) -> Result<(), Stragglers> {
            Ok(())
        }
    }
    let rig = Rig::new();
    rig.set_default_executor(Refusing);
    rig.run(async {
        let error = create_connection("localhost:1", || Echo).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot resolve localhost: "), "{error}");
        getaddrinfo("localhost", "", Hints::default()).await.unwrap_err();
        getnameinfo(refusing()).await.unwrap_err();
    });
}

#[test]
fn getaddrinfo_follows_its_hints() {
    let rig = Rig::new();
    rig.run(async {
        let only = |family, numeric_host, passive| Hints {
            family,
            socket_type: Some(SocketType::Stream),
            passive,
            numeric_host,
        };
        let v4 = getaddrinfo("127.0.0.1", "80", only(None, true, false)).await.unwrap();
        let addresses: Vec<_> = v4.iter().map(|info| info.address).collect();
        assert_eq!(addresses, ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(v4[0].socket_type, Some(SocketType::Stream));

        let any = getaddrinfo("", "80", only(Some(Family::V6), false, true)).await.unwrap();
        assert_eq!(any[0].address.ip(), IpAddr::from(Ipv6Addr::UNSPECIFIED));
        let own = getaddrinfo("", "80", only(Some(Family::V4), false, false)).await.unwrap();
        assert_eq!(own[0].address.ip(), IpAddr::from(Ipv4Addr::LOCALHOST));

        let all = getaddrinfo("127.0.0.1", "80", Hints::default()).await.unwrap();
        assert!(all.iter().any(|info| info.socket_type == Some(SocketType::Datagram)));
        let udp = Hints { socket_type: Some(SocketType::Datagram), ..Hints::default() };
        let udp = getaddrinfo("127.0.0.1", "80", udp).await.unwrap();
        assert!(udp.iter().all(|info| info.socket_type == Some(SocketType::Datagram)));

        getaddrinfo("localhost", "80", only(None, true, false)).await.unwrap_err();
        getaddrinfo("127.0.0.1", "80", only(Some(Family::V6), true, false)).await.unwrap_err();
        getaddrinfo("a\0b", "80", Hints::default()).await.unwrap_err();
        let same = rig.getaddrinfo("127.0.0.1", "80", only(None, true, false)).await.unwrap();
        assert_eq!(same, v4);
    });
}

#[test]
fn getnameinfo_gives_names_or_numbers() {
    let rig = Rig::new();
    rig.run(async {
        // A network for examples, whose addresses have no names; and a port without one.
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let (host, service) = getnameinfo(address).await.unwrap();
        assert!(!host.is_empty() && !service.is_empty());
        assert_eq!(rig.getnameinfo(address).await.unwrap(), (host, service));
    });
}

#[test]
fn questions_are_logged_with_their_time_and_slow_ones_louder() {
    let rig = Rig::new();
    let ask = || rig.run(getaddrinfo("127.0.0.1", "80", Hints::default())).unwrap();
    let (_, lines) = logged(ask);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.starts_with("DEBUG resolved host=\"127.0.0.1\" took="), "{line}");
    rig.set_slow_callback_duration(Duration::ZERO);
    let (_, lines) = logged(ask);
    assert!(lines[0].starts_with("INFO resolved slowly"), "{lines:?}");
}

#[test]
fn a_question_that_is_given_up_is_answered_to_nobody() {
    /// Keeps what it is to do.
    #[derive(Clone, Default)]
    struct Lazy(Arc<Mutex<Vec<Job>>>);
    impl Executor for Lazy {
        fn execute(&self, job: Job) -> Result<(), ExecutorError> {
            self.0.lock().unwrap().push(job);
            Ok(())
        }

        fn shutdown(&self) {}

        fn shutdown_and_wait(&self, _: Option<Duration>) -> Result<(), Stragglers> {
            Ok(())
        }
    }
    let rig = Rig::new();
    let lazy = Lazy::default();
    rig.set_default_executor(lazy.clone());
    rig.run(async {
        let ask = || getaddrinfo("127.0.0.1", "80", Hints::default());
        let (given_up, asking) = (spawn(ask()), spawn(ask()));
        yield_now().await;
        given_up.cancel();
        assert!(given_up.await.is_err());
        let jobs = std::mem::take(&mut *lazy.0.lock().unwrap());
        assert_eq!(jobs.len(), 2);
        jobs.into_iter().for_each(Job::run);
        assert!(asking.await.unwrap().is_ok());
    });
}

#[test]
fn b145_what_cannot_be_a_name_is_refused_and_nobody_is_asked() {
    let rig = Rig::new();
    rig.run(async {
        let book = Book::of(&rig);
        let long = "a.".repeat(127);
        let names = [
            "a\0b",
            "localhost\0.example",
            "a b",
            "127.0.0.1\n",
            "127.0.0.1 ",
            "a\tb",
            "a..b",
            ".a",
            ".",
            "..",
            "a\u{a0}b",
            &"x".repeat(254),
            &format!("{long}ab"),
            &"x".repeat(1 << 20),
        ];
        for name in names {
            let error = create_connection((name, 80), || Echo).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}: {error}");
            let text = error.to_string();
            assert!(text.starts_with("cannot resolve ") && text.len() < 400, "{text}");
            assert!(!text.contains(['\0', '\n']), "{text:?}");
            let error = getaddrinfo(name, "80", Hints::default()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}: {error}");
        }
        assert!(book.asked.take().is_empty());
        let error = getaddrinfo("localhost", "8\x000", Hints::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn b145_names_that_are_odd_are_asked_for_as_they_are() {
    let rig = Rig::new();
    rig.run(async {
        let book = Book::of(&rig);
        let (server, address) = echo_server().await;
        let longest = format!("{}ab", "a.".repeat(125));
        for name in [
            "-x",
            "--help",
            "münchen.example",
            "xn--mnchen-3ya",
            "a.b.",
            "0x7f.1",
            "127.1",
            &longest,
        ] {
            book.enter(name, &[address]);
            assert_served(Connect::to((name, 1))).await;
            assert_eq!(book.asked.take(), [name]);
        }
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn b145_the_system_gives_an_error_or_an_address_for_any_name() {
    let rig = Rig::new();
    rig.run(async {
        let numeric = Hints { numeric_host: true, ..Hints::default() };
        for name in
            ["-x", "--help", "münchen", "%", "1.2.3.4.5", "[::1]", "::1%", "256.1.1.1", "💐"]
        {
            getaddrinfo(name, "80", numeric).await.unwrap_err();
        }
        for name in ["127.1", "0x7f.1", "2130706433", "0177.0.0.1"] {
            // Numbers by the old rules: this address or none, never another.
            for found in getaddrinfo(name, "80", numeric).await.unwrap_or_default() {
                assert_eq!(found.address.ip(), IpAddr::from(Ipv4Addr::LOCALHOST), "{name}");
            }
        }
    });
}

#[test]
fn ports_are_digits_and_nothing_else() {
    let rig = Rig::new();
    rig.run(async {
        for text in [
            "localhost:",
            "localhost",
            "localhost:+80",
            "localhost:-1",
            "localhost:65536",
            "localhost:http",
            "localhost:8 0",
            "localhost: 80",
            "localhost:80 ",
            "localhost:٣",
            "localhost:0x50",
            "::1:80",
            "",
        ] {
            let error = create_connection(text, || Echo).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}: {error}");
        }
    });
}

/// Has each job done by a thread of its own, when it is let go.
#[derive(Clone, Default)]
struct Stuck(Arc<(Mutex<bool>, std::sync::Condvar)>, Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>);

impl Stuck {
    fn let_go(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
        for thread in self.1.lock().unwrap().drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Executor for Stuck {
    fn execute(&self, job: Job) -> Result<(), ExecutorError> {
        let gate = self.0.clone();
        let thread = std::thread::spawn(move || {
            let mut open = gate.0.lock().unwrap();
            while !*open {
                open = gate.1.wait(open).unwrap();
            }
            drop(open);
            job.run();
        });
        self.1.lock().unwrap().push(thread);
        Ok(())
    }

    fn shutdown(&self) {}

    fn shutdown_and_wait(&self, _: Option<Duration>) -> Result<(), Stragglers> {
        Ok(())
    }
}

#[test]
fn b146_a_stuck_resolver_blocks_neither_the_loop_nor_its_close() {
    let stuck = Stuck::default();
    {
        let rig = Rig::new();
        rig.set_default_executor(stuck.clone());
        rig.run(async {
            let connecting = Connect::to("localhost:1").timeout(Duration::from_millis(20));
            let late = connecting.open(|| Echo).await.unwrap_err();
            assert_eq!(late.kind(), ErrorKind::TimedOut);
            // The loop goes on with everything else, numeric addresses among it.
            let (server, address) = echo_server().await;
            assert_served(Connect::to(address)).await;
            server.shutdown(Duration::from_secs(1)).await;
            let asking = spawn(getaddrinfo("localhost", "80", Hints::default()));
            yield_now().await;
            asking.cancel();
            assert!(asking.await.is_err());
        });
        assert_eq!(stuck.1.lock().unwrap().len(), 2);
        // Closes it: nobody is waited for.
    }
    // The answers come when nobody is there any more.
    stuck.let_go();
}

#[test]
fn b146_a_resolver_of_ones_own_that_never_answers_is_given_up_with_its_caller() {
    use std::cell::Cell;
    use std::rc::Rc;
    use tulipa_loop::LoopHandle;
    use tulipa_protocols::{Datagrams, Resolved, Resolver};
    struct Never(Rc<Cell<usize>>);
    struct Open(Rc<Cell<usize>>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    impl Resolver for Never {
        fn resolve(&self, _: &LoopHandle, _: &str, _: u16) -> Resolved {
            self.0.set(self.0.get() + 1);
            let open = Open(self.0.clone());
            Box::pin(async move {
                let _open = open;
                std::future::pending().await
            })
        }
    }
    struct Deaf;
    impl tulipa_protocols::DatagramProtocol for Deaf {
        fn datagram_received(
            &mut self,
            _: &tulipa_protocols::DatagramTransport,
            _: &[u8],
            _: &tulipa_protocols::Address,
        ) -> std::io::Result<()> {
            Ok(())
        }
    }
    let open = Rc::new(Cell::new(0));
    let rig = Rig::new();
    set_resolver(&rig, Some(Rc::new(Never(open.clone()))));
    rig.run(async {
        let asking = spawn(create_connection("somewhere:1", || Echo));
        let datagrams = spawn(Datagrams::to("somewhere:1").open(|| Deaf));
        yield_now().await;
        assert_eq!(open.get(), 2);
        asking.cancel();
        datagrams.cancel();
        assert!(asking.await.is_err() && datagrams.await.is_err());
        assert_eq!(open.get(), 0);
        // One is left for the loop to close.
        drop(spawn(create_connection("somewhere:1", || Echo)));
        yield_now().await;
        assert_eq!(open.get(), 1);
    });
    rig.close().unwrap();
    assert_eq!(open.get(), 0);
    let reports = rig.reports();
    assert!(
        reports.len() == 1 && reports[0].contains("destroyed but it is pending"),
        "{reports:?}"
    );
}
