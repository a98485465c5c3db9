//! A client for Redis as a protocol: requests are written as they are made, without waiting, and answers come in their
//! order, so a queue of promises is all that is needed. RESP, its language, is a framing of one's own under a receiver.
//!
//! `cargo run --example redis_protocol -- [--connect HOST:PORT] [COMMAND ARGUMENT…]`: without a command it sets a key, counts
//! to a thousand in one go, and reads the key back.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, ValueExt};
use tulipa::{
    AfterEof, Connect, Connection, Framing, LoopHandle, Promise, Receiver, StringProtocol,
    Transport, gather, react,
};
use tulipa_examples::serve::log;

const PATIENCE: Duration = Duration::from_secs(10);
/// Answers in answers in answers: no server of ours goes deeper.
const DEEPEST: usize = 8;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Value>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Simple(text) => f.write_str(text),
            Value::Error(text) => write!(f, "(error) {text}"),
            Value::Integer(number) => write!(f, "(integer) {number}"),
            Value::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Value::Nil => f.write_str("(nil)"),
            Value::Array(values) => values.iter().enumerate().try_for_each(|(n, value)| match n {
                0 => write!(f, "1) {value}"),
                n => write!(f, "\n{}) {value}", n + 1),
            }),
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("that is not RESP: {why}"))
}

/// A value at the front of the input, and how long it is.
fn parse(input: &[u8], depth: usize) -> io::Result<Option<(Value, usize)>> {
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&input[..end]).map_err(|_| invalid("a line is no text"))?;
    let (used, rest) = (end + 2, line.get(1..).unwrap_or_default());
    let number = || rest.parse::<i64>().map_err(|_| invalid("a number is none"));
    let value = match line.chars().next() {
        Some('+') => Value::Simple(rest.to_owned()),
        Some('-') => Value::Error(rest.to_owned()),
        Some(':') => Value::Integer(number()?),
        Some('$' | '*') if number()? < 0 => Value::Nil,
        Some('$') => {
            let bulk = used..used + usize::try_from(number()?).map_err(|_| invalid("a length"))?;
            let whole = input.get(bulk.end..bulk.end + 2).map(|_| input[bulk.clone()].to_vec());
            return Ok(whole.map(|bytes| (Value::Bulk(bytes), bulk.end + 2)));
        }
        Some('*') if depth < DEEPEST => {
            let (mut values, mut used) = (Vec::new(), used);
            for _ in 0..number()? {
                let Some((value, more)) = parse(&input[used..], depth + 1)? else {
                    return Ok(None);
                };
                values.push(value);
                used += more;
            }
            return Ok(Some((Value::Array(values), used)));
        }
        _ => return Err(invalid("it begins with no kind")),
    };
    Ok(Some((value, used)))
}

#[derive(Default)]
struct Resp;

impl Framing for Resp {
    /// An answer is kept until it is whole, so it has a limit.
    const MAX_LENGTH: usize = 16 << 20;

    fn cut(&mut self, input: &[u8], limit: usize) -> io::Result<Option<(Range<usize>, usize)>> {
        match parse(input, 0)? {
            Some((_, used)) if used <= limit => Ok(Some((0..used, used))),
            None if input.len() <= limit => Ok(None),
            _ => Err(invalid("an answer is too long")),
        }
    }
}

/// The promises of what was asked, in order.
#[derive(Default)]
struct RedisProtocol {
    waiting: VecDeque<Promise<io::Result<Value>>>,
}

impl StringProtocol for RedisProtocol {
    fn string_received(&mut self, _: &Transport, answer: &[u8]) -> io::Result<()> {
        let (value, _) = parse(answer, 0)?.ok_or_else(|| invalid("it is not whole"))?;
        let promise = self.waiting.pop_front().ok_or_else(|| invalid("nobody has asked"))?;
        // Whoever has given up does not want it.
        let _given_up = promise.set(Ok(value));
        Ok(())
    }

    fn eof_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<AfterEof> {
        Ok(AfterEof::Close)
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
        let why = error.map_or_else(|| "the server has gone".to_owned(), |error| error.to_string());
        for promise in self.waiting.drain(..) {
            let lost = io::Error::new(io::ErrorKind::ConnectionAborted, why.clone());
            let _given_up = promise.set(Err(lost));
        }
    }
}

/// What a program holds.
#[derive(Clone)]
struct Redis(Connection<Receiver<Resp, RedisProtocol>>);

impl Redis {
    async fn connect(address: &str) -> io::Result<Redis> {
        let protocol = || Receiver::new(RedisProtocol::default());
        Connect::to(address).timeout(PATIENCE).open(protocol).await.map(Redis)
    }

    /// Asks at once; the answer is awaited.
    fn ask(&self, words: &[&str]) -> impl Future<Output = io::Result<Value>> + use<> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        let (promise, answer) = LoopHandle::current().create_future();
        let asked = self.0.with(|receiver, transport| {
            receiver.get_mut().waiting.push_back(promise);
            transport.write(request.as_bytes());
        });
        async move {
            asked.map_err(io::Error::other)?;
            answer.await.map_err(io::Error::other)?
        }
    }
}

async fn tour(redis: &Redis) -> io::Result<()> {
    println!("SET: {}", redis.ask(&["SET", "flower", "tulip"]).await?);
    redis.ask(&["DEL", "count"]).await?;
    let counting: Vec<_> =
        (0..1000).map(|_| tulipa::spawn(redis.ask(&["INCR", "count"]))).collect();
    let counts = gather(counting).await;
    let in_order = counts
        .into_iter()
        .zip(1..)
        .all(|(count, n)| matches!(count, Ok(Ok(Value::Integer(found))) if found == n));
    println!("a thousand INCRs at once: {}", if in_order { "in order" } else { "in disorder" });
    println!("GET: {}", redis.ask(&["GET", "flower"]).await?);
    println!("GET: {}", redis.ask(&["GET", "no such flower"]).await?);
    println!("MGET: {}", redis.ask(&["MGET", "flower", "count"]).await?);
    Ok(())
}

async fn run(address: String, words: Vec<String>) -> io::Result<ExitCode> {
    let redis = Redis::connect(&address).await?;
    let mut status = ExitCode::SUCCESS;
    if words.is_empty() {
        tour(&redis).await?;
    } else {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let answer = redis.ask(&words).await?;
        println!("{answer}");
        status = ExitCode::from(u8::from(matches!(answer, Value::Error(_))));
    }
    redis.0.close();
    redis.0.wait_closed().await;
    Ok(status)
}

fn arguments() -> Result<(String, Vec<String>), lexopt::Error> {
    let (mut address, mut words) = ("127.0.0.1:6379".to_owned(), Vec::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("connect") => address = parser.value()?.string()?,
            Arg::Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok((address, words))
}

fn main() -> ExitCode {
    match arguments() {
        Ok((address, words)) => react(|| async {
            run(address, words).await.unwrap_or_else(|error| {
                log(format_args!("redis_protocol: {error}"));
                ExitCode::FAILURE
            })
        }),
        Err(error) => {
            log(format_args!("redis_protocol: {error}"));
            ExitCode::from(2)
        }
    }
}
