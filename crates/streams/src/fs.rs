//! Files, read and written in the loop's executor. Stands for aiofiles.
//!
//! ```
//! use tulipa_loop::EventLoop;
//! use tulipa_streams::fs;
//!
//! let event_loop = EventLoop::new()?;
//! event_loop.run_until_complete(async {
//!     let text = fs::read_to_string("Cargo.toml").await?;
//!     assert!(text.contains("[package]"));
//!     std::io::Result::Ok(())
//! })??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The operating system has no readiness for files: each operation is a job of the default executor, which is a
//! pool of threads. What is read or written in small pieces therefore belongs into one call, or one job of
//! [`to_thread`].

use std::fmt;
use std::fs::{Metadata, OpenOptions};
use std::io::{self, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_lite::{Stream, stream};
use tulipa_loop::to_thread;

/// An open file, and the place in it where the next read or write happens.
///
/// # Cancel safety
/// The place moves when an operation has ended: a read that was given up can be made again and loses nothing. A write
/// that was given up may have happened or not.
///
/// # Platform
/// Files that have places: pipes and terminals do not.
pub struct File {
    file: Arc<std::fs::File>,
    place: u64,
    /// What was read and not given out, which is before `place`.
    buffer: Vec<u8>,
    start: usize,
}

/// No job reads or writes more at once: that bounds its copy.
const MOST_AT_ONCE: usize = 1024 * 1024;

/// What [`File::read_line`] reads at once, and how long a line may be.
const LINES: usize = 64 * 1024;

impl File {
    /// Opens a file to read it.
    ///
    /// # Errors
    /// As [`std::fs::File::open`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    ///
    /// # Panics
    /// Outside of a running loop, as all functions here.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<File> {
        File::open_with(path, OpenOptions::new().read(true)).await
    }

    /// Creates a file, or empties it if it is there, to write it.
    ///
    /// # Errors
    /// As [`std::fs::File::create`].
    ///
    /// # Cancel safety
    /// It may have been created all the same.
    pub async fn create(path: impl AsRef<Path>) -> io::Result<File> {
        File::open_with(path, OpenOptions::new().write(true).create(true).truncate(true)).await
    }

    /// Opens a file in any way there is.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    ///
    /// # Cancel safety
    /// As [`create`](Self::create).
    pub async fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> io::Result<File> {
        let (path, options) = (PathBuf::from(path.as_ref()), options.clone());
        in_executor(move || options.open(path)).await.map(File::from_std)
    }

    /// Takes a file that is open; the place is its beginning.
    pub fn from_std(file: std::fs::File) -> File {
        File { file: Arc::new(file), place: 0, buffer: Vec::new(), start: 0 }
    }

    /// Reads one byte or more; 0 at the end of the file, or if `buffer` is empty.
    ///
    /// # Errors
    /// What the operating system says.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !buffer.is_empty() && self.start == self.buffer.len() {
            self.more(buffer.len().min(MOST_AT_ONCE)).await?;
        }
        let count = buffer.len().min(self.buffer.len() - self.start);
        buffer[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.start += count;
        Ok(count)
    }

    /// Reads from here to the end.
    ///
    /// # Errors
    /// What the operating system says.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.more(MOST_AT_ONCE).await? > 0 {}
        let all = self.buffer.split_off(self.start);
        (self.buffer, self.start) = (Vec::new(), 0);
        Ok(all)
    }

    /// The same as text.
    ///
    /// # Errors
    /// [`InvalidData`](io::ErrorKind::InvalidData) if it is not UTF-8; what the operating system says.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn read_to_string(&mut self) -> io::Result<String> {
        let all = self.read_to_end().await?;
        String::from_utf8(all).map_err(invalid)
    }

    /// The next line without its end; `None` at the end of the file.
    ///
    /// # Errors
    /// [`InvalidData`](io::ErrorKind::InvalidData) if it is not UTF-8, or longer than 64 KiB; what the operating
    /// system says.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn read_line(&mut self) -> io::Result<Option<String>> {
        let mut searched = 0;
        let (length, used) = loop {
            let data = &self.buffer[self.start..];
            if let Some(place) = memchr::memchr(b'\n', &data[searched..]) {
                break (searched + place, searched + place + 1);
            }
            searched = data.len();
            if searched > LINES {
                return Err(invalid("the line is longer than 64 KiB"));
            }
            if self.more(LINES).await? == 0 {
                if searched == 0 {
                    return Ok(None);
                }
                break (searched, searched);
            }
        };
        let line = &self.buffer[self.start..self.start + length];
        let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        self.start += used;
        String::from_utf8(line).map(Some).map_err(invalid)
    }

    /// The lines to come; an error is the last one.
    pub fn lines(&mut self) -> impl Stream<Item = io::Result<String>> + Unpin {
        let lines = stream::unfold(Some(self), |file| async {
            let file = file?;
            let line = file.read_line().await.transpose()?;
            let file = line.is_ok().then_some(file);
            Some((line, file))
        });
        Box::pin(lines)
    }

    /// Writes all of it here; in a file that is opened to append, at its end.
    ///
    /// # Errors
    /// What the operating system says; a part may be written.
    ///
    /// # Cancel safety
    /// A part may be written, and the place stays where it was.
    pub async fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        self.forget_buffer();
        for piece in data.chunks(MOST_AT_ONCE) {
            let (file, place, piece) = (self.file.clone(), self.place, piece.to_vec());
            let count = piece.len() as u64;
            in_executor(move || file.write_all_at(&piece, place)).await?;
            self.place += count;
        }
        Ok(())
    }

    /// Moves the place, and returns it.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it would be before the beginning; what the operating system says.
    ///
    /// # Cancel safety
    /// It is moved or not.
    pub async fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.forget_buffer();
        let (base, offset) = match to {
            SeekFrom::Start(place) => (place, 0),
            SeekFrom::Current(offset) => (self.place, offset),
            SeekFrom::End(offset) => (self.metadata().await?.len(), offset),
        };
        self.place = base.checked_add_signed(offset).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "cannot seek before the beginning")
        })?;
        Ok(self.place)
    }

    /// The place of the next read or write, in bytes from the beginning.
    pub fn position(&self) -> u64 {
        self.place - (self.buffer.len() - self.start) as u64
    }

    /// Makes the file as long as this.
    ///
    /// # Errors
    /// What the operating system says.
    ///
    /// # Cancel safety
    /// It may have happened or not.
    pub async fn set_len(&self, length: u64) -> io::Result<()> {
        let file = self.file.clone();
        in_executor(move || file.set_len(length)).await
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// What the operating system says.
    ///
    /// # Cancel safety
    /// It goes on.
    pub async fn sync_all(&self) -> io::Result<()> {
        let file = self.file.clone();
        in_executor(move || file.sync_all()).await
    }

    /// What is known of the file.
    ///
    /// # Errors
    /// What the operating system says.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn metadata(&self) -> io::Result<Metadata> {
        let file = self.file.clone();
        in_executor(move || file.metadata()).await
    }

    /// Reads behind what is in the buffer; 0 is the end of the file.
    async fn more(&mut self, most: usize) -> io::Result<usize> {
        let (file, place) = (self.file.clone(), self.place);
        let read = in_executor(move || {
            let mut piece = vec![0; most];
            let count = retry(|| file.read_at(&mut piece, place))?;
            piece.truncate(count);
            Ok(piece)
        });
        let mut piece = read.await?;
        let count = piece.len();
        self.place += count as u64;
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() {
            self.buffer = piece;
        } else {
            self.buffer.append(&mut piece);
        }
        Ok(count)
    }

    fn forget_buffer(&mut self) {
        self.place = self.position();
        (self.buffer, self.start) = (Vec::new(), 0);
    }
}

