//! What a program without any library does: one wait, one receive and one send for a message.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{RecvFlags, recv};

use super::pending::Pending;
use super::{BUFFER, Mode, announce};

/// The key of the listening socket.
const LISTENER: u64 = u64::MAX;

struct Connection {
    socket: OwnedFd,
    pending: Pending,
}

/// Echo; a line at a time costs nothing more, as a read's worth of lines is answered by one send.
pub(super) fn serve(_: Mode) {
    let listener = super::listen();
    announce(listener.local_addr().expect("it is bound"));
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll set");
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).expect("room");
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let (mut events, mut buffer) = (Vec::with_capacity(1024), vec![0; BUFFER]);
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None).expect("a wait");
        for event in &events {
            let key = event.data.u64();
            if key == LISTENER {
                accept(&listener, |stream| {
                    let key = free.pop().unwrap_or(connections.len());
                    let data = EventData::new_u64(key as u64);
                    epoll::add(&epoll, &stream, data, EventFlags::IN).expect("room");
                    let new = Connection { socket: stream.into(), pending: Pending::default() };
                    if key == connections.len() {
                        connections.push(Some(new));
                    } else {
                        connections[key] = Some(new);
                    }
                });
                continue;
            }
            let key = key as usize;
            let Some(connection) = &mut connections[key] else { continue };
            if !talk(&epoll, event, connection, &mut buffer) {
                connections[key] = None;
                free.push(key);
            }
        }
    }
}

fn accept(listener: &TcpListener, mut each: impl FnMut(TcpStream)) {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        each(stream);
    }
}

/// Whether the connection goes on.
fn talk(
    epoll: impl AsFd,
    event: &epoll::Event,
    connection: &mut Connection,
    buffer: &mut [u8],
) -> bool {
    let Connection { socket, pending } = connection;
    let wants = |flags| epoll::modify(&epoll, &*socket, event.data, flags).is_ok();
    let flags = event.flags;
    if flags.contains(EventFlags::OUT) {
        return match pending.flush(&*socket) {
            Ok(true) => wants(EventFlags::IN),
            other => other.is_ok(),
        };
    }
    match recv(&*socket, &mut *buffer, RecvFlags::empty()) {
        Ok((0, _)) => false,
        Ok((read, _)) => match pending.send(&*socket, &buffer[..read]) {
            Ok(true) => true,
            Ok(false) => wants(EventFlags::OUT),
            Err(_) => false,
        },
        Err(error) => error == rustix::io::Errno::AGAIN,
    }
}
