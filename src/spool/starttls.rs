//! Which servers have offered STARTTLS, so that one that does not any more is noticed.
//!
//! ```text
//! starttls-seen   one line for each server: HOST:PORT
//! ```
//!
//! Two processes that write at the same moment may lose a line; it comes back with the
//! next session.

use std::io::ErrorKind;
use std::path::PathBuf;

use super::{EntryId, Spool, SpoolError, failed};
use crate::mail::Endpoint;

impl Spool {
    fn starttls_seen(&self) -> PathBuf {
        self.directory.join("starttls-seen")
    }

    fn read_starttls_seen(&self) -> Result<Vec<String>, SpoolError> {
        let path = self.starttls_seen();
        let bytes = match self.fs.read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(failed("read", &path))?,
        };
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn write_starttls_seen(&self, lines: &[String]) -> Result<(), SpoolError> {
        let path = self.starttls_seen();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        // Of its own name, for two processes may write at the same time.
        let temporary = self.in_part("tmp", EntryId::new());
        self.fs
            .replace_durably(&path, &temporary, text.as_bytes())
            .map_err(failed("write", &path))
    }

    /// Whether this server is known to offer STARTTLS.
    pub fn has_seen_starttls(&self, endpoint: &Endpoint) -> Result<bool, SpoolError> {
        Ok(self.read_starttls_seen()?.contains(&endpoint.to_string()))
    }

    /// Remembers that this server offers STARTTLS.
    pub fn remember_starttls(&self, endpoint: &Endpoint) -> Result<(), SpoolError> {
        let mut lines = self.read_starttls_seen()?;
        let line = endpoint.to_string();
        if lines.contains(&line) {
            return Ok(());
        }
        lines.push(line);
        self.write_starttls_seen(&lines)
    }

    /// Forgets that this server has ever offered STARTTLS.
    pub fn forget_starttls(&self, endpoint: &Endpoint) -> Result<(), SpoolError> {
        let mut lines = self.read_starttls_seen()?;
        let line = endpoint.to_string();
        if !lines.contains(&line) {
            return Ok(());
        }
        lines.retain(|one| *one != line);
        self.write_starttls_seen(&lines)
    }
}
