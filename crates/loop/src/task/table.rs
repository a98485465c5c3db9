//! What a loop knows of its tasks: names, states, who waits for them, and their cancel frames.
//!
//! Every method here is a short one under the table's borrow and calls no user code: wakers and
//! closures are moved in and out, never cloned, woken or dropped here. The exception is a task's own
//! waker, which is async-task's code and runs none of the program's.

use std::panic::Location;
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

use tracing::Span;
use tulipa_selector::{Slots, Token};

use super::{Key, NO_TASK, TaskStatus};
use crate::await_graph::{Head, On, RawNode, Shared, WaitId, Waiter, Waits};
use crate::{Context, LoopHandle};

#[derive(Default)]
pub(crate) struct Tasks {
    entries: Slots<Entry>,
    /// How many were ever spawned: the last one's id.
    spawned: u64,
    pending: usize,
    waits: Waits,
}

/// One task. It is here until it has ended and its handle is gone.
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) location: &'static Location<'static>,
    pub(super) future: fn() -> &'static str,
    /// The loop's own share of the task, from its first suspension to its end. Until then the step
    /// that is scheduled or running keeps it.
    waker: Option<Waker>,
    /// Who awaits its handle.
    joiner: Option<Waker>,
    /// What most tasks have not.
    pub(super) extras: Option<Box<Extras>>,
    pub(super) status: TaskStatus,
    /// Whether a cancel request has not been consumed.
    pub(super) requested: bool,
    /// Whether it is to be dropped, whatever its frames.
    doomed: bool,
    /// Whether its handle is gone.
    detached: bool,
    /// What it waits for.
    waits: Head,
}

/// Every task has one, so it is worth a look when it grows.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(std::mem::size_of::<Option<Entry>>() == 72);

#[derive(Default)]
pub(super) struct Extras {
    pub(super) name: Option<Rc<str>>,
    /// What it inherited, and what its steps have set.
    context: Context,
    /// While tasks are being traced.
    pub(super) span: Option<Rc<Span>>,
    pub(super) callbacks: Vec<Done>,
    /// The number of done callbacks ever added.
    pub(super) added: u64,
    /// What takes the result when nobody else will.
    pub(super) finisher: Option<Finisher>,
    frames: Slots<Frame>,
    /// The innermost frame that is being polled.
    innermost: Option<Token>,
    /// Whether the task is to be cancelled once it has no frames: see [`Tasks::pass_on`].
    passed_on: bool,
}

pub(super) type Finisher = Box<dyn FnOnce(&LoopHandle)>;

pub(super) type DoneCallback = Box<dyn FnOnce(&LoopHandle, TaskStatus)>;

pub(super) struct Done {
    pub(super) number: u64,
    pub(super) call: DoneCallback,
    pub(super) location: &'static Location<'static>,
}

/// A live `cancellable`.
struct Frame {
    parent: Option<Token>,
    /// How many live frames have it for a parent; with none it is a leaf.
    children: u32,
    /// Whether it was a leaf when a request came, which nothing inside it has consumed.
    hit: bool,
    /// Whether it is to end as soon as it is a leaf: see [`Tasks::pass_on`].
    passed_on: bool,
    waker: Option<Waker>,
}

/// What is left to do, with nothing borrowed, when a task has ended.
pub(super) struct Ended {
    pub(super) status: TaskStatus,
    pub(super) own_waker: Option<Waker>,
    pub(super) joiner: Option<Waker>,
    pub(super) callbacks: Vec<Done>,
    pub(super) finisher: Option<Finisher>,
    pub(super) span: Option<Rc<Span>>,
}

/// What a task is to do before a poll, or after one that was pending.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Poll,
    /// Drop the future: it was cancelled.
    Drop,
}

impl Entry {
    fn new(id: u64, location: &'static Location<'static>, future: fn() -> &'static str) -> Entry {
        Entry {
            id,
            location,
            future,
            waker: None,
            joiner: None,
            extras: None,
            status: TaskStatus::Pending,
            requested: false,
            doomed: false,
            detached: false,
            waits: Head::default(),
        }
    }

    pub(super) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    pub(super) fn name(&self) -> Option<Rc<str>> {
        self.extras.as_ref()?.name.clone()
    }

    fn frames(&mut self) -> Option<&mut Slots<Frame>> {
        self.extras.as_mut().map(|extras| &mut extras.frames)
    }

    fn step(&self) -> Step {
        let Some(extras) = &self.extras else {
            return if self.doomed || self.requested { Step::Drop } else { Step::Poll };
        };
        let cancelled = (self.requested || extras.passed_on) && extras.frames.is_empty();
        if self.doomed || cancelled { Step::Drop } else { Step::Poll }
    }

