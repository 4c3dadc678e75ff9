//! The lexical form of a netrc-format file as auth-source reads it: words, grouped
//! into entries of keys and values.
//!
//! Words are separated by spaces, tabs and line ends, which mean no more than a space
//! does. A word may be quoted with `'` or `"`: all up to the next such quote, line ends
//! included, belongs to it; there are no escapes, and a quote that is never closed is a
//! character like others. A `#` where a word could start makes the line's rest a comment.
//!
//! Words come in pairs, a key and its value. The key `machine` starts an entry, and so
//! does `default`, which has no value. Pairs before the first of these are an entry too.
//! There are no macros: a `macdef` and its lines are read as pairs.

/// The keys and values of an entry, in the file's order.
pub type Entry<'t> = Vec<Pair<'t>>;

/// A key and its value.
#[derive(Clone, Copy)]
pub struct Pair<'t> {
    /// Such as `machine`, `login`; for `default` it is `machine`.
    pub key: &'t str,
    /// `None` for `default`, which stands for any machine.
    pub value: Option<&'t str>,
}

/// The word `machine` stands where a value should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnexpectedMachine {
    /// The line it stands on, from 1.
    pub line: usize,
}

/// The entries of `text`; none is empty.
pub fn entries(text: &str) -> Entries<'_> {
    Entries {
        words: Words { text, position: 0 },
        begun: Entry::new(),
    }
}

/// See [`entries`].
pub struct Entries<'t> {
    words: Words<'t>,
    begun: Entry<'t>,
}

impl<'t> Iterator for Entries<'t> {
    type Item = Result<Entry<'t>, UnexpectedMachine>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(key) = self.words.next() {
            let complete = match key {
                "default" | "machine" => std::mem::take(&mut self.begun),
                _ => Entry::new(),
            };
            if key == "default" {
                self.begun.push(Pair {
                    key: "machine",
                    value: None,
                });
            } else if let Some(value) = self.words.next() {
                if value == "machine" {
                    let line = self.words.line();
                    return Some(Err(UnexpectedMachine { line }));
                }
                let value = Some(value);
                self.begun.push(Pair { key, value });
            }
            if !complete.is_empty() {
                return Some(Ok(complete));
            }
        }
        let last = std::mem::take(&mut self.begun);
        (!last.is_empty()).then_some(Ok(last))
    }
}

struct Words<'t> {
    text: &'t str,
    /// After the last word.
    position: usize,
}

impl<'t> Words<'t> {
    /// The line the last word ends on, from 1.
    fn line(&self) -> usize {
        1 + self.text[..self.position].matches('\n').count()
    }

    /// What is left, from the start of its first word.
    fn rest(&self) -> &'t str {
        let mut rest = &self.text[self.position..];
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\n']);
            if !rest.starts_with('#') {
                return rest;
            }
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        }
    }
}

impl<'t> Iterator for Words<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let rest = self.rest();
        let start = self.text.len() - rest.len();
        let (word, length) = match quoted(rest) {
            Some(word) => (word, word.len() + 2),
            None => {
                let length = rest.find([' ', '\t', '\n']).unwrap_or(rest.len());
                (&rest[..length], length)
            }
        };
        self.position = start + length;
        (length > 0).then_some(word)
    }
}

/// What is between the quotes `text` starts with.
fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let word = &text[1..];
    word.find(quote).map(|end| &word[..end])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        Words { text, position: 0 }.collect()
    }

    fn read(text: &str) -> Vec<Vec<(&str, Option<&str>)>> {
        let pairs = |entry: Entry<'static>| entry.iter().map(|p| (p.key, p.value)).collect();
        entries(text.to_owned().leak())
            .map(|entry| pairs(entry.unwrap()))
            .collect()
    }

    #[test]
    fn words_end_at_blanks_and_lines() {
        assert_eq!(words("  a\tb\n\nc\r \u{a0}d"), ["a", "b", "c\r", "\u{a0}d"]);
        assert_eq!(words(" \t\n"), [""; 0]);
    }

    #[test]
    fn quotes() {
        assert_eq!(words("'a b' \"c'd\n\" ''"), ["a b", "c'd\n", ""]);
        assert_eq!(words("'a'b'c' d'e"), ["a", "b'c'", "d'e"]);
        assert_eq!(words("a 'b c"), ["a", "'b", "c"]);
        assert_eq!(words("\"it's\" '"), ["it's", "'"]);
    }

    #[test]
    fn comments() {
        assert_eq!(words("# a\nb #c d\n#\n e#f"), ["b", "e#f"]);
        assert_eq!(words("a #"), ["a"]);
        assert_eq!(words("'#a'#b\nc"), ["#a", "c"]);
    }

    #[test]
    fn entries_begin_at_machine_and_default() {
        assert_eq!(
            read("login z machine a login\nb default port c machine\nd"),
            [
                vec![("login", Some("z"))],
                vec![("machine", Some("a")), ("login", Some("b"))],
                vec![("machine", None), ("port", Some("c"))],
                vec![("machine", Some("d"))],
            ]
        );
        assert_eq!(read("machine"), [[]; 0]);
        assert_eq!(
            read("machine a password default"),
            [[("machine", Some("a")), ("password", Some("default"))]]
        );
    }

    #[test]
    fn machine_as_a_value_is_an_error() {
        let mut entries = entries("machine a\npassword\nmachine b");
        let error = entries.find_map(Result::err);
        assert_eq!(error, Some(UnexpectedMachine { line: 3 }));
    }
}
