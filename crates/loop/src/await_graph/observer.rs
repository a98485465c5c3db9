//! How locks and queues get into the record: `tulipa_sync` tells the observer, which the loop sets
//! while it runs.

use std::num::NonZeroU64;
use std::rc::Weak;

use tulipa_selector::Token;
use tulipa_sync::wait::{Observer, OwnerId, ResourceId, Wait, WaitToken};

use super::{On, Shared, WaitId, Waiter};
use crate::core::Core;

/// The owner of the locks that the main future takes; tasks have their ids.
pub(super) const MAIN: OwnerId = OwnerId::new(NonZeroU64::MAX);

/// The loop, as it observes waits. Weak, because a wait keeps its observer, and the loop the wait.
pub(crate) struct LoopObserver(pub(crate) Weak<Core>);

impl Observer for LoopObserver {
    fn begin(&self, wait: &Wait) -> WaitToken {
        let mut id = WaitId::NONE;
        if let Some(core) = self.0.upgrade() {
            core.wait_on(&mut id, || On::Shared(Shared::Primitive(*wait)));
        }
        WaitToken::new(id.0.to_bits())
    }

    fn end(&self, token: WaitToken) {
        if let Some(core) = self.0.upgrade() {
            core.wait_over(&mut WaitId(Token::from_bits(token.get())));
        }
    }

    fn moved(&self, token: WaitToken) -> WaitToken {
        let mut id = WaitId(Token::from_bits(token.get()));
        let Some(core) = self.0.upgrade() else { return token };
        if core.waiter() == core.tasks.borrow().waits().waiter(id) {
            return token;
        }
        let on = core.tasks.borrow_mut().end_wait(std::mem::take(&mut id));
        if let Some(on) = on {
            core.wait_on(&mut id, || On::Shared(on));
        }
        WaitToken::new(id.0.to_bits())
    }

    fn current_owner(&self) -> Option<OwnerId> {
        let core = self.0.upgrade()?;
        match core.waiter()? {
            Waiter::Task(key) => {
                let id = core.tasks.borrow().id(key)?;
                NonZeroU64::new(id).map(OwnerId::new)
            }
            Waiter::Main => Some(MAIN),
            Waiter::Nobody | Waiter::Free => None,
        }
    }

    fn owner_changed(&self, resource: ResourceId, owner: Option<OwnerId>) {
        if let Some(core) = self.0.upgrade() {
            core.tasks.borrow_mut().waits_mut().set_owner(resource, owner);
        }
    }
}
