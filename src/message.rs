//! A message's bytes as they are stored: canonical CRLF lines, exactly what goes on
//! the wire before dot-stuffing (RFC 5321 section 2.3.8), and what a session must
//! know of them to choose how to send.

use mail_parser::DateTime;
use serde::{Deserialize, Serialize};

use crate::spool::Timestamp;

/// A message ready to be stored.
#[derive(Debug)]
pub struct Message {
    /// CRLF-terminated lines; no CR or LF outside of a CRLF.
    pub bytes: Vec<u8>,
    /// What a session must know of them.
    pub facts: Facts,
}

/// What a session must know of a message before it sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Octets, as declared with SIZE (RFC 1870): line ends count two.
    pub size: u64,
    /// Whether an octet above 127 occurs (8BITMIME, RFC 6152).
    pub eight_bit: bool,
    /// Whether one occurs in the header (SMTPUTF8, RFC 6531).
    pub eight_bit_header: bool,
    /// Octets of the longest line without its CRLF (at most 998 by RFC 5321
    /// section 4.5.3.1.6).
    pub longest_line: u64,
    /// The Subject field's value, unfolded, as UTF-8.
    pub subject: Option<String>,
    /// The Message-ID field's value.
    pub message_id: Option<String>,
}

impl Message {
    /// Makes every line end of `raw` (CRLF, bare LF, bare CR) a CRLF and ends the
    /// last line, so that no bare CR or LF reaches the wire.
    pub fn new(raw: &[u8]) -> Self {
        Message::of_parts(&[raw])
    }

    /// The same of `parts`, one after the other; no line end may be divided by them.
    pub fn of_parts(parts: &[impl AsRef<[u8]>]) -> Self {
        let length: usize = parts.iter().map(|part| part.as_ref().len()).sum();
        // Mail lines average some 60 octets; one guess saves the doublings.
        let mut bytes = Vec::with_capacity(length + length / 32 + 2);
        let mut longest_line = 0;
        let mut line_start = 0;
        for part in parts {
            let mut rest = part.as_ref();
            while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
                bytes.extend_from_slice(&rest[..end]);
                longest_line = longest_line.max(bytes.len() - line_start);
                bytes.extend_from_slice(b"\r\n");
                line_start = bytes.len();
                let is_crlf = rest[end..].starts_with(b"\r\n");
                rest = &rest[end + if is_crlf { 2 } else { 1 }..];
            }
            bytes.extend_from_slice(rest);
        }
        if bytes.len() > line_start {
            longest_line = longest_line.max(bytes.len() - line_start);
            bytes.extend_from_slice(b"\r\n");
        }
        let facts = Facts::of(&bytes, longest_line as u64);
        Message { bytes, facts }
    }
}

impl From<&[u8]> for Message {
    fn from(raw: &[u8]) -> Self {
        Message::new(raw)
    }
}

impl Facts {
    /// Reads the facts off canonical bytes.
    fn of(bytes: &[u8], longest_line: u64) -> Self {
        let header = &bytes[..header_length(bytes)];
        Facts {
            size: bytes.len() as u64,
            eight_bit: !bytes.is_ascii(),
            eight_bit_header: !header.is_ascii(),
            longest_line,
            subject: field(header, "subject"),
            message_id: field(header, "message-id"),
        }
    }
}

/// The header `header` with `now` as its Date, in the time zone of the Date before.
pub fn with_date(header: &[u8], now: Timestamp) -> Vec<u8> {
    let is_date = |line: &[u8]| {
        let name = line
            .split(|&octet| octet == b':')
            .next()
            .unwrap_or_default();
        name.trim_ascii_end().eq_ignore_ascii_case(b"date")
    };
    let offset = field(header, "date")
        .and_then(|date| DateTime::parse_rfc822(&date))
        .map_or(0, |date| {
            let seconds = i64::from(date.tz_hour) * 3600 + i64::from(date.tz_minute) * 60;
            if date.tz_before_gmt {
                -seconds
            } else {
                seconds
            }
        });
    let date = DateTime::from_timestamp((now.0 / 1000) as i64).to_timezone(offset);
    let line = format!("Date: {}\r\n", date.to_rfc822());
    let mut new = Vec::with_capacity(header.len() + line.len());
    let mut is_placed = false;
    let mut is_skipped = false;
    for old in header.split_inclusive(|&octet| octet == b'\n') {
        let is_continued = old.starts_with(b" ") || old.starts_with(b"\t");
        is_skipped = if is_continued {
            is_skipped
        } else {
            is_date(old)
        };
        if !is_skipped {
            new.extend_from_slice(old);
        } else if !is_placed {
            new.extend_from_slice(line.as_bytes());
            is_placed = true;
        }
    }
    if !is_placed {
        new.extend_from_slice(line.as_bytes());
    }
    new
}

