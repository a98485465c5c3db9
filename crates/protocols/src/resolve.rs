//! Names and addresses: who is asked, and when nobody needs to be.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::pin::Pin;
use std::rc::Rc;

use tulipa_loop::LoopHandle;

use crate::socket::describe;

/// Where to connect to or to listen: what [`create_connection`](crate::create_connection) and
/// [`create_server`](crate::create_server) take.
///
/// | type | example |
/// |---|---|
/// | [`SocketAddr`] and its two kinds | `SocketAddr::from(([127, 0, 0, 1], 80))` |
/// | `(IpAddr, u16)` | `(Ipv4Addr::LOCALHOST.into(), 80)` |
/// | `(&str, u16)`, `(String, u16)` | `("localhost", 80)`; the empty name is every address of this machine |
/// | `&str`, `String` | `"localhost:80"`, `"[::1]:80"`, `":80"` |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Address(SocketAddr),
    Name(String),
    /// Every address of this machine.
    Any,
    /// What was given makes no sense.
    Invalid(String),
}

impl Endpoint {
    fn named(host: &str, port: u16) -> Endpoint {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = match (bare, bare.parse::<IpAddr>()) {
            ("", _) => Host::Any,
            (_, Ok(ip)) => Host::Address(SocketAddr::new(ip, port)),
            (name, Err(_)) => Host::Name(name.to_owned()),
        };
        Endpoint { host, port }
    }

    fn parse(text: &str) -> Endpoint {
        let split = text.rsplit_once(':');
        // Digits only: `parse` would also take a sign.
        let number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = split.filter(|(_, port)| number(port));
        let parsed = parsed.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        match parsed {
            // An IPv6 address needs brackets, or its last group would be taken for the port.
            Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
                Endpoint::named(host, port)
            }
            _ => Endpoint { host: Host::Invalid(text.to_owned()), port: 0 },
        }
    }

    /// The addresses, in the resolver's order. Nobody is asked about numbers.
    pub(crate) async fn resolve(&self, handle: &LoopHandle) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Address(address) => Ok(vec![*address]),
            Host::Any => Ok(vec![
                SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), self.port),
                SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), self.port),
            ]),
            Host::Invalid(text) => {
                let error = format!("\"{text}\" is not of the form host:port");
                Err(io::Error::new(io::ErrorKind::InvalidInput, error))
            }
            Host::Name(name) => {
                check_name(name)?;
                let resolver = handle.local(|_| Resolving::default()).resolver();
                let found = resolver.resolve(handle, name, self.port).await;
                let found =
                    found.map_err(|error| describe(error, &format!("cannot resolve {name}")))?;
                if found.is_empty() {
                    let error = format!("cannot resolve {name}: it has no addresses");
                    return Err(io::Error::new(io::ErrorKind::NotFound, error));
                }
                Ok(found)
            }
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Host::Address(address) => write!(f, "{address}"),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Any => write!(f, "*:{}", self.port),
            Host::Invalid(text) => f.write_str(text),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint { host: Host::Address(address), port: address.port() }
    }
}

impl From<SocketAddrV4> for Endpoint {
    fn from(address: SocketAddrV4) -> Endpoint {
        SocketAddr::from(address).into()
    }
}

impl From<SocketAddrV6> for Endpoint {
    fn from(address: SocketAddrV6) -> Endpoint {
        SocketAddr::from(address).into()
    }
}

impl From<(IpAddr, u16)> for Endpoint {
    fn from((ip, port): (IpAddr, u16)) -> Endpoint {
        SocketAddr::new(ip, port).into()
    }
}

impl From<(&str, u16)> for Endpoint {
    fn from((host, port): (&str, u16)) -> Endpoint {
        Endpoint::named(host, port)
    }
}

impl From<(String, u16)> for Endpoint {
    fn from((host, port): (String, u16)) -> Endpoint {
        Endpoint::named(&host, port)
    }
}

