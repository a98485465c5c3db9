//! Where to listen, as text.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::str::FromStr;

use super::activation::{self, Which};
use super::description::{Description, EndpointError};
use crate::socket::describe;
use crate::sys::take_inherited_fd;
use crate::{Listen, Protocol, Server};

/// Where to listen, as a text that a configuration file or a command line may have. Stands for Twisted's
/// `serverFromString`.
///
/// | text | listens |
/// |---|---|
/// | `tcp:8080` | on the port, at every IPv4 address |
/// | `tcp:8080:interface=127.0.0.1` | at one address; `tcp:8080:127.0.0.1` is the same |
/// | `tcp:localhost:8080`, `tcp:host=localhost:port=8080` | at the addresses of a host |
/// | `unix:/run/x` | on a Unix socket; `unix:/run/x:mode=660` gives its file permissions, in octal |
/// | `fd:3` | on a socket that the process has inherited |
/// | `systemd:index=0`, `systemd:name=web` | on a socket of systemd's, by its place or its name |
///
/// `tcp` and `unix` take `backlog=N`. A colon, an equals sign or a backslash that belongs to a value has a backslash in
/// front of it: `tcp:host=\:\:1:port=80`.
///
/// ```
/// use tulipa_protocols::ServerEndpoint;
///
/// let endpoint: ServerEndpoint = "tcp:8080:interface=127.0.0.1".parse()?;
/// let error = "tcp:eighty".parse::<ServerEndpoint>().unwrap_err();
/// assert_eq!(error.to_string(), "bad endpoint 'tcp:eighty': 'port' is 'eighty', which is no such number");
/// # Ok::<(), tulipa_protocols::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEndpoint {
    place: Place,
    backlog: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp(String, u16),
    Unix(PathBuf, Option<u32>),
    Inherited(RawFd),
    Systemd(Which),
}

impl FromStr for ServerEndpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<ServerEndpoint, EndpointError> {
        let mut description = Description::parse(text)?;
        let place = match description.kind() {
            "tcp" => tcp(&mut description)?,
            "unix" => unix(&mut description)?,
            "fd" => {
                let fd = description.need("fileno")?;
                Place::Inherited(description.number("fileno", &fd)?)
            }
            "systemd" => Place::Systemd(systemd(&mut description)?),
            kind => {
                let why = format!("there is no kind '{kind}': tcp, unix, fd and systemd are known");
                return Err(description.error(why));
            }
        };
        let backlog = match place {
            Place::Tcp(..) | Place::Unix(..) => description.named("backlog"),
            _ => None,
        };
        let backlog = backlog.map(|value| description.number("backlog", &value)).transpose()?;
        description.end()?;
        Ok(ServerEndpoint { place, backlog })
    }
}

/// `PORT`, `PORT:INTERFACE`, `HOST:PORT`, and the same by name.
fn tcp(description: &mut Description) -> Result<Place, EndpointError> {
    let numeric = description.peek().is_some_and(|first| first.parse::<u16>().is_ok());
    let mut host = description.named("host").or_else(|| description.named("interface"));
    if host.is_none() && description.placed() == 2 && !numeric {
        host = description.next();
    }
    let before = description.placed();
    let port = description.need("port")?;
    let port = description.number("port", &port)?;
    let by_name = description.placed() == before;
    if host.is_none() && !(by_name && numeric) {
        host = description.next();
    }
    let host = host.unwrap_or_else(|| "0.0.0.0".to_owned());
    Ok(Place::Tcp(host, port))
}

fn unix(description: &mut Description) -> Result<Place, EndpointError> {
    let path = description.need("address")?;
    let mode = description.named("mode");
    let mode = mode.map(|mode| match u32::from_str_radix(&mode, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(description.error(format!("'mode' is '{mode}', which is no octal mode"))),
    });
    Ok(Place::Unix(path.into(), mode.transpose()?))
}

fn systemd(description: &mut Description) -> Result<Which, EndpointError> {
    match (description.named("name"), description.get("index")?) {
        (Some(_), Some(_)) => Err(description.error("one of 'index' and 'name' is enough")),
        (Some(name), None) => Ok(Which::Name(name)),
        (None, Some(index)) => Ok(Which::Index(description.number("index", &index)?)),
        (None, None) => Err(description.error("one of 'index' and 'name' is missing")),
    }
}

