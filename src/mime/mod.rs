//! Re-encoding a message for a server that cannot take it as it is: without 8BITMIME
//! (RFC 6152), or with lines longer than SMTP allows (RFC 5321 section 4.5.3.1.6).
//!
//! - Text becomes quoted-printable, or base64 where that is shorter by far; other leaf
//!   parts become base64 (RFC 2045 section 6). Their Content-Transfer-Encoding says so,
//!   and that of the multiparts and messages around them is corrected. A part encoded
//!   already is only broken into shorter lines, which leaves its content as it was.
//! - Header fields are folded, and encoded (RFC 2047) where their grammar allows it.
//! - Text before the first and after the last part, which nobody is shown (RFC 2046
//!   section 5.1.1), has `?` for each 8-bit octet, and long lines broken.
//! - What is signed is never changed; that, and everything else that would still be
//!   illegal, is an error that says what is the matter and in which part.
//! - All the rest stays as it is, octet by octet.
//!
//! Time is linear in the size of the message, and memory that of the result.

mod allowed;
mod downgrade;
mod encoded_words;
mod encodings;
mod error;
mod field;
mod folding;
mod header;
mod lines;
mod structure;
#[cfg(test)]
mod tests;
mod tokens;

pub use allowed::Allowed;
pub use downgrade::downgrade;
pub use error::DowngradeError;
