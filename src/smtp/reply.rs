//! Server replies (RFC 5321 section 4.2), read with bounds on everything.

use std::fmt;

use lettre::transport::smtp::response::{Category, Code, Detail, Response, Severity};
use zeroize::Zeroizing;

/// Octets of the longest reply line taken. RFC 5321 section 4.5.3.1.5 says 512.
const LONGEST_LINE: usize = 8 * 1024;
/// Octets of the longest reply taken, over all its lines.
const LONGEST_REPLY: usize = 128 * 1024;
/// Lines of the longest reply taken.
const MOST_LINES: usize = 1024;

/// A whole reply: lettre's, with what this client asks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(Response);

/// What comes from the server is no SMTP reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Neither code nor separator where they must be.
    #[error("the server sent something that is no SMTP reply: {0:?}")]
    Malformed(String),
    /// The lines of one reply have different codes.
    #[error("the server sent a reply whose lines have different codes")]
    MixedCodes,
    /// A line or a reply without end.
    #[error("the server sent an endless reply")]
    TooLong,
}

impl Reply {
    /// The code, as a number.
    pub fn code(&self) -> u16 {
        self.0.code().into()
    }

    /// Whether the code is 2yz.
    pub fn is_completion(&self) -> bool {
        self.0.code().severity == Severity::PositiveCompletion
    }

    /// Whether the code is 4yz: the same may succeed later.
    pub fn is_transient(&self) -> bool {
        self.0.code().severity == Severity::TransientNegativeCompletion
    }

    /// Whether the code is 5yz.
    pub fn is_permanent(&self) -> bool {
        self.0.code().severity == Severity::PermanentNegativeCompletion
    }

    /// Whether this server ends the session (RFC 5321 section 3.8).
    pub fn is_closing(&self) -> bool {
        self.code() == 421
    }

    /// The enhanced status code (RFC 2034, RFC 3463), if there is one.
    pub fn enhanced(&self) -> Option<(u16, u16, u16)> {
        let word = self.lines().next()?.split(' ').next()?;
        let mut numbers = word.split('.').map(|number| number.parse().ok());
        let code = (numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(code)
    }

    /// The text of each line.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.message()
    }
}

impl fmt::Display for Reply {
    /// The code and text of each line; lines are joined by LF.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.0.code();
        for (number, line) in self.lines().enumerate() {
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}{code} {line}")?;
        }
        Ok(())
    }
}

/// Cuts the server's octets into replies. Octets after a reply stay for the next one.
#[derive(Default)]
pub struct ReplyReader {
    buffer: Vec<u8>,
    /// Octets of `buffer` already taken into `lines`.
    taken: usize,
    lines: Vec<String>,
    code: Option<Code>,
    concealed: Vec<Zeroizing<String>>,
}

/// Octets of the shortest text that is concealed: hiding a shorter one would only show
/// where it is.
const SHORTEST_CONCEALED: usize = 4;

impl ReplyReader {
    /// From now on, and until called again, `secrets` are left out of replies: some
    /// servers repeat a command they refuse. Challenges (334) are left as they are.
    pub fn conceal(&mut self, secrets: &[&str]) {
        let long = secrets.iter().filter(|s| s.len() >= SHORTEST_CONCEALED);
        self.concealed = long.map(|s| Zeroizing::new((*s).to_owned())).collect();
    }

    fn without_secrets(&self, text: String) -> String {
        self.concealed.iter().fold(text, |text, secret| {
            text.replace(secret.as_str(), "<omitted>")
        })
    }

    /// Adds octets from the server.
    pub fn feed(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// Whether octets are left that belong to no reply taken yet.
    pub fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes the next whole reply, or `None` if its end has not come yet.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let unread = &self.buffer[self.taken..];
            let Some(end) = memchr::memchr(b'\n', unread) else {
                let endless = unread.len() > LONGEST_LINE || self.taken > LONGEST_REPLY;
                return if endless {
                    Err(ReplyError::TooLong)
                } else {
                    Ok(None)
                };
            };
            let line = &unread[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let too_many = self.lines.len() >= MOST_LINES || self.taken > LONGEST_REPLY;
            if line.len() > LONGEST_LINE || too_many {
                return Err(ReplyError::TooLong);
            }
            let (code, is_last, mut text) = parse_line(line).map_err(|error| match error {
                // Cut short, it may have half of one.
                ReplyError::Malformed(_) if !self.concealed.is_empty() => {
                    ReplyError::Malformed("<omitted>".to_owned())
                }
                other => other,
            })?;
            if u16::from(code) != 334 {
                text = self.without_secrets(text);
            }
            if self.code.is_some_and(|first| first != code) {
                return Err(ReplyError::MixedCodes);
            }
            self.taken += end + 1;
            self.code = Some(code);
            self.lines.push(text);
            if is_last {
                self.buffer.drain(..self.taken);
                self.taken = 0;
                self.code = None;
                let lines = std::mem::take(&mut self.lines);
                return Ok(Some(Reply(Response::new(code, lines))));
            }
        }
    }
}

