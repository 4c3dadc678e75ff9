//! What the sending thread's parts share.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::bridge::{Event, Keyring, Kind, Outbox, Requests, Trust};
use crate::copies::Copies;
use crate::engine::Settings;
use crate::flights::Flights;
use crate::login::Logins;
use crate::mail::{Endpoint, Server, Timestamp};
use crate::net::tls::{Connectors, Tls};
use crate::smtp::{Disposition, Distrust, Reply, Stage, Trace, Trouble};
use crate::spool::{Entry, EntryId, Need, Spool, SpoolError};

/// What sessions tell the dispatcher.
#[derive(Debug)]
pub enum Report {
    /// To be tried again then.
    Due(EntryId, Timestamp),
    /// A session with this server came about: more may be opened.
    Up(Server),
    /// No session came about; these messages were put off for that.
    Down(Server, Vec<EntryId>),
}

/// What all lanes share.
pub struct Shared {
    /// The store.
    pub spool: Arc<Spool>,
    /// Where events go.
    pub outbox: Arc<Outbox>,
    /// What is in flight.
    pub flights: Arc<Flights>,
    /// What is sent and not yet filed.
    pub copies: Arc<Copies>,
    /// Where credentials come from.
    pub keyring: Keyring,
    /// What became of credentials.
    pub logins: Logins,
    /// Who is asked about certificates.
    pub trust: Trust,
    /// What is known of servers' TLS.
    pub tls: Connectors,
    /// The latest settings.
    pub settings: RefCell<Arc<Settings>>,
    /// Reports to the dispatcher.
    pub reports: mpsc::UnboundedSender<Report>,
    manners: RefCell<HashMap<Server, Manners>>,
}

/// What was learnt of a server that it does not announce.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// What it announces and refuses.
    pub distrusted: Vec<Distrust>,
    /// Whether it has refused a connection for there being others.
    pub is_single: bool,
}

impl Shared {
    /// Shared state before the first session.
    pub fn new(
        spool: Arc<Spool>,
        outbox: Arc<Outbox>,
        flights: Arc<Flights>,
        copies: Arc<Copies>,
        requests: Arc<Requests>,
        settings: Settings,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        Shared {
            keyring: Keyring::new(Arc::clone(&outbox), Arc::clone(&requests)),
            trust: Trust::new(Arc::clone(&outbox), requests),
            logins: Logins::default(),
            spool,
            outbox,
            flights,
            copies,
            tls: Connectors::default(),
            settings: RefCell::new(Arc::new(settings)),
            reports,
            manners: RefCell::default(),
        }
    }

    /// What was learnt of `server`.
    pub fn manners(&self, server: &Server) -> Manners {
        self.manners
            .borrow()
            .get(server)
            .cloned()
            .unwrap_or_default()
    }

    /// Learns something of `server`.
    pub fn learn(&self, server: &Server, lesson: impl FnOnce(&mut Manners)) {
        lesson(self.manners.borrow_mut().entry(server.clone()).or_default());
    }

    /// Shows a session's dialogue, if the user wants to see it.
    pub fn trace(&self, host: &str) -> Option<Trace> {
        if !self.settings.borrow().trace {
            return None;
        }
        let outbox = Arc::clone(&self.outbox);
        let host = host.to_owned();
        Some(Box::new(move |line| {
            outbox.push(Event::Trace {
                host: host.clone(),
                text: format!("{line}\n"),
            });
        }))
    }

    /// TLS as the settings are now; kept, so that sessions can be resumed.
    pub fn tls_for(&self, server: &Server) -> Result<Tls, Trouble> {
        let settings = Arc::clone(&self.settings.borrow());
        let (mut tls, warning) = self
            .tls
            .tls_for(server, &settings.net.tls)
            .map_err(|error| {
                // It may be our certificate that can't be read: another may be named by then.
                self.tls.forget_identity(&Endpoint::of(server));
                tls_trouble(server, error.to_string())
            })?;
        if let Some(warning) = warning {
            self.outbox.push(Event::Problem(warning));
        }
        match self.spool.has_seen_starttls(&Endpoint::of(server)) {
            Ok(has_offered) => tls.offered_starttls = has_offered,
            Err(error) => self.tell_spool_trouble(&error),
        }
        Ok(tls)
    }

    /// Looks for the client certificate that the server has asked for and not got; true
    /// if there is one, to be shown on another connection.
    pub async fn finds_identity(&self, server: &Server, tls: &Tls) -> Result<bool, Trouble> {
        if !tls.lacks_identity() {
            return Ok(false);
        }
        let found = self.trust.find_identity(server).await;
        let Some(files) = found.map_err(|why| {
            let mut trouble = tls_trouble(server, why.what);
            if why.is_transient {
                trouble.disposition = Disposition::Retry;
            }
            trouble
        })?
        else {
            return Ok(false);
        };
        self.tls.set_identity(Endpoint::of(server), files);
        Ok(true)
    }

    pub(crate) fn tell(
        &self,
        kind: Kind,
        entry: Entry,
        error: Option<String>,
        reply: Option<&Reply>,
    ) {
        self.outbox.push(Event::Outcome {
            kind,
            entry: Box::new(entry),
            error,
            reply: reply.map(Reply::to_string),
        });
    }

    /// Reports what went wrong with the spool itself.
    pub(crate) fn tell_spool_trouble(&self, error: &SpoolError) {
        self.outbox.push(Event::Problem(error.to_string()));
    }
}

fn tls_trouble(server: &Server, what: String) -> Trouble {
    Trouble {
        endpoint: server.endpoint(),
        stage: Stage::Tls,
        disposition: Disposition::NeedsUser(Need::Tls),
        what,
        reply: None,
    }
}
