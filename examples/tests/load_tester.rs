//! The load tester: as a program, against servers that behave and servers that do not; and its parts, in virtual time.

#![forbid(unsafe_code)]
#![cfg(unix)]
#![allow(dead_code)]

mod support;

#[path = "../load_tester/client.rs"]
mod client;
#[path = "../load_tester/failure.rs"]
mod failure;
#[path = "../load_tester/fire.rs"]
mod fire;
#[path = "../load_tester/histogram.rs"]
mod histogram;
#[path = "../load_tester/options.rs"]
mod options;
#[path = "../load_tester/report.rs"]
mod report;
#[path = "../load_tester/servers.rs"]
mod servers;
#[path = "../load_tester/tally.rs"]
mod tally;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use support::http::{After, Web, respond};
use support::{Directory, Ended, Example, WATCHDOG};
use tulipa::LoopHandle;
use tulipa::testing::{MemoryNetwork, elapsed, world};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Ended { status, stdout, stderr } = Example::start("load_tester", arguments).end();
    (status.code(), stdout.join("\n"), stderr.join("\n"))
}

/// A number of the one object that it prints.
fn number(json: &str, key: &str) -> f64 {
    let (_, value) =
        json.split_once(&format!("\"{key}\": ")).unwrap_or_else(|| panic!("{key}: {json}"));
    let end = value.find([',', '}']).expect("the object ends");
    value[..end].parse().unwrap_or_else(|_| panic!("{key}: {json}"))
}

/// A duration of the report, in seconds.
fn duration(line: &str) -> f64 {
    let mut words = line.strip_prefix("Duration").expect("it is that line").split_whitespace();
    let value: f64 = words.next().expect("a number").parse().expect("a number");
    match words.next() {
        Some("s") => value,
        Some("ms") => value / 1e3,
        unit => panic!("{unit:?}"),
    }
}

