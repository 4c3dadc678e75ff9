//! Re-encoding a message for a server that cannot take it as it is.

use std::borrow::Cow;

/// What the server can take.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Octets above 127 (8BITMIME).
    pub eight_bit: bool,
    /// The same in the header (SMTPUTF8).
    pub eight_bit_header: bool,
}

/// Why the message cannot be re-encoded.
#[derive(Debug, thiserror::Error)]
#[error("it has 8-bit text or lines of more than 998 octets")]
pub struct DowngradeError;

/// Not done yet: refuses what would have to be re-encoded.
pub fn downgrade(_message: &[u8], _allowed: Allowed) -> Result<Cow<'_, [u8]>, DowngradeError> {
    Err(DowngradeError)
}
