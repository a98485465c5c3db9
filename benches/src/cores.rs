//! Which core a process runs on, and how many descriptors it may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Descriptors that are not connections.
const SPARE_DESCRIPTORS: u64 = 200;

/// The core of the servers.
pub const SERVER: usize = 0;
/// The core of the load.
pub const LOAD: usize = 1;

/// The numbers of the cores that this process may use.
fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Whether the load and a server have a core each.
#[must_use]
pub fn are_enough() -> bool {
    allowed().len() > LOAD
}

/// Keeps this thread on the `index`th of the cores that it may use, if there is more than one. Returns the
/// core's number.
pub fn pin(index: usize) -> Option<usize> {
    let cores = allowed();
    let core = *cores.get(index).filter(|_| cores.len() > 1)?;
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).ok().map(|()| core)
}

/// Runs something on the `index`th core, and lets this thread run anywhere afterwards.
pub fn on<T>(index: usize, run: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None);
    pin(index);
    let value = run();
    if let Ok(before) = before {
        // It could run there before.
        let _ = sched_setaffinity(None, &before);
    }
    value
}

/// Allows this process, and those that it starts, as many descriptors as they may have.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // It stays as it was if that is refused, which it is not.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// How many connections there may be of those that are wanted.
#[must_use]
pub fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    wanted.min(usize::try_from(limit.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX))
}
