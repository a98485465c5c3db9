//! The options of a connection's socket that programs ask for most; all others go through
//! [`Transport::with_fd`].

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::Transport;
use crate::state::closed;

impl Transport {
    /// Whether small writes leave at once (`TCP_NODELAY`), as they do at first for TCP.
    ///
    /// # Errors
    /// As [`with_fd`](Self::with_fd), and what the operating system says.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.option(|socket| socket.set_tcp_nodelay(nodelay))
    }

    /// What [`set_nodelay`](Self::set_nodelay) has set.
    ///
    /// # Errors
    /// As there.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.option(|socket| socket.tcp_nodelay())
    }

    /// Whether the operating system probes an idle peer (`SO_KEEPALIVE`), and after which time it begins to.
    ///
    /// # Errors
    /// As [`with_fd`](Self::with_fd), and what the operating system says.
    pub fn set_keepalive(&self, idle: Option<Duration>) -> io::Result<()> {
        self.option(|socket| match idle {
            Some(idle) => socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle)),
            None => socket.set_keepalive(false),
        })
    }

    /// Whether the operating system probes an idle peer.
    ///
    /// # Errors
    /// As [`set_keepalive`](Self::set_keepalive).
    pub fn keepalive(&self) -> io::Result<bool> {
        self.option(|socket| socket.keepalive())
    }

    /// How many bytes the operating system keeps that were received and not read (`SO_RCVBUF`). Linux
    /// doubles the number, and grows buffers by itself as long as this was not called.
    ///
    /// # Errors
    /// As [`with_fd`](Self::with_fd), and what the operating system says.
    pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.option(|socket| socket.set_recv_buffer_size(bytes))
    }

    /// The size of that buffer.
    ///
    /// # Errors
    /// As [`set_recv_buffer_size`](Self::set_recv_buffer_size).
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        self.option(|socket| socket.recv_buffer_size())
    }

    /// How many bytes the operating system takes before writes have to wait (`SO_SNDBUF`); all else as
    /// with [`set_recv_buffer_size`](Self::set_recv_buffer_size).
    ///
    /// # Errors
    /// As there.
    pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.option(|socket| socket.set_send_buffer_size(bytes))
    }

    /// The size of that buffer.
    ///
    /// # Errors
    /// As [`set_recv_buffer_size`](Self::set_recv_buffer_size).
    pub fn send_buffer_size(&self) -> io::Result<usize> {
        self.option(|socket| socket.send_buffer_size())
    }

    fn option<R>(&self, access: impl FnOnce(SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        let done = self.state.with_link(|link| {
            let fd = link.fd().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
            access(SockRef::from(&fd))
        });
        done.unwrap_or_else(|| Err(closed("use an option of its socket")))
    }
}
