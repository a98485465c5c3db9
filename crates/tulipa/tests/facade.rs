//! The layers fit together under one name.

use std::cell::Cell;
use std::rc::Rc;

use tulipa::sync::Queue;
use tulipa::{spawn, task_group};

#[test]
fn tasks_talk_through_queues() {
    let sum = tulipa::run(async {
        let queue = Rc::new(Queue::bounded(2));
        let producer = queue.clone();
        let produced = spawn(async move {
            for number in 1..=10 {
                producer.put(number).await.expect("nobody shuts it down before");
            }
            producer.shutdown(false);
        });
        let mut sum = 0;
        while let Ok(number) = queue.get().await {
            sum += number;
        }
        produced.await.expect("it has ended well");
        sum
    });
    assert_eq!(sum.expect("it runs"), 55);
}

#[test]
fn locks_hold_between_the_tasks_of_a_group() {
    let count = Rc::new(Cell::new(0));
    let inside = count.clone();
    let result = tulipa::run(async move {
        let lock = Rc::new(tulipa::sync::Lock::new(()));
        task_group(async |group| {
            for _ in 0..5 {
                let (lock, count) = (lock.clone(), inside.clone());
                let spawned = group.spawn(async move {
                    let _guard = lock.lock().await;
                    let before = count.get();
                    tulipa::yield_now().await;
                    count.set(before + 1);
                    Ok::<_, std::convert::Infallible>(())
                });
                drop(spawned.expect("the group is open"));
            }
            Ok(())
        })
        .await
    });
    assert!(matches!(result, Ok(Ok(()))), "{result:?}");
    assert_eq!(count.get(), 5);
}

#[cfg(feature = "testing")]
#[test]
fn a_day_passes_at_once_in_virtual_time() {
    use std::time::Duration;
    let virtual_loop = tulipa::testing::VirtualLoop::new();
    let day = Duration::from_secs(24 * 3600);
    virtual_loop.run_until_complete(async { tulipa::sleep(day).await }).unwrap();
    assert_eq!(virtual_loop.elapsed(), day);
}
