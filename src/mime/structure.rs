//! The tree of parts (RFC 2046), read line by line, and what must be changed in it.

use std::ops::Range;

use memchr::memmem::Finder;

use super::allowed::Allowed;
use super::encodings::Form;
use super::error::{Cause, DowngradeError, Trouble};
use super::header::{Header, Wanted};
use super::lines::{line_end, without_end};

/// Parts within parts that are looked into.
const DEEPEST: usize = 64;

/// A place of the message and what it becomes.
pub(super) struct Edit {
    pub(super) place: Range<usize>,
    pub(super) new: New,
}

pub(super) enum New {
    /// Header fields.
    Header(Vec<u8>),
    /// The same content in another form.
    Content(Form),
}

/// The changes that make `message` legal, in no order.
pub(super) fn edits(message: &[u8], allowed: Allowed) -> Result<Vec<Edit>, DowngradeError> {
    let mut walk = Walk {
        message,
        allowed,
        edits: Vec::new(),
        boundaries: Vec::new(),
        is_signed: false,
        path: Vec::new(),
        dashes: Finder::new(b"\r\n--"),
    };
    walk.part(0, Role::Message, 0)?;
    Ok(walk.edits)
}

struct Walk<'a> {
    message: &'a [u8],
    allowed: Allowed,
    edits: Vec<Edit>,
    /// Those of the multiparts around the present place, the outermost first.
    boundaries: Vec<Vec<u8>>,
    is_signed: bool,
    /// The number of the present part.
    path: Vec<usize>,
    dashes: Finder<'static>,
}

/// A line that ends a part.
#[derive(Clone, Copy)]
struct Delimiter {
    /// Index of its boundary in `boundaries`.
    boundary: usize,
    is_last: bool,
    /// Where the line after it starts.
    after: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Has a header of its own, with MIME-Version.
    Message,
    Part,
    /// A message, if it does not say otherwise (RFC 2046 section 5.1.5).
    DigestPart,
}

enum Kind {
    Multipart {
        boundary: Vec<u8>,
        is_signed: bool,
        /// That of its parts.
        role: Role,
    },
    Message,
    Text,
    Data,
    /// What holds parts, but may not be encoded, or looked into.
    Sealed,
}

/// What came of a stretch of the message.
#[derive(Default)]
struct Done {
    /// What ended it, if that was not the end of the message.
    delimiter: Option<Delimiter>,
    /// Whether it has 8-bit octets now.
    is_eight_bit: bool,
    is_changed: bool,
}

impl Done {
    /// `octets` stay as they are.
    fn unchanged(octets: &[u8], delimiter: Option<Delimiter>) -> Self {
        Done {
            delimiter,
            is_eight_bit: !octets.is_ascii(),
            is_changed: false,
        }
    }
}

