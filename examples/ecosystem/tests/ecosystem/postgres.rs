//! tokio-postgres: a client whose connection is a task of the loop.

use std::io;
use std::path::{Path, PathBuf};

use futures_lite::future::{poll_fn, zip};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};
use tulipa::{
    ReadError, ReadWrite, StreamReader, Streams, Task, duplex, open_unix_connection, spawn,
};

use crate::server::{Scratch, Server, command, find, skipped};
use crate::support::{assert_no_tokio, in_real_time, in_virtual_time};

fn config() -> Config {
    let mut config = Config::new();
    config.user("tulipa").dbname("postgres");
    config
}

/// A client, and the task that drives its connection until the client is dropped.
async fn connect(streams: Streams) -> (Client, Task<Result<(), tokio_postgres::Error>>) {
    let stream = ReadWrite::from(streams);
    let (client, connection) = config().connect_raw(stream, NoTls).await.expect("it answers");
    let driver = spawn(async move {
        assert_no_tokio();
        connection.await
    });
    (client, driver)
}

/// Puts a message together: its letter, its length, what it says.
fn message(letter: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 4).expect("it is short").to_be_bytes();
    [&[letter][..], &length, &body].concat()
}

/// Reads what is behind a message's length.
async fn body(reader: &mut StreamReader) -> Result<Vec<u8>, ReadError> {
    let mut length = [0; 4];
    reader.read_exact(&mut length).await?;
    // It counts itself.
    let mut body = vec![0; u32::from_be_bytes(length) as usize - length.len()];
    reader.read_exact(&mut body).await?;
    Ok(body)
}

/// Plays a server that knows one table and no other words, by version 3 of the protocol.
async fn backend(streams: Streams) -> Result<usize, ReadError> {
    let (mut reader, writer) = streams;
    let startup = body(&mut reader).await?;
    assert_eq!(startup[..4], 196_608_u32.to_be_bytes());
    assert!(startup.windows(12).any(|part| part == b"user\0tulipa\0"), "{startup:?}");
    writer.write(&message(b'R', &[&0_u32.to_be_bytes()]));
    writer.write(&message(b'S', &[b"server_version\x0017.0\0"]));
    writer.write(&message(b'K', &[&[0, 0, 0, 7, 0, 0, 0, 9]]));
    let ready = message(b'Z', &[b"I"]);
    writer.write(&ready);
    let mut queries = 0;
    loop {
        let mut letter = [0];
        reader.read_exact(&mut letter).await?;
        let text = body(&mut reader).await?;
        match (letter[0], &*text) {
            (b'X', _) => return Ok(queries),
            (b'Q', b"SELECT name FROM flower\0") => {
                // One column of text (type 25) in one table.
                let column = [0, 0, 0, 1, 0, 1, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0];
                writer.write(&message(b'T', &[&[0, 1], b"name\0", &column]));
                writer.write(&message(b'D', &[&[0, 1, 0, 0, 0, 5], b"tulip"]));
                writer.write(&message(b'D', &[&[0, 1, 255, 255, 255, 255]]));
                writer.write(&message(b'C', &[b"SELECT 2\0"]));
            }
            (b'Q', _) => {
                let fields = b"SERROR\0VERROR\0C42P01\0Mthere is no such table\0\0";
                writer.write(&message(b'E', &[fields]));
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not in the script").into()),
        }
        queries += 1;
        writer.write(&ready);
        writer.drain().await?;
    }
}

#[test]
fn postgres_talks_in_memory() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        let server = spawn(backend(far));
        let (client, driver) = connect(near).await;
        // Two queries at once over one connection.
        let (rows, unknown) = zip(
            client.simple_query("SELECT name FROM flower"),
            client.simple_query("SELECT name FROM animal"),
        )
        .await;
        let names: Vec<_> = rows
            .unwrap()
            .iter()
            .filter_map(|row| match row {
                SimpleQueryMessage::Row(row) => Some(row.get("name").map(str::to_owned)),
                _ => None,
            })
            .collect();
        assert_eq!(names, [Some("tulip".to_owned()), None]);
        assert_eq!(unknown.unwrap_err().code(), Some(&SqlState::UNDEFINED_TABLE));
        drop(client);
        driver.await.unwrap().unwrap();
        assert_eq!(server.await.unwrap().unwrap(), 2);
    });
}

#[test]
fn queries_fail_when_postgres_is_gone() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        let server = spawn(backend(far));
        let (client, driver) = connect(near).await;
        server.cancel();
        assert!(server.await.is_err());
        let error = client.simple_query("SELECT name FROM flower").await.unwrap_err();
        assert!(error.is_closed(), "{error:?}");
        drop(client);
        assert!(driver.await.unwrap().is_err());
    });
}

