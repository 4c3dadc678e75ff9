//! One message on one session: what is said of it to this server, and what came back.

use std::io;
use std::time::Instant;

use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter, RcptParameter};

use super::body::Body;
use super::capabilities::{Capabilities, Distrust};
use super::content::Content;
use super::outcome::{Asked, Ending, Verdict, judge};
use super::reply::Reply;
use super::session::Session;
use super::source::Job;
use super::trouble::{Disposition, Stage};
use crate::mail::{Path, Timestamp};
use crate::spool::{Dsn, RecipientState};

/// A mail transaction under way.
pub(super) struct Transaction {
    pub job: Job,
    pub asked: Vec<Asked>,
    /// The reply to MAIL.
    pub mail: Option<Reply>,
    pub is_last_byte_out: bool,
    /// Whether the content goes by BDAT.
    pub is_chunked: bool,
    /// When it was begun, for telling progress.
    pub begun: Instant,
    parameters: Vec<MailParameter>,
    dsn: Option<Dsn>,
    /// Recipients left for another transaction.
    left_out: usize,
    content: Content,
}

impl Transaction {
    /// Octets of the content as it goes to this server, before dot-stuffing.
    pub fn size(&self) -> u64 {
        self.content.size(self.job.entry.facts.size)
    }

    /// Whether somebody is to get the message.
    pub fn has_recipient(&self) -> bool {
        self.asked.iter().any(Asked::is_accepted)
    }

