//! The graph as a program reads it: nodes, edges, cycles, and their text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulipa_selector::Token;
use tulipa_sync::wait::{OwnerId, Wait};

use super::observer::MAIN;
use super::{How, On, Plain, Purpose, Shared};
use crate::core::{Core, Ready};
use crate::{LoopHandle, TaskId, TaskRef};

/// Who waits for what on a loop, at one instant: see [`LoopHandle::await_graph`]. Its `Display` is one
/// paragraph for each task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AwaitGraph {
    /// The loop's number.
    pub loop_id: u64,
    /// The main future of `run_until_complete`, if it waits or runs, then the tasks that have not ended, in
    /// the order in which they were spawned.
    pub nodes: Vec<AwaitNode>,
}

/// One task, and what it waits for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AwaitNode {
    /// Which one.
    pub id: AwaiterId,
    /// The task's name.
    pub name: Rc<str>,
    /// The type of its future.
    pub future: &'static str,
    /// Where it was spawned.
    pub spawned_at: Option<&'static Location<'static>>,
    /// Whether it runs.
    pub state: AwaiterState,
    /// What it waits for, in the order in which the waits began: one of several is enough to wake it.
    pub waits: Vec<AwaitEdge>,
}

/// A task, or the main future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AwaiterId {
    /// The main future of `run_until_complete`.
    Main,
    /// A task.
    Task(TaskId),
}

/// Whether a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AwaiterState {
    /// It is being polled.
    Running,
    /// Its next step is in the loop's ready queue: what it waited for may be over.
    Ready,
    /// It is suspended.
    Waiting,
}

/// One wait.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AwaitEdge {
    /// The kind of wait, in asyncio's words where it has any: `join`, `joined`, `shield`, `gather`,
    /// `task_group`, `sleep`, `timeout`, `job`, `lock`, and so on.
    pub kind: &'static str,
    /// What has to happen.
    pub target: AwaitTarget,
    /// For how long it has been waiting. It counts from the last time the loop read its clock before the
    /// wait began, so a loop that sleeps with no timer set and is woken by another thread counts some of its
    /// sleep too.
    pub waited: Duration,
}

/// What a task waits for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AwaitTarget {
    /// The end of a task. A wait for several is one edge for each that has not ended.
    Task(TaskId),
    /// An instant of the loop's clock.
    Timer(Instant),
    /// Readiness of a descriptor, with its number if it has one.
    Descriptor(Option<u64>),
    /// A job in another thread, by the place that asked for it.
    Job(&'static Location<'static>),
    /// A task of another loop, by the number of that and the place where it was spawned.
    Remote(u64, &'static Location<'static>),
    /// The value of a future, by the place that created it.
    Promise(&'static Location<'static>),
    /// A lock, queue or the like; of a lock also who has it.
    Primitive(Wait, Option<AwaiterId>),
    /// A signal.
    Signal,
    /// Something that the program has named: see [`waiting_on`](crate::waiting_on).
    Named,
}

/// Tasks that wait for each other in a circle: each for the next one, the last for the first. Its
/// `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle(Vec<(AwaiterId, Rc<str>)>);

impl LoopHandle {
    /// Who waits for what on this loop, now. Works at any time, also inside of a task.
    ///
    /// A wait is in it from the moment in which its future was first suspended until it is over, or the
    /// future is dropped or polled by another task. The waits for several tasks (groups, `gather`, ...) are in
    /// it from their start. Futures that this crate and `tulipa-sync` know nothing of are not in it, unless they
    /// are given a name by [`waiting_on`](crate::waiting_on); nor are waits of this loop's tasks for futures
    /// that another loop of the same thread has made.
    pub fn await_graph(&self) -> AwaitGraph {
        let looked = Look::at(self);
        let raw = self.core.tasks.borrow().raw_nodes();
        let ready = self.core.ready_tasks();
        let mut nodes = Vec::with_capacity(raw.len() + 1);
        let waits = looked.edges(self.core.main_waits());
        if self.core.polls_main.get() || !waits.is_empty() {
            let running = self.core.polls_main.get() && self.core.current_task.get().is_none();
            let state = if running { AwaiterState::Running } else { AwaiterState::Waiting };
            let (id, name) = (AwaiterId::Main, "main future".into());
            nodes.push(AwaitNode { id, name, future: "", spawned_at: None, state, waits });
        }
        for node in raw {
            let state = if self.core.current_task.get() == Some(node.key) {
                AwaiterState::Running
            } else if ready.contains(&node.key.to_bits()) {
                AwaiterState::Ready
            } else {
                AwaiterState::Waiting
            };
            nodes.push(AwaitNode {
                id: AwaiterId::Task(TaskId::of(node.id)),
                name: node.name.unwrap_or_else(|| format!("Task-{}", node.id).into()),
                future: crate::task::without_closure((node.future)()),
                spawned_at: Some(node.location),
                state,
                waits: looked.edges(node.waits),
            });
        }
        AwaitGraph { loop_id: self.id(), nodes }
    }
}

