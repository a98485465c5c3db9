//! The same function in a few threads: as many pages at a time as there are threads.

use tulipa::ThreadPool;

use crate::sync::http_get;
use crate::{Pages, Url};

const THREADS: usize = 5;

pub(crate) fn fetch(urls: &[Url]) -> Pages {
    let pool = ThreadPool::builder().threads(THREADS).name("fetcher").build();
    let pages = pool.map(urls.to_vec(), |url| http_get(&url));
    pages.map(|page| Ok(page?)).collect()
}
