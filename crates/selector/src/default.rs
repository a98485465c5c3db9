//! The best that works here.

use std::io;

#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::EpollSelector;
use crate::{PollingSelector, Selector};

/// The best selector of this platform: [`EpollSelector`](crate::EpollSelector) where it works, else
/// [`PollingSelector`]. Stands for Python's `DefaultSelector`.
#[derive(Debug)]
pub struct DefaultSelector {
    chosen: Chosen,
}

#[derive(Debug)]
enum Chosen {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Epoll(EpollSelector),
    Polling(PollingSelector),
}

impl DefaultSelector {
    /// An empty selector.
    ///
    /// # Errors
    /// Where neither of the two works; the error is the second one's.
    pub fn new() -> io::Result<DefaultSelector> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Ok(epoll) = EpollSelector::new() {
            return Ok(DefaultSelector { chosen: Chosen::Epoll(epoll) });
        }
        Ok(DefaultSelector { chosen: Chosen::Polling(PollingSelector::new()?) })
    }

    fn chosen(&self) -> &dyn Selector {
        match &self.chosen {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Chosen::Epoll(selector) => selector,
            Chosen::Polling(selector) => selector,
        }
    }
}

crate::selector::forward_selector!(impl[] for DefaultSelector, self => self.chosen());
