//! MAIL and RCPT: the envelope.

use super::log::Recipient;
use super::options::{Extension, Support};
use super::reply::Reply;
use super::script::Stage;
use super::session::{Session, Stop};

/// The transaction under way.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) sender: String,
    pub(super) parameters: Vec<String>,
    pub(super) recipients: Vec<Recipient>,
}

impl Envelope {
    /// What rules for the content match: each address followed by a space.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{} ", self.sender);
        for recipient in &self.recipients {
            text.push_str(&recipient.address);
            text.push(' ');
        }
        text
    }

    /// Whether MAIL had this parameter, such as "BODY=8BITMIME".
    pub(super) fn has(&self, parameter: &str) -> bool {
        let mut all = self.parameters.iter();
        all.any(|one| one.eq_ignore_ascii_case(parameter))
    }
}

impl Session {
    pub(super) async fn mail(&mut self, argument: &str) -> Result<(), Stop> {
        let (path, own) = match parse_path(argument, "FROM:") {
            Err(text) => {
                self.violation(format!("MAIL {argument:?}: {text}"));
                (Path::default(), Reply::with_status(501, "5.5.4", text))
            }
            Ok(path) => {
                let own = self.judge_mail(&path);
                (path, own)
            }
        };
        let code = self.answer(Stage::Mail, &path.address, own).await?;
        if code == 421 {
            return Err(Stop::Finished);
        }
        if code / 100 == 2 {
            self.mails += 1;
            self.reset_mail();
            self.envelope = Some(Envelope {
                sender: path.address,
                parameters: path.parameters,
                recipients: Vec::new(),
            });
        }
        Ok(())
    }

    fn judge_mail(&mut self, path: &Path) -> Reply {
        let options = &self.site.options;
        if self.helo.is_none() {
            self.violation("MAIL before EHLO or HELO");
            return Reply::with_status(503, "5.5.1", "Say EHLO first");
        }
        if self.envelope.is_some() {
            self.violation("MAIL inside a transaction");
            return Reply::with_status(503, "5.5.1", "Nested MAIL");
        }
        if options.require_tls && self.wire.tls().is_none() {
            return Reply::with_status(530, "5.7.0", "Must issue a STARTTLS command first");
        }
        if options.require_auth && self.user.is_none() {
            return Reply::with_status(530, "5.7.0", "Authentication required");
        }
        if self.limit("MAILMAX").is_some_and(|max| self.mails >= max) {
            return Reply::with_status(421, "4.7.0", "Enough messages for one session");
        }
        if let Some(refusal) = self.judge_parameters(&path.parameters, true) {
            return refusal;
        }
        let utf8 = path.has("SMTPUTF8");
        if !path.address.is_ascii() && !utf8 {
            self.violation(format!(
                "non-ASCII sender {:?} without SMTPUTF8",
                path.address
            ));
            return Reply::with_status(553, "5.6.7", "SMTPUTF8 is needed");
        }
        let limit = self.site.options.size;
        let declared = path.value("SIZE").and_then(|size| size.parse().ok());
        if limit > 0 && declared.is_some_and(|size: u64| size > limit) {
            return Reply::with_status(552, "5.3.4", "Message size exceeds fixed limit");
        }
        Reply::with_status(250, "2.1.0", "Ok")
    }

    pub(super) async fn rcpt(&mut self, argument: &str) -> Result<(), Stop> {
        let (path, own) = match parse_path(argument, "TO:") {
            Err(text) => {
                self.violation(format!("RCPT {argument:?}: {text}"));
                (Path::default(), Reply::with_status(501, "5.5.4", text))
            }
            Ok(path) => {
                let own = self.judge_rcpt(&path);
                (path, own)
            }
        };
        let code = self.answer(Stage::Rcpt, &path.address, own).await?;
        if let (2, Some(envelope)) = (code / 100, &mut self.envelope) {
            envelope.recipients.push(Recipient {
                address: path.address,
                parameters: path.parameters,
            });
        }
        Ok(())
    }

