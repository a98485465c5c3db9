//! smol: async-io's reactor under async-executor's local executor.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::rc::Rc;

use async_executor::LocalExecutor;
use async_io::Async;
use futures_lite::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{BUFFER, Mode, announce};

pub(super) fn serve(mode: Mode) {
    let executor = Rc::new(LocalExecutor::new());
    let spawner = executor.clone();
    async_io::block_on(executor.run(async move {
        let listener = Async::new(super::listen()).expect("a socket");
        announce(listener.get_ref().local_addr().expect("it is bound"));
        while let Ok((stream, _)) = listener.accept().await {
            stream.get_ref().set_nodelay(true).expect("a socket");
            spawner.spawn(talk(mode, stream)).detach();
        }
    }));
}

async fn talk(mode: Mode, stream: Async<TcpStream>) {
    // The client goes as it likes.
    let _ = match mode {
        Mode::Lines => lines(stream).await,
        Mode::Idle => idle(stream).await,
        Mode::Echo | Mode::Http => echo(stream).await,
    };
}

async fn echo(mut stream: Async<TcpStream>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

async fn idle(mut stream: Async<TcpStream>) -> io::Result<()> {
    loop {
        stream.readable().await?;
        match super::read_shared(|buffer| stream.get_ref().read(buffer)) {
            Ok(data) if data.is_empty() => return Ok(()),
            Ok(data) => stream.write_all(&data).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn lines(stream: Async<TcpStream>) -> io::Result<()> {
    let (mut reader, mut line) = (BufReader::new(&stream), Vec::new());
    let mut writer = &stream;
    while reader.read_until(b'\n', &mut line).await? > 0 {
        writer.write_all(&line).await?;
        line.clear();
    }
    Ok(())
}
