//! Which processes send from the spool, so that others take over at once what a killed
//! one leaves. Each has a file in `owners/`, locked for its life.

use std::fs::File;
use std::path::PathBuf;

use super::{EntryId, Spool, SpoolError, failed};

/// This process, as one that sends; until it is dropped.
#[derive(Debug)]
pub struct Owner {
    path: PathBuf,
    _lock: File,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Unlocked, it says the same.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Another process that sends from the spool, or has until it was killed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Neighbour(PathBuf);

impl Spool {
    /// Tells other processes that this one sends.
    pub fn own(&self) -> Result<Owner, SpoolError> {
        let name = format!("{}.{}", std::process::id(), EntryId::new());
        let path = self.directory.join("owners").join(&name);
        let unlocked = self.directory.join("tmp").join(name);
        self.fs
            .make_empty(&unlocked)
            .map_err(failed("make", &unlocked))?;
        let file = self.fs.open(&unlocked).map_err(failed("open", &unlocked))?;
        self.fs
            .try_lock(&file, &unlocked)
            .map_err(failed("lock", &unlocked))?;
        // Only now others see it.
        self.fs
            .rename(&unlocked, &path)
            .map_err(failed("publish", &unlocked))?;
        Ok(Owner { path, _lock: file })
    }

    /// The other processes that send.
    pub fn neighbours(&self, owner: &Owner) -> Vec<Neighbour> {
        let paths = self.fs.list(&self.directory.join("owners"));
        let others = paths.unwrap_or_default().into_iter();
        others
            .filter(|path| *path != owner.path)
            .map(Neighbour)
            .collect()
    }

    /// Waits until a process has ended, however it did.
    pub fn wait_for_end(&self, neighbour: &Neighbour) -> std::io::Result<()> {
        let path = &neighbour.0;
        match self.fs.open(path) {
            Ok(file) => self.fs.lock(&file, path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        match self.fs.remove_file(path) {
            // By itself, or by another that waited.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}
