//! What `#[tulipa::main]` makes of what its function gives: the exit status. The attribute itself is tested
//! where it is defined, and by the examples.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ExitCode, Termination};
use std::rc::Rc;

use tulipa_loop::__private::Program;
use tulipa_loop::{LoopHandle, cancellable, current_task, spawn, yield_now};

#[test]
fn what_main_gives_is_the_exit_status() {
    assert_eq!(Program::new().run(async {}).report(), ExitCode::SUCCESS);
    assert_eq!(Program::new().run(async { ExitCode::from(7) }).report(), ExitCode::from(7));
    assert_eq!(Program::new().run(async { Ok::<(), String>(()) }).report(), ExitCode::SUCCESS);
    assert_eq!(Program::new().run(async { Err::<(), _>("no") }).report(), ExitCode::FAILURE);
}

#[test]
fn a_main_task_that_was_cancelled_is_a_failure() {
    let exit = Program::new().run(async {
        current_task().unwrap().cancel();
        yield_now().await;
    });
    assert_eq!(exit.report(), ExitCode::FAILURE);
}

#[test]
fn debug_mode_is_as_it_was_said() {
    for debug in [true, false] {
        let exit = Program::new().debug(debug).run(async move {
            assert_eq!(LoopHandle::current().debug(), debug);
        });
        assert_eq!(exit.report(), ExitCode::SUCCESS);
    }
}

#[test]
fn a_panic_of_main_comes_out_when_all_else_has_ended() {
    let ended = Rc::new(Cell::new(false));
    let flag = ended.clone();
    let run = catch_unwind(AssertUnwindSafe(|| {
        let _exit = Program::new().run(async move {
            drop(spawn(async move {
                let _cancelled = cancellable(std::future::pending::<()>()).await;
                flag.set(true);
            }));
            yield_now().await;
            assert_eq!(1, 2, "the panic of main");
        });
    }));
    let payload = run.unwrap_err();
    assert!(payload.downcast_ref::<String>().unwrap().contains("the panic of main"));
    assert!(ended.get());
}
