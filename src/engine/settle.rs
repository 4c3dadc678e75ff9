//! What becomes of a message: decided here and nowhere else, from what a session has found
//! out about it and what the user has asked for meanwhile; then written down, and only then
//! told.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::context::{Context, tell};
use super::in_flight::{InFlight, Stop};
use super::settings::{Policy, Unconfirmed};
use crate::bridge::{Event, Events, Kind};
use crate::mail::Timestamp;
use crate::smtp::{Disposition, Quirk, Reply, Scope, Stage, Trouble, Verdict};
use crate::spool::{Claim, Entry, EntryId, Need, RecipientState, Spool, SpoolError};

/// After trouble with the spool itself a message is looked at again.
pub const SPOOL_PAUSE: Duration = Duration::from_secs(60);

/// What has been found out about a message.
#[derive(Debug)]
pub enum Finding {
    /// Nothing: it is to be tried again at once, perhaps without an extension that may be
    /// to blame for its refusal.
    Undecided(Option<Quirk>),
    /// What the server has decided, or a cut of the line.
    Verdict(Verdict),
    /// Trouble before any recipient was asked.
    Trouble(Trouble),
    /// The user must first put something in order, is asked, and may answer at any time;
    /// or (without trouble) has done so.
    Asking(Option<(Trouble, Need)>),
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes: every recipient has it.
    Sent,
    /// Every recipient has it, and Lisp is to file a copy.
    Filing,
    /// It is tried again at once.
    Again,
    /// It is tried again at [`Entry::next_try`].
    Deferred,
    /// Refused for good: the user decides.
    Failed,
    /// The server may have it: the user decides.
    Unconfirmed,
    /// It waits for the user to put something in order.
    NeedsUser(Need),
    /// The user has stopped it.
    Held,
    /// It goes: the user has given it up.
    Removed,
}

/// Decides what becomes of a message, and changes its `entry` accordingly. Whoever decides
/// about a try counts it, so that its mark says nothing any more.
pub fn decide(
    entry: &mut Entry,
    finding: Finding,
    stop: Option<Stop>,
    policy: Policy,
    now: Timestamp,
) -> Fate {
    let trouble = match finding {
        Finding::Undecided(_) => {
            return stop.map_or(Fate::Again, |stop| stopped(entry, stop));
        }
        Finding::Asking(about) => {
            entry.error = about.as_ref().map(|(trouble, _)| trouble.to_string());
            entry.need = about.map(|(_, need)| need);
            return stop.map_or(Fate::Again, |stop| stopped(entry, stop));
        }
        Finding::Trouble(trouble) => trouble,
        Finding::Verdict(verdict) => {
            for outcome in verdict.outcomes {
                let recipient = &mut entry.recipients[outcome.index];
                recipient.state = outcome.state;
                recipient.reply = outcome.reply;
            }
            if entry.is_delivered() {
                entry.attempts += 1;
                entry.error = None;
                return match entry.wishes.copy {
                    Some(_) => Fate::Filing,
                    None => Fate::Sent,
                };
            }
            let goes_on = verdict.has_more || verdict.needs_auth;
            if goes_on && stop.is_none() && entry.any(RecipientState::Pending) {
                entry.attempts += u32::from(verdict.accepted.is_some());
                return Fate::Again;
            }
            verdict.trouble.unwrap_or_else(|| earlier_refusals(entry))
        }
    };
    entry.attempts += 1;
    entry.need = None;
    entry.error = Some(trouble.to_string());
    if let Some(stop) = stop {
        return stopped(entry, stop);
    }
    if policy.unconfirmed == Unconfirmed::Retry {
        entry.turn(&[RecipientState::Unconfirmed], RecipientState::Pending);
    }
    if entry.any(RecipientState::Unconfirmed) {
        Fate::Unconfirmed
    } else if !entry.any(RecipientState::Pending) {
        Fate::Failed
    } else if let Disposition::NeedsUser(need) = trouble.disposition {
        entry.need = Some(need);
        Fate::NeedsUser(need)
    } else {
        defer(entry, policy.backoff, now)
    }
}

/// As the user asked.
fn stopped(entry: &mut Entry, stop: Stop) -> Fate {
    match stop {
        Stop::Hold => {
            entry.hold = true;
            Fate::Held
        }
        Stop::Remove => Fate::Removed,
    }
}

/// Sets the time of the next try, or gives up.
fn defer(entry: &mut Entry, backoff: Backoff, now: Timestamp) -> Fate {
    let begun = entry
        .created
        .max(entry.wishes.not_before.unwrap_or(entry.created));
    match backoff.next_try(entry.id, begun, entry.attempts, now) {
        Some(next_try) => {
            entry.next_try = Some(next_try);
            Fate::Deferred
        }
        None => {
            entry.turn(&[RecipientState::Pending], RecipientState::Failed);
            let last = entry.error.take().unwrap_or_default();
            entry.error = Some(format!(
                "gave up after {}; the last trouble: {last}",
                duration_text(now.since(begun))
            ));
            Fate::Failed
        }
    }
}

