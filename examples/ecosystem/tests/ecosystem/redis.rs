//! redis: one connection for many tasks, whose driver is a task of the loop.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncCommands, AsyncConnectionConfig, ErrorKind, ProtocolVersion, PushInfo, PushKind,
    RedisConnectionInfo, RedisResult, Value,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tulipa::{
    ReadError, ReadWrite, StreamReader, StreamWriter, Streams, duplex, gather,
    open_unix_connection, spawn, start_unix_server, timeout,
};

use crate::server::{Scratch, Server, command, find, skipped};
use crate::support::{assert_no_tokio, in_real_time, in_virtual_time};

/// A connection over these streams, and what the server pushes. The timeouts of the library would be those of a
/// runtime; ours are `timeout`.
async fn connect(streams: Streams) -> (MultiplexedConnection, UnboundedReceiver<PushInfo>) {
    let (sender, pushes) = unbounded_channel();
    let info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(sender);
    let stream = ReadWrite::from(streams).into_send();
    let connected = MultiplexedConnection::new_with_config(&info, stream, config).await;
    let (connection, driver) = connected.expect("it answers");
    // It ends with the last clone of the connection.
    drop(spawn(async move {
        assert_no_tokio();
        driver.await;
    }));
    (connection, pushes)
}

/// What is asked of any server: `open` makes streams to it.
async fn exercise(open: impl AsyncFn() -> Streams) {
    let (mut connection, mut pushes) = connect(open().await).await;
    let _: () = connection.set("name", "tulip").await.unwrap();
    assert_eq!(connection.get("name").await, Ok("tulip".to_owned()));
    assert_eq!(connection.get("nothing").await, Ok(None::<String>));
    let large = vec![7_u8; 300_000];
    let _: () = connection.set("large", &large).await.unwrap();
    assert!(connection.get("large").await == Ok(large));

    // Many tasks over one connection.
    let answers = gather((0..20).map(|_| {
        let mut connection = connection.clone();
        spawn(async move { connection.incr("count", 1).await })
    }));
    let mut counts: Vec<i64> = Vec::new();
    for count in answers.await {
        let count: RedisResult<i64> = count.unwrap();
        counts.push(count.unwrap());
    }
    counts.sort_unstable();
    assert_eq!(counts, Vec::from_iter(1..=20));

    let mut pipeline = redis::pipe();
    pipeline.set("a", 1).ignore().incr("a", 41).get("a").get("nothing");
    let answers: (i64, String, Option<String>) =
        pipeline.query_async(&mut connection).await.unwrap();
    assert_eq!(answers, (42, "42".to_owned(), None));

    let error = connection.incr::<_, _, i64>("name", 1).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Server(_)), "{error:?}");
    assert!(error.to_string().contains("not an integer"), "{error}");

    // One connection hears what the other one says.
    connection.subscribe("news").await.unwrap();
    let (mut other, _) = connect(open().await).await;
    assert_eq!(other.publish("news", "spring").await, Ok(1));
    let mut news = pushes.recv().await.unwrap();
    while news.kind != PushKind::Message {
        news = pushes.recv().await.unwrap();
    }
    let text = |text: &str| Value::BulkString(text.into());
    assert_eq!(news.data, [text("news"), text("spring")]);
}

/// A database in memory that knows the commands above.
#[derive(Default)]
struct Database {
    values: HashMap<Vec<u8>, Vec<u8>>,
    listeners: Vec<(Vec<u8>, Rc<StreamWriter>)>,
}

/// A number behind this letter.
async fn number(reader: &mut StreamReader, letter: u8) -> Result<usize, ReadError> {
    let line = reader.read_line().await?;
    let text =
        std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(char::from(letter)));
    let number = text.and_then(|text| text.trim_end().parse().ok());
    Ok(number.ok_or(io::Error::new(io::ErrorKind::InvalidData, "no number"))?)
}

