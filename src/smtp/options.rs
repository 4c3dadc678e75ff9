//! What a session may do to log in.

/// What of sessions the user can set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Mechanisms allowed, in order (`smtpmail-auth-supported`); `None` for all.
    pub auth_mechanisms: Option<Vec<String>>,
    /// Hosts to which credentials may go in clear (`rs-smtpmail-allow-cleartext-auth`).
    pub cleartext_auth_hosts: Vec<String>,
}
