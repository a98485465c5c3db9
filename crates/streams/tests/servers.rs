//! Servers whose handlers are coroutines, and connecting to them, over sockets.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use common::in_real_time;
use tulipa_loop::{current_task, sleep, spawn};
use tulipa_protocols::{Address, Connect, Listen, Server, create_server};
use tulipa_streams::{
    ReadError, StreamProtocol, StreamReader, StreamWriter, open_connection, open_connection_with,
    open_unix_connection, start_server, start_server_with, start_unix_server,
};

fn address(server: &Server) -> std::net::SocketAddr {
    server.local_addrs()[0].inet().expect("it is an internet address")
}

/// What a client gets until the end.
async fn everything(server: &Server) -> Vec<u8> {
    let (mut reader, _writer) = open_connection(address(server)).await.unwrap();
    reader.read_to_end(1 << 20).await.unwrap()
}

#[test]
fn a_client_and_a_server_talk_in_lines() {
    in_real_time(async |_| {
        let server = start_server("127.0.0.1:0", async |mut reader, writer| {
            loop {
                let line = reader.read_line().await?;
                if line.is_empty() {
                    return Ok::<(), ReadError>(());
                }
                writer.write(&line.to_ascii_uppercase());
                writer.drain().await?;
            }
        });
        let server = server.await.unwrap();
        let (mut reader, writer) = open_connection(address(&server)).await.unwrap();
        assert_eq!(writer.peer_addr().unwrap().inet(), Some(address(&server)));
        assert_eq!(reader.limit(), 64 * 1024);
        for _ in 0..3 {
            writer.write(b"hello\n");
            assert_eq!(reader.read_line().await.unwrap(), b"HELLO\n");
        }
        writer.write_eof();
        assert_eq!(reader.read_line().await.unwrap(), b"");
        writer.wait_closed().await.unwrap();
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn the_unix_forms_do_the_same() {
    in_real_time(async |_| {
        let name = format!("tulipa-streams-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let server = start_unix_server(&path, async |mut reader, writer| {
            let line = reader.read_line().await.unwrap().to_vec();
            writer.write(&line);
        });
        let server = server.await.unwrap();
        let (mut reader, writer) = open_unix_connection(&path).await.unwrap();
        writer.write(b"hello\n");
        assert_eq!(reader.read_line().await.unwrap(), b"hello\n");
        assert!(matches!(writer.peer_addr(), Some(Address::Path(peer)) if peer == path));
        server.shutdown(Duration::from_secs(1)).await;
        assert!(!path.exists());
    });
}

#[test]
fn a_connection_that_is_refused_is_an_error() {
    in_real_time(async |_| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = open_connection(address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn limits_are_those_that_were_asked_for() {
    in_real_time(async |_| {
        let listen = Listen::on("127.0.0.1:0");
        let server = start_server_with(listen, 123, async |reader: StreamReader, writer| {
            writer.write(reader.limit().to_string().as_bytes());
        });
        let server = server.await.unwrap();
        let connect = Connect::to(address(&server));
        let (mut reader, _writer) = open_connection_with(connect, 77).await.unwrap();
        assert_eq!(reader.limit(), 77);
        assert_eq!(reader.read_to_end(100).await.unwrap(), b"123");
    });
}

#[test]
#[should_panic = "the limit of a stream must be above 0"]
fn a_limit_of_nothing_is_a_bug() {
    in_real_time(async |_| {
        let _never = open_connection_with(Connect::to("127.0.0.1:1"), 0).await;
    });
}

#[test]
fn a_handler_that_returns_closes_after_what_it_wrote() {
    in_real_time(async |_| {
        let server = start_server("127.0.0.1:0", async |_reader, writer: StreamWriter| {
            // More than the buffers on the way hold.
            writer.write(&vec![7; 900_000]);
        });
        let server = server.await.unwrap();
        assert_eq!(everything(&server).await, vec![7; 900_000]);
    });
}

#[test]
fn a_handler_that_returns_closes_though_somebody_has_a_clone_of_its_writer() {
    in_real_time(async |_| {
        let kept = Rc::new(RefCell::new(None));
        let keep = kept.clone();
        let server = start_server("127.0.0.1:0", async move |reader, writer: StreamWriter| {
            writer.write(b"kept");
            *keep.borrow_mut() = Some((reader, writer.clone()));
        });
        let server = server.await.unwrap();
        assert_eq!(everything(&server).await, b"kept");
        assert!(kept.borrow().is_some());
    });
}

#[test]
fn b96_a_handler_that_fails_is_closed_and_reported_once_and_the_server_lives() {
    in_real_time(async |rig| {
        let server = start_server("127.0.0.1:0", async |_reader, writer: StreamWriter| {
            writer.write(b"before");
            Err::<(), _>(io::Error::other("no more coffee"))
        });
        let server = server.await.unwrap();
        for _ in 0..3 {
            assert_eq!(everything(&server).await, b"before");
            let reports = rig.reports.take();
            assert_eq!(reports.len(), 1, "{reports:?}");
            assert!(reports[0].starts_with("the handler of 127.0.0.1:"), "{reports:?}");
            assert!(reports[0].contains("failed: no more coffee"), "{reports:?}");
            assert!(reports[0].contains("servers.rs:"), "{reports:?}");
        }
    });
}

#[test]
fn b96_a_handler_that_panics_is_closed_and_reported_once_and_the_server_lives() {
    in_real_time(async |rig| {
        let server = start_server("127.0.0.1:0", async |_reader, writer: StreamWriter| {
            writer.write(b"before");
            if writer.peer_addr().is_some() {
                panic!("no more tea");
            }
        });
        let server = server.await.unwrap();
        for _ in 0..3 {
            assert_eq!(everything(&server).await, b"before");
            let reports = rig.reports.take();
            assert_eq!(reports.len(), 1, "{reports:?}");
            assert!(reports[0].contains("no more tea"), "{reports:?}");
        }
    });
}

#[test]
fn a_handler_that_is_cancelled_is_closed_and_not_reported() {
    in_real_time(async |_| {
        let server = start_server("127.0.0.1:0", async |mut reader: StreamReader, writer| {
            writer.write(b"before");
            current_task().expect("a handler is a task").cancel();
            let _never = reader.read_line().await;
            writer.write(b"after");
        });
        let server = server.await.unwrap();
        for _ in 0..3 {
            assert_eq!(everything(&server).await, b"before");
        }
    });
}

#[test]
fn a_handler_may_hand_its_halves_to_other_tasks_and_wait_for_them() {
    in_real_time(async |_| {
        let server = start_server("127.0.0.1:0", async |mut reader: StreamReader, writer| {
            let clone: StreamWriter = writer.clone();
            let echo = spawn(async move {
                while let Ok(line) = reader.read_line().await {
                    if line.is_empty() {
                        break;
                    }
                    clone.write(line);
                }
            });
            echo.await.unwrap();
            writer.write(b"done");
        });
        let server = server.await.unwrap();
        let (mut reader, writer) = open_connection(address(&server)).await.unwrap();
        writer.write(b"one\ntwo\n");
        writer.write_eof();
        assert_eq!(reader.read_to_end(100).await.unwrap(), b"one\ntwo\ndone");
    });
}

#[test]
fn a_plain_function_may_be_given_the_streams() {
    in_real_time(async |_| {
        let count = Rc::new(Cell::new(0));
        let counted = count.clone();
        let factory = move || {
            let count = counted.clone();
            StreamProtocol::new(move |_reader, writer| {
                count.set(count.get() + 1);
                writer.write(b"hello");
            })
        };
        let server = create_server("127.0.0.1:0", factory).await.unwrap();
        assert_eq!(everything(&server).await, b"hello");
        assert_eq!(everything(&server).await, b"hello");
        assert_eq!(count.get(), 2);
    });
}

#[test]
fn a_server_that_is_closed_lets_its_handlers_finish_and_one_that_is_shut_down_ends_them() {
    in_real_time(async |_| {
        let server = start_server("127.0.0.1:0", async |mut reader: StreamReader, writer| {
            writer.write(b"welcome\n");
            let line = reader.read_line().await.unwrap_or_default().to_vec();
            writer.write(&line);
        });
        let server = server.await.unwrap();
        let (mut good, writer) = open_connection(address(&server)).await.unwrap();
        writer.write(b"finish me\n");
        assert_eq!(good.read_line().await.unwrap(), b"welcome\n");
        let (mut idle, _idle_writer) = open_connection(address(&server)).await.unwrap();
        assert_eq!(idle.read_line().await.unwrap(), b"welcome\n");
        server.close();
        assert_eq!(good.read_line().await.unwrap(), b"finish me\n");
        assert_eq!(good.read_line().await.unwrap(), b"");
        drop((good, writer));
        assert_eq!(server.client_count(), 1, "the other one is not finished");
        server.shutdown(Duration::from_secs(1)).await;
        assert_eq!(idle.read_line().await.unwrap(), b"");
        server.wait_closed().await;
    });
}

#[test]
fn giving_up_an_open_connection_ends_it() {
    in_real_time(async |_| {
        let ended = Rc::new(Cell::new(0));
        let counted = ended.clone();
        let server = start_server("127.0.0.1:0", async move |mut reader: StreamReader, _writer| {
            assert_eq!(reader.read_line().await.unwrap(), b"");
            counted.set(counted.get() + 1);
        });
        let server = server.await.unwrap();
        for polls in 1..4 {
            let mut opening = std::pin::pin!(open_connection(address(&server)));
            for _ in 0..polls {
                let _given_up = futures_lite::future::poll_once(opening.as_mut()).await;
                if _given_up.is_some() {
                    break;
                }
                tulipa_loop::yield_now().await;
            }
        }
        let _last = open_connection(address(&server)).await.unwrap();
        drop(_last);
        while ended.get() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    });
}
