//! The content of a message in the form in which a server is sent it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Take};
use std::rc::Rc;

use super::body::Source;
use super::capabilities::Capabilities;
use super::source::Job;
use crate::mail::{Timestamp, with_date};
use crate::mime::{Allowed, downgrade};

/// Octets of the longest line that may be sent (RFC 5321 section 4.5.3.1.6).
const LONGEST_LINE: u64 = 998;
/// A header longer than this keeps its Date.
const LONGEST_HEADER: u64 = 1024 * 1024;

/// The content in the form in which a server is sent it.
pub(super) enum Content {
    /// As it is stored.
    Stored,
    /// With another header, which takes the place of the first octets of the stored one.
    WithHeader { header: Vec<u8>, replaced: u64 },
    /// Re-encoded.
    Converted(Rc<[u8]>),
}

impl Content {
    /// The form for a server that has `offered` this, sent at `now`.
    pub fn fit(
        offered: &Capabilities,
        job: &Job,
        is_utf8: bool,
        now: Timestamp,
    ) -> Result<Self, String> {
        let unreadable = |error: io::Error| format!("cannot read the stored message: {error}");
        let dated = if job.entry.wishes.date_at_sending {
            dated(job, now).map_err(unreadable)?
        } else {
            Content::Stored
        };
        let facts = &job.entry.facts;
        let is_sendable =
            (!facts.eight_bit || offered.eight_bit_mime) && facts.longest_line <= LONGEST_LINE;
        if is_sendable {
            return Ok(dated);
        }
        let mut bytes = Vec::with_capacity(facts.size as usize);
        dated
            .source(job)
            .and_then(|mut source| source.read_to_end(&mut bytes))
            .map_err(unreadable)?;
        let allowed = Allowed {
            eight_bit: offered.eight_bit_mime,
            eight_bit_header: is_utf8,
        };
        match downgrade(&bytes, allowed) {
            Ok(Cow::Borrowed(_)) => Ok(dated),
            Ok(Cow::Owned(bytes)) => Ok(Content::Converted(bytes.into())),
            Err(error) => Err(format!(
                "this server cannot be sent the message as it is: {error}"
            )),
        }
    }

    /// Its octets, before dot-stuffing.
    pub fn size(&self, stored: u64) -> u64 {
        match self {
            Content::Stored => stored,
            Content::WithHeader { header, replaced } => stored - replaced + header.len() as u64,
            Content::Converted(bytes) => bytes.len() as u64,
        }
    }

    /// Whether it has octets above 127, where the stored one is known to have some or not.
    pub fn is_eight_bit(&self, stored: bool) -> bool {
        match self {
            Content::Converted(bytes) => !bytes.is_ascii(),
            Content::Stored | Content::WithHeader { .. } => stored,
        }
    }

    /// Its octets from the first.
    pub fn source(&self, job: &Job) -> io::Result<Source> {
        Ok(match self {
            Content::Stored => Box::new(stored(job, 0)?),
            Content::WithHeader { header, replaced } => {
                Box::new(Cursor::new(header.clone()).chain(stored(job, *replaced)?))
            }
            Content::Converted(bytes) => Box::new(Cursor::new(Rc::clone(bytes))),
        })
    }
}

fn stored(job: &Job, from: u64) -> io::Result<Take<File>> {
    let mut message = job.message()?;
    let size = message.limit();
    message.get_mut().seek(SeekFrom::Start(from))?;
    message.set_limit(size.saturating_sub(from));
    Ok(message)
}

/// The content with `now` as its Date.
fn dated(job: &Job, now: Timestamp) -> io::Result<Content> {
    let mut start = Vec::new();
    let mut rest = stored(job, 0)?.take(LONGEST_HEADER);
    let mut block = [0; 8192];
    loop {
        let length = rest.read(&mut block)?;
        let searched = start.len().saturating_sub(3);
        start.extend_from_slice(&block[..length]);
        if let Some(end) = memchr::memmem::find(&start[searched..], b"\r\n\r\n") {
            let replaced = searched + end + 2;
            return Ok(Content::WithHeader {
                header: with_date(&start[..replaced], now),
                replaced: replaced as u64,
            });
        }
        if length == 0 {
            return Ok(Content::Stored);
        }
    }
}
