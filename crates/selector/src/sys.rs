//! The only module with `unsafe` code.
//!
//! What it wraps: borrowing a descriptor that the registration table keeps open, `polling`'s `add`,
//! and `epoll_pwait2`, which `rustix` offers only together with a minimum kernel version.
#![allow(unsafe_code)]

use std::io;

use polling::{Event, PollMode, Poller};

use crate::RawSource;

/// Adds a source to a poller.
///
/// The caller keeps a share of the source that `raw` belongs to until it has called `delete` or
/// dropped the poller.
pub(crate) fn polling_add(
    poller: &Poller,
    raw: RawSource,
    interest: Event,
    mode: PollMode,
) -> io::Result<()> {
    // SAFETY: the engine holds the source open in its table until it has deleted it from the
    // poller, and drops the poller before the table where it does not delete.
    unsafe { poller.add_with_mode(raw, interest, mode) }
}

/// Borrows a registered source by its number, for the time of one call.
#[cfg(unix)]
pub(crate) fn with_raw<T>(raw: RawSource, f: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> T) -> T {
    // SAFETY: the table's entry holds a share of the owner of `raw`, which stays there for the
    // duration of this call. Were the number closed behind our back all the same, the system call
    // that uses it fails or concerns another file's readiness; no memory depends on it.
    f(unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) })
}

/// Borrows a registered source by its number, for the time of one call.
#[cfg(windows)]
pub(crate) fn with_raw<T>(
    raw: RawSource,
    f: impl FnOnce(std::os::windows::io::BorrowedSocket<'_>) -> T,
) -> T {
    // SAFETY: as on unix.
    f(unsafe { std::os::windows::io::BorrowedSocket::borrow_raw(raw) })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::epoll_pwait2;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::ffi::{c_int, c_long};
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::ptr;
    use std::time::Duration;

    use rustix::event::epoll;

    unsafe extern "C" {
        /// `syscall(2)` of the C library that `std` links anyway.
        fn syscall(number: c_long, ...) -> c_long;
    }

    /// The number of `epoll_pwait2`: the same for every architecture whose table was merged before
    /// Linux 5.11 and that numbers from zero.
    #[cfg(any(
        all(target_arch = "x86_64", target_pointer_width = "64"),
        target_arch = "x86",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "loongarch64",
        target_arch = "powerpc",
        target_arch = "powerpc64",
        target_arch = "s390x",
    ))]
    const EPOLL_PWAIT2: Option<c_long> = Some(441);
    #[cfg(not(any(
        all(target_arch = "x86_64", target_pointer_width = "64"),
        target_arch = "x86",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "loongarch64",
        target_arch = "powerpc",
        target_arch = "powerpc64",
        target_arch = "s390x",
    )))]
    const EPOLL_PWAIT2: Option<c_long> = None;

    /// `struct __kernel_timespec`: 64 bits each on every architecture.
    #[repr(C)]
    struct KernelTimespec {
        seconds: i64,
        nanoseconds: i64,
    }

    /// Waits with a timeout in nanoseconds and fills the spare capacity of `events`, which must not
    /// be zero.
    ///
    /// Fails with [`Unsupported`](io::ErrorKind::Unsupported) (`ENOSYS`) where there is no such call.
    pub(crate) fn epoll_pwait2(
        epoll: BorrowedFd<'_>,
        events: &mut Vec<epoll::Event>,
        timeout: Duration,
    ) -> io::Result<()> {
        let number = EPOLL_PWAIT2.ok_or(io::ErrorKind::Unsupported)?;
        let timeout = KernelTimespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(timeout.subsec_nanos()),
        };
        let spare = events.spare_capacity_mut();
        let room = c_int::try_from(spare.len()).unwrap_or(c_int::MAX);
        let buffer: *mut epoll::Event = spare.as_mut_ptr().cast();
        // SAFETY: `buffer` points to `room` writable events, and `epoll::Event` has the layout of
        // `struct epoll_event`; `timeout` lives through the call; a null signal mask is allowed, and
        // its size is then not looked at.
        let count = unsafe {
            syscall(
                number,
                c_long::from(epoll.as_raw_fd()),
                buffer,
                c_long::from(room),
                ptr::from_ref(&timeout),
                ptr::null::<u8>(),
                0 as c_long,
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let filled = events.len() + count as usize;
        debug_assert!(filled <= events.capacity(), "the kernel fills no more than it was given");
        // SAFETY: the kernel has written `count` events behind those that were there.
        unsafe { events.set_len(filled) };
        Ok(())
    }
}
