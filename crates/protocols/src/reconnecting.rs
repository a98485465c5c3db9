//! Connections that are made again when they are lost.
//!
//! One task does it all: it connects, waits for the end, waits for its delay, and begins again. The program holds a
//! [`Reconnecting`], which shares a small state with it and tells it to stop.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use tulipa_loop::{ErrorContext, LoopHandle, Origin, Promise, TaskRef, sleep};

use crate::retry::{Retries, RetryPolicy};
use crate::state::share;
use crate::{Connect, Connection, Endpoint, Protocol};

/// What happens to a connection that is made again and again, for who wants to log or to count it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reconnect<'a> {
    /// An attempt begins.
    Connecting,
    /// It has failed.
    Failed(&'a io::Error),
    /// The connection is there.
    Connected,
    /// The connection is over, after this time.
    Lost(Duration),
    /// The next attempt is made after this time.
    Waiting(Duration),
    /// The policy makes no more attempts.
    GivenUp,
}

/// Keeps a connection: connects, and connects again, with the delays of a [`RetryPolicy`], when that fails or the
/// connection is lost. Stands for Twisted's `ClientService` and `ReconnectingClientFactory`.
///
/// ```no_run
/// # use std::io;
/// # use tulipa_protocols::{Protocol, Reconnecting, RetryPolicy, Transport};
/// # struct Client;
/// # impl Protocol for Client {
/// #     fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> { Ok(()) }
/// # }
/// # async fn example() -> io::Result<()> {
/// let client = Reconnecting::to("localhost:5672").start(|| Client);
/// let connection = client.when_connected().await?;
/// connection.write(b"hello");
/// client.stop();
/// client.stopped().await;
/// # Ok(())
/// # }
/// ```
///
/// Any end of a connection is a reason to make it again, whoever closed it; [`stop`](Self::stop) is how to end it for
/// good. Dropping it leaves it alone. Clones are the same.
pub struct Reconnecting<P> {
    state: Rc<State<P>>,
}

struct State<P> {
    handle: LoopHandle,
    task: RefCell<Option<TaskRef>>,
    phase: Cell<Phase>,
    connection: RefCell<Option<Connection<P>>>,
    waiters: RefCell<Vec<Promise<io::Result<Connection<P>>>>>,
    ended: RefCell<Vec<Promise<()>>>,
    attempts: Cell<u64>,
}

/// | phase | what is true | next |
/// |---|---|---|
/// | `Running` | the task is at work | `Stopping` by `stop`; `Over` when the policy gives up |
/// | `Stopping` | the task ends what there is | `Over` |
/// | `Over` | there is no connection and will be none | |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping,
    Over,
}

/// How to keep a connection: see [`Reconnecting::to`].
#[must_use = "nothing connects before `start`"]
pub struct ReconnectingBuilder {
    connect: Box<dyn FnMut() -> Connect>,
    policy: RetryPolicy,
    observer: Option<Observer>,
}