impl ServerEndpoint {
    /// How to listen there, for further options. Inherited sockets are taken here, which can be done once for each.
    /// The permissions of a Unix socket's file are set by [`serve`](Self::serve) only.
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound) if systemd has passed no such socket;
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if no such descriptor was inherited.
    pub fn listen(&self) -> io::Result<Listen> {
        let listen = match &self.place {
            Place::Tcp(host, port) => Listen::on((host.as_str(), *port)),
            Place::Unix(path, _) => Listen::on_unix(path),
            Place::Inherited(fd) => Listen::on_socket(take_inherited_fd(*fd)?),
            Place::Systemd(which) => Listen::on_socket(activation::take(which)?),
        };
        Ok(match self.backlog {
            Some(backlog) => listen.backlog(backlog),
            None => listen,
        })
    }

    /// Makes a server there, on the current loop. Stands for `serverFromString(…).listen(factory)`.
    ///
    /// # Errors
    /// As [`listen`](Self::listen) and [`Listen::serve`]; that the permissions cannot be set.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    ///
    /// # Panics
    /// Outside of a running loop.
    pub async fn serve<P: Protocol + 'static>(
        &self,
        factory: impl FnMut() -> P + 'static,
    ) -> io::Result<Server> {
        let Place::Unix(path, Some(mode)) = &self.place else {
            return self.listen()?.serve(factory).await;
        };
        // Nobody can connect before it has its permissions.
        let server = self.listen()?.start_serving(false).serve(factory).await?;
        let opened = fs::set_permissions(path, Permissions::from_mode(*mode))
            .map_err(|error| describe(error, &format!("cannot set the mode of {}", path.display())))
            .and_then(|()| server.start_serving());
        if let Err(error) = opened {
            server.close();
            return Err(error);
        }
        Ok(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse::<ServerEndpoint>().unwrap_or_else(|error| panic!("{error}")).place
    }

    #[test]
    fn every_form_of_a_server_is_understood() {
        let tcp = |host: &str, port| Place::Tcp(host.into(), port);
        let unix = |path: &str, mode| Place::Unix(path.into(), mode);
        for (text, expected) in [
            ("tcp:80", tcp("0.0.0.0", 80)),
            ("tcp:port=80", tcp("0.0.0.0", 80)),
            ("tcp:80:127.0.0.1", tcp("127.0.0.1", 80)),
            ("tcp:80:interface=127.0.0.1:backlog=5", tcp("127.0.0.1", 80)),
            ("tcp:localhost:80", tcp("localhost", 80)),
            ("tcp:host=localhost:port=80", tcp("localhost", 80)),
            ("tcp:port=80:host=\\:\\:1", tcp("::1", 80)),
            ("tcp:\\:\\:1:0", tcp("::1", 0)),
            ("unix:/run/x", unix("/run/x", None)),
            ("unix:address=/run/x:mode=660", unix("/run/x", Some(0o660))),
            ("unix:/a\\:b\\=c\\\\d", unix("/a:b=c\\d", None)),
            ("fd:3", Place::Inherited(3)),
            ("fd:fileno=4", Place::Inherited(4)),
            ("systemd:index=0", Place::Systemd(Which::Index(0))),
            ("systemd:1", Place::Systemd(Which::Index(1))),
            ("systemd:name=web", Place::Systemd(Which::Name("web".into()))),
        ] {
            assert_eq!(place(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_server_is_said() {
        for (text, why) in [
            ("", "it begins with no kind, such as 'tcp:'"),
            (":80", "it begins with no kind, such as 'tcp:'"),
            ("port=80", "it begins with no kind, such as 'tcp:'"),
            ("8080", "there is no kind '8080': tcp, unix, fd and systemd are known"),
            ("ssl:443", "there is no kind 'ssl': tcp, unix, fd and systemd are known"),
            ("tcp", "'port' is missing"),
            ("tcp:", "'port' is empty"),
            ("tcp:eighty", "'port' is 'eighty', which is no such number"),
            ("tcp:65536", "'port' is '65536', which is no such number"),
            ("tcp:host=a", "'port' is missing"),
            ("tcp:a:b", "'port' is 'b', which is no such number"),
            ("tcp:80:a:b", "'b' is one argument too many"),
            ("tcp:80:port=81", "'80' is one argument too many"),
            ("tcp:80:backlog=many", "'backlog' is 'many', which is no such number"),
            ("tcp:80:colour=red", "'tcp' has no argument 'colour'"),
            ("tcp:port=80:port=81", "'port' is there twice"),
            (
                "tcp:port=80:127.0.0.1",
                "'127.0.0.1' comes behind an argument with a name and has none",
            ),
            ("tcp:80:=x", "'=x' has no name"),
            ("tcp:80\\", "there is nothing behind the last backslash"),
            ("unix:", "'address' is empty"),
            ("unix:/x:mode=rw", "'mode' is 'rw', which is no octal mode"),
            ("unix:/x:mode=1777", "'mode' is '1777', which is no octal mode"),
            ("fd:x", "'fileno' is 'x', which is no such number"),
            ("fd:3:backlog=4", "'fd' has no argument 'backlog'"),
            ("systemd:", "'index' is '', which is no such number"),
            ("systemd", "one of 'index' and 'name' is missing"),
            ("systemd:index=0:name=a", "one of 'index' and 'name' is enough"),
        ] {
            let error = text.parse::<ServerEndpoint>().expect_err(text);
            assert_eq!(error.why, why, "{text}");
            assert_eq!(error.to_string(), format!("bad endpoint '{text}': {why}"));
        }
    }
}
