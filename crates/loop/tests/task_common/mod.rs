//! What the tests of tasks share.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::cell::RefCell;
use std::rc::Rc;

use tulipa_loop::{EventLoop, LoopHandle};
use tulipa_testing::VirtualLoop;

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, entry: impl Into<String>) {
        self.0.borrow_mut().push(entry.into());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        self.0.take()
    }

    /// Adds the entry when it is dropped.
    pub(crate) fn on_drop(&self, entry: &'static str) -> OnDrop<impl FnMut() + use<>> {
        let log = self.clone();
        OnDrop(move || log.add(entry))
    }
}

pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A loop in virtual time and what its exception handler heard.
pub(crate) fn reporting_loop() -> (VirtualLoop, Log) {
    let reports = Log::default();
    let log = reports.clone();
    let builder = EventLoop::builder()
        .debug(false)
        .exception_handler(move |_: &LoopHandle, context| log.add(context.to_string()));
    (VirtualLoop::from_builder(builder), reports)
}

/// A future that is never ready and does something when it is dropped.
pub(crate) async fn never(log: &Log, entry: &'static str) {
    let _dropped = log.on_drop(entry);
    std::future::pending().await
}
