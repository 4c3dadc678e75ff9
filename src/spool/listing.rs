//! The spool as a whole: what is in it, and what has to be tidied up.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use super::{Entry, EntryId, RecipientState, Spool, SpoolError, State, failed, id_of};
use crate::mail::Timestamp;

const SWEEP_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What [`Spool::list`] found.
#[derive(Debug, Default)]
pub struct Listing {
    /// The entries and their states, oldest first.
    pub entries: Vec<(Entry, State)>,
    /// What could not be read, one readable text each.
    pub problems: Vec<String>,
}

impl Spool {
    /// All entries with their states, oldest first, as they are on disk now. `is_ours`
    /// tells those that sessions of this process work on. What is damaged is set aside.
    pub fn list(
        &self,
        now: Timestamp,
        is_ours: impl Fn(EntryId) -> bool,
    ) -> Result<Listing, SpoolError> {
        let marks = self.marks()?;
        let queue = self.queue();
        let paths = self.fs.list(&queue).map_err(failed("list", &queue))?;
        let mut listing = Listing::default();
        for path in paths {
            let checked = id_of(&path).map(|id| self.load(id));
            let reason = match checked {
                Some(Ok(entry)) if self.finish_settling(&entry) => continue,
                Some(Ok(entry)) => {
                    let is_marked = marks.contains(&(entry.id, entry.attempts));
                    let is_ours = is_ours(entry.id);
                    match self.with_state(entry, is_ours, is_marked, now) {
                        Ok(seen) => listing.entries.push(seen),
                        Err(error) => listing.problems.push(error.to_string()),
                    }
                    continue;
                }
                Some(Err(SpoolError::Damaged { reason, .. })) => reason,
                // Sent by another process since the directory was read.
                Some(Err(SpoolError::NoSuchEntry(_))) => continue,
                // Unreadable now is not damaged: it may be readable again.
                Some(Err(error @ SpoolError::Io { .. })) => {
                    listing.problems.push(error.to_string());
                    continue;
                }
                None => "it is no message of this spool".to_owned(),
            };
            listing.problems.push(self.set_aside(&path, &reason));
        }
        Ok(listing)
    }

    /// One entry with its state.
    pub fn look(
        &self,
        id: EntryId,
        is_ours: bool,
        now: Timestamp,
    ) -> Result<(Entry, State), SpoolError> {
        let entry = self.load(id)?;
        let is_marked = !is_ours && self.is_marked(&entry)?;
        self.with_state(entry, is_ours, is_marked, now)
    }

    fn with_state(
        &self,
        mut entry: Entry,
        is_ours: bool,
        is_marked: bool,
        now: Timestamp,
    ) -> Result<(Entry, State), SpoolError> {
        let is_marked = is_marked && !is_ours;
        let is_in_flight = is_ours || (is_marked && self.is_claimed(entry.id)?);
        if is_marked && !is_in_flight {
            // Whoever claims it next will write that down.
            entry.turn(&[RecipientState::Pending], RecipientState::Unconfirmed);
        }
        let state = match entry.state(is_in_flight, now) {
            State::Pending | State::Scheduled if self.waits_for_origin(&entry) => State::Held,
            state => state,
        };
        Ok((entry, state))
    }

    /// Whether the entry waits for a try that nobody has to ask for: also, if so wished, of
    /// what is unconfirmed. Or it was left unconfirmed by a killed Emacs, and is claimed so
    /// that this is told.
    pub fn is_to_be_taken_up(
        &self,
        entry: &Entry,
        state: State,
        retries_unconfirmed: bool,
    ) -> bool {
        let is_ready = entry.is_ready() && !self.waits_for_origin(entry);
        let is_unconfirmed = state == State::Unconfirmed;
        is_ready
            || (is_unconfirmed && (retries_unconfirmed || self.is_marked(entry).unwrap_or(false)))
    }

    /// The tries whose last byte may be on the wire.
    fn marks(&self) -> Result<HashSet<(EntryId, u32)>, SpoolError> {
        let sending = self.directory.join("sending");
        let paths = self.fs.list(&sending).map_err(failed("list", &sending))?;
        let marks = paths.iter().filter_map(|path| {
            let (id, attempts) = path.file_name()?.to_str()?.split_once('.')?;
            Some((EntryId::parse(id)?, attempts.parse().ok()?))
        });
        Ok(marks.collect())
    }

    /// Sweeps what interrupted commits and settlements left more than a day ago.
    pub fn sweep(&self) -> Result<(), SpoolError> {
        for part in ["tmp", "state", "sending", "lock"] {
            let directory = self.directory.join(part);
            let paths = self.fs.list(&directory);
            for path in paths.map_err(failed("list", &directory))? {
                let is_needed = match path.file_stem().and_then(|stem| stem.to_str()) {
                    Some(stem) => EntryId::parse(stem)
                        // In doubt it is left alone.
                        .is_some_and(|id| self.fs.exists(&self.queued(id)).unwrap_or(true)),
                    None => false,
                };
                if !is_needed && self.fs.age(&path).is_ok_and(|age| age > SWEEP_AGE) {
                    // There will be another time.
                    let _ = self.fs.remove_file(&path);
                }
            }
        }
        Ok(())
    }

    /// Removes an entry that was delivered and could not be removed then. False if it
    /// is no such entry, or cannot be removed now either.
    fn finish_settling(&self, entry: &Entry) -> bool {
        if !entry.is_done() {
            return false;
        }
        match self.claim(entry.id) {
            Ok(Some(claim)) if claim.entry.is_done() => self.settle(&claim).is_ok(),
            _ => false,
        }
    }

    fn set_aside(&self, path: &Path, reason: &str) -> String {
        let name = path.file_name().unwrap_or_default();
        let aside = self.directory.join("corrupt").join(name);
        match self.fs.rename(path, &aside) {
            Ok(()) => {
                // What says which recipients have it belongs to it.
                let state = self.directory.join("state").join(name);
                let _ = self.fs.rename(&state, &aside.with_extension("state"));
                format!(
                    "{} was set aside as {}: {reason}",
                    path.display(),
                    aside.display()
                )
            }
            Err(error) => format!(
                "{}: {reason}; setting it aside failed: {error}",
                path.display()
            ),
        }
    }
}
