//! Sockets that the service manager has made: systemd's socket activation.

use std::env;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::OnceLock;

use crate::sys::take_inherited_fd;

/// Where the descriptors begin: `SD_LISTEN_FDS_START`.
const FIRST_FD: RawFd = 3;

/// No service has more sockets than this; a larger number is nonsense.
const MOST_FDS: usize = 4096;

/// What the environment says. It is read once and left as it is: threads may read it at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Activation {
    names: Vec<String>,
}

static ACTIVATION: OnceLock<Result<Activation, String>> = OnceLock::new();

/// Which of the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Index(usize),
    Name(String),
}

/// Takes a socket that the service manager has passed to this process.
pub(crate) fn take(which: &Which) -> io::Result<OwnedFd> {
    let known = ACTIVATION.get_or_init(|| {
        let read = |name: &str| env::var(name).ok();
        let (pid, count, names) = (read("LISTEN_PID"), read("LISTEN_FDS"), read("LISTEN_FDNAMES"));
        Activation::parse(std::process::id(), pid, count, names)
    });
    let found = known.as_ref().map_err(Clone::clone).and_then(|known| known.find(which));
    let fd = found.map_err(|why| io::Error::new(io::ErrorKind::NotFound, why))?;
    take_inherited_fd(fd)
}

impl Activation {
    fn parse(
        own: u32,
        pid: Option<String>,
        count: Option<String>,
        names: Option<String>,
    ) -> Result<Activation, String> {
        let Some(count) = count else {
            return Err("systemd has passed no sockets: LISTEN_FDS is not set".into());
        };
        let pid = pid.unwrap_or_default();
        if pid.parse() != Ok(own) {
            let error = format!(
                "the sockets of systemd are for another process: LISTEN_PID is '{pid}', this is {own}"
            );
            return Err(error);
        }
        let count = count.parse().ok().filter(|count| *count <= MOST_FDS);
        let Some(count) = count else {
            return Err("LISTEN_FDS is no number of sockets".into());
        };
        let names = names.unwrap_or_default();
        let mut names: Vec<String> = names.split(':').map(str::to_owned).collect();
        names.resize(count, String::new());
        Ok(Activation { names })
    }

    fn find(&self, which: &Which) -> Result<RawFd, String> {
        let count = self.names.len();
        let index = match which {
            Which::Index(index) if *index < count => *index,
            Which::Index(index) => {
                return Err(format!("there is no socket {index} among the {count} of systemd"));
            }
            Which::Name(name) => {
                self.names.iter().position(|known| known == name).ok_or_else(|| {
                    format!("none of the {count} sockets of systemd is named '{name}'")
                })?
            }
        };
        // It is small: see MOST_FDS.
        Ok(FIRST_FD + RawFd::try_from(index).unwrap_or(RawFd::MAX - FIRST_FD))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pid: &str, count: &str, names: Option<&str>) -> Result<Activation, String> {
        Activation::parse(7, Some(pid.into()), Some(count.into()), names.map(str::to_owned))
    }

    #[test]
    fn sockets_are_found_by_number_and_by_name() {
        let found = parse("7", "3", Some("web:admin")).unwrap();
        assert_eq!(found.find(&Which::Index(2)), Ok(5));
        assert_eq!(found.find(&Which::Name("admin".into())), Ok(4));
        let missing = found.find(&Which::Index(3)).unwrap_err();
        assert_eq!(missing, "there is no socket 3 among the 3 of systemd");
        let missing = found.find(&Which::Name("x".into())).unwrap_err();
        assert_eq!(missing, "none of the 3 sockets of systemd is named 'x'");
    }

    #[test]
    fn sockets_for_another_process_are_left_alone() {
        let error = parse("8", "1", None).unwrap_err();
        assert!(error.contains("LISTEN_PID is '8', this is 7"), "{error}");
        assert!(parse("", "1", None).is_err());
        assert!(Activation::parse(7, None, Some("1".into()), None).is_err());
    }

    #[test]
    fn no_sockets_and_nonsense_are_told() {
        let error = Activation::parse(7, None, None, None).unwrap_err();
        assert!(error.contains("LISTEN_FDS is not set"), "{error}");
        for count in ["", "-1", "x", "5000"] {
            assert!(parse("7", count, None).is_err(), "{count}");
        }
    }
}