impl Walk<'_> {
    /// The part that starts with the line at `start`, up to the delimiter that ends it.
    fn part(&mut self, start: usize, role: Role, depth: usize) -> Result<Done, DowngradeError> {
        let (header_end, body) = self.header_end(start);
        let message = self.message;
        let header = Header::read(&message[start..header_end]);
        let kind = self.kind(&header, role, depth);
        let is_composite = matches!(kind, Kind::Multipart { .. } | Kind::Message);
        let mut wanted = Wanted::default();
        let mut done = match body {
            Err(delimiter) => Done::unchanged(b"", delimiter),
            Ok(body) => match kind {
                Kind::Multipart {
                    boundary,
                    is_signed,
                    role,
                } => {
                    let was_signed = self.is_signed;
                    self.is_signed |= is_signed;
                    self.boundaries.push(boundary);
                    let done = self.multipart(body, role, depth, &header)?;
                    self.is_signed = was_signed;
                    done
                }
                Kind::Message => self.part(body, Role::Message, depth + 1)?,
                Kind::Text | Kind::Data | Kind::Sealed => {
                    self.leaf(body, &kind, &header, &mut wanted)?
                }
            },
        };
        if is_composite && done.is_changed {
            wanted.encoding = match (header.encoding.as_str(), done.is_eight_bit) {
                ("8bit" | "binary", false) => Some("7bit"),
                ("binary", true) => Some("8bit"),
                _ => None,
            };
        }
        wanted.version = role == Role::Message && done.is_changed;
        if done.is_changed
            && header.is_doubtful
            && let Some(trouble) = self.allowed.content_trouble(message)
        {
            return Err(self.error(trouble, Cause::Header));
        }
        let fields = start..header_end;
        let new_header = header
            .rewritten(&wanted, self.allowed)
            .map_err(|(trouble, cause)| self.error(trouble, cause))?;
        match new_header {
            Some(new_header) => {
                if let Some(trouble) = self.allowed.header_trouble(&message[fields.clone()]) {
                    self.spare_signed(trouble)?;
                }
                done.is_eight_bit |= !new_header.is_ascii();
                done.is_changed = true;
                self.edit(fields, New::Header(new_header));
            }
            None => done.is_eight_bit |= !message[fields].is_ascii(),
        }
        Ok(done)
    }

    fn kind(&self, header: &Header<'_>, role: Role, depth: usize) -> Kind {
        let is_open = !header.is_encoded() && depth < DEEPEST;
        let content_type = match role {
            Role::DigestPart if !header.has_content_type => "message/rfc822",
            _ => &header.content_type,
        };
        match content_type.split_once('/').unwrap_or((content_type, "")) {
            ("multipart", subtype) => match &header.boundary {
                // A boundary used twice leaves open which part a line ends.
                Some(boundary) if is_open && !self.boundaries.contains(boundary) => {
                    Kind::Multipart {
                        boundary: boundary.clone(),
                        is_signed: subtype == "signed",
                        role: match subtype {
                            "digest" => Role::DigestPart,
                            _ => Role::Part,
                        },
                    }
                }
                _ => Kind::Sealed,
            },
            ("message", "rfc822") if is_open => Kind::Message,
            // RFC 6532 section 3.7 and RFC 6533: any encoding is allowed.
            ("message", subtype) if subtype.starts_with("global") => Kind::Text,
            ("message", _) => Kind::Sealed,
            ("text", _) => Kind::Text,
            _ => Kind::Data,
        }
    }

    /// The parts of a multipart whose boundary was just pushed; takes that off again.
    fn multipart(
        &mut self,
        body: usize,
        role: Role,
        depth: usize,
        header: &Header<'_>,
    ) -> Result<Done, DowngradeError> {
        let own = self.boundaries.len() - 1;
        let (end, mut delimiter) = self.delimiter_after(body);
        let preamble = body..end;
        let has_parts = delimiter.is_some_and(|delimiter| delimiter.boundary == own);
        let mut done = if has_parts {
            self.ignored(preamble)?
        } else {
            let octets = &self.message[preamble];
            if let Some(trouble) = self.allowed.content_trouble(octets) {
                return Err(self.error(trouble, Cause::Type(header.content_type.clone())));
            }
            Done::unchanged(octets, None)
        };
        let mut number = 0;
        while let Some(Delimiter { is_last, after, .. }) =
            delimiter.filter(|delimiter| delimiter.boundary == own)
        {
            let stretch = if is_last {
                self.boundaries.pop();
                let (end, outer) = self.delimiter_after(after);
                let epilogue = self.ignored(after..end)?;
                Done {
                    delimiter: outer,
                    ..epilogue
                }
            } else {
                number += 1;
                self.path.push(number);
                let part = self.part(after, role, depth + 1)?;
                self.path.pop();
                part
            };
            done.is_eight_bit |= stretch.is_eight_bit;
            done.is_changed |= stretch.is_changed;
            delimiter = stretch.delimiter;
        }
        // Without a last delimiter it ends with what is around it.
        self.boundaries.truncate(own);
        Ok(Done { delimiter, ..done })
    }

    /// A preamble or epilogue.
    fn ignored(&mut self, place: Range<usize>) -> Result<Done, DowngradeError> {
        let octets = &self.message[place.clone()];
        let trouble = self.allowed.content_trouble(octets);
        let keeps_eight_bit = self.allowed.eight_bit;
        if let Some(trouble) = trouble {
            self.spare_signed(trouble)?;
            self.edit(place, New::Content(Form::Ignored { keeps_eight_bit }));
        }
        Ok(Done {
            delimiter: None,
            is_eight_bit: keeps_eight_bit && !octets.is_ascii(),
            is_changed: trouble.is_some(),
        })
    }

    fn leaf(
        &mut self,
        body: usize,
        kind: &Kind,
        header: &Header<'_>,
        wanted: &mut Wanted,
    ) -> Result<Done, DowngradeError> {
        let (end, delimiter) = self.delimiter_after(body);
        let octets = &self.message[body..end];
        let Some(trouble) = self.allowed.content_trouble(octets) else {
            return Ok(Done::unchanged(octets, delimiter));
        };
        self.spare_signed(trouble)?;
        // Readers differ on whether what holds parts can be encoded at all.
        let is_breakable = octets.is_ascii() && !matches!(kind, Kind::Sealed);
        let form = match (header.encoding.as_str(), kind) {
            ("base64", _) if is_breakable => Form::BrokenBase64,
            ("quoted-printable", _) if is_breakable => Form::BrokenQuotedPrintable,
            (encoding, _) if header.is_encoded() => {
                return Err(self.error(trouble, Cause::Encoded(encoding.to_owned())));
            }
            (_, Kind::Text) => Form::of_text(octets),
            (_, Kind::Data) => Form::Base64,
            _ => return Err(self.error(trouble, Cause::Type(header.content_type.clone()))),
        };
        wanted.encoding = match form {
            Form::QuotedPrintable => Some("quoted-printable"),
            Form::Base64 => Some("base64"),
            _ => None,
        };
        if wanted.encoding.is_some() && !header.has_content_type && !octets.is_ascii() {
            wanted.content_type = Some(match std::str::from_utf8(octets) {
                Ok(_) => "text/plain; charset=utf-8",
                // RFC 1428: the charset that says that nobody knows.
                Err(_) => "text/plain; charset=unknown-8bit",
            });
        }
        self.edit(body..end, New::Content(form));
        Ok(Done {
            delimiter,
            is_changed: true,
            ..Done::default()
        })
    }

    fn edit(&mut self, place: Range<usize>, new: New) {
        self.edits.push(Edit { place, new });
    }

    /// An error, if the present place must not be changed.
    fn spare_signed(&self, trouble: Trouble) -> Result<(), DowngradeError> {
        if self.is_signed {
            return Err(self.error(trouble, Cause::Signed));
        }
        Ok(())
    }

    fn error(&self, trouble: Trouble, cause: Cause) -> DowngradeError {
        DowngradeError::new(&self.path, trouble, cause)
    }

    /// Where the header that starts at `start` ends, and where its body starts, or what
    /// is there in its stead.
    fn header_end(&self, start: usize) -> (usize, Result<usize, Option<Delimiter>>) {
        let mut at = start;
        while at < self.message.len() {
            if let Some(delimiter) = self.delimiter_at(at) {
                return (at, Err(Some(delimiter)));
            }
            let after = at + line_end(&self.message[at..]);
            if without_end(&self.message[at..after]).is_empty() {
                return (at, Ok(after));
            }
            at = after;
        }
        (at, Err(None))
    }

    /// The first delimiter from the line at `from` on, and the end of the content before
    /// it: the line end there belongs to the delimiter.
    fn delimiter_after(&self, from: usize) -> (usize, Option<Delimiter>) {
        let mut at = from;
        if self.boundaries.is_empty() {
            return (self.message.len(), None);
        }
        loop {
            if let Some(delimiter) = self.delimiter_at(at) {
                let end = if at == from { from } else { at - 2 };
                return (end, Some(delimiter));
            }
            match self.dashes.find(&self.message[at..]) {
                Some(found) => at += found + 2,
                None => return (self.message.len(), None),
            }
        }
    }

    /// The delimiter on the line at `at`, if that is one. A boundary may start with
    /// another, so the whole line counts, without white space at its end.
    fn delimiter_at(&self, at: usize) -> Option<Delimiter> {
        let line = self.message[at..].strip_prefix(b"--")?;
        let length = line_end(line);
        let text = without_end(&line[..length]).trim_ascii_end();
        let found = |(boundary, text_of): (usize, &Vec<u8>)| {
            let is_last = match text.strip_prefix(text_of.as_slice())? {
                b"" => false,
                b"--" => true,
                _ => return None,
            };
            Some(Delimiter {
                boundary,
                is_last,
                after: at + 2 + length,
            })
        };
        self.boundaries.iter().enumerate().rev().find_map(found)
    }
}
