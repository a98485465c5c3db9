//! Programs run on a simulated network as they are.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tulipa_loop::LoopHandle;
use tulipa_protocols::{
    Acceptor, Address, DatagramLink, Dialing, Link, Network, Resolved, Resolver, set_network,
    set_resolver,
};
use tulipa_selector::Source;

use super::{MemoryNetwork, NetworkListener};

impl MemoryNetwork {
    /// Makes this the network of a loop, in place of the operating system's, and has names mean its
    /// hosts: `create_connection`, `create_server` and all that is made of them are simulated from now on.
    ///
    /// ```
    /// use std::io;
    /// use tulipa_protocols::{Protocol, Transport, create_connection, create_server};
    /// use tulipa_testing::{MemoryNetwork, VirtualLoop};
    ///
    /// struct Echo;
    /// impl Protocol for Echo {
    ///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
    ///         transport.write(data);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let virtual_loop = VirtualLoop::new();
    /// let network = MemoryNetwork::new(virtual_loop.world(), 7);
    /// network.install(&virtual_loop);
    /// virtual_loop.run_until_complete(async {
    ///     let server = network.on("server", create_server(":80", || Echo)).await?;
    ///     let connection = create_connection("server:80", || Echo).await?;
    ///     assert_eq!(connection.peer_addr(), Some(server.local_addrs()[0].clone()));
    ///     io::Result::Ok(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn install(&self, handle: &LoopHandle) {
        set_network(handle, Some(Rc::new(self.clone())));
        set_resolver(handle, Some(Rc::new(self.clone())));
    }
}

impl Network for MemoryNetwork {
    fn connect(&self, peer: &Address, local: &[SocketAddr]) -> Dialing {
        // Which port a client has is the network's business.
        let (network, peer, _) = (self.clone(), peer.inet(), local);
        Box::pin(async move {
            let link = network.connect_link(peer.ok_or_else(not_inet)?).await?;
            Ok(Box::new(link) as Box<dyn Link>)
        })
    }

    fn bind(&self, address: &Address) -> io::Result<Rc<dyn Acceptor>> {
        let address = address.inet().ok_or_else(not_inet)?;
        Ok(Rc::new(MemoryNetwork::bind(self, address)?))
    }

    fn bind_datagrams(
        &self,
        local: Option<&Address>,
        peer: Option<&Address>,
    ) -> io::Result<Box<dyn DatagramLink>> {
        Ok(Box::new(self.datagrams(inet(local)?, inet(peer)?)?))
    }
}

fn inet(address: Option<&Address>) -> io::Result<Option<SocketAddr>> {
    address.map(|address| address.inet().ok_or_else(not_inet)).transpose()
}

fn not_inet() -> io::Error {
    let error = "a simulated network has internet addresses only";
    io::Error::new(io::ErrorKind::Unsupported, error)
}

impl Acceptor for NetworkListener {
    fn source(&self) -> Source {
        NetworkListener::source(self)
    }

    fn local_addr(&self) -> Address {
        NetworkListener::local_addr(self).into()
    }

    fn listen(&self, backlog: u32) -> io::Result<()> {
        NetworkListener::listen(self, backlog as usize);
        Ok(())
    }

    fn accept(&self) -> io::Result<Box<dyn Link>> {
        NetworkListener::accept(self).map(|link| Box::new(link) as Box<dyn Link>)
    }
}

impl Resolver for MemoryNetwork {
    fn resolve(&self, _: &LoopHandle, name: &str, port: u16) -> Resolved {
        let found = self.lookup(name).map(|address| SocketAddr::new(address, port));
        Box::pin(async move {
            let unknown = || io::Error::new(io::ErrorKind::NotFound, "there is no such host");
            Ok(vec![found.ok_or_else(unknown)?])
        })
    }
}