type Observer = Box<dyn FnMut(Reconnect<'_>)>;

impl Reconnecting<()> {
    /// Keeps a connection to a host.
    pub fn to(endpoint: impl Into<Endpoint>) -> ReconnectingBuilder {
        let endpoint = endpoint.into();
        Reconnecting::with(move || Connect::to(endpoint.clone()))
    }

    /// Keeps a connection that `connect` says how to make, each time anew: to a Unix socket, with a timeout, to
    /// another server each time.
    pub fn with(connect: impl FnMut() -> Connect + 'static) -> ReconnectingBuilder {
        let (connect, policy) = (Box::new(connect), RetryPolicy::default());
        ReconnectingBuilder { connect, policy, observer: None }
    }
}

impl ReconnectingBuilder {
    /// When to try again: after 1, 2, 4, 8, 30, 60 seconds unless it is said.
    pub fn policy(mut self, policy: RetryPolicy) -> ReconnectingBuilder {
        self.policy = policy;
        self
    }

    /// Calls `observer` with all that happens.
    pub fn observe(mut self, observer: impl FnMut(Reconnect<'_>) + 'static) -> ReconnectingBuilder {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Begins, on the current loop. `factory` makes the protocol of each connection; a panic of it is reported, and is a
    /// failed attempt.
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn start<P: Protocol + 'static>(
        self,
        factory: impl FnMut() -> P + 'static,
    ) -> Reconnecting<P> {
        let handle = LoopHandle::current();
        let state = Rc::new(State {
            handle: handle.clone(),
            task: RefCell::default(),
            phase: Cell::new(Phase::Running),
            connection: RefCell::default(),
            waiters: RefCell::default(),
            ended: RefCell::default(),
            attempts: Cell::new(0),
        });
        let retries = self.policy.retries();
        let keeper = Keeper {
            over: Over(state.clone()),
            connect: self.connect,
            observer: self.observer,
            factory,
            retries,
        };
        let task = handle.spawn(keeper.run());
        state.task.replace(Some(task.reference()));
        Reconnecting { state }
    }
}

impl fmt::Debug for ReconnectingBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectingBuilder").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl<P> Reconnecting<P> {
    /// The connection, if there is one now.
    pub fn connection(&self) -> Option<Connection<P>> {
        self.state.connection.borrow().clone()
    }

    /// Waits for the connection, if there is none now: for as many attempts as it takes. Stands for `whenConnected`.
    ///
    /// # Errors
    /// The last failure, when the policy gives up; [`NotConnected`](io::ErrorKind::NotConnected) when it is stopped.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn when_connected(&self) -> io::Result<Connection<P>> {
        if let Some(connection) = self.connection() {
            return Ok(connection);
        }
        if self.state.phase.get() != Phase::Running {
            return Err(stopped());
        }
        let (promise, future) = self.state.handle.create_future();
        self.state.waiters.borrow_mut().push(promise);
        future.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// How many attempts were made so far.
    pub fn attempts(&self) -> u64 {
        self.state.attempts.get()
    }

    /// Makes no connection any more: gives up an attempt that is under way or waited for, and
    /// [closes](crate::Transport::close) the connection. Doing it twice is doing it once. Stands for `stopService`,
    /// `stopTrying`.
    pub fn stop(&self) {
        if self.state.phase.get() != Phase::Running {
            return;
        }
        self.state.phase.set(Phase::Stopping);
        match self.connection() {
            // The task waits for its end, and then for nothing more.
            Some(connection) => connection.close(),
            None => {
                let task = self.state.task.borrow().clone();
                if let Some(task) = task {
                    task.cancel();
                }
            }
        }
    }

    /// Waits until it was stopped or has given up, and the last connection is over.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn stopped(&self) {
        if self.state.phase.get() == Phase::Over {
            return;
        }
        let (promise, future) = self.state.handle.create_future();
        self.state.ended.borrow_mut().push(promise);
        let _ = future.await;
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "reconnecting was stopped")
}

/// The task.
struct Keeper<P, F> {
    over: Over<P>,
    connect: Box<dyn FnMut() -> Connect>,
    observer: Option<Observer>,
    factory: F,
    retries: Retries,
}

impl<P: Protocol + 'static, F: FnMut() -> P + 'static> Keeper<P, F> {
    fn tell(&mut self, event: Reconnect<'_>) {
        let name = match &event {
            Reconnect::Connecting => "connecting".to_owned(),
            Reconnect::Failed(error) => format!("connection attempt failed: {error}"),
            Reconnect::Connected => "connected".to_owned(),
            Reconnect::Lost(lived) => format!("connection was closed unexpectedly after {lived:?}"),
            Reconnect::Waiting(delay) => format!("retry in {delay:?}"),
            Reconnect::GivenUp => "no more retries".to_owned(),
        };
        match &event {
            Reconnect::Connecting | Reconnect::Connected => {
                tracing::debug!(target: "tulipa::net", "{name}");
            }
            _ => tracing::warn!(target: "tulipa::net", "{name}"),
        }
        if let Some(observer) = &mut self.observer {
            observer(event);
        }
    }

