//! The conformance suite for streams of bytes, of any library and on any executor.

mod one_way;
mod two_way;

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;

use futures_lite::io::{AsyncRead, AsyncWrite};

/// One check of a stream: see [`check_stream`]. It has to be run, on the two ends of a connection of its own.
#[must_use = "a check that is not run checks nothing"]
pub struct StreamCheck<W, R> {
    name: &'static str,
    check: Box<dyn FnOnce(W, R) -> Running>,
    done: Rc<Cell<bool>>,
}

type Running = Pin<Box<dyn Future<Output = ()>>>;

impl<W: 'static, R: 'static> StreamCheck<W, R> {
    fn new<F: Future<Output = ()> + 'static>(
        name: &'static str,
        check: impl FnOnce(W, R) -> F + 'static,
    ) -> StreamCheck<W, R> {
        let check = Box::new(|near, far| -> Running { Box::pin(check(near, far)) });
        StreamCheck { name, check, done: Rc::default() }
    }

    /// What it checks, as a sentence with underscores.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Checks two ends that are connected to each other. It needs nothing of an executor but that it polls.
    ///
    /// # Panics
    /// If the streams are not as they should be. A stream that loses a wake has it wait for ever, which a loop in
    /// virtual time says, and a real one needs a timeout for.
    ///
    /// # Cancel safety
    /// None: a check that was not run to its end fails.
    pub async fn run(self, near: W, far: R) {
        (self.check)(near, far).await;
        self.done.set(true);
    }
}

impl<W, R> fmt::Debug for StreamCheck<W, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamCheck").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Says which check it was if the check panics.
pub(crate) struct Named(pub(crate) &'static str);

impl Drop for Named {
    #[expect(clippy::print_stderr, reason = "it belongs to the message of the panic")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the check that failed: {}", self.0);
        }
    }
}

/// Runs each check, and sees to it that it was run.
fn run_all<W, R>(checks: Vec<StreamCheck<W, R>>, run: impl Fn(StreamCheck<W, R>)) {
    for check in checks {
        let (name, done) = (check.name, check.done.clone());
        let _named = Named(name);
        run(check);
        assert!(done.get(), "{name}: the check was not run to its end");
    }
}

/// Checks streams that go one way, from a writer to a reader: that bytes arrive once and in order however they are
/// written and read, that the end comes after them and stays, that whoever waits is woken, that a read that is given
/// up loses nothing, that a writer without a reader is stopped. trio has `check_one_way_stream`.
///
/// `run` is called for each check, and runs it on a new connection, as with [`check_stream`].
///
/// # Panics
/// If a check fails, or was not run.
pub fn check_one_way_stream<W, R>(run: impl Fn(StreamCheck<W, R>))
where
    W: AsyncWrite + Unpin + 'static,
    R: AsyncRead + Unpin + 'static,
{
    run_all(one_way::all(), run);
}

/// Checks streams that go both ways: all of [`check_one_way_stream`] in each direction, then both at once. trio has
/// `check_two_way_stream`.
///
/// # Panics
/// If a check fails, or was not run.
pub fn check_two_way_stream<S>(run: impl Fn(StreamCheck<S, S>))
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    run_all(one_way::all(), &run);
    run_all(one_way::all().into_iter().map(backwards).collect(), &run);
    run_all(two_way::all(), run);
}

/// Checks streams of which each side can be ended by itself: all of [`check_two_way_stream`], and that after
/// `close` of one side the other goes on. trio has `check_half_closeable_stream`.
///
/// # Panics
/// If a check fails, or was not run.
pub fn check_half_closeable_stream<S>(run: impl Fn(StreamCheck<S, S>))
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    check_two_way_stream(&run);
    run_all(two_way::half_closing(), run);
}

/// Checks streams of bytes that behave as TCP does: the same as [`check_half_closeable_stream`]. They may be of any
/// library that knows the traits of `futures-io`, and run on any executor.
///
/// ```
/// use tulipa_testing::{MemoryLink, VirtualLoop, check_stream};
/// use tulipa_streams::{ReadWrite, open_link};
/// # const LIMIT: usize = 64 * 1024;
///
/// check_stream(|check| {
///     let virtual_loop = VirtualLoop::new();
///     let (near, far) = MemoryLink::pair(100);
///     virtual_loop.run_until_complete(async {
///         let near: ReadWrite = open_link(near, LIMIT).await.unwrap().into();
///         let far: ReadWrite = open_link(far, LIMIT).await.unwrap().into();
///         check.run(near, far).await;
///     }).unwrap();
/// });
/// ```
///
/// # Panics
/// If a check fails, or was not run.
pub fn check_stream<S>(run: impl Fn(StreamCheck<S, S>))
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    check_half_closeable_stream(run);
}

fn backwards<S: 'static>(check: StreamCheck<S, S>) -> StreamCheck<S, S> {
    let StreamCheck { name, check, done } = check;
    StreamCheck { name, check: Box::new(|near, far| check(far, near)), done }
}

/// Bytes of which no two stretches are alike.
fn pattern(count: usize) -> Vec<u8> {
    let mut random = crate::Random::new(count as u64);
    (0..count).map(|_| random.below(256) as u8).collect()
}
