//! A loop inside of another one. The program has a main loop already, here one over mio; a toolkit for windows or a game
//! would do. Ours joins it: the outer loop sleeps on our descriptor and until our next timer, and runs one turn of ours
//! whenever it wakes. Nothing is polled, and there is no second thread for it.
//!
//! `cargo run --example embedded_loop`
//!
//! The outer loop hears of keys. For each one a task of the inner loop asks an echo server, and says what it answered.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use tulipa::selector::Timeout;
use tulipa::{EventLoop, ReadError, open_connection, start_server};

const KEYS: Token = Token(0);
const INNER: Token = Token(1);

/// Sleeps until something happens outside or inside, or a timer of the inner loop is due.
fn sleep(poll: &mut Poll, events: &mut Events, inner: &EventLoop) -> io::Result<()> {
    let fd = inner.backend_fd().ok_or(io::ErrorKind::Unsupported)?;
    // Anew for each sleep: mio tells of changes only, and the inner loop may have something left to do.
    poll.registry().register(&mut SourceFd(&fd), INNER, Interest::READABLE)?;
    let timeout = inner.next_deadline().map(|due| due.saturating_duration_since(inner.time()));
    let slept = poll.poll(events, timeout);
    poll.registry().deregister(&mut SourceFd(&fd))?;
    match slept {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        slept => slept,
    }
}

/// The key that ends the program.
const QUIT: char = 'q';

/// Presses keys, each when the one before was answered.
fn press(keys: &Sender<char>, waker: &Waker, answered: &Receiver<()>) {
    for key in ['a', 'b', 'c', QUIT] {
        if keys.send(key).is_err() || waker.wake().is_err() || answered.recv().is_err() {
            return;
        }
    }
}

/// What the inner loop does for a key: it may wait, and nobody else has to.
async fn ask(server: std::net::SocketAddr, key: char) -> Result<(), ReadError> {
    let (mut reader, writer) = open_connection(server).await?;
    writer.write(format!("{key}\n").as_bytes());
    let answer = reader.read_line().await?;
    println!("inner: the server says {:?}", String::from_utf8_lossy(answer).trim_end());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let inner = EventLoop::new()?;
    let server =
        inner.run_until_complete(start_server("127.0.0.1:0", async |mut reader, writer| {
            let line = reader.read_line().await?;
            writer.write(&line.to_ascii_uppercase());
            Ok::<(), ReadError>(())
        }))??;
    let address = server.local_addrs()[0].inet().ok_or("the server has an address")?;

    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let waker = Waker::new(poll.registry(), KEYS)?;
    let ((sender, keys), (answers, answered)) = (mpsc::channel(), mpsc::channel());
    let user = thread::spawn(move || press(&sender, &waker, &answered));
    'program: loop {
        sleep(&mut poll, &mut events, &inner)?;
        for key in keys.try_iter() {
            if key == QUIT {
                break 'program;
            }
            println!("outer: the key {key:?}");
            let answers = answers.clone();
            drop(inner.spawn(async move {
                ask(address, key).await.expect("the server answers");
                let _nobody_presses = answers.send(());
            }));
        }
        inner.run_once(Timeout::Immediate)?;
    }
    drop(answers);
    user.join().expect("nobody panics");
    println!("outer: the end");
    Ok(())
}