    /// The MAIL command.
    pub fn mail_command(&self) -> String {
        let sender = envelope_text(&self.job.entry.sender, self.is_utf8()).unwrap_or_default();
        let mut command = format!("MAIL FROM:<{sender}>");
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

    fn is_utf8(&self) -> bool {
        self.parameters.contains(&MailParameter::SmtpUtfEight)
    }

    /// Opens the content, dot-stuffed unless it goes by BDAT.
    pub fn open_body(&self) -> io::Result<Body> {
        let source = self.content.source(&self.job)?;
        Ok(Body::new(source, self.size(), !self.is_chunked))
    }

    /// What the server announced, and then refused because of this transaction's use of
    /// it; `ending` is its last word on the message.
    pub fn refused_extension(
        &self,
        offered: &Capabilities,
        ending: &Ending<'_>,
    ) -> Option<Distrust> {
        // "Bad sequence of commands", when each was in its place.
        let is_misplaced = |asked: &Asked| {
            asked
                .reply
                .as_ref()
                .is_some_and(|reply| reply.code() == 503)
        };
        let mail_was_accepted = self.mail.as_ref().is_some_and(Reply::is_completion);
        if offered.pipelining && mail_was_accepted && self.asked.iter().any(is_misplaced) {
            return Some(Distrust::Pipelining);
        }
        let is_unknown = |reply: &Reply| matches!(reply.code(), 500..=502 | 504 | 555);
        if self.mail.as_ref().is_some_and(is_unknown) && !self.parameters.is_empty() {
            return Some(Distrust::MailParameters).filter(|_| !self.is_utf8());
        }
        let uses_dsn = self.dsn.is_some();
        let is_refused = |asked: &Asked| asked.reply.as_ref().is_some_and(is_unknown);
        if uses_dsn && !self.has_recipient() && self.asked.iter().any(is_refused) {
            return Some(Distrust::RcptParameters);
        }
        match ending {
            Ending::Answered(Stage::EndOfData, reply) if self.is_chunked && is_unknown(reply) => {
                Some(Distrust::Chunking).filter(|_| self.has_recipient())
            }
            _ => None,
        }
    }

    /// Whether some recipients must be served by another transaction at once: there were
    /// more than the server takes at a time.
    pub fn has_more(&self) -> bool {
        let too_many = |asked: &Asked| {
            asked
                .reply
                .as_ref()
                .is_some_and(|reply| reply.code() == 452)
        };
        self.has_recipient() && (self.left_out > 0 || self.asked.iter().any(too_many))
    }

    /// Chooses what to say of a message, or finds that this server can't take it.
    pub fn prepare(session: &Session, job: Job) -> Result<Self, Box<(Job, Verdict)>> {
        let offered = &session.offered;
        let (asked, left_out, is_utf8) = recipients(offered, &job);
        let refused = |what: String| {
            let trouble = session.trouble(Stage::Mail, Disposition::Reject, &what, None);
            Verdict::refused(&asked, trouble)
        };
        let content = match Content::fit(offered, &job, is_utf8, Timestamp::now()) {
            Ok(content) => content,
            Err(what) => {
                let verdict = refused(what);
                return Err(Box::new((job, verdict)));
            }
        };
        let entry = &job.entry;
        let size = content.size(entry.facts.size);
        let mut problem = None;
        if offered.refuses_size(size) {
            problem = Some(format!(
                "the message of {size} octets is larger than the server takes ({} octets)",
                offered.size.unwrap_or(0)
            ));
        } else if envelope_text(&entry.sender, is_utf8).is_none() {
            problem = Some(format!(
                "the server takes no sender like {} (no SMTPUTF8)",
                entry.sender
            ));
        } else if entry.wishes.require_tls && !(offered.requiretls && session.is_encrypted()) {
            problem = Some("the server does not offer REQUIRETLS".to_owned());
        }
        if let Some(what) = problem {
            let verdict = refused(what);
            return Err(Box::new((job, verdict)));
        }
        if asked.iter().all(|asked| asked.unaskable.is_some()) {
            let endpoint = entry.server.endpoint();
            let verdict = judge(&endpoint, &asked, Ending::NobodyAccepted, false);
            return Err(Box::new((job, verdict)));
        }
        let dsn = entry.wishes.dsn.clone().filter(|_| offered.dsn);
        let mut parameters = Vec::new();
        if offered.size.is_some() {
            parameters.push(MailParameter::Size(size as usize));
        }
        if content.is_eight_bit(entry.facts.eight_bit) && offered.eight_bit_mime {
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
            // LMTP answers for each recipient, whose number must be known before.
            is_chunked: offered.chunking && !session.is_lmtp,
            job,
            asked,
            mail: None,
            is_last_byte_out: false,
            begun: Instant::now(),
            parameters,
            dsn,
            left_out,
            content,
        })
    }
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

/// The recipients to ask for in this transaction, the number left for another, and
/// whether SMTPUTF8 is used.
fn recipients(offered: &Capabilities, job: &Job) -> (Vec<Asked>, usize, bool) {
    let entry = &job.entry;
    let paths = entry.recipients.iter().map(|recipient| &recipient.path);
    let needs_utf8 = entry.facts.eight_bit_header
        || paths
            .chain([&entry.sender])
            .any(|path| path.to_ascii().is_none());
    let is_utf8 = needs_utf8 && offered.smtputf8;
    let pending: Vec<_> = entry
        .recipients
        .iter()
        .enumerate()
        .filter(|(_, recipient)| recipient.state == RecipientState::Pending)
        .collect();
    let most = offered.rcpt_max.unwrap_or(usize::MAX);
    let most_domains = offered.rcpt_domain_max.unwrap_or(usize::MAX);
    let mut domains: Vec<Option<String>> = Vec::new();
    let (taken, left_out): (Vec<_>, Vec<_>) =
        pending
            .into_iter()
            .enumerate()
            .partition(|(number, (_, recipient))| {
                let domain = recipient.path.domain().map(str::to_lowercase);
                let is_known = domains.contains(&domain);
                let is_taken = *number < most && (is_known || domains.len() < most_domains);
                if is_taken && !is_known {
                    domains.push(domain);
                }
                is_taken
            });
    let left_out = left_out.len();
    let asked = taken
        .into_iter()
        .map(|(_, pending)| pending)
        .map(|(index, recipient)| {
            let text = envelope_text(&recipient.path, is_utf8);
            let unaskable = text.is_none().then(|| {
                "the server takes no address with non-ASCII letters before the @ (no SMTPUTF8)"
                    .to_owned()
            });
            Asked {
                index,
                path: text.unwrap_or_else(|| recipient.path.to_string()),
                unaskable,
                reply: None,
                final_reply: None,
            }
        })
        .collect();
    (asked, left_out, is_utf8)
}
