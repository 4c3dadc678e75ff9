//! What this process holds of the spool, and who has the say about it: the user, on
//! Emacs's thread, or a session, on the native one.
//!
//! Every question between the two is decided here, under one lock, before anything is
//! written. A session that wants to let the last octets of a message go asks first; from
//! then on the user is told that it is too late. The user who stops a message is told yes
//! only while no session has asked; from then on the session must carry that out, whatever
//! the server or a retry does meanwhile, and cannot let go of the message before it has.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::spool::{Claim, EntryId, Spool, SpoolError};

/// Numbers the sessions of this process.
pub type SessionNumber = u64;

/// What the user wants of a message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// That it stays in the spool, and is not sent.
    Hold,
    /// That it goes from the spool.
    Remove,
}

/// Whether a message in flight will be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// No session has it.
    NotInFlight,
    /// It will.
    Promised,
    /// The server has the last octet, or may.
    TooLate,
}

/// What came of claiming a message for a session.
#[derive(Debug)]
pub enum Claimed {
    /// The session has it.
    Claim(Box<Claim>),
    /// Something else in this process has it.
    Ours,
    /// Another process has it.
    Theirs,
}

/// Who holds a message.
#[derive(Debug)]
enum Holder {
    /// Emacs's thread changes it just now.
    User,
    /// A session works on it.
    Session(SessionNumber, Phase),
    /// Nobody: it is accepted, and Lisp files its copy.
    Filing(Box<Claim>),
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// It can be stopped.
    Stoppable,
    /// The last octet may be on the wire: the server decides.
    Released,
    /// The user has been told that it will be stopped.
    Stopped(Stop),
}

/// The messages that this process holds.
#[derive(Debug, Default)]
pub struct InFlight {
    holders: Mutex<HashMap<EntryId, Holder>>,
    /// A session has let go of a message.
    ended: Condvar,
}

/// A message that Emacs's thread changes; others are kept out until it is dropped.
#[derive(Debug)]
pub struct UserClaim<'a> {
    /// The claim in the spool; unlocked before this process lets go of it.
    pub claim: Claim,
    holder: UserHolder<'a>,
}

#[derive(Debug)]
struct UserHolder<'a>(&'a InFlight, EntryId);

