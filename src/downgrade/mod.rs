//! Re-encoding a message for a server that cannot take it as it is: without 8BITMIME
//! (RFC 6152), or with lines longer than SMTP allows (RFC 5321 section 4.5.3.1.6).
//!
//! - Text becomes quoted-printable, or base64 where that is shorter by far; other leaf
//!   parts become base64 (RFC 2045 section 6). Their Content-Transfer-Encoding says so,
//!   and that of the multiparts and messages around them is corrected. A part encoded
//!   already is only broken into shorter lines, which leaves its content as it was.
//! - Header fields are folded, and encoded (RFC 2047) where their grammar allows it.
//! - Text before the first and after the last part, which nobody is shown (RFC 2046
//!   section 5.1.1), has `?` for each 8-bit octet, and long lines broken.
//! - What is signed is never changed; that, and everything else that would still be
//!   illegal, is an error that says what is the matter and in which part.
//! - All the rest stays as it is, octet by octet.
//!
//! Time is linear in the size of the message, and memory that of the result.

mod content;
mod error;
mod header;
mod structure;
#[cfg(test)]
mod tests;
mod words;

use std::borrow::Cow;
use std::ops::Range;

pub use error::DowngradeError;

use content::Form;
use error::{Cause, Trouble};

/// RFC 5321 section 4.5.3.1.6, without the CRLF.
const LONGEST_LINE: usize = 998;

/// What the server can take.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Octets above 127 (8BITMIME).
    pub eight_bit: bool,
    /// The same in the header (SMTPUTF8).
    pub eight_bit_header: bool,
}

impl Allowed {
    /// What keeps `octets` from being sent as content.
    fn content_trouble(self, octets: &[u8]) -> Option<Trouble> {
        trouble(octets, self.eight_bit)
    }

    /// What keeps `octets` from being sent as header.
    fn header_trouble(self, octets: &[u8]) -> Option<Trouble> {
        trouble(octets, self.takes_eight_bit_header())
    }

    /// Without SMTPUTF8 an 8-bit header goes where 8-bit content goes, as in smtpmail.
    fn takes_eight_bit_header(self) -> bool {
        self.eight_bit || self.eight_bit_header
    }
}

fn trouble(octets: &[u8], takes_eight_bit: bool) -> Option<Trouble> {
    if !takes_eight_bit && !octets.is_ascii() {
        Some(Trouble::EightBit)
    } else if lines(octets).any(|line| without_end(line).len() > LONGEST_LINE) {
        Some(Trouble::LongLine)
    } else {
        None
    }
}

/// The lines of `octets` with their ends. Only CRLF ends a line.
fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, others) = rest.split_at(line_end(rest));
        rest = others;
        Some(line)
    })
}

/// The length of the first line of `octets` with its end.
fn line_end(octets: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', octets)
        .find(|&at| at > 0 && octets[at - 1] == b'\r')
        .map_or(octets.len(), |at| at + 1)
}

fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r\n").unwrap_or(line)
}

/// Returns `message` in a form that is allowed; as it is, if that is one already.
/// `message` has canonical CRLF lines, and so has the result.
pub fn downgrade(message: &[u8], allowed: Allowed) -> Result<Cow<'_, [u8]>, DowngradeError> {
    if allowed.content_trouble(message).is_none() {
        return Ok(Cow::Borrowed(message));
    }
    let edits = structure::edits(message, allowed)?;
    let result = if edits.is_empty() {
        Cow::Borrowed(message)
    } else {
        Cow::Owned(edited(message, edits))
    };
    // Boundary lines are left as they are, however long.
    match allowed.header_trouble(&result) {
        None => Ok(result),
        Some(trouble) => Err(DowngradeError::new(&[], trouble, Cause::Rest)),
    }
}

/// A place of the message and what it becomes.
struct Edit {
    place: Range<usize>,
    new: New,
}

enum New {
    /// Header fields.
    Header(Vec<u8>),
    /// The same content in another form.
    Content(Form),
}

/// `message` with the `edits`, whose places don't overlap.
fn edited(message: &[u8], mut edits: Vec<Edit>) -> Vec<u8> {
    edits.sort_by_key(|edit| edit.place.start);
    // Base64 adds some 37 %; room that is not needed is never touched.
    let mut result = Vec::with_capacity(message.len() + message.len() / 2);
    let mut at = 0;
    for Edit { place, new } in edits {
        result.extend_from_slice(&message[at..place.start]);
        at = place.end;
        match new {
            New::Header(header) => result.extend_from_slice(&header),
            New::Content(form) => form.append(&message[place], &mut result),
        }
    }
    result.extend_from_slice(&message[at..]);
    result
}
