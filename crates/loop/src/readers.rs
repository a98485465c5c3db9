//! `add_reader` and `add_writer`: callbacks for descriptors.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::panic::Location;
use std::rc::Rc;

use tulipa_selector::{
    AsSource, Event, Interest, RawSource, Registration, Selector, Source as Watched, Token,
};

use crate::LoopHandle;
use crate::context::{Context, copy_context};
use crate::report::{ErrorContext, Origin};
use crate::source::Source;

/// The descriptors that have a reader or a writer.
pub(crate) type Readers = BTreeMap<RawSource, Rc<Watch>>;

/// A descriptor with a reader, a writer, or both.
pub(crate) struct Watch {
    key: Token,
    registration: RefCell<Option<Registration>>,
    reader: RefCell<Option<Rc<Repeating>>>,
    writer: RefCell<Option<Rc<Repeating>>>,
}

type Closure = Box<dyn FnMut(&LoopHandle)>;

/// A closure that runs any number of times. It is taken out while it runs, so it may do anything to
/// itself: remove itself, or put another one in its place.
pub(crate) struct Repeating {
    closure: RefCell<Option<Closure>>,
    /// What it inherited, and what its runs have set.
    context: RefCell<Context>,
    cancelled: Cell<bool>,
    location: &'static Location<'static>,
    origin: Origin,
}

impl Repeating {
    pub(crate) fn new(
        closure: Closure,
        location: &'static Location<'static>,
        origin: Origin,
    ) -> Rc<Repeating> {
        let (closure, context) = (RefCell::new(Some(closure)), RefCell::new(copy_context()));
        Rc::new(Repeating { closure, context, cancelled: Cell::new(false), location, origin })
    }

    pub(crate) fn run(&self, handle: &LoopHandle) {
        let Some(mut closure) = self.closure.borrow_mut().take() else { return };
        let mut context = self.context.take();
        let location = Some(self.location);
        let call = || context.run(|| closure(handle));
        handle.core.run_user(handle, self.origin, location, call);
        if self.cancelled.get() {
            handle.core.release(handle, || drop((closure, context)));
        } else {
            *self.closure.borrow_mut() = Some(closure);
            self.context.replace(context);
        }
    }

    /// Drops the closure, now or when its current run is over.
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
        let closure = self.closure.borrow_mut().take();
        let context = self.context.take();
        drop((closure, context));
    }
}

/// Which of the two callbacks of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Reader,
    Writer,
}

impl Side {
    fn origin(self) -> Origin {
        match self {
            Side::Reader => Origin::Reader,
            Side::Writer => Origin::Writer,
        }
    }
}

impl LoopHandle {
    /// Calls `callback` at each turn at which `source` is readable, until it is removed. Stands for
    /// `add_reader`.
    ///
    /// The loop shares the ownership of the source until the reader is removed. A reader that was
    /// there before is replaced. A regular file is always readable, so `program < file` works.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if a transport or an [`AsyncFd`](crate::AsyncFd) uses the
    /// descriptor; what the selector says, and then the descriptor has neither reader nor writer any more;
    /// [`NotConnected`](io::ErrorKind::NotConnected) if the loop is closed.
    #[track_caller]
    pub fn add_reader(
        &self,
        source: impl Into<Watched>,
        callback: impl FnMut(&LoopHandle) + 'static,
    ) -> io::Result<()> {
        self.add(source.into(), Side::Reader, Box::new(callback), Location::caller())
    }

    /// Calls `callback` at each turn at which `source` is writable. Stands for `add_writer`; all else
    /// is as with [`add_reader`](Self::add_reader).
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn add_writer(
        &self,
        source: impl Into<Watched>,
        callback: impl FnMut(&LoopHandle) + 'static,
    ) -> io::Result<()> {
        self.add(source.into(), Side::Writer, Box::new(callback), Location::caller())
    }

    /// Removes a reader; its writer stays. Returns whether there was one. A reader that was already
    /// found ready in this turn is not called any more. Stands for `remove_reader`.
    pub fn remove_reader(&self, source: &impl AsSource) -> bool {
        self.remove(raw(source), Side::Reader)
    }

    /// Removes a writer; its reader stays. Returns whether there was one. Stands for `remove_writer`.
    pub fn remove_writer(&self, source: &impl AsSource) -> bool {
        self.remove(raw(source), Side::Writer)
    }

