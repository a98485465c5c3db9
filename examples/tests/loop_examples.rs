//! The examples over the loop, each run as a program of its own.

#![forbid(unsafe_code)]
#![cfg(unix)]

mod support;

use std::fs::File;
use std::io::Write;
use std::process::Stdio;

use support::{Directory, Ended, Example, output};

#[test]
fn hello_callback_says_hello_and_stops() {
    assert_eq!(output("hello_callback"), ["Hello World"]);
}

#[test]
fn hello_delayed_greets_three_times() {
    assert_eq!(output("hello_delayed"), ["Hello World 1", "Hello World 2", "Hello World 3"]);
}

#[test]
fn stop_from_thread_stops_the_loop_and_hears_when_it_is_closed() {
    let lines = output("stop_from_thread");
    assert!(lines[0].starts_with("hello from <LoopHandle"), "{lines:?}");
    assert_eq!(lines[1..], ["stopped", "later: the event loop is closed"]);
}

#[test]
fn executor_runs_work_in_other_threads() {
    assert_eq!(
        output("executor"),
        [
            "in the default executor: [4, 2, 3, 6]",
            "in a pool: counter_0",
            "in order: [1, 4, 9, 16, 25]",
            "a panic becomes an error",
            "all threads have ended",
        ]
    );
}

#[test]
fn two_loops_play_ping_pong() {
    let rounds = (1..=3).flat_map(|round| [format!("ping {round}"), format!("pong {round}")]);
    let expected: Vec<_> = rounds.chain(["both loops have ended".to_owned()]).collect();
    assert_eq!(output("two_loops"), expected);
}

#[test]
fn embedded_loop_serves_and_asks_inside_of_another_loop() {
    let keys = ['a', 'b', 'c'].map(|key| {
        let answer = key.to_ascii_uppercase();
        [format!("outer: the key {key:?}"), format!("inner: the server says \"{answer}\"")]
    });
    let expected: Vec<_> = keys.into_iter().flatten().chain(["outer: the end".into()]).collect();
    assert_eq!(output("embedded_loop"), expected);
}

#[test]
fn pluggable_selector_runs_one_program_over_three_selectors() {
    let lines = output("pluggable_selector");
    let best = if cfg!(target_os = "linux") { "epoll" } else { "polling" };
    assert_eq!(
        lines,
        [
            format!("{best}: counted to three in 0 s of the loop's time"),
            "polling: counted to three in 0 s of the loop's time".to_owned(),
            "virtual: counted to three in 3600 s of the loop's time".to_owned(),
        ]
    );
}

mod stdin_fib {
    use super::*;

    const INPUT: &str = "1\n\nten\n30\n20";
    const ANSWERS: [&str; 3] = ["fib(1) = 1", "fib(30) = 832040", "fib(20) = 6765"];

    fn assert_answers(ended: &Ended) {
        assert!(ended.status.success(), "{}", ended.status);
        assert_eq!(ended.stdout, ANSWERS);
        assert!(ended.stderr.iter().any(|line| line == "\"ten\" is not a number"));
    }

    #[test]
    fn reads_a_pipe_as_lines_arrive() {
        let mut example = Example::start_with_input("stdin_fib", &[], Stdio::piped());
        let mut input = example.input();
        for (n, answer) in [(10, "fib(10) = 55"), (11, "fib(11) = 89")] {
            // In two parts: a line may arrive in pieces.
            write!(input, "{}", n / 10).expect("it reads");
            writeln!(input, "{}", n % 10).expect("it reads");
            assert_eq!(example.line(), answer);
        }
        input.write_all(INPUT.as_bytes()).expect("it reads");
        drop(input);
        assert_answers(&example.end());
    }

    #[test]
    fn reads_a_file() {
        let directory = Directory::new();
        let path = directory.file("numbers");
        std::fs::write(&path, INPUT).expect("the directory is ours");
        let input = File::open(&path).expect("it was written").into();
        assert_answers(&Example::start_with_input("stdin_fib", &[], input).end());
    }

    #[test]
    fn reads_nothing_from_dev_null() {
        let ended = Example::start("stdin_fib", &[]).end();
        assert!(ended.status.success());
        assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
    }
}
