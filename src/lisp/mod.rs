//! What Lisp can call and sees. Only this wing, and the crate's root, know of Emacs.

mod from_lisp;
mod functions;
mod signals;
mod to_lisp;
