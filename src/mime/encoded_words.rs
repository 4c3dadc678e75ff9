//! Header fields in a legal form: folded (RFC 5322 section 2.2.3), and their 8-bit text
//! in encoded words (RFC 2047) where the field's grammar has room for those.

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::allowed::{Allowed, LONGEST_LINE};
use super::field::{split, unfolded};
use super::lines::{lines, without_end};

/// Letters of a line with encoded words (RFC 2047 section 2).
const FOLDED_LINE: usize = 76;
/// Octets of text in one encoded word, which may have 75 letters in all.
const ENCODED_WORD: usize = 42;

/// `field` as it may be sent, or `None` if there is no such form. What is only folded
/// stays as it is on one line.
pub(super) fn legal_field(field: &[u8], name: &str, allowed: Allowed) -> Option<Vec<u8>> {
    if allowed.takes_eight_bit_header() || field.is_ascii() {
        return folded(field, LONGEST_LINE);
    }
    let (_, value) = split(field)?;
    let value = unfolded(value);
    let value = match Grammar::of(name) {
        Grammar::Unstructured => encoded_text(&value, true),
        Grammar::Addresses => encoded_phrases(&value, false)?,
        Grammar::Phrases => encoded_phrases(&value, true)?,
        Grammar::Tokens => encoded_comments(&tokens(&value)?)?,
        Grammar::Unknown => return None,
    };
    folded(
        &[name.as_bytes(), b":", &value, b"\r\n"].concat(),
        FOLDED_LINE,
    )
}

/// Where a field may have encoded words (RFC 2047 section 5).
enum Grammar {
    /// Anywhere between words.
    Unstructured,
    /// In names before addresses, and in comments.
    Addresses,
    /// In phrases, which are all it has, and in comments.
    Phrases,
    /// In comments.
    Tokens,
    Unknown,
}

impl Grammar {
    fn of(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("resent-").unwrap_or(&name);
        match name {
            "subject"
            | "comments"
            | "content-description"
            | "organization"
            | "summary"
            | "thread-topic" => Grammar::Unstructured,
            "from"
            | "sender"
            | "reply-to"
            | "to"
            | "cc"
            | "bcc"
            | "mail-followup-to"
            | "mail-reply-to"
            | "disposition-notification-to"
            | "return-receipt-to"
            | "errors-to"
            | "list-id" => Grammar::Addresses,
            "keywords" => Grammar::Phrases,
            "date"
            | "message-id"
            | "in-reply-to"
            | "references"
            | "received"
            | "user-agent"
            | "mime-version"
            | "content-type"
            | "content-id"
            | "content-disposition" => Grammar::Tokens,
            _ if name.starts_with("x-") => Grammar::Unstructured,
            _ => Grammar::Unknown,
        }
    }
}

/// What stands between white space, and that white space.
struct Word<'a> {
    gap: &'a [u8],
    raw: &'a [u8],
    /// What is meant: without quotes and backslashes.
    meaning: Cow<'a, [u8]>,
}

impl Word<'_> {
    fn is_encoded_word(&self) -> bool {
        self.raw.starts_with(b"=?") && self.raw.ends_with(b"?=")
    }
}

/// The words with those that are not ASCII encoded. White space between encoded words
/// means nothing, so that between such words is encoded with them. `is_apart`: the first
/// one must have white space before it.
fn encoded(words: &[Word<'_>], is_apart: bool) -> Vec<u8> {
    let mut result = Vec::new();
    let mut rest = words;
    let mut last: Option<&Word<'_>> = None;
    while let Some((word, others)) = rest.split_first() {
        let needs_gap = is_apart || last.is_some();
        if word.raw.is_ascii() {
            let was_encoded = last.is_some_and(|last| !last.raw.is_ascii());
            result.extend_from_slice(or_space(word.gap, was_encoded));
            result.extend_from_slice(word.raw);
            last = Some(word);
            rest = others;
            continue;
        }
        let mut text = Vec::new();
        if last.is_some_and(Word::is_encoded_word) {
            text.extend_from_slice(word.gap);
        }
        result.extend_from_slice(or_space(word.gap, needs_gap));
        let length = rest
            .iter()
            .position(|word| word.raw.is_ascii())
            .unwrap_or(rest.len());
        let (run, others) = rest.split_at(length);
        for (number, word) in run.iter().enumerate() {
            if number > 0 {
                text.extend_from_slice(word.gap);
            }
            text.extend_from_slice(&word.meaning);
        }
        if let Some(next) = others.first().filter(|next| next.is_encoded_word()) {
            text.extend_from_slice(next.gap);
        }
        append_encoded_words(&text, &mut result);
        last = run.last();
        rest = others;
    }
    result
}

/// The white space, or a space where there is none but must be some.
fn or_space(gap: &[u8], is_needed: bool) -> &[u8] {
    if gap.is_empty() && is_needed {
        b" "
    } else {
        gap
    }
}

fn append_encoded_words(text: &[u8], result: &mut Vec<u8>) {
    let known = std::str::from_utf8(text).ok();
    // RFC 1428: the charset that says that nobody knows.
    let charset = known.map_or("unknown-8bit", |_| "utf-8");
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(ENCODED_WORD);
        let start = text.len() - rest.len();
        while known.is_some_and(|known| !known.is_char_boundary(start + end)) {
            end -= 1;
        }
        if start > 0 {
            result.push(b' ');
        }
        let (piece, others) = rest.split_at(end);
        let word = format!("=?{charset}?B?{}?=", BASE64_STANDARD.encode(piece));
        result.extend_from_slice(word.as_bytes());
        rest = others;
    }
}

