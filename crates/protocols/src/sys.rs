//! All `unsafe` code of this crate: descriptors that the process was started with.
//!
//! A number is no proof of ownership. What tells an inherited descriptor from one that some part of this process has
//! opened is its close-on-exec flag: one that has it could not have come through an `exec`, and everything that
//! Rust's libraries open has it. So only descriptors without it are taken, and get it then. Taking one a second time
//! is refused by the same look.

#![allow(unsafe_code, reason = "a descriptor that was inherited is a bare number")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Looking at a descriptor and taking it are one step for all threads.
static TAKING: Mutex<()> = Mutex::new(());

/// The standard streams, which the standard library has.
const FIRST_TO_TAKE: RawFd = 3;

/// Takes a descriptor that this process has inherited: from systemd, from a supervisor, or from the program that it
/// was before an `exec`. It is closed on the next `exec`, and owned by whoever gets it.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if there is none of this number, if it belongs to a part of this
/// process (it is to be closed on exec), or was taken before; and for the standard streams.
pub fn take_inherited_fd(fd: RawFd) -> io::Result<OwnedFd> {
    let refuse = |why: &str| {
        let error = format!("cannot take the descriptor {fd}: {why}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, error))
    };
    if fd < FIRST_TO_TAKE {
        return refuse("only those from 3 on can be handed over");
    }
    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: it is looked at for the time of this statement. If it is open it has an owner, or was inherited; if
    // not the call says so and does nothing.
    let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) });
    match flags {
        Ok(flags) if flags.contains(FdFlags::CLOEXEC) => {
            return refuse("it was not inherited, or was taken before");
        }
        Ok(_) => {}
        Err(_) => return refuse("there is none of this number"),
    }
    // SAFETY: it is open, and was inherited, as it is without the flag that everything opened here has. Nobody in
    // this process owns it: whoever takes it does so here, one at a time, and sets the flag below.
    let taken = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl_setfd(&taken, FdFlags::CLOEXEC)?;
    debug_assert_eq!(taken.as_raw_fd(), fd, "a descriptor keeps its number");
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    /// A descriptor as an `exec` leaves it to a process.
    fn inherited() -> RawFd {
        let (one, _) = std::os::unix::net::UnixStream::pair().unwrap();
        fcntl_setfd(&one, FdFlags::empty()).unwrap();
        one.into_raw_fd()
    }

    #[test]
    fn an_inherited_descriptor_is_taken_once() {
        let fd = inherited();
        let taken = take_inherited_fd(fd).unwrap();
        assert!(fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        let again = take_inherited_fd(fd).unwrap_err();
        assert!(again.to_string().contains("taken before"), "{again}");
    }

    #[test]
    fn what_this_process_has_opened_cannot_be_taken() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let refused = take_inherited_fd(one.as_raw_fd()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("not inherited"), "{refused}");
    }

    #[test]
    fn numbers_without_a_descriptor_and_standard_streams_are_refused() {
        for fd in [-1, 0, 1, 2, 1 << 20] {
            let refused = take_inherited_fd(fd).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{fd}");
        }
    }
}
