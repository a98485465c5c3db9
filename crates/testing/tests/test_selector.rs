//! `TestSelector`: descriptors and pretended sources in one loop.

#![cfg(unix)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tulipa_loop::{EventLoop, sleep};
use tulipa_selector::{
    DefaultSelector, Events, Interest, Selector, Source, Timeout, VirtualSelector,
};
use tulipa_testing::TestSelector;

fn select(selector: &TestSelector, timeout: Timeout) -> Vec<u64> {
    let mut events = Events::new();
    selector.select(&mut events, timeout).unwrap();
    events.iter().map(|event| event.data()).collect()
}

#[test]
fn a_mock_is_ready_once_when_somebody_waits_for_it() {
    let selector = TestSelector::wrap(VirtualSelector::new());
    let mocks = selector.mocks();
    let (one, other) = (mocks.new_source(), mocks.new_source());
    let first = selector.register(one.into(), Interest::READABLE, 1).unwrap();
    let _second = selector.register(other.into(), Interest::WRITABLE, 2).unwrap();
    mocks.set_write_ready(one);
    mocks.set_write_ready(other);
    assert_eq!(select(&selector, Timeout::Never), [2]);
    assert_eq!(select(&selector, Timeout::Immediate), []);
    first.set_interest(Interest::WRITABLE).unwrap();
    assert_eq!(select(&selector, Timeout::Never), [1]);
    mocks.set_read_ready(one);
    drop(first);
    assert_eq!(select(&selector, Timeout::Immediate), []);
}

#[test]
fn descriptors_are_passed_on_to_the_real_selector() {
    let selector = TestSelector::wrap(DefaultSelector::new().unwrap());
    let mocks = selector.mocks();
    let mock = mocks.new_source();
    let (near, mut far) = UnixStream::pair().unwrap();
    let real = selector.register(Source::new(near), Interest::READABLE, 1).unwrap();
    let _mock = selector.register(mock.into(), Interest::READABLE, 2).unwrap();
    assert_eq!(select(&selector, Timeout::Immediate), []);
    far.write_all(b"x").unwrap();
    assert_eq!(select(&selector, Timeout::Never), [1]);
    mocks.set_read_ready(mock);
    assert_eq!(select(&selector, Timeout::Never), [1, 2]);
    real.set_data(3).unwrap();
    assert_eq!((select(&selector, Timeout::Never), selector.keys().len()), (vec![3], 2));
    real.set_interest(Interest::NONE).unwrap();
    assert_eq!(select(&selector, Timeout::Immediate), []);
    assert!(real.deregister().unwrap().raw().is_some());
    assert_eq!(selector.keys().len(), 1);
}

#[test]
fn a_loop_runs_on_it() {
    let selector = TestSelector::wrap(DefaultSelector::new().unwrap());
    let event_loop = EventLoop::builder().selector(selector).build().unwrap();
    let remote = event_loop.remote();
    let slept = event_loop.run_until_complete(async move {
        let thread = std::thread::spawn(move || remote.call_soon(|_| {}).unwrap());
        sleep(Duration::from_millis(1)).await;
        thread.join().is_ok()
    });
    assert!(slept.unwrap());
}
