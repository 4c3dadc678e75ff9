//! What the sending thread's parts share, and what is said to its scheduler.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::authentication::Logins;
use super::in_flight::InFlight;
use super::settings::{Policy, Settings};
use crate::bridge::{Cause, CredentialLookup, Event, Events, Kind, Requests, Trust};
use crate::mail::{Clock, Endpoint, Server, Timestamp};
use crate::net::tls::{Connectors, Tls};
use crate::smtp::{Disposition, Quirk, Reply, Scope, Stage, Trace, Trouble};
use crate::spool::{Entry, EntryId, Need, Spool};

/// What was learnt of a server's quirks holds so long: it may be mended.
const QUIRKS_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// What Emacs's thread and the sending one share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The store.
    pub spool: Arc<Spool>,
    /// What Lisp is told.
    pub events: Arc<Events>,
    /// What this process holds.
    pub in_flight: Arc<InFlight>,
    /// What Lisp is asked.
    pub requests: Arc<Requests>,
    /// Tells the time.
    pub clock: Clock,
}

/// What sessions tell the scheduler.
#[derive(Debug)]
pub enum Report {
    /// A message is to be tried then.
    Due(EntryId, Server, Timestamp),
    /// A session with this server came about: more may be opened.
    Up(Server),
    /// No session came about; these messages were put off for that.
    Down(Server, Vec<EntryId>),
}

/// What all destinations share.
pub struct Context {
    /// The store.
    pub spool: Arc<Spool>,
    /// What Lisp is told.
    pub events: Arc<Events>,
    /// What this process holds.
    pub in_flight: Arc<InFlight>,
    /// Where credentials come from.
    pub credentials: CredentialLookup,
    /// What became of credentials.
    pub logins: Logins,
    /// Who is asked about certificates.
    pub trust: Trust,
    /// What is known of servers' TLS.
    pub connectors: Connectors,
    /// Tells the time.
    pub clock: Clock,
    settings: RefCell<Arc<Settings>>,
    reports: mpsc::UnboundedSender<Report>,
    traits: RefCell<HashMap<Server, Traits>>,
}

/// What was learnt of a server that it does not announce.
#[derive(Clone, Debug, Default)]
pub struct Traits {
    /// Extensions that it announces and refuses, and since when that is known.
    quirks: Vec<(Quirk, Timestamp)>,
    /// Whether it has refused a connection for there being others.
    pub is_single: bool,
}

impl Context {
    /// What is shared before the first session.
    pub fn new(shared: Shared, settings: Settings, reports: mpsc::UnboundedSender<Report>) -> Self {
        let Shared {
            spool,
            events,
            in_flight,
            requests,
            clock,
        } = shared;
        Context {
            credentials: CredentialLookup::new(Arc::clone(&events), Arc::clone(&requests)),
            trust: Trust::new(Arc::clone(&events), requests),
            spool,
            events,
            in_flight,
            logins: Logins::default(),
            connectors: Connectors::default(),
            clock,
            settings: RefCell::new(Arc::new(settings)),
            reports,
            traits: RefCell::default(),
        }
    }

    /// The settings of now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// Replaces the settings.
    pub fn configure(&self, settings: Settings) {
        *self.settings.borrow_mut() = Arc::new(settings);
    }

    /// What the user has said beforehand of what is to become of messages.
    pub fn policy(&self) -> Policy {
        self.settings.borrow().policy()
    }

    /// Tells the scheduler; one that is gone has left everything in the spool.
    pub fn report(&self, report: Report) {
        let _ = self.reports.send(report);
    }

    /// What was learnt of `server`.
    pub fn traits(&self, server: &Server) -> Traits {
        let traits = self.traits.borrow();
        traits.get(server).cloned().unwrap_or_default()
    }

    /// The quirks that `server` is known to have.
    pub fn quirks(&self, server: &Server) -> Vec<Quirk> {
        let now = self.clock.now();
        let quirks = self.traits(server).quirks.into_iter();
        quirks
            .filter(|(_, since)| since.after(QUIRKS_HOLD) > now)
            .map(|(quirk, _)| quirk)
            .collect()
    }

    /// Learns a quirk of `server`.
    pub fn learn_quirk(&self, server: &Server, quirk: Quirk) {
        let now = self.clock.now();
        let mut traits = self.traits.borrow_mut();
        let quirks = &mut traits.entry(server.clone()).or_default().quirks;
        quirks.retain(|(known, _)| *known != quirk);
        quirks.push((quirk, now));
    }