/// A duration in the largest unit that tells it.
fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        172_800.. => (seconds / 86_400, "days"),
        7_200.. => (seconds / 3_600, "hours"),
        120.. => (seconds / 60, "minutes"),
        _ => (seconds, "seconds"),
    };
    format!("{number} {unit}")
}

/// The trouble of a message whose last try went well, but not an earlier one.
fn earlier_refusals(entry: &Entry) -> Trouble {
    let refused: Vec<String> = entry
        .recipients
        .iter()
        .filter(|recipient| recipient.state == RecipientState::Failed)
        .map(|recipient| {
            let reply = recipient.reply.as_deref().unwrap_or_default();
            format!("{}: {reply}", recipient.path)
        })
        .collect();
    Trouble {
        endpoint: entry.server.endpoint(),
        stage: Stage::Rcpt,
        scope: Scope::Recipient,
        disposition: Disposition::Reject,
        what: format!("refused earlier: {}", refused.join("; ")),
        reply: None,
    }
}

/// A message about which something is decided and not yet written.
#[derive(Debug)]
pub struct Decided {
    claim: Claim,
    fate: Fate,
    /// The number of the try that may be marked.
    attempt: u32,
    /// Whether the entry is not as it is on disk.
    is_changed: bool,
    trouble: Option<Trouble>,
    reply: Option<Reply>,
    quirk: Option<Quirk>,
}

impl Decided {
    /// Decides about a claimed message.
    pub fn about(
        mut claim: Claim,
        finding: Finding,
        stop: Option<Stop>,
        policy: Policy,
        now: Timestamp,
    ) -> Self {
        let before = claim.entry.clone();
        let (mut trouble, mut reply, mut quirk) = (None, None, None);
        match &finding {
            Finding::Asking(_) => {}
            Finding::Undecided(without) => quirk = *without,
            Finding::Trouble(met) => trouble = Some(met.clone()),
            Finding::Verdict(verdict) => {
                trouble.clone_from(&verdict.trouble);
                reply.clone_from(&verdict.accepted);
            }
        }
        let fate = decide(&mut claim.entry, finding, stop, policy, now);
        Decided {
            attempt: before.attempts,
            // What could not be written before is as it was.
            is_changed: claim.entry != before || fate == Fate::Held,
            claim,
            fate,
            trouble,
            reply,
            quirk,
        }
    }
}

/// Writes down what becomes of messages, those that go at the cost of one; the results are
/// in no order.
pub fn record(spool: &Spool, decided: Vec<Decided>) -> Vec<(Decided, Result<(), SpoolError>)> {
    let goes = |one: &Decided| matches!(one.fate, Fate::Sent | Fate::Removed);
    let (go, stay): (Vec<_>, Vec<_>) = decided.into_iter().partition(goes);
    let mut recorded = Vec::with_capacity(go.len() + stay.len());
    let claims: Vec<&Claim> = go.iter().map(|one| &one.claim).collect();
    let results = spool.settle_all(&claims);
    for (one, mut result) in go.into_iter().zip(results) {
        match &result {
            Ok(()) => spool.unmark(one.claim.entry.id, one.attempt),
            // It must at least not look unsent; the next listing removes it.
            Err(_) if one.fate == Fate::Sent => {
                if let Err(error) = spool.update(&one.claim) {
                    result = Err(error);
                }
            }
            Err(_) => {}
        }
        recorded.push((one, result));
    }
    for one in stay {
        let result = match one.is_changed {
            true => spool.update(&one.claim),
            false => Ok(()),
        };
        if result.is_ok() {
            spool.unmark(one.claim.entry.id, one.attempt);
        }
        recorded.push((one, result));
    }
    recorded
}

/// What this process has to do about a message that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// To try it at once, perhaps without an extension.
    Again(Option<Quirk>),
    /// To try it then.
    At(Timestamp),
}

