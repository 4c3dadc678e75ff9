//! The time by which mail is dated and tried again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970, UTC: wall-clock time, for it must outlive the process.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The current time. Scheduling code is given it instead.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(since.as_millis() as u64)
    }

    /// The time `pause` later.
    pub fn after(self, pause: Duration) -> Self {
        Timestamp(self.0.saturating_add(pause.as_millis() as u64))
    }

    /// How long until this time; zero if it is past.
    pub fn since(self, now: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(now.0))
    }
}
