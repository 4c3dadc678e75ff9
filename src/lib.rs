//! SMTP sending for Emacs as a dynamic module.
//!
//! One wing for each question; every import runs down, none in a circle (`tests/wings.rs`):
//!
//! ```text
//! lisp > engine > {bridge, smtp} > credentials > {spool, net} > {mail, mime, platform}
//! ```
//!
//! - `lisp`: what Lisp can call and sees; only it, and this file, know of Emacs
//! - `engine`: one process's sending, and its settings
//! - `bridge`: what Lisp is told and asked: events, requests, credentials, trust
//! - `smtp`: the protocol: one session, and one outcome for each recipient
//! - `credentials`: what is found without Emacs: netrc, gpg, OAuth 2
//! - `spool`: the durable store
//! - `net`: connecting, TLS, HTTP
//! - `mime`: re-encoding for servers that take less
//! - `mail`: messages, addresses, servers, time
//! - `platform`: what differs between systems
//!
//! Of the engine's files most still lie here. How mail flows:
//!
//! ```text
//! compose buffer
//!   -> lisp        parse, command, id
//!   -> engine      the process's one instance, as Emacs's thread sees it
//!   -> spool       on disk
//!   -> dispatcher  the one loop of the native thread: what is due (schedule), lanes
//!   -> lane, desk, worker  one server's messages and the sessions that serve them
//!                  (shared: what they share; flights: what can still be cancelled;
//!                  copies: what is sent and not yet filed)
//!   -> smtp        the session
//!                  (login: with which mechanism, how often, and what was refused)
//!   -> desk        settles: first the disk,
//!   -> bridge      then the user
//! ```

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
mod login;
pub mod mail;
pub mod mime;
pub mod net;
mod platform;
pub mod schedule;
mod shared;
pub mod smtp;
pub mod spool;
mod worker;
