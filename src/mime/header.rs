//! The header of a part: what it says of its content, and how it is made to say
//! something else.

use mail_parser::parsers::MessageStream;
use mail_parser::{ContentType, HeaderValue};

use super::allowed::Allowed;
use super::encoded_words::legal_field;
use super::error::{Cause, Trouble};
use super::field::{fields, split, unfolded};

/// The fields of a part's header, without the empty line after them.
pub(super) struct Header<'a> {
    octets: &'a [u8],
    pub(super) encoding: Encoding,
    /// In lower case; text/plain if none is said, or none that can be understood
    /// (RFC 2045 section 5.2).
    pub(super) kind: String,
    pub(super) subtype: String,
    pub(super) boundary: Option<Vec<u8>>,
    pub(super) has_content_type: bool,
    has_version: bool,
    /// Whether another reader may understand it otherwise: it says things twice, or has
    /// lines that are no fields.
    pub(super) is_doubtful: bool,
}

/// What Content-Transfer-Encoding says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// 7bit, which also holds if nothing is said.
    SevenBit,
    /// 8bit and binary.
    EightBit,
    Binary,
    QuotedPrintable,
    Base64,
    Other(String),
}

impl Encoding {
    fn parse(value: &[u8]) -> Self {
        let value = value.trim_ascii();
        let end = value
            .iter()
            .position(|octet| matches!(octet, b' ' | b'\t' | b';' | b'('))
            .unwrap_or(value.len());
        let name = String::from_utf8_lossy(&value[..end]).to_ascii_lowercase();
        match name.as_str() {
            "" | "7bit" => Encoding::SevenBit,
            "8bit" => Encoding::EightBit,
            "binary" => Encoding::Binary,
            "quoted-printable" => Encoding::QuotedPrintable,
            "base64" => Encoding::Base64,
            _ => Encoding::Other(name),
        }
    }

    /// Whether the octets are the content itself.
    pub(super) fn is_identity(&self) -> bool {
        matches!(
            self,
            Encoding::SevenBit | Encoding::EightBit | Encoding::Binary
        )
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Encoding::SevenBit => "7bit",
            Encoding::EightBit => "8bit",
            Encoding::Binary => "binary",
            Encoding::QuotedPrintable => "quoted-printable",
            Encoding::Base64 => "base64",
            Encoding::Other(name) => name,
        }
    }
}

/// What a header must say that it doesn't.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) encoding: Option<&'static str>,
    /// For content that nothing is said of.
    pub(super) content_type: Option<&'static str>,
    /// MIME-Version, if it isn't there.
    pub(super) version: bool,
}

impl<'a> Header<'a> {
    pub(super) fn read(octets: &'a [u8]) -> Self {
        let mut header = Header {
            octets,
            encoding: Encoding::SevenBit,
            kind: "text".to_owned(),
            subtype: "plain".to_owned(),
            boundary: None,
            has_content_type: false,
            has_version: false,
            is_doubtful: false,
        };
        let mut has_encoding = false;
        for field in fields(octets) {
            let Some((name, value)) = split(field) else {
                header.is_doubtful = true;
                continue;
            };
            if name.eq_ignore_ascii_case("mime-version") {
                header.has_version = true;
            } else if name.eq_ignore_ascii_case("content-transfer-encoding") {
                header.is_doubtful |= has_encoding;
                has_encoding = true;
                header.encoding = Encoding::parse(&unfolded(value));
            } else if name.eq_ignore_ascii_case("content-type") {
                header.is_doubtful |= header.has_content_type;
                header.has_content_type = true;
                header.read_content_type(&unfolded(value));
            }
        }
        header
    }

    fn read_content_type(&mut self, value: &[u8]) {
        let line = [value, b"\n"].concat();
        let HeaderValue::ContentType(said) = MessageStream::new(&line).parse_content_type() else {
            return;
        };
        self.kind = said.ctype().to_ascii_lowercase();
        self.subtype = said.subtype().unwrap_or_default().to_ascii_lowercase();
        self.boundary = boundary(&said);
    }

    /// The content type as it is named to the user.
    pub(super) fn content_type(&self) -> String {
        format!("{}/{}", self.kind, self.subtype)
    }

    /// The header with what is `wanted`, and every field in a legal form; `None` if
    /// that is how it is.
    pub(super) fn rewritten(
        &self,
        wanted: &Wanted,
        allowed: Allowed,
    ) -> Result<Option<Vec<u8>>, (Trouble, Cause)> {
        let adds_version = wanted.version && !self.has_version;
        let has_wants = wanted.encoding.is_some() || wanted.content_type.is_some() || adds_version;
        if !has_wants && allowed.header_trouble(self.octets).is_none() {
            return Ok(None);
        }
        let mut result = Vec::with_capacity(self.octets.len() + 128);
        let mut encoding = wanted.encoding;
        for field in fields(self.octets) {
            let name = split(field).map(|(name, _)| name).unwrap_or_default();
            if name.eq_ignore_ascii_case("content-transfer-encoding")
                && let Some(encoding) = encoding.take()
            {
                result.extend_from_slice(encoding_field(encoding).as_bytes());
            } else if let Some(trouble) = allowed.header_trouble(field) {
                let legal = legal_field(field, name, allowed)
                    .ok_or_else(|| (trouble, unencodable(name)))?;
                result.extend_from_slice(&legal);
            } else {
                result.extend_from_slice(field);
            }
        }
        if adds_version {
            result.extend_from_slice(b"MIME-Version: 1.0\r\n");
        }
        if let Some(content_type) = wanted.content_type {
            result.extend_from_slice(format!("Content-Type: {content_type}\r\n").as_bytes());
        }
        if let Some(encoding) = encoding {
            result.extend_from_slice(encoding_field(encoding).as_bytes());
        }
        Ok(Some(result))
    }
}

/// The cause for a field of that name, which is empty for a line that is no field.
fn unencodable(name: &str) -> Cause {
    if name.is_empty() {
        Cause::Header
    } else {
        Cause::Field(name.to_owned())
    }
}

fn encoding_field(encoding: &str) -> String {
    format!("Content-Transfer-Encoding: {encoding}\r\n")
}

/// The boundary, if it is one: ASCII that does not end with a space (RFC 2046 section
/// 5.1.1).
fn boundary(content_type: &ContentType<'_>) -> Option<Vec<u8>> {
    let boundary = content_type.attribute("boundary")?.trim_ascii_end();
    (!boundary.is_empty() && boundary.is_ascii()).then(|| boundary.as_bytes().to_vec())
}