    fn judge_rcpt(&mut self, path: &Path) -> Reply {
        let Some(envelope) = &self.envelope else {
            // No violation: RCPT may be in one group with a MAIL that was refused.
            return Reply::with_status(503, "5.5.1", "MAIL first");
        };
        let utf8 = envelope.has("SMTPUTF8");
        let accepted = envelope.recipients.len();
        if path.address.is_empty() {
            self.violation("RCPT without an address");
            return Reply::with_status(501, "5.1.3", "An address, please");
        }
        if self.limit("RCPTMAX").is_some_and(|max| accepted >= max) {
            return Reply::with_status(452, "4.5.3", "Too many recipients");
        }
        if let Some(refusal) = self.judge_parameters(&path.parameters, false) {
            return refusal;
        }
        if !path.address.is_ascii() && !utf8 {
            self.violation(format!(
                "non-ASCII recipient {:?} without SMTPUTF8",
                path.address
            ));
            return Reply::with_status(553, "5.6.7", "SMTPUTF8 is needed");
        }
        Reply::with_status(250, "2.1.5", "Ok")
    }

    /// The refusal that the parameters bring about, if they do.
    fn judge_parameters(&self, parameters: &[String], mail: bool) -> Option<Reply> {
        for parameter in parameters {
            let keyword = parameter.split('=').next().unwrap_or("");
            let keyword = keyword.to_ascii_uppercase();
            let extension = match (mail, keyword.as_str()) {
                (true, "SIZE") => Some(Extension::Size),
                (true, "BODY") if parameter.to_ascii_uppercase().ends_with("=BINARYMIME") => {
                    Some(Extension::BinaryMime)
                }
                (true, "BODY") => Some(Extension::EightBitMime),
                (true, "SMTPUTF8") => Some(Extension::SmtpUtf8),
                (true, "RET" | "ENVID") => Some(Extension::Dsn),
                (true, "AUTH") => Some(Extension::Auth),
                (true, "REQUIRETLS") => Some(Extension::RequireTls),
                (false, "NOTIFY" | "ORCPT") => Some(Extension::Dsn),
                _ => None,
            };
            match extension.map(|extension| self.support(extension)) {
                Some(Some(Support::Works)) => {}
                Some(Some(Support::Refused)) => {
                    let text = format!("{keyword} is not supported after all");
                    return Some(Reply::with_status(555, "5.5.4", text));
                }
                Some(None) | None => {
                    self.violation(format!("parameter {parameter:?} was not announced"));
                    let text = format!("{keyword} is not supported");
                    return Some(Reply::with_status(555, "5.5.4", text));
                }
            }
        }
        None
    }

    /// A number in the LIMITS that the client was told of.
    fn limit(&self, name: &str) -> Option<usize> {
        self.support(Extension::Limits)?;
        let words = self.site.options.limits.split(' ');
        let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        values.next()?.parse().ok()
    }
}

#[derive(Debug, Default)]
struct Path {
    address: String,
    parameters: Vec<String>,
}

impl Path {
    fn has(&self, keyword: &str) -> bool {
        let mut all = self.parameters.iter();
        all.any(|one| one.eq_ignore_ascii_case(keyword))
    }

    fn value(&self, keyword: &str) -> Option<&str> {
        let mut pairs = self.parameters.iter().filter_map(|one| one.split_once('='));
        pairs
            .find(|(key, _)| key.eq_ignore_ascii_case(keyword))
            .map(|(_, value)| value)
    }
}

/// Reads `FROM:<address> PARAMETER…`.
fn parse_path(argument: &str, keyword: &str) -> Result<Path, &'static str> {
    let rest = match argument.split_at_checked(keyword.len()) {
        Some((word, rest)) if word.eq_ignore_ascii_case(keyword) => rest,
        _ => return Err("FROM: or TO: is missing"),
    };
    let inside = rest
        .strip_prefix('<')
        .ok_or("no < right after the colon (RFC 5321, section 3.3)")?;
    let mut quoted = false;
    let mut escaped = false;
    let mut end = None;
    for (at, character) in inside.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => {
                end = Some(at);
                break;
            }
            _ => {}
        }
    }
    let end = end.ok_or("no > after the address")?;
    let address = &inside[..end];
    if address
        .chars()
        .any(|c| c.is_control() || (c == ' ' && !inside.contains('"')))
    {
        return Err("a control character or a space in the address");
    }
    let rest = &inside[end + 1..];
    let parameters = match rest.strip_prefix(' ') {
        None if rest.is_empty() => Vec::new(),
        None => return Err("text right after the address"),
        Some(words) => words.split(' ').map(str::to_owned).collect(),
    };
    if parameters.iter().any(String::is_empty) {
        return Err("more than one space between parameters");
    }
    Ok(Path {
        address: address.to_owned(),
        parameters,
    })
}
