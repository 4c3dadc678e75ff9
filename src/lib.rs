//! SMTP sending for Emacs as a dynamic module.
//!
//! The wings, from the top; every import runs down, and none in a circle:
//!
//! ```text
//! lisp > engine > {bridge, smtp} > credentials > {spool, net} > {mail, mime, platform}
//! ```
//!
//! ```text
//! lisp/         what Lisp can call and sees: functions, from_lisp, to_lisp, signals. The
//!               only wing that knows Emacs
//! engine/       the process's one instance, as Emacs's thread sees it; on the native one
//!   scheduler     the one loop: what is due when (backoff), commands in, sessions out
//!   destination   one server's messages, to do and busy, and its sessions
//!   delivery      one session after the other; login (authentication, shared with check)
//!   settle        what becomes of a message: decided, written down, told
//!   in_flight     what this process holds, and who has the say: the user or a session
//!   context       what they share; settings: each wing's options
//! bridge/       told to Lisp and asked of Lisp: events, requests, credentials, trust
//! smtp/         the protocol: session, auth; the pipeline, which is pure, and drive, which
//!               runs it; reply, outcome, trouble
//! credentials/  passwords from files, OAuth 2 tokens: what is found without Emacs
//! spool/        the durable store; fs: all its file-system calls
//! net/          connecting, TLS, HTTP
//! mime/         re-encoding messages for servers that can't take them as they are
//! mail/         what mail is made of: message, address, server, time
//! platform      what differs between systems
//! ```

emacs::plugin_is_GPL_compatible!();

pub mod bridge;
pub mod credentials;
pub mod engine;
mod lisp;
pub mod mail;
pub mod mime;
pub mod net;
mod platform;
pub mod smtp;
pub mod spool;
