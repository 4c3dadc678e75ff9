//! Why a message cannot be re-encoded.

use std::fmt;

/// Why the message cannot be re-encoded, and which part of it: a clause for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} has {trouble}{cause}")]
pub struct DowngradeError {
    place: Place,
    trouble: Trouble,
    cause: Cause,
}

impl DowngradeError {
    /// `path` numbers the part as IMAP does (RFC 3501 section 6.4.5); the message itself
    /// has none.
    pub(super) fn new(path: &[usize], trouble: Trouble, cause: Cause) -> Self {
        DowngradeError {
            place: Place(path.to_vec()),
            trouble,
            cause,
        }
    }

    #[cfg(test)]
    pub(super) fn cause(&self) -> &Cause {
        &self.cause
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place(Vec<usize>);

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("it");
        }
        let numbers: Vec<_> = self.0.iter().map(usize::to_string).collect();
        write!(formatter, "its part {}", numbers.join("."))
    }
}

/// What the server would not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    #[error("8-bit text")]
    EightBit,
    #[error("a line of more than 998 octets")]
    LongLine,
}

/// Why that cannot be helped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cause {
    #[error(", and is signed, so it must not be changed")]
    Signed,
    /// RFC 2045 section 6.4, RFC 2046 section 5.2; also multiparts without boundaries.
    #[error(", and a type ({0}) that cannot be encoded")]
    Type(String),
    #[error(", and is encoded already ({0})")]
    Encoded(String),
    #[error(" in its field {0}, which cannot be encoded or folded")]
    Field(String),
    #[error(", and a header that can be read in more than one way")]
    Header,
    #[error(" outside of what can be encoded")]
    Rest,
}