/// `250-text`, `250 text` or a lone `250`. Text that is no UTF-8 is shown with
/// replacement characters, control characters are dropped.
fn parse_line(line: &[u8]) -> Result<(Code, bool, String), ReplyError> {
    let malformed = || {
        let start = &line[..line.len().min(80)];
        ReplyError::Malformed(String::from_utf8_lossy(start).into_owned())
    };
    let digits = line.get(..3).ok_or_else(malformed)?;
    let code = parse_code(digits).ok_or_else(malformed)?;
    let (is_last, text) = match line.get(3) {
        None => (true, &line[3..]),
        Some(b' ') => (true, &line[4..]),
        Some(b'-') => (false, &line[4..]),
        Some(_) => return Err(malformed()),
    };
    let text = String::from_utf8_lossy(text)
        .chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control())
        .collect();
    Ok((code, is_last, text))
}

fn parse_code(digits: &[u8]) -> Option<Code> {
    let severity = match digits[0] {
        b'2' => Severity::PositiveCompletion,
        b'3' => Severity::PositiveIntermediate,
        b'4' => Severity::TransientNegativeCompletion,
        b'5' => Severity::PermanentNegativeCompletion,
        _ => return None,
    };
    let category = match digits[1] {
        b'0' => Category::Syntax,
        b'1' => Category::Information,
        b'2' => Category::Connections,
        b'3' => Category::Unspecified3,
        b'4' => Category::Unspecified4,
        b'5' => Category::MailSystem,
        _ => return None,
    };
    let detail = match digits[2] {
        b'0' => Detail::Zero,
        b'1' => Detail::One,
        b'2' => Detail::Two,
        b'3' => Detail::Three,
        b'4' => Detail::Four,
        b'5' => Detail::Five,
        b'6' => Detail::Six,
        b'7' => Detail::Seven,
        b'8' => Detail::Eight,
        b'9' => Detail::Nine,
        _ => return None,
    };
    Some(Code::new(severity, category, detail))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_concealed_is_left_out() {
        let mut reader = ReplyReader::default();
        reader.conceal(&["c2VjcmV0", "secret", "no"]);
        reader.feed(b"334 c2VjcmV0\r\n500-no AUTH PLAIN c2VjcmV0\r\n500 secrets\r\n");
        let mut next = || reader.next_reply().unwrap().unwrap().to_string();
        assert_eq!(next(), "334 c2VjcmV0");
        assert_eq!(next(), "500 no AUTH PLAIN <omitted>\n500 <omitted>s");
        reader.feed(b"secret\r\n");
        let error = reader.next_reply().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
        let mut reader = ReplyReader::default();
        reader.conceal(&["secret"]);
        reader.conceal(&[]);
        reader.feed(b"250 secret\r\n");
        assert_eq!(
            reader.next_reply().unwrap().unwrap().to_string(),
            "250 secret"
        );
    }

    fn replies(octets: &[u8]) -> Result<Vec<String>, ReplyError> {
        let mut reader = ReplyReader::default();
        let mut replies = Vec::new();
        for octet in octets {
            reader.feed(&[*octet]);
            while let Some(reply) = reader.next_reply()? {
                replies.push(reply.to_string());
            }
        }
        assert!(!reader.has_more() || octets.last() != Some(&b'\n'));
        Ok(replies)
    }

    #[test]
    fn replies_are_cut_at_their_last_line() {
        assert_eq!(
            replies(b"220 hi\r\n250-a\r\n250-\r\n250 b\r\n354\r\n").unwrap(),
            ["220 hi", "250 a\n250 \n250 b", "354 "]
        );
    }

    #[test]
    fn odd_octets_in_the_text_are_shown_harmlessly() {
        assert_eq!(
            replies(b"550 no\xff\x1b[31m\tx\r\n").unwrap(),
            ["550 no\u{fffd}[31m x"]
        );
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        assert!(matches!(
            replies(b"HTTP/1.1 200 OK\r\n"),
            Err(ReplyError::Malformed(_))
        ));
        assert!(matches!(
            replies(b"199 x\r\n"),
            Err(ReplyError::Malformed(_))
        ));
        assert!(matches!(replies(b"25\r\n"), Err(ReplyError::Malformed(_))));
        assert!(matches!(replies(b"\r\n"), Err(ReplyError::Malformed(_))));
        assert_eq!(replies(b"250-a\r\n251 b\r\n"), Err(ReplyError::MixedCodes));
    }

    #[test]
    fn no_reply_is_endless() {
        let line = vec![b'2'; LONGEST_LINE + 2];
        assert_eq!(replies(&line), Err(ReplyError::TooLong));
        assert_eq!(
            replies(&b"250-x\r\n".repeat(10_000)),
            Err(ReplyError::TooLong)
        );
        let wide = [b"250-".as_slice(), &[b'x'; 4000], b"\r\n"].concat();
        assert_eq!(replies(&wide.repeat(100)), Err(ReplyError::TooLong));
    }

    proptest! {
        #[test]
        fn any_octets_give_replies_or_an_error(octets: Vec<u8>) {
            let mut reader = ReplyReader::default();
            reader.feed(&octets);
            while let Ok(Some(_)) = reader.next_reply() {}
        }
    }
}
