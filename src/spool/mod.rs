//! The durable store of accepted mail.
//!
//! # On disk
//!
//! ```text
//! tmp/ID/              being written; swept when older than a day
//! queue/ID/message     the bytes, canonical CRLF, never changed; its advisory lock is
//!                      held by whoever works on the entry
//! queue/ID/entry.json  [`Entry`]: envelope, server, per-recipient state
//! sending/ID.N         an empty file: the last byte of the N-th try may be on the wire
//! owners/PID.ID        an empty file, locked by a process that sends, for its life
//! corrupt/ID/          what could not be read; set aside and reported, never deleted
//! ```
//!
//! - *Commit*: both files into `tmp/ID`, each fsynced; fsync `tmp/ID`; rename to
//!   `queue/ID`; fsync `queue`. Only then is the message accepted.
//! - *Update*: `entry.json~`, fsync, rename to `entry.json`, fsync `queue/ID`.
//! - *Settle*: rename `queue/ID` to `tmp/ID`, fsync `queue`, unlink.
//!
//! - *Mark*: before the last byte goes out, make `sending/ID.N`, N being the entry's
//!   attempts so far, and fsync `sending`: once for all messages that go out together.
//!
//! The lock is advisory and goes with its process: no crash leaves one behind. A marked
//! entry whose lock is free was left by a killed process when its last byte may have
//! been on the wire; who claims it makes it unconfirmed. What is decided about a try is
//! written with the next number, so that an old mark says nothing any more.

mod entry;
pub mod fs;
mod listing;
mod owners;
mod starttls;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub use entry::{Dsn, Entry, EntryId, Need, Recipient, RecipientState, State, Wishes};
use fs::Fs;
pub use listing::Listing;
pub use owners::{Neighbour, Owner};

use crate::mail::Raw;

/// A failed call on the spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A file-system call failed.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// `entry.json` is no entry.
    #[error("{path} is damaged: {reason}", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such entry (any more).
    #[error("no message {0} in the spool")]
    NoSuchEntry(EntryId),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |source| SpoolError::Io {
        action,
        path,
        source,
    }
}

/// The spool in one directory; cheap to share between threads and processes.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    fs: Fs,
}

/// The right to work on an entry; others are kept out until it is dropped.
#[derive(Debug)]
pub struct Claim {
    /// The entry as last written to disk, but for changes not yet stored.
    pub entry: Entry,
    message: File,
}

impl Claim {
    /// The open message file, to read from.
    pub fn message(&self) -> io::Result<File> {
        self.message.try_clone()
    }
}

impl Spool {
    /// Opens the spool in `directory`, making it (mode 0700) if need be.
    pub fn open(directory: PathBuf, fs: Fs) -> Result<Self, SpoolError> {
        let spool = Spool { directory, fs };
        for part in ["tmp", "queue", "sending", "owners", "corrupt"] {
            let path = spool.directory.join(part);
            spool
                .fs
                .make_private_directories(&path)
                .map_err(failed("make the spool directory", &path))?;
        }
        Ok(spool)
    }

