//! The fields of a header.

use super::lines::{line_end, lines, without_end};

/// The fields of a header, each with its continuation lines.
pub(super) fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = line_end(rest);
        while let Some(b' ' | b'\t') = rest.get(end) {
            end += line_end(&rest[end..]);
        }
        let (field, others) = rest.split_at(end);
        rest = others;
        Some(field)
    })
}

/// Name and value of a field, the value with its line ends; `None` if it is no field.
pub(super) fn split(field: &[u8]) -> Option<(&str, &[u8])> {
    let colon = memchr::memchr(b':', field)?;
    // Space before the colon is obsolete, but allowed (RFC 5322 section 4.5).
    let name = std::str::from_utf8(field[..colon].trim_ascii_end()).ok()?;
    let is_name = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic());
    is_name.then(|| (name, &field[colon + 1..]))
}

/// A field's value on one line.
pub(super) fn unfolded(value: &[u8]) -> Vec<u8> {
    lines(value).map(without_end).collect::<Vec<_>>().concat()
}
