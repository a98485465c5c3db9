//! What is pending on a loop, in words.

use tulipa_loop::__private::own_sources;
use tulipa_loop::LoopHandle;

/// Tasks, timers, and sources and registrations that are not the loop's own.
pub(crate) fn of(handle: &LoopHandle) -> Vec<String> {
    let statistics = handle.statistics();
    let mut pending: Vec<_> = handle.all_tasks().iter().map(|task| format!("{task:?}")).collect();
    if statistics.timers > 0 {
        pending.push(count(statistics.timers, "timer") + &first_due(handle));
    }
    let (own, keys) = (own_sources(handle), handle.selector().keys());
    if keys.len() > own {
        let watched = keys.iter().map(|key| format!("{:?} for {:?}", key.source, key.interest));
        pending.extend(watched.map(|watched| format!("a registration of {watched}")));
    }
    if statistics.sources > keys.len().max(own) {
        pending.push(count(statistics.sources - keys.len(), "source") + " without a registration");
    }
    pending
}

/// Who waits for what, and where tasks wait for each other: for a program that cannot go on.
pub(crate) fn await_graph(handle: &LoopHandle) -> String {
    let graph = handle.await_graph().to_string();
    graph.lines().map(|line| format!("\n  {line}")).collect()
}

/// One line for each.
pub(crate) fn list(what: &str, pending: &[String]) -> String {
    pending.iter().map(|pending| format!("\n  {what}: {pending}")).collect()
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn first_due(handle: &LoopHandle) -> String {
    let left = handle.next_deadline().map(|next| next.saturating_duration_since(handle.time()));
    left.filter(|left| !left.is_zero()).map(|left| format!(", due in {left:?}")).unwrap_or_default()
}
