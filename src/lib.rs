//! SMTP sending for Emacs as a dynamic module.
//!
//! How mail flows, and where to look:
//!
//! ```text
//! compose buffer
//!   -> lisp        every function Lisp can call: parse, command, id
//!   -> engine      the process's one instance, as Emacs's thread sees it
//!   -> spool       durable store; mail: what is stored (message, address, server, time)
//!   -> dispatcher  the one loop of the native thread: what is due (schedule), lanes
//!   -> lane, desk, worker  one server's messages and the sessions that serve them
//!                  (shared: what they share)
//!   -> smtp        the session: one outcome per recipient, and what becomes of it
//!   -> net         connecting, TLS, HTTP
//!   -> credentials passwords from files, OAuth 2 tokens
//!   -> desk        settles: first the disk,
//!   -> bridge      what Lisp is told (events, wake byte) and asked (requests,
//!                  credentials, trust)
//! ```
//!
//! `flights` tells what can still be cancelled, `copies` what is sent and not yet filed;
//! `platform` holds what differs between systems. Only this file and `lisp` know of Emacs.

emacs::plugin_is_GPL_compatible!();

pub mod bridge;
mod check;
mod copies;
pub mod credentials;
mod desk;
mod dispatcher;
pub mod engine;
mod flights;
mod lane;
mod lisp;
pub mod mail;
pub mod mime;
pub mod net;
mod platform;
pub mod schedule;
mod shared;
pub mod smtp;
pub mod spool;
mod worker;
