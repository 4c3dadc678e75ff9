//! From the server's replies to what becomes of each recipient.

use super::reply::Reply;
use super::trouble::{Disposition, Scope, Stage, Trouble};
use crate::spool::RecipientState;

/// What one transaction decided for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its place among the entry's recipients.
    pub index: usize,
    /// Its state from now on; pending if it must be tried again.
    pub state: RecipientState,
    /// What the server said, or why it was not asked.
    pub reply: Option<String>,
}

/// What one transaction decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For each recipient that was to be served.
    pub outcomes: Vec<Outcome>,
    /// What went wrong, if anything did.
    pub trouble: Option<Trouble>,
    /// The reply that accepted the message.
    pub accepted: Option<Reply>,
    /// Whether the server wants us to log in first.
    pub needs_auth: bool,
    /// Whether the recipients still pending are to be served at once: there were only
    /// too many for one transaction.
    pub has_more: bool,
}

/// A recipient's replies so far.
pub(super) struct Asked {
    pub index: usize,
    pub path: String,
    /// Why it can't even be asked for on this server.
    pub unaskable: Option<String>,
    pub reply: Option<Reply>,
    /// LMTP's answer for this recipient alone, after the content (RFC 2033).
    pub final_reply: Option<Reply>,
}

impl Asked {
    pub fn is_accepted(&self) -> bool {
        self.reply.as_ref().is_some_and(Reply::is_completion)
    }

    /// Whether it was refused for there being too many: 452 (RFC 5321 section
    /// 4.5.3.1.10), "too many recipients" as an enhanced code (RFC 3463 section 3.6), or
    /// Courier's 431.
    pub fn is_one_too_many(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| {
            let is_refusal = reply.is_transient() || reply.is_permanent();
            let is_said = matches!(reply.enhanced(), Some((4 | 5, 5, 3)));
            is_refusal && (is_said || matches!(reply.code(), 452 | 431))
        })
    }
}

/// How a transaction ended.
pub(super) enum Ending<'a> {
    /// The server's word on the whole message, at this stage.
    Answered(Stage, &'a Reply),
    /// The line died; true if the server may have accepted the message by then.
    Cut(Trouble, bool),
    /// No recipient was left to send to.
    NobodyAccepted,
}

/// Judges a transaction. `can_log_in` tells whether "authenticate first" can be obeyed.
pub(super) fn judge(
    endpoint: &str,
    asked: &[Asked],
    ending: Ending<'_>,
    can_log_in: bool,
) -> Verdict {
    let mut verdict = Verdict {
        outcomes: Vec::with_capacity(asked.len()),
        trouble: None,
        accepted: None,
        needs_auth: false,
        has_more: false,
    };
    let whole = match &ending {
        Ending::Answered(Stage::EndOfData, reply) if reply.is_completion() => {
            verdict.accepted = Some((*reply).clone());
            RecipientState::Accepted
        }
        Ending::Answered(_, reply) => {
            verdict.needs_auth = can_log_in && asks_to_authenticate(reply);
            refusal(reply, verdict.needs_auth)
        }
        Ending::Cut(_, true) => RecipientState::Unconfirmed,
        Ending::Cut(_, false) | Ending::NobodyAccepted => RecipientState::Pending,
    };
    let whole_text = match &ending {
        Ending::Answered(_, reply) => Some(reply.to_string()),
        Ending::Cut(trouble, _) => Some(trouble.to_string()),
        Ending::NobodyAccepted => None,
    };
    let mail_was_refused = matches!(&ending, Ending::Answered(Stage::Mail, _));
    let is_shared = asked.iter().any(Asked::is_accepted);
    let mut refused = Vec::new();
    for one in asked {
        let own_refusal = one.reply.as_ref().filter(|reply| !reply.is_completion());
        let (state, reply) = match (&one.unaskable, own_refusal) {
            (Some(why), _) => {
                refused.push(format!("{}: {why}", one.path));
                (RecipientState::Failed, Some(why.clone()))
            }
            // After a refused MAIL the servers' words on recipients mean nothing.
            (None, Some(reply)) if !mail_was_refused => {
                let needs_auth = can_log_in && asks_to_authenticate(reply);
                verdict.needs_auth |= needs_auth;
                refused.push(format!("{}: {reply}", one.path));
                // Those that were too many are served once the others are.
                let is_put_off = needs_auth || (is_shared && one.is_one_too_many());
                (refusal(reply, is_put_off), Some(reply.to_string()))
            }
            _ => match &one.final_reply {
                Some(reply) if !reply.is_completion() => {
                    refused.push(format!("{}: {reply}", one.path));
                    (refusal(reply, false), Some(reply.to_string()))
                }
                Some(reply) => {
                    verdict.accepted.get_or_insert_with(|| reply.clone());
                    (RecipientState::Accepted, Some(reply.to_string()))
                }
                None => (whole, whole_text.clone()),
            },
        };
        verdict.outcomes.push(Outcome {
            index: one.index,
            state,
            reply,
        });
    }
    verdict.trouble = describe(endpoint, &verdict.outcomes, ending, &refused);
    verdict
}

