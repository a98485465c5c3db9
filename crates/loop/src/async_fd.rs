//! Waiting for a descriptor of one's own in a future.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tulipa_selector::{AsSource, Event, Interest, Registration, Source as Watched, Token};

use crate::LoopHandle;
use crate::await_graph::{On, Plain, WaitId};
use crate::readers::closed;
use crate::source::Source;

/// Something with a descriptor, and futures for its readiness. It should be non-blocking.
///
/// It brings a foreign library's descriptor into the loop; it dereferences to what it holds. While
/// nobody waits the descriptor is not in the operating system's set.
///
/// Any number of futures may wait for either side; one event completes all of that side.
#[derive(Debug)]
pub struct AsyncFd<T> {
    io: Rc<T>,
    handle: LoopHandle,
    key: Token,
    waiters: Rc<Waiters>,
}

struct Waiters {
    registration: RefCell<Option<Registration>>,
    sides: [RefCell<BTreeMap<u64, Waiting>>; 2],
    /// The number of the descriptor, for the await graph.
    number: Cell<Option<u64>>,
    next: Cell<u64>,
    closed: Cell<bool>,
}

struct Waiting {
    waker: Waker,
    wait: WaitId,
}

/// Which of the two sides somebody waits for, also the index into [`Waiters::sides`].
#[derive(Clone, Copy, Debug)]
enum Side {
    Read = 0,
    Write = 1,
}

impl<T: AsSource + 'static> AsyncFd<T> {
    /// Gives something with a descriptor to a loop.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the descriptor is in use by this loop; what
    /// the selector says; [`NotConnected`](io::ErrorKind::NotConnected) if the loop is closed.
    pub fn new(handle: &LoopHandle, io: T) -> io::Result<AsyncFd<T>> {
        let io = Rc::new(io);
        if let Some(raw) = Watched::shared(io.clone()).raw() {
            handle.core.wires.check_unclaimed(raw)?;
        }
        let waiters = Rc::new(Waiters {
            registration: RefCell::new(None),
            sides: Default::default(),
            number: Cell::new(None),
            next: Cell::new(0),
            closed: Cell::new(false),
        });
        let source = Box::new(AsyncFdSource(waiters.clone()));
        let key = handle.insert_source(source).map_err(|_| closed())?;
        let fd = AsyncFd { io: io.clone(), handle: handle.clone(), key, waiters };
        // On an error the drop of `fd` takes the source away.
        let watched = Watched::shared(io);
        let registration = handle.selector().register(watched, Interest::NONE, key.to_bits())?;
        // What has no number cannot be negative either.
        let number = registration.key().and_then(|key| key.source.raw());
        fd.waiters.number.set(number.and_then(|number| u64::try_from(number).ok()));
        *fd.waiters.registration.borrow_mut() = Some(registration);
        Ok(fd)
    }

    /// Waits until it is readable. It may then still be empty, if somebody else read first.
    ///
    /// # Errors
    /// What the selector says; [`NotConnected`](io::ErrorKind::NotConnected) when the loop closes.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait; nothing is lost, because readiness is not consumed.
    pub fn readable(&self) -> Ready<'_> {
        self.wait(Side::Read)
    }

    /// Waits until it is writable; all else is as with [`readable`](Self::readable).
    ///
    /// # Errors
    /// As there.
    pub fn writable(&self) -> Ready<'_> {
        self.wait(Side::Write)
    }

    /// Tries `operation`, and waits for readability and tries again for as long as it would block.
    ///
    /// # Errors
    /// As [`readable`](Self::readable), and what `operation` returns.
    ///
    /// # Cancel safety
    /// Safe if `operation` is: it is never given up halfway.
    pub async fn read_with<R>(
        &self,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            match operation(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable().await?,
                result => return result,
            }
        }
    }

    /// Tries `operation`, and waits for writability and tries again for as long as it would block.
    ///
    /// # Errors
    /// As [`writable`](Self::writable), and what `operation` returns.
    ///
    /// # Cancel safety
    /// Safe if `operation` is: it is never given up halfway.
    pub async fn write_with<R>(
        &self,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            match operation(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                result => return result,
            }
        }
    }
}

impl<T> AsyncFd<T> {
    fn wait(&self, side: Side) -> Ready<'_> {
        Ready { waiters: &self.waiters, handle: &self.handle, side, id: None }
    }
}

impl<T> Deref for AsyncFd<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.io
    }
}

