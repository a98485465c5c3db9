//! What every server example does the same way.
//!
//! A server listens at `--bind ADDR` (a free port of 127.0.0.1 if nothing is said) or `--unix PATH`,
//! prints `listening on ADDR` once it does, with the real port, and nothing else on its standard
//! output. SIGINT and SIGTERM ask it to finish what it has begun and to exit with status 0.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{self, ExitCode};

use lexopt::{Arg, ValueExt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// How many clients may wait to be accepted.
///
/// A thousand that come at once must not be refused, or wait a second for their second attempt,
/// as they would with the 128 of the standard library: `a_thousand_clients_at_once` in the tests.
pub(crate) const BACKLOG: u16 = 1024;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `--bind HOST:PORT`; port 0 is any free one.
    Tcp(String),
    /// `--unix PATH`
    Unix(PathBuf),
}

impl Default for Address {
    fn default() -> Address {
        Address::Tcp("127.0.0.1:0".to_owned())
    }
}

impl Address {
    /// What the command line says. Ends the program with a message if it makes no sense, or if it
    /// asks for help; `about` is what the help says that the program does.
    pub fn from_command_line(about: &str) -> Address {
        Address::from_command_line_with(about, "", |_, _| Ok(false))
    }

    /// The same for a program with options of its own, which `usage` names in the help: `option` gets the
    /// name of each and takes its value; `false` says that there is no such option.
    pub fn from_command_line_with(
        about: &str,
        usage: &str,
        option: impl FnMut(&str, &mut lexopt::Parser) -> Result<bool, lexopt::Error>,
    ) -> Address {
        let mut parser = lexopt::Parser::from_env();
        let name = parser.bin_name().unwrap_or("server").to_owned();
        let usage = format!("usage: {name} [--bind ADDR | --unix PATH]{usage}");
        match Address::parse(&mut parser, option) {
            Ok(Some(address)) => address,
            Ok(None) => {
                let _unread = writeln!(io::stdout(), "{about}\n\n{usage}");
                process::exit(0);
            }
            Err(error) => {
                log(format_args!("{name}: {error}\n{usage}"));
                process::exit(2);
            }
        }
    }

    /// `None` if it asks for help.
    fn parse(
        parser: &mut lexopt::Parser,
        mut option: impl FnMut(&str, &mut lexopt::Parser) -> Result<bool, lexopt::Error>,
    ) -> Result<Option<Address>, lexopt::Error> {
        let mut address = None;
        while let Some(argument) = parser.next()? {
            let given = match argument {
                Arg::Long("bind") => Address::Tcp(parser.value()?.string()?),
                Arg::Long("unix") => Address::Unix(parser.value()?.into()),
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long(name) => {
                    let name = name.to_owned();
                    if option(&name, parser)? {
                        continue;
                    }
                    return Err(Arg::Long(&name).unexpected());
                }
                other => return Err(other.unexpected()),
            };
            if address.replace(given).is_some() {
                return Err("one of --bind and --unix is enough".into());
            }
        }
        Ok(Some(address.unwrap_or_default()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => f.write_str(address),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listening socket that never blocks. Dropping it removes the socket file that it made.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// With the real port.
    address: Address,
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// What the operating system says, with the address in the message. A file that is already
    /// there is an error, and is left alone.
    pub fn bind(address: &Address) -> io::Result<Listener> {
        Listener::listen(address).map_err(|cause| {
            io::Error::new(cause.kind(), format!("cannot listen on {address}: {cause}"))
        })
    }

    fn listen(address: &Address) -> io::Result<Listener> {
        let listener = match address {
            Address::Tcp(name) => {
                let socket = TcpListener::bind(name)?;
                socket.set_nonblocking(true)?;
                let address = Address::Tcp(socket.local_addr()?.to_string());
                Listener { socket: Socket::Tcp(socket), address, _file: None }
            }
            Address::Unix(path) => {
                let socket = UnixListener::bind(path)?;
                let file = Some(SocketFile::at(path.clone())?);
                socket.set_nonblocking(true)?;
                Listener { socket: Socket::Unix(socket), address: address.clone(), _file: file }
            }
        };
        rustix::net::listen(&listener, BACKLOG.into())?;
        Ok(listener)
    }

    /// Tells the world that clients may come: `listening on ADDR` on the standard output.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn announce(&self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "listening on {}", self.address)?;
        stdout.flush()
    }

    /// The next client that waits, as a stream that never blocks.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) where nobody waits, else what the operating system
    /// says.
    pub fn accept(&self) -> io::Result<Stream> {
        let stream = match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, _peer) = socket.accept()?;
                // It may fail only because the client is gone already, as the first read will tell.
                let _ = stream.set_nodelay(true);
                Stream::Tcp(stream)
            }
            Socket::Unix(socket) => Stream::Unix(socket.accept()?.0),
        };
        match &stream {
            Stream::Tcp(stream) => stream.set_nonblocking(true)?,
            Stream::Unix(stream) => stream.set_nonblocking(true)?,
        }
        Ok(stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A file that is removed when we are done, unless somebody has put another in its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl SocketFile {
    fn at(path: PathBuf) -> io::Result<SocketFile> {
        let device_and_inode = identity(&path)?;
        Ok(SocketFile { path, device_and_inode })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.device_and_inode)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log(format_args!("cannot remove {}: {error}", self.path.display()));
        }
    }
}

