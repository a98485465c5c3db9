//! Which descriptors belong to transports.
//!
//! A transport claims its descriptor for as long as it has it. Whoever else wants to wait for the descriptor on the
//! same loop is told, instead of sharing its events and stealing its bytes. The table is a bit for each number, and is
//! asked only when something begins; no event looks at it, and a connection costs nothing but its bit.
//!
//! A number is given away again once its file is closed, so a claim ends before the file does. A link of a program's
//! own may close its descriptor too early and leave a claim on a number that is somebody else's by then: who owns a
//! descriptor alone is therefore never refused.

use std::cell::RefCell;
use std::io;

use tulipa_selector::RawSource;

use crate::source::Wires;

/// The claims of a loop.
#[derive(Default)]
pub(crate) struct Claims(RefCell<Vec<u64>>);

impl Claims {
    fn set(&self, source: RawSource, claimed: bool) {
        let Some((place, bit)) = place(source) else { return };
        let mut table = self.0.borrow_mut();
        if table.len() <= place {
            if !claimed {
                return;
            }
            table.resize(place + 1, 0);
        }
        if claimed {
            table[place] |= bit;
        } else {
            table[place] &= !bit;
        }
    }

    fn has(&self, source: RawSource) -> bool {
        let Some((place, bit)) = place(source) else { return false };
        self.0.borrow().get(place).is_some_and(|bits| bits & bit != 0)
    }
}

fn place(source: RawSource) -> Option<(usize, u64)> {
    let number = usize::try_from(source).ok()?;
    Some((number / 64, 1 << (number % 64)))
}

/// For those who write transports.
impl Wires {
    /// Claims a descriptor that others may have a share of, until [`end_claim`](Self::end_claim).
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if it is claimed already.
    pub fn claim(&self, source: RawSource) -> io::Result<()> {
        self.check_unclaimed(source)?;
        self.claim_own(source);
        Ok(())
    }

    /// Claims a descriptor whose only owner claims it: nobody else can have it open.
    pub fn claim_own(&self, source: RawSource) {
        self.claims.set(source, true);
    }

    /// Ends a claim, before the descriptor is closed.
    pub fn end_claim(&self, source: RawSource) {
        self.claims.set(source, false);
    }

    /// Checks that no transport has a descriptor.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if one has.
    pub fn check_unclaimed(&self, source: RawSource) -> io::Result<()> {
        if !self.claims.has(source) {
            return Ok(());
        }
        let error = format!("descriptor {source} is used by a transport");
        Err(io::Error::new(io::ErrorKind::AlreadyExists, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_claimed_once_until_the_claim_ends() {
        let wires = Wires::default();
        for source in [0, 63, 64, 1000] {
            wires.claim(source).unwrap();
            let error = wires.claim(source).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(error.to_string(), format!("descriptor {source} is used by a transport"));
            assert!(wires.check_unclaimed(source + 1).is_ok());
            // Its only owner knows better.
            wires.claim_own(source);
            wires.end_claim(source);
            wires.end_claim(source + 5000);
            assert!(wires.check_unclaimed(source).is_ok());
        }
    }
}
