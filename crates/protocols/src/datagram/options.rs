//! Options of an endpoint's socket; all others go through [`DatagramTransport::with_fd`].

use std::io;
use std::net::IpAddr;

use socket2::{InterfaceIndexOrAddress, SockRef};

use super::link::Slot;
use super::state::closed;
use crate::DatagramTransport;

impl DatagramTransport {
    /// Whether datagrams may be sent to broadcast addresses (`SO_BROADCAST`): no at first.
    ///
    /// # Errors
    /// As [`with_fd`](Self::with_fd), and what the operating system says.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.option(|socket| socket.set_broadcast(broadcast))
    }

    /// What [`set_broadcast`](Self::set_broadcast) has set.
    ///
    /// # Errors
    /// As there.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.option(|socket| socket.broadcast())
    }

    /// Receives what is sent to a group, on the interface of this index; 0 leaves the choice to the operating system.
    /// To receive it the endpoint is bound to the group's port.
    ///
    /// # Errors
    /// As [`with_fd`](Self::with_fd), and what the operating system says: that the address is none of a group, or of
    /// another family than the socket's, or that it was joined already.
    pub fn join_multicast(&self, group: IpAddr, interface: u32) -> io::Result<()> {
        self.option(|socket| match group {
            IpAddr::V4(group) => {
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, interface),
        })
    }

    /// Takes back a [`join_multicast`](Self::join_multicast).
    ///
    /// # Errors
    /// As there.
    pub fn leave_multicast(&self, group: IpAddr, interface: u32) -> io::Result<()> {
        self.option(|socket| match group {
            IpAddr::V4(group) => {
                socket.leave_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))
            }
            IpAddr::V6(group) => socket.leave_multicast_v6(&group, interface),
        })
    }

    /// Whether what is sent to a group also comes to this machine's own members: yes at first.
    ///
    /// # Errors
    /// As [`with_fd`](Self::with_fd), and what the operating system says.
    pub fn set_multicast_loop(&self, looped: bool) -> io::Result<()> {
        let ipv6 = self.is_ipv6();
        self.option(|socket| match ipv6 {
            true => socket.set_multicast_loop_v6(looped),
            false => socket.set_multicast_loop_v4(looped),
        })
    }

    /// Over how many routers what is sent to a group goes; 1 at first, which is none.
    ///
    /// # Errors
    /// As [`with_fd`](Self::with_fd), and what the operating system says: it knows numbers up to 255.
    pub fn set_multicast_ttl(&self, routers: u32) -> io::Result<()> {
        let ipv6 = self.is_ipv6();
        self.option(|socket| match ipv6 {
            true => socket.set_multicast_hops_v6(routers),
            false => socket.set_multicast_ttl_v4(routers),
        })
    }

    fn is_ipv6(&self) -> bool {
        let local = self.local_addr().and_then(|address| address.inet());
        local.is_some_and(|address| address.is_ipv6())
    }

    fn option<R>(&self, access: impl FnOnce(SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        match &*self.state.link.borrow() {
            Slot::Socket(socket) => access(SockRef::from(&socket.fd())),
            Slot::Any(_) | Slot::Out => Err(io::ErrorKind::Unsupported.into()),
            Slot::Gone => Err(closed("use an option of its socket")),
        }
    }
}