fn identity(path: &PathBuf) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// A connection of either family. Share it to read and to write.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Says that nothing more will be written: the other side reads an end of file.
    ///
    /// # Errors
    /// What the operating system says, for example that the other side is gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A stream that becomes readable, and never blocks, when SIGINT or SIGTERM asks us to finish.
///
/// From this call on the signals do not end the program by themselves.
///
/// # Errors
/// Where the handlers cannot be put in place.
pub fn shutdown_signals() -> io::Result<UnixStream> {
    let (ours, handlers) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, handlers.try_clone()?)?;
    }
    ours.set_nonblocking(true)?;
    Ok(ours)
}

/// Allows this process as many descriptors as it may give itself. It is no error if that is none.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Whether an operation on a stream that never blocks has only to be tried again later.
pub fn not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Writes a line to the standard error, and does not mind if nobody reads it.
pub fn log(line: fmt::Arguments<'_>) {
    let _unread = writeln!(io::stderr(), "{line}");
}

/// What `main` returns: an error is shown in words.
pub fn exit_code(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn parse(arguments: &[&str]) -> Result<Option<Address>, String> {
        let arguments = arguments.iter().map(OsString::from);
        let mut parser = lexopt::Parser::from_args(arguments);
        let parsed = Address::parse(&mut parser, |name, parser| {
            let known = name == "style";
            if known && parser.value()?.is_empty() {
                return Err("an empty style".into());
            }
            Ok(known)
        });
        parsed.map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_says_where_to_listen() {
        assert_eq!(parse(&[]), Ok(Some(Address::Tcp("127.0.0.1:0".into()))));
        assert_eq!(parse(&["--bind", "[::1]:8"]), Ok(Some(Address::Tcp("[::1]:8".into()))));
        assert_eq!(parse(&["--unix=a b"]), Ok(Some(Address::Unix("a b".into()))));
        assert_eq!(parse(&["--help"]), Ok(None));
        assert_eq!(parse(&["--style", "x", "--unix=a"]), Ok(Some(Address::Unix("a".into()))));
    }

    #[test]
    fn a_command_line_that_makes_no_sense_is_refused() {
        for arguments in [
            &["--bind"] as &[&str],
            &["--unix", "a", "--bind", "b"],
            &["--port", "1"],
            &["--style"],
            &["--style", ""],
            &["127.0.0.1:1"],
        ] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }
}
