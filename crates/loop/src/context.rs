//! Context variables: values that follow the flow of the program, asyncio's `contextvars`.
//!
//! The problem: a server wants to know, deep inside, whose request it is working on. A thread local
//! will not do, because on one thread many requests take turns.
//!
//! The trick: a [`Context`] is a value, an `Arc` of a small table that is copied when it is written to.
//! One of them is the current one of each thread. Whatever is scheduled takes a copy along, which costs a
//! reference count, and becomes current again while that runs. What is set then goes into that copy.
//!
//! Most programs have no context variables, and pay one look at a flag: an empty context is no
//! allocation at all, and while everything is empty nothing is copied, stored or put back.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task;

use pin_project_lite::pin_project;

use crate::LoopHandle;

/// A variable of which each callback and each task has its own value. Stands for
/// `contextvars.ContextVar`.
///
/// A task inherits the values of whoever spawns it, and what it sets is seen by itself and by what it
/// spawns later, not by its parent. Callbacks, done callbacks, [`to_thread`](crate::to_thread) and
/// calls from other threads inherit in the same way, at the time at which they are asked for.
///
/// ```
/// use tulipa_loop::{ContextVar, EventLoop, spawn};
///
/// static REQUEST: ContextVar<u32> = ContextVar::new("request");
///
/// let event_loop = EventLoop::new()?;
/// event_loop.run_until_complete(async {
///     REQUEST.set(7);
///     let child = spawn(async {
///         assert_eq!(REQUEST.get(), Some(7));
///         REQUEST.set(8);
///     });
///     child.await.unwrap();
///     assert_eq!(REQUEST.get(), Some(7));
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ContextVar<T> {
    name: &'static str,
    /// Its number among all variables, 0 before the first use.
    number: AtomicU64,
    value: PhantomData<fn(T) -> T>,
}

/// The values of all context variables at one place of the program. Cheap to clone; a clone is a copy
/// and changes by itself. Stands for `contextvars.Context`.
#[derive(Clone, Default)]
pub struct Context {
    /// In the order of the variables' numbers. `None` when empty, never an empty table.
    values: Option<Arc<Vec<Entry>>>,
}

/// What [`ContextVar::set`] gives, to take the change back. Stands for `contextvars.Token`.
pub struct ContextToken {
    variable: u64,
    name: &'static str,
    old: Option<Value>,
}

pin_project! {
    /// A future inside of which a context variable has a value: see [`ContextVar::scope`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct ContextScope<F> {
        variable: u64,
        name: &'static str,
        // The value while the future is not being polled.
        value: Option<Value>,
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for ContextScope<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // What its destructors read is what it read itself.
            let _inside = Inside::enter(*this.variable, this.name, this.value);
            this.future.set(None);
        }
    }
}

type Value = Arc<dyn Any + Send + Sync>;

#[derive(Clone)]
struct Entry {
    variable: u64,
    name: &'static str,
    value: Value,
}

