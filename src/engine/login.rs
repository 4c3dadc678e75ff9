//! From a server's name to a session that can send: opened, the user asked about what must
//! be asked, and logged in.

use std::rc::Rc;

use super::authentication::{credentials_trouble, no_auth};
use super::context::Context;
use super::destination::Destination;
use super::in_flight::SessionNumber;
use super::settings::Settings;
use crate::bridge::{Given, Verdict};
use crate::credentials::Credentials;
use crate::mail::{Endpoint, Server, StreamType};
use crate::net::tls::{Rejected, Tls};
use crate::smtp::{Disposition, Observer, OpenError, Session, Trouble};
use crate::spool::Need;

/// Opens a session with `server`, once our certificate is there if it wants one.
pub async fn open(
    context: &Context,
    server: &Server,
    settings: &Settings,
    observe: Observer<'_>,
) -> Result<Session, OpenError> {
    loop {
        let tls = context.tls_for(server).await?;
        let opened = open_with(context, server, settings, &tls, observe).await;
        if !context.finds_identity(server, &tls).await? {
            return opened;
        }
        if let Ok(session) = opened {
            session.quit().await;
        }
    }
}

async fn open_with(
    context: &Context,
    server: &Server,
    settings: &Settings,
    tls: &Tls,
    observe: Observer<'_>,
) -> Result<Session, OpenError> {
    let trace = context.trace(&server.host);
    Session::open(server, &settings.net, tls, trace, observe).await
}

/// Logging in to one destination, session after session.
pub struct Login {
    destination: Rc<Destination>,
    number: SessionNumber,
    /// What the server said that made it need a login.
    demand: Option<String>,
    /// What the user gave for this server and has not yet worked.
    given: Option<Given>,
    /// An access token that the server refused, for which a new one is to be had.
    refused: Option<(Credentials, Trouble)>,
}

impl Login {
    /// The first login to a destination, for the session `number`.
    pub fn new(destination: Rc<Destination>, number: SessionNumber) -> Self {
        Login {
            destination,
            number,
            demand: None,
            given: None,
            refused: None,
        }
    }

    /// The server wants a login, and has said so.
    pub fn demand(&mut self, demand: Option<String>) {
        self.demand = demand;
    }

    /// A session that can send: open, and logged in as far as that is possible
    /// without being asked to.
    pub async fn begin(&mut self, settings: &Settings) -> Result<Session, Trouble> {
        loop {
            let session = self.open(settings).await?;
            let demand = match self.demand.take() {
                None if !session.offers_auth() => return Ok(session),
                demand => demand,
            };
            if let Some(session) = self.log_in(session, settings, demand).await? {
                return Ok(session);
            }
        }
    }

    /// An open session. The user is asked about the server's certificate if need be.
    async fn open(&self, settings: &Settings) -> Result<Session, Trouble> {
        let (server, context) = (&self.destination.server, self.destination.context());
        loop {
            let mut session = match open(context, server, settings, &mut |_, _| {}).await {
                Ok(session) => session,
                Err(error) => {
                    context.connectors.forget_identity(&Endpoint::of(server));
                    match error.rejected() {
                        Some(rejected) if rejected.may_be_trusted() => {
                            self.ask_for_trust(rejected, &error).await?;
                            continue;
                        }
                        _ => return Err(error.trouble),
                    }
                }
            };
            if session.is_encrypted() && server.stream_type != StreamType::Ssl {
                context.remember_starttls(server).await;
            }
            for quirk in context.quirks(server) {
                session.do_without(quirk);
            }
            return Ok(session);
        }
    }

    /// Asks the user about a certificate; what waits for the answer is shown to do so.
    async fn ask_for_trust(&self, rejected: &Rejected, error: &OpenError) -> Result<(), Trouble> {
        let (destination, server) = (&self.destination, &self.destination.server);
        let context = destination.context();
        let verdict = context.trust.ask(server, rejected);
        tokio::pin!(verdict);
        let verdict = loop {
            // What arrives while others are marked is not missed.
            let mut arrival = std::pin::pin!(destination.arrived.notified());
            arrival.as_mut().enable();
            let about = Some((&error.trouble, Need::Tls));
            destination.mark_waiting(about, self.number).await;
            tokio::select! {
                verdict = &mut verdict => break verdict,
                () = arrival => {}
            }
        };
        match verdict {
            Verdict::Trusted => {
                let key = rejected.certificate.key;
                context.connectors.trust(Endpoint::of(server), key);
                destination.mark_waiting(None, self.number).await;
                Ok(())
            }
            Verdict::Refused(None) => Err(error.trouble.clone()),
            Verdict::Refused(Some(why)) => Err(Trouble {
                what: format!("{} ({why})", error.trouble.what),
                ..error.trouble.clone()
            }),
        }
    }

