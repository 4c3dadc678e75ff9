//! The content of a message in the form in which a server is sent it.

use std::borrow::Cow;
use std::io::{self, Cursor, Read};

use super::body::Octets;
use super::capabilities::Capabilities;
use crate::mail::Timestamp;
use crate::mail::with_date;
use crate::mime::{Allowed, DowngradeError, downgrade};
use crate::spool::{Claim, Entry};

/// Octets of the longest line that may be sent (RFC 5321 section 4.5.3.1.6).
const LONGEST_LINE: u64 = 998;
/// A header longer than this keeps its Date.
const LONGEST_HEADER: u64 = 1024 * 1024;

/// The content in the form in which a server is sent it.
pub(super) struct Content {
    pub source: Octets,
    /// Its octets, before dot-stuffing.
    pub size: u64,
    /// Whether it must be declared as BODY=8BITMIME.
    pub needs_eight_bit: bool,
}

/// Why there is no content to send.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("cannot read the stored message: {0}")]
    Unreadable(#[from] io::Error),
    #[error("this server cannot be sent the message as it is: {0}")]
    Unsendable(#[from] DowngradeError),
}

/// Whether the message goes with SMTPUTF8.
pub(super) fn uses_utf8(offered: &Capabilities, entry: &Entry) -> bool {
    let paths = entry.recipients.iter().map(|recipient| &recipient.path);
    let is_wide = |path: &crate::mail::Path| path.to_ascii().is_none();
    let needs_utf8 = entry.facts.eight_bit_header || paths.chain([&entry.sender]).any(is_wide);
    needs_utf8 && offered.smtputf8
}

impl Content {
    /// The form for a server that has `offered` this, sent at `now`. Reads from the disk,
    /// and may re-encode the whole message.
    pub fn fit(offered: &Capabilities, claim: &Claim, now: Timestamp) -> Result<Self, Unfit> {
        let entry = &claim.entry;
        let facts = &entry.facts;
        let mut content = Content {
            source: Box::new(claim.message()?.take(facts.size)),
            size: facts.size,
            needs_eight_bit: facts.eight_bit && offered.eight_bit_mime,
        };
        if entry.wishes.date_at_sending {
            content = content.dated(now)?;
        }
        let is_seven_bit = !facts.eight_bit || offered.eight_bit_mime;
        if is_seven_bit && facts.longest_line <= LONGEST_LINE {
            return Ok(content);
        }
        let mut bytes = Vec::with_capacity(content.size as usize);
        content.source.read_to_end(&mut bytes)?;
        let allowed = Allowed {
            eight_bit: offered.eight_bit_mime,
            eight_bit_header: uses_utf8(offered, entry),
        };
        let result = downgrade(&bytes, allowed).or_else(|error| {
            if !offered.doubts_eight_bit {
                return Err(error);
            }
            // It can't do without: the server has announced it, after all.
            content.needs_eight_bit = true;
            let eight_bit = true;
            downgrade(
                &bytes,
                Allowed {
                    eight_bit,
                    ..allowed
                },
            )
        });
        let bytes = match result? {
            Cow::Borrowed(_) => bytes,
            Cow::Owned(bytes) => bytes,
        };
        content.needs_eight_bit &= !bytes.is_ascii();
        content.size = bytes.len() as u64;
        content.source = Box::new(Cursor::new(bytes));
        Ok(content)
    }

    /// The same with `now` as its Date.
    fn dated(mut self, now: Timestamp) -> io::Result<Self> {
        let mut start = Vec::new();
        let mut block = [0; 8192];
        let end = loop {
            let length = self.source.read(&mut block)?;
            let searched = start.len().saturating_sub(3);
            start.extend_from_slice(&block[..length]);
            let end = memchr::memmem::find(&start[searched..], b"\r\n\r\n");
            if end.is_some() || length == 0 || start.len() as u64 > LONGEST_HEADER {
                break end.map(|end| searched + end + 2);
            }
        };
        if let Some(end) = end {
            let header = with_date(&start[..end], now);
            self.size = self.size - end as u64 + header.len() as u64;
            start.splice(..end, header);
        }
        self.source = Box::new(Cursor::new(start).chain(self.source));
        Ok(self)
    }
}
