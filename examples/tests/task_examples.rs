//! The examples over tasks, each run as a program of its own.

#![forbid(unsafe_code)]
#![cfg(unix)]

mod support;

use support::{Ended, Example, output};

/// Runs an example with arguments to its end, which must be a good one.
fn output_with(name: &str, arguments: &[&str]) -> Vec<String> {
    let Ended { status, stdout, stderr } = Example::start(name, arguments).end();
    assert!(status.success(), "{name}: {status}, {stderr:?}");
    stdout
}

#[test]
fn hello_coroutine_greets_around_a_pause() {
    assert_eq!(output("hello_coroutine"), ["Hello", "World!"]);
}

#[test]
fn print_hello_greets_every_three_seconds_of_its_time() {
    let stdout = output_with("print_hello", &["--times", "3", "--virtual"]);
    assert_eq!(stdout, ["0 s: Hello World", "3 s: Hello World", "6 s: Hello World"]);
}

#[test]
fn cancel_task_lets_one_task_clean_up_and_never_starts_the_other() {
    let expected = [
        "at work",
        "asked to end: true",
        "it has cleaned up",
        "the other one: the task was cancelled",
    ];
    assert_eq!(output("cancel_task"), expected);
}

#[test]
fn three_stages_are_the_same_as_callbacks_and_as_a_coroutine() {
    let expected = [
        "requested step 1",
        "requested step 2 of <step 1>",
        "requested step 3 of <step 2 of <step 1>>",
        "answer <step 3 of <step 2 of <step 1>>>",
    ];
    assert_eq!(output("three_stages_callbacks"), expected);
    assert_eq!(output("three_stages"), expected);
}

/// What a terminal shows in the end of a line that was written over.
fn shown(line: &str) -> String {
    let mut cells = Vec::new();
    for part in line.split('\r') {
        for (place, character) in part.chars().enumerate() {
            cells.resize(cells.len().max(place + 1), ' ');
            cells[place] = character;
        }
    }
    String::from_iter(cells).trim_end().to_owned()
}

#[test]
fn spinner_turns_for_three_seconds_wipes_its_line_and_answers() {
    let lines = output_with("spinner", &["--virtual"]);
    let object = "spinner object: <Task pending name='Task-1' fut=spinner::spin spawned at ";
    assert!(lines[0].starts_with(object), "{lines:?}");
    assert_eq!(lines.len(), 2, "{lines:?}");
    let frames: Vec<_> = lines[1].matches(['|', '/', '-', '\\']).collect();
    // The sleep that ends together with the thinking has ended: a value wins over a cancel.
    assert_eq!(frames.len(), 31, "{lines:?}");
    assert_eq!(frames[..5], ["|", "/", "-", "\\", "|"]);
    assert!(lines[1].starts_with("\r| thinking!\r/ thinking!\r- "), "{lines:?}");
    assert_eq!(shown(&lines[1]), "Answer: 42");
}

#[test]
fn spinner_thread_wipes_its_line_and_answers_too() {
    let lines = output_with("spinner_thread", &["--millis", "1"]);
    assert!(lines[0].starts_with("spinner object: Thread"), "{lines:?}");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].starts_with("\r| thinking!"), "{lines:?}");
    assert!(lines[1].ends_with("\r           \rAnswer: 42"), "{lines:?}");
    assert_eq!(shown(&lines[1]), "Answer: 42");
}

#[test]
fn idioms_take_as_long_as_they_say() {
    let expected = [
        "sequential: 8 after 8s",
        "parallel: 9 after 4s",
        "chained: 6 after 1.5s",
        "housekeeping at 0ns",
        "housekeeping at 1s",
        "housekeeping at 2s",
        "housekeeping at 3s",
        "timer: 0 after 3.5s",
    ];
    assert_eq!(output_with("idioms", &["--virtual"]), expected);
    assert_eq!(output_with("idioms", &["--virtual", "chained"]), expected[2..3]);
    let Ended { status, stderr, .. } = Example::start("idioms", &["backwards"]).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr[0].contains("there is no idiom of the name backwards"), "{stderr:?}");
}

#[test]
fn unconsumed_error_is_raised_where_it_is_awaited_or_reported_once() {
    let lines = output("unconsumed_error");
    assert_eq!(lines[0], "raised where it is awaited: Exception time");
    let report = "reported: error in task 'Task-2' that nobody awaits: Exception time (created at ";
    assert!(lines[1].starts_with(report), "{lines:?}");
    assert!(lines[1].contains("unconsumed_error.rs:"), "{lines:?}");
    assert_eq!(lines[2..], ["awaited, so not reported: Ok(Err(\"Exception time\"))"]);
}

#[test]
fn python_idioms_decorate_iterate_enter_and_leave() {
    let expected = [
        "calling double",
        "calling double",
        "calling double",
        "decorated: 42 [8, 8]",
        "iterated: [3, 2, 1]",
        "generator expression: 30",
        "infinite: [0, 1, 1, 2, 3, 5, 8, 13]",
        "delegated: [2, 1, 3, 4]",
        "entering the first",
        "leaving the first",
        "async with: Ok(\"the body's value\")",
        "entering the second",
        "leaving the second",
        "async with, cancelled: Err(Cancelled)",
        "async for: one",
        "async for: two",
    ];
    assert_eq!(output("python_idioms"), expected);
}

#[test]
fn generators_are_sent_values_and_delegate() {
    let expected = [
        "atm: Some(\"$100\") Some(\"$100\")",
        "in a crisis: None",
        "a new one in a crisis: None",
        "account: 70 left",
        "account: 20 left",
        "account: refused, 20 stay",
        "account: closed",
        "sent 40: 1 so far",
        "sent 42: 2 so far",
        "sent 0: 0 so far",
        "sent 38: 1 so far",
        "sent 43: 2 so far",
        "sent 42: 3 so far",
        "returned: girls 41.0, boys 41.0",
    ];
    assert_eq!(output("generators"), expected);
}
