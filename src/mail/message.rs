//! A message's octets as they are stored: canonical CRLF lines, exactly what goes on
//! the wire before dot-stuffing (RFC 5321 section 2.3.8), and what a session must
//! know of them to choose how to send.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;

use chrono::DateTime;
use eml_codec::imf::datetime::date_time;
use serde::{Deserialize, Serialize};

use crate::mail::Timestamp;

/// So much is made canonical at a time: it should fit into the processor's cache.
const CHUNK: usize = 128 * 1024;

/// A message as it is handed over, in any line-end convention.
#[derive(Debug)]
pub struct Raw(Vec<Part>);

/// What a message is made of.
#[derive(Debug)]
pub enum Part {
    /// These octets.
    Octets(Vec<u8>),
    /// What is in this file.
    File(PathBuf),
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

impl Raw {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|part| match part {
            Part::Octets(octets) => octets.is_empty(),
            // One that can't be looked at is an error when it is read.
            Part::File(path) => path.metadata().is_ok_and(|file| file.len() == 0),
        })
    }

    /// Writes the parts, one after the other, as canonical lines: every line end (CRLF,
    /// bare LF, bare CR) becomes a CRLF, and the last line gets one, so that no bare CR
    /// or LF reaches the wire.
    pub fn write_canonical(&self, to: &mut dyn Write) -> io::Result<Facts> {
        let mut canonical = Canonical::default();
        let mut lines = Vec::with_capacity(CHUNK + CHUNK / 16);
        let mut write = |lines: &mut Vec<u8>| {
            to.write_all(lines)?;
            lines.clear();
            io::Result::Ok(())
        };
        for part in &self.0 {
            let mut reader = part.reader()?;
            loop {
                let ahead = reader.fill_buf().map_err(|error| part.told(error))?;
                let chunk = &ahead[..ahead.len().min(CHUNK)];
                let length = chunk.len();
                if length == 0 {
                    break;
                }
                canonical.append(chunk, &mut lines);
                write(&mut lines)?;
                reader.consume(length);
            }
        }
        canonical.end(&mut lines);
        write(&mut lines)?;
        Ok(canonical.into_facts())
    }
}

impl Part {
    fn reader(&self) -> io::Result<Box<dyn BufRead + '_>> {
        Ok(match self {
            Part::Octets(octets) => Box::new(octets.as_slice()),
            Part::File(path) => {
                let file = File::open(path).map_err(|error| self.told(error))?;
                Box::new(BufReader::with_capacity(CHUNK, file))
            }
        })
    }

    /// An error that says which file it is about.
    fn told(&self, error: io::Error) -> io::Error {
        match self {
            Part::Octets(_) => error,
            Part::File(path) => {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            }
        }
    }
}

impl From<Vec<Part>> for Raw {
    fn from(parts: Vec<Part>) -> Self {
        Raw(parts)
    }
}

impl From<Vec<u8>> for Raw {
    fn from(octets: Vec<u8>) -> Self {
        Raw(vec![Part::Octets(octets)])
    }
}

impl From<&[u8]> for Raw {
    fn from(octets: &[u8]) -> Self {
        octets.to_vec().into()
    }
}

/// Makes lines canonical, and reads the facts off them on the way.
#[derive(Default)]
struct Canonical {
    /// As far as it has come.
    header: Vec<u8>,
    is_in_body: bool,
    /// Of the line that has begun.
    line_length: usize,
    is_after_cr: bool,
    longest_line: usize,
    size: u64,
    eight_bit: bool,
}

impl Canonical {
    /// Appends the canonical form of the octets `raw` that follow.
    fn append(&mut self, raw: &[u8], lines: &mut Vec<u8>) {
        let begin = lines.len();
        let mut rest = raw;
        if self.is_after_cr && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            self.is_after_cr = false;
        }
        while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
            lines.extend_from_slice(&rest[..end]);
            self.line_length += end;
            self.end_line(lines);
            let line_end = &rest[end..];
            self.is_after_cr = line_end == b"\r";
            let is_crlf = line_end.starts_with(b"\r\n");
            rest = &line_end[if is_crlf { 2 } else { 1 }..];
        }
        lines.extend_from_slice(rest);
        self.line_length += rest.len();
        self.note(&lines[begin..]);
    }

    /// Ends the last line.
    fn end(&mut self, lines: &mut Vec<u8>) {
        if self.line_length > 0 {
            let begin = lines.len();
            self.end_line(lines);
            self.note(&lines[begin..]);
        }
    }

    fn end_line(&mut self, lines: &mut Vec<u8>) {
        lines.extend_from_slice(b"\r\n");
        self.longest_line = self.longest_line.max(self.line_length);
        self.line_length = 0;
    }

    fn note(&mut self, lines: &[u8]) {
        self.size += lines.len() as u64;
        self.eight_bit = self.eight_bit || !lines.is_ascii();
        if !self.is_in_body {
            // The empty line may have begun before.
            let seen = self.header.len().saturating_sub(3);
            self.header.extend_from_slice(lines);
            let end = if self.header.starts_with(b"\r\n") {
                Some(0)
            } else {
                memchr::memmem::find(&self.header[seen..], b"\r\n\r\n").map(|at| seen + at + 2)
            };
            if let Some(end) = end {
                self.header.truncate(end);
                self.is_in_body = true;
            }
        }
    }

    fn into_facts(self) -> Facts {
        Facts {
            size: self.size,
            eight_bit: self.eight_bit,
            eight_bit_header: !self.header.is_ascii(),
            longest_line: self.longest_line as u64,
            subject: field(&self.header, "subject"),
            message_id: field(&self.header, "message-id"),
        }
    }
}