/// Free text, with backslashes kept.
fn encoded_text(text: &[u8], is_apart: bool) -> Vec<u8> {
    encoded_words_of(text, is_apart, |raw| Cow::Borrowed(raw))
}

fn encoded_words_of(text: &[u8], is_apart: bool, meaning: fn(&[u8]) -> Cow<'_, [u8]>) -> Vec<u8> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        let (gap, others) = rest.split_at(white_space(rest));
        let end = others
            .iter()
            .position(|octet| matches!(octet, b' ' | b'\t'))
            .unwrap_or(others.len());
        let (raw, others) = others.split_at(end);
        if raw.is_empty() {
            let mut result = encoded(&words, is_apart);
            result.extend_from_slice(gap);
            return result;
        }
        words.push(Word {
            gap,
            raw,
            meaning: meaning(raw),
        });
        rest = others;
    }
}

fn white_space(octets: &[u8]) -> usize {
    octets
        .iter()
        .position(|octet| !matches!(octet, b' ' | b'\t'))
        .unwrap_or(octets.len())
}

/// The lexical tokens of structured fields (RFC 5322 section 3.2), with their marks.
#[derive(Clone, Copy)]
enum Token<'a> {
    Space(&'a [u8]),
    Quoted(&'a [u8]),
    Comment(&'a [u8]),
    /// `<` to `>`.
    Angle(&'a [u8]),
    /// One of `,;:`.
    Separator(&'a [u8]),
    /// Everything else.
    Atom(&'a [u8]),
}

/// The tokens of a structured field's value, or `None` if one has no end.
fn tokens(value: &[u8]) -> Option<Vec<Token<'_>>> {
    let mut result = Vec::new();
    let mut rest = value;
    while let Some(&first) = rest.first() {
        let (token, length) = match first {
            b' ' | b'\t' => {
                let length = white_space(rest);
                (Token::Space(&rest[..length]), length)
            }
            b'"' => {
                let length = quoted_length(rest)?;
                (Token::Quoted(&rest[..length]), length)
            }
            b'(' => {
                let length = comment_length(rest)?;
                (Token::Comment(&rest[..length]), length)
            }
            b'<' => {
                let length = bracketed_length(rest, b'>')?;
                (Token::Angle(&rest[..length]), length)
            }
            b',' | b';' | b':' => (Token::Separator(&rest[..1]), 1),
            // A domain literal, which may have colons.
            b'[' => {
                let length = bracketed_length(rest, b']')?;
                (Token::Atom(&rest[..length]), length)
            }
            _ => {
                let is_end = |octet: &u8| b" \t\"(<,;:[".contains(octet);
                let length = rest.iter().position(is_end).unwrap_or(rest.len());
                (Token::Atom(&rest[..length]), length)
            }
        };
        result.push(token);
        rest = &rest[length..];
    }
    Some(result)
}

fn quoted_length(octets: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match octets.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

fn comment_length(octets: &[u8]) -> Option<usize> {
    let mut depth = 0;
    let mut at = 0;
    loop {
        match octets.get(at)? {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

fn bracketed_length(octets: &[u8], end: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        match *octets.get(at)? {
            octet if octet == end => return Some(at + 1),
            b'"' => at += quoted_length(&octets[at..])?,
            _ => at += 1,
        }
    }
}

/// A list of addresses, or of phrases, with the names that are not ASCII encoded; `None`
/// if something else is not ASCII.
fn encoded_phrases(value: &[u8], is_all_phrases: bool) -> Option<Vec<u8>> {
    let tokens = tokens(value)?;
    let mut result = Vec::with_capacity(value.len() * 2);
    let mut rest = tokens.as_slice();
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|token| matches!(token, Token::Separator(_)))
            .unwrap_or(rest.len());
        let (member, others) = rest.split_at(end);
        let is_group = matches!(others.first(), Some(Token::Separator(b":")));
        let angle = member
            .iter()
            .position(|token| matches!(token, Token::Angle(_)));
        let phrase_length = match angle {
            _ if is_group || is_all_phrases => member.len(),
            Some(angle) => angle,
            None => 0,
        };
        let (phrase, address) = member.split_at(phrase_length);
        let phrase = encoded_phrase(phrase)?;
        let needs_space = phrase.ends_with(b"?=") && matches!(address, [Token::Angle(_), ..]);
        result.extend_from_slice(&phrase);
        result.extend_from_slice(or_space(b"", needs_space));
        result.extend_from_slice(&encoded_comments(address)?);
        let separator = others.len().min(1);
        result.extend_from_slice(&encoded_comments(&others[..separator])?);
        rest = &others[separator..];
    }
    Some(result)
}

fn encoded_phrase(tokens: &[Token<'_>]) -> Option<Vec<u8>> {
    let mut result = Vec::new();
    let mut words = Vec::new();
    let mut gap: &[u8] = b"";
    for token in tokens {
        match *token {
            Token::Space(space) => gap = space,
            Token::Atom(raw) => words.push(Word {
                gap: std::mem::take(&mut gap),
                raw,
                meaning: Cow::Borrowed(raw),
            }),
            Token::Quoted(raw) => words.push(Word {
                gap: std::mem::take(&mut gap),
                raw,
                meaning: unescaped(&raw[1..raw.len() - 1]),
            }),
            Token::Comment(comment) => {
                result.extend_from_slice(&encoded(&std::mem::take(&mut words), true));
                let needs_space = result.ends_with(b"?=");
                result.extend_from_slice(or_space(std::mem::take(&mut gap), needs_space));
                result.extend_from_slice(&encoded_comment(comment));
            }
            Token::Angle(other) | Token::Separator(other) if other.is_ascii() => {
                result.extend_from_slice(&encoded(&std::mem::take(&mut words), true));
                result.extend_from_slice(std::mem::take(&mut gap));
                result.extend_from_slice(other);
            }
            Token::Angle(_) | Token::Separator(_) => return None,
        }
    }
    result.extend_from_slice(&encoded(&words, true));
    result.extend_from_slice(gap);
    Some(result)
}

/// The tokens with their comments encoded; `None` if something else is not ASCII.
fn encoded_comments(tokens: &[Token<'_>]) -> Option<Vec<u8>> {
    let mut result = Vec::new();
    for token in tokens {
        match *token {
            Token::Comment(comment) => result.extend_from_slice(&encoded_comment(comment)),
            Token::Space(raw)
            | Token::Quoted(raw)
            | Token::Angle(raw)
            | Token::Separator(raw)
            | Token::Atom(raw) => {
                if !raw.is_ascii() {
                    return None;
                }
                result.extend_from_slice(raw);
            }
        }
    }
    Some(result)
}

/// A comment, which may hold others.
fn encoded_comment(comment: &[u8]) -> Vec<u8> {
    let mut result = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while let Some(octet) = comment.get(at) {
        match octet {
            b'\\' => at += 1,
            b'(' | b')' => {
                result.extend(encoded_words_of(&comment[start..at], false, unescaped));
                result.push(*octet);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    result
}

/// Text without the backslashes of its quoted pairs.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut result = Vec::with_capacity(text.len());
    let mut octets = text.iter();
    while let Some(octet) = octets.next() {
        match octet {
            b'\\' => result.extend(octets.next()),
            _ => result.push(*octet),
        }
    }
    Cow::Owned(result)
}

/// The field with its lines of more than `longest` octets broken, or `None` if one has
/// no white space to break it at.
fn folded(field: &[u8], longest: usize) -> Option<Vec<u8>> {
    let mut result = Vec::with_capacity(field.len() + field.len() / 16);
    let value_start = memchr::memchr(b':', field)? + 1;
    for (number, line) in lines(field).enumerate() {
        let text = without_end(line);
        let mut rest = text;
        // A line with the name alone is a last resort.
        let mut name_end = if number == 0 { value_start } else { 0 };
        while rest.len() > longest {
            let Some(end) = fold_end(rest, name_end) else {
                break;
            };
            let (piece, others) = rest.split_at(end);
            result.extend_from_slice(piece);
            result.extend_from_slice(b"\r\n");
            rest = others;
            name_end = 0;
        }
        result.extend_from_slice(rest);
        result.extend_from_slice(&line[text.len()..]);
    }
    let is_legal = lines(&result).all(|line| without_end(line).len() <= LONGEST_LINE);
    is_legal.then_some(result)
}

/// Where to break a line: before the white space after a word, so that neither line is
/// blank. The last such place that leaves a short line, or else the first.
fn fold_end(line: &[u8], name_end: usize) -> Option<usize> {
    let text = line.trim_ascii_end();
    let is_space = |at: usize| matches!(text[at], b' ' | b'\t');
    let places = |from: usize| {
        (from..text.len()).filter(move |&at| at > 0 && is_space(at) && !is_space(at - 1))
    };
    let mut end = None;
    for place in places(name_end + 1) {
        if place > FOLDED_LINE && end.is_some() {
            break;
        }
        end = Some(place);
        if place > FOLDED_LINE {
            break;
        }
    }
    let is_long = end.unwrap_or(line.len()) > LONGEST_LINE;
    let after_name = places(name_end)
        .next()
        .filter(|&at| name_end > 0 && at == name_end);
    if is_long { after_name.or(end) } else { end }
}
