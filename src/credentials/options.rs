//! Where credentials are looked for.

use std::path::PathBuf;

use super::netrc::Restriction;

/// One element of `auth-sources`, in the order they are searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthSource {
    /// A netrc-format file, plain or `.gpg`, read natively.
    Netrc(PathBuf),
    /// The same, but only for some queries.
    RestrictedNetrc(PathBuf, Restriction),
    /// Any other backend: Lisp searches this element of its list.
    Lisp(i64),
}
