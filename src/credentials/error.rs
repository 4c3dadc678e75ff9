//! Why there are no credentials.

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
