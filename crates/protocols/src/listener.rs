//! Accepting connections: the loop's end of one listening socket.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::{ErrorContext, LoopHandle, Origin, Source};
use tulipa_selector::{Event, Interest, Registration};

use crate::connection::start;
use crate::network::Door;
use crate::server::{ServerState, SocketOptions};
use crate::socket::{describe, is_about_one_connection, is_exhaustion};
use crate::state::Slot;
use crate::{Address, Protocol};

/// How many connections one event accepts: what a burst needs, and no more than a millisecond's work for
/// the loop. The selector tells of those that are left.
const MOST_ACCEPTS: usize = 64;

/// How long a listener rests when the system is out of descriptors or memory: asyncio's second.
const BACK_OFF: Duration = Duration::from_secs(1);

/// A listening socket, and what it makes of connections.
pub(crate) struct Listener<F> {
    pub(crate) door: Rc<Door>,
    pub(crate) address: Address,
    pub(crate) options: SocketOptions,
    pub(crate) factory: Rc<Factory<F>>,
    pub(crate) server: Rc<ServerState>,
    pub(crate) registration: Option<Registration>,
    /// Whether a shortage has been reported and not ended since.
    pub(crate) resting: bool,
}

/// The program's factory, shared by the listeners of a server. It is taken out while it is called.
pub(crate) struct Factory<F>(Cell<Option<F>>);

impl<F> Factory<F> {
    pub(crate) fn new(factory: F) -> Rc<Factory<F>> {
        Rc::new(Factory(Cell::new(Some(factory))))
    }

    /// `None` if it panicked, which was reported, or is being called.
    pub(crate) fn make<P>(&self, handle: &LoopHandle) -> Option<P>
    where
        F: FnMut() -> P,
    {
        let mut factory = self.0.take()?;
        let made = handle.call_user(Origin::Protocol("factory"), None, &mut factory);
        self.0.set(Some(factory));
        made
    }
}

impl<F, P> Listener<F>
where
    F: FnMut() -> P + 'static,
    P: Protocol + 'static,
{
    fn accept_some(&mut self, handle: &LoopHandle) {
        for _ in 0..MOST_ACCEPTS {
            match self.door.accept() {
                Ok(link) => {
                    self.resting = false;
                    self.start(handle, link);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => return self.rest(handle, error),
            }
            // A factory may close the server.
            if self.server.is_closed() {
                return;
            }
        }
    }

    fn start(&mut self, handle: &LoopHandle, link: Slot) {
        // On failure the connection is closed, which its peer sees.
        let Some(protocol) = self.factory.make(handle) else {
            return handle.release(|| drop(link));
        };
        let started = self
            .options
            .apply(&link, &self.address)
            .and_then(|()| start(handle, link, protocol, Some(self.server.clone())));
        match started {
            Ok(connection) => {
                tracing::trace!(target: "tulipa::net", server = %self.address, "accepted");
                self.server.add(connection.transport());
            }
            Err(error) => {
                let message = format!("a connection to {} was accepted and lost", self.address);
                handle.call_exception_handler(ErrorContext::error(message, error));
            }
        }
    }

    /// Stops accepting for a while, and reports why, once for each shortage.
    fn rest(&mut self, handle: &LoopHandle, error: io::Error) {
        if let Some(registration) = &self.registration {
            // Taking all of it back cannot fail.
            let _ = registration.set_interest(Interest::NONE);
        }
        let key = self.server.key_of(&self.door);
        let timer = handle.mark_at(key, handle.time() + BACK_OFF);
        self.server.set_timer(&self.door, timer);
        if !std::mem::replace(&mut self.resting, true) {
            let why = if is_exhaustion(&error) {
                "the system is out of resources"
            } else {
                "accept failed"
            };
            let error = describe(error, why);
            let message = format!("{} accepts nothing for {BACK_OFF:?}", self.address);
            handle.call_exception_handler(ErrorContext::error(message, error));
        }
    }

    /// Starts to watch, or to watch again.
    fn watch(&mut self, handle: &LoopHandle) {
        let watched = match &self.registration {
            Some(registration) => registration.set_interest(Interest::READABLE),
            None => {
                let key = self.server.key_of(&self.door);
                let source = self.door.source();
                let registered =
                    handle.selector().register(source, Interest::READABLE, key.to_bits());
                registered.map(|registration| self.registration = Some(registration))
            }
        };
        if let Err(error) = watched {
            self.rest(handle, error);
        }
    }
}

impl<F, P> Source for Listener<F>
where
    F: FnMut() -> P + 'static,
    P: Protocol + 'static,
{
    fn ready(&mut self, handle: &LoopHandle, _: &Event) {
        self.accept_some(handle);
    }

    /// It is to start, or has rested.
    fn attend(&mut self, handle: &LoopHandle) {
        self.watch(handle);
    }

    fn closing(&mut self, handle: &LoopHandle) {
        self.server.close(handle);
    }
}