    fn add(
        &self,
        source: Watched,
        side: Side,
        closure: Closure,
        location: &'static Location<'static>,
    ) -> io::Result<()> {
        if self.is_closed() {
            return Err(closed());
        }
        let callback = Repeating::new(closure, location, side.origin());
        // User code, so before anything is borrowed.
        let raw = source.raw().ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "a reader needs a descriptor")
        })?;
        let known = self.core.readers.borrow().get(&raw).cloned();
        let watch = match known {
            Some(watch) => watch,
            None => self.watch(source, raw)?,
        };
        let old = watch.side(side).replace(Some(callback));
        if let Some(old) = old {
            old.cancel();
        }
        self.update(raw, &watch)
    }

    /// Registers a descriptor that has no callback yet.
    fn watch(&self, source: Watched, raw: RawSource) -> io::Result<Rc<Watch>> {
        self.core.wires.check_unclaimed(raw)?;
        let shell = Rc::new(RefCell::new(None));
        let key = self.insert_source(Box::new(WatchSource(shell.clone()))).map_err(|_| closed())?;
        let registered = self.core.selector.register(source, Interest::NONE, key.to_bits());
        let registration = match registered {
            Ok(registration) => registration,
            Err(error) => {
                self.remove_source(key);
                return Err(error);
            }
        };
        let watch = Rc::new(Watch {
            key,
            registration: RefCell::new(Some(registration)),
            reader: RefCell::default(),
            writer: RefCell::default(),
        });
        *shell.borrow_mut() = Some(watch.clone());
        self.core.readers.borrow_mut().insert(raw, watch.clone());
        Ok(watch)
    }

    fn remove(&self, raw: RawSource, side: Side) -> bool {
        let watch = self.core.readers.borrow().get(&raw).cloned();
        let Some(watch) = watch else { return false };
        let old = watch.side(side).take();
        let Some(old) = old else { return false };
        let alone = watch.interest().is_none();
        if let Err(error) = self.update(raw, &watch)
            && !alone
        {
            let message = format!("the other callback of descriptor {raw} was removed too");
            self.call_exception_handler(ErrorContext::error(message, error));
        }
        old.cancel();
        true
    }

    /// Makes the registration fit the callbacks, and forgets a descriptor that has none. One that the
    /// selector refuses is forgotten with its callbacks.
    fn update(&self, raw: RawSource, watch: &Watch) -> io::Result<()> {
        let interest = watch.interest();
        let registration = watch.registration.borrow_mut().take();
        let Some(registration) = registration else { return Ok(()) };
        let result = registration.set_interest(interest);
        if result.is_ok() && !interest.is_none() {
            *watch.registration.borrow_mut() = Some(registration);
            return result;
        }
        self.core.readers.borrow_mut().remove(&raw);
        self.remove_source(watch.key);
        drop(registration);
        watch.cancel();
        result
    }
}

/// The loop's end of a [`Watch`].
struct WatchSource(Rc<RefCell<Option<Rc<Watch>>>>);

impl Source for WatchSource {
    fn ready(&mut self, handle: &LoopHandle, event: &Event) {
        let Some(watch) = self.0.borrow().clone() else { return };
        for (side, ready) in
            [(Side::Reader, event.is_readable()), (Side::Writer, event.is_writable())]
        {
            // Looked up now: the first callback may have removed the second.
            let callback = watch.side(side).borrow().clone();
            if let Some(callback) = callback.filter(|_| ready) {
                callback.run(handle);
            }
        }
    }

    fn closing(&mut self, handle: &LoopHandle) {
        let watch = self.0.borrow_mut().take();
        if let Some(watch) = watch {
            handle.core.release(handle, || watch.cancel());
            let registration = watch.registration.borrow_mut().take();
            handle.core.release(handle, || drop(registration));
        }
    }
}

impl Watch {
    fn side(&self, side: Side) -> &RefCell<Option<Rc<Repeating>>> {
        match side {
            Side::Reader => &self.reader,
            Side::Writer => &self.writer,
        }
    }

    fn interest(&self) -> Interest {
        let reader = self.reader.borrow().as_ref().map_or(Interest::NONE, |_| Interest::READABLE);
        let writer = self.writer.borrow().as_ref().map_or(Interest::NONE, |_| Interest::WRITABLE);
        reader | writer
    }

    fn cancel(&self) {
        for side in [Side::Reader, Side::Writer] {
            let callback = self.side(side).take();
            if let Some(callback) = callback {
                callback.cancel();
            }
        }
    }
}

fn raw(source: &impl AsSource) -> RawSource {
    #[cfg(unix)]
    return std::os::fd::AsRawFd::as_raw_fd(&source.as_fd());
    #[cfg(windows)]
    return std::os::windows::io::AsRawSocket::as_raw_socket(&source.as_socket());
}

pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, crate::LoopClosed)
}
