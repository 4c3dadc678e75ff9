//! Which processes send from the spool, so that others take over at once what a killed
//! one leaves. Each has a file in `owners/`, locked for its life.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use super::fs::{Fs, Lock};
use super::{EntryId, Spool, SpoolError, failed};

/// This process, as one that sends; until it is dropped.
#[derive(Debug)]
pub struct Owner {
    path: PathBuf,
    fs: Fs,
    _lock: Option<Lock>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Unlocked, it says the same.
        let _ = self.fs.remove_file(&self.path);
    }
}

/// The other processes that send from the spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Names of those that do.
    pub alive: BTreeSet<PathBuf>,
    /// Whether some have been killed and nobody has noticed.
    pub any_killed: bool,
    /// When anybody last added, changed or removed an entry.
    pub last_change: Option<SystemTime>,
}

impl Spool {
    /// Tells other processes that this one sends.
    pub fn own(&self) -> Result<Owner, SpoolError> {
        let name = format!("{}.{}", std::process::id(), EntryId::new());
        let path = self.directory.join("owners").join(&name);
        let unlocked = self.directory.join("tmp").join(name);
        let lock = self
            .fs
            .open_lock(&unlocked)
            .map_err(failed("make", &unlocked))?;
        let lock = self
            .fs
            .try_lock(lock, &unlocked)
            .map_err(failed("lock", &unlocked))?;
        // Only now others see it.
        self.fs
            .rename(&unlocked, &path)
            .map_err(failed("publish", &unlocked))?;
        Ok(Owner {
            path,
            fs: self.fs.clone(),
            _lock: lock,
        })
    }

    /// The processes other than `owner` that send. One that was killed is told once, to
    /// one of those that ask.
    pub fn others(&self, owner: &Owner) -> Others {
        let paths = self.fs.list(&self.directory.join("owners"));
        let changes = ["queue", "state"].map(|part| {
            let changed = self.fs.modified(&self.directory.join(part));
            changed.ok()
        });
        let mut others = Others {
            last_change: changes.into_iter().max().flatten(),
            ..Others::default()
        };
        for path in paths.unwrap_or_default() {
            if path == owner.path {
                continue;
            }
            // What can't be told now is told at the next look.
            let is_free = self
                .fs
                .open(&path)
                .and_then(|file| self.fs.try_lock(file, &path));
            match is_free {
                Ok(Some(_)) if self.fs.remove_file(&path).is_ok() => others.any_killed = true,
                _ => drop(others.alive.insert(path)),
            }
        }
        others
    }
}
