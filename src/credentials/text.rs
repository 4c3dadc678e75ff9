//! Bytes to text as Emacs decodes a file of unknown coding in a UTF-8 locale.

use zeroize::Zeroizing;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The text of `bytes`: UTF-8, else Latin-1, with LF line ends.
///
/// Emacs can keep bytes that are text in neither; here they become U+FFFD. Coding
/// cookies, UTF-16 and ISO 2022 escapes are not looked for.
pub fn decode(bytes: &[u8]) -> Zeroizing<String> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let text = Zeroizing::new(match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) if bytes.iter().any(|byte| (0x80..0xA0).contains(byte)) => lossy(bytes),
        Err(_) => latin_1(bytes),
    });
    with_unix_line_ends(text)
}

/// `text` with the line ends that Emacs takes it to have made LF: CRLF if there are
/// some and no bare LF; CR if there is nothing else.
pub fn with_unix_line_ends(text: Zeroizing<String>) -> Zeroizing<String> {
    let line_feeds = text.matches('\n').count();
    let pairs = text.matches("\r\n").count();
    if line_feeds > pairs || !text.contains('\r') {
        return text;
    }
    let line_end = if pairs > 0 { "\r\n" } else { "\r" };
    let mut converted = Zeroizing::new(String::with_capacity(text.len()));
    for (number, line) in text.split(line_end).enumerate() {
        if number > 0 {
            converted.push('\n');
        }
        converted.push_str(line);
    }
    converted
}

/// As [`String::from_utf8_lossy`], but sized at once: a string that grows leaves copies
/// behind.
fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(3 * bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

/// Sized at once, too.
fn latin_1(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(bytes.iter().map(|&byte| char::from(byte)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> String {
        decode(bytes).to_string()
    }

    #[test]
    fn utf_8_is_taken_as_it_is() {
        assert_eq!(decoded("pässword €\n".as_bytes()), "pässword €\n");
        assert_eq!(decoded(b"\xEF\xBB\xBFmachine"), "machine");
    }

    #[test]
    fn what_is_not_utf_8_is_latin_1_or_garbled() {
        assert_eq!(decoded(b"p\xE9\xC3\xA9"), "péÃ©");
        assert_eq!(decoded(b"p\x80q"), "p\u{FFFD}q");
    }

    #[test]
    fn line_ends_are_those_of_the_whole_text() {
        assert_eq!(decoded(b"a\r\nb\rc\r\n"), "a\nb\rc\n");
        assert_eq!(decoded(b"a\r\nb\nc\r\n"), "a\r\nb\nc\r\n");
        assert_eq!(decoded(b"a\rb\rc"), "a\nb\nc");
        assert_eq!(decoded(b"a\rb\n"), "a\rb\n");
    }
}
