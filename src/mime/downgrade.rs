//! A message in a form that a server takes.

use std::borrow::Cow;

use super::allowed::Allowed;
use super::error::{Cause, DowngradeError};
use super::structure::{self, Edit, New};

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
