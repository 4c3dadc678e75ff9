//! Credentials in files: what `auth-source-search` finds in the netrc-format files of
//! `auth-sources`, found without Emacs.
//!
//! ```text
//! search_file          one file, one query
//!   -> source          the file's text; decrypted text is kept in memory
//!      -> gpg          decryption by GnuPG (feature `gpg`)
//!      -> text         bytes to text as Emacs decodes them
//!   -> netrc           the entry that matches (lexer: the text's words)
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

mod error;
#[cfg(feature = "gpg")]
pub mod gpg;
mod lexer;
pub mod netrc;
pub mod oauth2;
mod options;
mod passphrase;
mod single_flight;
mod source;
mod text;
pub(crate) mod wiped;

pub use error::Unavailable;
pub use netrc::{Credentials, NetrcError, Query, Restriction};
pub use oauth2::Grant;
pub use options::{AuthSource, CredentialsOptions};
pub use passphrase::Ask;
pub(crate) use single_flight::{SingleFlight, Slots};
pub use source::{SourceError, forget, read_source, search_file};
