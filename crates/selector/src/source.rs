//! What can be watched.

use std::fmt;
use std::rc::Rc;

/// The platform's trait for things that have a descriptor or a socket.
#[cfg(unix)]
pub use std::os::fd::AsFd as AsSource;
/// The platform's trait for things that have a descriptor or a socket.
#[cfg(windows)]
pub use std::os::windows::io::AsSocket as AsSource;

/// The platform's number of a descriptor or socket.
#[cfg(unix)]
pub type RawSource = std::os::fd::RawFd;
/// The platform's number of a descriptor or socket.
#[cfg(windows)]
pub type RawSource = std::os::windows::io::RawSocket;

/// Something to watch: a descriptor that is owned together with the selector, or a
/// [`VirtualId`] that exists only in a simulation.
///
/// A registration keeps its share of the source until it is deregistered, so a descriptor cannot
/// be closed, and its number not be given to another file, while it is watched. Keep a share of
/// your own to read and write, through `&*share`, since `std` implements `Read` and `Write` for
/// references to sockets:
///
/// ```
/// use std::io::Write;
/// use std::os::unix::net::UnixStream;
/// use std::rc::Rc;
/// use tulipa_selector::Source;
///
/// let (ours, _theirs) = UnixStream::pair()?;
/// let ours = Rc::new(ours);
/// let source = Source::shared(ours.clone());
/// (&*ours).write_all(b"hello")?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// It stands for Python's `fileobj`.
#[derive(Clone)]
pub struct Source(Kind);

#[derive(Clone)]
enum Kind {
    Shared(Rc<dyn AsSource>),
    Virtual(VirtualId),
}

/// The identity of a source that has no descriptor: a number that only a
/// [`VirtualSelector`](crate::VirtualSelector) understands, never a fake descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualId(pub u64);

/// The identity that no simulated source has. A third kind of source would make each registration larger.
const NOTHING: VirtualId = VirtualId(u64::MAX);

impl Source {
    /// Takes the ownership of something with a descriptor.
    pub fn new(source: impl AsSource + 'static) -> Source {
        Source(Kind::Shared(Rc::new(source)))
    }

    /// Shares the ownership of something with a descriptor.
    pub fn shared(source: Rc<dyn AsSource>) -> Source {
        Source(Kind::Shared(source))
    }

    /// A source that exists only in a simulation.
    pub const fn from_virtual(id: VirtualId) -> Source {
        Source(Kind::Virtual(id))
    }

    /// What has no source: whoever asks for one learns of readiness in another way. No selector takes it.
    pub const fn none() -> Source {
        Source(Kind::Virtual(NOTHING))
    }

    /// Whether it is [`none`](Self::none).
    pub fn is_none(&self) -> bool {
        matches!(self.0, Kind::Virtual(NOTHING))
    }

    /// Its virtual identity, if it has no descriptor.
    pub fn virtual_id(&self) -> Option<VirtualId> {
        match &self.0 {
            Kind::Shared(_) => None,
            Kind::Virtual(id) => Some(*id),
        }
    }

    /// The number of its descriptor or socket, if it has one.
    ///
    /// This calls the `as_fd` (`as_socket`) of the shared object, which is user code.
    pub fn raw(&self) -> Option<RawSource> {
        match &self.0 {
            #[cfg(unix)]
            Kind::Shared(source) => Some(std::os::fd::AsRawFd::as_raw_fd(&source.as_fd())),
            #[cfg(windows)]
            Kind::Shared(source) => {
                Some(std::os::windows::io::AsRawSocket::as_raw_socket(&source.as_socket()))
            }
            Kind::Virtual(_) => None,
        }
    }
}

impl From<VirtualId> for Source {
    fn from(id: VirtualId) -> Source {
        Source::from_virtual(id)
    }
}

impl<S: AsSource + 'static> From<Rc<S>> for Source {
    fn from(source: Rc<S>) -> Source {
        Source::shared(source)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.virtual_id(), self.raw()) {
            (Some(VirtualId(id)), _) => write!(f, "Source(virtual {id})"),
            (None, Some(raw)) => write!(f, "Source(descriptor {raw})"),
            (None, None) => f.write_str("Source"),
        }
    }
}
