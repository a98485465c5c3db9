//! Addresses of stream sockets.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::SockAddr;

/// The address of a stream socket, of the internet or of this machine.
///
/// ```
/// use tulipa_protocols::Address;
///
/// let address = Address::from("127.0.0.1:80".parse::<std::net::SocketAddr>().unwrap());
/// assert_eq!(address.to_string(), "127.0.0.1:80");
/// assert_eq!(Address::Path("/run/x".into()).to_string(), "unix:/run/x");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An internet address.
    Inet(SocketAddr),
    /// A Unix socket's file.
    Path(PathBuf),
    /// A Unix socket with an abstract name, on Linux; the name is without its leading zero byte.
    Abstract(Vec<u8>),
    /// A Unix socket that nobody named, as those of clients are.
    Unnamed,
}

impl Address {
    pub(crate) fn from_socket(address: &SockAddr) -> Option<Address> {
        if let Some(inet) = address.as_socket() {
            return Some(Address::Inet(inet));
        }
        if let Some(path) = address.as_pathname() {
            return Some(Address::Path(path.to_owned()));
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(name) = address.as_abstract_namespace() {
            return Some(Address::Abstract(name.to_owned()));
        }
        address.is_unix().then_some(Address::Unnamed)
    }

    pub(crate) fn to_socket(&self) -> std::io::Result<SockAddr> {
        match self {
            Address::Inet(inet) => Ok(SockAddr::from(*inet)),
            Address::Path(path) => SockAddr::unix(path),
            Address::Abstract(name) => {
                use std::os::unix::ffi::OsStrExt;
                // That is how a name in the abstract namespace is told from a path.
                let mut bytes = vec![0];
                bytes.extend_from_slice(name);
                SockAddr::unix(std::ffi::OsStr::from_bytes(&bytes))
            }
            Address::Unnamed => SockAddr::unix(""),
        }
    }

    /// The internet address, if it is one.
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Address::Inet(address) => Some(*address),
            _ => None,
        }
    }

    /// The path of the socket's file, if it has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Address::Path(path) => Some(path),
            _ => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Inet(address)
    }
}

/// As the examples' servers say it: `127.0.0.1:80`, `[::1]:80`, `unix:/run/x`, `unix:@name`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => write!(f, "{address}"),
            Address::Path(path) => write!(f, "unix:{}", path.display()),
            Address::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
            Address::Unnamed => f.write_str("unix:"),
        }
    }
}
