//! What a server takes, and what of a message it does not.

use super::error::Trouble;
use super::lines::{lines, without_end};

/// RFC 5321 section 4.5.3.1.6, without the CRLF.
pub(super) const LONGEST_LINE: usize = 998;

/// What the server can take.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Octets above 127 (8BITMIME).
    pub eight_bit: bool,
    /// The same in the header (SMTPUTF8).
    pub eight_bit_header: bool,
}

impl Allowed {
    /// What keeps `octets` from being sent as content.
    pub(super) fn content_trouble(self, octets: &[u8]) -> Option<Trouble> {
        trouble(octets, self.eight_bit)
    }

    /// What keeps `octets` from being sent as header.
    pub(super) fn header_trouble(self, octets: &[u8]) -> Option<Trouble> {
        trouble(octets, self.takes_eight_bit_header())
    }

    /// Without SMTPUTF8 an 8-bit header goes where 8-bit content goes, as in smtpmail.
    pub(super) fn takes_eight_bit_header(self) -> bool {
        self.eight_bit || self.eight_bit_header
    }
}

fn trouble(octets: &[u8], takes_eight_bit: bool) -> Option<Trouble> {
    if !takes_eight_bit && !octets.is_ascii() {
        Some(Trouble::EightBit)
    } else if lines(octets).any(|line| without_end(line).len() > LONGEST_LINE) {
        Some(Trouble::LongLine)
    } else {
        None
    }
}