/// The octets of the header with its last line end, without the empty line.
fn header_length(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\r\n") {
        return 0;
    }
    memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end + 2)
}

/// The unfolded value of the first field `name` (lower case) in a canonical header.
fn field(header: &[u8], name: &str) -> Option<String> {
    let mut value: Option<String> = None;
    for line in header.split(|&octet| octet == b'\n') {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\r');
        if let Some(value) = &mut value {
            if !line.starts_with([' ', '\t']) {
                break;
            }
            value.push_str(line);
        } else if let Some((field, text)) = line.split_once(':')
            && field.trim_end().eq_ignore_ascii_case(name)
        {
            value = Some(text.to_owned());
        }
    }
    value.map(|value| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(raw: &str) -> String {
        String::from_utf8_lossy(&Message::new(raw.as_bytes()).bytes).into_owned()
    }

    #[test]
    fn every_line_end_becomes_crlf() {
        assert_eq!(canonical("a\nb\r\nc\rd"), "a\r\nb\r\nc\r\nd\r\n");
        assert_eq!(canonical("a\r\r\nb\n\n"), "a\r\n\r\nb\r\n\r\n");
        assert_eq!(canonical("\n.\n.."), "\r\n.\r\n..\r\n");
        assert_eq!(canonical(""), "");
        assert_eq!(canonical("a\r"), "a\r\n");
    }

    #[test]
    fn facts_are_read_off_the_bytes() {
        let facts = Message::new(
            b"Message-ID: <1@x>\nSUBJECT : =?utf-8?q?x?=\n  folded\nX: y\n\nSubject: no\n\xc3\xa9 12345\n",
        )
        .facts;
        assert_eq!(facts.subject.as_deref(), Some("=?utf-8?q?x?=  folded"));
        assert_eq!(facts.message_id.as_deref(), Some("<1@x>"));
        assert!(facts.eight_bit && !facts.eight_bit_header);
        assert_eq!(facts.longest_line, 23);
        assert!(
            Message::new("Subject: ü\n\n".as_bytes())
                .facts
                .eight_bit_header
        );
        assert_eq!(Message::new(b"\nSubject: body\n").facts.subject, None);
    }

    #[test]
    fn the_date_is_replaced_in_its_time_zone() {
        let now = Timestamp(1_700_000_000_000);
        let dated =
            |header: &str| String::from_utf8(with_date(header.as_bytes(), now)).unwrap_or_default();
        assert_eq!(
            dated("A: b\r\nDATE : Mon, 1 Jan\r\n 2001 00:00:00 -0330\r\nC: d\r\n"),
            "A: b\r\nDate: Tue, 14 Nov 2023 18:43:20 -0330\r\nC: d\r\n"
        );
        assert_eq!(
            dated("A: b\r\n"),
            "A: b\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
    }

    proptest! {
        #[test]
        fn canonical_lines_are_a_fixed_point_without_bare_line_ends(
            raw in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200)
        ) {
            let once = Message::new(&raw).bytes;
            prop_assert_eq!(&Message::new(&once).bytes, &once);
            for (at, &octet) in once.iter().enumerate() {
                prop_assert!(octet != b'\r' || once.get(at + 1) == Some(&b'\n'));
                prop_assert!(octet != b'\n' || (at > 0 && once[at - 1] == b'\r'));
            }
        }
    }
}
