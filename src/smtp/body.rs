//! The content of a message on its way from the spool file to the wire.

use std::io::{self, Read};

/// Octets read at a time: what a session holds of a message in memory.
const BLOCK: usize = 32 * 1024;

/// A message's octets from the first, to be read once: from the spool file, or memory.
pub type Octets = Box<dyn Read + Send>;

/// Reads a canonical (CRLF) message block by block.
pub struct Body {
    source: Octets,
    remaining: u64,
    /// Whether dots at line starts are doubled (DATA, RFC 5321 section 4.5.2) or the
    /// octets go as they are (BDAT, RFC 3030).
    is_stuffed: bool,
    at_line_start: bool,
}

impl Body {
    /// The next `size` octets of `source`.
    pub fn new(source: Octets, size: u64, is_stuffed: bool) -> Self {
        Body {
            source,
            remaining: size,
            is_stuffed,
            at_line_start: true,
        }
    }

    /// Whether `size` octets go out in one block.
    pub fn is_one_block(size: u64) -> bool {
        size <= BLOCK as u64
    }

    /// Octets of the source not yet read.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Whether the next block holds the last octet.
    pub fn is_at_last_block(&self) -> bool {
        Body::is_one_block(self.remaining)
    }

    /// Appends the next block to `out`; false if it was the last one. A file shorter
    /// than its declared size is an error.
    pub fn append_block(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let length = self.remaining.min(BLOCK as u64) as usize;
        let mut block = [0_u8; BLOCK];
        let block = &mut block[..length];
        self.source.read_exact(block)?;
        self.remaining -= length as u64;
        if self.is_stuffed {
            self.append_stuffed(block, out);
        } else {
            out.extend_from_slice(block);
        }
        Ok(self.remaining > 0)
    }

    fn append_stuffed(&mut self, mut block: &[u8], out: &mut Vec<u8>) {
        while let Some(first) = block.first() {
            if self.at_line_start && *first == b'.' {
                out.push(b'.');
            }
            let line = memchr::memchr(b'\n', block).map_or(block.len(), |end| end + 1);
            out.extend_from_slice(&block[..line]);
            self.at_line_start = block[line - 1] == b'\n';
            block = &block[line..];
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn encoded(content: &[u8], is_stuffed: bool) -> Vec<u8> {
        let source = std::io::Cursor::new(content.to_vec());
        let mut body = Body::new(Box::new(source), content.len() as u64, is_stuffed);
        let mut out = Vec::new();
        while body.append_block(&mut out).unwrap() {}
        out
    }

    #[test]
    fn dots_at_line_starts_are_doubled_and_nothing_else() {
        assert_eq!(
            encoded(b".\r\n..\r\na.\r\n.b\r\n\r\n.\r\n", true),
            b"..\r\n...\r\na.\r\n..b\r\n\r\n..\r\n"
        );
        assert_eq!(encoded(b".\r\n", false), b".\r\n");
        assert_eq!(encoded(b"", true), b"");
    }

    #[test]
    fn a_dot_after_a_block_boundary_is_seen() {
        for before in BLOCK - 3..BLOCK + 3 {
            let mut content = vec![b'x'; before - 2];
            content.extend_from_slice(b"\r\n.\r\n");
            let mut expected = content.clone();
            expected.insert(before, b'.');
            assert_eq!(encoded(&content, true), expected);
        }
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let mut body = Body::new(Box::new(io::empty()), 1, true);
        assert!(body.append_block(&mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_line_of_the_content_ends_the_data(content: Vec<u8>) {
            let mut canonical = Vec::new();
            let raw = crate::mail::Raw::from(content);
            prop_assert!(raw.write_canonical(&mut canonical).is_ok());
            let wire = encoded(&canonical, true);
            prop_assert!(!wire.starts_with(b".\r\n"));
            prop_assert!(memchr::memmem::find(&wire, b"\r\n.\r\n").is_none());
        }
    }
}