impl Drop for UserHolder<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl UserClaim<'_> {
    /// Keeps the message until Lisp has filed its copy.
    pub fn keep_for_filing(self) {
        let UserClaim { claim, holder } = self;
        let (in_flight, id) = (holder.0, claim.entry.id);
        let mut holders = in_flight.lock();
        holders.insert(id, Holder::Filing(Box::new(claim)));
        std::mem::forget(holder);
    }
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashMap<EntryId, Holder>> {
        // Every change is one insertion or removal: a panic leaves no half of one.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a message for a session. (The lock is kept meanwhile, so that Emacs's
    /// thread never finds a message that is neither in flight nor to be claimed.)
    pub fn claim(
        &self,
        spool: &Spool,
        id: EntryId,
        session: SessionNumber,
    ) -> Result<Claimed, SpoolError> {
        let mut holders = self.lock();
        if holders.contains_key(&id) {
            return Ok(Claimed::Ours);
        }
        let Some(claim) = spool.claim(id)? else {
            return Ok(Claimed::Theirs);
        };
        holders.insert(id, Holder::Session(session, Phase::Stoppable));
        Ok(Claimed::Claim(Box::new(claim)))
    }

    /// Claims a message for Emacs's thread; `None` if somebody else works on it.
    pub fn claim_for_user(
        &self,
        spool: &Spool,
        id: EntryId,
    ) -> Result<Option<UserClaim<'_>>, SpoolError> {
        let mut holders = self.lock();
        if holders.contains_key(&id) {
            return Ok(None);
        }
        let claim = spool.claim(id)?;
        Ok(claim.map(|claim| self.held_by_user(&mut holders, claim)))
    }

    /// Takes a message whose copy Lisp files back to Emacs's thread.
    pub fn take_from_filing(&self, id: EntryId) -> Option<UserClaim<'_>> {
        let mut holders = self.lock();
        match holders.remove(&id)? {
            Holder::Filing(claim) => Some(self.held_by_user(&mut holders, *claim)),
            holder => {
                holders.insert(id, holder);
                None
            }
        }
    }

    fn held_by_user(&self, holders: &mut HashMap<EntryId, Holder>, claim: Claim) -> UserClaim<'_> {
        let id = claim.entry.id;
        holders.insert(id, Holder::User);
        UserClaim {
            claim,
            holder: UserHolder(self, id),
        }
    }

    /// Asks for the last octets to go out; false if the user has stopped the message.
    pub fn release(&self, id: EntryId) -> bool {
        match self.lock().get_mut(&id) {
            Some(Holder::Session(_, phase @ (Phase::Stoppable | Phase::Released))) => {
                *phase = Phase::Released;
                true
            }
            _ => false,
        }
    }

    /// Stops a message if that is still possible.
    pub fn stop(&self, id: EntryId, stop: Stop) -> Stopping {
        match self.lock().get_mut(&id) {
            Some(Holder::Session(_, Phase::Released)) => Stopping::TooLate,
            Some(Holder::Session(_, phase)) => {
                let before = match *phase {
                    Phase::Stopped(before) => before,
                    _ => Stop::Hold,
                };
                *phase = Phase::Stopped(before.max(stop));
                Stopping::Promised
            }
            _ => Stopping::NotInFlight,
        }
    }

    /// What the user wants of a message that a session has.
    pub fn stopped(&self, id: EntryId) -> Option<Stop> {
        match self.lock().get(&id) {
            Some(Holder::Session(_, Phase::Stopped(stop))) => Some(*stop),
            _ => None,
        }
    }

    /// Lets a session's message go, all about it being written, `done` what the user wanted;
    /// or not, if the user wants more of it by now, which is to be carried out first.
    pub fn end(&self, claim: Claim, done: Option<Stop>) -> Option<(Claim, Stop)> {
        let mut holders = self.lock();
        let id = claim.entry.id;
        match holders.get(&id) {
            Some(Holder::Session(_, Phase::Stopped(stop))) if Some(*stop) > done => {
                return Some((claim, *stop));
            }
            _ => holders.remove(&id),
        };
        // Unlocked before anybody learns that it is not in flight.
        drop(claim);
        self.ended.notify_all();
        None
    }

    /// Keeps an accepted message until Lisp has filed its copy.
    pub fn keep_for_filing(&self, claim: Claim) {
        self.lock()
            .insert(claim.entry.id, Holder::Filing(Box::new(claim)));
        self.ended.notify_all();
    }

    /// Waits until no session has the message, at most `limit`.
    pub fn wait_for_end(&self, id: EntryId, limit: Duration) {
        let end = Instant::now() + limit;
        let mut holders = self.lock();
        while matches!(holders.get(&id), Some(Holder::Session(..))) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.ended.wait_timeout(holders, left);
            holders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Forgets a message whose claim is gone, `done` what the user wanted; or tells what the
    /// user wants of it by now, which is to be carried out first.
    pub fn abandon(&self, id: EntryId, done: Option<Stop>) -> Option<Stop> {
        let mut holders = self.lock();
        match holders.get(&id) {
            Some(Holder::Session(_, Phase::Stopped(stop))) if Some(*stop) > done => Some(*stop),
            _ => {
                holders.remove(&id);
                self.ended.notify_all();
                None
            }
        }
    }

    /// What a session has; without one, what all have.
    pub fn of_session(&self, session: Option<SessionNumber>) -> Vec<EntryId> {
        let holders = self.lock();
        let its = holders.iter().filter(|(_, holder)| match holder {
            Holder::Session(number, _) => session.is_none_or(|session| session == *number),
            _ => false,
        });
        its.map(|(&id, _)| id).collect()
    }

    /// Whether Lisp files the message's copy.
    pub fn is_filing(&self, id: EntryId) -> bool {
        matches!(self.lock().get(&id), Some(Holder::Filing(_)))
    }

    /// Whether a session has the message.
    pub fn contains(&self, id: EntryId) -> bool {
        matches!(self.lock().get(&id), Some(Holder::Session(..)))
    }

    /// How many messages sessions have.
    pub fn count(&self) -> usize {
        let holders = self.lock();
        let in_sessions = holders
            .values()
            .filter(|holder| matches!(holder, Holder::Session(..)));
        in_sessions.count()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::mail::{Path, Port, Raw, Server, StreamType, Timestamp};
    use crate::spool::fs::Fs;
    use crate::spool::{Entry, Wishes};

    fn spool_with_one() -> (tempfile::TempDir, Spool, EntryId) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path().join("spool"), Fs::default()).unwrap();
        let (host, name) = ("localhost".to_owned(), "here".to_owned());
        let port = Port::Number(25);
        let server = Server::new(host, port, StreamType::Plain, None, name, false).unwrap();
        let to = vec![Path::parse("a@b", "to").unwrap()];
        let mut entry = Entry::new(
            EntryId::new(),
            Path::null(),
            to,
            server,
            Wishes::default(),
            Timestamp(1),
        );
        let message = Raw::from(&b"A: b\n\nc\n"[..]);
        spool.commit(&mut entry, &message).unwrap();
        (directory, spool, entry.id)
    }

    fn claimed(in_flight: &InFlight, spool: &Spool, id: EntryId) -> Claim {
        match in_flight.claim(spool, id, 1).unwrap() {
            Claimed::Claim(claim) => *claim,
            other => panic!("{other:?}"),
        }
    }

    /// What the two threads may do, in every order.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Step {
        Hold,
        Remove,
        Release,
        End,
    }

    #[test]
    fn in_every_order_a_promise_is_kept_or_not_given() {
        use Step::{End, Hold, Release, Remove};
        let (_directory, spool, id) = spool_with_one();
        let steps = [Hold, Remove, Release, End];
        for order in (0..4_usize.pow(4)).map(|mut number| {
            [(); 4].map(|()| {
                let step = steps[number % 4];
                number /= 4;
                step
            })
        }) {
            let in_flight = InFlight::default();
            let mut held = Some(claimed(&in_flight, &spool, id));
            let (mut promised, mut done, mut is_released) = (None, None, false);
            for step in order {
                match step {
                    Hold | Remove => {
                        let stop = if step == Hold {
                            Stop::Hold
                        } else {
                            Stop::Remove
                        };
                        match in_flight.stop(id, stop) {
                            Stopping::Promised => promised = promised.max(Some(stop)),
                            Stopping::TooLate => assert!(is_released, "{order:?}"),
                            Stopping::NotInFlight => assert!(held.is_none(), "{order:?}"),
                        }
                    }
                    Release => {
                        let may = in_flight.release(id);
                        assert_eq!(may, held.is_some() && promised.is_none(), "{order:?}");
                        is_released |= may;
                    }
                    // The session writes what it has decided, and then what it is told.
                    End => {
                        while let Some(claim) = held.take() {
                            if let Some((claim, stop)) = in_flight.end(claim, done) {
                                done = Some(stop);
                                held = Some(claim);
                            }
                        }
                        assert_eq!(done, promised, "{order:?}");
                        // It is free for whoever comes.
                        assert!(in_flight.claim_for_user(&spool, id).unwrap().is_some());
                    }
                }
            }
        }
    }

    #[test]
    fn what_one_holds_the_other_does_not_get() {
        let (_directory, spool, id) = spool_with_one();
        let in_flight = InFlight::default();
        let by_user = in_flight.claim_for_user(&spool, id).unwrap().unwrap();
        assert!(matches!(in_flight.claim(&spool, id, 1), Ok(Claimed::Ours)));
        assert_eq!(in_flight.stop(id, Stop::Hold), Stopping::NotInFlight);
        drop(by_user);
        let elsewhere = spool.claim(id).unwrap();
        assert!(matches!(
            in_flight.claim(&spool, id, 1),
            Ok(Claimed::Theirs)
        ));
        drop(elsewhere);
        let claim = claimed(&in_flight, &spool, id);
        assert!(in_flight.claim_for_user(&spool, id).unwrap().is_none());
        in_flight.keep_for_filing(claim);
        assert!(in_flight.is_filing(id) && !in_flight.contains(id));
        assert!(in_flight.claim_for_user(&spool, id).unwrap().is_none());
        in_flight.take_from_filing(id).unwrap().keep_for_filing();
        assert!(in_flight.take_from_filing(id).is_some());
        assert!(in_flight.claim_for_user(&spool, id).unwrap().is_some());
    }
}
