//! The same table from two servers, each in a thread of its own that ends with the program. It has a row for each moment
//! at which one became known, so nobody can send it faster.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::mpsc::{self, Sender};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use tulipa::{
    Interval, LoopHandle, LoopTimer, ReadWrite, Server, StreamReader, StreamWriter, interval_at,
    start_server,
};
use tulipa_examples::serve::log;

/// How many rows the table has.
pub(crate) const ROWS: u32 = 10;
/// No request of ours is longer.
const LONGEST_REQUEST: u64 = 8 * 1024;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

fn row(number: u32, delay: Duration) -> String {
    format!("{number},{:.3}\n", (delay * (number + 1)).as_secs_f64())
}

/// Serves one client at a time, and sleeps where it has to wait.
pub(crate) fn blocking(delay: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("blocking server".into()).spawn(move || {
        for client in listener.incoming() {
            if let Err(error) = client.and_then(|client| answer(&client, delay)) {
                log(format_args!("the blocking server: {error}"));
            }
        }
    })?;
    Ok(address)
}

#[expect(clippy::disallowed_methods, reason = "what a server that blocks is like")]
fn answer(mut client: &TcpStream, delay: Duration) -> io::Result<()> {
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let mut request = BufReader::new(client.take(LONGEST_REQUEST));
    let mut line = String::new();
    while request.read_line(&mut line)? > 0 && line != "\r\n" {
        line.clear();
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    client.write_all(head.as_bytes())?;
    for number in 0..ROWS {
        thread::sleep(delay);
        let row = row(number, delay);
        client.write_all(format!("{:x}\r\n{row}\r\n", row.len()).as_bytes())?;
    }
    client.write_all(b"0\r\n\r\n")
}

/// Serves all clients at once, in one thread, on a loop of its own.
pub(crate) fn asynchronous(delay: Duration) -> io::Result<SocketAddr> {
    let (sender, address) = mpsc::channel();
    let serving = move || match tulipa::run(serve_forever(sender, delay)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log(format_args!("the asynchronous server: {error}")),
        Err(error) => log(format_args!("the asynchronous server: {error}")),
    };
    thread::Builder::new().name("asynchronous server".into()).spawn(serving)?;
    let address = address.recv().ok().flatten();
    address.ok_or_else(|| io::Error::other("the asynchronous server did not start"))
}

async fn serve_forever(told: Sender<Option<SocketAddr>>, delay: Duration) -> io::Result<()> {
    let server = listen("127.0.0.1:0", delay).await?;
    let _somebody_waits = told.send(server.local_addrs()[0].inet());
    server.serve_forever().await
}

/// The same on the loop that runs.
pub(crate) async fn listen(place: &str, delay: Duration) -> io::Result<Server> {
    let handler = async move |reader, writer| serve(reader, writer, delay).await;
    start_server(place, handler).await
}

async fn serve(
    reader: StreamReader,
    writer: StreamWriter,
    delay: Duration,
) -> Result<(), hyper::Error> {
    let service = service_fn(async |request| large_csv(&request, delay));
    let mut http = http1::Builder::new();
    http.timer(LoopTimer).header_read_timeout(PATIENCE);
    http.serve_connection(ReadWrite::new(reader, writer), service).await
}

fn large_csv(request: &Request<Incoming>, delay: Duration) -> Result<Response<Rows>, Infallible> {
    let found = request.uri().path() == "/large.csv";
    let first = LoopHandle::current().time() + delay;
    let rows = Rows { ticks: interval_at(first, delay), delay, sent: if found { 0 } else { ROWS } };
    let mut response = Response::new(rows);
    response.headers_mut().insert(CONTENT_TYPE, "text/csv".parse().expect("a good header"));
    if !found {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}

/// A body that comes row by row. hyper asks for the next one when there is room for it.
struct Rows {
    ticks: Interval,
    delay: Duration,
    sent: u32,
}

impl Body for Rows {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent == ROWS {
            return Poll::Ready(None);
        }
        ready!(self.ticks.poll_tick(context));
        let row = row(self.sent, self.delay);
        self.sent += 1;
        Poll::Ready(Some(Ok(Frame::data(row.into()))))
    }
}
