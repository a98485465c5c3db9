//! A serial port on a loop.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;
use tulipa::LoopHandle;

/// A port. Its future reads and writes can be given up at any time: nothing stays with the loop.
pub(crate) struct AsyncSerial {
    handle: LoopHandle,
    port: Rc<OwnedFd>,
    reading: Cell<bool>,
}

impl AsyncSerial {
    pub(crate) fn new(handle: &LoopHandle, port: OwnedFd) -> io::Result<AsyncSerial> {
        rustix::io::ioctl_fionbio(&port, true)?;
        Ok(AsyncSerial { handle: handle.clone(), port: Rc::new(port), reading: Cell::new(false) })
    }

    /// Reads what comes, up to `count` bytes; none when the port is gone.
    pub(crate) async fn read(&self, count: usize) -> io::Result<Vec<u8>> {
        let _turn = Turn::begin(&self.reading)?;
        let mut data = vec![0; count];
        loop {
            match rustix::io::read(&*self.port, &mut data[..]) {
                Ok(count) => {
                    data.truncate(count);
                    return Ok(data);
                }
                // A pseudo-terminal whose other end is closed.
                Err(Errno::IO) => return Ok(Vec::new()),
                Err(Errno::AGAIN) => self.wait(true).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes all.
    pub(crate) async fn write(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match rustix::io::write(&*self.port, data) {
                Ok(count) => data = &data[count..],
                Err(Errno::AGAIN) => self.wait(false).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until it can be read, or written. The reader goes with the wait, also when that is given up.
    async fn wait(&self, reads: bool) -> io::Result<()> {
        let (promise, ready) = self.handle.create_future();
        let mut promise = Some(promise);
        let fulfil = move |_: &LoopHandle| {
            if let Some(promise) = promise.take() {
                // If nobody waits any more that is fine.
                let _ = promise.set(());
            }
        };
        if reads {
            self.handle.add_reader(self.port.clone(), fulfil)?;
        } else {
            self.handle.add_writer(self.port.clone(), fulfil)?;
        }
        let _watch = Watch { serial: self, reads };
        ready.await.map_err(io::Error::other)
    }
}

struct Watch<'a> {
    serial: &'a AsyncSerial,
    reads: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.reads {
            self.serial.handle.remove_reader(&*self.serial.port);
        } else {
            self.serial.handle.remove_writer(&*self.serial.port);
        }
    }
}

/// The one who reads.
struct Turn<'a>(&'a Cell<bool>);

impl<'a> Turn<'a> {
    fn begin(reading: &'a Cell<bool>) -> io::Result<Turn<'a>> {
        if reading.replace(true) {
            let error = "somebody else reads from this port";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, error));
        }
        Ok(Turn(reading))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
