//! What Lisp is told, and what it is asked: events, and questions with their answers.

mod credentials;
mod events;
mod requests;
mod trust;

pub(crate) use credentials::{CredentialLookup, Given};
pub use events::{Cause, Event, Events, Kind};
pub use requests::{Account, Answer, Requests, account};
pub(crate) use trust::{Trust, Verdict};
