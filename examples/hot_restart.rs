//! A server that is replaced while it serves: the new process gets the listening socket from the old one, over a Unix
//! socket, and nobody who connects meanwhile is refused.
//!
//! Start one: `cargo run --example hot_restart -- --control /tmp/hot --bind 127.0.0.1:4000`. Start the next in the same
//! way, a new build perhaps: it takes over at `/tmp/hot`, says that it is ready, and the old one ends when its last
//! client has gone, or after some seconds. Each line that a client sends comes back behind the number of the process.
//!
//! | | the old one | the new one |
//! |---|---|---|
//! | 1 | waits at the control socket | connects to it |
//! | 2 | sends its listening socket | serves, and takes the control socket's name |
//! | 3 | still serves | says that it is ready |
//! | 4 | accepts nobody any more, and drains | |
//!
//! A new process that fails before it is ready changes nothing: the old one goes on.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tulipa::signal::Signal;
use tulipa::{
    DEFAULT_LIMIT, EventLoop, Listen, LoopHandle, ReadError, StreamReader, StreamWriter,
    sock_accept, sock_connect, sock_recv, sock_recv_fds, sock_send_fds, sock_sendall, spawn,
    start_server_with, stdout, timeout,
};
use tulipa_examples::serve::{self, Address};

/// How long the clients of an old process have to end what they do.
const GRACE: Duration = Duration::from_secs(5);
/// How long a new process may take before it is ready; the old one then goes on.
const PATIENCE: Duration = Duration::from_secs(5);

const SOCKET: &[u8] = b"the listening socket\n";
const READY: &[u8] = b"!";

/// Answers each line with the number of the process that serves.
async fn answer(mut reader: StreamReader, writer: StreamWriter) -> Result<(), ReadError> {
    loop {
        let line = reader.read_line().await?;
        if line.is_empty() {
            return Ok(());
        }
        writer.write(format!("{} ", process::id()).as_bytes());
        writer.write_all(line).await?;
    }
}

/// The listening socket of the process that serves now, and the way to tell it that we are ready. `None` if there is
/// no such process.
async fn take_over(control: &Path) -> io::Result<Option<(TcpListener, OwnedFd)>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let old = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match sock_connect(&old, tulipa::Address::Path(control.to_owned())).await {
        Ok(()) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let mut text = [0; SOCKET.len()];
    let received = sock_recv_fds(&old, &mut text, 1);
    let (_, fds) = timeout(PATIENCE, received).await.map_err(io::Error::other)??;
    let socket = fds.into_iter().next().ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Some((TcpListener::from(socket), old)))
}

/// The place where the next process asks for the socket. It takes the name from the one before in one step.
fn open_control(path: &Path) -> io::Result<UnixListener> {
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(format!(".{}", process::id()));
    let listener = UnixListener::bind(&temporary)?;
    listener.set_nonblocking(true)?;
    std::fs::rename(&temporary, path)?;
    Ok(listener)
}

/// Waits for the next process, and is over when that is ready.
async fn hand_over(control: &UnixListener, socket: &TcpListener) -> io::Result<()> {
    loop {
        let (next, _) = sock_accept(control).await?;
        let handing = async {
            sock_send_fds(&next, SOCKET, &[socket.as_fd()]).await?;
            sock_recv(&next, READY.len()).await
        };
        // It may be gone again, or never be ready: then we go on.
        if let Ok(Ok(said)) = timeout(PATIENCE, handing).await
            && said == READY
        {
            return Ok(());
        }
    }
}

/// Why a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Replaced,
    Told,
}

/// Waits until the next process has taken over, or for SIGINT or SIGTERM.
async fn end(control: UnixListener, socket: TcpListener) -> io::Result<End> {
    let handle = LoopHandle::current();
    let (promise, end) = handle.create_future();
    let promise = Rc::new(Cell::new(Some(promise)));
    let set = move |end| {
        if let Some(promise) = promise.take() {
            let _ = promise.set(end);
        }
    };
    for signal in [Signal::INTERRUPT, Signal::TERMINATE] {
        let set = set.clone();
        handle.add_signal_handler(signal, move |_| set(Ok(End::Told)))?;
    }
    let handing = spawn(async move {
        let handed = hand_over(&control, &socket).await;
        set(handed.map(|()| End::Replaced));
    });
    let ended = end.await.map_err(io::Error::other)?;
    handing.cancel();
    let _cancelled = handing.await;
    ended
}

async fn serve(address: String, control: PathBuf) -> io::Result<()> {
    let (socket, old) = match take_over(&control).await? {
        Some((socket, old)) => (socket, Some(old)),
        None => (TcpListener::bind(address)?, None),
    };
    let listen = Listen::on_socket(socket.try_clone()?);
    let server = start_server_with(listen, DEFAULT_LIMIT, answer).await?;
    let next = open_control(&control)?;
    let output = stdout()?;
    output.write(format!("listening on {}\n", socket.local_addr()?).as_bytes());
    output.flush().await?;
    if let Some(old) = old {
        sock_sendall(&old, READY).await?;
    }
    if end(next, socket).await? == End::Told {
        let _gone = std::fs::remove_file(&control);
    }
    server.close();
    // Clients that are in the middle of something may end it; then all that is left is closed.
    let _in_time = timeout(GRACE, server.wait_closed()).await;
    server.shutdown(GRACE).await;
    Ok(())
}

fn main() -> ExitCode {
    let mut control = None;
    let about = "Answers lines; the next process of it takes over.";
    let address = Address::from_command_line_with(about, " --control PATH", |name, parser| {
        if name == "control" {
            control = Some(PathBuf::from(parser.value()?));
        }
        Ok(name == "control")
    });
    let (Address::Tcp(address), Some(control)) = (address, control) else {
        serve::log(format_args!(
            "hot_restart: it needs --control PATH, and --bind rather than --unix"
        ));
        return ExitCode::from(2);
    };
    let ran = EventLoop::new().and_then(|event_loop| {
        event_loop.run_until_complete(serve(address, control)).map_err(io::Error::other)?
    });
    serve::exit_code(ran)
}
