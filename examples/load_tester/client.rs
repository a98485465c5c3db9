//! One request: a connection, old or new, hyper's side of HTTP, a time limit.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use tulipa::{Address, ReadWrite, Scoped, open_connection, spawn, timeout};

use crate::failure::Failure;
use crate::options::Options;

/// What came of a request: any status, and the length of its body.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) bytes: u64,
}

pub(crate) struct Client {
    options: Rc<Options>,
    /// Connections that wait to be used again; never more than there are requests at once.
    idle: RefCell<Vec<Connection>>,
    /// The first address of the host that could be connected to, so that its name is looked up once.
    address: Cell<Option<Address>>,
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    /// hyper's own task for the connection: it ends with this.
    _driver: Scoped<()>,
}

impl Client {
    pub(crate) fn new(options: Rc<Options>) -> Client {
        Client { options, idle: RefCell::default(), address: Cell::default() }
    }

    /// Requests it once, and reads all of the response.
    pub(crate) async fn request(&self) -> Result<Reply, Failure> {
        let limit = self.options.timeout;
        timeout(limit, self.exchange())
            .await
            .unwrap_or_else(|_elapsed| Err(Failure::timeout(limit)))
    }

    async fn exchange(&self) -> Result<Reply, Failure> {
        // The borrow ends with this line, and not after the loop.
        let next_idle = || self.idle.borrow_mut().pop();
        while let Some(mut connection) = next_idle() {
            // A server may end one that waits at any time, so that this is no failure yet.
            if connection.sender.ready().await.is_ok()
                && let Ok(response) = connection.sender.send_request(self.head()).await
            {
                return self.read(connection, response).await;
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.sender.send_request(self.head()).await?;
        self.read(connection, response).await
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let url = &self.options.url;
        let known = self.address.take();
        self.address.set(known.clone());
        let connected = match known.and_then(|address| address.inet()) {
            Some(address) => open_connection(address).await,
            None => open_connection((url.host.as_str(), url.port)).await,
        };
        let (reader, writer) = connected.map_err(|error| Failure::connecting(&error))?;
        self.address.set(writer.peer_addr());
        let (sender, driving) = http1::handshake(ReadWrite::new(reader, writer)).await?;
        let driver = spawn(async move {
            // Whoever waits for the response hears of it.
            let _told = driving.await;
        });
        Ok(Connection { sender, _driver: driver.scoped() })
    }

    async fn read(
        &self,
        connection: Connection,
        response: Response<Incoming>,
    ) -> Result<Reply, Failure> {
        let status = response.status();
        let mut body = response.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        if self.options.keep_alive && !connection.sender.is_closed() {
            self.idle.borrow_mut().push(connection);
        }
        Ok(Reply { status, bytes })
    }

    fn head(&self) -> Request<Empty<Bytes>> {
        let url = &self.options.url;
        let persistence = if self.options.keep_alive { "keep-alive" } else { "close" };
        Request::get(url.path.clone())
            .header(HOST, &url.authority)
            .header(USER_AGENT, "tulipa-load-tester")
            .header(CONNECTION, persistence)
            .body(Empty::new())
            .expect("the parts of a URL that was parsed are good in a request")
    }
}
