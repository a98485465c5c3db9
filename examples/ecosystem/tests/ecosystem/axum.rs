//! axum's router behind hyper's server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Method, Request, Response, StatusCode};
use axum::routing::{get, post};
use futures_lite::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tower_service::Service;
use tulipa::{
    LoopBound, LoopExecutor, LoopHandle, LoopTimer, ReadWrite, Streams, Task, duplex, gather,
    open_connection, sleep, spawn, start_server,
};

use crate::support::{assert_no_tokio, in_real_time, in_virtual_time};

/// How many rows the table has.
const ROWS: u32 = 5;

fn router() -> Router {
    Router::new()
        .route("/", get(async || "index"))
        .route("/hello/{name}", get(async |Path(name): Path<String>| format!("hello {name}")))
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route("/slow", get(slow))
        .route("/table", get(table))
        .route("/state", get(async |State(state): State<&'static str>| state))
        .with_state("a state")
}

/// What waits on the loop is not `Send`; axum wants handlers that are.
fn slow() -> impl Future<Output = String> + Send {
    LoopBound::new(async {
        assert_no_tokio();
        let not_send = Rc::new(LoopHandle::current().time());
        sleep(Duration::from_secs(2)).await;
        format!("{} s", (LoopHandle::current().time() - *not_send).as_secs())
    })
}

/// A body that comes row by row.
async fn table() -> Body {
    let rows = stream::unfold(0, async |row| {
        if row == ROWS {
            return None;
        }
        sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, Infallible>(format!("row {row}\n")), row + 1))
    });
    Body::from_stream(LoopBound::new(rows))
}

/// Serves one connection.
async fn serve(streams: Streams, router: Router) -> Result<(), hyper::Error> {
    let service = hyper::service::service_fn(async |request: Request<Incoming>| {
        assert_no_tokio();
        router.clone().call(request).await
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(LoopTimer);
    builder.serve_connection(ReadWrite::from(streams), service).await
}

/// The same by HTTP/2, whose requests are tasks of the loop.
async fn serve_http2(streams: Streams, router: Router) -> Result<(), hyper::Error> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        assert_no_tokio();
        let mut router = router.clone();
        // What is kept beside the request may be of this thread only.
        let not_send = Rc::new(());
        async move {
            let response = router.call(request).await;
            drop(not_send);
            response
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(LoopExecutor);
    builder.timer(LoopTimer);
    builder.serve_connection(ReadWrite::from(streams), service).await
}

/// A client, and the task that drives its connection.
async fn client(streams: Streams) -> (SendRequest<Body>, Task<hyper::Result<()>>) {
    let handshake = hyper::client::conn::http1::handshake(ReadWrite::from(streams));
    let (sender, connection) = handshake.await.unwrap();
    (sender, spawn(connection))
}

async fn request(
    sender: &mut SendRequest<Body>,
    method: Method,
    path: &str,
    body: impl Into<Body>,
) -> Response<Incoming> {
    let request = Request::builder().method(method).uri(path).header("host", "here");
    sender.send_request(request.body(body.into()).unwrap()).await.unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Asks for each kind of answer over one connection.
async fn ask(streams: Streams) {
    let (mut sender, driver) = client(streams).await;
    for (path, expected) in [
        ("/", "index"),
        ("/hello/tulip", "hello tulip"),
        ("/hello/a%20b", "hello a b"),
        ("/state", "a state"),
    ] {
        let response = request(&mut sender, Method::GET, path, Body::empty()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(text(response).await, expected, "{path}");
    }
    let response = request(&mut sender, Method::POST, "/length", vec![7; 300_000]).await;
    assert_eq!(text(response).await, "300000");
    let response = request(&mut sender, Method::GET, "/nothing", Body::empty()).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let response = request(&mut sender, Method::GET, "/length", Body::empty()).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    drop(sender);
    driver.await.unwrap().unwrap();
}

#[test]
fn axum_answers_over_tcp() {
    in_real_time(async || {
        let router = router();
        let server = start_server("127.0.0.1:0", async move |reader, writer| {
            serve((reader, writer), router.clone()).await
        });
        let server = server.await.unwrap();
        let address: SocketAddr = server.local_addrs()[0].inet().unwrap();
        let connect = async || ask(open_connection(address).await.unwrap()).await;
        futures_lite::future::zip(connect(), connect()).await;
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn axum_answers_in_memory() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        let server = spawn(serve(far, router()));
        ask(near).await;
        server.await.unwrap().unwrap();
    });
}

#[test]
fn handlers_of_axum_wait_by_the_clock_of_the_loop() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        let server = spawn(serve(far, router()));
        let (mut sender, driver) = client(near).await;
        let response = request(&mut sender, Method::GET, "/slow", Body::empty()).await;
        assert_eq!(text(response).await, "2 s");
        drop(sender);
        driver.await.unwrap().unwrap();
        server.await.unwrap().unwrap();
    });
}

#[test]
fn bodies_of_axum_come_piece_by_piece() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        let server = spawn(serve(far, router()));
        let (mut sender, driver) = client(near).await;
        let start = LoopHandle::current().time();
        let response = request(&mut sender, Method::GET, "/table", Body::empty()).await;
        let mut rows = Box::pin(response.into_body().into_data_stream());
        for row in 0..ROWS {
            let data = rows.next().await.unwrap().unwrap();
            assert_eq!(data, format!("row {row}\n"));
            let passed = LoopHandle::current().time() - start;
            assert_eq!(passed, Duration::from_secs(u64::from(row) + 1));
        }
        assert!(rows.next().await.is_none());
        drop((sender, rows));
        driver.await.unwrap().unwrap();
        server.await.unwrap().unwrap();
    });
}

#[test]
fn axum_answers_many_requests_at_once_by_http2() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        let server = spawn(serve_http2(far, router()));
        let stream = ReadWrite::from(near);
        let handshake = hyper::client::conn::http2::handshake(LoopExecutor, stream);
        let (sender, connection) = handshake.await.unwrap();
        let driver = spawn(connection);
        let start = LoopHandle::current().time();
        let answers = gather(["/slow", "/table", "/slow", "/hello/you"].map(|path| {
            let mut sender = sender.clone();
            spawn(async move {
                let request = Request::get(format!("http://localhost{path}"));
                let request = request.body(Body::empty()).unwrap();
                text(sender.send_request(request).await.unwrap()).await
            })
        }));
        let answers: Vec<_> = answers.await.into_iter().map(Result::unwrap).collect();
        let table = "row 0\nrow 1\nrow 2\nrow 3\nrow 4\n";
        assert_eq!(answers, ["2 s", table, "2 s", "hello you"]);
        // As long as the slowest.
        assert_eq!(LoopHandle::current().time() - start, Duration::from_secs(5));
        drop(sender);
        driver.await.unwrap().unwrap();
        server.await.unwrap().unwrap();
    });
}