    /// Logs in with what is stored, or with what the user gives. `None`: credentials
    /// are there now, and a fresh session is to use them, for this one may have been
    /// closed while the user was asked.
    async fn log_in(
        &mut self,
        mut session: Session,
        settings: &Settings,
        demand: Option<String>,
    ) -> Result<Option<Session>, Trouble> {
        let destination = Rc::clone(&self.destination);
        let (server, context) = (&destination.server, destination.context());
        let must_log_in = demand.is_some() || server.require_auth;
        let given = self.given.take();
        let found = match &given {
            Some(given) => Some(given.credentials.clone()),
            None => {
                let lookup = &context.credentials;
                let found = lookup
                    .find(server, &settings.credentials, &settings.net)
                    .await;
                found.map_err(|why| credentials_trouble(server, why))?
            }
        };
        let credentials = match found {
            Some(found) if found.is_complete() => found,
            // As in smtpmail: with nothing stored, the server may want nothing.
            None if !must_log_in => return Ok(Some(session)),
            _ => {
                let what = demand.unwrap_or_else(|| "no password is stored".to_owned());
                let trouble = credentials_trouble(server, what);
                return self.ask_user(session, None, None, trouble).await;
            }
        };
        let before = self.refused.take();
        if let Some((_, trouble)) = before.as_ref().filter(|(old, _)| *old == credentials) {
            return Err(trouble.clone());
        }
        let logged_in = context
            .logins
            .log_in(&mut session, server, &settings.session, &credentials)
            .await;
        let trouble = match logged_in {
            Ok(None) if must_log_in || given.is_some() => return Err(no_auth(server)),
            Ok(_) => {
                if let Some(given) = given {
                    context.credentials.accept(server, given);
                }
                return Ok(Some(session));
            }
            Err(trouble) => trouble,
        };
        let is_refusal = trouble.disposition == Disposition::NeedsUser(Need::Auth);
        let Some(refusal) = trouble.reply.clone().filter(|_| is_refusal) else {
            return Err(trouble);
        };
        if credentials.is_token {
            return self
                .renew(session, credentials, trouble, before.is_none())
                .await;
        }
        context.credentials.reject(server, &credentials);
        let refusal = Some(refusal.to_string());
        self.ask_user(session, refusal, Some(&credentials), trouble)
            .await
    }

    /// After a refused access token: `None`, for a fresh session with a new one, once.
    async fn renew(
        &mut self,
        session: Session,
        refused: Credentials,
        trouble: Trouble,
        is_first: bool,
    ) -> Result<Option<Session>, Trouble> {
        session.quit().await;
        let context = self.destination.context();
        context.credentials.renew(&refused).await;
        if is_first {
            self.refused = Some((refused, trouble));
            return Ok(None);
        }
        Err(Trouble {
            what: format!(
                "{}, a new one as well; is this the user who authorised it, and for sending mail?",
                trouble.what
            ),
            ..trouble
        })
    }

    async fn ask_user(
        &mut self,
        session: Session,
        rejected: Option<String>,
        tried: Option<&Credentials>,
        trouble: Trouble,
    ) -> Result<Option<Session>, Trouble> {
        session.quit().await;
        let destination = Rc::clone(&self.destination);
        let (server, context) = (&destination.server, destination.context());
        // The same as before, maybe: the user will know why.
        let try_again = |given: &Credentials| context.logins.try_again(server, Some(given));
        let lookup = &context.credentials;
        match lookup.ask(server, rejected, tried, try_again).await {
            Ok(Some(given)) => {
                self.given = Some(given);
                Ok(None)
            }
            Ok(None) => Err(trouble),
            Err(error) => Err(Trouble {
                what: format!("{}; {error}", trouble.what),
                ..trouble
            }),
        }
    }
}
