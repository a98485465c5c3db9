//! Twisted's way: a receiver of lines that goes over to raw bytes, and deferreds for what comes of it.

use std::io;

use tulipa::{
    AfterEof, AfterRaw, Connect, Deferred, DeferredError, EventLoop, LineProtocol, LineReceiver,
    Next, Transport, Trigger,
};

use crate::{PATIENCE, Page, Pages, Url, collect};

struct HttpClient {
    request: String,
    response: Vec<u8>,
    page: Option<Trigger<Page, io::Error>>,
}

impl LineProtocol for HttpClient {
    fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
        transport.write(self.request.as_bytes());
        transport.set_timeout(Some(PATIENCE));
        Ok(())
    }

    /// The head comes in lines, and ends with an empty one.
    fn line_received(&mut self, _: &Transport, line: &[u8]) -> io::Result<Next> {
        collect(&mut self.response, &[line, b"\r\n"].concat())?;
        Ok(if line.is_empty() { Next::Raw } else { Next::Lines })
    }

    fn raw_data_received(&mut self, _: &Transport, data: &[u8]) -> io::Result<AfterRaw> {
        collect(&mut self.response, data)?;
        Ok(AfterRaw::Raw)
    }

    fn eof_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<AfterEof> {
        Ok(AfterEof::Close)
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        let Some(page) = self.page.take() else { return };
        // If it was cancelled meanwhile nobody wants it.
        match error.map_or_else(|| Page::parse(&self.response), Err) {
            Ok(found) => drop(page.callback(found)),
            Err(error) => drop(page.errback(error)),
        }
    }
}

fn http_get(url: Url) -> Deferred<Page, io::Error> {
    let connecting = Deferred::from_future(async move {
        let (trigger, page) = Deferred::pair();
        let request = url.request();
        let client = HttpClient { request, response: Vec::new(), page: Some(trigger) };
        Connect::to(url.host).timeout(PATIENCE).open(|| LineReceiver::new(client)).await?;
        Ok(page)
    });
    connecting.chain(|page| page)
}

/// What `inlineCallbacks` does: waits for one after the other, while all are under way.
async fn get_all(urls: Vec<Url>) -> Vec<io::Result<Page>> {
    let mut pages = Vec::new();
    let fetching: Vec<_> = urls.into_iter().map(http_get).collect();
    for page in fetching {
        pages.push(page.await.map_err(|failure| match failure {
            DeferredError::Failed(error) => error,
            other => io::Error::other(other.to_string()),
        }));
    }
    pages
}

pub(crate) fn fetch(urls: &[Url]) -> Pages {
    let event_loop = EventLoop::new()?;
    Ok(event_loop.run_until_complete(get_all(urls.to_vec()))?)
}
