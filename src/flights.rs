//! Which messages sessions work on now, and whether they can still be stopped: shared
//! by Emacs's thread, which cancels, and the native one, which sends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::spool::EntryId;

/// How far a message in flight has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Sending,
    /// The last byte may be on the wire: the server decides now.
    Released,
    Cancelled {
        remove: bool,
    },
}

/// What became of an attempt to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// No session works on it.
    NotInFlight,
    /// It will be stopped.
    Stopping,
    /// The server already has the last byte, or may.
    TooLate,
}

/// The messages in flight in this process.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<EntryId, Phase>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<EntryId, Phase>> {
        // Every change is one insertion or removal: a panic leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session has begun to work on it.
    pub fn begin(&self, id: EntryId) {
        self.lock().insert(id, Phase::Sending);
    }

    /// No session works on it any more. Returns whether it had been cancelled, and
    /// then whether it is to be removed.
    pub fn end(&self, id: EntryId) -> Option<bool> {
        match self.lock().remove(&id) {
            Some(Phase::Cancelled { remove }) => Some(remove),
            _ => None,
        }
    }

    /// Whether a session works on it.
    pub fn contains(&self, id: EntryId) -> bool {
        self.lock().contains_key(&id)
    }

    /// How many are in flight.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Forgets all, for the sessions have ended.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Asks for the last byte to go out; false if it was cancelled before.
    pub fn release(&self, id: EntryId) -> bool {
        match self.lock().get_mut(&id) {
            Some(phase @ Phase::Sending) => {
                *phase = Phase::Released;
                true
            }
            Some(Phase::Released) => true,
            Some(Phase::Cancelled { .. }) | None => false,
        }
    }

    /// Cancels it if that is still possible; `remove` tells what for.
    pub fn cancel(&self, id: EntryId, remove: bool) -> Cancellation {
        match self.lock().get_mut(&id) {
            None => Cancellation::NotInFlight,
            Some(Phase::Released) => Cancellation::TooLate,
            Some(phase) => {
                *phase = Phase::Cancelled { remove };
                Cancellation::Stopping
            }
        }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self, id: EntryId) -> bool {
        matches!(self.lock().get(&id), Some(Phase::Cancelled { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_and_a_cancellation_exclude_each_other() {
        let flights = Flights::default();
        let (first, second) = (EntryId::new(), EntryId::new());
        assert_eq!(flights.cancel(first, false), Cancellation::NotInFlight);
        flights.begin(first);
        flights.begin(second);
        assert!(flights.release(first));
        assert_eq!(flights.cancel(first, false), Cancellation::TooLate);
        assert_eq!(flights.cancel(second, true), Cancellation::Stopping);
        assert!(!flights.release(second));
        assert_eq!(flights.end(second), Some(true));
        assert_eq!(flights.end(first), None);
        assert_eq!(flights.count(), 0);
    }
}
