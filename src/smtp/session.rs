//! A session from its connection to the point where mail can be sent.

use std::time::Duration;

use lettre::transport::smtp::commands::{Ehlo, Quit, Starttls};

use super::auth::{self, AuthError};
use super::capabilities::{Capabilities, Quirk};
use super::options::SessionOptions;
use super::reply::Reply;
use super::terms::Limits;
use super::trouble::{Disposition, Scope, Stage, Trouble};
use super::wire::{Trace, Wire, WireError};
use crate::credentials::Credentials;
use crate::mail::{Server, StreamType};
use crate::net::tls::{Channel, Old, Rejected, Tls, TlsError};
use crate::net::{ConnectError, NetOptions, connect};
use crate::spool::Need;

/// An open session with a greeted server.
pub struct Session {
    pub(super) wire: Wire,
    /// What the server offers now: over TLS if TLS has started.
    pub(super) offered: Capabilities,
    pub(super) limits: Limits,
    pub(super) endpoint: String,
    tls: Tls,
    /// The encrypted line, if it is one.
    channel: Option<Channel>,
    /// Whether the server is on this machine.
    is_local: bool,
    is_authenticated: bool,
    pub(super) is_lmtp: bool,
    /// Transactions begun on this session.
    pub(super) begun: usize,
    /// Messages accepted on it.
    pub(super) accepted: usize,
    /// Whether the server may still be in a transaction that is over for us.
    pub(super) needs_reset: bool,
}

/// Why there is no session.
#[derive(Debug)]
pub struct OpenError {
    /// What went wrong.
    pub trouble: Trouble,
    cause: Option<TlsError>,
}

impl OpenError {
    /// The certificate that was not accepted, if it was for that.
    pub fn rejected(&self) -> Option<&Rejected> {
        match &self.cause {
            Some(TlsError::Rejected(rejected)) => Some(rejected),
            _ => None,
        }
    }
}

impl From<Trouble> for OpenError {
    fn from(trouble: Trouble) -> Self {
        OpenError {
            trouble,
            cause: None,
        }
    }
}

/// Hears of each step of opening a session, in words.
pub type Observer<'a> = &'a mut dyn FnMut(Stage, String);

/// Where trouble with connecting came up, and what becomes of the messages concerned.
fn place(error: &ConnectError) -> (Stage, Disposition) {
    let config = Disposition::NeedsUser(Need::Config);
    match error {
        ConnectError::Port(_) => (Stage::Lookup, config),
        ConnectError::NoSockets => (Stage::Connect, config),
        ConnectError::Lookup(_) => (Stage::Lookup, Disposition::Retry),
        ConnectError::Connect(_) => (Stage::Connect, Disposition::Retry),
    }
}

impl Session {
    /// Connects, greets, and starts TLS as the server's stream type says.
    pub async fn open(
        server: &Server,
        options: &NetOptions,
        tls: &Tls,
        trace: Option<Trace>,
        observe: Observer<'_>,
    ) -> Result<Self, OpenError> {
        let mut session = Session::connect(server, options, tls, trace, observe).await?;
        if !session.approach_tls(server, observe).await? {
            return Ok(session);
        }
        let mut session = match session.encrypt(server, observe).await {
            Ok(session) => session,
            Err(mut error) => {
                if matches!(error.cause, Some(TlsError::Incompatible(_))) {
                    let old = Session::probe(server, options, tls).await;
                    if let Some(what) = tls.incompatible(old) {
                        error.trouble.what = what;
                        error.trouble.disposition = Disposition::NeedsUser(Need::Tls);
                    }
                }
                return Err(error);
            }
        };
        if server.stream_type == StreamType::Ssl {
            session.greeting(observe).await?;
        }
        session.hello(server, observe).await?;
        Ok(session)
    }

