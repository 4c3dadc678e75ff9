//! Every file-system call of the spool, so that a test can make each of them fail, or
//! kill the process there, in turn.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The kinds of call a [`Hook`] sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Call {
    MakeDirectory,
    Create,
    Write,
    SyncFile,
    SyncDirectory,
    Rename,
    RemoveFile,
    Open,
    Read,
    Lock,
    ListDirectory,
}

/// Runs before each call; an error it returns stands for the call's own. When it is
/// a write that fails, half of its bytes are written, as on a full disk.
pub type Hook = Arc<dyn Fn(Call, &Path) -> io::Result<()> + Send + Sync>;

/// The file system, as the spool uses it.
#[derive(Clone, Default)]
pub struct Fs {
    hook: Option<Hook>,
}

impl Fs {
    /// A file system whose calls are seen by `hook` first.
    pub fn with_hook(hook: Hook) -> Self {
        Fs { hook: Some(hook) }
    }

    fn before(&self, call: Call, path: &Path) -> io::Result<()> {
        match &self.hook {
            Some(hook) => hook(call, path),
            None => Ok(()),
        }
    }

    /// Makes a directory and those above it that are missing, readable by the user alone;
    /// each is on the disk when this returns.
    pub fn make_private_directories(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || self.exists(path)? {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        self.make_private_directories(parent)?;
        self.before(Call::MakeDirectory, path)?;
        #[cfg_attr(not(unix), expect(unused_mut))]
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(path) {
            // Another process has been faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        match parent.as_os_str().is_empty() {
            true => self.sync_directory(Path::new(".")),
            false => self.sync_directory(parent),
        }
    }

    /// Makes a new file by `write`, and waits until its bytes are on the disk.
    pub fn write_durably<T>(
        &self,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    ) -> io::Result<T> {
        self.before(Call::Create, path)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut new = NewFile {
            fs: self,
            path,
            file: options.open(path)?,
        };
        let written = write(&mut new)?;
        self.before(Call::SyncFile, path)?;
        new.file.sync_all()?;
        Ok(written)
    }

    /// Makes an empty file; it is on the disk once its directory is synced.
    pub fn make_empty(&self, path: &Path) -> io::Result<()> {
        self.before(Call::Create, path)?;
        File::create(path).map(drop)
    }

    /// Removes a file.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.before(Call::RemoveFile, path)?;
        fs::remove_file(path)
    }

    /// Whether there is something by this name. An error leaves that open: it is never
    /// taken for "no".
    pub fn exists(&self, path: &Path) -> io::Result<bool> {
        self.before(Call::Read, path)?;
        match path.symlink_metadata() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Replaces `path` as a whole, by way of `temporary`: a reader sees the old bytes or
    /// the new ones, also after a power cut.
    pub fn replace_durably(&self, path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write_durably(temporary, |file| file.write_all(bytes))?;
        self.rename(temporary, path)?;
        match path.parent() {
            Some(directory) => self.sync_directory(directory),
            None => Ok(()),
        }
    }

    /// Waits until a directory's entries are on the disk.
    pub fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.before(Call::SyncDirectory, path)?;
        // Windows has no such call; NTFS journals its directories.
        #[cfg(unix)]
        File::open(path)?.sync_all()?;
        Ok(())
    }

    /// Renames within the spool.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Call::Rename, from)?;
        fs::rename(from, to)
    }

    /// Opens a file for reading.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        self.before(Call::Open, path)?;
        File::open(path)
    }

    /// Takes the advisory lock on an open file; `None` if somebody else holds it.
    pub fn try_lock(&self, file: File, path: &Path) -> io::Result<Option<Lock>> {
        self.before(Call::Lock, path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether somebody holds the advisory lock on a file, which need not exist.
    pub fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.before(Call::Lock, path)?;
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            file => {
                let file = file?;
                match file.try_lock_shared() {
                    Ok(()) => file.unlock().map(|()| false),
                    Err(TryLockError::WouldBlock) => Ok(true),
                    Err(TryLockError::Error(error)) => Err(error),
                }
            }
        }
    }

    /// Opens the file to be locked, making it if need be.
    pub fn open_lock(&self, path: &Path) -> io::Result<File> {
        self.before(Call::Open, path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
    }

    /// Reads a whole file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.before(Call::Read, path)?;
        fs::read(path)
    }

    /// Reads the octets of a file from the `start`-th to its end; from a negative one,
    /// that many at its end. Returns also the octets of the whole file.
    pub fn read_from(&self, path: &Path, start: i64) -> io::Result<(u64, Vec<u8>)> {
        self.before(Call::Read, path)?;
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let start = match u64::try_from(start) {
            Ok(start) => start,
            Err(_) => length.saturating_sub(start.unsigned_abs()),
        };
        file.seek(SeekFrom::Start(start))?;
        let mut octets = Vec::with_capacity(length.saturating_sub(start) as usize);
        file.read_to_end(&mut octets)?;
        Ok((length, octets))
    }

    /// When a file was last changed.
    pub fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        self.before(Call::Read, path)?;
        fs::symlink_metadata(path)?.modified()
    }

    /// For how long a file has not been changed; nothing if its time lies ahead.
    pub fn age(&self, path: &Path) -> io::Result<Duration> {
        let modified = self.modified(path)?;
        let age = SystemTime::now().duration_since(modified);
        Ok(age.unwrap_or_default())
    }

    /// The paths in a directory, in order of their names.
    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.before(Call::ListDirectory, path)?;
        let mut paths = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        // Not component by component, for all but the last are the same.
        paths.sort_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
        Ok(paths)
    }
}

/// The advisory lock on a file, until it is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would do; but a process just being started, which has the file open as
        // well until it runs another program, would keep the lock so long.
        let _ = self.0.unlock();
    }
}

/// A file being written.
struct NewFile<'a> {
    fs: &'a Fs,
    path: &'a Path,
    file: File,
}

impl Write for NewFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.fs.before(Call::Write, self.path) {
            self.file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Fs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fs")
    }
}
