//! When a message that met transient trouble is tried again. Pure: time is given.

use std::time::Duration;

use crate::spool::{EntryId, Timestamp};

const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(4 * 60 * 60);
/// Five days, as RFC 5321 section 4.5.4.1 has it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// The time of the next try after the `attempts`-th has failed at `now`, or `None`
/// when it is time to give up. Pauses double from one minute to four hours, each
/// stretched by up to a quarter that depends on the entry, so that a server that comes
/// back is not met by all at once.
pub fn next_try(
    id: EntryId,
    created: Timestamp,
    attempts: u32,
    now: Timestamp,
) -> Option<Timestamp> {
    if now >= created.after(GIVE_UP_AFTER) {
        return None;
    }
    let doublings = attempts.saturating_sub(1).min(16);
    let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
    let spread = id.spread().wrapping_add(u64::from(attempts)) % 256;
    Some(now.after(pause + pause * spread as u32 / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_four_hours_and_end_after_five_days() {
        let id = EntryId::new();
        let created = Timestamp(1_000_000);
        let mut now = created;
        let mut pauses = Vec::new();
        for attempt in 1.. {
            match next_try(id, created, attempt, now) {
                Some(next) => {
                    pauses.push(next.since(now));
                    now = next;
                }
                None => break,
            }
        }
        assert!(pauses[0] >= FIRST_PAUSE && pauses[0] <= FIRST_PAUSE * 5 / 4);
        assert!(pauses.iter().all(|&pause| pause <= LONGEST_PAUSE * 5 / 4));
        assert!(pauses.len() > 25 && pauses.len() < 60, "{}", pauses.len());
        assert!(now >= created.after(GIVE_UP_AFTER));
    }
}