    /// What the server makes of an old client, on a connection of its own.
    async fn probe(server: &Server, options: &NetOptions, tls: &Tls) -> Option<Old> {
        let mut ignore = |_, _| {};
        let session = Session::connect(server, options, tls, None, &mut ignore).await;
        let mut session = session.ok()?;
        if !session.approach_tls(server, &mut ignore).await.ok()? {
            return None;
        }
        let limit = session.limits.of(Stage::Tls);
        let (transport, ..) = session.wire.take_apart();
        tls.probe(&server.host, transport, limit).await
    }

    async fn connect(
        server: &Server,
        options: &NetOptions,
        tls: &Tls,
        trace: Option<Trace>,
        observe: Observer<'_>,
    ) -> Result<Self, Trouble> {
        let endpoint = server.endpoint();
        let connection = connect(server, options).await.map_err(|error| {
            let (stage, disposition) = place(&error);
            Trouble {
                endpoint: endpoint.clone(),
                stage,
                scope: Scope::Site,
                disposition,
                what: error.to_string(),
                reply: None,
            }
        })?;
        observe(Stage::Connect, connection.peer);
        Ok(Session {
            wire: Wire::new(connection.transport, trace),
            offered: Capabilities::default(),
            limits: Limits {
                reply: options.reply_timeout,
            },
            endpoint,
            tls: tls.clone(),
            channel: None,
            is_local: connection.is_local,
            is_authenticated: false,
            is_lmtp: server.is_lmtp,
            begun: 0,
            accepted: 0,
            needs_reset: false,
        })
    }

    /// Goes to the point where TLS begins. False if it does not, and mail may be sent
    /// without.
    async fn approach_tls(
        &mut self,
        server: &Server,
        observe: Observer<'_>,
    ) -> Result<bool, Trouble> {
        if server.stream_type == StreamType::Ssl {
            return Ok(true);
        }
        self.greeting(observe).await?;
        self.hello(server, observe).await?;
        self.negotiate_starttls(server).await
    }

    async fn greeting(&mut self, observe: Observer<'_>) -> Result<(), Trouble> {
        let reply = self
            .wire
            .reply(self.limits.of(Stage::Greeting))
            .await
            .map_err(|error| self.broken(Stage::Greeting, &error))?;
        if reply.is_completion() {
            observe(Stage::Greeting, reply.to_string());
            return Ok(());
        }
        // Also a 5yz here is about the server, not about the message: it may pass.
        let what = "the server takes no connections now";
        Err(self.trouble(Stage::Greeting, Disposition::Retry, what, Some(reply)))
    }

    /// EHLO, or HELO for a server that does not know it (RFC 5321 section 3.2).
    async fn hello(&mut self, server: &Server, observe: Observer<'_>) -> Result<(), Trouble> {
        let ehlo = if self.is_lmtp {
            format!("LHLO {}\r\n", server.client_id())
        } else {
            Ehlo::new(server.client_id()).to_string()
        };
        let reply = self.ask(Stage::Hello, &ehlo).await?;
        if reply.is_completion() {
            self.offered = Capabilities::from_ehlo(&reply);
            observe(Stage::Hello, reply.to_string());
            return Ok(());
        }
        if reply.is_permanent() && !self.is_lmtp {
            let helo = format!("HELO {}\r\n", server.client_id());
            let reply = self.ask(Stage::Hello, &helo).await?;
            if reply.is_completion() {
                self.offered = Capabilities::default();
                observe(Stage::Hello, reply.to_string());
                return Ok(());
            }
            return Err(self.refused_hello(reply));
        }
        Err(self.refused_hello(reply))
    }

    fn refused_hello(&self, reply: Reply) -> Trouble {
        let disposition = if reply.is_permanent() {
            Disposition::NeedsUser(Need::Config)
        } else {
            Disposition::Retry
        };
        let what = "the server refused our name";
        self.trouble(Stage::Hello, disposition, what, Some(reply))
    }