/// The contents of a file.
///
/// # Errors
/// As [`std::fs::read`].
///
/// # Cancel safety
/// Nothing is changed.
pub async fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let path = PathBuf::from(path.as_ref());
    in_executor(move || std::fs::read(path)).await
}

/// The contents of a file, as text.
///
/// # Errors
/// As [`std::fs::read_to_string`].
///
/// # Cancel safety
/// Nothing is changed.
pub async fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let path = PathBuf::from(path.as_ref());
    in_executor(move || std::fs::read_to_string(path)).await
}

/// Makes this the contents of a file.
///
/// # Errors
/// As [`std::fs::write`].
///
/// # Cancel safety
/// It may have happened or not, or in part.
pub async fn write(path: impl AsRef<Path>, data: impl Into<Vec<u8>>) -> io::Result<()> {
    let (path, data) = (PathBuf::from(path.as_ref()), data.into());
    in_executor(move || std::fs::write(path, data)).await
}

async fn in_executor<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    to_thread(job).await.unwrap_or_else(|error| Err(io::Error::other(error.to_string())))
}

/// How often a call that a signal has interrupted is made again.
const MOST_INTERRUPTS: usize = 16;

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..MOST_INTERRUPTS {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.position();
        f.debug_struct("File").field("file", &self.file).field("place", &place).finish()
    }
}
