//! Lisp values to our types and back. The shapes are those of the docstrings in
//! [`crate::module`].

mod from_lisp;
mod to_lisp;

pub use from_lisp::{answer, elements, message, server, settings, timestamp, wishes};
pub use to_lisp::{entry, event, list};