    /// Learns that `server` takes one connection at a time.
    pub fn learn_single(&self, server: &Server) {
        let mut traits = self.traits.borrow_mut();
        traits.entry(server.clone()).or_default().is_single = true;
    }

    /// Shows a session's dialogue, if the user wants to see it.
    pub fn trace(&self, host: &str) -> Option<Trace> {
        if !self.settings.borrow().trace {
            return None;
        }
        let events = Arc::clone(&self.events);
        let host = host.to_owned();
        Some(Box::new(move |line| {
            events.push(Event::Trace {
                host: host.clone(),
                text: format!("{line}\n"),
            });
        }))
    }

    /// TLS as the settings are now; kept, so that sessions can be resumed.
    pub async fn tls_for(&self, server: &Server) -> Result<Tls, Trouble> {
        let settings = self.settings();
        let made = self.connectors.tls_for(server, &settings.net.tls);
        let (mut tls, warning) = made.await.map_err(|error| {
            // It may be our certificate that can't be read: another may be named by then.
            self.connectors.forget_identity(&Endpoint::of(server));
            tls_trouble(server, error.to_string())
        })?;
        if let Some(warning) = warning {
            self.tell_problem(&warning);
        }
        match self.spool.has_seen_starttls(&Endpoint::of(server)) {
            Ok(has_offered) => tls.offered_starttls = has_offered,
            Err(error) => self.tell_problem(&error.to_string()),
        }
        Ok(tls)
    }

    /// Remembers that `server` offers STARTTLS.
    pub async fn remember_starttls(&self, server: &Server) {
        let (spool, endpoint) = (Arc::clone(&self.spool), Endpoint::of(server));
        let remember = move || spool.remember_starttls(&endpoint);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(remember).await {
            self.tell_problem(&error.to_string());
        }
    }

    /// Looks for the client certificate that the server has asked for and not got; true
    /// if there is one, to be shown on another connection.
    pub async fn finds_identity(&self, server: &Server, tls: &Tls) -> Result<bool, Trouble> {
        if !tls.lacks_identity() {
            return Ok(false);
        }
        let found = self.trust.find_identity(server).await;
        let found = found.map_err(|why| {
            let mut trouble = tls_trouble(server, why.what);
            if why.is_transient {
                trouble.disposition = Disposition::Retry;
            }
            trouble
        })?;
        let Some(files) = found else {
            return Ok(false);
        };
        self.connectors.set_identity(Endpoint::of(server), files);
        Ok(true)
    }

    /// Tells the user what has become of a message.
    pub fn tell(&self, kind: Kind, entry: Entry, trouble: Option<Trouble>, reply: Option<Reply>) {
        tell(&self.events, kind, entry, trouble, reply);
    }

    /// Tells the user of trouble that belongs to no message.
    pub fn tell_problem(&self, text: &str) {
        self.events.push(Event::Problem(text.to_owned()));
    }
}

fn tls_trouble(server: &Server, what: String) -> Trouble {
    Trouble {
        endpoint: server.endpoint(),
        stage: Stage::Tls,
        scope: Scope::Site,
        disposition: Disposition::NeedsUser(Need::Tls),
        what,
        reply: None,
    }
}

/// Tells the user what has become of a message.
pub fn tell(
    events: &Events,
    kind: Kind,
    entry: Entry,
    trouble: Option<Trouble>,
    reply: Option<Reply>,
) {
    let cause = trouble.map(|trouble| Cause {
        stage: trouble.stage.name(),
        scope: trouble.scope.name(),
        class: trouble.disposition.name(),
        code: trouble.reply.as_ref().map(Reply::code),
        enhanced_code: trouble
            .reply
            .as_ref()
            .and_then(Reply::enhanced)
            .map(|(class, subject, detail)| format!("{class}.{subject}.{detail}")),
        text: trouble.what,
    });
    let error = match kind {
        Kind::Sent | Kind::Filed | Kind::Unfiled | Kind::Removed | Kind::Cancelled => None,
        _ => entry.error.clone(),
    };
    events.push(Event::Outcome {
        kind,
        entry: Box::new(entry),
        error,
        cause,
        reply: reply.as_ref().map(Reply::to_string),
    });
}
