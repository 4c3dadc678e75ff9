//! The header of a part: what it says of its content, and how it is made to say
//! something else.

use super::allowed::Allowed;
use super::encoded_words::legal_field;
use super::error::{Cause, Trouble};
use super::field::{fields, split, unfolded};
use super::tokens::{meaning, tokens};

/// The fields of a part's header, without the empty line after them.
pub(super) struct Header<'a> {
    octets: &'a [u8],
    /// What Content-Transfer-Encoding says, in lower case; 7bit if nothing.
    pub(super) encoding: String,
    /// In lower case; text/plain if none is said (RFC 2045 section 5.2).
    pub(super) content_type: String,
    pub(super) boundary: Option<Vec<u8>>,
    pub(super) has_content_type: bool,
    has_version: bool,
    /// Whether another reader may understand it otherwise: it says things twice or
    /// unclearly, or has lines that are no fields.
    pub(super) is_doubtful: bool,
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
            encoding: "7bit".to_owned(),
            content_type: "text/plain".to_owned(),
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
                header.read_encoding(value);
            } else if name.eq_ignore_ascii_case("content-type") {
                header.is_doubtful |= header.has_content_type;
                header.has_content_type = true;
                header.read_content_type(value);
            }
        }
        header
    }

    fn read_encoding(&mut self, value: &[u8]) {
        match members(value).as_deref() {
            Some([encoding, ..]) if !encoding.is_empty() => {
                self.encoding = encoding.to_ascii_lowercase();
            }
            Some(_) => {}
            None => self.is_doubtful = true,
        }
    }

    fn read_content_type(&mut self, value: &[u8]) {
        let members = members(value);
        let Some([content_type, parameters @ ..]) = members.as_deref() else {
            self.is_doubtful = true;
            return;
        };
        if !content_type.is_empty() {
            self.content_type = content_type.to_ascii_lowercase();
        }
        self.boundary = parameters.iter().find_map(|parameter| boundary(parameter));
    }

    /// Whether its content is encoded already.
    pub(super) fn is_encoded(&self) -> bool {
        !matches!(self.encoding.as_str(), "7bit" | "8bit" | "binary")
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
                let legal =
                    legal_field(field, allowed).ok_or_else(|| (trouble, unencodable(name)))?;
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

/// What stands between the semicolons of a value, without comments and white space
/// (RFC 2045 section 5.1); `None` if that cannot be told.
fn members(value: &[u8]) -> Option<Vec<String>> {
    let value = unfolded(value);
    let tokens = tokens(&value)?;
    let text = |member: &[&[u8]]| {
        let tokens = member.iter().filter(|token| !b" \t(".contains(&token[0]));
        let octets: Vec<u8> = tokens.flat_map(|token| meaning(token)).collect();
        String::from_utf8_lossy(&octets).into_owned()
    };
    Some(tokens.split(|token| token == b";").map(text).collect())
}

/// The boundary that a parameter names, if it is one: ASCII that does not end with a
/// space (RFC 2046 section 5.1.1).
fn boundary(parameter: &str) -> Option<Vec<u8>> {
    let (name, value) = parameter.split_once('=')?;
    let value = value.trim_ascii_end();
    let is_one = name.eq_ignore_ascii_case("boundary") && !value.is_empty() && value.is_ascii();
    is_one.then(|| value.as_bytes().to_vec())
}
