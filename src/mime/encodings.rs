//! The forms of content: RFC 2045 section 6.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::allowed::LONGEST_LINE;
use super::lines::{lines, without_end};

/// Octets of a base64 line (RFC 2045 section 6.8 allows 76 letters).
const BASE64_LINE: usize = 57;
/// Letters of an encoded line, without the `=` of a soft line break.
const ENCODED_LINE: usize = 75;

/// How content is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    QuotedPrintable,
    Base64,
    /// Quoted-printable already, but with long lines.
    BrokenQuotedPrintable,
    /// Base64 already, but with long lines.
    BrokenBase64,
    /// Text that is shown to nobody.
    Ignored {
        keeps_eight_bit: bool,
    },
}

impl Form {
    /// Quoted-printable, unless it would be more than twice as long as the text.
    pub(super) fn of_text(octets: &[u8]) -> Form {
        let is_plain = |octet: &&u8| matches!(octet, b'\t' | b'\r' | b'\n' | b' '..=b'~');
        let escapes = octets.len() - octets.iter().filter(is_plain).count();
        if escapes * 2 <= octets.len() {
            Form::QuotedPrintable
        } else {
            Form::Base64
        }
    }

    /// Appends `octets` in this form. That ends in a line end only if `octets` do: in a
    /// multipart the last one belongs to the boundary.
    pub(super) fn append(self, octets: &[u8], out: &mut Vec<u8>) {
        match self {
            Form::QuotedPrintable => append_lines(octets, 0, out, append_quoted_printable),
            Form::Base64 => append_base64(octets, out),
            Form::BrokenQuotedPrintable => {
                append_lines(octets, LONGEST_LINE, out, append_broken_quoted_printable);
            }
            Form::BrokenBase64 => append_lines(octets, LONGEST_LINE, out, append_broken_base64),
            Form::Ignored { keeps_eight_bit } => {
                let start = out.len();
                append_lines(octets, LONGEST_LINE, out, append_broken_text);
                if !keeps_eight_bit {
                    let appended = &mut out[start..];
                    for octet in appended.iter_mut().filter(|octet| !octet.is_ascii()) {
                        *octet = b'?';
                    }
                }
            }
        }
    }
}

/// A line of text.
fn append_quoted_printable(line: &[u8], out: &mut Vec<u8>) {
    let mut column = 0;
    for (at, octet) in line.iter().enumerate() {
        match octet {
            b'!'..=b'<' | b'>'..=b'~' => append_token(&[*octet], &mut column, out),
            b' ' | b'\t' if at + 1 < line.len() => append_token(&[*octet], &mut column, out),
            _ => {
                let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
                let escape = [b'=', digit(octet >> 4), digit(octet & 0xF)];
                append_token(&escape, &mut column, out);
            }
        }
    }
}

/// A letter or an escape of quoted-printable, after a soft line break if it has no room.
/// No line must look like a boundary.
fn append_token(token: &[u8], column: &mut usize, out: &mut Vec<u8>) {
    let token = match token {
        b"-" if *column == 0 || *column == ENCODED_LINE => b"=2D",
        _ => token,
    };
    if *column + token.len() > ENCODED_LINE {
        out.extend_from_slice(b"=\r\n");
        *column = 0;
    }
    out.extend_from_slice(token);
    *column += token.len();
}

fn append_base64(octets: &[u8], out: &mut Vec<u8>) {
    let mut encoded = String::with_capacity(ENCODED_LINE + 1);
    for (number, line) in octets.chunks(BASE64_LINE).enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\r\n");
        }
        encoded.clear();
        BASE64_STANDARD.encode_string(line, &mut encoded);
        out.extend_from_slice(encoded.as_bytes());
    }
    if octets.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends the lines, those of more than `longest` octets with `append_line`.
fn append_lines(
    octets: &[u8],
    longest: usize,
    out: &mut Vec<u8>,
    append_line: fn(&[u8], &mut Vec<u8>),
) {
    for line in lines(octets) {
        let text = without_end(line);
        if text.len() > longest {
            append_line(text, out);
            out.extend_from_slice(&line[text.len()..]);
        } else {
            out.extend_from_slice(line);
        }
    }
}

fn append_broken_base64(line: &[u8], out: &mut Vec<u8>) {
    for (number, piece) in line.chunks(ENCODED_LINE + 1).enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(piece);
    }
}

fn append_broken_quoted_printable(line: &[u8], out: &mut Vec<u8>) {
    // White space at the end is not content (RFC 2045 section 6.7, rule 3); a soft line
    // break after it would make it some.
    let mut rest = line.trim_ascii_end();
    let mut column = 0;
    while let Some(first) = rest.first() {
        let is_escape =
            *first == b'=' && rest.len() >= 3 && rest[1..3].iter().all(u8::is_ascii_hexdigit);
        let (token, others) = rest.split_at(if is_escape { 3 } else { 1 });
        append_token(token, &mut column, out);
        rest = others;
    }
}

/// Goes on with a space, so that no line looks like a boundary.
fn append_broken_text(line: &[u8], out: &mut Vec<u8>) {
    for (number, piece) in line.chunks(LONGEST_LINE - 1).enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\r\n ");
        }
        out.extend_from_slice(piece);
    }
}
