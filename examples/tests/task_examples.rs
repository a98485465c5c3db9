//! The examples over tasks, each run as a program of its own.

#![forbid(unsafe_code)]
#![cfg(unix)]

mod support;

use support::{Ended, Example, output};

#[test]
fn hello_coroutine_greets_around_a_pause() {
    assert_eq!(output("hello_coroutine"), ["Hello", "World!"]);
}

#[test]
fn print_hello_greets_every_three_seconds_of_its_time() {
    let arguments = ["--times", "3", "--virtual"];
    let Ended { status, stdout, stderr } = Example::start("print_hello", &arguments).end();
    assert!(status.success(), "{status}, {stderr:?}");
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
