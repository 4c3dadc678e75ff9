//! Messages that the server has accepted and whose copies Lisp files just now: claimed,
//! so that no other Emacs files them too.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::spool::{Claim, EntryId};

/// The claims on them.
#[derive(Debug, Default)]
pub struct Copies(Mutex<HashMap<EntryId, Claim>>);

impl Copies {
    fn lock(&self) -> MutexGuard<'_, HashMap<EntryId, Claim>> {
        // Every change is one insertion or removal: a panic leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a claim until the copy is filed.
    pub fn hold(&self, claim: Claim) {
        self.lock().insert(claim.entry.id, claim);
    }

    /// Gives the claim back.
    pub fn take(&self, id: EntryId) -> Option<Claim> {
        self.lock().remove(&id)
    }
}
