//! WebSockets by async-tungstenite, both sides.

use std::time::Duration;

use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{WebSocketStream, accept_async, client_async};
use futures_lite::StreamExt;
use tulipa::{ReadWrite, Streams, duplex, open_connection, spawn, start_server};

use crate::support::{assert_no_tokio, in_real_time, in_virtual_time};

/// Sends back what is text or binary, until the client closes.
async fn echo(streams: Streams) -> Result<usize, Error> {
    assert_no_tokio();
    let mut socket = accept_async(ReadWrite::from(streams)).await?;
    let mut count = 0;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            count += 1;
            socket.send(message).await?;
        }
    }
    Ok(count)
}

async fn connect(streams: Streams) -> WebSocketStream<ReadWrite> {
    let stream = ReadWrite::from(streams);
    let (socket, response) = client_async("ws://localhost/", stream).await.unwrap();
    assert_eq!(response.status(), 101);
    socket
}

/// Each kind of message there and back, then the closing handshake.
async fn talk(streams: Streams) {
    let mut socket = connect(streams).await;
    let messages = [
        Message::text("text"),
        Message::text("größer als ein Byte"),
        Message::text(""),
        Message::binary(vec![0, 255, 7]),
        Message::binary(vec![7; 300_000]),
    ];
    for message in messages {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
    let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    socket.close(Some(frame.clone())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Close(Some(frame)));
    assert!(socket.next().await.is_none());
}

#[test]
fn websockets_talk_over_tcp() {
    in_real_time(async || {
        let server = start_server("127.0.0.1:0", async |reader, writer| {
            echo((reader, writer)).await.map(|count| assert_eq!(count, 5))
        });
        let server = server.await.unwrap();
        talk(open_connection(server.local_addrs()[0].inet().unwrap()).await.unwrap()).await;
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn websockets_talk_in_memory() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        let server = spawn(echo(far));
        talk(near).await;
        assert_eq!(server.await.unwrap().unwrap(), 5);
    });
}

#[test]
fn a_websocket_that_ends_without_closing_is_an_error() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        let server = spawn(echo(far));
        let mut socket = connect(near).await;
        socket.send(Message::text("one")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("one"));
        drop(socket);
        let error = server.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Protocol(_)), "{error:?}");
    });
}

#[test]
fn what_is_no_websocket_is_refused() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        let server = spawn(echo(far));
        let (mut reader, writer) = near;
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
        let error = server.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Protocol(_)), "{error:?}");
        reader.read_to_end(10_000).await.unwrap();
    });
}