thread_local! {
    /// The current context, except that it is `None` while it is being looked at.
    static CURRENT: Cell<Context> = const { Cell::new(Context { values: None }) };
    /// Whether the current context is not empty. It has no destructor, so that reading it is one
    /// instruction, on a thread that ends too.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// A copy of the current context. Stands for `contextvars.copy_context`.
pub fn copy_context() -> Context {
    if !is_active() {
        return Context::new();
    }
    look(|current| current.clone())
}

impl<T: Send + Sync + 'static> ContextVar<T> {
    /// A variable without a value. Its name is for messages; the variable itself is what identifies
    /// it, so it is best a `static`.
    pub const fn new(name: &'static str) -> ContextVar<T> {
        ContextVar { name, number: AtomicU64::new(0), value: PhantomData }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A clone of its value in the current context; `None` if it has none there.
    pub fn get(&self) -> Option<T>
    where
        T: Clone,
    {
        self.with(|value| value.cloned())
    }

    /// Looks at its value in the current context.
    pub fn with<R>(&self, look: impl FnOnce(Option<&T>) -> R) -> R {
        // An own share, so that `look` may set the variable.
        let value = current_value(self.number.load(Ordering::Relaxed));
        look(value.as_deref().and_then(|value| value.downcast_ref()))
    }

    /// Gives it a value in the current context, until that is set again, or taken back by the token.
    ///
    /// [`scope`](Self::scope) and [`sync_scope`](Self::sync_scope) take the change back by themselves.
    pub fn set(&self, value: T) -> ContextToken {
        let variable = self.number();
        let old = exchange(variable, self.name, Some(Arc::new(value)));
        ContextToken { variable, name: self.name, old }
    }

    /// Runs `f` with a value for this variable, and takes it back afterwards, whatever `f` has set.
    pub fn sync_scope<R>(&self, value: T, f: impl FnOnce() -> R) -> R {
        let mut value: Option<Value> = Some(Arc::new(value));
        let _inside = Inside::enter(self.number(), self.name, &mut value);
        f()
    }

    /// A future inside of which this variable has a value, in every poll of it and when it is dropped.
    /// What it sets itself stays inside.
    ///
    /// # Cancel safety
    /// That of the future.
    pub fn scope<F: IntoFuture>(&self, value: T, future: F) -> ContextScope<F::IntoFuture> {
        ContextScope {
            variable: self.number(),
            name: self.name,
            value: Some(Arc::new(value)),
            future: Some(future.into_future()),
        }
    }

    fn number(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let known = self.number.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        let new = NEXT.fetch_add(1, Ordering::Relaxed);
        match self.number.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => new,
            Err(known) => known,
        }
    }
}

impl ContextToken {
    /// Gives the variable the value that it had before the [`set`](ContextVar::set) that made this,
    /// or none if it had none; in the current context, wherever it was set. Stands for
    /// `ContextVar.reset`.
    pub fn reset(self) {
        let new = exchange(self.variable, self.name, self.old);
        drop(new);
    }
}

impl Context {
    /// A context in which no variable has a value.
    pub const fn new() -> Context {
        Context { values: None }
    }

    /// Runs `f` with this as the current context; what `f` sets is in it afterwards. What is scheduled
    /// in `f` inherits it, so this is also how a callback gets another context than the current one.
    /// Stands for `Context.run`.
    ///
    /// ```
    /// # use tulipa_loop::{Context, ContextVar, EventLoop};
    /// # static WHO: ContextVar<&str> = ContextVar::new("who");
    /// # let event_loop = EventLoop::new()?;
    /// let mut context = Context::new();
    /// context.run(|| WHO.set("somebody"));
    /// context.run(|| event_loop.call_soon(|_| assert_eq!(WHO.get(), Some("somebody"))));
    /// assert_eq!(WHO.get(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run<R>(&mut self, f: impl FnOnce() -> R) -> R {
        struct Back<'a> {
            context: &'a mut Context,
            outer: Context,
        }
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                *self.context = swap(mem::take(&mut self.outer));
            }
        }
        let outer = swap(mem::take(self));
        let _back = Back { context: self, outer };
        f()
    }

    /// The value of a variable here; `None` if it has none.
    pub fn get<T: Clone + Send + Sync + 'static>(&self, variable: &ContextVar<T>) -> Option<T> {
        let value = self.value(variable.number.load(Ordering::Relaxed))?;
        value.downcast_ref::<T>().cloned()
    }

    /// How many variables have a value here.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether no variable has a value here.
    pub fn is_empty(&self) -> bool {
        self.values.is_none()
    }

    /// Whether both are copies of one context that neither has changed.
    pub(crate) fn is_same(&self, other: &Context) -> bool {
        match (&self.values, &other.values) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }

    fn entries(&self) -> &[Entry] {
        self.values.as_ref().map_or(&[], |values| values.as_slice())
    }

    fn value(&self, variable: u64) -> Option<&Value> {
        let entries = self.entries();
        let place = entries.binary_search_by_key(&variable, |entry| entry.variable).ok()?;
        Some(&entries[place].value)
    }

    /// Changes one value; gives back the one from before. Drops nothing of the program's.
    fn exchange(
        &mut self,
        variable: u64,
        name: &'static str,
        value: Option<Value>,
    ) -> Option<Value> {
        let found = self.entries().binary_search_by_key(&variable, |entry| entry.variable);
        if found.is_err() && value.is_none() {
            return None;
        }
        let entries = Arc::make_mut(self.values.get_or_insert_default());
        let old = match (found, value) {
            (Ok(place), Some(value)) => Some(mem::replace(&mut entries[place].value, value)),
            (Ok(place), None) => Some(entries.remove(place).value),
            (Err(place), value) => {
                let new = value.map(|value| Entry { variable, name, value });
                entries.splice(place..place, new);
                None
            }
        };
        if entries.is_empty() {
            self.values = None;
        }
        old
    }
}