impl From<&str> for Endpoint {
    fn from(text: &str) -> Endpoint {
        Endpoint::parse(text)
    }
}

impl From<String> for Endpoint {
    fn from(text: String) -> Endpoint {
        Endpoint::parse(&text)
    }
}

/// The future of a [`Resolver`].
pub type Resolved = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;

/// Who finds the addresses of a name. Numeric addresses never come here.
pub trait Resolver {
    /// Finds the addresses of `name` for stream sockets, best first, each with `port`.
    fn resolve(&self, handle: &LoopHandle, name: &str, port: u16) -> Resolved;
}

/// The operating system's resolver, in the loop's default executor.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, handle: &LoopHandle, name: &str, port: u16) -> Resolved {
        let hints = Hints { socket_type: Some(SocketType::Stream), ..Hints::default() };
        let (handle, name) = (handle.clone(), name.to_owned());
        Box::pin(async move {
            let found = getaddrinfo_on(handle, name, String::new(), hints).await?;
            let with_port = |info: AddrInfo| {
                let mut address = info.address;
                address.set_port(port);
                address
            };
            Ok(found.into_iter().map(with_port).collect())
        })
    }
}

/// The resolver of a loop.
#[derive(Default)]
struct Resolving(RefCell<Option<Rc<dyn Resolver>>>);

impl Resolving {
    fn resolver(&self) -> Rc<dyn Resolver> {
        let own = self.0.borrow().clone();
        own.unwrap_or_else(|| Rc::new(SystemResolver))
    }
}

/// Sets who finds addresses for the connections and servers of a loop; `None` is the
/// [`SystemResolver`].
pub fn set_resolver(handle: &LoopHandle, resolver: Option<Rc<dyn Resolver>>) {
    let resolving = handle.local(|_| Resolving::default());
    let old = resolving.0.replace(resolver);
    drop(old);
}

/// What to look for with [`getaddrinfo`]. The default is everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Only addresses of this family.
    pub family: Option<Family>,
    /// Only addresses for this type of socket.
    pub socket_type: Option<SocketType>,
    /// Addresses to listen on: no name then means every address of this machine (`AI_PASSIVE`).
    pub passive: bool,
    /// Do not ask anybody: the name is a number (`AI_NUMERICHOST`).
    pub numeric_host: bool,
}

/// A family of internet addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A type of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketType {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

/// One answer of [`getaddrinfo`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddrInfo {
    /// The address, with the service's port.
    pub address: SocketAddr,
    /// The type of socket it is for, if it is one of those known here.
    pub socket_type: Option<SocketType>,
}

/// Asks the operating system for the addresses of a host and a service, either of which may be empty, in
/// the default executor of the current loop. Stands for `loop.getaddrinfo`.
///
/// # Errors
/// What the system's resolver says; [`Other`](io::ErrorKind::Other) if the executor refuses;
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for what cannot be a name: more than 253 bytes, an empty part,
/// white space or control characters. Names that are not ASCII are given to the system as they are. Short forms of
/// IPv4 addresses (`127.1`, `0x7f.1`) are numbers to it, as everywhere.
///
/// # Cancel safety
/// Dropping the future drops the answer. A question that was asked already keeps a thread of the executor until it
/// is answered.
///
/// # Panics
/// Outside of a running loop.
pub async fn getaddrinfo(host: &str, service: &str, hints: Hints) -> io::Result<Vec<AddrInfo>> {
    let (host, service) = (host.to_owned(), service.to_owned());
    getaddrinfo_on(LoopHandle::current(), host, service, hints).await
}

pub(crate) async fn getaddrinfo_on(
    handle: LoopHandle,
    host: String,
    service: String,
    hints: Hints,
) -> io::Result<Vec<AddrInfo>> {
    check_name(&host)?;
    check_service(&service)?;
    let (text, started) = (host.clone(), handle.time());
    let job = handle.run_in_executor(None, move || ask(&host, &service, hints));
    let answer = job.await.map_err(|error| io::Error::other(error.to_string()))?;
    let took = handle.time().saturating_duration_since(started);
    if took >= handle.slow_callback_duration() {
        tracing::info!(target: "tulipa::net", host = text, ?took, "resolved slowly");
    } else {
        tracing::debug!(target: "tulipa::net", host = text, ?took, "resolved");
    }
    answer
}

