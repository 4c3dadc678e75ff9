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

/// What of credentials the user can set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialsOptions {
    /// Where they are looked up.
    pub auth_sources: Vec<AuthSource>,
    /// Whether Lisp has an OAuth 2 token before these are searched
    /// (`rs-smtpmail-oauth2-token-function`, `rs-smtpmail-oauth2-token-command`).
    pub lisp_has_tokens: bool,
    /// Whether gpg asks for passphrases through Lisp (`epg-pinentry-mode`).
    pub loopback_pinentry: bool,
}
