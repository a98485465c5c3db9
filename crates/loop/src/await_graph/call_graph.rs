//! The graph from one task upwards: asyncio's `capture_call_graph` and its text.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::io;
use std::panic::Location;
use std::rc::Rc;

use super::graph::Names;
use super::{AwaitEdge, AwaitGraph, AwaitNode, AwaiterId};
use crate::{LoopHandle, TaskRef, current_task};

/// How many levels of waiters are shown: text that is indented further is not read, and the structure is
/// as deep as this when it is dropped.
const MOST_LEVELS: usize = 64;

/// A task, what it is doing, and who waits for it. Stands for `FutureCallGraph`; its `Display` is
/// [`format_call_graph`]'s text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FutureCallGraph {
    /// Which task.
    pub id: AwaiterId,
    /// Its name.
    pub name: Rc<str>,
    /// What is known of its stack: the future that was spawned.
    pub call_stack: Vec<FrameCallGraphEntry>,
    /// What it waits for.
    pub waits: Vec<AwaitEdge>,
    /// Who waits for it. A task that was shown already, which is also how a cycle ends, and one 64 levels
    /// from the first, have their waiters left out.
    pub awaited_by: Vec<FutureCallGraph>,
    /// `waits` as text, made while the names of the tasks were at hand.
    lines: Vec<String>,
}

/// One frame of a task's stack. Stands for `FrameCallGraphEntry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameCallGraphEntry {
    /// The type of the future: the path of the `async fn`.
    pub function: &'static str,
    /// Where it was spawned.
    pub location: &'static Location<'static>,
}

/// A task and whatever waits for it, `None` being the current one. Stands for `capture_call_graph`.
///
/// `None` where no task is running, or the task has ended. Rust keeps no record of the frames of a suspended
/// future, so the stack of a task is one entry: what was spawned, and where.
pub fn capture_call_graph(task: Option<&TaskRef>) -> Option<FutureCallGraph> {
    let task = task.cloned().or_else(current_task)?;
    task.get_loop().call_graph(&task)
}

/// [`capture_call_graph`] as text; empty where there is none. Stands for `format_call_graph`.
///
/// ```
/// use tulipa_loop::{EventLoop, format_call_graph, spawn, yield_now};
///
/// let event_loop = EventLoop::new()?;
/// event_loop.run_until_complete(async {
///     let child = spawn(std::future::pending::<()>());
///     let reference = child.reference();
///     let parent = event_loop.task().name("parent").spawn(async { child.await.is_ok() });
///     yield_now().await;
///     let text = format_call_graph(Some(&reference));
///     assert!(text.contains("  + Awaited by:\n    * Task(name='parent', id=0x2)\n"));
///     drop(parent);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn format_call_graph(task: Option<&TaskRef>) -> String {
    capture_call_graph(task).map(|graph| graph.to_string()).unwrap_or_default()
}

/// Writes [`format_call_graph`] and a line's end, or nothing. Stands for `print_call_graph`, which prints
/// unless told otherwise; this has to be told where.
///
/// # Errors
/// What the writer says.
pub fn print_call_graph(task: Option<&TaskRef>, file: &mut impl io::Write) -> io::Result<()> {
    match capture_call_graph(task) {
        Some(graph) => writeln!(file, "{graph}"),
        None => Ok(()),
    }
}

impl LoopHandle {
    fn call_graph(&self, task: &TaskRef) -> Option<FutureCallGraph> {
        let graph = self.await_graph();
        let names = graph.names();
        let node = graph.node(AwaiterId::Task(task.id()))?;
        let awaited_by = index(&graph);
        Some(FutureCallGraph::of(node, &awaited_by, &names, &mut BTreeSet::new(), MOST_LEVELS))
    }
}

/// Who waits for whom.
type AwaitedBy<'a> = std::collections::BTreeMap<AwaiterId, Vec<&'a AwaitNode>>;

fn index(graph: &AwaitGraph) -> AwaitedBy<'_> {
    let mut awaited_by = AwaitedBy::new();
    for node in &graph.nodes {
        let awaited: BTreeSet<_> = node.waits.iter().filter_map(AwaitEdge::awaited).collect();
        for id in awaited {
            awaited_by.entry(id).or_default().push(node);
        }
    }
    awaited_by
}

impl FutureCallGraph {
    fn of(
        node: &AwaitNode,
        index: &AwaitedBy<'_>,
        names: &Names,
        seen: &mut BTreeSet<AwaiterId>,
        levels: usize,
    ) -> FutureCallGraph {
        let mut awaited_by = Vec::new();
        if seen.insert(node.id) && levels > 0 {
            for waiter in index.get(&node.id).into_iter().flatten() {
                awaited_by.push(FutureCallGraph::of(waiter, index, names, seen, levels - 1));
            }
        }
        let frame = |location| FrameCallGraphEntry { function: node.future, location };
        FutureCallGraph {
            id: node.id,
            name: node.name.clone(),
            call_stack: node.spawned_at.map(frame).into_iter().collect(),
            waits: node.waits.clone(),
            awaited_by,
            lines: node.waits.iter().map(|wait| wait.line(names)).collect(),
        }
    }

    fn write(&self, text: &mut String, level: usize) -> fmt::Result {
        let pad = " ".repeat(4 * level);
        match self.id {
            AwaiterId::Main => writeln!(text, "{pad}* {}", self.name)?,
            AwaiterId::Task(id) => {
                writeln!(text, "{pad}* Task(name='{}', id={:#x})", self.name, id.get())?;
            }
        }
        if !self.call_stack.is_empty() {
            writeln!(text, "{pad}  + Call stack:")?;
        }
        for FrameCallGraphEntry { function, location } in &self.call_stack {
            let (file, line) = (location.file(), location.line());
            writeln!(text, "{pad}  |   File '{file}', line {line}, in async {function}()")?;
        }
        if !self.lines.is_empty() {
            writeln!(text, "{pad}  + Waiting on:")?;
        }
        for line in &self.lines {
            writeln!(text, "{pad}  |   {line}")?;
        }
        if !self.awaited_by.is_empty() {
            writeln!(text, "{pad}  + Awaited by:")?;
        }
        self.awaited_by.iter().try_for_each(|waiter| waiter.write(text, level + 1))
    }
}

impl fmt::Display for FutureCallGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text, 0)?;
        f.write_str(text.trim_end_matches('\n'))
    }
}
