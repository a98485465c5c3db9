//! A protocol and a loop: what the selector did by hand, without the hands.

use std::io;

use tulipa::{Connect, EventLoop, LoopHandle, Promise, Protocol, Transport, gather};

use crate::{PATIENCE, Page, Pages, Url, collect};

struct HttpClient {
    request: String,
    response: Vec<u8>,
    page: Option<Promise<io::Result<Page>>>,
}

impl Protocol for HttpClient {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        transport.write(self.request.as_bytes());
        transport.set_timeout(Some(PATIENCE));
        Ok(())
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<()> {
        collect(&mut self.response, data)
    }

    /// The end of the connection is the end of the page.
    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        if let Some(page) = self.page.take() {
            let response = &self.response;
            let _given_up = page.set(error.map_or_else(|| Page::parse(response), Err));
        }
    }
}

async fn http_get(url: Url) -> io::Result<Page> {
    let (promise, page) = LoopHandle::current().create_future();
    let request = url.request();
    let client = || HttpClient { request, response: Vec::new(), page: Some(promise) };
    Connect::to(url.host).timeout(PATIENCE).open(client).await?;
    page.await.map_err(io::Error::other)?
}

pub(crate) fn fetch(urls: &[Url]) -> Pages {
    let event_loop = EventLoop::new()?;
    let fetching = urls.iter().map(|url| event_loop.spawn(http_get(url.clone())));
    let pages = event_loop.run_until_complete(gather(fetching))?;
    pages.into_iter().map(|page| Ok(page?)).collect()
}
