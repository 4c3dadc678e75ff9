//! When a message that met transient trouble is tried again. Pure: time is given.

use std::time::Duration;

use crate::mail::Timestamp;
use crate::spool::{Entry, EntryId};

/// How long to pause after transient trouble, and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure (`rs-smtpmail-retry-first-pause`); later ones double.
    pub first_pause: Duration,
    /// No pause is longer (`rs-smtpmail-retry-longest-pause`).
    pub longest_pause: Duration,
    /// Of a message's first try (`rs-smtpmail-retry-give-up`).
    pub give_up_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first_pause: Duration::from_secs(60),
            longest_pause: Duration::from_secs(4 * 60 * 60),
            // As RFC 5321 section 4.5.4.1 has it.
            give_up_after: Duration::from_secs(5 * 24 * 60 * 60),
        }
    }
}

impl Backoff {
    /// The pause after that many failures, the first being 1.
    pub fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.first_pause
            .saturating_mul(1 << doublings)
            .min(self.longest_pause)
    }

    /// The time of the next try after the `attempts`-th has failed at `now`, or `None`
    /// when it is time to give up. Each pause is stretched by up to a quarter that
    /// depends on the entry, so that a server that comes back is not met by all at once.
    pub fn next_try(
        &self,
        id: EntryId,
        begun: Timestamp,
        attempts: u32,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if now >= begun.after(self.give_up_after) {
            return None;
        }
        let pause = self.pause(attempts);
        let spread = id.spread().wrapping_add(u64::from(attempts)) % 256;
        Some(now.after(pause + pause * spread as u32 / 1024))
    }

    /// When an entry is due by itself, as far as that can be right: a clock that has been set
    /// back must not put messages off for long, but where the user wants it.
    pub fn due(&self, entry: &Entry, now: Timestamp) -> Timestamp {
        let next_try = entry.next_try.map(|time| self.at_most(time, now));
        next_try.max(entry.wishes.not_before).unwrap_or(now)
    }

    fn at_most(&self, next_try: Timestamp, now: Timestamp) -> Timestamp {
        next_try.min(now.after(self.longest_pause * 5 / 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_four_hours_and_end_after_five_days() {
        let id = EntryId::new();
        let backoff = Backoff::default();
        let created = Timestamp(1_000_000);
        let mut now = created;
        let mut pauses = Vec::new();
        for attempt in 1.. {
            match backoff.next_try(id, created, attempt, now) {
                Some(next) => {
                    pauses.push(next.since(now));
                    now = next;
                }
                None => break,
            }
        }
        let stretched = |pause: Duration| pause * 5 / 4;
        assert!(pauses[0] >= backoff.first_pause);
        assert!(pauses[0] <= stretched(backoff.first_pause));
        assert!(
            pauses
                .iter()
                .all(|&pause| pause <= stretched(backoff.longest_pause))
        );
        assert!(pauses.len() > 25 && pauses.len() < 60, "{}", pauses.len());
        assert!(now >= created.after(backoff.give_up_after));
    }

    #[test]
    fn messages_that_failed_together_are_not_tried_together() {
        let backoff = Backoff::default();
        let now = Timestamp(1_000_000);
        let tries: std::collections::HashSet<_> = (0..64)
            .filter_map(|_| backoff.next_try(EntryId::new(), now, 5, now))
            .collect();
        assert!(tries.len() > 32, "{} different times of 64", tries.len());
    }

    #[test]
    fn a_clock_set_back_puts_nothing_off_for_long() {
        let backoff = Backoff::default();
        let (now, in_a_year) = (Timestamp(1_000_000), Timestamp(32_000_000_000));
        let most = backoff.longest_pause * 5 / 4;
        assert_eq!(backoff.at_most(in_a_year, now), now.after(most));
        assert_eq!(backoff.at_most(Timestamp(5), now), Timestamp(5));
    }
}