    fn is_running(&self) -> bool {
        self.over.0.phase.get() == Phase::Running
    }

    async fn run(mut self) {
        while self.is_running() {
            let failed = match self.attempt().await {
                Ok(connection) => {
                    self.live(connection).await;
                    None
                }
                Err(error) => {
                    self.tell(Reconnect::Failed(&error));
                    Some(error)
                }
            };
            if !self.is_running() {
                return;
            }
            let Some(delay) = self.retries.next_delay() else {
                self.tell(Reconnect::GivenUp);
                return self.give_up(failed);
            };
            self.tell(Reconnect::Waiting(delay));
            sleep(delay).await;
        }
    }

    async fn attempt(&mut self) -> io::Result<Connection<P>> {
        let handle = self.over.0.handle.clone();
        self.over.0.attempts.set(self.over.0.attempts.get() + 1);
        self.tell(Reconnect::Connecting);
        let connect = handle.call_user(Origin::Protocol("connect"), None, &mut self.connect);
        let connect = connect.ok_or_else(|| io::Error::other("a panic said how to connect"))?;
        let factory = &mut self.factory;
        let make =
            |handle: &LoopHandle| handle.call_user(Origin::Protocol("factory"), None, factory);
        connect.open_once(&handle, make).await
    }

    /// From the beginning of a connection to its end.
    async fn live(&mut self, connection: Connection<P>) {
        let state = self.over.0.clone();
        let began = state.handle.time();
        let old = state.connection.replace(Some(connection.clone()));
        drop(old);
        let waiters = mem::take(&mut *state.waiters.borrow_mut());
        for waiter in waiters {
            let _ = waiter.set(Ok(connection.clone()));
        }
        self.tell(Reconnect::Connected);
        if !self.is_running() {
            // Stopped by who was just told.
            connection.close();
        }
        connection.wait_closed().await;
        let over = state.connection.take();
        drop(over);
        let lived = state.handle.time().saturating_duration_since(began);
        self.retries.worked_for(lived);
        if self.is_running() {
            self.tell(Reconnect::Lost(lived));
        }
    }

    /// Nobody hears of the last failure but those who wait, or the loop's exception handler.
    fn give_up(self, failed: Option<io::Error>) {
        let state = self.over.0.clone();
        let lost = || io::Error::new(io::ErrorKind::NotConnected, "the connection was lost");
        let error = failed.unwrap_or_else(lost);
        let waiters = mem::take(&mut *state.waiters.borrow_mut());
        if waiters.is_empty() {
            let message = format!("gave up connecting after {} attempts", state.attempts.get());
            return state.handle.call_exception_handler(ErrorContext::error(message, error));
        }
        for waiter in waiters {
            let _ = waiter.set(Err(share(&error)));
        }
    }
}

/// Says that it is over, in whatever way the task ends.
struct Over<P>(Rc<State<P>>);

impl<P> Drop for Over<P> {
    fn drop(&mut self) {
        let state = &self.0;
        state.phase.set(Phase::Over);
        let connection = state.connection.take();
        if let Some(connection) = connection {
            connection.close();
        }
        // Those who wait for a connection are told by the drop of their promises.
        let waiters = mem::take(&mut *state.waiters.borrow_mut());
        drop(waiters);
        let ended = mem::take(&mut *state.ended.borrow_mut());
        for promise in ended {
            let _ = promise.set(());
        }
    }
}

impl<P> Clone for Reconnecting<P> {
    fn clone(&self) -> Reconnecting<P> {
        Reconnecting { state: self.state.clone() }
    }
}

impl<P> fmt::Debug for Reconnecting<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting")
            .field("phase", &self.state.phase.get())
            .field("attempts", &self.attempts())
            .field("connected", &self.connection().is_some())
            .finish()
    }
}
