//! mio: the same loop, over its portable events, which are edge-triggered.

use std::collections::HashMap;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::pending::Pending;
use super::{BUFFER, Mode, announce};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    pending: Pending,
}

pub(super) fn serve(_: Mode) {
    let mut listener = TcpListener::from_std(super::listen());
    announce(listener.local_addr().expect("it is bound"));
    let mut poll = Poll::new().expect("a poll");
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).expect("room");
    let mut connections: HashMap<Token, Connection> = HashMap::new();
    let (mut events, mut buffer, mut next) = (Events::with_capacity(1024), vec![0; BUFFER], 0);
    loop {
        poll.poll(&mut events, None).expect("a wait");
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true).expect("a socket");
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    let token = Token(next);
                    next += 1;
                    poll.registry().register(&mut stream, token, interest).expect("room");
                    let new = Connection { stream, pending: Pending::default() };
                    connections.insert(token, new);
                }
                continue;
            }
            let Some(connection) = connections.get_mut(&event.token()) else { continue };
            if !connection.pending.echo_all(&connection.stream, &mut buffer) {
                connections.remove(&event.token());
            }
        }
    }
}
