//! One message on one session: what is said of it to this server, and what came back.

use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter, RcptParameter};

use super::body::Body;
use super::capabilities::{Capabilities, Quirk};
use super::content::{Content, Unfit, uses_utf8};
use super::outcome::{Asked, Ending, Verdict, judge};
use super::reply::Reply;
use super::terms::Terms;
use super::trouble::{Disposition, Scope, Stage, Trouble};
use crate::mail::Path;
use crate::spool::{Dsn, Entry, RecipientState};

/// A mail transaction, before it is begun or under way.
pub(super) struct Transaction {
    pub asked: Vec<Asked>,
    /// The reply to MAIL.
    pub mail: Option<Reply>,
    /// Whether the content goes by BDAT.
    pub is_chunked: bool,
    /// Whether commands go before their predecessors are answered.
    pub is_pipelined: bool,
    /// The extension it does without to see whether that was to blame.
    pub without: Option<Quirk>,
    sender: String,
    parameters: Vec<MailParameter>,
    dsn: Option<Dsn>,
    /// Recipients left for another transaction.
    left_out: usize,
    content: Content,
}

impl Transaction {
    /// Chooses what to say of a message, or finds that this server can't take it.
    pub fn prepare(
        terms: &Terms,
        entry: &Entry,
        without: Option<Quirk>,
        content: Result<Content, Unfit>,
    ) -> Result<Self, Box<Verdict>> {
        let offered = terms.offered.on_trial(without);
        let is_utf8 = uses_utf8(&offered, entry);
        let (asked, left_out) = recipients(&offered, entry, is_utf8);
        let trouble = |disposition, what| Trouble {
            endpoint: terms.endpoint.clone(),
            stage: Stage::Mail,
            disposition,
            scope: Scope::Message,
            what,
            reply: None,
        };
        let refused = |what: String| {
            let trouble = trouble(Disposition::Reject, what);
            Err(Box::new(Verdict::refused(&asked, trouble)))
        };
        let judged = |ending| Err(Box::new(judge(&terms.endpoint, &asked, ending, false)));
        let content = match content {
            Ok(content) => content,
            Err(unfit @ Unfit::Unreadable(_)) => {
                let trouble = trouble(Disposition::Retry, unfit.to_string());
                return judged(Ending::Cut(trouble, false));
            }
            Err(unfit) => return refused(unfit.to_string()),
        };
        if offered.refuses_size(content.size) {
            return refused(format!(
                "the message of {} octets is larger than the server takes ({} octets)",
                content.size,
                offered.size.unwrap_or(0)
            ));
        }
        let Some(sender) = envelope_text(&entry.sender, is_utf8) else {
            return refused(format!(
                "the server takes no sender like {} (no SMTPUTF8)",
                entry.sender
            ));
        };
        if entry.wishes.require_tls && !(offered.requiretls && terms.is_encrypted) {
            return refused("the server does not offer REQUIRETLS".to_owned());
        }
        if asked.iter().all(|asked| asked.unaskable.is_some()) {
            return judged(Ending::NobodyAccepted);
        }
        let dsn = entry.wishes.dsn.clone().filter(|_| offered.dsn);
        let mut parameters = Vec::new();
        if offered.size.is_some() {
            parameters.push(MailParameter::Size(content.size as usize));
        }
        if content.needs_eight_bit {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        if is_utf8 {
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if let Some(dsn) = &dsn {
            if let Some(return_all) = dsn.return_all {
                let value = if return_all { "FULL" } else { "HDRS" };
                parameters.push(mail_parameter("RET", Some(value.to_owned())));
            }
            parameters.push(mail_parameter("ENVID", Some(entry.id.to_string())));
        }
        if entry.wishes.require_tls {
            parameters.push(mail_parameter("REQUIRETLS", None));
        }
        Ok(Transaction {
            asked,
            mail: None,
            // LMTP answers for each recipient, whose number must be known before.
            is_chunked: offered.chunking && !terms.is_lmtp,
            is_pipelined: offered.pipelining,
            without,
            sender,
            parameters,
            dsn,
            left_out,
            content,
        })
    }

    /// Octets of the content as it goes to this server, before dot-stuffing.
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// The content, dot-stuffed unless it goes by BDAT; to be had once.
    pub fn body(&mut self) -> Body {
        let source = std::mem::replace(&mut self.content.source, Box::new(std::io::empty()));
        Body::new(source, self.content.size, !self.is_chunked)
    }

    /// Whether somebody is to get the message.
    pub fn has_recipient(&self) -> bool {
        self.asked.iter().any(Asked::is_accepted)
    }

    /// The MAIL command.
    pub fn mail_command(&self) -> String {
        let mut command = format!("MAIL FROM:<{}>", self.sender);
        for parameter in &self.parameters {
            command.push_str(&format!(" {parameter}"));
        }
        command + "\r\n"
    }

    /// The RCPT command for the recipient asked at `number`.
    pub fn rcpt_command(&self, number: usize) -> String {
        let path = &self.asked[number].path;
        let mut command = format!("RCPT TO:<{path}>");
        if let Some(dsn) = &self.dsn {
            if !dsn.notify.is_empty() {
                let notify = rcpt_parameter("NOTIFY", dsn.notify.join(","));
                command.push_str(&format!(" {notify}"));
            }
            if path.is_ascii() {
                let orcpt = rcpt_parameter("ORCPT", format!("rfc822;{path}"));
                command.push_str(&format!(" {orcpt}"));
            }
        }
        command + "\r\n"
    }

    /// The server's word that decides, where `ending` came last.
    pub fn last_word<'a>(&'a self, ending: Ending<'a>) -> Ending<'a> {
        let is_answered = |asked: &Asked| asked.unaskable.is_some() || asked.reply.is_some();
        match (&self.mail, ending) {
            // What followed a refused MAIL was refused because of it.
            (Some(mail), _) if !mail.is_completion() => Ending::Answered(Stage::Mail, mail),
            // The refusal of content for nobody says nothing new.
            (Some(_), _) if !self.has_recipient() && self.asked.iter().all(is_answered) => {
                Ending::NobodyAccepted
            }
            (_, ending) => ending,
        }
    }

    /// What becomes of the recipients.
    pub fn judge(&self, terms: &Terms, ending: Ending<'_>) -> Verdict {
        let mut verdict = judge(&terms.endpoint, &self.asked, ending, terms.can_log_in);
        let too_many = self.asked.iter().any(Asked::is_one_too_many);
        verdict.has_more = verdict.accepted.is_some() && (self.left_out > 0 || too_many);
        verdict
    }

    /// The extension that may be to blame for the refusal, and that the message could do
    /// without. Each comes after those suspected before, so that there is an end.
    pub fn suspicion(&self, ending: &Ending<'_>) -> Option<Quirk> {
        let blamed = match ending {
            Ending::Answered(Stage::Mail, reply) if is_unknown(reply) => {
                return self.suspected_parameter(reply);
            }
            _ if self.is_pipelined && self.is_out_of_sequence() => Quirk::Pipelining,
            Ending::NobodyAccepted if self.dsn.is_some() => {
                let replies = self.asked.iter().filter_map(|asked| asked.reply.as_ref());
                replies.into_iter().any(is_unknown).then_some(Quirk::Dsn)?
            }
            Ending::Answered(Stage::EndOfData, reply) if self.is_chunked && is_unknown(reply) => {
                Quirk::Chunking
            }
            _ => return None,
        };
        (Some(blamed) > self.without).then_some(blamed)
    }

    /// The parameter of MAIL that the reply names, or the first that was not yet on trial.
    fn suspected_parameter(&self, reply: &Reply) -> Option<Quirk> {
        let text = reply.to_string().to_ascii_uppercase();
        let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
        let is_about_sender = matches!(reply.enhanced(), Some((_, 1 | 2 | 7, _)));
        let is_named = |word: &str| matches!(word, "REQUIRETLS" | "SMTPUTF8");
        if is_about_sender || words.clone().any(is_named) {
            return None;
        }
        let named = words.find_map(|word| match word {
            "SIZE" => Some(Quirk::Size),
            "BODY" | "8BITMIME" => Some(Quirk::EightBitMime),
            "RET" | "ENVID" => Some(Quirk::Dsn),
            _ => None,
        });
        let uses = |quirk: &Quirk| match quirk {
            Quirk::Size => matches!(self.parameters.first(), Some(MailParameter::Size(_))),
            Quirk::EightBitMime => self.content.needs_eight_bit,
            Quirk::Dsn => self.dsn.is_some(),
            Quirk::Pipelining | Quirk::Chunking => false,
        };
        let all = [Quirk::Size, Quirk::EightBitMime, Quirk::Dsn].into_iter();
        let mut suspected = all.filter(|quirk| uses(quirk) && Some(*quirk) > self.without);
        suspected.find(|quirk| named.is_none_or(|named| named == *quirk))
    }

    /// The extension that this try, without it, has shown to be to blame.
    pub fn learnt(&self, ending: &Ending<'_>) -> Option<Quirk> {
        let quirk = self.without?;
        let was_accepted = self.mail.as_ref().is_some_and(Reply::is_completion);
        let is_shown = match quirk {
            Quirk::Size => was_accepted,
            // Mail that could not do without it was no trial.
            Quirk::EightBitMime => was_accepted && !self.content.needs_eight_bit,
            Quirk::Dsn => self.has_recipient(),
            Quirk::Pipelining => self.has_recipient() && !self.is_out_of_sequence(),
            Quirk::Chunking => match ending {
                Ending::Answered(Stage::EndOfData, reply) => !is_unknown(reply),
                _ => false,
            },
        };
        is_shown.then_some(quirk)
    }

    /// Whether a recipient met "bad sequence of commands" after MAIL was accepted.
    fn is_out_of_sequence(&self) -> bool {
        let is_misplaced = |asked: &Asked| {
            let reply = asked.reply.as_ref();
            reply.is_some_and(|reply| reply.code() == 503)
        };
        self.mail.as_ref().is_some_and(Reply::is_completion) && self.asked.iter().any(is_misplaced)
    }
}

/// A command or parameter that the server does not know (RFC 5321 section 4.2.4).
fn is_unknown(reply: &Reply) -> bool {
    matches!(reply.code(), 500..=502 | 504 | 555)
}

fn mail_parameter(keyword: &str, value: Option<String>) -> MailParameter {
    MailParameter::Other {
        keyword: keyword.to_owned(),
        value,
    }
}

fn rcpt_parameter(keyword: &str, value: String) -> RcptParameter {
    RcptParameter::Other {
        keyword: keyword.to_owned(),
        value: Some(value),
    }
}

/// The path as it goes into a command, or `None` if it can't without SMTPUTF8.
fn envelope_text(path: &Path, is_utf8: bool) -> Option<String> {
    if is_utf8 {
        Some(path.as_str().to_owned())
    } else {
        path.to_ascii()
    }
}

/// The recipients to ask for in this transaction, and the number left for another.
fn recipients(offered: &Capabilities, entry: &Entry, is_utf8: bool) -> (Vec<Asked>, usize) {
    let all = entry.recipients.iter().enumerate();
    let pending = all.filter(|(_, recipient)| recipient.state == RecipientState::Pending);
    let most = offered.rcpt_max.unwrap_or(usize::MAX);
    let most_domains = offered.rcpt_domain_max.unwrap_or(usize::MAX);
    let mut domains: Vec<Option<String>> = Vec::new();
    let mut left_out = 0;
    let mut asked: Vec<Asked> = Vec::new();
    for (index, recipient) in pending {
        let domain = recipient.path.domain().map(str::to_lowercase);
        let is_known = domains.contains(&domain);
        if asked.len() >= most || !(is_known || domains.len() < most_domains) {
            left_out += 1;
            continue;
        }
        if !is_known {
            domains.push(domain);
        }
        let text = envelope_text(&recipient.path, is_utf8);
        let unaskable = text.is_none().then(|| {
            "the server takes no address with non-ASCII letters before the @ (no SMTPUTF8)"
                .to_owned()
        });
        asked.push(Asked {
            index,
            path: text.unwrap_or_else(|| recipient.path.to_string()),
            unaskable,
            reply: None,
            final_reply: None,
        });
    }
    (asked, left_out)
}