/// The header `header` with `now` as its Date, in the time zone of the Date before.
pub fn with_date(header: &[u8], now: Timestamp) -> Vec<u8> {
    let now = DateTime::from_timestamp_millis(now.0 as i64).unwrap_or_default();
    let before = field(header, "date").unwrap_or_default();
    let date = match date_time(before.as_bytes()) {
        Ok((_, before)) => now.with_timezone(before.0.offset()),
        Err(_) => now.fixed_offset(),
    };
    let date = date.format("%a, %-d %b %Y %T %z");
    let mut line = Some(format!("Date: {date}\r\n"));
    let mut new = Vec::with_capacity(header.len() + 64);
    for field in fields(header) {
        if value(field, "date").is_none() {
            new.extend_from_slice(field);
        } else if let Some(line) = line.take() {
            new.extend_from_slice(line.as_bytes());
        }
    }
    new.extend_from_slice(line.unwrap_or_default().as_bytes());
    new
}

/// The unfolded value of the first field `name` in a canonical header.
fn field(header: &[u8], name: &str) -> Option<String> {
    let value = fields(header).find_map(|field| value(field, name))?;
    let text = String::from_utf8_lossy(value).replace("\r\n", "");
    Some(text.trim().to_owned())
}

/// The fields of a canonical header, each with its continuation lines.
fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header.chunk_by(|left, right| *left != b'\n' || matches!(right, b' ' | b'\t'))
}

/// The value of `field`, if that is its name.
fn value<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let colon = memchr::memchr(b':', field)?;
    let is_named = field[..colon]
        .trim_ascii_end()
        .eq_ignore_ascii_case(name.as_bytes());
    is_named.then(|| &field[colon + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::MessageParser;
    use proptest::prelude::*;

    fn made_canonical(raw: &Raw) -> (Vec<u8>, Facts) {
        let mut octets = Vec::new();
        let facts = raw.write_canonical(&mut octets);
        (octets, facts.unwrap_or_default())
    }

    fn canonical(raw: &str) -> String {
        let (octets, _) = made_canonical(&raw.as_bytes().into());
        String::from_utf8_lossy(&octets).into_owned()
    }

    fn facts(raw: &[u8]) -> Facts {
        made_canonical(&raw.into()).1
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
        let of_all = facts(
            b"Message-ID: <1@x>\nSUBJECT : =?utf-8?q?x?=\n  folded\nX: y\n\nSubject: no\n\xc3\xa9 12345\n",
        );
        assert_eq!(of_all.subject.as_deref(), Some("=?utf-8?q?x?=  folded"));
        assert_eq!(of_all.message_id.as_deref(), Some("<1@x>"));
        assert!(of_all.eight_bit && !of_all.eight_bit_header);
        assert_eq!(of_all.longest_line, 23);
        assert!(facts("Subject: ü\n\n".as_bytes()).eight_bit_header);
        assert_eq!(facts(b"\nSubject: body\n").subject, None);
    }

    #[test]
    fn parts_may_come_from_files() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("body");
        let body = "0123456789\n".repeat(CHUNK / 5);
        std::fs::write(&file, &body)?;
        let raw = Raw::from(vec![
            Part::Octets(b"Subject: x\n\r".to_vec()),
            Part::File(file.clone()),
        ]);
        let (octets, facts) = made_canonical(&raw);
        let expected = format!("Subject: x\r\n\r\n{}", body.replace('\n', "\r\n"));
        assert!(octets == expected.as_bytes());
        assert_eq!(facts.size, octets.len() as u64);
        std::fs::remove_file(&file)?;
        let error = raw
            .write_canonical(&mut io::sink())
            .map_err(|error| error.to_string());
        assert!(error.is_err_and(|text| text.contains("body: ")));
        Ok(())
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
        fn another_reader_finds_the_time_and_its_zone_in_the_date(
            date in "(Mon, )?[1-9] (Jan|Dec) (19|20)[0-9]{2} [01][0-9]:[0-5][0-9](:[0-5][0-9])? \
                     ([+-]0[0-9][0-5][0-9]|GMT)( \\(x\\))?",
            now in 0..100_000_000_000_u64,
        ) {
            let read = |header: &[u8]| {
                let message = MessageParser::new().parse(header).unwrap_or_default();
                message.date().cloned().unwrap_or_default()
            };
            let header = format!("Date: {date}\r\n");
            let before = read(header.as_bytes());
            let after = read(&with_date(header.as_bytes(), Timestamp(now * 1000)));
            prop_assert_eq!(after.to_timestamp() as u64, now);
            let zone = |date: &mail_parser::DateTime| {
                let minutes = i16::from(date.tz_hour) * 60 + i16::from(date.tz_minute);
                if date.tz_before_gmt { -minutes } else { minutes }
            };
            prop_assert_eq!(zone(&after), zone(&before));
        }

        #[test]
        fn canonical_lines_are_a_fixed_point_without_bare_line_ends(
            raw in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200)
        ) {
            let (once, _) = made_canonical(&raw.as_slice().into());
            prop_assert_eq!(&made_canonical(&once.as_slice().into()).0, &once);
            for (at, &octet) in once.iter().enumerate() {
                prop_assert!(octet != b'\r' || once.get(at + 1) == Some(&b'\n'));
                prop_assert!(octet != b'\n' || (at > 0 && once[at - 1] == b'\r'));
            }
        }

        #[test]
        fn it_does_not_matter_how_it_is_divided(
            raw in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60),
            length in 1..10_usize
        ) {
            let parts: Vec<Part> = raw.chunks(length).map(|part| Part::Octets(part.to_vec())).collect();
            prop_assert_eq!(made_canonical(&parts.into()), made_canonical(&raw.as_slice().into()));
        }
    }
}