#[test]
fn without_arguments_it_compares_a_server_that_blocks_with_one_that_does_not() {
    let (status, stdout, stderr) = run(&["--quick"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert_eq!(stdout.lines().filter(|line| *line == "*".repeat(20)).count(), 2, "{stdout}");
    assert_eq!(stdout.matches("20 ok, 1600 bytes").count(), 2, "{stdout}");
    assert_eq!(stdout.matches("/large.csv 20 times, 5 at once").count(), 2, "{stdout}");
    for figure in
        ["Average task duration", "Latency                mean", ", p99 ", "Requests per second"]
    {
        assert_eq!(stdout.matches(figure).count(), 2, "{figure}: {stdout}");
    }
    let durations: Vec<_> =
        stdout.lines().filter(|line| line.starts_with("Duration")).map(duration).collect();
    // No download is faster than its rows, and the blocking server has to make them one after the other. How much
    // faster the other one is depends on the machine: in virtual time that is tested to the millisecond.
    assert!(durations[0] >= 1.0 && durations[1] >= 0.2, "{stdout}");
    let last = stdout.lines().last().expect("there is one");
    assert!(last.starts_with("20 requests, 5 at once: ") && last.contains("a ratio of "), "{last}");
}

#[tulipa::test(clock = "autojump", strict)]
async fn twenty_downloads_of_a_second_five_at_once_take_four_seconds() {
    let network = MemoryNetwork::new(&world(), 1);
    network.install(&LoopHandle::current());
    let server = servers::listen("localhost:80", Duration::from_millis(100)).await.unwrap();
    let url = options::Url::parse("http://localhost/large.csv").unwrap();
    let options = Rc::new(options::Options { json: true, ..options::Options::new(url, 20) });
    let fired = fire::fire(&options).await.unwrap();
    assert_eq!((fired.tally.ok, fired.tally.failed(), fired.interrupted), (20, 0, false));
    assert_eq!(fired.tally.status, [(200, 20)].into());
    assert_eq!(fired.tally.duration, Duration::from_secs(4));
    // Four groups of five, which end after 1, 2, 3, 4 s.
    assert_eq!(fired.tally.mean_task(), Some(Duration::from_millis(2500)));
    assert_eq!(fired.tally.latency.mean(), Some(Duration::from_secs(1)));
    assert_eq!(elapsed(), Duration::from_secs(4));
    server.shutdown(Duration::from_secs(1)).await;
}

/// Python's own server of files. It is killed at the end.
struct Python(Child, String);

impl Python {
    fn serve(directory: &str, protocol: &str) -> Option<Python> {
        let arguments =
            ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--protocol", protocol];
        let child = Command::new("python3")
            .args(arguments)
            .args(["--directory", directory])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it was piped")).read_line(&mut line).ok()?;
        // "Serving HTTP on 127.0.0.1 port 40001 (http://127.0.0.1:40001/) ..."
        let (_, rest) = line.split_once("(http://")?;
        let (address, _) = rest.split_once('/')?;
        Some(Python(child, format!("http://{address}")))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn a_server_that_is_not_ours_is_tested_with_and_without_keep_alive() {
    let directory = Directory::new();
    let (file, size) = (directory.file("table.csv"), 300_000);
    std::fs::write(&file, vec![b'x'; size]).expect("it is ours");
    let path = file.parent().and_then(|path| path.to_str()).expect("it is text").to_owned();
    for protocol in ["HTTP/1.0", "HTTP/1.1"] {
        let Some(python) = Python::serve(&path, protocol) else {
            eprintln!(
                "SKIPPED: a test against `python3 -m http.server`, as there is no python3 3.11 or later"
            );
            return;
        };
        let url = format!("{}/table.csv", python.1);
        for more in [&[] as &[&str], &["--keep-alive"]] {
            let arguments = [&[&url, "40", "--concurrency", "8", "--json"], more].concat();
            let (status, json, stderr) = run(&arguments);
            assert_eq!((status, stderr.as_str()), (Some(0), ""), "{json}");
            assert_eq!((number(&json, "requests"), number(&json, "ok")), (40.0, 40.0), "{json}");
            assert_eq!(number(&json, "200"), 40.0, "{json}");
            assert_eq!(number(&json, "bytes"), 40.0 * size as f64, "{json}");
            let [mean, half, most] = ["mean_ms", "p50_ms", "p99_ms"].map(|key| number(&json, key));
            assert!(mean > 0.0 && half > 0.0 && half <= most, "{json}");
            let rate = number(&json, "requests") / number(&json, "seconds");
            assert!((rate / number(&json, "rps") - 1.0).abs() < 0.01, "{json}");
        }
        let (status, text, _) = run(&[&format!("{}/nothing", python.1), "2"]);
        assert_eq!(status, Some(1), "none has succeeded: {text}");
        assert!(text.contains("Status 404             2"), "{text}");
        assert!(text.contains("2 (status): the server answered 404 Not Found"), "{text}");
    }
}

#[test]
fn the_report_in_words_has_a_bar_figures_and_a_histogram() {
    let web = Web::new(|number, client| {
        let status = if number < 60 { "200 OK" } else { "302 Found" };
        respond(client, status, "four");
        After::Close
    });
    let (status, text, stderr) = run(&[&web.url, "120", "-c", "1"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{text}");
    // One for each fiftieth part of many.
    assert!(text.contains(&format!("In progress\n{}\n", "*".repeat(50))), "{text}");
    assert!(text.contains("120 ok, 480 bytes"), "{text}");
    assert!(text.contains("Status 200             60\nStatus 302             60\n"), "{text}");
    let (_, rows) = text.split_once("Latency histogram, from ").expect("there is one");
    let counts = rows.lines().skip(1).map(|row| row.split_whitespace().nth(3).expect("a count"));
    assert_eq!(
        counts.map(|count| count.parse::<u64>().expect("a count")).sum::<u64>(),
        120,
        "{text}"
    );
}

/// The kind of the error of each of three requests, and the line about them.
fn failures(url: &str, more: &[&str]) -> (String, String) {
    let arguments = [&[url, "3", "--json"], more].concat();
    let (status, json, stderr) = run(&arguments);
    assert_eq!(status, Some(1), "{json}");
    assert_eq!((number(&json, "requests"), number(&json, "ok")), (3.0, 0.0), "{json}");
    let (_, errors) = json.split_once("\"errors\": {\"").expect("there are some");
    let (kind, count) = errors.split_once("\": ").expect("it has a count");
    assert!(count.starts_with("3}"), "{json}");
    (kind.to_owned(), stderr)
}

#[test]
fn a_refused_connection_is_a_line_with_the_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let (kind, line) = failures(&format!("http://{address}/"), &[]);
    assert_eq!(kind, "refused");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains(&format!("3 (refused): cannot connect to {address}: ")), "{line}");
}

#[test]
fn a_server_that_never_answers_is_given_up_when_the_time_is_over() {
    let web = Web::new(|_, _| After::Stay);
    let (kind, line) = failures(&web.url, &["--timeout", "0.05"]);
    assert_eq!(kind, "timeout");
    assert!(line.ends_with("3 (timeout): no complete response within 0.05 s"), "{line}");
}

#[test]
fn a_server_that_ends_half_way_is_a_line_whether_it_has_begun_or_not() {
    let halves = [
        "",
        "HTTP/1.1 200 O",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
    ];
    for half in halves {
        let web = Web::new(move |_, client| {
            client.write_all(half.as_bytes()).expect("somebody reads");
            After::Close
        });
        let (kind, line) = failures(&web.url, &[]);
        assert_eq!(kind, "closed", "{half:?}");
        assert!(
            line.contains("the server closed the connection before the response was complete"),
            "{line}"
        );
    }
}

#[test]
fn a_server_that_breaks_off_or_does_not_speak_http_is_a_line() {
    let web = Web::new(|_, client| {
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").expect("it reads");
        After::Reset
    });
    let (kind, line) = failures(&web.url, &[]);
    assert_eq!(kind, "reset");
    assert!(line.contains("the server reset the connection"), "{line}");
    let web = Web::new(|_, client| {
        client.write_all(b"220 mail.example ESMTP\r\n\r\n").expect("it reads");
        After::Close
    });
    let (kind, line) = failures(&web.url, &[]);
    assert_eq!(kind, "not_http");
    assert!(line.contains("the server does not speak HTTP/1"), "{line}");
    let web = Web::new(|_, client| {
        respond(client, "500 Internal Server Error", "");
        After::Stay
    });
    let (kind, line) = failures(&web.url, &[]);
    assert_eq!(kind, "status");
    assert!(line.contains("the server answered 500 Internal Server Error"), "{line}");
}

#[test]
fn one_success_is_a_success_of_all() {
    let web = Web::new(|number, client| {
        respond(client, if number == 1 { "200 OK" } else { "503 Busy" }, "");
        After::Close
    });
    let (status, json, _) = run(&[&web.url, "4", "--json", "--concurrency", "1"]);
    assert_eq!(status, Some(0), "{json}");
    assert_eq!(
        ["ok", "200", "503", "status"].map(|key| match key {
            "status" => json.matches("\"errors\": {\"status\": 3}").count() as f64,
            key => number(&json, key),
        }),
        [1.0, 1.0, 3.0, 1.0],
        "{json}"
    );
}

#[test]
fn keep_alive_uses_connections_again_and_survives_their_end() {
    let ok = |client: &mut _| respond(client, "200 OK", "here");
    let web = Web::new(move |_, client| {
        ok(client);
        After::Stay
    });
    let (status, json, _) = run(&[&web.url, "30", "--keep-alive", "-c", "1", "--json"]);
    assert_eq!((status, number(&json, "ok"), web.clients()), (Some(0), 30.0, 1), "{json}");
    let (status, json, _) = run(&[&web.url, "30", "-c", "1", "--json"]);
    assert_eq!((status, number(&json, "ok"), web.clients()), (Some(0), 30.0, 31), "{json}");
    // A server that closes without having said so.
    let web = Web::new(move |number, client| {
        ok(client);
        if number % 3 == 2 { After::Close } else { After::Stay }
    });
    let (status, json, stderr) = run(&[&web.url, "90", "--keep-alive", "-c", "3", "--json"]);
    assert_eq!((status, number(&json, "ok"), stderr.as_str()), (Some(0), 90.0, ""), "{json}");
}

#[test]
fn no_more_than_the_limit_are_under_way_at_once() {
    let (gate, under_way) = (Barrier::new(7), Mutex::new((0, 0)));
    let web = Web::new(move |_, client| {
        {
            let (now, most) = &mut *under_way.lock().expect("nobody panics");
            *now += 1;
            *most = (*most).max(*now);
            assert!(*most <= 7, "{most} at once");
        }
        // Nobody goes on before seven are here, so there cannot be fewer either.
        gate.wait();
        under_way.lock().expect("nobody panics").0 -= 1;
        respond(client, "200 OK", "");
        After::Close
    });
    let (status, json, _) = run(&[&web.url, "21", "--concurrency", "7", "--json"]);
    assert_eq!((status, number(&json, "ok")), (Some(0), 21.0), "{json}");
}

/// A server that answers three requests and then no more, and says when it has come to that.
fn stuck() -> (Web, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::channel();
    let web = Web::new(move |number, client| {
        match number {
            0..3 => respond(client, "200 OK", "here"),
            _ => sender.send(()).expect("the test waits"),
        }
        After::Stay
    });
    (web, receiver)
}

#[test]
fn ctrl_c_shows_what_was_measured_so_far() {
    for json in [false, true] {
        let (web, is_stuck) = stuck();
        let more: &[&str] = if json { &["--json"] } else { &[] };
        let arguments = [&[&web.url, "100", "--concurrency", "1"], more].concat();
        let example = Example::start("load_tester", &arguments);
        is_stuck.recv_timeout(WATCHDOG).expect("it asks for a fourth");
        example.signal(Signal::INT);
        let Ended { status, stdout, stderr } = example.end();
        let stdout = stdout.join("\n");
        assert_eq!((status.code(), stderr.join("\n").as_str()), (Some(130), ""), "{stdout}");
        if json {
            assert_eq!(
                (number(&stdout, "requests"), number(&stdout, "ok")),
                (3.0, 3.0),
                "{stdout}"
            );
        } else {
            assert!(stdout.contains("In progress\n* 97 were not made\n"), "{stdout}");
            assert!(
                stdout.contains("3 ok, 12 bytes") && stdout.contains("Latency histogram"),
                "{stdout}"
            );
        }
    }
}

#[test]
fn what_makes_no_sense_is_a_clear_line_and_status_2() {
    let cases: &[(&[&str], &str)] = &[
        (&["https://127.0.0.1/", "1"], "https is not supported yet"),
        (&["127.0.0.1:80", "1"], "it has to begin with http://"),
        (&["ftp://127.0.0.1/", "1"], "it has to begin with http://"),
        (&["http://", "1"], "bad URL"),
        (&["http://a b/", "1"], "bad URL"),
        (&["http://127.0.0.1:0/", "1"], "the port is none"),
        (&["http://127.0.0.1:65536/", "1"], "the port is none"),
        (&["http://me:secret@127.0.0.1/", "1"], "a name and a password are not supported"),
        (&["http://127.0.0.1/"], "how many requests?"),
        (&["http://127.0.0.1/", "0"], "\"0\" is no number of requests"),
        (&["http://127.0.0.1/", "many"], "\"many\" is no number of requests"),
        (&["http://127.0.0.1/", "1", "2"], "unexpected argument \"2\""),
        (&["http://127.0.0.1/", "1", "--concurrency", "0"], "--concurrency is from 1 to"),
        (&["http://127.0.0.1/", "1", "--timeout", "-1"], "--timeout is in seconds"),
        (&["http://127.0.0.1/", "1", "--timeout", "NaN"], "--timeout is in seconds"),
        (&["http://127.0.0.1/", "1", "--quick"], "without a URL"),
        (&["--json"], "need a URL"),
        (&["--fast"], "invalid option '--fast'"),
    ];
    for (arguments, words) in cases {
        let (status, stdout, stderr) = run(arguments);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
    let (status, stdout, _) = run(&["--help"]);
    assert!(status == Some(0) && stdout.starts_with("usage: load_tester"), "{stdout}");
}

#[test]
fn a_url_has_a_host_a_port_and_a_path() {
    for (text, host, port, path) in [
        ("http://localhost", "localhost", 80, "/"),
        ("http://127.0.0.1:8000/a/b?c=d&e", "127.0.0.1", 8000, "/a/b?c=d&e"),
        ("http://[::1]:81/?q", "[::1]", 81, "/?q"),
        ("HTTP://Example.org/#part", "Example.org", 80, "/"),
    ] {
        let url = options::Url::parse(text).unwrap();
        assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
        assert_eq!(url.path.to_string(), path, "{text}");
    }
}

#[test]
fn a_histogram_is_exact_within_a_small_part() {
    let mut histogram = histogram::Histogram::new();
    assert_eq!(
        (histogram.quantile(0.5), histogram.mean(), histogram.rows(10)),
        (None, None, vec![])
    );
    for millis in 1..=1000 {
        histogram.record(Duration::from_millis(millis));
    }
    for (part, millis) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
        let found = histogram.quantile(part).unwrap().as_secs_f64() * 1e3;
        assert!((found / millis - 1.0).abs() <= 1.0 / 256.0, "{part}: {found}");
    }
    assert_eq!(histogram.mean(), Some(Duration::from_micros(500_500)));
    let rows = histogram.rows(10);
    assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 1000);
    assert_eq!((rows.len(), rows[9].up_to), (10, Duration::from_secs(1)));
    assert!(rows.windows(2).all(|two| two[0].up_to < two[1].up_to), "{rows:?}");
    histogram.record(Duration::ZERO);
    histogram.record(Duration::MAX);
    assert_eq!(histogram.min(), Some(Duration::ZERO));
    assert!(histogram.quantile(1.0) > Some(Duration::from_secs(60_000)));
    assert_eq!(histogram.rows(3).iter().map(|row| row.count).sum::<u64>(), 1002);
}