    async fn negotiate_starttls(&mut self, server: &Server) -> Result<bool, Trouble> {
        let is_required = match server.stream_type {
            StreamType::Plain | StreamType::Ssl => return Ok(false),
            StreamType::Starttls => true,
            StreamType::Opportunistic => false,
        };
        let need_tls = Disposition::NeedsUser(Need::Tls);
        if !self.offered.starttls {
            if is_required {
                let what =
                    "the server does not offer STARTTLS, which smtpmail-stream-type requires";
                return Err(self.trouble(Stage::StartTls, need_tls, what, None));
            }
            return self.go_on_in_clear(None);
        }
        let reply = self.ask(Stage::StartTls, &Starttls.to_string()).await?;
        if !reply.is_completion() {
            // Where TLS is only a wish, a refusal is no worse than not offering it.
            if is_required {
                let disposition = if reply.is_transient() {
                    Disposition::Retry
                } else {
                    need_tls
                };
                let what = "the server refused to start TLS";
                return Err(self.trouble(Stage::StartTls, disposition, what, Some(reply)));
            }
            return self.go_on_in_clear(Some(reply));
        }
        Ok(true)
    }

    /// TLS was only a wish; but a server that had it before and has not now may have
    /// somebody before it who takes it away.
    fn go_on_in_clear(&self, refusal: Option<Reply>) -> Result<bool, Trouble> {
        if !self.tls.offered_starttls {
            return Ok(false);
        }
        let what = "ALARM: the server has offered STARTTLS before and does not now: somebody on \
                    the way may suppress it to read along, so nothing was sent; if the server \
                    has really given up TLS, set smtpmail-stream-type to `plain' or let M-x \
                    rs-smtpmail-tls-forget forget what it offered";
        let disposition = Disposition::NeedsUser(Need::Tls);
        Err(self.trouble(Stage::StartTls, disposition, what, refusal))
    }

    /// Runs the TLS handshake. What the server sent before it is dropped, and if it
    /// sent anything after its 220, somebody else did (RFC 3207 section 6).
    async fn encrypt(mut self, server: &Server, observe: Observer<'_>) -> Result<Self, OpenError> {
        let limit = self.limits.of(Stage::Tls);
        // From here to the end of the handshake the session has no wire.
        let (transport, trace, has_injected) = self.wire.take_apart();
        let trouble = |stage, disposition, what: &str| Trouble {
            endpoint: self.endpoint.clone(),
            stage,
            scope: Scope::Site,
            disposition,
            what: what.to_owned(),
            reply: None,
        };
        let need_tls = Disposition::NeedsUser(Need::Tls);
        if has_injected {
            let what = "text came before TLS where none may be: somebody tampers with the line";
            return Err(trouble(Stage::StartTls, need_tls, what).into());
        }
        let handshake = self.tls.start(&server.host, transport);
        let error = match tokio::time::timeout(limit, handshake).await {
            Ok(Ok((transport, channel))) => {
                self.wire = Wire::new(transport, trace);
                self.wire.show(&format!("<{}>", channel.description));
                self.offered = Capabilities::default();
                observe(Stage::Tls, channel.description.clone());
                self.channel = Some(channel);
                return Ok(self);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                let what = WireError::TimedOut(limit).to_string();
                return Err(trouble(Stage::Tls, Disposition::Retry, &what).into());
            }
        };
        let disposition = match error {
            TlsError::Rejected(_) | TlsError::Settings(_) => need_tls,
            TlsError::Incompatible(_) | TlsError::Handshake(_) => Disposition::Retry,
        };
        Err(OpenError {
            trouble: trouble(Stage::Tls, disposition, &error.to_string()),
            cause: Some(error),
        })
    }

    /// Does without what the server announced and refused before.
    pub fn do_without(&mut self, quirk: Quirk) {
        self.offered = self.offered.without(quirk);
    }

