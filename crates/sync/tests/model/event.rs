//! `Event`: a counter of sets, and for each waiter the count it has seen.

use proptest::prelude::*;
use tulipa_sync::Event;

use crate::common::Task;
use crate::{config, length, pick};

#[derive(Clone, Debug)]
enum Step {
    Wait,
    Poll(u8),
    Cancel(u8),
    Set,
    Clear,
}

struct Waiter<'a> {
    task: Task<'a, ()>,
    seen: u32,
    registered: bool,
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn event_follows_the_model(steps in prop::collection::vec(prop_oneof![
        3 => Just(Step::Wait),
        4 => any::<u8>().prop_map(Step::Poll),
        1 => any::<u8>().prop_map(Step::Cancel),
        1 => Just(Step::Set),
        2 => Just(Step::Clear),
    ], 0..length(80))) {
        let event = Event::new();
        let (mut is_set, mut sets) = (false, 0);
        let mut waiters: Vec<Waiter<'_>> = Vec::new();
        for step in steps {
            match step {
                Step::Wait => {
                    let task = Task::new(event.wait());
                    waiters.push(Waiter { task, seen: sets, registered: false });
                }
                Step::Poll(choice) => {
                    let Some(index) = pick(choice, waiters.len()) else { continue };
                    let waiter = &mut waiters[index];
                    // Who registered is held to the set it was released by, also after a clear.
                    let expected = waiter.seen != sets || (is_set && !waiter.registered);
                    prop_assert_eq!(waiter.task.poll().is_ready(), expected);
                    waiter.registered = true;
                    if expected {
                        waiters.remove(index);
                    }
                }
                Step::Cancel(choice) => {
                    let Some(index) = pick(choice, waiters.len()) else { continue };
                    waiters.remove(index);
                }
                Step::Set => {
                    event.set();
                    sets += u32::from(!is_set);
                    is_set = true;
                }
                Step::Clear => {
                    event.clear();
                    is_set = false;
                }
            }
            prop_assert_eq!(event.is_set(), is_set);
            for waiter in &waiters {
                prop_assert_eq!(waiter.task.is_woken(), waiter.registered && waiter.seen != sets);
            }
        }
    }
}
