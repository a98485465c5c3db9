//! tokio's current-thread runtime, with tasks that may move and with such as stay.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::{BUFFER, Mode, announce, http};

pub(super) fn current_thread(mode: Mode) {
    runtime().block_on(async {
        let listener = listen();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(mode, stream));
        }
    });
}

pub(super) fn local_set(mode: Mode) {
    LocalSet::new().block_on(&runtime(), async {
        let listener = listen();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(talk(mode, stream));
        }
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn listen() -> TcpListener {
    let listener = TcpListener::from_std(super::listen()).expect("a socket");
    announce(listener.local_addr().expect("it is bound"));
    listener
}

async fn talk(mode: Mode, stream: TcpStream) {
    stream.set_nodelay(true).expect("a socket");
    match mode {
        Mode::Http => http::over_tokio(stream).await,
        // The client goes as it likes.
        Mode::Echo => drop(echo(stream).await),
        Mode::Lines => drop(lines(stream).await),
        Mode::Idle => drop(idle(stream).await),
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

async fn idle(mut stream: TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        match super::read_shared(|buffer| stream.try_read(buffer)) {
            Ok(data) if data.is_empty() => return Ok(()),
            Ok(data) => stream.write_all(&data).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn lines(mut stream: TcpStream) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let (mut reader, mut line) = (BufReader::new(reader), Vec::new());
    while reader.read_until(b'\n', &mut line).await? > 0 {
        writer.write_all(&line).await?;
        line.clear();
    }
    Ok(())
}