    /// Whether a request is pending.
    pub(super) fn is_cancelling(&self) -> bool {
        let passed_on = |extras: &Extras| {
            extras.passed_on || extras.frames.iter().any(|(_, frame)| frame.passed_on)
        };
        self.requested || self.extras.as_deref().is_some_and(passed_on)
    }
}

impl Tasks {
    pub(super) fn insert(
        &mut self,
        location: &'static Location<'static>,
        future: fn() -> &'static str,
        name: Option<Rc<str>>,
        context: Context,
    ) -> Option<(Token, u64)> {
        let mut entry = Entry::new(self.spawned + 1, location, future);
        if name.is_some() {
            entry.extras().name = name;
        }
        if !context.is_empty() {
            entry.extras().context = context;
        }
        let key = self.entries.insert(entry).ok()?;
        self.spawned += 1;
        self.pending += 1;
        Some((key, self.spawned))
    }

    /// The key of a task that can be run.
    #[inline]
    pub(crate) fn key_of(&self, key: Key) -> Token {
        self.entries.key_at(key.0 as usize).unwrap_or(NO_TASK)
    }

    pub(crate) fn id(&self, key: Token) -> Option<u64> {
        self.entries.get(key).map(|entry| entry.id)
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    pub(super) fn get(&self, key: Token) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: Token) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    pub(super) fn get_pending(&mut self, key: Token) -> Option<&mut Entry> {
        self.entries.get_mut(key).filter(|entry| entry.status == TaskStatus::Pending)
    }

    /// The keys of all that have not ended, in the order in which they were spawned.
    pub(super) fn all_pending(&self) -> Vec<Token> {
        let all = self.entries.iter().filter(|(_, entry)| entry.status == TaskStatus::Pending);
        let mut all: Vec<_> = all.map(|(key, entry)| (entry.id, key)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, key)| key).collect()
    }

    pub(super) fn context(&self, key: Token) -> Context {
        let extras = self.entries.get(key).and_then(|entry| entry.extras.as_ref());
        extras.map(|extras| extras.context.clone()).unwrap_or_default()
    }

    /// Keeps the context of a task that has not ended; gives back the one that is not needed.
    pub(super) fn set_context(&mut self, key: Token, context: Context) -> Context {
        match self.get_pending(key) {
            Some(entry) => std::mem::replace(&mut entry.extras().context, context),
            None => context,
        }
    }

    pub(crate) fn span(&self, key: Token) -> Option<Rc<Span>> {
        self.entries.get(key)?.extras.as_ref()?.span.clone()
    }

    pub(super) fn before_poll(&self, key: Token) -> (Step, Option<&'static Location<'static>>) {
        match self.entries.get(key) {
            Some(entry) => (entry.step(), Some(entry.location)),
            None => (Step::Drop, None),
        }
    }

    /// After a poll that was pending.
    pub(super) fn after_poll(&mut self, key: Token, own: &Waker) -> Step {
        let Some(entry) = self.entries.get_mut(key) else { return Step::Drop };
        let step = entry.step();
        if step == Step::Poll && entry.waker.is_none() {
            entry.waker = Some(own.clone());
        }
        step
    }

    /// Notes the end of a task, and says whether its handle is gone.
    pub(super) fn end(&mut self, key: Token, status: TaskStatus) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return true };
        if entry.status != TaskStatus::Pending {
            return true;
        }
        entry.status = status;
        self.pending -= 1;
        self.waits.orphan(Some(&mut entry.waits));
        entry.detached
    }

    /// Takes out what a task that has ended leaves behind; `None` if it has not.
    pub(super) fn take_ended(&mut self, key: Token) -> Option<Ended> {
        let entry = self.entries.get_mut(key)?;
        if entry.status == TaskStatus::Pending {
            return None;
        }
        let (mut callbacks, mut finisher, mut span) = (Vec::new(), None, None);
        if let Some(extras) = &mut entry.extras {
            callbacks = std::mem::take(&mut extras.callbacks);
            finisher = extras.finisher.take();
            span = extras.span.take();
        }
        let (own_waker, joiner) = (entry.waker.take(), entry.joiner.take());
        Some(Ended { status: entry.status, own_waker, joiner, callbacks, finisher, span })
    }

    /// Removes the entry of a task that has ended, if its handle is gone.
    pub(super) fn remove_detached(&mut self, key: Token) -> Option<Entry> {
        let entry = self.entries.get(key)?;
        let over = entry.detached && entry.status != TaskStatus::Pending;
        over.then(|| self.entries.remove(key)).flatten()
    }

    /// The handle is gone. Gives back the entry if the task has ended.
    pub(super) fn detach(&mut self, key: Token) -> Option<Entry> {
        match self.get_pending(key) {
            Some(entry) => {
                entry.detached = true;
                None
            }
            None => self.entries.remove(key),
        }
    }

    pub(crate) fn has_ended(&self, key: Token) -> bool {
        self.entries.get(key).is_none_or(|entry| entry.status != TaskStatus::Pending)
    }

    /// Whether this waker is the one to be woken at the end.
    pub(super) fn is_joined_by(&self, key: Token, waker: &Waker) -> bool {
        let joiner = self.entries.get(key).and_then(|entry| entry.joiner.as_ref());
        joiner.is_some_and(|joiner| joiner.will_wake(waker))
    }

    pub(super) fn set_joiner(&mut self, key: Token, waker: Waker) -> Option<Waker> {
        match self.get_pending(key) {
            Some(entry) => entry.joiner.replace(waker),
            None => Some(waker),
        }
    }

    /// Requests that a task be cancelled. `None` if it has ended; else the wakers to wake.
    pub(super) fn request(&mut self, key: Token) -> Option<Vec<Waker>> {
        let entry = self.get_pending(key)?;
        entry.requested = true;
        if entry.step() == Step::Drop {
            return Some(entry.waker.clone().into_iter().collect());
        }
        let frames = entry.frames()?;
        let keys: Vec<_> = frames.iter().map(|(key, _)| key).collect();
        let mut wakers = Vec::new();
        for key in keys {
            if let Some(frame) = frames.get_mut(key).filter(|frame| frame.children == 0) {
                frame.hit = true;
                wakers.extend(frame.waker.take());
            }
        }
        Some(wakers)
    }

    /// Marks a task to be dropped, whatever its frames. `None` if it has ended or is marked; else
    /// what schedules it, if it was suspended before.
    pub(super) fn doom(&mut self, key: Token) -> Option<Option<Waker>> {
        let entry = self.get_pending(key).filter(|entry| !entry.doomed)?;
        entry.doomed = true;
        Some(entry.waker.clone())
    }

    pub(super) fn is_doomed(&self, key: Token) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.doomed)
    }

    /// What schedules a task that is suspended.
    pub(super) fn waker(&self, key: Token) -> Option<Waker> {
        self.entries.get(key)?.waker.clone()
    }
}

