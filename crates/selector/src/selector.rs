//! The trait that a loop is built on, and the registration it hands out.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use crate::{Events, Interest, Notifier, Source, Timeout, Token};

/// The one place where a program waits, and the clock it lives by.
///
/// Stands for Python's `selectors.BaseSelector`. It is object safe: a loop holds a
/// `Box<dyn Selector>`, and putting another one in its place, a
/// [`VirtualSelector`](crate::VirtualSelector) for example, simulates everything above.
///
/// A selector belongs to one thread. Several on one thread are independent of each other; a
/// source may be registered with more than one. What other threads may hold is its
/// [`Notifier`].
///
/// # Errors
/// All methods return [`NotConnected`](io::ErrorKind::NotConnected) after [`close`](Self::close).
pub trait Selector: fmt::Debug {
    /// Starts to watch `source` and reports `data` with each of its events.
    ///
    /// With [`Interest::NONE`] the source is only noted: the operating system does not see it.
    ///
    /// A source that the platform cannot watch because it never blocks (a regular file or
    /// `/dev/null` with epoll) is *always ready*, as POSIX has it for `poll`: readable and
    /// writable at every wait for as long as it has an interest.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) where the descriptor is registered here;
    /// [`Unsupported`](io::ErrorKind::Unsupported) for a virtual source with a real selector, the
    /// reverse, or a priority interest on a platform without it; else what the operating system
    /// says, with the operation and the descriptor in the message. After an error nothing is
    /// registered.
    fn register(&self, source: Source, interest: Interest, data: u64) -> io::Result<Registration>;

    /// Waits until a registered source is ready, a [`Notifier`] is used, or `timeout` is over, and
    /// puts what is ready into `events`. Stands for `select(timeout)`.
    ///
    /// Readiness is level triggered: a source is reported by each wait until it is served or its
    /// interest is taken back. A wait never returns early because a timeout was rounded, but it may
    /// return early with nothing (a signal, a notification), so look at the clock.
    ///
    /// # Errors
    /// What the operating system says; never
    /// [`Interrupted`](io::ErrorKind::Interrupted). No readiness is lost by an error: the next wait
    /// reports it.
    fn select(&self, events: &mut Events, timeout: Timeout) -> io::Result<()>;

    /// The time, which never goes back.
    fn now(&self) -> Instant;

    /// A handle with which any thread ends the current wait, or the next one.
    fn notifier(&self) -> Notifier;

    /// What is known of a registration. Stands for `get_key`; `None` where Python raises `KeyError`.
    fn get_key(&self, token: Token) -> Option<Key>;

    /// All that is registered, in no particular order. Stands for `get_map`, as a snapshot.
    fn keys(&self) -> Vec<Key>;

    /// Whether a wait would return at once because of a source that is always ready, which the
    /// [`backend_fd`](Self::backend_fd) does not tell.
    fn is_always_ready(&self) -> bool {
        false
    }

    /// Lets go of every source and of the operating system's resources. A second call does
    /// nothing; dropping the selector does the same.
    fn close(&self);

    /// Whether [`close`](Self::close) was called.
    fn is_closed(&self) -> bool;

    /// The mechanism in use, for logs: `"epoll"`, `"polling"`, `"virtual"`.
    fn name(&self) -> &'static str;

    /// A descriptor that is readable when a wait would return at once, so that a foreign main loop
    /// can sleep on it; `None` where there is none. It does not know of timeouts or of always-ready
    /// sources. Ask for it before each sleep, or use it with `poll(2)`: a selector that had to be made
    /// anew (see [`Registration`]) has another one, or another file behind the same number.
    ///
    /// From the first call on, a [`Notifier`] rings this descriptor also while no wait is going on.
    #[cfg(unix)]
    fn backend_fd(&self) -> Option<std::os::fd::RawFd> {
        None
    }
}

/// What a [`Registration`] and an [`Events`] batch ask of the selector they came from.
///
/// Only those who write a selector implement it.
pub trait Registry: fmt::Debug {
    /// The interest and the data of a registration, if it is alive.
    fn lookup(&self, token: Token) -> Option<(Interest, u64)>;

    /// What is known of a registration, if it is alive.
    fn key(&self, token: Token) -> Option<Key>;

    /// Changes what a registration waits for. See [`Registration::set_interest`].
    ///
    /// # Errors
    /// As there.
    fn set_interest(&self, token: Token, interest: Interest) -> io::Result<()>;

    /// Changes the number that is reported with events.
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound) for a token that is not alive.
    fn set_data(&self, token: Token, data: u64) -> io::Result<()>;

    /// Ends a registration and gives its source back.
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound) for a token that is not alive. That the operating
    /// system no longer knew the descriptor is not an error.
    fn deregister(&self, token: Token) -> io::Result<Source>;
}