/// What the table of tasks says of one.
pub(crate) struct RawNode {
    pub(crate) key: Token,
    pub(crate) id: u64,
    pub(crate) name: Option<Rc<str>>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) future: fn() -> &'static str,
    pub(crate) waits: Vec<(Instant, On)>,
}

impl Core {
    fn main_waits(&self) -> Vec<(Instant, On)> {
        self.tasks.borrow().waits().of(None)
    }

    /// The tasks whose next step is in the ready queue.
    fn ready_tasks(&self) -> BTreeSet<u64> {
        let (ready, table) = (self.ready.borrow(), self.tasks.borrow());
        let tasks = ready.iter().filter_map(|entry| match entry {
            Ready::Task(task) => Some(table.key_of(*task.metadata()).to_bits()),
            _ => None,
        });
        tasks.collect()
    }
}

/// A few words on what a task waits for, or nothing.
pub(crate) fn described(handle: &LoopHandle, key: Token) -> String {
    let waits = handle.core.tasks.borrow().waits_of(key);
    if waits.is_empty() {
        return String::new();
    }
    let look = Look::at(handle);
    let words = waits.iter().filter_map(|(_, on)| look.words(on));
    words.take(MOST_DESCRIBED).collect::<Vec<_>>().join(", ")
}

/// The waits that a task's `Debug` names: what is one line should stay one.
const MOST_DESCRIBED: usize = 4;

/// Turns records into edges, leaving out what is over.
struct Look<'a> {
    handle: &'a LoopHandle,
    now: Instant,
}

impl Look<'_> {
    fn at(handle: &LoopHandle) -> Look<'_> {
        handle.core.end_abandoned();
        Look { handle, now: handle.time() }
    }

    fn edges(&self, waits: Vec<(Instant, On)>) -> Vec<AwaitEdge> {
        let mut edges = Vec::new();
        for (since, on) in waits {
            let waited = self.now.saturating_duration_since(since);
            let kind = on.kind();
            let add = |target| AwaitEdge { kind, target, waited };
            match &on {
                On::Shared(Shared::Tasks(_, tasks)) => {
                    let pending = tasks.targets().into_iter().filter_map(|key| self.pending(key));
                    edges.extend(pending.map(AwaitTarget::Task).map(add));
                }
                on => edges.extend(self.target(on).map(add)),
            }
        }
        edges
    }

    /// What a wait for one thing waits for; `None` if it is over.
    fn target(&self, on: &On) -> Option<AwaitTarget> {
        let core = &self.handle.core;
        Some(match on {
            On::Shared(Shared::Tasks(..)) | On::Plain(Plain::Shared(_)) => return None,
            On::Plain(Plain::Task(_, key)) => AwaitTarget::Task(self.pending(*key)?),
            On::Plain(Plain::Timer(_, timer)) => {
                AwaitTarget::Timer(core.timers.borrow().when(*timer)?)
            }
            On::Plain(Plain::Descriptor(number, _)) => AwaitTarget::Descriptor(*number),
            On::Shared(Shared::Job(job)) => AwaitTarget::Job(pending_job(job)?),
            On::Shared(Shared::Remote { job, loop_id }) => {
                AwaitTarget::Remote(*loop_id, pending_job(job)?)
            }
            On::Plain(Plain::Promise(location)) => AwaitTarget::Promise(location),
            On::Shared(Shared::Primitive(wait)) => {
                let owner = core.tasks.borrow().waits().owner(wait);
                AwaitTarget::Primitive(*wait, owner.map(AwaiterId::of))
            }
            #[cfg(all(unix, feature = "signal"))]
            On::Plain(Plain::Signal) => AwaitTarget::Signal,
            On::Plain(Plain::Named(_)) => AwaitTarget::Named,
        })
    }

    /// A wait as a task's `Debug` has it; `None` if it is over.
    fn words(&self, on: &On) -> Option<String> {
        let kind = on.kind();
        if let On::Shared(Shared::Tasks(_, tasks)) = on {
            let pending = tasks.targets().into_iter().filter_map(|key| self.pending(key)).count();
            return (pending > 0).then(|| format!("{kind} of {pending} tasks"));
        }
        Some(match (self.target(on)?, on) {
            (_, On::Plain(Plain::Task(_, key))) => {
                format!("{kind} of '{}'", TaskRef::of(self.handle.clone(), *key).name())
            }
            (AwaitTarget::Descriptor(Some(number)), _) => format!("descriptor {number} {kind}"),
            (AwaitTarget::Primitive(wait, _), _) => match wait.name() {
                Some(name) => format!("{kind} `{name}`"),
                None => kind.to_owned(),
            },
            _ => kind.to_owned(),
        })
    }

    fn pending(&self, key: Token) -> Option<TaskId> {
        let tasks = self.handle.core.tasks.borrow();
        let id = tasks.id(key).filter(|_| !tasks.has_ended(key));
        id.map(TaskId::of)
    }
}

