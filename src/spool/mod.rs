//! The durable store of accepted mail.
//!
//! # On disk
//!
//! ```text
//! queue/ID         an accepted message, as it was accepted; never changed:
//!                  its octets, canonical CRLF, then the entry, one line of JSON, then
//!                  the message's octets as a number of 20 digits and a line end
//! state/ID         the [`Entry`] as it is now, JSON; as soon as it differs from queue/ID
//! sending/ID.N     an empty file: the last byte of the N-th try may be on the wire
//! lock/ID          an empty file; whoever works on the entry holds its advisory lock
//! owners/PID.ID    an empty file, locked by a process that sends, for its life
//! tmp/             what is being written; swept when older than a day
//! corrupt/         what could not be read; set aside and reported, never deleted
//! starttls-seen    see `starttls.rs`
//! ```
//!
//! - *Commit*: `tmp/ID`, fsync; rename to `queue/ID`; fsync `queue`. Only then is the
//!   message accepted: two waits for the disk, whatever the message.
//! - *Update*: `tmp/ID.state`, fsync; rename to `state/ID`; fsync `state`.
//! - *Mark*: before the last byte goes out, make `sending/ID.N`, N being the entry's
//!   attempts so far, and fsync `sending`: once for all messages that go out together.
//! - *Settle*: unlink `queue/ID`, fsync `queue`, again once for all; only then unlink
//!   what else there is of the entry, for without it the message would be new again.
//!
//! What has no `queue/ID` is no message, whatever else there is of it. The lock is
//! advisory and goes with its process: no crash leaves one behind. It is on a file of its
//! own, since on some systems a locked file can be neither read by others nor renamed. A
//! marked entry whose lock is free was left by a killed process when its last byte may
//! have been on the wire; who claims it makes it unconfirmed. What is decided about a try
//! is written with the next number, so that an old mark says nothing any more.

mod entry;
pub mod fs;
mod listing;
mod owners;
mod starttls;

use std::fs::File;
use std::io::{self, Read, Take};
use std::path::{Path, PathBuf};

pub use entry::{Dsn, Entry, EntryId, Need, Recipient, RecipientState, State, Wishes};
use fs::{Fs, Lock};
pub use listing::Listing;
pub use owners::{Others, Owner};

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
    /// A file is no entry.
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
    message: PathBuf,
    fs: Fs,
    _lock: Lock,
}

impl Claim {
    /// The message, to read from: its octets are the file's first.
    pub fn message(&self) -> io::Result<Take<File>> {
        Ok(self.fs.open(&self.message)?.take(self.entry.facts.size))
    }
}

/// Octets of the line that ends a file of the queue.
const LENGTH_LINE: usize = 21;
/// So many octets at its end are read at once; most entries are shorter.
const END: u32 = 4096;

