//! Re-encoding a message for a server that cannot take it as it is: without 8BITMIME
//! (RFC 6152), or with lines longer than SMTP allows (RFC 5321 section 4.5.3.1.6).
//!
//! Leaf parts become quoted-printable or base64 (RFC 2045 section 6), and their
//! Content-Transfer-Encoding says so; enclosed messages are treated alike. What needs
//! no change stays as it is, octet by octet. Signed parts must not be changed, so they
//! are an error; so is anything else that would still be illegal in the end.

use std::borrow::Cow;
use std::ops::Range;

use base64::prelude::{BASE64_STANDARD, Engine};
use mail_parser::{Encoding, Message, MessageParser, MessagePart, MimeHeaders, PartType};
use quoted_printable::{InputMode, Options};

const LONGEST_LINE: usize = 998;
/// Octets of text encoded by one encoded word (RFC 2047 section 2 allows 75 in all).
const ENCODED_WORD_OCTETS: usize = 42;

/// What the server can take.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Octets above 127 (8BITMIME).
    pub eight_bit: bool,
    /// The same in the header (SMTPUTF8).
    pub eight_bit_header: bool,
}

impl Allowed {
    fn body(self, octets: &[u8]) -> bool {
        (self.eight_bit || octets.is_ascii()) && has_short_lines(octets)
    }

    fn header(self, octets: &[u8]) -> bool {
        // Without SMTPUTF8 an 8-bit header goes where 8-bit content goes, as in smtpmail.
        let takes_eight_bit = self.eight_bit || self.eight_bit_header;
        (takes_eight_bit || octets.is_ascii()) && has_short_lines(octets)
    }
}

fn has_short_lines(octets: &[u8]) -> bool {
    octets
        .split(|&octet| octet == b'\n')
        .all(|line| line.strip_suffix(b"\r").unwrap_or(line).len() <= LONGEST_LINE)
}

/// Why the message cannot be re-encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DowngradeError {
    /// A signature would be broken.
    #[error("its signed part has 8-bit text or too long lines, and must not be changed")]
    Signed,
    /// A part that may not be encoded (RFC 2046 section 5.2).
    #[error("its part of type {0} has 8-bit text or too long lines, and cannot be encoded")]
    Type(String),
    /// A header field that cannot be encoded or folded.
    #[error("its field {0} has 8-bit text or too long a line")]
    Field(String),
    /// What is left: preambles, epilogues, parts that are encoded already.
    #[error("it has 8-bit text or too long lines outside of what can be encoded")]
    Rest,
}

/// Returns `message` in a form that is allowed; as it is, if that is one already.
/// `message` has canonical CRLF lines, and so has the result.
pub fn downgrade(message: &[u8], allowed: Allowed) -> Result<Cow<'_, [u8]>, DowngradeError> {
    if allowed.body(message) {
        return Ok(Cow::Borrowed(message));
    }
    let parser = MessageParser::new().with_mime_headers();
    let parsed = parser.parse(message).ok_or(DowngradeError::Rest)?;
    let mut edits = Edits {
        message,
        allowed,
        replacements: Vec::new(),
    };
    edits.part(&parsed, 0, true)?;
    let result = edits.apply();
    if allowed.body(&result) || (allowed.eight_bit_header && has_short_lines(&result)) {
        Ok(Cow::Owned(result))
    } else {
        Err(DowngradeError::Rest)
    }
}

/// The changes to a message, in the order of their places.
struct Edits<'a> {
    message: &'a [u8],
    allowed: Allowed,
    replacements: Vec<(Range<usize>, Vec<u8>)>,
}

/// What a changed header must say.
struct Wanted {
    encoding: Option<&'static str>,
    /// For a part that does not say what its octets mean.
    content_type: Option<&'static str>,
    is_top: bool,
}