/// A refused recipient's state: only 5yz is final, and not if something can be done.
fn refusal(reply: &Reply, is_put_off: bool) -> RecipientState {
    if reply.is_permanent() && !is_put_off {
        RecipientState::Failed
    } else {
        RecipientState::Pending
    }
}

/// 530, or another refusal with an enhanced code that speaks of authentication or
/// relaying (RFC 3463 section 3.8, RFC 4954 section 6).
fn asks_to_authenticate(reply: &Reply) -> bool {
    let speaks_of_policy = || {
        reply
            .lines()
            .any(|line| line.starts_with("5.7.0") || line.starts_with("5.7.1"))
    };
    match reply.code() {
        530 => true,
        550..=554 => speaks_of_policy(),
        _ => false,
    }
}

fn describe(
    endpoint: &str,
    outcomes: &[Outcome],
    ending: Ending<'_>,
    refused: &[String],
) -> Option<Trouble> {
    let any = |state| outcomes.iter().any(|outcome| outcome.state == state);
    let disposition = if any(RecipientState::Unconfirmed) {
        Disposition::Unconfirmed
    } else if any(RecipientState::Pending) {
        Disposition::Retry
    } else {
        Disposition::Reject
    };
    match ending {
        Ending::Cut(trouble, was_out) => {
            let what = if was_out {
                format!(
                    "{} after the whole message had been sent: the server may have it",
                    trouble.what
                )
            } else {
                trouble.what
            };
            Some(Trouble {
                what,
                disposition,
                ..trouble
            })
        }
        Ending::Answered(stage, reply) if !reply.is_completion() => Some(Trouble {
            endpoint: endpoint.to_owned(),
            stage,
            disposition,
            scope: if reply.is_closing() {
                Scope::Site
            } else {
                Scope::Message
            },
            what: "the server refused the message".to_owned(),
            reply: Some(reply.clone()),
        }),
        Ending::Answered(..) | Ending::NobodyAccepted if refused.is_empty() => None,
        Ending::Answered(..) | Ending::NobodyAccepted => Some(Trouble {
            endpoint: endpoint.to_owned(),
            stage: Stage::Rcpt,
            disposition,
            scope: Scope::Recipient,
            what: format!(
                "refused {} of {} recipients: {}",
                refused.len(),
                outcomes.len(),
                refused.join("; ")
            ),
            reply: None,
        }),
    }
}

impl Verdict {
    /// Every recipient refused for good before anything was sent.
    pub(super) fn refused(asked: &[Asked], trouble: Trouble) -> Self {
        let outcomes = asked
            .iter()
            .map(|one| Outcome {
                index: one.index,
                state: RecipientState::Failed,
                reply: Some(trouble.what.clone()),
            })
            .collect();
        Verdict {
            outcomes,
            trouble: Some(trouble),
            accepted: None,
            needs_auth: false,
            has_more: false,
        }
    }
}
