//! All requests, at most so many at once.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;

use tulipa::sync::Semaphore;
use tulipa::{GroupError, LoopHandle, TaskGroup, cancellable, task_group};

use crate::client::Client;
use crate::options::Options;
use crate::report::Progress;
use crate::tally::Tally;

/// What came of it.
pub(crate) struct Fired {
    pub(crate) tally: Tally,
    /// Ctrl-C came before it was done.
    pub(crate) interrupted: bool,
}

/// Makes the requests, shows how far it is, and counts what came of them. A cancel of the task ends it early; what was
/// counted by then is there, and the requests that were under way are not in it.
pub(crate) async fn fire(options: &Rc<Options>) -> io::Result<Fired> {
    let shared = Rc::new(Shared {
        client: Client::new(options.clone()),
        tally: RefCell::new(Tally::new(LoopHandle::current().time())),
        progress: RefCell::new(Progress::new(options.requests, !options.json)),
    });
    shared.progress.borrow_mut().begin()?;
    let all = task_group(async |group| fire_into(group, &shared, options).await);
    let interrupted = match cancellable(all).await {
        Ok(Ok(()) | Err(GroupError::Cancelled)) => false,
        Ok(Err(failed)) => match failed.into_errors().into_iter().next() {
            Some(never) => match never {},
            None => false,
        },
        // The group is dropped by now, and all its tasks with it.
        Err(_cancelled) => true,
    };
    shared.progress.borrow_mut().end()?;
    let now = LoopHandle::current().time();
    let tally = shared.tally.replace(Tally::new(now)).end(now);
    Ok(Fired { tally, interrupted })
}

/// What the requests share.
struct Shared {
    client: Client,
    tally: RefCell<Tally>,
    progress: RefCell<Progress>,
}

/// A task is made when there is room for it, so that a million requests need no more memory than ten.
async fn fire_into(
    group: TaskGroup<Infallible>,
    shared: &Rc<Shared>,
    options: &Options,
) -> Result<(), Infallible> {
    let semaphore = Rc::new(Semaphore::new(options.concurrency));
    for _ in 0..options.requests {
        let permit = semaphore.acquire_owned().await;
        let shared = shared.clone();
        let request = async move {
            let begun = LoopHandle::current().time();
            let result = shared.client.request().await;
            let now = LoopHandle::current().time();
            shared.tally.borrow_mut().count(result, begun, now);
            shared.progress.borrow_mut().step();
            drop(permit);
            Ok(())
        };
        drop(group.spawn(request).expect("nothing fails in this group, so it is open"));
    }
    Ok(())
}