impl Edits<'_> {
    fn part(
        &mut self,
        parsed: &Message<'_>,
        id: usize,
        is_top: bool,
    ) -> Result<(), DowngradeError> {
        let Some(part) = parsed.parts.get(id) else {
            return Err(DowngradeError::Rest);
        };
        let header = part.offset_header as usize..part.offset_body as usize;
        let body = part.offset_body as usize..part.offset_end as usize;
        let (Some(header_octets), Some(octets)) = (
            self.message.get(header.clone()),
            self.message.get(body.clone()),
        ) else {
            return Err(DowngradeError::Rest);
        };
        let mut wanted = Wanted {
            encoding: None,
            content_type: None,
            is_top,
        };
        let mut new_body = None;
        let (kind, subtype) = type_of(part);
        if !self.allowed.body(octets) {
            match (&part.body, kind.as_str(), subtype.as_str()) {
                (PartType::Multipart(_), _, "signed") => return Err(DowngradeError::Signed),
                (PartType::Multipart(_), ..) => wanted.encoding = Some("7bit"),
                (_, "message", "rfc822" | "global") if part.encoding == Encoding::None => {
                    wanted.encoding = Some("7bit");
                    new_body = Some(downgrade(octets, self.allowed)?.into_owned());
                }
                (_, "message", _) => {
                    return Err(DowngradeError::Type(format!("{kind}/{subtype}")));
                }
                _ if part.encoding != Encoding::None => return Err(DowngradeError::Rest),
                _ => {
                    let (name, encoded) = encode(octets, kind == "text");
                    wanted.encoding = Some(name);
                    new_body = Some(encoded);
                    if part.content_type().is_none() {
                        wanted.content_type = Some(match std::str::from_utf8(octets) {
                            Ok(_) => "text/plain; charset=utf-8",
                            Err(_) => "text/plain; charset=unknown-8bit",
                        });
                    }
                }
            }
        }
        // A multipart that may stay 8-bit says so rightly.
        if matches!(part.body, PartType::Multipart(_)) && self.allowed.eight_bit {
            wanted.encoding = None;
        }
        if wanted.encoding.is_some() || !self.allowed.header(header_octets) {
            let new_header = self.header(header_octets, &wanted)?;
            self.replacements.push((header, new_header));
        }
        if let Some(new_body) = new_body {
            self.replacements.push((body, new_body));
        } else if let PartType::Multipart(children) = &part.body {
            for &child in children {
                self.part(parsed, child as usize, false)?;
            }
        }
        Ok(())
    }

    /// The header with the fields wanted, and every field in a legal form. `header` ends
    /// with its empty line, if the message has one.
    fn header(&self, header: &[u8], wanted: &Wanted) -> Result<Vec<u8>, DowngradeError> {
        let mut result = Vec::with_capacity(header.len() + 128);
        let mut has_version = false;
        let mut has_mime = false;
        let mut is_encoding_said = wanted.encoding.is_none();
        let mut end = &b""[..];
        for field in fields(header) {
            if matches!(field, b"\r\n" | b"\n") {
                end = field;
                break;
            }
            let name = name_of(field);
            has_version |= name.eq_ignore_ascii_case("mime-version");
            has_mime |= name.to_ascii_lowercase().starts_with("content-");
            match wanted.encoding {
                Some(encoding) if name.eq_ignore_ascii_case("content-transfer-encoding") => {
                    if !is_encoding_said {
                        result.extend_from_slice(encoding_field(encoding).as_bytes());
                        is_encoding_said = true;
                    }
                }
                _ if self.allowed.header(field) => result.extend_from_slice(field),
                _ => result.extend_from_slice(&legal_field(field, &name, self.allowed)?),
            }
        }
        let adds_mime = wanted.content_type.is_some() || !is_encoding_said || has_mime;
        if wanted.is_top && !has_version && adds_mime {
            result.extend_from_slice(b"MIME-Version: 1.0\r\n");
        }
        if let Some(content_type) = wanted.content_type {
            result.extend_from_slice(format!("Content-Type: {content_type}\r\n").as_bytes());
        }
        if let (Some(encoding), false) = (wanted.encoding, is_encoding_said) {
            result.extend_from_slice(encoding_field(encoding).as_bytes());
        }
        result.extend_from_slice(if end.is_empty() { b"\r\n" } else { end });
        Ok(result)
    }

    fn apply(mut self) -> Vec<u8> {
        self.replacements.sort_by_key(|(range, _)| range.start);
        let added: usize = self.replacements.iter().map(|(_, new)| new.len()).sum();
        let mut result = Vec::with_capacity(self.message.len() + added);
        let mut at = 0;
        for (range, new) in self.replacements {
            // Ranges are those of different parts' headers and bodies: they don't overlap.
            result.extend_from_slice(self.message.get(at..range.start).unwrap_or_default());
            result.extend_from_slice(&new);
            at = range.end;
        }
        result.extend_from_slice(self.message.get(at..).unwrap_or_default());
        result
    }
}

