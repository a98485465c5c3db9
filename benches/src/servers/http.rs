//! hyper, over tulipa's streams and over tokio.

use std::convert::Infallible;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tulipa_streams::{ReadWrite, Streams};

use super::HTTP_BODY;

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(HTTP_BODY.as_bytes()))))
}

/// An error is the client's going, as it likes.
pub(super) async fn over_tulipa(streams: Streams) {
    let stream = ReadWrite::from(streams);
    drop(http1::Builder::new().serve_connection(stream, service_fn(answer)).await);
}

pub(super) async fn over_tokio(stream: tokio::net::TcpStream) {
    let stream = TokioIo::new(stream);
    drop(http1::Builder::new().serve_connection(stream, service_fn(answer)).await);
}
