//! The load: connections that do not block, on a bare epoll set, in a thread of its own.
//!
//! Each connection sends a message (which may be many lines) and waits for the whole answer before it
//! sends the next one. The set is edge-triggered: what an event says is done until the socket says no
//! more, and a short read or an answer that is complete says that there is no more, so a message costs the
//! load one send, one receive and its share of a wait.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// How much is received at once.
const BUFFER: usize = 256 * 1024;
/// For how long the load waits for a server before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What each connection says.
#[derive(Clone, Debug)]
pub struct Talk {
    /// What is sent.
    pub message: Vec<u8>,
    /// How long the answer is.
    pub answer: usize,
    /// Whether the answer is the message.
    pub is_echo: bool,
    /// As how many messages one is counted.
    pub counts: u64,
}

impl Talk {
    /// So many lines of so many bytes, which come back.
    ///
    /// # Panics
    ///
    /// When a line has no bytes.
    #[must_use]
    pub fn echo(size: usize, lines: usize) -> Talk {
        let mut line = vec![b'x'; size];
        line[size - 1] = b'\n';
        let message = line.repeat(lines);
        let answer = message.len();
        Talk { message, answer, is_echo: true, counts: lines as u64 }
    }

    /// An HTTP request; how long the answer is is found out by asking once.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn http(address: SocketAddr, body: &str) -> io::Result<Talk> {
        use std::io::{Read, Write};
        let message = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec();
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&message)?;
        let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
        while !received.ends_with(body.as_bytes()) {
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => received.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(Talk { message, answer: received.len(), is_echo: false, counts: 1 })
    }
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// When the time is over.
    Elapsed(Duration),
    /// After so many messages of each connection.
    Messages(u64),
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Messages that were answered in the time.
    pub messages: u64,
    /// The time.
    pub elapsed: Duration,
    /// All messages, with those that were on their way when the time was over.
    pub total: u64,
}

impl Done {
    /// Messages in a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }
}

struct Connection {
    socket: OwnedFd,
    /// How much of the message is sent, and of the answer received.
    sent: usize,
    received: usize,
    messages_left: u64,
}

/// Connections to one server.
pub struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    talk: Talk,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let connections = self.connections.len();
        f.debug_struct("Load").field("connections", &connections).finish_non_exhaustive()
    }
}

impl Load {
    /// Opens so many connections and exchanges one message on each, which must come back as it was if
    /// that is what the server does.
    ///
    /// # Errors
    ///
    /// When the server does not take them, or answers something else.
    pub fn open(address: SocketAddr, connections: usize, talk: Talk) -> io::Result<Load> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let buffer = vec![0; BUFFER];
        let mut load = Load { epoll, connections: Vec::new(), talk, buffer };
        for key in 0..connections {
            let stream = TcpStream::connect(address)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&load.epoll, &stream, EventData::new_u64(key as u64), flags)?;
            let (socket, sent, received) = (stream.into(), 0, 0);
            load.connections.push(Connection { socket, sent, received, messages_left: 0 });
        }
        load.exchange(Until::Messages(1), true)?;
        Ok(load)
    }

    /// Exchanges messages on all connections at once.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn run(&mut self, until: Until) -> io::Result<Done> {
        self.exchange(until, false)
    }

    fn exchange(&mut self, until: Until, check: bool) -> io::Result<Done> {
        let start = Instant::now();
        let Load { epoll, connections, talk, buffer } = self;
        let (each, deadline) = match until {
            Until::Elapsed(duration) => (u64::MAX, Some(start + duration)),
            Until::Messages(count) => (count, None),
        };
        for connection in connections.iter_mut() {
            connection.messages_left = each;
            connection.begin(talk)?;
        }
        let mut unfinished = connections.len();
        let mut in_time = None;
        let mut total = 0;
        let mut events = Vec::with_capacity(1024);
        while unfinished > 0 {
            events.clear();
            let patience = rustix::time::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let space = rustix::buffer::spare_capacity(&mut events);
            if epoll::wait(&*epoll, space, Some(&patience))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            for event in &events {
                let connection = &mut connections[event.data.u64() as usize];
                if !connection.advance(talk, buffer, check)? {
                    continue;
                }
                total += 1;
                connection.messages_left -= 1;
                if in_time.is_some() || connection.messages_left == 0 {
                    unfinished -= 1;
                } else {
                    connection.begin(talk)?;
                }
            }
            if in_time.is_none() && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                in_time = Some((total, start.elapsed()));
            }
        }
        let (messages, elapsed) = in_time.unwrap_or_else(|| (total, start.elapsed()));
        let counts = talk.counts;
        Ok(Done { messages: messages * counts, elapsed, total: total * counts })
    }
}

impl Connection {
    fn begin(&mut self, talk: &Talk) -> io::Result<()> {
        (self.sent, self.received) = (0, 0);
        self.send(talk)
    }

    fn send(&mut self, talk: &Talk) -> io::Result<()> {
        while self.sent < talk.message.len() {
            match send(&self.socket, &talk.message[self.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Goes on; says whether an answer is complete.
    fn advance(&mut self, talk: &Talk, buffer: &mut [u8], check: bool) -> io::Result<bool> {
        self.send(talk)?;
        if self.received == talk.answer {
            // All was said before; this event is of the connection's beginning or the like.
            return Ok(false);
        }
        loop {
            let read = match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((read, _)) => read,
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let place = self.received;
            self.received += read;
            if self.received > talk.answer {
                return Err(io::Error::other("the answer is too long"));
            }
            if check && talk.is_echo && buffer[..read] != talk.message[place..self.received] {
                return Err(io::Error::other("the answer is not what was sent"));
            }
            if self.received == talk.answer {
                return Ok(true);
            }
            if read < buffer.len() {
                return Ok(false);
            }
        }
    }
}

/// Thousands of connections that end as usual would use up the ports for a minute: these end at once.
impl Drop for Load {
    fn drop(&mut self) {
        for connection in &self.connections {
            let _ = set_socket_linger(&connection.socket, Some(Duration::ZERO));
        }
    }
}

/// Connects, exchanges a message, and ends the connection, again and again, so many at a time.
///
/// # Errors
///
/// When the server does not take a connection or does not answer.
pub fn churn(
    address: SocketAddr,
    at_a_time: usize,
    talk: &Talk,
    until: Duration,
) -> io::Result<Done> {
    use std::io::{Read, Write};
    let (start, mut messages) = (Instant::now(), 0);
    let mut answer = vec![0; talk.answer];
    while start.elapsed() < until {
        let connect = |_| {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(&talk.message)?;
            Ok(stream)
        };
        let streams: io::Result<Vec<TcpStream>> = (0..at_a_time).map(connect).collect();
        for mut stream in streams? {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.read_exact(&mut answer)?;
            stream.shutdown(Shutdown::Both)?;
            messages += 1;
        }
    }
    Ok(Done { messages, elapsed: start.elapsed(), total: messages })
}
