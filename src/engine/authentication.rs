//! Logging in: by which mechanisms, and what a refusal means.
//!
//! A refused login costs: the server may make it slow, and shut the account after some.
//! So credentials cost a server at most two refused AUTH commands, however many sessions
//! and messages there are, until they are others or the user wants them tried again.

use tokio::sync::Mutex;

use crate::credentials::{Credentials, Slots, Unavailable};
use crate::mail::{Endpoint, Server};
use crate::smtp::{AuthError, Disposition, Scope, Session, SessionOptions, Stage, Trouble};
use crate::spool::Need;

/// The first, and one further mechanism: there are servers that offer one which they can't
/// check every password by.
const MOST_REFUSALS: usize = 2;

/// What became of credentials, for each host and port. Its lock is held while they are
/// tried: sessions with the same credentials log in one after the other, so that one
/// refusal does for all.
#[derive(Default)]
pub struct Logins(Slots<(Endpoint, Credentials), Mutex<History>>);

#[derive(Default)]
struct History {
    /// The mechanism that worked last.
    worked: Option<&'static str>,
    /// The last refusal, if nothing worked since.
    refusal: Option<Trouble>,
    /// AUTH commands refused since the credentials were to be tried.
    refusals: usize,
}

impl Logins {
    /// Logs in by the strongest mechanism both sides have, then the next; returns the one
    /// that worked, or `None` if the server turns out not to know AUTH at all. What was
    /// refused before is not tried: the refusal is returned once more.
    pub async fn log_in(
        &self,
        session: &mut Session,
        server: &Server,
        options: &SessionOptions,
        credentials: &Credentials,
    ) -> Result<Option<&'static str>, Trouble> {
        let mut mechanisms = session.mechanisms(server, options, credentials)?;
        let history = self.0.slot(&(Endpoint::of(server), credentials.clone()));
        let mut history = history.lock().await;
        if let Some(refusal) = &history.refusal
            && history.refusals >= MOST_REFUSALS
        {
            return Err(refusal.clone());
        }
        // What the server can't check need not be refused in each session.
        mechanisms.sort_by_key(|name| Some(*name) != history.worked);
        let mut failure = None;
        let need_auth = Disposition::NeedsUser(Need::Auth);
        while !mechanisms.is_empty() {
            let mechanism = mechanisms.remove(0);
            let Err(error) = session.authenticate(mechanism, credentials).await else {
                *history = History {
                    worked: Some(mechanism),
                    ..History::default()
                };
                self.forget_others(server, credentials);
                return Ok(Some(mechanism));
            };
            match error {
                AuthError::Unknown => {}
                AuthError::Mechanism(what) => {
                    failure = Some(session.trouble(Stage::Auth, need_auth, &what, None));
                    if mechanism.ends_with("-PLUS") {
                        mechanisms.retain(|name| !name.ends_with("-PLUS"));
                    }
                }
                AuthError::Refused(reply) => {
                    let what = if credentials.is_token {
                        "the server refused user name or access token"
                    } else {
                        "the server refused user name or password"
                    };
                    let refusal = session.trouble(Stage::Auth, need_auth, what, Some(reply));
                    history.refusal = Some(refusal);
                    history.refusals += 1;
                    let left = MOST_REFUSALS.saturating_sub(history.refusals);
                    // A server that can't check by the others can by these.
                    mechanisms.sort_by_key(|name| !matches!(*name, "PLAIN" | "LOGIN"));
                    mechanisms.truncate(left);
                }
                // Servers that have had enough of a wrong password put it off, or hang up.
                AuthError::Later(_) | AuthError::Wire(_) if history.refusal.is_some() => break,
                AuthError::Later(reply) => {
                    let what = "the server cannot authenticate anybody now";
                    let retry = Disposition::Retry;
                    return Err(session.trouble(Stage::Auth, retry, what, Some(reply)));
                }
                AuthError::Wire(error) => return Err(session.broken(Stage::Auth, &error)),
            }
        }
        if let Some(refusal) = history.refusal.clone() {
            history.refusals = MOST_REFUSALS;
            return Err(refusal);
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        session.forget_auth();
        Ok(None)
    }

    /// The user wants refused credentials to be tried once more: these, or whatever
    /// `server` has refused. Those that are just being tried are being tried.
    pub fn try_again(&self, server: &Server, credentials: Option<&Credentials>) {
        let endpoint = Endpoint::of(server);
        let histories = self.0.all(|(tried_at, tried)| {
            *tried_at == endpoint && credentials.is_none_or(|wanted| wanted == tried)
        });
        for history in histories {
            if let Ok(mut history) = history.try_lock() {
                history.refusals = 0;
                history.refusal = None;
            }
        }
    }

    /// The user's other passwords and tokens are those of before.
    fn forget_others(&self, server: &Server, good: &Credentials) {
        let endpoint = Endpoint::of(server);
        self.0.retain(|(tried_at, tried)| {
            *tried_at != endpoint || tried == good || tried.user != good.user
        });
    }
}

/// The trouble of a server that wants credentials nobody has.
pub fn credentials_trouble(server: &Server, why: impl Into<Unavailable>) -> Trouble {
    let why = why.into();
    Trouble {
        endpoint: server.endpoint(),
        stage: Stage::Auth,
        scope: Scope::Site,
        disposition: if why.is_transient {
            Disposition::Retry
        } else {
            Disposition::NeedsUser(Need::Auth)
        },
        what: why.what,
        reply: None,
    }
}

/// The trouble of a server that wants a login and knows none.
pub fn no_auth(server: &Server) -> Trouble {
    let what = "the server wants a login, offers it, and then does not know it".to_owned();
    credentials_trouble(server, what)
}