/// What is known of one registration. Stands for Python's `SelectorKey(fileobj, fd, events, data)`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Key {
    /// Its identity.
    pub token: Token,
    /// A share of what is watched.
    pub source: Source,
    /// What is waited for.
    pub interest: Interest,
    /// The number reported with its events.
    pub data: u64,
}

impl Key {
    /// A key made of its parts. For those who write a selector.
    pub fn new(token: Token, source: Source, interest: Interest, data: u64) -> Key {
        Key { token, source, interest, data }
    }
}

/// A watched source. Dropping it ends the watch at once, not at the next wait, and no event of it
/// surfaces afterwards, not even from the batch at hand.
///
/// It may outlive its selector; its methods then return errors and its drop does nothing.
///
/// A descriptor that is closed behind the registration's back, which takes `unsafe` code, while a
/// duplicate keeps the file open, stays in the operating system's set and cannot be taken out. The
/// selector then makes its set anew, the next time that such a file reports itself.
#[must_use = "dropping a registration ends the watch"]
pub struct Registration {
    registry: Rc<dyn Registry>,
    token: Token,
}

impl Registration {
    /// The registration of `token` with `registry`. For those who write a selector.
    pub fn new(registry: Rc<dyn Registry>, token: Token) -> Registration {
        Registration { registry, token }
    }

    /// Its identity, which its events carry.
    pub fn token(&self) -> Token {
        self.token
    }

    /// What is waited for; nothing once the selector is closed.
    pub fn interest(&self) -> Interest {
        self.registry.lookup(self.token).map_or(Interest::NONE, |(interest, _)| interest)
    }

    /// Changes what is waited for. Stands for `modify(fileobj, events)`.
    ///
    /// No system call is made where nothing changes. [`Interest::NONE`] takes the source out of
    /// the operating system's set, hang-ups and errors included.
    ///
    /// # Errors
    /// As [`Selector::register`]. After an error the source is out of the operating system's set
    /// and its interest is [`NONE`](Interest::NONE); a later call may try again. Taking all of it
    /// back fails only after the selector was closed.
    pub fn set_interest(&self, interest: Interest) -> io::Result<()> {
        self.registry.set_interest(self.token, interest)
    }

    /// Changes the number that is reported with events, without a system call.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) after the selector was closed.
    pub fn set_data(&self, data: u64) -> io::Result<()> {
        self.registry.set_data(self.token, data)
    }

    /// Changes both at once. Stands for `modify(fileobj, events, data)`.
    ///
    /// # Errors
    /// As [`set_interest`](Self::set_interest); the data is then as before.
    pub fn modify(&self, interest: Interest, data: u64) -> io::Result<()> {
        self.set_interest(interest)?;
        self.set_data(data)
    }

    /// What is known of it; `None` once the selector is closed.
    pub fn key(&self) -> Option<Key> {
        self.registry.key(self.token)
    }

    /// Ends the watch and gives the source back. Stands for `unregister`.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) after the selector was closed.
    pub fn deregister(self) -> io::Result<Source> {
        self.registry.deregister(self.token)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // An error here means that `deregister` or a closing selector came first.
        let _source = self.registry.deregister(self.token);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("token", &self.token)
            .field("interest", &self.interest())
            .finish_non_exhaustive()
    }
}

/// Implements [`Selector`] by passing every call on.
macro_rules! forward_selector {
    (impl[$($generics:tt)*] for $type:ty, $this:ident => $target:expr) => {
        impl<$($generics)*> crate::Selector for $type {
            fn register(
                &$this,
                source: crate::Source,
                interest: crate::Interest,
                data: u64,
            ) -> std::io::Result<crate::Registration> {
                $target.register(source, interest, data)
            }

            fn select(
                &$this,
                events: &mut crate::Events,
                timeout: crate::Timeout,
            ) -> std::io::Result<()> {
                $target.select(events, timeout)
            }

            fn now(&$this) -> std::time::Instant {
                $target.now()
            }

            fn notifier(&$this) -> crate::Notifier {
                $target.notifier()
            }

            fn get_key(&$this, token: crate::Token) -> Option<crate::Key> {
                $target.get_key(token)
            }

            fn keys(&$this) -> Vec<crate::Key> {
                $target.keys()
            }

            fn is_always_ready(&$this) -> bool {
                $target.is_always_ready()
            }

            fn close(&$this) {
                $target.close();
            }

            fn is_closed(&$this) -> bool {
                $target.is_closed()
            }

            fn name(&$this) -> &'static str {
                $target.name()
            }

            #[cfg(unix)]
            fn backend_fd(&$this) -> Option<std::os::fd::RawFd> {
                $target.backend_fd()
            }
        }
    };
}
pub(crate) use forward_selector;

forward_selector!(impl[S: Selector + ?Sized] for Box<S>, self => (**self));
forward_selector!(impl[S: Selector + ?Sized] for Rc<S>, self => (**self));
