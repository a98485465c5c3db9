//! `#[tulipa::test]` as programs use it. What it makes of a test is `TestRunner`'s, and tested there; this
//! is about the attribute.

#![cfg(feature = "testing")]

use std::cell::Cell;
use std::time::Duration;

use tulipa::testing::{advance, elapsed};
use tulipa::{LoopHandle, current_task, sleep, spawn};

const HOUR: Duration = Duration::from_secs(3600);

#[tulipa::test]
async fn the_clock_is_real_if_nothing_is_said() {
    assert_ne!(LoopHandle::current().selector().name(), "virtual");
    sleep(Duration::from_millis(1)).await;
}

#[tulipa::test(clock = "real")]
async fn the_clock_may_be_said_to_be_real() {
    assert_ne!(LoopHandle::current().selector().name(), "virtual");
}

#[tulipa::test(clock = "autojump")]
async fn the_clock_may_jump() {
    sleep(HOUR).await;
    assert_eq!(elapsed(), HOUR);
}

#[tulipa::test(clock = "virtual")]
async fn the_clock_may_be_moved_by_hand() {
    let task = spawn(sleep(HOUR));
    advance(HOUR).await;
    assert!(task.is_done());
}

#[tulipa::test(clock = "autojump", strict, timeout = 3_600.5, debug = true)]
async fn arguments_come_together() {
    assert!(LoopHandle::current().debug());
    sleep(HOUR).await;
}

#[tulipa::test(strict = true)]
async fn a_strict_test_that_leaves_nothing_passes() {
    spawn(async {}).await.unwrap();
}

#[tulipa::test(strict)]
#[should_panic(expected = "the test has left something behind")]
async fn a_strict_test_that_leaves_a_task_fails() {
    drop(spawn(std::future::pending::<()>()));
}

#[tulipa::test(strict = false)]
async fn a_test_that_is_not_strict_may_leave_a_task() {
    drop(spawn(std::future::pending::<()>()));
}

#[tulipa::test(clock = "virtual", debug = false)]
#[should_panic(expected = "moves only when the test awaits `advance`")]
async fn a_test_that_cannot_end_fails() {
    assert!(!LoopHandle::current().debug());
    sleep(HOUR).await;
}

#[tulipa::test(clock = "autojump", timeout = 5)]
#[should_panic(expected = "the test cannot end: it is not done after 5s of its clock")]
async fn a_test_that_takes_too_long_fails() {
    sleep(HOUR).await;
}

#[tulipa::test]
#[should_panic(expected = "as it was said")]
async fn a_panic_keeps_its_message() {
    spawn(async {}).await.unwrap();
    panic!("as it was said");
}

#[tulipa::test]
#[should_panic(expected = "assertion `left == right` failed: four is not five")]
async fn an_assertion_keeps_its_message() {
    assert_eq!(2 + 2, 5, "four is not five");
}

#[tulipa::test(clock = "autojump")]
#[should_panic(expected = "nobody awaits this")]
async fn a_report_fails_the_test() {
    drop(spawn(async { panic!("nobody awaits this") }));
    advance(Duration::ZERO).await;
}

#[tulipa::test]
async fn a_test_may_give_a_result() -> Result<(), Box<dyn std::error::Error>> {
    let number: u32 = "42".parse()?;
    assert_eq!(number, 42);
    Ok(())
}

/// Its documentation stays, and so do lints and configurations.
#[tulipa::test]
#[cfg(not(target_os = "none"))]
#[allow(unused_variables, non_snake_case)]
async fn Other_attributes_are_kept() {
    let unused = 1;
}

#[tulipa::test]
#[ignore = "it would fail"]
async fn an_ignored_test_does_not_run() {
    panic!("it ran");
}

#[tulipa::test]
async fn the_task_of_a_test_says_where_it_is() {
    let task = format!("{:?}", current_task().unwrap());
    assert!(task.contains("name='test' fut=attributes::the_task_of_a_test_says_where"), "{task}");
    assert!(task.contains("attributes.rs"), "{task}");
}

thread_local! {
    static RUNS: Cell<u32> = const { Cell::new(0) };
}

#[tulipa::test]
async fn each_test_has_a_loop_of_its_own() {
    assert_eq!(current_task().unwrap().id().get(), 1);
    RUNS.set(RUNS.get() + 1);
}

#[test]
fn a_test_is_a_function_that_can_be_called() {
    let before = RUNS.get();
    each_test_has_a_loop_of_its_own();
    each_test_has_a_loop_of_its_own();
    assert_eq!(RUNS.get(), before + 2);
}

mod renamed {
    use tulipa as asyncio;

    #[tulipa::test(crate = asyncio, clock = "autojump")]
    async fn the_library_may_have_another_name() {
        tulipa::sleep(super::HOUR).await;
    }

    pub(crate) mod deeper {
        pub(crate) use tulipa as library;
    }

    #[tulipa::test(crate = crate::renamed::deeper::library)]
    async fn the_library_may_be_anywhere() {}
}

macro_rules! tests_of {
    ($($(#[$attribute:meta])* $visibility:vis $name:ident gives $output:ty: $body:block)*) => {
        $(
            #[tulipa::test(clock = "autojump", strict)]
            $(#[$attribute])*
            $visibility async fn $name() -> $output $body
        )*
    };
}

tests_of! {
    made_by_a_macro gives (): {
        sleep(HOUR).await;
    }
    #[should_panic(expected = "too")]
    pub(crate) made_by_a_macro_with_attributes gives (): {
        panic!("this too");
    }
    made_by_a_macro_with_a_result gives Result<(), u8>: {
        Ok(())
    }
}

mod fixtures {
    use std::rc::Rc;

    use tulipa::sync::Queue;
    use tulipa::{Scoped, spawn};

    /// A server that doubles what it is sent. Dropping it ends it.
    struct Doubler {
        requests: Rc<Queue<u32>>,
        answers: Rc<Queue<u32>>,
        _server: Scoped<()>,
    }

    async fn set_up() -> Doubler {
        let (requests, answers) = (Rc::new(Queue::bounded(1)), Rc::new(Queue::bounded(1)));
        let (theirs, replies) = (requests.clone(), answers.clone());
        let server = spawn(async move {
            while let Ok(number) = theirs.get().await {
                replies.put(2 * number).await.expect("nobody shuts it down");
            }
        });
        requests.put(1).await.expect("nobody shuts it down");
        answers.get().await.expect("it answers when it is ready");
        Doubler { requests, answers, _server: server.scoped() }
    }

    #[tulipa::test(strict)]
    async fn a_fixture_is_an_async_function_and_its_drop_the_end() {
        let doubler = set_up().await;
        doubler.requests.put(21).await.unwrap();
        assert_eq!(doubler.answers.get().await, Ok(42));
    }
}
