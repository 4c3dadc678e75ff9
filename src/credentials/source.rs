//! Files of credentials: read, decrypted, searched.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::netrc::{self, Credentials, NetrcError, Query};
use super::passphrase::Ask;
use super::text;

/// Why a file of credentials is of no use: one readable text that names the file.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is there but cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// It is not in netrc format.
    #[error("{}: {error}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: NetrcError,
    },
    /// It, or the secret found in it, cannot be decrypted.
    #[cfg(feature = "gpg")]
    #[error(transparent)]
    Undecryptable(#[from] super::gpg::GpgError),
    /// The secret found in it says it is encrypted (`gpg:` and base64), but is broken.
    #[error("{}: the encrypted secret found there (gpg:…) cannot be read", path.display())]
    BadToken {
        /// The file.
        path: PathBuf,
    },
    /// It, or the secret found in it, is encrypted, and this build cannot decrypt.
    #[cfg(not(feature = "gpg"))]
    #[error("cannot decrypt {}: built without GnuPG support", path.display())]
    NoDecryption {
        /// The file.
        path: PathBuf,
    },
}

/// What `auth-source-search` finds for `query` in the netrc-format file `path`, which is
/// decrypted if its name ends in `.gpg`. Where there is no file, nothing is found.
pub fn search_file(
    path: &Path,
    query: &Query,
    mut ask: Option<Ask<'_>>,
) -> Result<Option<Credentials>, SourceError> {
    // Lent only: a token in the file may need it once more.
    let lent = ask.as_mut().map(|ask| &mut **ask as Ask<'_>);
    let Some(text) = read_source(path, lent)? else {
        return Ok(None);
    };
    let found = netrc::search(&text, query).map_err(|error| SourceError::Malformed {
        path: path.to_owned(),
        error,
    })?;
    found
        .map(|credentials| with_token_decrypted(path, credentials, ask))
        .transpose()
}

/// The text of a plain or encrypted (`.gpg`) file; `None` if there is no such file.
///
/// Decrypted text is kept in memory until the file changes, or [`forget`].
pub fn read_source(
    path: &Path,
    ask: Option<Ask<'_>>,
) -> Result<Option<Arc<Zeroizing<String>>>, SourceError> {
    match read(path) {
        Ok((_, bytes)) if !is_encrypted(path) => Ok(Some(Arc::new(text::decode(&bytes)))),
        Ok((version, bytes)) => {
            if let Some(kept) = kept().get(path).filter(|kept| kept.version == version) {
                return Ok(Some(Arc::clone(&kept.text)));
            }
            // Not under the lock: the user may take long over a passphrase.
            let decrypted = Arc::new(text::decode(&decrypt(path, &bytes, ask)?));
            let text = Arc::clone(&decrypted);
            kept().insert(path.to_owned(), Kept { version, text });
            Ok(Some(decrypted))
        }
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(SourceError::Unreadable {
            path: path.to_owned(),
            error,
        }),
    }
}

/// Forgets all decrypted text: the next search asks GnuPG again.
pub fn forget() {
    kept().clear();
}

/// Decrypted text of a file.
struct Kept {
    version: Version,
    text: Arc<Zeroizing<String>>,
}

/// What changes with a file's contents.
#[derive(PartialEq, Eq)]
struct Version {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
}

impl Version {
    fn of(file: &Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(file);
        #[cfg(not(unix))]
        let inode = 0;
        Version {
            modified: file.modified().ok(),
            size: file.len(),
            inode,
        }
    }
}

fn kept() -> MutexGuard<'static, HashMap<PathBuf, Kept>> {
    static KEPT: LazyLock<Mutex<HashMap<PathBuf, Kept>>> = LazyLock::new(Mutex::default);
    // Under the lock entries are only looked up, put in and dropped: a panic leaves none
    // half-done.
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(path: &Path) -> io::Result<(Version, Zeroizing<Vec<u8>>)> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    // Sized at once: a vector that grows leaves copies behind.
    let size = usize::try_from(metadata.len()).unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.read_to_end(&mut bytes)?;
    Ok((Version::of(&metadata), bytes))
}

fn is_encrypted(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b".gpg")
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// `credentials` with the secret decrypted if it is a token of its own.
fn with_token_decrypted(
    path: &Path,
    mut credentials: Credentials,
    ask: Option<Ask<'_>>,
) -> Result<Credentials, SourceError> {
    let token = credentials.secret.as_ref().and_then(|secret| token(secret));
    if let Some(token) = token {
        let broken = || SourceError::BadToken {
            path: path.to_owned(),
        };
        let encrypted = decode_base64(token).ok_or_else(broken)?;
        let secret = decrypt(path, &encrypted, ask)?;
        let secret = str::from_utf8(&secret).map_err(|_| broken())?;
        credentials.secret = Some(Zeroizing::new(secret.to_owned()));
    }
    Ok(credentials)
}

/// What stands after `gpg:` on a line that starts with it.
fn token(secret: &str) -> Option<&str> {
    let mut lines = secret
        .split('\n')
        .filter_map(|line| line.split_at_checked(4));
    let (_, token) = lines.find(|(prefix, _)| prefix.eq_ignore_ascii_case("gpg:"))?;
    Some(token)
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(feature = "gpg")]
fn decrypt(
    path: &Path,
    encrypted: &[u8],
    ask: Option<Ask<'_>>,
) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    Ok(super::gpg::decrypt(path, encrypted, ask)?)
}

#[cfg(not(feature = "gpg"))]
fn decrypt(path: &Path, _: &[u8], _: Option<Ask<'_>>) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    Err(SourceError::NoDecryption {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn query() -> Query {
        Query {
            host: "mail.example".to_owned(),
            port: "587".to_owned(),
            user: None,
        }
    }

    #[test]
    fn a_plain_file_is_searched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authinfo");
        std::fs::write(&path, "machine mail.example login a password b\r\n").unwrap();
        let found = search_file(&path, &query(), None).unwrap().unwrap();
        assert_eq!(found.user.as_deref(), Some("a"));
        assert_eq!(*found.secret.unwrap(), "b");
    }

    #[test]
    fn in_a_missing_file_nothing_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authinfo");
        assert_eq!(search_file(&path, &query(), None).unwrap(), None);
        std::fs::write(&path, "").unwrap();
        let below = path.join("authinfo.gpg");
        assert_eq!(search_file(&below, &query(), None).unwrap(), None);
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().display().to_string();
        let error = search_file(directory.path(), &query(), None).unwrap_err();
        assert!(error.to_string().contains(&name), "{error}");
        let path = directory.path().join("authinfo");
        for text in ["login machine", "password gpg:%%%"] {
            std::fs::write(&path, text).unwrap();
            let error = search_file(&path, &query(), None).unwrap_err();
            assert!(error.to_string().contains(&name), "{error}");
            assert!(!error.to_string().contains("%%%"), "{error}");
        }
    }

    #[test]
    fn tokens_are_found_on_any_line() {
        assert_eq!(token("gpg:abc"), Some("abc"));
        assert_eq!(token("x\nGPG:abc\ny"), Some("abc"));
        assert_eq!(token("xgpg:abc"), None);
        assert_eq!(token("é€gpg"), None);
    }
}
