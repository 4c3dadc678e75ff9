//! The SMTP client: sessions of our own on lettre's vocabulary.
//!
//! [`Session::open`] goes from a name to a server that has been greeted, over TLS
//! where the server or the user wants it; [`Session::authenticate`] carries out a mechanism;
//! [`Session::run`] hands over messages, one outcome per recipient.

mod auth;
mod body;
mod capabilities;
mod content;
mod drive;
mod options;
mod outcome;
mod pipeline;
mod reply;
mod session;
mod terms;
mod transaction;
mod trouble;
mod wire;

pub use auth::AuthError;
pub use body::Body;
pub use capabilities::Quirk;
pub use drive::{Job, Note, Source};
pub use options::SessionOptions;
pub use outcome::{Outcome, Verdict};
pub use pipeline::{End, Ended, Part, SMALL};
pub use reply::{Reply, ReplyError, ReplyReader};
pub use session::{Observer, OpenError, Session};
pub use trouble::{Disposition, Scope, Stage, Trouble};
pub use wire::Trace;