fn encoding_field(encoding: &str) -> String {
    format!("Content-Transfer-Encoding: {encoding}\r\n")
}

/// Type and subtype in lower case; text/plain where none is said.
fn type_of(part: &MessagePart<'_>) -> (String, String) {
    match part.content_type() {
        Some(content_type) => (
            content_type.ctype().to_ascii_lowercase(),
            content_type
                .subtype()
                .unwrap_or_default()
                .to_ascii_lowercase(),
        ),
        None => ("text".to_owned(), "plain".to_owned()),
    }
}

/// The name of the encoding chosen, and the encoded octets. Those end in a line end only
/// if `octets` do: in a multipart the last one belongs to the boundary.
fn encode(octets: &[u8], is_text: bool) -> (&'static str, Vec<u8>) {
    let awkward = octets.iter().filter(|octet| !octet.is_ascii()).count();
    if is_text && awkward * 3 <= octets.len() {
        let options = Options::default().input_mode(InputMode::Text);
        let encoded = quoted_printable::encode_with_options(octets, options);
        return ("quoted-printable", encoded.into_bytes());
    }
    let mut encoded = Vec::with_capacity(octets.len() * 4 / 3 + octets.len() / 28 + 4);
    for (number, line) in octets.chunks(57).enumerate() {
        if number > 0 {
            encoded.extend_from_slice(b"\r\n");
        }
        encoded.extend_from_slice(BASE64_STANDARD.encode(line).as_bytes());
    }
    if octets.ends_with(b"\r\n") {
        encoded.extend_from_slice(b"\r\n");
    }
    ("base64", encoded)
}

/// The fields of a header, each with its continuation lines, and the empty line.
fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        loop {
            end += memchr::memchr(b'\n', &rest[end..]).map_or(rest.len() - end, |at| at + 1);
            let is_empty_line = end <= 2 && rest[..end].trim_ascii().is_empty();
            match rest.get(end) {
                Some(b' ' | b'\t') if !is_empty_line => {}
                _ => break,
            }
        }
        let (field, others) = rest.split_at(end);
        rest = others;
        Some(field)
    })
}

fn name_of(field: &[u8]) -> String {
    let end = memchr::memchr(b':', field).unwrap_or(0);
    String::from_utf8_lossy(field[..end].trim_ascii()).into_owned()
}

/// A field folded, and if need be encoded (RFC 2047), or an error that names it.
fn legal_field(field: &[u8], name: &str, allowed: Allowed) -> Result<Vec<u8>, DowngradeError> {
    let error = || DowngradeError::Field(name.to_owned());
    let text = std::str::from_utf8(field).map_err(|_| error())?;
    let (_, value) = text.split_once(':').ok_or_else(error)?;
    let value = value.replace("\r\n", "");
    let value = value.trim();
    let legal = if text.is_ascii() {
        fold(name, value)
    } else if is_unstructured(name) {
        encode_words(name, value)
    } else {
        return Err(error());
    };
    if allowed.header(legal.as_bytes()) {
        Ok(legal.into_bytes())
    } else {
        Err(error())
    }
}

/// Fields whose value is free text (RFC 5322 section 3.6.5), where encoded words may
/// stand for anything.
fn is_unstructured(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("x-")
        || ["subject", "comments", "organization", "content-description"].contains(&name.as_str())
}

/// The field with a line end before each word that would pass column 78.
fn fold(name: &str, value: &str) -> String {
    let mut result = format!("{name}:");
    let mut column = result.len();
    for word in value.split(' ') {
        if column + 1 + word.len() > 78 && column > name.len() + 1 {
            result.push_str("\r\n");
            column = 0;
        }
        result.push(' ');
        result.push_str(word);
        column += 1 + word.len();
    }
    result + "\r\n"
}

