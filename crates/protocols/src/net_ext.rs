//! The functions that connect and serve, as methods of a loop's handle.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tulipa_loop::LoopHandle;

use crate::connect::adopt_on;
use crate::resolve::{getaddrinfo_on, getnameinfo_on};
use crate::{
    AddrInfo, Connect, Connection, DatagramEndpoint, DatagramProtocol, Datagrams, Endpoint, Hints,
    Listen, Protocol, Server,
};

/// asyncio's methods of the loop, for those who have its handle: in a callback, say, from which a task is
/// spawned. Each is the free function of the same name, on the loop of the handle instead of the
/// current one. The futures are to be awaited on that loop.
///
/// ```
/// use std::io;
/// use tulipa_loop::EventLoop;
/// use tulipa_protocols::{NetExt, Protocol, Transport};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// let event_loop = EventLoop::new()?;
/// let server = event_loop.create_server("127.0.0.1:0", || Echo);
/// let server = event_loop.run_until_complete(server)??;
/// assert!(server.is_serving());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait NetExt {
    /// As [`create_connection`](crate::create_connection).
    fn create_connection<P: Protocol + 'static, F: FnOnce() -> P, E: Into<Endpoint>>(
        &self,
        endpoint: E,
        factory: F,
    ) -> impl Future<Output = io::Result<Connection<P>>> + use<Self, P, F, E>;

    /// As [`create_unix_connection`](crate::create_unix_connection).
    fn create_unix_connection<P: Protocol + 'static, F: FnOnce() -> P, E: Into<PathBuf>>(
        &self,
        path: E,
        factory: F,
    ) -> impl Future<Output = io::Result<Connection<P>>> + use<Self, P, F, E>;

    /// As [`connect_accepted_socket`](crate::connect_accepted_socket).
    fn connect_accepted_socket<P: Protocol + 'static, F: FnOnce() -> P, S: Into<OwnedFd>>(
        &self,
        socket: S,
        factory: F,
    ) -> impl Future<Output = io::Result<Connection<P>>> + use<Self, P, F, S>;

    /// As [`create_server`](crate::create_server).
    fn create_server<P: Protocol + 'static, F: FnMut() -> P + 'static, E: Into<Endpoint>>(
        &self,
        endpoint: E,
        factory: F,
    ) -> impl Future<Output = io::Result<Server>> + use<Self, P, F, E>;

    /// As [`create_unix_server`](crate::create_unix_server).
    fn create_unix_server<P: Protocol + 'static, F: FnMut() -> P + 'static, E: Into<PathBuf>>(
        &self,
        path: E,
        factory: F,
    ) -> impl Future<Output = io::Result<Server>> + use<Self, P, F, E>;

    /// As [`create_datagram_endpoint`](crate::create_datagram_endpoint).
    fn create_datagram_endpoint<
        P: DatagramProtocol + 'static,
        F: FnOnce() -> P,
        E: Into<Endpoint>,
    >(
        &self,
        local_addr: E,
        factory: F,
    ) -> impl Future<Output = io::Result<DatagramEndpoint<P>>> + use<Self, P, F, E>;

    /// As [`getaddrinfo`](crate::getaddrinfo).
    fn getaddrinfo(
        &self,
        host: &str,
        service: &str,
        hints: Hints,
    ) -> impl Future<Output = io::Result<Vec<AddrInfo>>> + use<Self>;

    /// As [`getnameinfo`](crate::getnameinfo).
    fn getnameinfo(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<(String, String)>> + use<Self>;
}

impl NetExt for LoopHandle {
    fn create_connection<P: Protocol + 'static, F: FnOnce() -> P, E: Into<Endpoint>>(
        &self,
        endpoint: E,
        factory: F,
    ) -> impl Future<Output = io::Result<Connection<P>>> + use<P, F, E> {
        Connect::to(endpoint).open_on(self.clone(), factory)
    }

    fn create_unix_connection<P: Protocol + 'static, F: FnOnce() -> P, E: Into<PathBuf>>(
        &self,
        path: E,
        factory: F,
    ) -> impl Future<Output = io::Result<Connection<P>>> + use<P, F, E> {
        Connect::to_unix(path).open_on(self.clone(), factory)
    }

    fn connect_accepted_socket<P: Protocol + 'static, F: FnOnce() -> P, S: Into<OwnedFd>>(
        &self,
        socket: S,
        factory: F,
    ) -> impl Future<Output = io::Result<Connection<P>>> + use<P, F, S> {
        adopt_on(self.clone(), socket.into(), factory)
    }

    fn create_server<P: Protocol + 'static, F: FnMut() -> P + 'static, E: Into<Endpoint>>(
        &self,
        endpoint: E,
        factory: F,
    ) -> impl Future<Output = io::Result<Server>> + use<P, F, E> {
        Listen::on(endpoint).serve_on(self.clone(), factory)
    }

    fn create_unix_server<P: Protocol + 'static, F: FnMut() -> P + 'static, E: Into<PathBuf>>(
        &self,
        path: E,
        factory: F,
    ) -> impl Future<Output = io::Result<Server>> + use<P, F, E> {
        Listen::on_unix(path).serve_on(self.clone(), factory)
    }

    fn create_datagram_endpoint<
        P: DatagramProtocol + 'static,
        F: FnOnce() -> P,
        E: Into<Endpoint>,
    >(
        &self,
        local_addr: E,
        factory: F,
    ) -> impl Future<Output = io::Result<DatagramEndpoint<P>>> + use<P, F, E> {
        Datagrams::at(local_addr).open_on(self.clone(), factory)
    }

    fn getaddrinfo(
        &self,
        host: &str,
        service: &str,
        hints: Hints,
    ) -> impl Future<Output = io::Result<Vec<AddrInfo>>> + use<> {
        getaddrinfo_on(self.clone(), host.to_owned(), service.to_owned(), hints)
    }

    fn getnameinfo(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<(String, String)>> + use<> {
        getnameinfo_on(self.clone(), address)
    }
}
