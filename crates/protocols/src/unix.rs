//! The files of Unix sockets: which may be removed, and by whom.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::Socket;

use crate::Address;
use crate::socket::{datagram_socket, describe, stream_socket};

/// The file of a socket that this process has bound, known by its inode: another server's socket that has
/// taken the path since is left alone.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The file that a `bind` has just made.
    pub(crate) fn of(path: &Path) -> io::Result<SocketFile> {
        let found = fs::symlink_metadata(path)?;
        Ok(SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Removes it, if it is still the same.
    pub(crate) fn remove(self) {
        let Ok(found) = fs::symlink_metadata(&self.path) else { return };
        if (found.dev(), found.ino()) == (self.device, self.inode) {
            // Gone already is as good.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket file that nobody listens on any more. A socket in use, and any other kind of file, are
/// left alone.
///
/// # Errors
/// If there is such a file and it cannot be removed, or what there is is no socket.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
    remove_stale_socket(path, stream_socket)
}

/// The same for a datagram socket that nobody receives from.
///
/// # Errors
/// As [`remove_stale`].
pub(crate) fn remove_stale_datagram(path: &Path) -> io::Result<()> {
    remove_stale_socket(path, datagram_socket)
}

fn remove_stale_socket(
    path: &Path,
    make: impl FnOnce(&Address) -> io::Result<Socket>,
) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(describe(error, &format!("cannot look at {}", path.display()))),
    };
    if !found.file_type().is_socket() {
        let error = format!("{} exists and is no socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, error));
    }
    // Not blocking: a server whose queue is full is alive.
    let address = Address::Path(path.to_owned());
    match make(&address)?.connect(&address.to_socket()?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // Somebody listens, or it cannot be told: binding says what is wrong.
        _ => return Ok(()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(describe(error, &format!("cannot remove the stale socket {}", path.display())))
        }
        _ => Ok(()),
    }
}
