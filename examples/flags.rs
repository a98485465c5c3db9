//! Downloads the flags of the twenty most populous countries: one after the other, in threads, or with coroutines. The
//! server is in this program, and takes its time for each answer, as one far away would.
//!
//! `cargo run --example flags -- [--mode sequential|thread|async] [--latency MILLIS] [--directory PATH]`
//!
//! It prints the flags as they come, saves each to a file, and counts them.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lexopt::Arg;
use tulipa::{EventLoop, ReadError, fs, gather, open_connection, sleep, start_server};

const COUNTRIES: [&str; 20] = [
    "CN", "IN", "US", "ID", "BR", "PK", "NG", "BD", "RU", "JP", "MX", "PH", "VN", "ET", "EG", "DE",
    "IR", "TR", "CD", "FR",
];

/// No flag is larger.
const LARGEST_FLAG: usize = 64 * 1024;

/// Answers each line with the flag of that country, after a while, for as long as the program runs.
fn serve(latency: Duration) -> io::Result<SocketAddr> {
    let (sender, address) = mpsc::channel();
    thread::spawn(move || {
        let serving = async move {
            let server = start_server("127.0.0.1:0", async move |mut reader, writer| {
                let country = String::from_utf8_lossy(reader.read_line().await?).trim().to_owned();
                sleep(latency).await;
                writer.write(format!("the flag of {country}").as_bytes());
                Ok::<(), ReadError>(())
            });
            let server = server.await?;
            let _nobody_waits = sender.send(server.local_addrs()[0].inet());
            server.serve_forever().await
        };
        tulipa::run(serving).map_err(io::Error::other)?
    });
    let address = address.recv().ok().flatten();
    address.ok_or_else(|| io::Error::other("the server did not start"))
}

fn show(country: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{country} ")?;
    stdout.flush()
}

fn file(directory: &Path, country: &str) -> PathBuf {
    directory.join(format!("{}.txt", country.to_lowercase()))
}

/// One download that blocks.
fn download(country: &str, server: SocketAddr, directory: &Path) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    writeln!(stream, "{country}")?;
    let mut flag = Vec::new();
    stream.take(LARGEST_FLAG as u64).read_to_end(&mut flag)?;
    show(country)?;
    std::fs::write(file(directory, country), flag)
}

fn sequentially(countries: &[&str], server: SocketAddr, directory: &Path) -> io::Result<()> {
    countries.iter().try_for_each(|country| download(country, server, directory))
}

fn in_threads(countries: &[&str], server: SocketAddr, directory: &Path) -> io::Result<()> {
    thread::scope(|scope| {
        let start = |country| scope.spawn(move || download(country, server, directory));
        let threads = Vec::from_iter(countries.iter().copied().map(start));
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })
}

/// The same without blocking.
async fn fetch(
    country: &'static str,
    server: SocketAddr,
    directory: PathBuf,
) -> Result<(), ReadError> {
    let (mut reader, writer) = open_connection(server).await?;
    writer.write(format!("{country}\n").as_bytes());
    let flag = reader.read_to_end(LARGEST_FLAG).await?;
    show(country)?;
    Ok(fs::write(file(&directory, country), flag).await?)
}

fn with_coroutines(
    countries: &[&'static str],
    server: SocketAddr,
    directory: &Path,
) -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let start =
        |country: &&'static str| event_loop.spawn(fetch(country, server, directory.to_owned()));
    let fetching = gather(countries.iter().map(start));
    for result in event_loop.run_until_complete(fetching)? {
        result??;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut mode, mut latency) = ("async".to_owned(), 50);
    let mut directory = std::env::temp_dir().join("tulipa-flags");
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("mode") => mode = parser.value()?.to_string_lossy().into_owned(),
            Arg::Long("latency") => latency = parser.value()?.to_string_lossy().parse()?,
            Arg::Long("directory") => directory = parser.value()?.into(),
            other => return Err(other.unexpected().into()),
        }
    }
    std::fs::create_dir_all(&directory)?;
    let mut countries = COUNTRIES;
    countries.sort_unstable();
    let server = serve(Duration::from_millis(latency))?;
    match mode.as_str() {
        "sequential" => sequentially(&countries, server, &directory)?,
        "thread" => in_threads(&countries, server, &directory)?,
        "async" => with_coroutines(&countries, server, &directory)?,
        _ => return Err("a mode is sequential, thread or async".into()),
    }
    println!("\n{} flags downloaded", countries.len());
    Ok(())
}