/// Settles messages that a session had: decides, writes down (off the network thread),
/// lets them go, and tells. Returns what is to be done about each.
pub async fn settle(
    context: &Rc<Context>,
    findings: Vec<(Claim, Finding)>,
) -> Vec<(EntryId, Next)> {
    let decide = |claim: Claim, finding, stop| {
        Decided::about(claim, finding, stop, context.policy(), context.clock.now())
    };
    let mut open: Vec<Decided> = findings
        .into_iter()
        .map(|(claim, finding)| {
            let stop = context.in_flight.stopped(claim.entry.id);
            decide(claim, finding, stop)
        })
        .collect();
    let mut settled = Vec::with_capacity(open.len());
    while !open.is_empty() {
        let ids: Vec<EntryId> = open.iter().map(|one| one.claim.entry.id).collect();
        let spool = Arc::clone(&context.spool);
        let decided = std::mem::take(&mut open);
        let recorded = tokio::task::spawn_blocking(move || record(&spool, decided)).await;
        let Ok(recorded) = recorded else {
            // A panic: the claims are gone with it, what is on disk holds.
            let later = context.clock.now().after(SPOOL_PAUSE);
            for id in ids {
                if abandon(&context.spool, &context.events, &context.in_flight, id) {
                    settled.push((id, Next::At(later)));
                }
            }
            context.tell_problem("internal error while writing to the spool (please report it)");
            break;
        };
        for (one, result) in recorded {
            let Decided { claim, fate, .. } = one;
            let entry = claim.entry.clone();
            let done = match fate {
                Fate::Held => Some(Stop::Hold),
                Fate::Removed => Some(Stop::Remove),
                _ => None,
            };
            if let (Some(_), Err(error)) = (done, &result) {
                context.tell_problem(&error.to_string());
                stop_later(Rc::clone(context), claim);
                continue;
            }
            if fate == Fate::Filing {
                context.in_flight.keep_for_filing(claim);
            } else if let Some((claim, stop)) = context.in_flight.end(claim, done) {
                // Stopped while this was being written: that comes after it.
                open.push(decide(claim, Finding::Undecided(None), Some(stop)));
                continue;
            }
            let next = match (&result, fate) {
                (_, Fate::Sent | Fate::Filing) => Next::Nothing,
                (Err(_), _) => Next::At(context.clock.now().after(SPOOL_PAUSE)),
                (_, Fate::Again) => Next::Again(one.quirk),
                (_, Fate::Deferred) => entry.next_try.map_or(Next::Again(None), Next::At),
                _ => Next::Nothing,
            };
            settled.push((entry.id, next));
            tell_result(&context.events, fate, entry, one.trouble, one.reply, result);
        }
    }
    settled
}

/// What the user was promised of a message could not be written: it stays in flight, and
/// that is tried again after a while.
fn stop_later(context: Rc<Context>, claim: Claim) {
    let later: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
        tokio::time::sleep(SPOOL_PAUSE).await;
        settle(&context, vec![(claim, Finding::Undecided(None))]).await;
    });
    tokio::task::spawn_local(later);
}

/// Carries out what the user wants of a message that no session has.
pub fn carry_out(
    spool: &Spool,
    events: &Events,
    mut claim: Claim,
    stop: Stop,
) -> Result<(), SpoolError> {
    let attempt = claim.entry.attempts;
    let decided = Decided {
        attempt,
        is_changed: true,
        fate: stopped(&mut claim.entry, stop),
        claim,
        trouble: None,
        reply: None,
        quirk: None,
    };
    for (one, result) in record(spool, vec![decided]) {
        result?;
        let entry = one.claim.entry.clone();
        drop(one.claim); // unlocked before anybody hears of it
        tell_result(events, one.fate, entry, None, None, Ok(()));
    }
    Ok(())
}

/// Lets go of a message whose session has panicked: what is on disk holds, and what the
/// user has been promised of it. Returns whether it is to be tried again.
pub fn abandon(spool: &Spool, events: &Events, in_flight: &InFlight, id: EntryId) -> bool {
    let mut done = None;
    while let Some(stop) = in_flight.abandon(id, done) {
        let result = spool.claim(id).and_then(|claim| match claim {
            Some(claim) => carry_out(spool, events, claim, stop),
            None => Ok(()),
        });
        if let Err(error) = result {
            events.push(Event::Problem(error.to_string()));
        }
        done = Some(stop);
    }
    done.is_none()
}

/// Tells the user what has become of a message. Of what could not be written down only
/// that the server has it is so, whatever the disk says.
fn tell_result(
    events: &Events,
    fate: Fate,
    entry: Entry,
    trouble: Option<Trouble>,
    reply: Option<Reply>,
    result: Result<(), SpoolError>,
) {
    let is_written = result.is_ok();
    if let Err(error) = result {
        events.push(Event::Problem(error.to_string()));
    }
    let kind = match fate {
        Fate::Sent | Fate::Filing => Kind::Sent,
        Fate::Again => return,
        _ if !is_written => return,
        Fate::Deferred => Kind::Deferred,
        Fate::Failed => Kind::Failed,
        Fate::Unconfirmed => Kind::Unconfirmed,
        Fate::NeedsUser(need) => Kind::NeedsUser(need),
        Fate::Held => Kind::Cancelled,
        Fate::Removed => Kind::Removed,
    };
    tell(events, kind, entry, trouble, reply);
}