/// The next request: an array of strings; `None` at the end.
async fn request(reader: &mut StreamReader) -> Result<Option<Vec<Vec<u8>>>, ReadError> {
    if reader.fill().await?.is_empty() {
        return Ok(None);
    }
    let mut words = Vec::new();
    for _ in 0..number(reader, b'*').await? {
        let length = number(reader, b'$').await?;
        // The string, and the end of its line.
        let mut word = vec![0; length + 2];
        reader.read_exact(&mut word).await?;
        word.truncate(length);
        words.push(word);
    }
    Ok(Some(words))
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

impl Database {
    fn answer(&mut self, words: &[Vec<u8>], writer: &Rc<StreamWriter>) -> Vec<u8> {
        let name = words[0].to_ascii_uppercase();
        match (&*name, &words[1..]) {
            (b"HELLO", _) => b"%1\r\n$5\r\nproto\r\n:3\r\n".to_vec(),
            (b"CLIENT", _) => b"+OK\r\n".to_vec(),
            (b"SET", [key, value]) => {
                self.values.insert(key.clone(), value.clone());
                b"+OK\r\n".to_vec()
            }
            (b"GET", [key]) => self.values.get(key).map_or(b"_\r\n".to_vec(), |value| bulk(value)),
            (b"INCR" | b"INCRBY", [key, step @ ..]) => {
                let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
                let value = self.values.get(key).map_or(Some(0), |value| number(value));
                let step = step.first().map_or(Some(1), |step| number(step));
                let Some(sum) = value.zip(step).and_then(|(a, b)| a.checked_add(b)) else {
                    return b"-ERR value is not an integer or out of range\r\n".to_vec();
                };
                self.values.insert(key.clone(), sum.to_string().into_bytes());
                format!(":{sum}\r\n").into_bytes()
            }
            (b"SUBSCRIBE", [channel]) => {
                self.listeners.push((channel.clone(), writer.clone()));
                [b">3\r\n$9\r\nsubscribe\r\n", &*bulk(channel), b":1\r\n"].concat()
            }
            (b"PUBLISH", [channel, text]) => {
                let message = [b">3\r\n$7\r\nmessage\r\n", &*bulk(channel), &bulk(text)].concat();
                let mut count = 0;
                for (_, writer) in self.listeners.iter().filter(|(name, _)| name == channel) {
                    writer.write(&message);
                    count += 1;
                }
                format!(":{count}\r\n").into_bytes()
            }
            _ => b"-ERR unknown command\r\n".to_vec(),
        }
    }
}

/// Serves one client from the database.
async fn serve(streams: Streams, database: Rc<RefCell<Database>>) -> Result<(), ReadError> {
    let (mut reader, writer) = streams;
    let writer = Rc::new(writer);
    while let Some(words) = request(&mut reader).await? {
        let answer = database.borrow_mut().answer(&words, &writer);
        writer.write(&answer);
        writer.drain().await?;
    }
    database.borrow_mut().listeners.retain(|(_, listener)| !Rc::ptr_eq(listener, &writer));
    Ok(())
}

#[test]
fn redis_talks_in_memory() {
    in_virtual_time(async || {
        let database = Rc::default();
        exercise(async || {
            let (near, far) = duplex().await.unwrap();
            drop(spawn(serve(far, Rc::clone(&database))));
            near
        })
        .await;
    });
}

#[test]
fn redis_talks_over_a_unix_socket() {
    in_real_time(async || {
        let scratch = Scratch::new();
        let path = scratch.path().join("socket");
        let database = Rc::default();
        let server = start_unix_server(&path, async move |reader, writer| {
            serve((reader, writer), Rc::clone(&database)).await
        });
        let server = server.await.unwrap();
        exercise(async || open_unix_connection(&path).await.unwrap()).await;
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn redis_talks_to_a_real_server() {
    let program = find("redis-server", &[]).and_then(|program| command(&program));
    let Some(mut server) = program else {
        skipped("no redis-server");
        return;
    };
    let scratch = Scratch::new();
    let path = scratch.path().join("socket");
    server.args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"]).arg(scratch.path());
    server.arg("--unixsocket").arg(&path);
    let _server = Server::start(server, "eady to accept connections");
    in_real_time(async || exercise(async || open_unix_connection(&path).await.unwrap()).await);
}

#[test]
fn requests_to_redis_time_out_by_the_clock_of_the_loop() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        // Answers the greeting, and then nothing more.
        let server = spawn(async move {
            let (mut reader, writer) = far;
            let database = Rc::new(RefCell::new(Database::default()));
            let writer = Rc::new(writer);
            while let Some(words) = request(&mut reader).await? {
                if words[0] != b"GET" {
                    writer.write(&database.borrow_mut().answer(&words, &writer));
                }
            }
            Ok::<_, ReadError>(())
        });
        let (mut connection, _pushes) = connect(near).await;
        let asked = timeout(Duration::from_secs(5), connection.get::<_, String>("name"));
        assert!(asked.await.is_err());
        drop(connection);
        server.await.unwrap().unwrap();
    });
}

#[test]
fn requests_fail_when_redis_is_gone() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        let server = spawn(async move {
            let (mut reader, writer) = far;
            let writer = Rc::new(writer);
            while let Some(words) = request(&mut reader).await? {
                if words[0] == b"GET" {
                    break;
                }
                writer.write(&Database::default().answer(&words, &writer));
            }
            Ok::<_, ReadError>(())
        });
        let (mut connection, _pushes) = connect(near).await;
        let error = connection.get::<_, String>("name").await.unwrap_err();
        assert!(error.is_connection_dropped(), "{error:?}");
        server.await.unwrap().unwrap();
    });
}
