//! hyper's server and client over our streams, on our loop, by our clock.
#![cfg(feature = "hyper")]

mod common;

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use common::{in_real_time, in_virtual_time, over};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Executor, Timer};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tulipa_loop::{LoopHandle, sleep, spawn, yield_now};
use tulipa_streams::{
    DEFAULT_LIMIT, LoopExecutor, LoopTimer, ReadWrite, Streams, open_connection, start_server,
};

type Body = Full<Bytes>;

/// Answers with how many requests there were, which is in an `Rc`: nothing here is `Send`.
async fn serve(streams: Streams, count: Rc<Cell<usize>>) -> Result<(), hyper::Error> {
    let service = service_fn(async |request: Request<Incoming>| {
        count.set(count.get() + 1);
        let body = request.into_body().collect().await.expect("it comes").to_bytes();
        let text = format!("request {}, {} bytes", count.get(), body.len());
        Ok::<_, Infallible>(Response::new(Body::from(text)))
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(LoopTimer).header_read_timeout(Duration::from_secs(5));
    builder.serve_connection(ReadWrite::from(streams), service).await
}

/// Makes two requests over one connection.
async fn ask(streams: Streams) {
    let handshake = hyper::client::conn::http1::handshake(ReadWrite::from(streams));
    let (mut sender, connection) = handshake.await.unwrap();
    let driver = spawn(connection);
    for (number, size) in [(1, 0), (2, 300_000)] {
        let request = Request::builder().method(Method::POST).uri("/").header("host", "here");
        let request = request.body(Body::from(vec![7; size])).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("request {number}, {size} bytes"));
    }
    drop(sender);
    driver.await.unwrap().unwrap();
}

#[test]
fn hypers_server_and_client_talk_over_tcp_on_one_thread() {
    in_real_time(async |_| {
        let count = Rc::new(Cell::new(0));
        let counted = count.clone();
        let server = start_server("127.0.0.1:0", async move |reader, writer| {
            serve((reader, writer), counted.clone()).await
        });
        let server = server.await.unwrap();
        let address = server.local_addrs()[0].inet().unwrap();
        ask(open_connection(address).await.unwrap()).await;
        assert_eq!(count.get(), 2);
        server.shutdown(Duration::from_secs(1)).await;
        // The handler hears of the end as well.
        while !LoopHandle::current().all_tasks().is_empty() {
            yield_now().await;
        }
    });
}

#[test]
fn hypers_server_and_client_talk_in_memory_byte_by_byte() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(7);
        let (near, far) = over(near, far, DEFAULT_LIMIT).await;
        let server = spawn(serve(far, Rc::default()));
        ask(near).await;
        server.await.unwrap().unwrap();
    });
}

#[test]
fn hypers_timeouts_go_by_the_clock_of_the_loop() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(1000);
        let (near, far) = over(near, far, DEFAULT_LIMIT).await;
        let start = LoopHandle::current().time();
        near.1.write(b"GET / HT");
        let error = serve(far, Rc::default()).await.unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(LoopHandle::current().time() - start, Duration::from_secs(5));
    });
}

#[test]
fn hypers_executor_and_timer_are_those_of_the_loop() {
    in_virtual_time(async |_| {
        let done = Rc::new(Cell::new(false));
        let set = done.clone();
        LoopExecutor.execute(async move {
            LoopTimer.sleep(Duration::from_secs(1)).await;
            let deadline = LoopTimer.now() + Duration::from_secs(1);
            LoopTimer.sleep_until(deadline).await;
            set.set(true);
        });
        sleep(Duration::from_millis(1999)).await;
        assert!(!done.get());
        sleep(Duration::from_millis(2)).await;
        assert!(done.get());
    });
}

#[test]
fn hyper_runs_over_streams_that_are_send() {
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(100);
        let (near, far) = over(near, far, DEFAULT_LIMIT).await;
        let server = spawn(serve(far, Rc::default()));
        let stream = ReadWrite::from(near).into_send();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let driver = spawn(connection);
        let request = Request::builder().uri("/").header("host", "here");
        let response = sender.send_request(request.body(Body::default()).unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "request 1, 0 bytes");
        drop(sender);
        driver.await.unwrap().unwrap();
        server.await.unwrap().unwrap();
    });
}