/// Waits: see `await_graph`.
impl Tasks {
    #[inline]
    pub(crate) fn begin_wait(&mut self, waiter: Waiter, since: Instant, on: On) -> WaitId {
        let head = match waiter {
            Waiter::Main => None,
            Waiter::Task(key) => match self.entries.get_mut(key) {
                Some(entry) if entry.status == TaskStatus::Pending => Some(&mut entry.waits),
                _ => return WaitId::NONE,
            },
            Waiter::Nobody | Waiter::Free => return WaitId::NONE,
        };
        self.waits.begin(head, waiter, since, on)
    }

    /// Gives back what is to be dropped with nothing borrowed.
    #[inline]
    #[must_use = "to be dropped with nothing borrowed"]
    pub(crate) fn end_wait(&mut self, id: WaitId) -> Option<Shared> {
        let head = match self.waits.waiter(id)? {
            Waiter::Task(key) => self.entries.get_mut(key).map(|entry| &mut entry.waits),
            Waiter::Main | Waiter::Nobody | Waiter::Free => None,
        };
        self.waits.end(head, id)
    }

    /// Forgets who waited as the main future, which has ended.
    pub(crate) fn end_main(&mut self) {
        self.waits.orphan(None);
    }

    pub(crate) fn waits(&self) -> &Waits {
        &self.waits
    }

    pub(crate) fn waits_mut(&mut self) -> &mut Waits {
        &mut self.waits
    }

    /// What the await graph shows of each task that has not ended, in the order of their ids.
    pub(crate) fn raw_nodes(&self) -> Vec<RawNode> {
        let all = self.entries.iter().filter(|(_, entry)| entry.status == TaskStatus::Pending);
        let node = |(key, entry): (Token, &Entry)| RawNode {
            key,
            id: entry.id,
            name: entry.name(),
            location: entry.location,
            future: entry.future,
            waits: self.waits.of(Some(entry.waits)),
        };
        let mut nodes: Vec<_> = all.map(node).collect();
        nodes.sort_unstable_by_key(|node| node.id);
        nodes
    }

