//! Whom a socket is connected to, and who has sent something.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::net::{SocketAddrAny, SocketAddrUnix};
use socket2::Socket;
use tulipa_loop::LoopHandle;

use crate::{Address, Endpoint};

/// What [`sock_connect`](crate::sock_connect) connects to: made of an [`Address`], a [`SocketAddr`], a host with a
/// port as text, or an [`Endpoint`].
#[derive(Clone, Debug)]
pub struct SockPeer(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Address(Address),
    Endpoint(Endpoint),
}

impl SockPeer {
    /// The address that a socket is to be connected to.
    pub(super) async fn resolve(self, handle: &LoopHandle, socket: &Socket) -> io::Result<Address> {
        let endpoint = match self.0 {
            Kind::Address(address) => return Ok(address),
            Kind::Endpoint(endpoint) => endpoint,
        };
        let own = socket.local_addr()?;
        let found = endpoint.resolve(handle).await?;
        let fits = |address: &SocketAddr| address.is_ipv4() == own.is_ipv4();
        let address = found.into_iter().find(fits).ok_or_else(|| {
            let error = format!("{endpoint} has no address of the socket's family");
            io::Error::new(io::ErrorKind::AddrNotAvailable, error)
        })?;
        Ok(Address::Inet(address))
    }
}

impl From<Address> for SockPeer {
    fn from(address: Address) -> SockPeer {
        SockPeer(Kind::Address(address))
    }
}

impl From<&Address> for SockPeer {
    fn from(address: &Address) -> SockPeer {
        SockPeer(Kind::Address(address.clone()))
    }
}

impl From<SocketAddr> for SockPeer {
    fn from(address: SocketAddr) -> SockPeer {
        SockPeer(Kind::Address(Address::Inet(address)))
    }
}

impl From<Endpoint> for SockPeer {
    fn from(endpoint: Endpoint) -> SockPeer {
        SockPeer(Kind::Endpoint(endpoint))
    }
}

impl From<&str> for SockPeer {
    fn from(text: &str) -> SockPeer {
        SockPeer(Kind::Endpoint(Endpoint::from(text)))
    }
}

impl From<(&str, u16)> for SockPeer {
    fn from(host: (&str, u16)) -> SockPeer {
        SockPeer(Kind::Endpoint(Endpoint::from(host)))
    }
}

/// The sender of something, if its socket has an address of a kind that is known here.
pub(super) fn address(from: &SocketAddrAny) -> Option<Address> {
    if let Ok(inet) = SocketAddr::try_from(from.clone()) {
        return Some(Address::Inet(inet));
    }
    let unix = SocketAddrUnix::try_from(from.clone()).ok()?;
    if let Some(path) = unix.path_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        return Some(Address::Path(PathBuf::from(std::ffi::OsStr::from_bytes(path))));
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = unix.abstract_name() {
        return Some(Address::Abstract(name.to_owned()));
    }
    Some(Address::Unnamed)
}