/// The field with its whole value in encoded words, one a line.
fn encode_words(name: &str, value: &str) -> String {
    let mut result = format!("{name}:");
    let mut rest = value;
    let mut is_first = true;
    while !rest.is_empty() {
        let mut end = rest.len().min(ENCODED_WORD_OCTETS);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (word, others) = rest.split_at(end);
        rest = others;
        if !is_first {
            result.push_str("\r\n");
        }
        is_first = false;
        let word = BASE64_STANDARD.encode(word);
        result.push_str(&format!(" =?utf-8?B?{word}?="));
    }
    result + "\r\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const SEVEN_BIT: Allowed = Allowed {
        eight_bit: false,
        eight_bit_header: false,
    };
    const EIGHT_BIT: Allowed = Allowed {
        eight_bit: true,
        eight_bit_header: false,
    };

    fn crlf(text: &str) -> Vec<u8> {
        text.replace('\n', "\r\n").into_bytes()
    }

    fn seven_bit(text: &str) -> String {
        let message = crlf(text);
        let result = downgrade(&message, SEVEN_BIT).unwrap().into_owned();
        assert!(SEVEN_BIT.body(&result));
        String::from_utf8(result).unwrap().replace("\r\n", "\n")
    }

    #[test]
    fn what_is_legal_stays_as_it_is() {
        let message = crlf("Subject: x\n\nplain\n");
        assert!(matches!(
            downgrade(&message, SEVEN_BIT),
            Ok(Cow::Borrowed(_))
        ));
        let message = crlf("Subject: x\n\nGrüße\n");
        assert!(matches!(
            downgrade(&message, EIGHT_BIT),
            Ok(Cow::Borrowed(_))
        ));
    }

    #[test]
    fn text_becomes_quoted_printable() {
        assert_eq!(
            seven_bit(
                "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
                 Content-Transfer-Encoding: 8bit\nSubject: x\n\nGrüße = \n.\n"
            ),
            "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
             Content-Transfer-Encoding: quoted-printable\nSubject: x\n\nGr=C3=BC=C3=9Fe =3D=20\n.\n"
        );
    }

    #[test]
    fn text_without_mime_is_given_it() {
        assert_eq!(
            seven_bit("Subject: x\n\nnaïve text\n"),
            "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
             Content-Transfer-Encoding: quoted-printable\n\nna=C3=AFve text\n"
        );
        let latin = [crlf("Subject: x\n\nna").as_slice(), b"\xefve text\r\n"].concat();
        let result = downgrade(&latin, SEVEN_BIT).unwrap().into_owned();
        let result = String::from_utf8(result).unwrap();
        assert!(result.contains("charset=unknown-8bit\r\n") && result.contains("na=EFve"));
    }

    #[test]
    fn mostly_foreign_text_and_data_become_base64() {
        let result = seven_bit(
            "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\nΚαλημέρα κόσμε\n",
        );
        assert!(
            result.contains("Content-Transfer-Encoding: base64\n\nzpr"),
            "{result}"
        );
    }

    #[test]
    fn only_the_parts_concerned_are_changed() {
        let text = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b\"\n\
Content-Transfer-Encoding: 8bit\n\npreamble\n--b\nContent-Type: text/plain; charset=utf-8\n\
Content-Transfer-Encoding: 8bit\n\nGrüße, one, two, three\n--b\nContent-Type: text/plain\n\nplain\n--b\n\
Content-Type: multipart/alternative; boundary=\"b2\"\n\n--b2\nContent-Type: text/html; charset=utf-8\n\n\
<p>schön, four, five, six</p>\n\n--b2--\n\n--b--\nepilogue\n";
        assert_eq!(
            seven_bit(text),
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b\"\n\
Content-Transfer-Encoding: 7bit\n\npreamble\n--b\nContent-Type: text/plain; charset=utf-8\n\
Content-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe, one, two, three\n--b\nContent-Type: text/plain\n\nplain\n--b\n\
Content-Type: multipart/alternative; boundary=\"b2\"\nContent-Transfer-Encoding: 7bit\n\n--b2\nContent-Type: text/html; charset=utf-8\n\
Content-Transfer-Encoding: quoted-printable\n\n\
<p>sch=C3=B6n, four, five, six</p>\n\n--b2--\n\n--b--\nepilogue\n"
        );
    }

    #[test]
    fn enclosed_messages_are_treated_alike() {
        let result = seven_bit(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
             Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\n\
             Subject: inner\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n\
             schöner Text steht hier\n--b--\n",
        );
        assert!(result.contains("Content-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n"));
        assert!(result.contains("sch=C3=B6ner Text steht hier"), "{result}");
    }

    #[test]
    fn long_lines_are_encoded_wherever_they_are() {
        let text = format!(
            "MIME-Version: 1.0\nContent-Type: text/html\n\n<p>{}</p>\n",
            "word ".repeat(300)
        );
        let message = crlf(&text);
        let result = downgrade(&message, EIGHT_BIT).unwrap().into_owned();
        let parsed = MessageParser::new().parse(&result).unwrap();
        assert_eq!(
            parsed.body_html(0).unwrap().trim_end(),
            format!("<p>{}</p>", "word ".repeat(300))
        );
    }

    #[test]
    fn header_fields_are_encoded_or_folded_or_named() {
        let result = seven_bit("Subject: Grüße\nTo: a@b\n\nx\n");
        assert_eq!(result, "Subject: =?utf-8?B?R3LDvMOfZQ==?=\nTo: a@b\n\nx\n");
        let long = format!("To: {}\n\nx\n", "a@example.org, ".repeat(100) + "b@c");
        let result = downgrade(&crlf(&long), EIGHT_BIT).unwrap().into_owned();
        assert!(EIGHT_BIT.body(&result));
        let parsed = MessageParser::new().parse(&result).unwrap();
        assert_eq!(parsed.to().unwrap().iter().count(), 101);
        let error = downgrade(&crlf("To: Jürgen <a@b>\n\nx\n"), SEVEN_BIT).unwrap_err();
        assert_eq!(error, DowngradeError::Field("To".to_owned()));
    }

    #[test]
    fn signed_parts_are_never_changed() {
        let text = "MIME-Version: 1.0\nContent-Type: multipart/signed; boundary=b\n\n--b\n\
            Content-Type: text/plain; charset=utf-8\n\nGrüße\n--b\n\
            Content-Type: application/pgp-signature\n\nx\n--b--\n";
        assert_eq!(
            downgrade(&crlf(text), SEVEN_BIT),
            Err(DowngradeError::Signed)
        );
    }

    /// A message with a part of `kind` that holds `body`.
    fn wrapped(kind: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=boundary\r\n\r\n\
             --boundary\r\nContent-Type: {kind}\r\n\r\n"
        );
        [head.as_bytes(), body, b"\r\n--boundary--\r\n"].concat()
    }

    proptest! {
        #[test]
        fn no_octets_panic_and_the_result_is_legal(octets: Vec<u8>) {
            let message = crate::message::Message::new(&octets).bytes;
            for allowed in [SEVEN_BIT, EIGHT_BIT] {
                if let Ok(result) = downgrade(&message, allowed) {
                    prop_assert!(allowed.body(&result));
                }
            }
        }

        #[test]
        fn parts_decode_to_what_they_were(
            body in proptest::collection::vec("[ -~äöü€]{0,60}|[a-z ]{1000,1100}", 1..8),
            is_text: bool,
        ) {
            let body = body.join("\r\n");
            prop_assume!(!body.contains("--boundary"));
            let kind = if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
            let message = wrapped(kind, body.as_bytes());
            let result = downgrade(&message, SEVEN_BIT).unwrap();
            prop_assert!(SEVEN_BIT.body(&result));
            let parsed = MessageParser::new().parse(&*result).unwrap();
            let content = parsed.parts[1].contents();
            prop_assert_eq!(String::from_utf8_lossy(content), body);
        }
    }
}
