//! What the user says of TLS.

use std::path::PathBuf;

use super::pins::Pin;

/// What of TLS the user can set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM files trusted beside the platform's roots (`gnutls-trustfiles`).
    pub trust_files: Vec<PathBuf>,
    /// Revocation lists, PEM or DER (`gnutls-crlfiles`).
    pub crl_files: Vec<PathBuf>,
    /// A GnuTLS priority string (`gnutls-algorithm-priority`).
    pub priority: Option<String>,
    /// The keys of servers (`rs-smtpmail-tls-pins`).
    pub pins: Vec<Pin>,
}
