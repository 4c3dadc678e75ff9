//! The SMTP client: sessions of our own on lettre's vocabulary.
//!
//! [`Session::open`] goes from a name to a server that has been greeted, over TLS
//! where the server or the user wants it; [`Session::authenticate`] carries out a mechanism;
//! [`Session::run`] hands over messages, one outcome per recipient.

mod answers;
mod auth;
mod body;
mod capabilities;
mod content;
mod options;
mod outcome;
mod reply;
mod session;
mod source;
mod transaction;
mod transfer;
mod trouble;
mod wire;

pub use auth::AuthError;
pub use body::Body;
pub use capabilities::Distrust;
pub use options::SessionOptions;
pub use outcome::{Outcome, Verdict};
pub use reply::{Reply, ReplyError, ReplyReader};
pub use session::{Observer, OpenError, Session};
pub use source::{Desk, Job};
pub use transfer::End;
pub use trouble::{Disposition, Stage, Trouble};
pub use wire::Trace;
