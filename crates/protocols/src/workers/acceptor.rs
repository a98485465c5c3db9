//! The supervisor's part where it accepts for its workers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tulipa_loop::{AsyncFd, ErrorContext, sleep};

use super::worker::{self, Door};
use super::{Distribution, PoolState};
use crate::socket::{accept as accept_one, describe, is_about_one_connection};

/// How many connections are accepted before others have their turn.
const MOST_ACCEPTS: usize = 64;

/// How long nothing is accepted when the system is out of descriptors, or no worker is there: see the listener's.
const REST: Duration = Duration::from_secs(1);
const NOBODY_THERE: Duration = Duration::from_millis(20);

/// Accepts until the pool ends.
pub(super) async fn accept(state: Rc<PoolState>, door: Door, distribution: Distribution) {
    let watched = match AsyncFd::new(&state.handle, door.socket) {
        Ok(watched) => watched,
        Err(error) => return report(&state, error, "cannot accept connections"),
    };
    let mut next = 0;
    let serving = async {
        loop {
            if let Err(error) = watched.readable().await {
                return report(&state, error, "cannot accept connections");
            }
            for _ in 0..MOST_ACCEPTS {
                match accept_one(watched.as_fd()) {
                    Ok(socket) => hand_over(&state, socket, distribution, &mut next).await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_about_one_connection(&error) => {}
                    Err(error) => {
                        report(&state, error, "nothing is accepted for a second");
                        sleep(REST).await;
                        break;
                    }
                }
            }
            tulipa_loop::yield_now().await;
        }
    };
    state.unless_ended(serving).await;
}

/// Gives a connection to a worker; waits for one if there is none.
async fn hand_over(
    state: &Rc<PoolState>,
    socket: OwnedFd,
    distribution: Distribution,
    next: &mut usize,
) {
    loop {
        let count = state.workers.len();
        let in_turn = (0..count).map(|place| (*next + place) % count);
        let up = in_turn.filter(|index| state.workers[*index].remote.borrow().is_some());
        let load = |index: &usize| match distribution {
            Distribution::LeastConnections => {
                state.workers[*index].connections.load(Ordering::Relaxed)
            }
            _ => 0,
        };
        // Of equals the first, so that they come in turn.
        let Some(index) = up.min_by_key(load) else {
            sleep(NOBODY_THERE).await;
            continue;
        };
        *next = index + 1;
        let worker = &state.workers[index];
        let remote = worker.remote.borrow().clone();
        let Some(remote) = remote else { continue };
        // It is counted at once, so that a burst is spread too.
        worker.connections.fetch_add(1, Ordering::Relaxed);
        let counted = worker.connections.clone();
        let sent = remote.call_soon(move |handle| {
            worker::take(handle, socket);
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        if sent.is_err() {
            // It has died just now, and the socket is closed with the call.
            worker.remote.take();
        }
        return;
    }
}

fn report(state: &PoolState, error: io::Error, what: &str) {
    let message = format!("the workers of {}: {what}", state.address);
    let error = describe(error, "accept");
    state.handle.call_exception_handler(ErrorContext::error(message, error));
}