impl Spool {
    /// Opens the spool in `directory`, making it (mode 0700) if need be.
    pub fn open(directory: PathBuf, fs: Fs) -> Result<Self, SpoolError> {
        let spool = Spool { directory, fs };
        for part in [
            "tmp", "state", "sending", "lock", "owners", "corrupt", "queue",
        ] {
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

    fn in_part(&self, part: &str, id: EntryId) -> PathBuf {
        self.directory.join(part).join(id.to_string())
    }

    fn queue(&self) -> PathBuf {
        self.directory.join("queue")
    }

    fn queued(&self, id: EntryId) -> PathBuf {
        self.in_part("queue", id)
    }

    /// Stores a message, with its facts in `entry`; on return it survives a crash or
    /// power cut. On an error nothing is left in the queue.
    pub fn commit(&self, entry: &mut Entry, message: &Raw) -> Result<(), SpoolError> {
        let temporary = self.in_part("tmp", entry.id);
        self.write_and_publish(entry, message, &temporary)
            .inspect_err(|_| {
                // Best effort: what stays in tmp is swept later, and is never sent.
                let _ = self.fs.remove_file(&temporary);
            })
    }

    fn write_and_publish(
        &self,
        entry: &mut Entry,
        message: &Raw,
        temporary: &Path,
    ) -> Result<(), SpoolError> {
        self.fs
            .write_durably(temporary, |file| {
                entry.facts = message.write_canonical(file)?;
                let mut end = serialize(entry);
                end.extend_from_slice(format!("\n{:020}\n", entry.facts.size).as_bytes());
                file.write_all(&end)
            })
            .map_err(failed("write", temporary))?;
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
        let (queued, state) = (self.queued(id), self.in_part("state", id));
        // Read first, for what settles an entry unlinks it last.
        let changed = match self.fs.read(&state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.map_err(failed("read", &state))?),
        };
        let end = self.fs.read_from(&queued, -i64::from(END));
        let (length, end) = match end {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SpoolError::NoSuchEntry(id));
            }
            read => read.map_err(failed("read", &queued))?,
        };
        let size = message_size(&end)
            .filter(|&size| size + (LENGTH_LINE as u64) < length)
            .ok_or_else(|| damaged(&queued, "it ends too early"))?;
        let json = match (size + end.len() as u64).checked_sub(length) {
            Some(start) => end[start as usize..].to_vec(),
            None => {
                let rest = self.fs.read_from(&queued, size as i64);
                rest.map_err(failed("read", &queued))?.1
            }
        };
        let json = &json[..json.len().saturating_sub(LENGTH_LINE)];
        // Also if the state is read: this one tells whether the message is whole.
        let accepted = parse(id, size, json).map_err(|reason| damaged(&queued, &reason))?;
        match changed {
            Some(json) => parse(id, size, &json).map_err(|reason| damaged(&state, &reason)),
            None => Ok(accepted),
        }
    }

    /// The stored bytes of an entry.
    pub fn message(&self, id: EntryId) -> Result<Vec<u8>, SpoolError> {
        let size = self.load(id)?.facts.size;
        let path = self.queued(id);
        match self.fs.read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SpoolError::NoSuchEntry(id))
            }
            read => {
                let mut bytes = read.map_err(failed("read", &path))?;
                bytes.truncate(size as usize);
                Ok(bytes)
            }
        }
    }

    /// Claims an entry. `None` if somebody else works on it. An entry whose owner was
    /// killed at its last byte comes back with its pending recipients unconfirmed.
    pub fn claim(&self, id: EntryId) -> Result<Option<Claim>, SpoolError> {
        // Without this, each look at what is gone would leave a lock file.
        let queued = self.queued(id);
        if !self
            .fs
            .exists(&queued)
            .map_err(failed("look for", &queued))?
        {
            return Err(SpoolError::NoSuchEntry(id));
        }
        let path = self.in_part("lock", id);
        let lock = self.fs.open_lock(&path).map_err(failed("open", &path))?;
        let lock = self.fs.try_lock(lock, &path);
        let Some(lock) = lock.map_err(failed("lock", &path))? else {
            return Ok(None);
        };
        // Read only now: the owner before us may have changed it, or settled it.
        let entry = self.load(id).inspect_err(|error| {
            if matches!(error, SpoolError::NoSuchEntry(_)) {
                let _ = self.fs.remove_file(&path);
            }
        })?;
        let mut claim = Claim {
            entry,
            message: queued,
            fs: self.fs.clone(),
            _lock: lock,
        };
        if self.is_marked(&claim.entry)? {
            claim
                .entry
                .turn(&[RecipientState::Pending], RecipientState::Unconfirmed);
            claim.entry.error = Some(
                "Emacs ended while the message's last part was being sent; \
                 the server may have it"
                    .to_owned(),
            );
            claim.entry.attempts += 1;
            self.update(&claim)?;
            self.unmark(id, claim.entry.attempts - 1);
        }
        Ok(Some(claim))
    }

    /// Stores the claimed entry's changes.
    pub fn update(&self, claim: &Claim) -> Result<(), SpoolError> {
        let path = self.in_part("state", claim.entry.id);
        let temporary = self.in_part("tmp", claim.entry.id).with_extension("state");
        self.fs
            .replace_durably(&path, &temporary, &serialize(&claim.entry))
            .map_err(failed("write", &path))
    }

    /// Whether a file outside of the spool stands for the entry's message, perhaps by the
    /// name that a Maildir program has given it since; also if that can't be told.
    pub fn waits_for_origin(&self, entry: &Entry) -> bool {
        let origin = entry.wishes.origin.as_ref();
        origin.is_some_and(|file| {
            self.fs.exists(file).unwrap_or(true) || self.is_renamed(file).unwrap_or(true)
        })
    }

    /// Whether there is a file that has the name of `file` but for flags (`:2,S`), in its
    /// directory or, if that is `cur` or `new` of a Maildir, in the other one.
    fn is_renamed(&self, file: &Path) -> io::Result<bool> {
        let unique = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let end = [":2,", ";2,", "!2,"]
                .into_iter()
                .find_map(|mark| name.find(mark));
            name[..end.unwrap_or(name.len())].to_owned()
        };
        let directory = file.parent().unwrap_or(Path::new(""));
        let mut directories = vec![directory.to_owned()];
        if directory.ends_with("cur") || directory.ends_with("new") {
            directories = ["cur", "new"]
                .map(|name| directory.with_file_name(name))
                .into();
        }
        for directory in directories {
            let paths = match self.fs.list(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                paths => paths?,
            };
            if paths.iter().any(|path| unique(path) == unique(file)) {
                return Ok(true);
            }
        }
        Ok(false)
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
        let mut temporary = origin.clone().into_os_string();
        temporary.push("~");
        self.fs
            .replace_durably(origin, Path::new(&temporary), &bytes)
            .map_err(failed("write", origin))
    }

    fn mark(&self, id: EntryId, attempt: u32) -> PathBuf {
        self.directory
            .join("sending")
            .join(format!("{id}.{attempt}"))
    }

    /// Records that the last byte of each of these tries may be on the wire from now on.
    pub fn mark_sending(&self, tries: &[(EntryId, u32)]) -> Result<(), SpoolError> {
        for &(id, attempt) in tries {
            let mark = self.mark(id, attempt);
            self.fs.make_empty(&mark).map_err(failed("make", &mark))?;
        }
        let sending = self.directory.join("sending");
        self.fs
            .sync_directory(&sending)
            .map_err(failed("sync", &sending))
    }

    /// Takes a mark back, as far as a crash of this process goes. After a power cut it
    /// may be there again, and then the user is asked once too often.
    pub fn unmark(&self, id: EntryId, attempt: u32) {
        let _ = self.fs.remove_file(&self.mark(id, attempt));
    }

    /// Whether the entry's last byte may be on the wire.
    pub fn is_marked(&self, entry: &Entry) -> Result<bool, SpoolError> {
        let mark = self.mark(entry.id, entry.attempts);
        self.fs.exists(&mark).map_err(failed("look for", &mark))
    }

    /// Removes the claimed entry: sent, or deleted by the user.
    pub fn settle(&self, claim: &Claim) -> Result<(), SpoolError> {
        self.settle_all(&[claim]).into_iter().collect()
    }

    /// Removes several claimed entries, at the cost of one; the result is for each.
    pub fn settle_all(&self, claims: &[&Claim]) -> Vec<Result<(), SpoolError>> {
        if claims.is_empty() {
            return Vec::new();
        }
        let remove = |claim: &&Claim| {
            let queued = self.queued(claim.entry.id);
            self.fs
                .remove_file(&queued)
                .map_err(failed("remove", &queued))
        };
        let removals: Vec<_> = claims.iter().map(remove).collect();
        let queue = self.queue();
        let synced = self.fs.sync_directory(&queue);
        let settle = |(claim, removed): (&&Claim, Result<(), SpoolError>)| {
            removed?;
            if let Err(error) = &synced {
                return Err(failed("sync", &queue)(error.kind().into()));
            }
            // It is out of the queue; what can't be unlinked now is swept later.
            for part in ["state", "lock"] {
                let _ = self.fs.remove_file(&self.in_part(part, claim.entry.id));
            }
            Ok(())
        };
        claims.iter().zip(removals).map(settle).collect()
    }

    /// Whether somebody holds the entry's lock now.
    pub fn is_claimed(&self, id: EntryId) -> Result<bool, SpoolError> {
        let path = self.in_part("lock", id);
        self.fs.is_locked(&path).map_err(failed("lock", &path))
    }
}

/// The octets of the message in a file of the queue that ends so.
fn message_size(end: &[u8]) -> Option<u64> {
    let line = end.last_chunk::<LENGTH_LINE>()?.strip_suffix(b"\n")?;
    let is_number = line.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(line)
        .ok()?
        .parse()
        .ok()
        .filter(|_| is_number)
}

fn damaged(path: &Path, reason: &str) -> SpoolError {
    SpoolError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

/// The entry `id` of a message of `size` octets, or what is wrong with it.
fn parse(id: EntryId, size: u64, json: &[u8]) -> Result<Entry, String> {
    let entry: Entry = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if entry.id != id || entry.version != 1 || entry.facts.size != size {
        return Err(format!(
            "it says id {}, version {}, {} octets, not {size}",
            entry.id, entry.version, entry.facts.size
        ));
    }
    Ok(entry)
}

fn serialize(entry: &Entry) -> Vec<u8> {
    // Strings, numbers and lists of them: there is nothing serde_json could refuse.
    serde_json::to_vec(entry).unwrap_or_default()
}

fn id_of(path: &Path) -> Option<EntryId> {
    EntryId::parse(path.file_name()?.to_str()?)
}