/// The directories in which Debian and its kin put what is not for the path.
fn directories() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut directories: Vec<_> =
        versions.filter_map(|version| Some(version.ok()?.path().join("bin"))).collect();
    directories.sort();
    directories
}

/// A server with an empty database in this directory, where it is installed.
fn server(scratch: &Path) -> Option<Server> {
    let directories = directories();
    let mut make = command(&find("initdb", &directories)?)?;
    let mut server = command(&find("postgres", &directories)?)?;
    let data = scratch.join("data");
    make.args(["--auth=trust", "--username=tulipa", "--no-sync", "--no-locale"]);
    let made = make.args(["--encoding=UTF8", "--pgdata"]).arg(&data).output().expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    server.arg("-D").arg(&data).arg("-k").arg(scratch);
    for option in ["listen_addresses=", "fsync=off", "shared_buffers=1MB", "log_destination=stderr"]
    {
        server.args(["-c", option]);
    }
    Some(Server::start(server, "is ready to accept connections"))
}

#[test]
fn postgres_talks_to_a_real_server() {
    let scratch = Scratch::new();
    let Some(_server) = server(scratch.path()) else {
        skipped("no PostgreSQL, or nobody to run it as");
        return;
    };
    let path = scratch.path().join(".s.PGSQL.5432");
    let open = async || open_unix_connection(&path).await.unwrap();
    in_real_time(async || {
        let (mut client, driver) = connect(open().await).await;
        table(&mut client).await;
        transactions(&mut client).await;
        cancelled(&client, open().await, open().await).await;
        drop(client);
        driver.await.unwrap().unwrap();
        notifications(open().await, open().await).await;
    });
}

/// Parameters, rows, many queries at once.
async fn table(client: &mut Client) {
    client.batch_execute("CREATE TABLE flower (id BIGINT PRIMARY KEY, name TEXT)").await.unwrap();
    let insert = client.prepare("INSERT INTO flower VALUES ($1, $2)").await.unwrap();
    let client = &*client;
    let insert = &insert;
    for chunk in 0..10_i64 {
        let one = async |id: i64| {
            let name = (id != 0).then(|| format!("flower {id}"));
            client.execute(insert, &[&id, &name]).await.unwrap()
        };
        let both = zip(one(2 * chunk), one(2 * chunk + 1)).await;
        assert_eq!(both, (1, 1));
    }
    let rows = client.query("SELECT id, name FROM flower ORDER BY id", &[]).await.unwrap();
    let rows: Vec<(i64, Option<String>)> =
        rows.iter().map(|row| (row.get(0), row.get("name"))).collect();
    assert_eq!(rows.len(), 20);
    assert_eq!((&rows[0], &rows[7]), (&(0, None), &(7, Some("flower 7".to_owned()))));
    // More than any buffer on the way holds.
    let long = client.query_one("SELECT repeat('x', 3000000)", &[]).await.unwrap();
    assert_eq!(long.get::<_, &str>(0).len(), 3_000_000);
}

/// What is not committed has not been; an error says which.
async fn transactions(client: &mut Client) {
    let transaction = client.transaction().await.unwrap();
    assert_eq!(transaction.execute("DELETE FROM flower", &[]).await.unwrap(), 20);
    transaction.rollback().await.unwrap();
    let again = client.execute("INSERT INTO flower VALUES (1, 'again')", &[]).await.unwrap_err();
    assert_eq!(again.code(), Some(&SqlState::UNIQUE_VIOLATION));
    let count = client.query_one("SELECT count(*) FROM flower", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 20);
}

/// A query that takes too long is cancelled over another connection, once a third one sees that it runs.
async fn cancelled(client: &Client, watching: Streams, cancelling: Streams) {
    let token = client.cancel_token();
    let slow = client.batch_execute("SELECT pg_sleep(1000)");
    let cancel = async {
        let (watcher, driver) = connect(watching).await;
        let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        while watcher.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 0 {}
        token.cancel_query_raw(ReadWrite::from(cancelling), NoTls).await.unwrap();
        drop(watcher);
        driver.await.unwrap().unwrap();
    };
    let (result, ()) = zip(slow, cancel).await;
    assert_eq!(result.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
}

/// One connection hears what the other one says.
async fn notifications(hearing: Streams, saying: Streams) {
    let stream = ReadWrite::from(hearing);
    let (client, mut connection) = config().connect_raw(stream, NoTls).await.unwrap();
    let heard = spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message.unwrap() {
                return Some(notification.payload().to_owned());
            }
        }
        None
    });
    client.batch_execute("LISTEN news").await.unwrap();
    let (other, driver) = connect(saying).await;
    other.batch_execute("NOTIFY news, 'spring'").await.unwrap();
    assert_eq!(heard.await.unwrap().as_deref(), Some("spring"));
    drop((client, other));
    driver.await.unwrap().unwrap();
}
