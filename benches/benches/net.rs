//! Echo over TCP: protocols and streams beside a bare epoll loop and tokio's current-thread runtime.
//!
//! Each server runs in a thread of its own for as long as the benchmark does; the client is the main
//! thread, with blocking sockets, and is the same for all.
//!
//! `--serve protocol|streams|bare N` is one server by itself that ends after N messages, to count its
//! instructions or system calls from outside: see `docs/benchmarks.md`.
#![allow(clippy::print_stdout, reason = "a server says where it listens")]

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the bare loop that the others are compared with is for Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::Cell;
    use std::io::{self, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::rc::Rc;
    use std::sync::mpsc;
    use std::thread;

    use rustix::event::epoll;
    use rustix::net::{RecvFlags, SendFlags, recv, send};
    use tulipa_benches::{Plan, Table};
    use tulipa_loop::{EventLoop, LoopHandle};
    use tulipa_protocols::{Listen, Protocol, Transport};
    use tulipa_streams::start_server_with;

    pub(crate) fn main() {
        let args: Vec<String> = std::env::args().collect();
        if let Some(place) = args.iter().position(|arg| arg == "--serve") {
            let count = args[place + 2].parse().expect("a number of messages");
            return serve(&args[place + 1], count);
        }
        let plan = Plan::from_args();
        for (title, connections, size, lines) in [
            ("echo of 64 bytes, 1 connection, each round", 1, 64, 1),
            ("echo of 64 bytes, 100 connections, each round", 100, 64, 1),
            ("echo of 100 KiB, 10 connections, each round", 10, 100 * 1024, 1),
            ("echo of 16 lines, 100 connections, each round", 100, 64, 16),
        ] {
            let mut table = Table::new(title, "bare epoll");
            type Start = fn(mpsc::Sender<SocketAddr>);
            let echoes: [(&'static str, Start); 4] = if lines == 1 {
                [
                    ("bare epoll", |told| bare(u64::MAX, &told)),
                    ("tulipa protocol", |told| protocol(u64::MAX, &told)),
                    ("tulipa streams", |told| streams(u64::MAX, &told)),
                    ("tokio", |told| tokio_echo(&told)),
                ]
            } else {
                [
                    ("bare epoll", |told| bare(u64::MAX, &told)),
                    ("tulipa protocol", line_protocol),
                    ("tulipa streams", line_streams),
                    ("tokio", tokio_lines),
                ]
            };
            for (name, start) in echoes {
                let (told, address) = mpsc::channel();
                thread::spawn(move || start(told));
                let address = address.recv().expect("the server listens");
                let mut client = Client::new(address, connections, size, lines);
                table = table.case(name, move |repeats| client.exchange(repeats));
            }
            table.run(&plan);
        }
    }

    /// Many connections, on each of which some messages are under way at a time.
    struct Client {
        connections: Vec<TcpStream>,
        message: Vec<u8>,
        answer: Vec<u8>,
    }

    impl Client {
        fn new(address: SocketAddr, connections: usize, size: usize, lines: usize) -> Client {
            let connect = |_| {
                let stream = TcpStream::connect(address).expect("the server listens");
                stream.set_nodelay(true).expect("it is a TCP socket");
                stream
            };
            let mut line = vec![b'x'; size];
            line[size - 1] = b'\n';
            let message = line.repeat(lines);
            let answer = vec![0; message.len()];
            Client { connections: (0..connections).map(connect).collect(), message, answer }
        }

        /// So many rounds; in each, every connection sends what it has to say and waits for the answer.
        fn exchange(&mut self, rounds: u64) {
            for _ in 0..rounds {
                for stream in &mut self.connections {
                    stream.write_all(&self.message).expect("the server reads");
                }
                for stream in &mut self.connections {
                    stream.read_exact(&mut self.answer).expect("the server answers");
                }
            }
        }
    }

    fn serve(kind: &str, count: u64) {
        let (told, address) = mpsc::channel();
        let speaker = thread::spawn(move || {
            println!("listening on {}", address.recv().expect("the server listens"));
        });
        match kind {
            "protocol" => protocol(count, &told),
            "streams" => streams(count, &told),
            "bare" => bare(count, &told),
            other => panic!("there is no server of the kind {other}"),
        }
        speaker.join().expect("it has spoken");
    }

    /// Counts messages, and stops the loop after so many.
    #[derive(Clone)]
    struct Countdown(Rc<Cell<u64>>);

    impl Countdown {
        fn new(count: u64) -> Countdown {
            Countdown(Rc::new(Cell::new(count)))
        }

        fn one(&self) {
            match self.0.get().checked_sub(1) {
                Some(left) => self.0.set(left),
                None => LoopHandle::current().stop(),
            }
        }
    }

    struct Echo(Countdown);

    impl Protocol for Echo {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
            transport.write(data);
            self.0.one();
            Ok(())
        }
    }

    /// Answers each line by itself, as a server that has to understand them does.
    #[derive(Default)]
    struct Lines(Vec<u8>);

    impl Protocol for Lines {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
            for piece in data.split_inclusive(|byte| *byte == b'\n') {
                if self.0.is_empty() && piece.ends_with(b"\n") {
                    transport.write(piece);
                    continue;
                }
                self.0.extend_from_slice(piece);
                if piece.ends_with(b"\n") {
                    transport.write(&self.0);
                    self.0.clear();
                }
            }
            Ok(())
        }
    }

    fn listen() -> Listen {
        Listen::on("127.0.0.1:0").backlog(1024)
    }

    fn protocol(count: u64, told: &mpsc::Sender<SocketAddr>) {
        let countdown = Countdown::new(count);
        run(told, listen().serve(move || Echo(countdown.clone())));
    }

    fn line_protocol(told: mpsc::Sender<SocketAddr>) {
        run(&told, listen().serve(Lines::default));
    }

    fn streams(count: u64, told: &mpsc::Sender<SocketAddr>) {
        let countdown = Countdown::new(count);
        run(
            told,
            start_server_with(listen(), 64 * 1024, async move |mut reader, writer| {
                let mut buffer = vec![0; 256 * 1024];
                loop {
                    let read = reader.read(&mut buffer).await?;
                    if read == 0 {
                        return io::Result::Ok(());
                    }
                    writer.write_all(&buffer[..read]).await?;
                    countdown.one();
                }
            }),
        );
    }

    fn line_streams(told: mpsc::Sender<SocketAddr>) {
        run(
            &told,
            start_server_with(listen(), 64 * 1024, async |mut reader, writer| {
                loop {
                    let line = reader.read_line().await?;
                    if line.is_empty() {
                        return io::Result::Ok(());
                    }
                    writer.write(line);
                    writer.drain().await?;
                }
            }),
        );
    }

    fn run(
        told: &mpsc::Sender<SocketAddr>,
        serving: impl Future<Output = io::Result<tulipa_protocols::Server>>,
    ) {
        let event_loop = EventLoop::new().expect("a loop");
        let server = event_loop.run_until_complete(serving).expect("a run").expect("a server");
        let address = server.local_addrs()[0].inet().expect("an internet address");
        told.send(address).expect("somebody listens");
        event_loop.run_forever().expect("a run");
    }

    /// What a program without any library does: one wait, one receive and one send for a message.
    fn bare(mut count: u64, told: &mpsc::Sender<SocketAddr>) {
        const LISTENER: u64 = u64::MAX;
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        listener.set_nonblocking(true).expect("a socket");
        told.send(listener.local_addr().expect("an address")).expect("somebody listens");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll set");
        let readable = epoll::EventFlags::IN;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), readable).expect("room");
        let mut connections: Vec<OwnedFd> = Vec::new();
        let (mut events, mut buffer) = (Vec::with_capacity(1024), vec![0; 256 * 1024]);
        loop {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None).expect("a wait");
            for event in &events {
                let data = event.data.u64();
                if data == LISTENER {
                    while let Ok((stream, _)) = listener.accept() {
                        stream.set_nonblocking(true).expect("a socket");
                        stream.set_nodelay(true).expect("a socket");
                        let data = epoll::EventData::new_u64(connections.len() as u64);
                        epoll::add(&epoll, &stream, data, readable).expect("room");
                        connections.push(stream.into());
                    }
                    continue;
                }
                let socket = &connections[data as usize];
                match recv(socket, &mut buffer[..], RecvFlags::empty()) {
                    Ok((0, _)) | Err(_) => drop(epoll::delete(&epoll, socket)),
                    Ok((read, _)) => {
                        send_all(socket, &buffer[..read]);
                        match count.checked_sub(1) {
                            Some(left) => count = left,
                            None => return,
                        }
                    }
                }
            }
        }
    }

    /// It spins where others would wait, which the clients here never make it do for long.
    fn send_all(socket: &OwnedFd, mut data: &[u8]) {
        while !data.is_empty() {
            match send(socket, data, SendFlags::NOSIGNAL) {
                Ok(sent) => data = &data[sent..],
                Err(rustix::io::Errno::AGAIN) => thread::yield_now(),
                Err(_) => return,
            }
        }
    }

    fn tokio_echo(told: &mpsc::Sender<SocketAddr>) {
        tokio_serve(told, async |mut stream| {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(read) = stream.read(&mut buffer).await {
                if read == 0 || stream.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        });
    }

    fn tokio_lines(told: mpsc::Sender<SocketAddr>) {
        tokio_serve(&told, async |mut stream| {
            use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
            let (reader, mut writer) = stream.split();
            let (mut reader, mut line) = (BufReader::new(reader), Vec::new());
            while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
                if writer.write_all(&line).await.is_err() {
                    return;
                }
                line.clear();
            }
        });
    }

    fn tokio_serve(
        told: &mpsc::Sender<SocketAddr>,
        handler: impl AsyncFn(tokio::net::TcpStream) + 'static,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let handler = Rc::new(handler);
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime.expect("a runtime"), async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("an address");
            told.send(listener.local_addr().expect("an address")).expect("somebody listens");
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a socket");
                let handler = handler.clone();
                tokio::task::spawn_local(async move { handler(stream).await });
            }
        });
    }
}
