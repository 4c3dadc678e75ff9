//! Folding of header fields (RFC 5322 section 2.2.3).

use super::allowed::LONGEST_LINE;
use super::lines::{lines, without_end};
use super::tokens::is_white;

/// Letters of a line with encoded words (RFC 2047 section 2).
pub(super) const FOLDED_LINE: usize = 76;

/// The field with its lines of more than `longest` octets broken between words, or
/// `None` if one has no white space to break it at.
pub(super) fn folded(field: &[u8], longest: usize) -> Option<Vec<u8>> {
    let mut result = Vec::with_capacity(field.len() + field.len() / 16);
    let name_length = memchr::memchr(b':', field)? + 1;
    for line in lines(field) {
        let text = without_end(line);
        let mut column = 0;
        // White space with the word after it.
        for piece in text.chunk_by(|left, right| is_white(left) || !is_white(right)) {
            // A line with the name alone is a last resort; a blank one is none at all.
            let longest_here = match result.len() == name_length {
                true => LONGEST_LINE,
                false => FOLDED_LINE,
            };
            let fits = column + piece.len() <= longest_here;
            if text.len() > longest && column > 0 && !fits && !piece.trim_ascii().is_empty() {
                result.extend_from_slice(b"\r\n");
                column = 0;
            }
            result.extend_from_slice(piece);
            column += piece.len();
        }
        result.extend_from_slice(&line[text.len()..]);
    }
    let is_legal = lines(&result).all(|line| without_end(line).len() <= LONGEST_LINE);
    is_legal.then_some(result)
}
