//! What the servers without a library do with what a socket does not take at once.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// What is left to be sent on a connection.
#[derive(Debug, Default)]
pub(super) struct Pending {
    data: Vec<u8>,
    sent: usize,
}

impl Pending {
    /// Sends what is new, and keeps what is not taken. Says whether all is sent; an error means that the
    /// connection is over.
    pub(super) fn send(&mut self, socket: impl AsFd, data: &[u8]) -> Result<bool, Errno> {
        match send(socket, data, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == data.len() => return Ok(true),
            Ok(sent) => self.data.extend_from_slice(&data[sent..]),
            Err(Errno::AGAIN) => self.data.extend_from_slice(data),
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// Echoes all there is, after an event that is edge-triggered; says whether the connection goes on. With
    /// edges one has to read until there is nothing more; a short read says so without another call.
    pub(super) fn echo_all(&mut self, socket: impl AsFd, buffer: &mut [u8]) -> bool {
        if !self.data.is_empty() {
            match self.flush(&socket) {
                Ok(true) => {}
                other => return other.is_ok(),
            }
        }
        loop {
            let read = match recv(&socket, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return false,
                Ok((read, _)) => read,
                Err(error) => return error == Errno::AGAIN,
            };
            match self.send(&socket, &buffer[..read]) {
                Ok(true) if read == buffer.len() => {}
                other => return other.is_ok(),
            }
        }
    }

    /// Sends what is left.
    pub(super) fn flush(&mut self, socket: impl AsFd) -> Result<bool, Errno> {
        while self.sent < self.data.len() {
            match send(&socket, &self.data[self.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        *self = Pending::default();
        Ok(true)
    }
}
