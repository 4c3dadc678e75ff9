//! What of TLS the user can set.

use std::path::PathBuf;

use super::Pin;

/// What of TLS the user can set, beside whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Revocation lists, PEM or DER (`gnutls-crlfiles`).
    pub crl_files: Vec<PathBuf>,
    /// A GnuTLS priority string (`gnutls-algorithm-priority`).
    pub priority: Option<String>,
    /// The keys of servers (`rs-smtpmail-tls-pins`).
    pub pins: Vec<Pin>,
}
