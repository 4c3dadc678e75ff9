//! Credentials in files: what `auth-source-search` finds in the netrc-format files of
//! `auth-sources`, found without Emacs.
//!
//! ```text
//! search_file          one file, one query
//!   -> source          the file's text; decrypted text is kept in memory
//!      -> gpg          decryption by GnuPG (feature `gpg`)
//!      -> text         bytes to text as Emacs decodes them
//!   -> netrc           the entry that matches (words: the text's lexical form)
//!   -> source          decrypts a secret that is a GPG token of its own
//! ```
//!
//! `oauth2` makes an access token of an entry that holds a refresh token.
//!
//! Finding the same as auth-source comes first, also where one would rather do otherwise:
//! a differential test compares the two. Files in auth-source's other formats (`.plist`,
//! `.json`), compressed and remote files are left to Lisp.
//!
//! Everything here but [`forget`] may block: on the disk, on gpg-agent, on a pinentry.
//! Secrets are wiped from memory when dropped, and no `Debug` shows them. While they are
//! in use a core file has them: Emacs keeps passwords in its own heap (auth-source's
//! cache), so keeping ours alone out of it (`MADV_DONTDUMP`) would protect nobody.

#[cfg(feature = "gpg")]
pub mod gpg;
pub mod netrc;
pub mod oauth2;
mod source;
mod text;
pub(crate) mod wiped;
mod words;

pub use netrc::{Credentials, NetrcError, Query, Restriction};
pub use oauth2::Grant;
pub use source::{Ask, SourceError, forget, read_source, search_file};

/// Why there are no credentials: one readable text, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What happened, and where.
    pub what: String,
    /// Whether it may pass by itself.
    pub is_transient: bool,
}

impl Unavailable {
    /// What passes by itself.
    pub fn for_now(what: String) -> Self {
        Unavailable {
            what,
            is_transient: true,
        }
    }
}

impl From<String> for Unavailable {
    fn from(what: String) -> Self {
        Unavailable {
            what,
            is_transient: false,
        }
    }
}
