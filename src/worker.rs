//! One session after another for a lane, until it has no more work.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::timeout;

use crate::bridge::Given;
use crate::credentials::Credentials;
use crate::desk::LaneDesk;
use crate::engine::Settings;
use crate::lane::{Lane, credentials_trouble};
use crate::mail::{Endpoint, Server, StreamType};
use crate::net::tls::Rejected;
use crate::shared::Report;
use crate::smtp::{Disposition, End, OpenError, Session, Stage, Trouble};
use crate::spool::Need;

/// Serves a lane: opens sessions while messages wait, keeps the last one a while.
pub async fn serve(lane: Rc<Lane>) {
    let settings = Arc::clone(&lane.shared().settings.borrow());
    let mut worker = Worker {
        desk: LaneDesk::new(&lane),
        settings,
        given: None,
        refused: None,
        lane,
    };
    while worker.lane.waiting() > 0 {
        worker.settings = Arc::clone(&worker.lane.shared().settings.borrow());
        let served = match worker.begin().await {
            Ok(session) => worker.run(session).await,
            Err(trouble) => Err(trouble),
        };
        let Err(trouble) = served else {
            continue;
        };
        let is_too_many = trouble.stage <= Stage::Hello && trouble.is_about_too_many();
        if is_too_many {
            let server = &worker.lane.server;
            let shared = worker.lane.shared();
            shared.learn(server, |manners| manners.is_single = true);
        }
        if worker.lane.workers.get() > 1 {
            // Another session goes on with what waits.
            return;
        }
        // The server was tried once; the rest need not try it one by one.
        worker.lane.fail_all(&trouble);
    }
}

struct Worker {
    lane: Rc<Lane>,
    desk: LaneDesk,
    settings: Arc<Settings>,
    /// What the user gave for this server and has not yet worked.
    given: Option<Given>,
    /// An access token that the server refused, for which a new one is to be had.
    refused: Option<(Credentials, Trouble)>,
}

/// The one that leaves no longer counts at once, or two could leave to each other what
/// still waits.
impl Drop for Worker {
    fn drop(&mut self) {
        self.lane.workers.set(self.lane.workers.get() - 1);
    }
}

impl Worker {
    /// A session that can send: open, and logged in as far as that is possible
    /// without being asked to.
    async fn begin(&mut self) -> Result<Session, Trouble> {
        loop {
            let session = self.open().await?;
            let demand = match self.desk.auth_demand.take() {
                None if !session.offers_auth() => return Ok(session),
                demand => demand,
            };
            if let Some(session) = self.log_in(session, demand).await? {
                return Ok(session);
            }
        }
    }

    /// An open session. Who may be asked about is asked about: the server's certificate,
    /// and ours.
    async fn open(&self) -> Result<Session, Trouble> {
        let (server, shared) = (&self.lane.server, self.lane.shared());
        loop {
            let tls = shared.tls_for(server)?;
            let trace = shared.trace(&server.host);
            let opened =
                Session::open(server, &self.settings.net, &tls, trace, &mut |_, _| {}).await;
            if shared.finds_identity(server, &tls).await? {
                if let Ok(session) = opened {
                    session.quit().await;
                }
                continue;
            }
            let mut session = match opened {
                Ok(session) => session,
                Err(error) => {
                    shared.tls.forget_identity(&Endpoint::of(server));
                    match error.rejected() {
                        Some(rejected) if rejected.may_be_trusted() => {
                            self.ask_for_trust(rejected, &error).await?;
                            continue;
                        }
                        _ => return Err(error.trouble),
                    }
                }
            };
            if session.is_encrypted()
                && server.stream_type != StreamType::Ssl
                && let Err(error) = shared.spool.remember_starttls(&Endpoint::of(server))
            {
                shared.tell_spool_trouble(&error);
            }
            for what in shared.manners(server).distrusted {
                session.distrust(what);
            }
            return Ok(session);
        }
    }