fn pending_job(job: &std::sync::Weak<dyn crate::job::Work>) -> Option<&'static Location<'static>> {
    let job = job.upgrade().filter(|job| !job.is_done())?;
    Some(job.location())
}

impl On {
    fn kind(&self) -> &'static str {
        match self {
            On::Plain(Plain::Task(how, _)) | On::Shared(Shared::Tasks(how, _)) => match how {
                How::Join | How::GroupTask => "join",
                How::Joined => "joined",
                How::Shield => "shield",
                How::WaitFor => "wait_for",
                How::Gather => "gather",
                How::TryGather => "try_gather",
                How::Wait => "wait",
                How::AsCompleted => "as_completed",
                How::Group => "task_group",
                How::Start => "start",
                How::Race => "staggered_race",
            },
            On::Plain(Plain::Timer(purpose, _)) => match purpose {
                Purpose::Sleep => "sleep",
                Purpose::Timeout => "timeout",
                Purpose::Interval => "interval",
                Purpose::WaitFor => "wait_for",
                Purpose::Wait => "wait",
                Purpose::Race => "staggered_race",
            },
            On::Plain(Plain::Descriptor(_, true)) => "readable",
            On::Plain(Plain::Descriptor(_, false)) => "writable",
            On::Shared(Shared::Job(_)) => "job",
            On::Shared(Shared::Remote { .. }) => "remote task",
            On::Plain(Plain::Promise(_)) => "future",
            On::Shared(Shared::Primitive(wait)) => wait.kind().name(),
            #[cfg(all(unix, feature = "signal"))]
            On::Plain(Plain::Signal) => "signal",
            On::Plain(Plain::Named(name)) => name,
            On::Plain(Plain::Shared(_)) => "",
        }
    }
}

impl AwaiterId {
    fn of(owner: OwnerId) -> AwaiterId {
        if owner == MAIN { AwaiterId::Main } else { AwaiterId::Task(TaskId::of(owner.get().get())) }
    }
}

impl AwaitEdge {
    /// Whom it waits for: the task, or the owner of the lock.
    pub fn awaited(&self) -> Option<AwaiterId> {
        match &self.target {
            AwaitTarget::Task(task) => Some(AwaiterId::Task(*task)),
            AwaitTarget::Primitive(_, owner) => *owner,
            _ => None,
        }
    }

    /// One line without its end; `names` are those of the tasks.
    pub(super) fn line(&self, names: &Names) -> String {
        let what = match &self.target {
            AwaitTarget::Task(task) => {
                format!("{} of {}", self.kind, names.of(AwaiterId::Task(*task)))
            }
            AwaitTarget::Descriptor(Some(number)) => format!("descriptor {number} {}", self.kind),
            AwaitTarget::Descriptor(None) => format!("descriptor {}", self.kind),
            AwaitTarget::Job(location) | AwaitTarget::Promise(location) => {
                format!("{} created at {}", self.kind, place(location))
            }
            AwaitTarget::Remote(id, location) => {
                format!("{} of loop {id} spawned at {}", self.kind, place(location))
            }
            AwaitTarget::Primitive(wait, owner) => {
                let name = wait.name().map(|name| format!(" `{name}`")).unwrap_or_default();
                let owner = owner.map(|owner| format!(", owned by {}", names.of(owner)));
                let (place, owner) = (place(wait.created_at()), owner.unwrap_or_default());
                format!("{}{name} created at {place}{owner}", self.kind)
            }
            AwaitTarget::Timer(_) | AwaitTarget::Signal | AwaitTarget::Named => {
                self.kind.to_owned()
            }
        };
        format!("{what}, for {:?}", self.waited)
    }
}

fn place(location: &Location<'_>) -> String {
    format!("{}:{}", location.file(), location.line())
}

/// The names of tasks, for text.
pub(super) struct Names(BTreeMap<AwaiterId, Rc<str>>);