    /// What a task waits for, oldest first.
    pub(crate) fn waits_of(&self, key: Token) -> Vec<(Instant, On)> {
        self.entries.get(key).map(|entry| self.waits.of(Some(entry.waits))).unwrap_or_default()
    }
}

/// Frames. `task` has not ended in any of these, or they do nothing.
impl Tasks {
    /// Makes a frame the innermost one, adding it if it is new. Gives its key and the frame that was
    /// the innermost one before.
    pub(super) fn enter_frame(
        &mut self,
        task: Token,
        frame: Option<Token>,
    ) -> Option<(Token, Option<Token>)> {
        let extras = self.get_pending(task)?.extras();
        let outer = extras.innermost;
        let known = frame.filter(|frame| extras.frames.get(*frame).is_some());
        let key = match known {
            Some(key) => key,
            None => {
                let (parent, children, waker) = (None, 0, None);
                let new = Frame { parent, children, hit: false, passed_on: false, waker };
                extras.frames.insert(new).ok()?
            }
        };
        extras.set_parent(key, outer);
        extras.innermost = Some(key);
        Some((key, outer))
    }

    pub(super) fn leave_frame(&mut self, task: Token, outer: Option<Token>) {
        let extras = self.entries.get_mut(task).and_then(|entry| entry.extras.as_mut());
        if let Some(extras) = extras {
            extras.innermost = outer;
        }
    }

    pub(super) fn frame_has_waker(&self, task: Token, frame: Token, waker: &Waker) -> bool {
        let extras = self.entries.get(task).and_then(|entry| entry.extras.as_ref());
        let known = extras.and_then(|extras| extras.frames.get(frame)?.waker.as_ref());
        known.is_some_and(|known| known.will_wake(waker))
    }

    /// Gives back the waker that is not needed.
    pub(super) fn set_frame_waker(
        &mut self,
        task: Token,
        frame: Token,
        waker: Waker,
    ) -> Option<Waker> {
        let extras = self.entries.get_mut(task).and_then(|entry| entry.extras.as_mut());
        match extras.and_then(|extras| extras.frames.get_mut(frame)) {
            Some(frame) => frame.waker.replace(waker),
            None => Some(waker),
        }
    }

    /// Whether a frame whose future is pending is to end with `Cancelled`. If so, the request is
    /// consumed: neither the frames around it nor later ones get it.
    pub(super) fn consume_request(&mut self, task: Token, frame: Token) -> bool {
        let Some(entry) = self.get_pending(task) else { return false };
        let requested = entry.requested;
        let Some(frames) = entry.frames() else { return false };
        let Some(this) = frames.get(frame) else { return false };
        if !(this.hit || ((requested || this.passed_on) && this.children == 0)) {
            return false;
        }
        if let Some(this) = frames.get_mut(frame) {
            this.passed_on = false;
        }
        let mut next = Some(frame);
        while let Some(frame) = next.and_then(|key| frames.get_mut(key)) {
            frame.hit = false;
            next = frame.parent;
        }
        entry.requested = false;
        true
    }

    /// What has consumed a request on behalf of what is around it has done its part: the request goes to
    /// the frame around it, or to the task, and not to its siblings, which have had it. While there are
    /// frames inside of the one that gets it (siblings that clean up) it waits.
    pub(super) fn pass_on(&mut self, task: Token) {
        if let Some(entry) = self.get_pending(task) {
            let extras = entry.extras();
            extras.pass_on_to(extras.innermost);
        }
    }

    /// Removes a frame; gives back its waker.
    pub(super) fn remove_frame(&mut self, task: Token, frame: Token) -> Option<Waker> {
        let extras = self.entries.get_mut(task)?.extras.as_mut()?;
        let around = extras.frames.get(frame)?.parent;
        extras.set_parent(frame, None);
        let frame = extras.frames.remove(frame)?;
        if frame.passed_on {
            extras.pass_on_to(around);
        }
        frame.waker
    }
}

impl Extras {
    fn pass_on_to(&mut self, frame: Option<Token>) {
        match frame.and_then(|frame| self.frames.get_mut(frame)) {
            Some(frame) => frame.passed_on = true,
            None => self.passed_on = true,
        }
    }

    fn set_parent(&mut self, frame: Token, parent: Option<Token>) {
        let Some(this) = self.frames.get_mut(frame) else { return };
        let old = std::mem::replace(&mut this.parent, parent);
        if old == parent {
            return;
        }
        if let Some(old) = old.and_then(|old| self.frames.get_mut(old)) {
            old.children -= 1;
        }
        if let Some(new) = parent.and_then(|new| self.frames.get_mut(new)) {
            new.children += 1;
        }
    }
}
