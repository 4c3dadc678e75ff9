//! The files of a server that runs as a process of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::log::Received;

/// Writes each message as NNNN.eml (its exact bytes) and then NNNN.json (the rest). Each file
/// appears whole, by renaming; who sees the .json finds the .eml.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    last: AtomicUsize,
}

impl Store {
    /// Numbers go on where the directory's files end.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut last = 0;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let number = stem.and_then(|stem| stem.parse().ok()).unwrap_or(0);
            last = last.max(number);
        }
        Ok(Self {
            directory: directory.to_owned(),
            last: AtomicUsize::new(last),
        })
    }

    /// The next message's number.
    pub(super) fn next(&self) -> usize {
        self.last.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Writes a message.
    pub(super) fn write(&self, message: &Received) -> io::Result<()> {
        let base = self.directory.join(format!("{:04}", message.number));
        replace(&base.with_extension("eml"), &message.bytes)?;
        let json = message.to_json();
        replace(
            &base.with_extension("json"),
            format!("{json:#}\n").as_bytes(),
        )
    }
}

/// Puts a file in place whole.
pub(super) fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, bytes)?;
    fs::rename(&new, file)
}
