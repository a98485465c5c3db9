//! What the test suites share: the selectors under test, wires that can be made ready, and waits
//! that cannot hang.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test crate uses a part of it")]

#[cfg(all(unix, not(miri)))]
pub mod child;
#[cfg(all(unix, not(miri)))]
pub mod os;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tulipa_selector::VirtualSelector;
pub use tulipa_testing::{Seen, SelectorKind, SelectorWorld as World, Wire, assert_not_early};

/// How long something may take that should take no time. No test passes because of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A selector under test.
pub trait Kind: SelectorKind {
    /// The module in which its tests are.
    const NAME: &'static str;
    /// Whether epoll is what it stands on: priority events, a descriptor of its own.
    const EPOLL: bool = false;
}

/// Runs something that could hang in a thread of its own and panics when it does.
pub fn with_watchdog<T: Send + 'static>(
    patience: Duration,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || {
        let _ = done.send(f());
    });
    match result.recv_timeout(patience) {
        Ok(value) => {
            thread.join().expect("it has ended");
            value
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a thread that ends without a result has panicked"),
        },
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
    }
}

/// [`VirtualSelector`] with a clock that jumps.
pub struct Virtual;

impl SelectorKind for Virtual {
    fn world() -> World {
        let selector = VirtualSelector::new();
        let handle = selector.handle();
        handle.set_autojump(true);
        World::simulated(selector, handle)
    }
}

/// Makes a test of each behaviour, for one kind of selector.
#[macro_export]
macro_rules! suite {
    ($module:ident for $kind:ty: $($path:ident { $($name:ident,)* })*) => {
        mod $module {
            $($(
                #[test]
                fn $name() {
                    $crate::$path::$name::<$kind>();
                }
            )*)*
        }
    };
}
