//! The functions that connect and serve, as methods of a loop's handle.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use tulipa_loop::LoopHandle;

use crate::connect::adopt_on;
use crate::pipe_link::connect_on as pipe_on;
use crate::resolve::{getaddrinfo_on, getnameinfo_on};
use crate::send_file::Part;
use crate::{
    AddrInfo, Address, Connect, Connection, DatagramEndpoint, DatagramProtocol, Datagrams,
    Endpoint, Hints, Listen, PipeLink, Protocol, Server, SockPeer, sock,
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

    /// As [`connect_read_pipe`](crate::connect_read_pipe).
    fn connect_read_pipe<P: Protocol + 'static, F: FnOnce() -> P, S: Into<OwnedFd>>(
        &self,
        pipe: S,
        factory: F,
    ) -> impl Future<Output = io::Result<Connection<P>>> + use<Self, P, F, S>;

    /// As [`connect_write_pipe`](crate::connect_write_pipe).
    fn connect_write_pipe<P: Protocol + 'static, F: FnOnce() -> P, S: Into<OwnedFd>>(
        &self,
        pipe: S,
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

    /// As [`sock_recv`](crate::sock_recv).
    fn sock_recv(
        &self,
        socket: &impl AsFd,
        count: usize,
    ) -> impl Future<Output = io::Result<Vec<u8>>>;

    /// As [`sock_recv_into`](crate::sock_recv_into).
    fn sock_recv_into(
        &self,
        socket: &impl AsFd,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<usize>>;

    /// As [`sock_recvfrom`](crate::sock_recvfrom).
    fn sock_recvfrom(
        &self,
        socket: &impl AsFd,
        count: usize,
    ) -> impl Future<Output = io::Result<(Vec<u8>, Option<Address>)>>;

    /// As [`sock_recvfrom_into`](crate::sock_recvfrom_into).
    fn sock_recvfrom_into(
        &self,
        socket: &impl AsFd,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<(usize, Option<Address>)>>;

    /// As [`sock_sendall`](crate::sock_sendall).
    fn sock_sendall(&self, socket: &impl AsFd, data: &[u8])
    -> impl Future<Output = io::Result<()>>;

    /// As [`sock_sendto`](crate::sock_sendto).
    fn sock_sendto(
        &self,
        socket: &impl AsFd,
        data: &[u8],
        address: &Address,
    ) -> impl Future<Output = io::Result<usize>>;

    /// As [`sock_connect`](crate::sock_connect).
    fn sock_connect(
        &self,
        socket: &impl AsFd,
        peer: impl Into<SockPeer>,
    ) -> impl Future<Output = io::Result<()>>;

    /// As [`sock_accept`](crate::sock_accept).
    fn sock_accept(
        &self,
        socket: &impl AsFd,
    ) -> impl Future<Output = io::Result<(OwnedFd, Address)>>;

    /// As [`sock_send_fds`](crate::sock_send_fds).
    fn sock_send_fds(
        &self,
        socket: &impl AsFd,
        data: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> impl Future<Output = io::Result<()>>;

    /// As [`sock_recv_fds`](crate::sock_recv_fds).
    fn sock_recv_fds(
        &self,
        socket: &impl AsFd,
        buffer: &mut [u8],
        most: usize,
    ) -> impl Future<Output = io::Result<(usize, Vec<OwnedFd>)>>;

    /// As [`sock_sendfile`](crate::sock_sendfile).
    fn sock_sendfile(
        &self,
        socket: &impl AsFd,
        file: &impl AsFd,
        range: impl RangeBounds<u64>,
    ) -> impl Future<Output = io::Result<u64>>;

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

    fn connect_read_pipe<P: Protocol + 'static, F: FnOnce() -> P, S: Into<OwnedFd>>(
        &self,
        pipe: S,
        factory: F,
    ) -> impl Future<Output = io::Result<Connection<P>>> + use<P, F, S> {
        pipe_on(self.clone(), PipeLink::reader(pipe), factory)
    }

    fn connect_write_pipe<P: Protocol + 'static, F: FnOnce() -> P, S: Into<OwnedFd>>(
        &self,
        pipe: S,
        factory: F,
    ) -> impl Future<Output = io::Result<Connection<P>>> + use<P, F, S> {
        pipe_on(self.clone(), PipeLink::writer(pipe), factory)
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

    fn sock_recv(
        &self,
        socket: &impl AsFd,
        count: usize,
    ) -> impl Future<Output = io::Result<Vec<u8>>> {
        sock::recv_on(self.clone(), socket.as_fd(), count)
    }

    fn sock_recv_into(
        &self,
        socket: &impl AsFd,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<usize>> {
        sock::recv_into_on(self.clone(), socket.as_fd(), buffer)
    }

    fn sock_recvfrom(
        &self,
        socket: &impl AsFd,
        count: usize,
    ) -> impl Future<Output = io::Result<(Vec<u8>, Option<Address>)>> {
        sock::recvfrom_on(self.clone(), socket.as_fd(), count)
    }

    fn sock_recvfrom_into(
        &self,
        socket: &impl AsFd,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<(usize, Option<Address>)>> {
        sock::recvfrom_into_on(self.clone(), socket.as_fd(), buffer)
    }

    fn sock_sendall(
        &self,
        socket: &impl AsFd,
        data: &[u8],
    ) -> impl Future<Output = io::Result<()>> {
        sock::sendall_on(self.clone(), socket.as_fd(), data)
    }

    fn sock_sendto(
        &self,
        socket: &impl AsFd,
        data: &[u8],
        address: &Address,
    ) -> impl Future<Output = io::Result<usize>> {
        sock::sendto_on(self.clone(), socket.as_fd(), data, address)
    }

    fn sock_connect(
        &self,
        socket: &impl AsFd,
        peer: impl Into<SockPeer>,
    ) -> impl Future<Output = io::Result<()>> {
        sock::connect_on(self.clone(), socket.as_fd(), peer.into())
    }

    fn sock_accept(
        &self,
        socket: &impl AsFd,
    ) -> impl Future<Output = io::Result<(OwnedFd, Address)>> {
        sock::accept_on(self.clone(), socket.as_fd())
    }

    fn sock_send_fds(
        &self,
        socket: &impl AsFd,
        data: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> impl Future<Output = io::Result<()>> {
        sock::send_fds_on(self.clone(), socket.as_fd(), data, fds)
    }

    fn sock_recv_fds(
        &self,
        socket: &impl AsFd,
        buffer: &mut [u8],
        most: usize,
    ) -> impl Future<Output = io::Result<(usize, Vec<OwnedFd>)>> {
        sock::recv_fds_on(self.clone(), socket.as_fd(), buffer, most)
    }

    async fn sock_sendfile(
        &self,
        socket: &impl AsFd,
        file: &impl AsFd,
        range: impl RangeBounds<u64>,
    ) -> io::Result<u64> {
        sock::sendfile_on(self.clone(), socket.as_fd(), file.as_fd(), Part::of(range)?).await
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