    /// Whether the line is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.channel.is_some()
    }

    /// Whether the server offers to authenticate us.
    pub fn offers_auth(&self) -> bool {
        !self.offered.auth.is_empty()
    }

    /// Whether anybody has logged in on this session.
    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// The mechanisms to log in with, the strongest first.
    pub fn mechanisms(
        &self,
        server: &Server,
        options: &SessionOptions,
        credentials: &Credentials,
    ) -> Result<Vec<&'static str>, Trouble> {
        let need_auth = Disposition::NeedsUser(Need::Auth);
        let may_go_in_clear = self.is_local || options.cleartext_auth_hosts.contains(&server.host);
        if self.channel.is_none() && !may_go_in_clear {
            let what = "the line is not encrypted, so the password was not sent; use another \
                        smtpmail-stream-type, or allow it for this host with \
                        rs-smtpmail-allow-cleartext-auth";
            return Err(self.trouble(Stage::Auth, need_auth, what, None));
        }
        let mechanisms = if credentials.is_token && credentials.mechanism.is_none() {
            auth::choose_for_token(&self.offered.auth)
        } else {
            auth::choose(
                &self.offered.auth,
                options.auth_mechanisms.as_deref(),
                credentials.mechanism.as_deref(),
                self.exporter().is_some(),
            )
        };
        if mechanisms.is_empty() {
            let what = format!(
                "none of the server's mechanisms ({}) can be used",
                self.offered.auth.join(" ")
            );
            return Err(self.trouble(Stage::Auth, need_auth, &what, None));
        }
        Ok(mechanisms)
    }

    /// Carries out one mechanism. Which, and what its failure means, is for
    /// the engine to say.
    pub async fn authenticate(
        &mut self,
        mechanism: &'static str,
        credentials: &Credentials,
    ) -> Result<(), AuthError> {
        let (exporter, limit) = (self.exporter(), self.limits.of(Stage::Auth));
        auth::authenticate(&mut self.wire, mechanism, credentials, exporter, limit).await?;
        self.is_authenticated = true;
        Ok(())
    }

    fn exporter(&self) -> Option<[u8; 32]> {
        self.channel.as_ref().and_then(|channel| channel.exporter)
    }

    /// Does without AUTH, which the server does not know, whatever it announced.
    pub fn forget_auth(&mut self) {
        self.offered.auth.clear();
    }

    /// Waits until the server ends the session, or says something unasked for, which
    /// comes to the same.
    pub async fn closed(&mut self) {
        let for_ever = Duration::from_secs(u64::from(u32::MAX));
        // Whatever it is, this session is over.
        let _ = self.wire.reply(for_ever).await;
    }

    /// Ends the session properly; the server's answer is waited for only briefly.
    pub async fn quit(mut self) {
        let limit = self.limits.of(Stage::Greeting).min(Duration::from_secs(1));
        let command = Quit.to_string();
        let leave = async {
            let _ = self.wire.ask(&command, limit).await;
            self.wire.shut_down().await;
        };
        let _ = tokio::time::timeout(limit, leave).await;
    }

    async fn ask(&mut self, stage: Stage, command: &str) -> Result<Reply, Trouble> {
        self.wire
            .ask(command, self.limits.of(stage))
            .await
            .map_err(|error| self.broken(stage, &error))
    }

    pub(crate) fn broken(&self, stage: Stage, error: &WireError) -> Trouble {
        let refusal = match error {
            WireError::Io(error) => self.tls.refused_certificate(error),
            _ => None,
        };
        match refusal {
            Some(what) => self.trouble(stage, Disposition::NeedsUser(Need::Tls), &what, None),
            None => self.trouble(stage, Disposition::Retry, &error.to_string(), None),
        }
    }

    pub(crate) fn trouble(
        &self,
        stage: Stage,
        disposition: Disposition,
        what: &str,
        reply: Option<Reply>,
    ) -> Trouble {
        Trouble {
            endpoint: self.endpoint.clone(),
            stage,
            scope: Scope::Site,
            disposition,
            what: what.to_owned(),
            reply,
        }
    }
}