impl<T> Drop for AsyncFd<T> {
    fn drop(&mut self) {
        let registration = self.waiters.registration.borrow_mut().take();
        drop(registration);
        self.handle.remove_source(self.key);
    }
}

/// The future of [`AsyncFd::readable`] and [`AsyncFd::writable`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Ready<'a> {
    waiters: &'a Rc<Waiters>,
    handle: &'a LoopHandle,
    side: Side,
    /// Its key among the waiters, from the first poll on. Once the key is gone it is ready.
    id: Option<u64>,
}

impl Future for Ready<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiters = self.waiters;
        if waiters.closed.get() {
            return Poll::Ready(Err(closed()));
        }
        let side = &waiters.sides[self.side as usize];
        let waiting = self.id.map(|id| (id, side.borrow().contains_key(&id)));
        if let Some((_, false)) = waiting {
            self.id = None;
            return Poll::Ready(Ok(()));
        }
        let id = waiting.map_or_else(|| waiters.next_id(), |(id, _)| id);
        self.id = Some(id);
        let waker = context.waker().clone();
        let mut wait = side.borrow().get(&id).map(|old| old.wait).unwrap_or_default();
        let reads = matches!(self.side, Side::Read);
        let on = || On::Plain(Plain::Descriptor(waiters.number.get(), reads));
        self.handle.core.wait_on(&mut wait, on);
        let old = side.borrow_mut().insert(id, Waiting { waker, wait });
        drop(old);
        match waiters.update() {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let waiting = self.waiters.sides[self.side as usize].borrow_mut().remove(&id);
        self.waiters.update_or_wake(self.handle);
        if let Some(mut waiting) = waiting {
            self.handle.core.wait_over(&mut waiting.wait);
        }
    }
}

impl Waiting {
    fn wake(mut self, handle: &LoopHandle) {
        handle.core.wait_over(&mut self.wait);
        handle.core.release(handle, || self.waker.wake());
    }
}

impl Waiters {
    fn next_id(&self) -> u64 {
        let id = self.next.get();
        self.next.set(id + 1);
        id
    }

    /// Makes the registration fit those who wait.
    fn update(&self) -> io::Result<()> {
        let wanted = |side: Side, interest| {
            let nobody = self.sides[side as usize].borrow().is_empty();
            if nobody { Interest::NONE } else { interest }
        };
        let interest =
            wanted(Side::Read, Interest::READABLE) | wanted(Side::Write, Interest::WRITABLE);
        let registration = self.registration.borrow();
        registration.as_ref().map_or(Ok(()), |registration| registration.set_interest(interest))
    }

    /// The same where there is nobody to return an error to. The selector has then stopped to watch
    /// the descriptor for those who still wait: they try again, and get the error themselves.
    fn update_or_wake(&self, handle: &LoopHandle) {
        if self.update().is_err() {
            self.wake_all(handle);
        }
    }

    fn wake_all(&self, handle: &LoopHandle) {
        for side in [Side::Read, Side::Write] {
            self.take(side).into_values().for_each(|waiting| waiting.wake(handle));
        }
    }

    fn take(&self, side: Side) -> BTreeMap<u64, Waiting> {
        mem::take(&mut *self.sides[side as usize].borrow_mut())
    }
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Read before it is written: the writer is the program's.
        let [readers, writers] = &self.sides;
        let (readers, writers) = (readers.borrow().len(), writers.borrow().len());
        f.debug_struct("Waiters")
            .field("readers", &readers)
            .field("writers", &writers)
            .finish_non_exhaustive()
    }
}

/// The loop's end of an [`AsyncFd`].
struct AsyncFdSource(Rc<Waiters>);

impl Source for AsyncFdSource {
    fn ready(&mut self, handle: &LoopHandle, event: &Event) {
        let sides = [(Side::Read, event.is_readable()), (Side::Write, event.is_writable())];
        let woken: Vec<_> = sides
            .into_iter()
            .filter(|(_, ready)| *ready)
            .flat_map(|(side, _)| self.0.take(side).into_values())
            .collect();
        self.0.update_or_wake(handle);
        woken.into_iter().for_each(|waiting| waiting.wake(handle));
    }

    fn closing(&mut self, handle: &LoopHandle) {
        self.0.closed.set(true);
        self.0.wake_all(handle);
        let registration = self.0.registration.borrow_mut().take();
        handle.core.release(handle, || drop(registration));
    }
}
