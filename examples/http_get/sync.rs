//! One page after the other: each waits for the one before it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

use crate::{PATIENCE, Page, Pages, Url, collect};

pub(crate) fn fetch(urls: &[Url]) -> Pages {
    Ok(urls.iter().map(http_get).collect())
}

pub(crate) fn http_get(url: &Url) -> io::Result<Page> {
    let mut addresses = url.host.to_socket_addrs()?;
    let address = addresses.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(url.request().as_bytes())?;
    let (mut response, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk)? {
            0 => return Page::parse(&response),
            n => collect(&mut response, &chunk[..n])?,
        }
    }
}
