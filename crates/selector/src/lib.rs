//! Waits for sockets, pipes and timers behind one small trait, and can be replaced by a simulation.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::rc::Rc;
//! use std::time::Duration;
//! # #[cfg(unix)] {
//! use std::os::unix::net::UnixStream;
//! use tulipa_selector::{DefaultSelector, Events, Interest, Selector, Source};
//!
//! let selector = DefaultSelector::new()?;
//! let (ours, mut theirs) = UnixStream::pair()?;
//! ours.set_nonblocking(true)?;
//! let ours = Rc::new(ours);
//! let registration = selector.register(Source::shared(ours.clone()), Interest::READABLE, 1)?;
//!
//! theirs.write_all(b"hello")?;
//! let mut events = Events::new();
//! selector.select(&mut events, Duration::from_secs(5).into())?;
//! for event in &events {
//!     assert_eq!(event.token(), registration.token());
//!     let mut buffer = [0; 16];
//!     assert_eq!((&*ours).read(&mut buffer)?, 5);
//! }
//! # }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What it promises
//! - **Safe to misuse.** A registration shares the ownership of its source: nothing can be closed
//!   while it is watched, and dropping the registration ends the watch at once. An event of a
//!   dropped registration never surfaces, not even from the batch at hand, and never reaches a
//!   later user of the same descriptor number.
//! - **Level triggered.** What is ready is reported until it is served, whatever the order of your
//!   reads and registrations. No interest means that the operating system does not see the source at
//!   all, so that a hang-up of a paused connection costs nothing.
//! - **Cheap.** One system call for each wait on Linux, with or without a timeout; none to change an
//!   interest to what it is; none to notify a selector that is awake.
//! - **The clock.** [`Selector::now`] is the time. Replace the selector with a [`VirtualSelector`]
//!   and everything above it runs in virtual time.
//!
//! # Limits
//! A selector and its registrations stay on one thread; a [`Notifier`] is for the others. There is
//! no edge-triggered mode. After `fork` neither process may go on with the selector of before. At
//! most 2³² − 2 sources; a batch holds [`DEFAULT_EVENTS`] unless you say otherwise.
//!
//! # Map
//! | module | what is in it |
//! |---|---|
//! | `selector` | the traits [`Selector`] and [`Registry`], and [`Registration`] |
//! | `event` | [`Token`], [`Event`], the reusable batch [`Events`] |
//! | `interest`, `source`, `timeout` | the arguments: [`Interest`], [`Source`], [`Timeout`] |
//! | `notifier` | [`Notifier`], how threads wake a wait, and why no wake-up is lost |
//! | `slots` | [`Slots`], a table whose keys are never used twice |
//! | `engine`, `table` | what the real selectors share: who is registered, orphans, always-ready files |
//! | `epoll`, `portable`, `default` | [`EpollSelector`], [`PollingSelector`], [`DefaultSelector`] |
//! | `virtual_selector` | [`VirtualSelector`] and the handle that plays the outside world |
//! | `refusal` | what a virtual selector is told to refuse |
//! | `sys` | the only `unsafe` code |
//!
//! It knows nothing of callbacks, timers, tasks or buffers: that is `tulipa-loop` and above.

#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod default;
mod engine;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
mod error;
mod event;
mod interest;
mod notifier;
mod portable;
mod refusal;
mod selector;
mod slots;
mod source;
mod sys;
mod table;
mod timeout;
mod virtual_selector;

pub use default::DefaultSelector;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use epoll::EpollSelector;
pub use error::SelectorError;
pub use event::{DEFAULT_EVENTS, Event, Events, Iter, MAX_EVENTS, Readiness, Token};
pub use interest::Interest;
pub use notifier::{Doorbell, Notifier, Ring};
pub use portable::PollingSelector;
pub use refusal::{Refuse, VirtualCall};
pub use selector::{Key, Registration, Registry, Selector};
pub use slots::Slots;
pub use source::{AsSource, RawSource, Source, VirtualId};
pub use timeout::Timeout;
pub use virtual_selector::{Hold, Holder, VirtualHandle, VirtualSelector};
