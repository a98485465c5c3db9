//! Both halves as one thing that is `Send`, for libraries that ask for that too.

use std::pin::Pin;

use tulipa_loop::LoopBound;

use crate::ReadWrite;

impl ReadWrite {
    /// The same for libraries that ask for `Send`, although they run on one thread: see [`SendReadWrite`].
    ///
    /// # Panics
    /// Outside of a running loop.
    #[track_caller]
    pub fn into_send(self) -> SendReadWrite {
        SendReadWrite(LoopBound::new(self))
    }
}

/// A [`ReadWrite`] that is `Send` and `Sync`: a library may carry it anywhere, but can use it only on the thread of
/// its loop. It has the same traits, those of tokio and hyper with their features.
///
/// ```
/// # let event_loop = tulipa_loop::EventLoop::new()?;
/// # event_loop.run_until_complete(async {
/// use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite};
/// use tulipa_streams::{ReadWrite, duplex};
///
/// /// What some library asks for.
/// async fn first_byte(mut stream: impl AsyncRead + AsyncWrite + Unpin + Send) -> std::io::Result<u8> {
///     let mut byte = [0];
///     stream.read_exact(&mut byte).await?;
///     Ok(byte[0])
/// }
///
/// let (near, far) = duplex().await?;
/// far.1.write(b"x");
/// assert_eq!(first_byte(ReadWrite::from(near).into_send()).await?, b'x');
/// # Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Dropped on another thread it goes home, as any [`LoopBound`]; the connection is closed there.
///
/// # Panics
/// Reading and writing on another thread.
#[derive(Debug)]
pub struct SendReadWrite(LoopBound<ReadWrite>);

impl SendReadWrite {
    /// The streams.
    ///
    /// # Panics
    /// On another thread; the streams go home.
    #[track_caller]
    pub fn into_inner(self) -> ReadWrite {
        self.0.into_inner()
    }

    /// What the traits are called on.
    #[track_caller]
    pub(crate) fn home(self: Pin<&mut Self>) -> Pin<&mut ReadWrite> {
        Pin::new(&mut *self.get_mut().0)
    }
}