/// The longest name that there can be, in bytes, without a dot at its end (RFC 1035, section 2.3.4). Resolvers have cut longer
/// ones, and found the address of another name.
const LONGEST_NAME: usize = 253;

/// Refuses what cannot be a name, before anybody is asked: what one part of a program takes for another name than the next one does
/// is how hosts are mistaken.
fn check_name(name: &str) -> io::Result<()> {
    let refuse = |why: &str| {
        let error = format!("cannot resolve {}: {why}", shown(name));
        Err(io::Error::new(io::ErrorKind::InvalidInput, error))
    };
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.len() > LONGEST_NAME {
        return refuse("it is longer than 253 bytes");
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse("it has white space or control characters in it");
    }
    if !name.is_empty() && bare.split('.').any(str::is_empty) {
        return refuse("a part of it is empty");
    }
    Ok(())
}

/// A name in a message: what is long is cut, and what is no text is escaped.
fn shown(name: &str) -> String {
    const MOST: usize = 80;
    let dots = if name.chars().count() > MOST { "…" } else { "" };
    name.chars().take(MOST).flat_map(char::escape_debug).chain(dots.chars()).collect()
}

fn check_service(service: &str) -> io::Result<()> {
    if service.chars().any(char::is_control) {
        let error = format!("cannot resolve the service {}", shown(service));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    Ok(())
}

fn ask(host: &str, service: &str, hints: Hints) -> io::Result<Vec<AddrInfo>> {
    use socket2::{Domain, Type};
    let flags = i32::from(hints.passive) * libc::AI_PASSIVE
        + i32::from(hints.numeric_host) * libc::AI_NUMERICHOST;
    let hints = dns_lookup::AddrInfoHints {
        address: hints.family.map_or(0, |family| match family {
            Family::V4 => Domain::IPV4.into(),
            Family::V6 => Domain::IPV6.into(),
        }),
        socktype: hints.socket_type.map_or(0, |kind| match kind {
            SocketType::Stream => Type::STREAM.into(),
            SocketType::Datagram => Type::DGRAM.into(),
        }),
        flags,
        ..dns_lookup::AddrInfoHints::default()
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (host, service) = (some(host), some(service));
    let found = dns_lookup::getaddrinfo(host.as_deref(), service.as_deref(), Some(hints));
    let mut answers = Vec::new();
    for info in found.map_err(io::Error::from)? {
        let info = info?;
        let socket_type = match info.socktype {
            kind if kind == i32::from(Type::STREAM) => Some(SocketType::Stream),
            kind if kind == i32::from(Type::DGRAM) => Some(SocketType::Datagram),
            _ => None,
        };
        answers.push(AddrInfo { address: info.sockaddr, socket_type });
    }
    Ok(answers)
}

/// Asks the operating system for the name of an address's host and of its port's service, in the default
/// executor of the current loop. Stands for `loop.getnameinfo`.
///
/// # Errors
/// As [`getaddrinfo`].
///
/// # Cancel safety
/// As [`getaddrinfo`].
///
/// # Panics
/// Outside of a running loop.
pub async fn getnameinfo(address: SocketAddr) -> io::Result<(String, String)> {
    getnameinfo_on(LoopHandle::current(), address).await
}

pub(crate) async fn getnameinfo_on(
    handle: LoopHandle,
    address: SocketAddr,
) -> io::Result<(String, String)> {
    let job = handle.run_in_executor(None, move || dns_lookup::getnameinfo(&address, 0));
    job.await.map_err(|error| io::Error::other(error.to_string()))?.map_err(io::Error::from)
}
