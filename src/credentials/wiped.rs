//! Secrets on their way through memory.

use std::io::{self, Write};

use zeroize::Zeroizing;

/// Bytes of which no copy is left behind when they grow.
#[derive(Default)]
pub struct Wiped(Zeroizing<Vec<u8>>);

impl Wiped {
    /// The bytes written.
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut grown = Zeroizing::new(Vec::with_capacity(2 * needed));
            grown.extend_from_slice(&self.0);
            self.0 = grown;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A string of `parts`, sized at once: a string that grows leaves copies behind.
pub fn concat(parts: &[&str]) -> Zeroizing<String> {
    Zeroizing::new(parts.concat())
}
