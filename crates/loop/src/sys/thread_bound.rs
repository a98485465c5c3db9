//! A value that any thread may hold and only one may touch.
//!
//! The invariant: the value is created, looked at and dropped on its home thread only. Elsewhere only
//! the pointer to it and the number of its home are read, so that the value need be neither `Send` nor
//! `Sync`. Where the last owner is elsewhere the value is leaked.
//!
//! The value has an allocation of its own, so it does not move when its owner does. A value that was
//! pinned is therefore dropped in its place, or stays there for ever.

use std::cell::Cell;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
pub(crate) struct ThreadBound<T> {
    home: u64,
    /// From `Box::into_raw`; dropped by whoever drops this at home. `None` once it was taken.
    value: Option<NonNull<T>>,
    /// It owns a `T`, and can be moved out of a pin as freely as that.
    owns: PhantomData<T>,
}

/// The value of a [`ThreadBound`] on its way home. It may have been pinned, so it can only be dropped.
pub(crate) struct Parcel<T>(#[expect(dead_code, reason = "its drop is its use")] ThreadBound<T>);

// SAFETY: on a thread other than its home, nothing here reads, moves or drops the value.
unsafe impl<T> Send for ThreadBound<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for ThreadBound<T> {}

/// The number of this thread among all that ever asked. Unlike the standard library's it can be
/// asked for at any time, also while a thread ends; and it is never given to a second thread.
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

impl<T> ThreadBound<T> {
    /// Binds a value to this thread.
    pub(crate) fn new(value: T) -> ThreadBound<T> {
        let value = Some(NonNull::from(Box::leak(Box::new(value))));
        ThreadBound { home: this_thread(), value, owns: PhantomData }
    }

    pub(crate) fn is_home(&self) -> bool {
        self.home == this_thread()
    }

    /// The value; `None` elsewhere.
    pub(crate) fn get(&self) -> Option<&T> {
        let value = self.value.filter(|_| self.is_home())?;
        // SAFETY: at home. The pointer is from a box that lives as long as this does, and the borrow
        // of `self` keeps everybody else on this thread from writing to the value.
        Some(unsafe { value.as_ref() })
    }

    /// The value; `None` elsewhere.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        let mut value = self.value.filter(|_| self.is_home())?;
        // SAFETY: as in `get`; the borrow of `self` is an exclusive one. A value that was pinned by
        // `pinned` and must not be moved keeps this from being borrowed in this way.
        Some(unsafe { value.as_mut() })
    }

    /// The value, pinned with this; `None` elsewhere.
    pub(crate) fn pinned(self: Pin<&mut Self>) -> Option<Pin<&mut T>> {
        // SAFETY: this is not moved out of the pin, only its pointer is read.
        let value = unsafe { self.get_unchecked_mut() }.get_mut()?;
        // SAFETY: this is `Unpin` only if the value is, so from now on `take` and `get_mut` cannot be
        // called on one that is not. The value stays where it is until it is dropped there.
        Some(unsafe { Pin::new_unchecked(value) })
    }

    /// Takes the value out; `None` elsewhere.
    pub(crate) fn take(&mut self) -> Option<T> {
        if !self.is_home() {
            return None;
        }
        // SAFETY: at home; the pointer is from a box, and is not there for anybody else any more. The
        // value may be moved: see `pinned`.
        self.value.take().map(|value| *unsafe { Box::from_raw(value.as_ptr()) })
    }

    /// Takes the value along without touching it, to be dropped at home.
    pub(crate) fn send_home(self: Pin<&mut Self>) -> Parcel<T> {
        // SAFETY: the pointer is moved, not the value.
        let this = unsafe { self.get_unchecked_mut() };
        Parcel(ThreadBound { home: this.home, value: this.value.take(), owns: PhantomData })
    }
}

impl<T> Drop for ThreadBound<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.filter(|_| self.is_home()) {
            // SAFETY: at home; the pointer is from a box, and nobody uses it after this.
            drop(unsafe { Box::from_raw(value.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::marker::PhantomPinned;
    use std::pin::pin;
    use std::rc::Rc;
    use std::thread;

    use super::*;

    #[test]
    fn a_bound_value_is_reached_at_home_only() {
        let mut bound = ThreadBound::new(Rc::new(Cell::new(1)));
        bound.get().unwrap().set(2);
        *bound.get_mut().unwrap() = Rc::new(Cell::new(3));
        let mut bound = thread::spawn(move || {
            assert!(!bound.is_home() && bound.get().is_none() && bound.get_mut().is_none());
            assert!(bound.take().is_none() && Pin::new(&mut bound).pinned().is_none());
            bound
        })
        .join()
        .unwrap();
        assert_eq!(bound.take().unwrap().get(), 3);
        assert!(bound.get().is_none() && bound.take().is_none());
    }

    #[test]
    fn a_bound_value_is_looked_at_from_home_while_others_hold_it() {
        let bound = ThreadBound::new(RefCell::new(String::from("x")));
        thread::scope(|scope| {
            scope.spawn(|| assert!(bound.get().is_none()));
            bound.get().unwrap().borrow_mut().push('y');
        });
        assert_eq!(*bound.get().unwrap().borrow(), "xy");
    }

    #[test]
    fn a_pinned_value_stays_in_its_place_until_it_is_dropped_at_home() {
        struct Pinned(Rc<Cell<usize>>, PhantomPinned);
        impl Drop for Pinned {
            fn drop(&mut self) {
                assert_eq!(self.0.get(), std::ptr::from_ref(self) as usize);
                self.0.set(0);
            }
        }
        let place = Rc::new(Cell::new(0));
        let parcel = {
            let mut bound = pin!(ThreadBound::new(Pinned(place.clone(), PhantomPinned)));
            let value = bound.as_mut().pinned().unwrap();
            value.0.set(std::ptr::from_ref(&*value) as usize);
            bound.send_home()
        };
        assert_ne!(place.get(), 0);
        let parcel = thread::spawn(move || parcel).join().unwrap();
        drop(parcel);
        assert_eq!(place.get(), 0, "it was dropped where it was");
    }

    #[test]
    fn threads_are_never_taken_for_each_other() {
        let mut seen: Vec<_> =
            (0..20).map(|_| thread::spawn(this_thread).join().unwrap()).collect();
        seen.push(this_thread());
        assert_eq!(this_thread(), seen[20]);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 21);
    }
}
