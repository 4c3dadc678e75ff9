//! One message on one session: what is said of it to this server, and what came back.

use std::borrow::Cow;
use std::io::{self, Cursor};
use std::time::Instant;

use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter, RcptParameter};

use super::body::{Body, Source};
use super::capabilities::{Capabilities, Distrust};
use super::outcome::{Asked, Ending, Verdict, judge};
use super::reply::Reply;
use super::session::Session;
use super::transfer::Job;
use crate::address::Path;
use crate::downgrade::{Allowed, downgrade};
use crate::error::{Disposition, Stage};
use crate::spool::{Dsn, RecipientState};

/// Octets of the longest line that may be sent (RFC 5321 section 4.5.3.1.6).
const LONGEST_LINE: u64 = 998;

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
    /// Octets of the content as it goes to this server, before dot-stuffing.
    size: u64,
    /// The content as this server can take it, if it is not the stored one.
    converted: Option<Vec<u8>>,
}

impl Transaction {
    /// Octets of the content as it goes to this server, before dot-stuffing.
    pub fn size(&self) -> u64 {
        self.size
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
    pub fn open_body(&mut self) -> io::Result<Body> {
        let source: Box<dyn Source> = match self.converted.take() {
            Some(bytes) => Box::new(Cursor::new(bytes)),
            None => Box::new(self.job.message()?),
        };
        Body::new(source, self.size, !self.is_chunked)
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
        let converted = match fit_content(offered, &job, is_utf8) {
            Ok(converted) => converted,
            Err(what) => {
                let verdict = refused(what);
                return Err(Box::new((job, verdict)));
            }
        };
        let entry = &job.entry;
        let size = converted
            .as_ref()
            .map_or(entry.facts.size, |bytes| bytes.len() as u64);
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
        let is_eight_bit = converted
            .as_deref()
            .map_or(entry.facts.eight_bit, |bytes| !bytes.is_ascii());
        let mut parameters = Vec::new();
        if offered.size.is_some() {
            parameters.push(MailParameter::Size(size as usize));
        }
        if is_eight_bit && offered.eight_bit_mime {
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
            size,
            converted,
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

/// The content in a form that the server may be sent, if the stored one is none.
fn fit_content(
    offered: &Capabilities,
    job: &Job,
    is_utf8: bool,
) -> Result<Option<Vec<u8>>, String> {
    let facts = &job.entry.facts;
    let is_sendable =
        (!facts.eight_bit || offered.eight_bit_mime) && facts.longest_line <= LONGEST_LINE;
    if is_sendable {
        return Ok(None);
    }
    let unreadable = |error: io::Error| format!("cannot read the stored message: {error}");
    let mut stored = Vec::with_capacity(facts.size as usize);
    let mut file = job.message().map_err(unreadable)?;
    io::Seek::rewind(&mut file).map_err(unreadable)?;
    io::Read::read_to_end(&mut file, &mut stored).map_err(unreadable)?;
    let allowed = Allowed {
        eight_bit: offered.eight_bit_mime,
        eight_bit_header: is_utf8,
    };
    match downgrade(&stored, allowed) {
        Ok(Cow::Borrowed(_)) => Ok(None),
        Ok(Cow::Owned(bytes)) => Ok(Some(bytes)),
        Err(error) => Err(format!(
            "this server cannot be sent the message as it is: {error}"
        )),
    }
}