    /// Asks the user about a certificate; what waits for the answer is shown to do so.
    async fn ask_for_trust(&self, rejected: &Rejected, error: &OpenError) -> Result<(), Trouble> {
        let (lane, server) = (&self.lane, &self.lane.server);
        let shared = lane.shared();
        let verdict = shared.trust.ask(server, rejected);
        tokio::pin!(verdict);
        let verdict = loop {
            lane.mark_waiting(Some((&error.trouble, Need::Tls)));
            tokio::select! {
                verdict = &mut verdict => break verdict,
                () = lane.arrived.notified() => {}
            }
        };
        match verdict {
            Ok(()) => {
                shared
                    .tls
                    .trust(Endpoint::of(server), rejected.certificate.key);
                lane.mark_waiting(None);
                Ok(())
            }
            Err(why) if why.is_empty() => Err(error.trouble.clone()),
            Err(why) => Err(Trouble {
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
        demand: Option<String>,
    ) -> Result<Option<Session>, Trouble> {
        let lane = Rc::clone(&self.lane);
        let (server, shared) = (&lane.server, lane.shared());
        let (keyring, logins) = (&shared.keyring, &shared.logins);
        if let Some(given) = self.given.take() {
            let credentials = given.credentials.clone();
            return match logins
                .log_in(&mut session, server, &self.settings.session, &credentials)
                .await
            {
                Ok(Some(_)) => {
                    keyring.accept(server, given);
                    Ok(Some(session))
                }
                Ok(None) => Err(no_auth(server)),
                Err(trouble) => self.ask_again(session, &credentials, trouble).await,
            };
        }
        let before = self.refused.take();
        let found = keyring
            .find(server, &self.settings.credentials, &self.settings.net)
            .await
            .map_err(|why| credentials_trouble(server, why))?;
        match found {
            Some(credentials) if credentials.is_token => {
                if let Some((_, trouble)) = before.as_ref().filter(|(old, _)| *old == credentials) {
                    return Err(trouble.clone());
                }
                match logins
                    .log_in(&mut session, server, &self.settings.session, &credentials)
                    .await
                {
                    Ok(None) if demand.is_some() || server.require_auth => Err(no_auth(server)),
                    Ok(_) => Ok(Some(session)),
                    Err(trouble) => {
                        let is_first = before.is_none();
                        self.renew(session, credentials, trouble, is_first).await
                    }
                }
            }
            Some(
                credentials @ Credentials {
                    user: Some(_),
                    secret: Some(_),
                    ..
                },
            ) => match logins
                .log_in(&mut session, server, &self.settings.session, &credentials)
                .await
            {
                Ok(None) if demand.is_some() || server.require_auth => Err(no_auth(server)),
                Ok(_) => Ok(Some(session)),
                Err(trouble) => self.ask_again(session, &credentials, trouble).await,
            },
            // As in smtpmail: with nothing stored, the server may want nothing.
            None if demand.is_none() && !server.require_auth => Ok(Some(session)),
            _ => {
                let what = demand.unwrap_or_else(|| "no password is stored".to_owned());
                let trouble = credentials_trouble(server, what);
                self.ask_user(session, None, None, trouble).await
            }
        }
    }

    /// After refused credentials: asks the user for others, if that can help.
    async fn ask_again(
        &mut self,
        session: Session,
        tried: &Credentials,
        trouble: Trouble,
    ) -> Result<Option<Session>, Trouble> {
        let refusal = trouble.reply.as_ref().map(ToString::to_string);
        match (trouble.disposition, refusal) {
            (Disposition::NeedsUser(Need::Auth), Some(refusal)) => {
                let lane = &self.lane;
                lane.shared().keyring.reject(&lane.server, tried);
                self.ask_user(session, Some(refusal), Some(tried), trouble)
                    .await
            }
            _ => Err(trouble),
        }
    }

    /// After a refused access token: `None`, for a fresh session with a new one, once.
    async fn renew(
        &mut self,
        session: Session,
        refused: Credentials,
        trouble: Trouble,
        is_first: bool,
    ) -> Result<Option<Session>, Trouble> {
        let is_refusal = trouble.disposition == Disposition::NeedsUser(Need::Auth);
        if !is_refusal || trouble.reply.is_none() {
            return Err(trouble);
        }
        session.quit().await;
        self.lane.shared().keyring.renew(&refused).await;
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
        let lane = Rc::clone(&self.lane);
        let (server, shared) = (&lane.server, lane.shared());
        // The same as before, maybe: the user will know why.
        let on_answer = |given: &Credentials| shared.logins.try_again(server, Some(given));
        let asked = shared.keyring.ask(server, rejected, tried, on_answer);
        match asked.await {
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

    /// Sends until there is nothing to send. An error means that the server is of no
    /// use at present.
    async fn run(&mut self, mut session: Session) -> Result<(), Trouble> {
        let report = Report::Up(self.lane.server.clone());
        let _ = self.lane.shared().reports.send(report);
        self.desk.delivered = 0;
        loop {
            let end = session.run(&mut self.desk).await;
            self.desk.return_prepared();
            match end {
                Ok(End::Idle) => {}
                Ok(End::NeedsAuth | End::Closed) => return Ok(()),
                // A session that got somewhere says nothing against the next one.
                Err(_) if self.desk.delivered > 0 => return Ok(()),
                Err(trouble) => return Err(trouble),
            }
            if !self.wait_for_work(&mut session).await {
                session.quit().await;
                return Ok(());
            }
        }
    }

    /// Keeps the session for the next message. False if none came, or if the server
    /// would not wait.
    async fn wait_for_work(&self, session: &mut Session) -> bool {
        let arrival = async {
            // A notification may be about a message that another session took.
            while self.lane.waiting() == 0 {
                self.lane.arrived.notified().await;
            }
        };
        tokio::select! {
            () = session.closed() => false,
            arrived = timeout(self.settings.idle_timeout, arrival) => {
                // A session keeps the settings that it was opened with.
                let are_same = *self.lane.shared().settings.borrow() == self.settings;
                arrived.is_ok() && are_same
            }
        }
    }
}

pub(crate) fn no_auth(server: &Server) -> Trouble {
    let what = "the server wants a login, offers it, and then does not know it".to_owned();
    credentials_trouble(server, what)
}
