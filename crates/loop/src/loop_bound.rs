//! [`LoopBound`]: what is not `Send`, in the hands of those who want `Send`.

use std::any::type_name;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::Stream;
use futures_lite::io::{AsyncBufRead, AsyncRead, AsyncWrite};
use pin_project_lite::pin_project;

use crate::sys::ThreadBound;
use crate::{LoopHandle, Remote};

pin_project! {
    /// A value that stays on its loop's thread, in a wrapper that is `Send` and `Sync` and may be carried
    /// anywhere: for libraries that ask for `Send` although they run on one thread.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use tulipa_loop::{EventLoop, LoopBound, spawn};
    ///
    /// fn handler() -> impl Future<Output = usize> + Send {
    ///     LoopBound::new(async {
    ///         let not_send = Rc::new(7);
    ///         spawn(async {}).await.unwrap();
    ///         *not_send
    ///     })
    /// }
    ///
    /// let event_loop = EventLoop::new()?;
    /// assert_eq!(event_loop.run_until_complete(async { handler().await })?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// On the loop's thread it is as good as the value: it dereferences to it, and is a future, a stream, a
    /// reader or a writer if that is. Elsewhere every such use panics; [`get`](Self::get) and
    /// [`try_into_inner`](Self::try_into_inner) do not.
    ///
    /// Dropped on another thread it goes home: the loop drops the value, at its next turn or when it is
    /// closed. If it is closed already the value is leaked, as it must not be dropped anywhere else.
    ///
    /// It is bound to the *thread* for use, so a second loop of that thread may use it too, and to the
    /// *loop* that it goes home to.
    #[must_use = "dropping it drops the value"]
    pub struct LoopBound<T>
    where
        T: 'static,
    {
        #[pin]
        bound: ThreadBound<T>,
        home: Remote,
        location: &'static Location<'static>,
    }

    impl<T> PinnedDrop for LoopBound<T>
    where
        T: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if !this.bound.is_home() {
                let parcel = this.bound.send_home();
                // A loop that is closed does not take it, and then it leaks.
                let _ = this.home.send_call(this.location, move |_: &LoopHandle| drop(parcel));
            }
        }
    }
}

impl LoopHandle {
    /// Binds a value to this loop's thread: see [`LoopBound`].
    #[track_caller]
    pub fn bind<T: 'static>(&self, value: T) -> LoopBound<T> {
        // A handle is not `Send`, so this is the loop's thread.
        let location = Location::caller();
        LoopBound { bound: ThreadBound::new(value), home: self.remote(), location }
    }
}

impl<T: 'static> LoopBound<T> {
    /// Binds a value to the loop that is running on this thread.
    ///
    /// # Panics
    /// Outside of a running loop; [`LoopHandle::bind`] does without.
    #[track_caller]
    pub fn new(value: T) -> LoopBound<T> {
        LoopHandle::current().bind(value)
    }

    /// Whether this is its loop's thread.
    pub fn is_home(&self) -> bool {
        self.bound.is_home()
    }

    /// The value; `None` on any other thread.
    pub fn get(&self) -> Option<&T> {
        self.bound.get()
    }

    /// The value; `None` on any other thread.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.bound.get_mut()
    }

    /// The value.
    ///
    /// # Panics
    /// On any other thread; the value goes home.
    #[track_caller]
    pub fn into_inner(self) -> T {
        match self.try_into_inner() {
            Ok(value) => value,
            Err(bound) => abroad::<T>(bound.location),
        }
    }

    /// The value.
    ///
    /// # Errors
    /// On any other thread: this itself.
    pub fn try_into_inner(mut self) -> Result<T, LoopBound<T>> {
        match self.bound.take() {
            Some(value) => Ok(value),
            None => Err(self),
        }
    }

    #[track_caller]
    fn pinned(self: Pin<&mut Self>) -> Pin<&mut T> {
        let this = self.project();
        match this.bound.pinned() {
            Some(value) => value,
            None => abroad::<T>(this.location),
        }
    }
}

#[cold]
#[track_caller]
fn abroad<T>(location: &Location<'_>) -> ! {
    let name = type_name::<T>();
    panic!("a LoopBound<{name}> created at {location} was used outside of its loop's thread")
}

impl<T: 'static> Deref for LoopBound<T> {
    type Target = T;

    /// # Panics
    /// On any other thread.
    #[track_caller]
    fn deref(&self) -> &T {
        self.get().unwrap_or_else(|| abroad::<T>(self.location))
    }
}

impl<T: 'static> DerefMut for LoopBound<T> {
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        let location = self.location;
        self.get_mut().unwrap_or_else(|| abroad::<T>(location))
    }
}

impl<T: Clone + 'static> Clone for LoopBound<T> {
    /// # Panics
    /// On any other thread.
    #[track_caller]
    fn clone(&self) -> LoopBound<T> {
        let bound = ThreadBound::new(T::clone(self));
        LoopBound { bound, home: self.home.clone(), location: self.location }
    }
}

impl<F: Future + 'static> Future for LoopBound<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.pinned().poll(context)
    }
}

impl<S: Stream + 'static> Stream for LoopBound<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.pinned().poll_next(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.get().map_or((0, None), S::size_hint)
    }
}

impl<R: AsyncRead + 'static> AsyncRead for LoopBound<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.pinned().poll_read(context, buffer)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pinned().poll_read_vectored(context, buffers)
    }
}

impl<R: AsyncBufRead + 'static> AsyncBufRead for LoopBound<R> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.pinned().poll_fill_buf(context)
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.pinned().consume(amount);
    }
}

impl<W: AsyncWrite + 'static> AsyncWrite for LoopBound<W> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pinned().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pinned().poll_write_vectored(context, buffers)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned().poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned().poll_close(context)
    }
}

impl<T: 'static> fmt::Debug for LoopBound<T> {
    /// The type and where it was bound; the value may be out of reach.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<LoopBound {} bound at {}>", type_name::<T>(), self.location)
    }
}
