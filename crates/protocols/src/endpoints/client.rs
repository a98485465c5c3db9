//! Where to connect to, as text.

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tulipa_loop::LoopHandle;

use super::description::{Description, EndpointError};
use crate::connect::adopt_on;
use crate::sys::take_inherited_fd;
use crate::{Connect, Connection, Protocol};

/// How long connecting may take unless the text says otherwise: Twisted's half a minute.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where to connect to, as a text that a configuration file or a command line may have. Stands for Twisted's
/// `clientFromString`.
///
/// | text | connects |
/// |---|---|
/// | `tcp:HOST:PORT`, `tcp:host=HOST:port=PORT` | to a host, over whichever of its addresses answers first |
/// | `unix:/run/x`, `unix:path=/run/x` | to a Unix socket |
/// | `fd:3` | nowhere: it takes a connection that the process has inherited |
///
/// `tcp` and `unix` take `timeout=SECONDS`, 30 unless it is said; `tcp` takes `bindAddress=IP`, from which to connect. A
/// colon, an equals sign or a backslash that belongs to a value has a backslash in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEndpoint {
    place: Place,
    timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp { host: String, port: u16, from: Option<IpAddr> },
    Unix(PathBuf),
    Inherited(RawFd),
}

impl FromStr for ClientEndpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<ClientEndpoint, EndpointError> {
        let mut description = Description::parse(text)?;
        let place = match description.kind() {
            "tcp" => {
                let (host, port) = (description.need("host")?, description.need("port")?);
                let port = description.number("port", &port)?;
                let from = description.named("bindAddress");
                let from = from.map(|ip| {
                    let why = format!("'bindAddress' is '{ip}', which is no IP address");
                    ip.parse().map_err(|_| description.error(why))
                });
                Place::Tcp { host, port, from: from.transpose()? }
            }
            "unix" => Place::Unix(description.need("path")?.into()),
            "fd" => {
                let fd = description.need("fileno")?;
                Place::Inherited(description.number("fileno", &fd)?)
            }
            kind => {
                let why = format!("there is no kind '{kind}': tcp, unix and fd are known");
                return Err(description.error(why));
            }
        };
        let mut timeout = TIMEOUT;
        if !matches!(place, Place::Inherited(_))
            && let Some(seconds) = description.named("timeout")
        {
            let bad = || format!("'timeout' is '{seconds}', which is no number of seconds");
            let parsed = seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
            timeout = parsed
                .filter(|timeout| !timeout.is_zero())
                .ok_or_else(|| description.error(bad()))?;
        }
        description.end()?;
        Ok(ClientEndpoint { place, timeout })
    }
}

impl ClientEndpoint {
    /// How to connect there, for further options; `None` for an inherited connection.
    pub fn connect(&self) -> Option<Connect> {
        let connect = match &self.place {
            Place::Tcp { host, port, from } => {
                let connect = Connect::to((host.as_str(), *port));
                match from {
                    Some(ip) => connect.local_addr((*ip, 0)),
                    None => connect,
                }
            }
            Place::Unix(path) => Connect::to_unix(path),
            Place::Inherited(_) => return None,
        };
        Some(connect.timeout(self.timeout))
    }

    /// Connects on the current loop, and gives the connection to a new protocol. Stands for
    /// `clientFromString(…).connect(factory)`. An inherited connection can be had once.
    ///
    /// # Errors
    /// As [`Connect::open`]; [`InvalidInput`](io::ErrorKind::InvalidInput) if no such descriptor was inherited, or it is
    /// no stream socket.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn open<P: Protocol + 'static>(
        &self,
        factory: impl FnOnce() -> P,
    ) -> io::Result<Connection<P>> {
        if let Place::Inherited(fd) = &self.place {
            let socket = take_inherited_fd(*fd)?;
            return adopt_on(LoopHandle::current(), socket, factory).await;
        }
        let connect = self.connect().expect("only an inherited connection is not made");
        connect.open(factory).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_client_is_understood() {
        let tcp = |host: &str, port| Place::Tcp { host: host.into(), port, from: None };
        let from = Some([127, 0, 0, 1].into());
        for (text, place, seconds) in [
            ("tcp:example.org:80", tcp("example.org", 80), 30.0),
            ("tcp:host=example.org:port=80:timeout=2.5", tcp("example.org", 80), 2.5),
            ("tcp:port=80:host=\\:\\:1", tcp("::1", 80), 30.0),
            ("tcp:a:1:bindAddress=127.0.0.1", Place::Tcp { host: "a".into(), port: 1, from }, 30.0),
            ("unix:/run/x:timeout=1", Place::Unix("/run/x".into()), 1.0),
            ("unix:path=/run/x", Place::Unix("/run/x".into()), 30.0),
            ("fd:3", Place::Inherited(3), 30.0),
        ] {
            let parsed: ClientEndpoint = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(parsed.place, place, "{text}");
            assert_eq!(parsed.timeout, Duration::from_secs_f64(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_client_is_said() {
        for (text, why) in [
            ("", "it begins with no kind, such as 'tcp:'"),
            ("tls:a:1", "there is no kind 'tls': tcp, unix and fd are known"),
            ("systemd:index=0", "there is no kind 'systemd': tcp, unix and fd are known"),
            ("tcp:80", "'port' is missing"),
            ("tcp:a:b", "'port' is 'b', which is no such number"),
            ("tcp:a:1:2", "'2' is one argument too many"),
            ("tcp:a:1:timeout=soon", "'timeout' is 'soon', which is no number of seconds"),
            ("tcp:a:1:timeout=-1", "'timeout' is '-1', which is no number of seconds"),
            ("tcp:a:1:timeout=0", "'timeout' is '0', which is no number of seconds"),
            ("tcp:a:1:timeout=inf", "'timeout' is 'inf', which is no number of seconds"),
            ("tcp:a:1:bindAddress=here", "'bindAddress' is 'here', which is no IP address"),
            ("unix:", "'path' is empty"),
            ("unix:/x:mode=600", "'unix' has no argument 'mode'"),
            ("fd:3:timeout=1", "'fd' has no argument 'timeout'"),
            ("fd:three", "'fileno' is 'three', which is no such number"),
        ] {
            let error = text.parse::<ClientEndpoint>().expect_err(text);
            assert_eq!(error.why, why, "{text}");
        }
    }
}
