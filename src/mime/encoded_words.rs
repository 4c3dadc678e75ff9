//! Header fields in a legal form: folded, and their 8-bit text in encoded words
//! (RFC 2047) where the field's grammar has room for those. Encoded words that are
//! there already stay as they are.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::allowed::{Allowed, LONGEST_LINE};
use super::field::{split, unfolded};
use super::folding::{FOLDED_LINE, folded};
use super::tokens::{is_white, meaning, tokens, unescaped};

/// Octets of text in one encoded word, which may have 75 letters in all.
const ENCODED_WORD: usize = 42;

/// `field` as it may be sent, or `None` if there is no such form. What is only folded
/// stays as it is on one line.
pub(super) fn legal_field(field: &[u8], allowed: Allowed) -> Option<Vec<u8>> {
    if allowed.takes_eight_bit_header() || field.is_ascii() {
        return folded(field, LONGEST_LINE);
    }
    let (name, value) = split(field)?;
    let value = encoded(&unfolded(value), Grammar::of(name))?;
    let field = [name.as_bytes(), b":", &value, b"\r\n"].concat();
    folded(&field, FOLDED_LINE)
}

/// Where a field may have encoded words (RFC 2047 section 5).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grammar {
    /// Anywhere between words, as in every field that is not known (RFC 5322 section
    /// 3.6.8).
    Unstructured,
    /// In names before addresses, and in comments.
    Addresses,
    /// In phrases, which are all it has, and in comments.
    Phrases,
    /// In comments.
    Tokens,
}

impl Grammar {
    fn of(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("resent-").unwrap_or(&name);
        let is_among = |names: &str| names.split(' ').any(|one| one == name);
        if is_among(
            "from sender reply-to to cc bcc mail-followup-to mail-reply-to mail-copies-to \
             disposition-notification-to return-receipt-to errors-to list-id",
        ) {
            Grammar::Addresses
        } else if name == "keywords" {
            Grammar::Phrases
        } else if is_among(
            "date message-id in-reply-to references received return-path user-agent mime-version",
        ) || name.starts_with("list-")
            || (name.starts_with("content-") && name != "content-description")
        {
            Grammar::Tokens
        } else {
            Grammar::Unstructured
        }
    }
}

/// The value with what is not ASCII encoded; `None` if that stands where it must not.
fn encoded(value: &[u8], grammar: Grammar) -> Option<Vec<u8>> {
    let mut encoder = Encoder {
        result: Vec::with_capacity(value.len() * 2),
        gap: b"",
        last: Last::Plain,
    };
    if grammar == Grammar::Unstructured {
        encoder.text(value, <[u8]>::to_vec);
        return Some(encoder.result);
    }
    let tokens = tokens(value)?;
    for member in tokens.split_inclusive(|token| matches!(token[0], b',' | b';' | b':')) {
        let phrase_length = match grammar {
            Grammar::Phrases => member.len(),
            Grammar::Addresses if member.ends_with(&[b":"]) => member.len(),
            Grammar::Addresses => {
                let angle = member.iter().position(|token| token[0] == b'<');
                angle.unwrap_or_default()
            }
            Grammar::Tokens | Grammar::Unstructured => 0,
        };
        for (at, token) in member.iter().enumerate() {
            match token[0] {
                b' ' | b'\t' => encoder.gap = token,
                b'(' => encoder.comment(token),
                first if at < phrase_length && first != b'<' => {
                    encoder.word(token, &meaning(token));
                }
                _ if token.is_ascii() => encoder.put(token, Last::Plain),
                _ => return None,
            }
        }
    }
    Some([encoder.result.as_slice(), encoder.gap].concat())
}

/// What was written last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// The start of a comment.
    Open,
    Plain,
    /// An encoded word that was there.
    Kept,
    /// A new encoded word.
    New,
}

/// Writes a value word by word.
struct Encoder<'a> {
    result: Vec<u8>,
    /// White space before the next word.
    gap: &'a [u8],
    last: Last,
}

impl<'a> Encoder<'a> {
    /// Free text, whose words mean what `meaning` makes of them.
    fn text(&mut self, text: &'a [u8], meaning: fn(&[u8]) -> Vec<u8>) {
        for piece in text.chunk_by(|left, right| is_white(left) == is_white(right)) {
            if is_white(&piece[0]) {
                self.gap = piece;
            } else {
                self.word(piece, &meaning(piece));
            }
        }
    }

    /// A comment, which may hold others.
    fn comment(&mut self, comment: &'a [u8]) {
        let mut start = 0;
        let mut at = 0;
        while let Some(octet) = comment.get(at) {
            match octet {
                b'\\' => at += 1,
                b'(' | b')' => {
                    self.text(&comment[start..at], unescaped);
                    let last = if *octet == b'(' {
                        Last::Open
                    } else {
                        Last::Plain
                    };
                    self.put(&comment[at..=at], last);
                    start = at + 1;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// White space between encoded words means nothing, so one that does is encoded, too.
    fn word(&mut self, raw: &[u8], meaning: &[u8]) {
        let is_kept = raw.starts_with(b"=?") && raw.ends_with(b"?=");
        match (raw.is_ascii(), self.last) {
            (true, Last::New) if is_kept && !self.gap.is_empty() => {
                let text = std::mem::take(&mut self.gap);
                self.put(&encoded_words(text), Last::New);
                self.put(raw, Last::Kept);
            }
            (true, _) if is_kept => self.put(raw, Last::Kept),
            (true, _) => self.put(raw, Last::Plain),
            (false, Last::Kept | Last::New) => {
                let text = [std::mem::take(&mut self.gap), meaning].concat();
                self.put(&encoded_words(&text), Last::New);
            }
            (false, _) => self.put(&encoded_words(meaning), Last::New),
        }
    }

    /// Writes `raw` after white space, some of which must be around new encoded words.
    fn put(&mut self, raw: &[u8], last: Last) {
        let needs_gap = match last {
            Last::New => self.last != Last::Open,
            _ => self.last == Last::New && !b"),;:".contains(&raw[0]),
        };
        let gap = std::mem::take(&mut self.gap);
        let gap = if gap.is_empty() && needs_gap {
            b" "
        } else {
            gap
        };
        self.result.extend_from_slice(gap);
        self.result.extend_from_slice(raw);
        self.last = last;
    }
}

fn encoded_words(text: &[u8]) -> Vec<u8> {
    let charset = match std::str::from_utf8(text) {
        Ok(_) => "utf-8",
        // RFC 1428: the charset that says that nobody knows.
        Err(_) => "unknown-8bit",
    };
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(ENCODED_WORD);
        // A character of UTF-8 stays whole.
        while end < rest.len() && end > ENCODED_WORD - 3 && rest[end] & 0xC0 == 0x80 {
            end -= 1;
        }
        let (piece, others) = rest.split_at(end);
        words.push(format!("=?{charset}?B?{}?=", BASE64_STANDARD.encode(piece)));
        rest = others;
    }
    words.join(" ").into_bytes()
}
