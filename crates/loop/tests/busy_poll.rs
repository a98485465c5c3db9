//! A loop that looks before it sleeps, counted on a selector whose clock moves when it is read.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_loop::EventLoop;
use tulipa_selector::{
    Events, Interest, Key, Notifier, Registration, Selector, Source, Timeout, Token,
    VirtualSelector,
};

/// By how much the clock moves with each reading.
const STEP: Duration = Duration::from_micros(10);

/// What the loop asked of its selector.
#[derive(Clone, Debug, Default)]
struct Script {
    read: Rc<Cell<u32>>,
    waits: Rc<RefCell<Vec<Timeout>>>,
    /// Which look finds a message of another thread.
    found_at: Rc<Cell<Option<usize>>>,
}

impl Script {
    /// How many looks there were, and how many waits after them.
    fn take(&self) -> (usize, usize) {
        let waits = self.waits.take();
        let looks = waits.iter().filter(|timeout| **timeout == Timeout::Immediate).count();
        (looks, waits.len() - looks)
    }
}

#[derive(Debug)]
struct Scripted {
    inner: VirtualSelector,
    start: Instant,
    script: Script,
}

impl Selector for Scripted {
    fn register(&self, source: Source, interest: Interest, data: u64) -> io::Result<Registration> {
        self.inner.register(source, interest, data)
    }

    fn select(&self, events: &mut Events, timeout: Timeout) -> io::Result<()> {
        let count = self.script.waits.borrow().len() + 1;
        self.script.waits.borrow_mut().push(timeout);
        if self.script.found_at.get() == Some(count) || timeout != Timeout::Immediate {
            self.inner.notifier().notify()?;
        }
        self.inner.select(events, Timeout::Immediate)
    }

    fn now(&self) -> Instant {
        self.script.read.set(self.script.read.get() + 1);
        self.start + STEP * self.script.read.get()
    }

    fn notifier(&self) -> Notifier {
        self.inner.notifier()
    }

    fn get_key(&self, token: Token) -> Option<Key> {
        self.inner.get_key(token)
    }

    fn keys(&self) -> Vec<Key> {
        self.inner.keys()
    }

    fn close(&self) {
        self.inner.close();
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn name(&self) -> &'static str {
        "scripted"
    }
}

fn scripted(busy_poll: Duration) -> (EventLoop, Script) {
    let (inner, script) = (VirtualSelector::new(), Script::default());
    let selector = Scripted { start: inner.now(), inner, script: script.clone() };
    let builder = EventLoop::builder().debug(false).selector(selector);
    (builder.busy_poll(busy_poll).build().unwrap(), script)
}

#[test]
fn a_loop_that_was_not_told_to_spin_waits_at_once() {
    let (event_loop, script) = scripted(Duration::ZERO);
    event_loop.run_once(Timeout::Never).unwrap();
    assert_eq!(script.take(), (0, 1));
}

#[test]
fn busy_polling_looks_for_its_time_and_then_waits() {
    let (event_loop, script) = scripted(STEP * 8);
    event_loop.run_once(Timeout::Never).unwrap();
    // Each look reads the clock once, and one reading is before the first.
    assert_eq!(script.take(), (8, 1));
    assert_eq!(script.read.get(), 10);
}

#[test]
fn what_a_look_finds_ends_busy_polling() {
    let (event_loop, script) = scripted(Duration::from_secs(1));
    script.found_at.set(Some(3));
    event_loop.run_once(Timeout::Never).unwrap();
    assert_eq!(script.take(), (3, 0));
}

#[test]
fn busy_polling_ends_with_the_timeout() {
    let (event_loop, script) = scripted(Duration::from_secs(1));
    event_loop.run_once(STEP * 5).unwrap();
    let (looks, waits) = script.take();
    assert!(looks <= 6 && waits == 0, "{looks} looks, {waits} waits");
    let timer = event_loop.call_later(STEP * 5, |_| ());
    event_loop.run_once(Timeout::Never).unwrap();
    let (looks, waits) = script.take();
    assert!(looks <= 6 && waits == 0, "{looks} looks, {waits} waits");
    assert!(timer.when() <= event_loop.time());
}

#[test]
fn a_loop_with_work_does_not_spin() {
    let (event_loop, script) = scripted(Duration::from_secs(1));
    event_loop.call_soon(|_| ());
    event_loop.run_once(Timeout::Never).unwrap();
    assert_eq!(script.take(), (1, 0));
}