/// Whether the current context has any value.
#[inline]
pub(crate) fn is_active() -> bool {
    ACTIVE.get()
}

/// Makes another context the current one, and gives back the one from before.
#[inline]
pub(crate) fn swap(new: Context) -> Context {
    if new.is_empty() && !is_active() {
        return new;
    }
    exchange_current(new)
}

#[cold]
fn exchange_current(new: Context) -> Context {
    let active = !new.is_empty();
    // On a thread that is ending there are no contexts any more; what runs there finds none.
    let old = CURRENT.try_with(|current| current.replace(new)).unwrap_or_default();
    ACTIVE.set(active);
    old
}

/// Has a callback run in a copy of the current context.
#[inline]
pub(crate) fn bind(callback: Box<dyn FnOnce(&LoopHandle)>) -> Box<dyn FnOnce(&LoopHandle)> {
    if is_active() { bind_to(copy_context(), callback) } else { callback }
}

#[cold]
fn bind_to(
    mut context: Context,
    callback: Box<dyn FnOnce(&LoopHandle)>,
) -> Box<dyn FnOnce(&LoopHandle)> {
    Box::new(move |handle| context.run(|| callback(handle)))
}

/// Looks at or changes the current context. Nothing of the program's is called meanwhile.
fn look<R: Default>(f: impl FnOnce(&mut Context) -> R) -> R {
    let look = |current: &Cell<Context>| {
        let mut context = current.take();
        let result = f(&mut context);
        ACTIVE.set(!context.is_empty());
        current.set(context);
        result
    };
    CURRENT.try_with(look).unwrap_or_default()
}

fn current_value(variable: u64) -> Option<Value> {
    if !is_active() {
        return None;
    }
    look(|context| context.value(variable).cloned())
}

fn exchange(variable: u64, name: &'static str, value: Option<Value>) -> Option<Value> {
    look(|context| context.exchange(variable, name, value))
}

/// While a scope runs: its drop takes the scope's value out again, into its place.
struct Inside<'a> {
    variable: u64,
    name: &'static str,
    outer: Option<Value>,
    place: &'a mut Option<Value>,
}

impl Inside<'_> {
    fn enter<'a>(variable: u64, name: &'static str, place: &'a mut Option<Value>) -> Inside<'a> {
        let outer = exchange(variable, name, place.take());
        Inside { variable, name, outer, place }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *self.place = exchange(self.variable, self.name, self.outer.take());
    }
}

impl<F: Future> Future for ContextScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<F::Output> {
        let mut this = self.project();
        let _inside = Inside::enter(*this.variable, this.name, this.value);
        let future = this.future.as_mut().as_pin_mut();
        let polled = future.expect("a scope was polled after it had ended").poll(context);
        if polled.is_ready() {
            this.future.set(None);
        }
        polled
    }
}

impl<T> fmt::Debug for ContextVar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ContextVar name='{}'>", self.name)
    }
}

impl fmt::Debug for Context {
    /// The names of the variables that have a value here; the values are the program's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Context")?;
        f.debug_set().entries(self.entries().iter().map(|entry| entry.name)).finish()
    }
}

impl fmt::Debug for ContextToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = if self.old.is_some() { "a value" } else { "no value" };
        write!(f, "<ContextToken of '{}', which had {before}>", self.name)
    }
}

impl<F> fmt::Debug for ContextScope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ContextScope of '{}'>", self.name)
    }
}
