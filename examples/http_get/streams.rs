//! Streams: what the first way did, one line after the other, and yet all of them at the same time.

use std::io;

use tulipa::{EventLoop, gather, open_connection, timeout};

use crate::{LONGEST_PAGE, PATIENCE, Page, Pages, Url};

async fn http_get(url: Url) -> io::Result<Page> {
    let (mut reader, writer) = open_connection(url.host.as_str()).await?;
    writer.write(url.request().as_bytes());
    let response = reader.read_to_end(LONGEST_PAGE).await?;
    Page::parse(&response)
}

async fn in_time(url: Url) -> io::Result<Page> {
    timeout(PATIENCE, http_get(url)).await.map_err(io::Error::other)?
}

pub(crate) fn fetch(urls: &[Url]) -> Pages {
    let event_loop = EventLoop::new()?;
    let fetching = urls.iter().map(|url| event_loop.spawn(in_time(url.clone())));
    let pages = event_loop.run_until_complete(gather(fetching))?;
    pages.into_iter().map(|page| Ok(page?)).collect()
}
