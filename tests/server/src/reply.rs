//! A reply: code, enhanced status code, lines of text.

use std::fmt::Write as _;

/// One SMTP reply, as the server's own logic or a fault rule gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// "2.1.0", put before each line's text where the server announces `ENHANCEDSTATUSCODES`.
    /// Rules leave it empty and write what they want into the text.
    pub status: &'static str,
    /// The text of each line; at least one.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply whose text has a line for each line of `text`.
    pub fn new(code: u16, text: impl AsRef<str>) -> Self {
        let lines = text.as_ref().split('\n').map(str::to_owned).collect();
        Self {
            code,
            status: "",
            lines,
        }
    }

    /// A reply with an enhanced status code.
    pub fn with_status(code: u16, status: &'static str, text: impl AsRef<str>) -> Self {
        Self {
            status,
            ..Self::new(code, text)
        }
    }

    /// A reply written as on the wire: "550 5.1.1 No such user", further lines without a code.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (code, rest) = text.split_at_checked(3).unwrap_or((text, ""));
        let code = code
            .parse()
            .map_err(|_| format!("a reply starts with three digits, not {text:?}"))?;
        Ok(Self::new(code, rest.strip_prefix(' ').unwrap_or(rest)))
    }

    /// Whether the command succeeded, or may go on.
    pub fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }

    /// The reply's bytes.
    pub fn to_wire(&self, enhanced: bool) -> Vec<u8> {
        let mut wire = String::new();
        let status = match self.status {
            "" => String::new(),
            _ if !enhanced => String::new(),
            status => format!("{status} "),
        };
        for (at, line) in self.lines.iter().enumerate() {
            let separator = if at + 1 < self.lines.len() { '-' } else { ' ' };
            // Writing into a String cannot fail.
            let _ = write!(wire, "{}{separator}{status}{line}\r\n", self.code);
        }
        wire.into_bytes()
    }
}