    /// The spool's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn temporary(&self, id: EntryId) -> PathBuf {
        self.directory.join("tmp").join(id.to_string())
    }

    fn queue(&self) -> PathBuf {
        self.directory.join("queue")
    }

    fn queued(&self, id: EntryId) -> PathBuf {
        self.queue().join(id.to_string())
    }

    /// Stores a message, with its facts in `entry`; on return it survives a crash or
    /// power cut. On an error nothing is left in the queue.
    pub fn commit(&self, entry: &mut Entry, message: &Raw) -> Result<(), SpoolError> {
        let temporary = self.temporary(entry.id);
        self.write_and_publish(entry, message, &temporary)
            .inspect_err(|_| {
                // Best effort: what stays in tmp is swept later, and is never sent.
                let _ = self.fs.remove_directory(&temporary);
            })
    }

    fn write_and_publish(
        &self,
        entry: &mut Entry,
        message: &Raw,
        temporary: &Path,
    ) -> Result<(), SpoolError> {
        self.fs
            .make_directory(temporary)
            .map_err(failed("make", temporary))?;
        let path = temporary.join("message");
        entry.facts = self
            .fs
            .write_durably(&path, |file| message.write_canonical(file))
            .map_err(failed("write", &path))?;
        let path = temporary.join("entry.json");
        self.fs
            .write_durably(&path, |file| file.write_all(&serialize(entry)))
            .map_err(failed("write", &path))?;
        self.fs
            .sync_directory(temporary)
            .map_err(failed("sync", temporary))?;
        let queued = self.queued(entry.id);
        self.fs
            .rename(temporary, &queued)
            .map_err(failed("queue", temporary))?;
        let queue = self.queue();
        self.fs.sync_directory(&queue).map_err(|source| {
            // Not known to be durable, so not accepted: it must not be sent either.
            let _ = self.fs.rename(&queued, temporary);
            failed("sync", &queue)(source)
        })
    }

    /// Reads one entry without claiming it.
    pub fn load(&self, id: EntryId) -> Result<Entry, SpoolError> {
        let path = self.queued(id).join("entry.json");
        let bytes = match self.fs.read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SpoolError::NoSuchEntry(id));
            }
            result => result.map_err(failed("read", &path))?,
        };
        let damaged = |reason| SpoolError::Damaged { path, reason };
        let entry: Entry =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if entry.id != id || entry.version != 1 {
            let reason = format!("it says id {}, version {}", entry.id, entry.version);
            return Err(SpoolError::Damaged {
                path: self.queued(id).join("entry.json"),
                reason,
            });
        }
        Ok(entry)
    }

    /// The stored bytes of an entry.
    pub fn message(&self, id: EntryId) -> Result<Vec<u8>, SpoolError> {
        let path = self.queued(id).join("message");
        match self.fs.read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SpoolError::NoSuchEntry(id))
            }
            result => result.map_err(failed("read", &path)),
        }
    }

    /// Claims an entry. `None` if somebody else works on it. An entry whose owner was
    /// killed at its last byte comes back with its pending recipients unconfirmed.
    pub fn claim(&self, id: EntryId) -> Result<Option<Claim>, SpoolError> {
        let path = self.queued(id).join("message");
        let message = match self.fs.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SpoolError::NoSuchEntry(id));
            }
            result => result.map_err(failed("open", &path))?,
        };
        if !self
            .fs
            .try_lock(&message, &path)
            .map_err(failed("lock", &path))?
        {
            return Ok(None);
        }
        // Read only now: the owner before us may have changed it, or settled it.
        let entry = self.load(id)?;
        let mut claim = Claim { entry, message };
        if self.is_marked(&claim.entry) {
            claim
                .entry
                .turn(&[RecipientState::Pending], RecipientState::Unconfirmed);
            claim.entry.error = Some(
                "Emacs ended while the message's last part was being sent; \
                 the server may have it"
                    .to_owned(),
            );
            let marked = claim.entry.clone();
            claim.entry.attempts += 1;
            self.update(&claim)?;
            self.unmark(&marked);
        }
        Ok(Some(claim))
    }

    /// Stores the claimed entry's changes.
    pub fn update(&self, claim: &Claim) -> Result<(), SpoolError> {
        let path = self.queued(claim.entry.id).join("entry.json");
        self.fs
            .replace_durably(&path, &serialize(&claim.entry))
            .map_err(failed("write", &path))
    }

    /// Writes the claimed message, with LF line ends, to its entry's origin, as a whole
    /// or not at all.
    pub fn export(&self, claim: &Claim) -> Result<(), SpoolError> {
        let Some(origin) = &claim.entry.wishes.origin else {
            return Ok(());
        };
        let mut bytes = self.message(claim.entry.id)?;
        // Stored lines end in CRLF, and there is no other CR.
        bytes.retain(|&octet| octet != b'\r');
        self.fs
            .replace_durably(origin, &bytes)
            .map_err(failed("write", origin))
    }

    fn mark(&self, entry: &Entry) -> PathBuf {
        let name = format!("{}.{}", entry.id, entry.attempts);
        self.directory.join("sending").join(name)
    }

    /// Records that the last byte of each of these may be on the wire from now on.
    pub fn mark_sending(&self, claims: &[&Claim]) -> Result<(), SpoolError> {
        for claim in claims {
            let mark = self.mark(&claim.entry);
            self.fs.make_empty(&mark).map_err(failed("make", &mark))?;
        }
        let sending = self.directory.join("sending");
        self.fs
            .sync_directory(&sending)
            .map_err(failed("sync", &sending))
    }

    /// Takes a mark back, as far as a crash of this process goes. After a power cut it
    /// may be there again, and then the user is asked once too often.
    pub fn unmark(&self, entry: &Entry) {
        let _ = self.fs.remove_file(&self.mark(entry));
    }

    /// Whether the entry's last byte may be on the wire.
    pub fn is_marked(&self, entry: &Entry) -> bool {
        self.fs.exists(&self.mark(entry))
    }

    /// Removes the claimed entry: sent, or deleted by the user.
    pub fn settle(&self, claim: Claim) -> Result<(), SpoolError> {
        self.settle_all(vec![claim])
            .into_iter()
            .try_for_each(|(_, result)| result)
    }

    /// Removes several claimed entries, at the cost of one; the result is for each.
    pub fn settle_all(&self, claims: Vec<Claim>) -> Vec<(Claim, Result<(), SpoolError>)> {
        let removals: Vec<_> = claims
            .iter()
            .map(|claim| {
                let queued = self.queued(claim.entry.id);
                self.fs
                    .rename(&queued, &self.temporary(claim.entry.id))
                    .map_err(failed("remove", &queued))
            })
            .collect();
        let queue = self.queue();
        let synced = self.fs.sync_directory(&queue);
        let settled = claims.into_iter().zip(removals).map(|(claim, removed)| {
            let result = removed.and_then(|()| match &synced {
                Ok(()) => Ok(()),
                Err(error) => Err(failed("sync", &queue)(error.kind().into())),
            });
            if result.is_ok() {
                // They are out of the queue; what can't be unlinked now is swept later.
                let _ = self.fs.remove_directory(&self.temporary(claim.entry.id));
                self.unmark(&claim.entry);
            }
            (claim, result)
        });
        settled.collect()
    }

    /// Whether somebody holds the entry's lock now.
    pub fn is_claimed(&self, id: EntryId) -> bool {
        let path = self.queued(id).join("message");
        match File::open(&path) {
            Ok(file) => matches!(
                file.try_lock_shared(),
                Err(std::fs::TryLockError::WouldBlock)
            ),
            Err(_) => false,
        }
    }
}

fn serialize(entry: &Entry) -> Vec<u8> {
    // Strings, numbers and lists of them: there is nothing serde_json could refuse.
    serde_json::to_vec_pretty(entry).unwrap_or_default()
}

fn id_of(path: &Path) -> Option<EntryId> {
    EntryId::parse(path.file_name()?.to_str()?)
}