impl Names {
    fn of(&self, id: AwaiterId) -> String {
        match (id, self.0.get(&id)) {
            (AwaiterId::Main, _) => "the main future".to_owned(),
            (AwaiterId::Task(_), Some(name)) => format!("'{name}'"),
            // It has ended: a lock may outlive its owner.
            (AwaiterId::Task(id), None) => format!("task {id}, which has ended"),
        }
    }
}

impl AwaitGraph {
    /// The node of a task.
    pub fn node(&self, id: AwaiterId) -> Option<&AwaitNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Those that wait for a task, with how they do: asyncio's `awaited_by`.
    pub fn awaited_by(&self, id: AwaiterId) -> impl Iterator<Item = (&AwaitNode, &AwaitEdge)> {
        let edges =
            self.nodes.iter().flat_map(|node| node.waits.iter().map(move |edge| (node, edge)));
        edges.filter(move |(_, edge)| edge.awaited() == Some(id))
    }

    /// Tasks that wait for each other in a circle. There is at least one cycle in the answer for each knot of
    /// such tasks, though not every way around it.
    ///
    /// A cycle is a deadlock unless one of its tasks waits for something else too, a timeout for example.
    pub fn cycles(&self) -> Vec<Cycle> {
        let places: BTreeMap<_, _> =
            self.nodes.iter().enumerate().map(|(place, node)| (node.id, place)).collect();
        let next: Vec<Vec<usize>> = self
            .nodes
            .iter()
            .map(|node| {
                let awaited = node.waits.iter().filter_map(AwaitEdge::awaited);
                let mut next: Vec<_> = awaited.filter_map(|id| places.get(&id).copied()).collect();
                next.sort_unstable();
                next.dedup();
                next
            })
            .collect();
        let name = |place: &usize| (self.nodes[*place].id, self.nodes[*place].name.clone());
        circles(&next).iter().map(|circle| Cycle(circle.iter().map(name).collect())).collect()
    }

    pub(super) fn names(&self) -> Names {
        Names(self.nodes.iter().map(|node| (node.id, node.name.clone())).collect())
    }
}

/// One circle for each edge that leads back into the path of a search in depth; the search goes into
/// each node once. No recursion: chains of tasks may be long.
fn circles(next: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut found = Vec::new();
    let mut seen = vec![false; next.len()];
    // Where a node is in the path.
    let mut depth = vec![usize::MAX; next.len()];
    for start in 0..next.len() {
        let mut path: Vec<(usize, usize)> = Vec::new();
        if !seen[start] {
            (seen[start], depth[start]) = (true, 0);
            path.push((start, 0));
        }
        while let Some((node, edge)) = path.last_mut() {
            let Some(&to) = next[*node].get(*edge) else {
                depth[*node] = usize::MAX;
                path.pop();
                continue;
            };
            *edge += 1;
            if depth[to] != usize::MAX {
                found.push(path[depth[to]..].iter().map(|(node, _)| *node).collect());
            } else if !seen[to] {
                (seen[to], depth[to]) = (true, path.len());
                path.push((to, 0));
            }
        }
    }
    found
}

impl Cycle {
    /// Who is in it, each waiting for the next one.
    pub fn members(&self) -> impl Iterator<Item = AwaiterId> + '_ {
        self.0.iter().map(|(id, _)| *id)
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, name) in &self.0 {
            write!(f, "'{name}' -> ")?;
        }
        match self.0.first() {
            Some((_, name)) => write!(f, "'{name}'"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for AwaiterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AwaiterId::Main => f.write_str("main"),
            AwaiterId::Task(id) => id.fmt(f),
        }
    }
}

impl fmt::Display for AwaiterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AwaiterState::Running => "running",
            AwaiterState::Ready => "ready",
            AwaiterState::Waiting => "waiting",
        })
    }
}

impl fmt::Display for AwaitGraph {
    /// One paragraph for each task, then a line for each cycle.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names();
        let tasks = self.nodes.iter().filter(|node| node.id != AwaiterId::Main).count();
        writeln!(f, "await graph of loop {}: {tasks} tasks", self.loop_id)?;
        for node in &self.nodes {
            match (node.id, node.spawned_at) {
                (AwaiterId::Task(id), Some(location)) => {
                    let (name, state, place) = (&node.name, node.state, place(location));
                    writeln!(f, "* Task(name='{name}', id={id}) {state}, spawned at {place}")?;
                }
                _ => writeln!(f, "* {} {}", node.name, node.state)?,
            }
            for wait in &node.waits {
                writeln!(f, "  | {}", wait.line(&names))?;
            }
        }
        for cycle in self.cycles() {
            writeln!(f, "! cycle: {cycle}")?;
        }
        Ok(())
    }
}
