//! From one connection to another.

use std::io;

use futures_lite::future::try_zip;

use crate::{StreamReader, StreamWriter, Streams};

/// Copies what comes until the end, and returns how many bytes that were. What is copied is sent at the end of each
/// step; while the writer has no room nothing is read, so what is on the way is bounded by the writer's high limit and
/// one read.
///
/// # Errors
/// Why reading or writing failed.
///
/// # Cancel safety
/// What was read is written; going on afterwards loses and doubles nothing.
pub async fn copy(reader: &mut StreamReader, writer: &StreamWriter) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        let data = reader.fill().await?;
        if data.is_empty() {
            writer.drain().await?;
            return Ok(copied);
        }
        let count = data.len();
        writer.write(data);
        reader.consume(count);
        copied += count as u64;
        writer.drain().await?;
    }
}

/// Copies in both directions until both have ended, and returns how many bytes that were, from near to far and back.
/// The end of one is passed on ([`write_eof`](StreamWriter::write_eof)) while the other goes on.
///
/// # Errors
/// The first failure, which ends both connections: [aborts](tulipa_protocols::Transport::abort) them.
///
/// # Cancel safety
/// As [`copy`].
pub async fn copy_bidirectional(near: &mut Streams, far: &mut Streams) -> io::Result<(u64, u64)> {
    let (near_writer, far_writer) = (near.1.clone(), far.1.clone());
    let there = pass_on(&mut near.0, &far_writer);
    let back = pass_on(&mut far.0, &near_writer);
    let result = try_zip(there, back).await;
    if result.is_err() {
        near_writer.transport().abort();
        far_writer.transport().abort();
    }
    result
}

async fn pass_on(reader: &mut StreamReader, writer: &StreamWriter) -> io::Result<u64> {
    let copied = copy(reader, writer).await?;
    writer.write_eof();
    Ok(copied)
}
