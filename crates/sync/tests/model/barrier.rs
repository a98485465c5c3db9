//! `Barrier`: a list of those who have arrived, and what each of the others was told.

use proptest::prelude::*;
use tulipa_sync::{Barrier, BrokenBarrier};

use crate::common::Task;
use crate::{config, length, pick};

#[derive(Clone, Debug)]
enum Step {
    Arrive,
    Poll(u8),
    Cancel(u8),
    Reset,
    Abort,
}

type Outcome = Result<usize, BrokenBarrier>;

struct Party<'a> {
    task: Task<'a, Outcome>,
    told: Option<Outcome>,
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn barrier_follows_the_model(parties in 1usize..5, steps in prop::collection::vec(prop_oneof![
        6 => Just(Step::Arrive),
        4 => any::<u8>().prop_map(Step::Poll),
        2 => any::<u8>().prop_map(Step::Cancel),
        1 => Just(Step::Reset),
        1 => Just(Step::Abort),
    ], 0..length(80))) {
        let barrier = Barrier::new(parties);
        let mut broken = false;
        // In the order of arrival; those that were told something have gone through.
        let mut present: Vec<Party<'_>> = Vec::new();
        for step in steps {
            match step {
                Step::Arrive => {
                    let waiting = present.iter().filter(|party| party.told.is_none()).count();
                    let mut task = Task::new(barrier.wait());
                    let polled = task.poll();
                    if broken {
                        prop_assert_eq!(polled, std::task::Poll::Ready(Err(BrokenBarrier)));
                    } else if waiting + 1 == parties {
                        prop_assert_eq!(polled, std::task::Poll::Ready(Ok(parties - 1)));
                        let fresh = present.iter_mut().filter(|party| party.told.is_none());
                        fresh.enumerate().for_each(|(index, party)| party.told = Some(Ok(index)));
                    } else {
                        prop_assert!(polled.is_pending());
                        present.push(Party { task, told: None });
                    }
                }
                Step::Poll(choice) => {
                    let Some(index) = pick(choice, present.len()) else { continue };
                    match present[index].told {
                        Some(told) => {
                            prop_assert_eq!(present[index].task.expect(), told);
                            present.remove(index);
                        }
                        None => prop_assert!(present[index].task.poll().is_pending()),
                    }
                }
                Step::Cancel(choice) => {
                    let Some(index) = pick(choice, present.len()) else { continue };
                    present.remove(index);
                }
                Step::Reset | Step::Abort => {
                    broken = matches!(step, Step::Abort);
                    if broken { barrier.abort() } else { barrier.reset() }
                    for party in present.iter_mut().filter(|party| party.told.is_none()) {
                        party.told = Some(Err(BrokenBarrier));
                    }
                }
            }
            let waiting = present.iter().filter(|party| party.told.is_none()).count();
            prop_assert_eq!((barrier.n_waiting(), barrier.is_broken()), (waiting, broken));
            for party in &present {
                prop_assert_eq!(party.task.is_woken(), party.told.is_some());
            }
        }
    }
}
