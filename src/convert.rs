//! Lisp values to our types and back. The shapes are those of the docstrings in
//! [`crate::module`].

use std::path::PathBuf;
use std::time::Duration;

use emacs::{Env, FromLisp, IntoLisp, Value};
use zeroize::Zeroizing;

use crate::config::{
    AuthSource, ConfigError, Port, Server, Settings, StreamType, TlsSettings, Unconfirmed,
};
use crate::credentials::{Credentials, Grant, Restriction};
use crate::events::{Event, Kind};
use crate::message::{Part, Raw};
use crate::module::Failure;
use crate::requests::Answer;
use crate::schedule::Patience;
use crate::spool::{Dsn, Entry, Need, Recipient, RecipientState, State, Timestamp, Wishes};
use crate::tls::{IdentityFiles, Pin, Rejected};

/// A list of property keyword and value, as it grows.
struct Plist<'e> {
    env: &'e Env,
    items: Vec<Value<'e>>,
}

impl<'e> Plist<'e> {
    fn new(env: &'e Env) -> Self {
        Plist {
            env,
            items: Vec::with_capacity(32),
        }
    }

    fn put<T: IntoLisp<'e>>(&mut self, keyword: &str, value: T) -> emacs::Result<()> {
        self.items.push(self.env.intern(keyword)?);
        self.items.push(value.into_lisp(self.env)?);
        Ok(())
    }

    fn put_symbol(&mut self, keyword: &str, symbol: &str) -> emacs::Result<()> {
        let symbol = self.env.intern(symbol)?;
        self.put(keyword, symbol)
    }

    fn finish(self) -> emacs::Result<Value<'e>> {
        self.env.list(&self.items)
    }
}

/// A Lisp list of converted items.
pub fn list<'e, T>(
    env: &'e Env,
    items: impl IntoIterator<Item = T>,
    convert: impl Fn(&'e Env, T) -> emacs::Result<Value<'e>>,
) -> emacs::Result<Value<'e>> {
    let values = items
        .into_iter()
        .map(|item| convert(env, item))
        .collect::<emacs::Result<Vec<_>>>()?;
    env.list(&values)
}

/// The elements of a proper Lisp list.
pub fn elements(list: Value<'_>) -> emacs::Result<Vec<Value<'_>>> {
    let mut rest = list;
    let mut elements = Vec::new();
    while rest.is_not_nil() {
        elements.push(rest.car()?);
        rest = rest.cdr()?;
    }
    Ok(elements)
}

fn get<'e, T: FromLisp<'e>>(plist: Value<'e>, keyword: &str) -> emacs::Result<Option<T>> {
    let env = plist.env;
    env.call("plist-get", (plist, env.intern(keyword)?))?
        .into_rust()
}

fn symbol_name(value: Value<'_>) -> emacs::Result<String> {
    value.env.call("symbol-name", (value,))?.into_rust()
}

fn is<'e>(value: Value<'e>, predicate: &str) -> emacs::Result<bool> {
    Ok(value.env.call(predicate, (value,))?.is_not_nil())
}

/// A MESSAGE: a string, or a list of strings and (:file NAME).
pub fn message(value: Value<'_>) -> Result<Raw, Failure> {
    if is(value, "stringp")? {
        return Ok(value.into_rust::<Vec<u8>>()?.into());
    }
    let part = |value: Value<'_>| -> Result<Part, Failure> {
        if is(value, "stringp")? {
            return Ok(Part::Octets(value.into_rust()?));
        }
        match get::<String>(value, ":file")? {
            Some(name) => Ok(Part::File(PathBuf::from(name))),
            None => Err(Failure::Text(
                "a part of the message is no string".to_owned(),
            )),
        }
    };
    let parts: Result<Vec<Part>, Failure> = elements(value)?.into_iter().map(part).collect();
    Ok(parts?.into())
}

/// A SERVER plist.
pub fn server(plist: Value<'_>) -> Result<Server, Failure> {
    let host: Option<String> = get(plist, ":host")?;
    let port = match get::<Value<'_>>(plist, ":port")? {
        None => Port::Service("smtp".to_owned()),
        Some(port) if is(port, "integerp")? => {
            let number: i64 = port.into_rust()?;
            Port::parse(&number.to_string())?
        }
        Some(port) => Port::parse(&port.into_rust::<String>()?)?,
    };
    let stream_type = match get::<Value<'_>>(plist, ":stream-type")? {
        None => StreamType::Opportunistic,
        Some(symbol) => match symbol_name(symbol)?.as_str() {
            "starttls" => StreamType::Starttls,
            "ssl" | "tls" => StreamType::Ssl,
            // network-stream's older name for no TLS at all.
            "plain" | "network" => StreamType::Plain,
            other => return Err(ConfigError::StreamType(other.to_owned()).into()),
        },
    };
    let helo: Option<String> = get(plist, ":helo")?;
    let require_auth = get::<Value<'_>>(plist, ":require-auth")?.is_some();
    let is_lmtp = match get::<Value<'_>>(plist, ":protocol")? {
        None => false,
        Some(symbol) => match symbol_name(symbol)?.as_str() {
            "smtp" => false,
            "lmtp" => true,
            other => return Err(ConfigError::Protocol(other.to_owned()).into()),
        },
    };
    let server = Server::new(
        host.unwrap_or_default(),
        port,
        stream_type,
        get(plist, ":user")?,
        helo.unwrap_or_else(|| "localhost".to_owned()),
        require_auth,
    )?;
    Ok(Server { is_lmtp, ..server })
}

/// An OPTIONS plist of `rs-smtp-send`.
pub fn wishes(plist: Value<'_>) -> Result<Wishes, Failure> {
    let not_before = match get::<Value<'_>>(plist, ":not-before")? {
        Some(time) => Some(timestamp(time)?),
        None => None,
    };
    let origin: Option<String> = get(plist, ":origin")?;
    Ok(Wishes {
        dsn: match get::<Value<'_>>(plist, ":dsn")? {
            Some(wanted) => Some(dsn(wanted)?),
            None => None,
        },
        require_tls: get::<Value<'_>>(plist, ":require-tls")?.is_some(),
        not_before,
        date_at_sending: get::<Value<'_>>(plist, ":date-at-sending")?.is_some(),
        origin: origin.map(PathBuf::from),
        copy: get(plist, ":copy")?,
    })
}

fn dsn(wanted: Value<'_>) -> Result<Dsn, Failure> {
    let mut dsn = Dsn::default();
    if let Some(symbol) = get::<Value<'_>>(wanted, ":ret")? {
        dsn.return_all = match symbol_name(symbol)?.as_str() {
            "full" => Some(true),
            "hdrs" => Some(false),
            other => return Err(ConfigError::Dsn(other.to_owned()).into()),
        };
    }
    if let Some(list) = get::<Value<'_>>(wanted, ":notify")? {
        for symbol in elements(list)? {
            let name = symbol_name(symbol)?;
            if !["never", "success", "failure", "delay"].contains(&name.as_str()) {
                return Err(ConfigError::Dsn(name).into());
            }
            dsn.notify.push(name.to_ascii_uppercase());
        }
    }
    Ok(dsn)
}

/// A SETTINGS plist.
pub fn settings(plist: Value<'_>) -> Result<Settings, Failure> {
    let defaults = Settings::default();
    let strings = |keyword: &str| -> Result<Option<Vec<String>>, Failure> {
        match get::<Value<'_>>(plist, keyword)? {
            None => Ok(None),
            Some(list) => {
                let texts = elements(list)?.into_iter().map(Value::into_rust);
                Ok(Some(texts.collect::<emacs::Result<_>>()?))
            }
        }
    };
    let seconds = |keyword: &str, default: Duration| -> Result<Duration, Failure> {
        let Some(number) = get::<Value<'_>>(plist, keyword)? else {
            return Ok(default);
        };
        let number: f64 = number.env.call("float", (number,))?.into_rust()?;
        Duration::try_from_secs_f64(number)
            .map_err(|_| Failure::Text(format!("{keyword}: {number} is no number of seconds")))
    };
    let mut auth_sources = Vec::new();
    if let Some(list) = get::<Value<'_>>(plist, ":auth-sources")? {
        for element in elements(list)? {
            auth_sources.push(if is(element, "stringp")? {
                AuthSource::Netrc(PathBuf::from(element.into_rust::<String>()?))
            } else if let Some(path) = get::<String>(element, ":netrc")? {
                let only = Restriction {
                    host: get(element, ":host")?,
                    port: get(element, ":port")?,
                    user: get(element, ":user")?,
                };
                AuthSource::RestrictedNetrc(PathBuf::from(path), only)
            } else {
                AuthSource::Lisp(element.cdr::<Value<'_>>()?.car()?)
            });
        }
    }
    let mut mechanisms = None;
    if let Some(list) = get::<Value<'_>>(plist, ":auth-mechanisms")? {
        let names = elements(list)?.into_iter().map(symbol_name);
        mechanisms = Some(names.collect::<emacs::Result<Vec<_>>>()?);
    }
    let unconfirmed = match get::<Value<'_>>(plist, ":unconfirmed")? {
        Some(symbol) if symbol_name(symbol)? == "retry" => Unconfirmed::Retry,
        _ => Unconfirmed::Ask,
    };
    let paths = |keyword: &str| -> Result<Vec<PathBuf>, Failure> {
        let files = strings(keyword)?.unwrap_or_default();
        Ok(files.into_iter().map(PathBuf::from).collect())
    };
    let mut pins = Vec::new();
    if let Some(list) = get::<Value<'_>>(plist, ":tls-pins")? {
        for element in elements(list)? {
            let endpoint: String = element.car()?;
            let keys = elements(element.cdr()?)?.into_iter().map(Value::into_rust);
            let keys = keys.collect::<emacs::Result<Vec<String>>>()?;
            pins.push(Pin::parse(&endpoint, &keys).map_err(ConfigError::from)?);
        }
    }
    let tls = TlsSettings {
        crl_files: paths(":crl-files")?,
        priority: get(plist, ":tls-priority")?,
        pins,
    };
    let max_connections: Option<i64> = get(plist, ":max-connections")?;
    Ok(Settings {
        auth_sources,
        lisp_has_tokens: get::<Value<'_>>(plist, ":oauth2-tokens")?.is_some(),
        trust_files: paths(":trust-files")?,
        tls,
        cleartext_auth_hosts: strings(":cleartext-auth-hosts")?.unwrap_or_default(),
        proxy: get(plist, ":proxy")?,
        trace: get::<Value<'_>>(plist, ":trace")?.is_some(),
        max_connections: max_connections
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(defaults.max_connections),
        idle_timeout: seconds(":idle-timeout", defaults.idle_timeout)?,
        connect_timeout: seconds(":connect-timeout", defaults.connect_timeout)?,
        reply_timeout: seconds(":reply-timeout", defaults.reply_timeout)?,
        loopback_pinentry: get::<Value<'_>>(plist, ":loopback-pinentry")?.is_some(),
        unconfirmed,
        patience: Patience {
            first_pause: seconds(":retry-first-pause", defaults.patience.first_pause)?,
            longest_pause: seconds(":retry-longest-pause", defaults.patience.longest_pause)?,
            give_up_after: seconds(":retry-give-up", defaults.patience.give_up_after)?,
        },
        auth_mechanisms: mechanisms,
    })
}

/// An ANSWER to an event that asks.
pub fn answer(value: Value<'_>) -> Result<Answer, Failure> {
    if !value.is_not_nil() {
        return Ok(Answer::Nothing);
    }
    if let Some(error) = get(value, ":error")? {
        return Ok(Answer::Error(error));
    }
    if get::<Value<'_>>(value, ":trusted")?.is_some() {
        return Ok(Answer::Trusted);
    }
    if let (Some(key), Some(certificate)) = (
        get::<String>(value, ":key")?,
        get::<String>(value, ":certificate")?,
    ) {
        return Ok(Answer::Identity(IdentityFiles {
            key: key.into(),
            certificate: certificate.into(),
        }));
    }
    let secret: Option<String> = get(value, ":secret")?;
    Ok(Answer::Credentials(Credentials {
        user: get(value, ":user")?,
        secret: secret.map(Zeroizing::new),
        mechanism: get(value, ":mechanism")?,
        grant: grant(value)?,
        is_token: false,
    }))
}

/// What an entry that Lisp has found says of an OAuth 2 token.
fn grant(entry: Value<'_>) -> Result<Option<Grant>, Failure> {
    let Some(token_url) = get(entry, ":token-url")? else {
        return Ok(None);
    };
    let secret = |keyword| -> Result<Option<Zeroizing<String>>, Failure> {
        Ok(get::<String>(entry, keyword)?.map(Zeroizing::new))
    };
    Ok(Some(Grant {
        token_url,
        client_id: get(entry, ":client-id")?,
        client_secret: secret(":client-secret")?,
        refresh_token: secret(":refresh-token")?,
        scope: get(entry, ":scope")?,
    }))
}

fn float_time(time: Timestamp) -> f64 {
    time.0 as f64 / 1000.0
}

/// A time in any form that Lisp has for it.
pub fn timestamp(time: Value<'_>) -> Result<Timestamp, Failure> {
    let seconds: f64 = time.env.call("float-time", (time,))?.into_rust()?;
    Ok(Timestamp((seconds * 1000.0).max(0.0) as u64))
}

/// An ENTRY plist.
pub fn entry<'e>(env: &'e Env, entry: &Entry, state: State) -> emacs::Result<Value<'e>> {
    let mut plist = Plist::new(env);
    plist.put(":id", entry.id.to_string())?;
    let state = match state {
        State::Pending => "pending",
        State::Sending => "sending",
        State::Failed => "failed",
        State::Unconfirmed => "unconfirmed",
        State::Held => "held",
        State::NeedsUser => "needs-user",
        State::NeedsCredentials => "needs-credentials",
        State::Scheduled => "scheduled",
        State::Filing => "filing",
        State::Sent => "sent",
    };
    plist.put_symbol(":state", state)?;
    plist.put(":created", float_time(entry.created))?;
    plist.put(":sender", entry.sender.as_str())?;
    plist.put(":recipients", list(env, &entry.recipients, recipient)?)?;
    plist.put(":server", server_plist(env, &entry.server)?)?;
    plist.put(":subject", entry.facts.subject.as_deref())?;
    plist.put(":message-id", entry.facts.message_id.as_deref())?;
    plist.put(":size", entry.facts.size as i64)?;
    plist.put(":attempts", i64::from(entry.attempts))?;
    let has_next_try = entry.next_try > Timestamp::default();
    plist.put(
        ":next-try",
        has_next_try.then(|| float_time(entry.next_try)),
    )?;
    plist.put(":not-before", entry.wishes.not_before.map(float_time))?;
    let origin = entry.wishes.origin.as_ref();
    plist.put(
        ":origin",
        origin.map(|file| file.to_string_lossy().into_owned()),
    )?;
    plist.put(":copy", entry.wishes.copy.as_deref())?;
    plist.put(":error", entry.error.as_deref())?;
    plist.finish()
}

fn recipient<'e>(env: &'e Env, recipient: &Recipient) -> emacs::Result<Value<'e>> {
    let mut plist = Plist::new(env);
    plist.put(":address", recipient.path.as_str())?;
    let state = match recipient.state {
        RecipientState::Pending => "pending",
        RecipientState::Accepted => "accepted",
        RecipientState::Failed => "failed",
        RecipientState::Unconfirmed => "unconfirmed",
    };
    plist.put_symbol(":state", state)?;
    plist.put(":reply", recipient.reply.as_deref())?;
    plist.finish()
}

fn server_plist<'e>(env: &'e Env, server: &Server) -> emacs::Result<Value<'e>> {
    let mut plist = Plist::new(env);
    plist.put(":host", server.host.as_str())?;
    match &server.port {
        Port::Number(number) => plist.put(":port", i64::from(*number))?,
        Port::Service(name) => plist.put(":port", name.as_str())?,
    }
    match server.stream_type {
        StreamType::Opportunistic => plist.put(":stream-type", ())?,
        StreamType::Starttls => plist.put_symbol(":stream-type", "starttls")?,
        StreamType::Ssl => plist.put_symbol(":stream-type", "ssl")?,
        StreamType::Plain => plist.put_symbol(":stream-type", "plain")?,
    }
    plist.put(":user", server.user.as_deref())?;
    plist.put(":helo", server.helo.as_str())?;
    plist.put(":require-auth", server.require_auth)?;
    plist.finish()
}

/// An EVENT plist.
pub fn event(env: &Env, event: Event) -> emacs::Result<Value<'_>> {
    let mut plist = Plist::new(env);
    match event {
        Event::Outcome {
            kind,
            entry: stored,
            error,
            reply,
        } => {
            let name = match kind {
                Kind::Sent => "sent",
                Kind::Failed => "failed",
                Kind::Deferred => "deferred",
                Kind::NeedsUser(_) => "needs-user",
                Kind::Unconfirmed => "unconfirmed",
                Kind::Cancelled | Kind::Removed => "cancelled",
                Kind::Unfiled => "unfiled",
                Kind::Filed => "filed",
            };
            plist.put_symbol(":event", name)?;
            let state = stored.state(false, Timestamp::now());
            plist.put(":entry", entry(env, &stored, state)?)?;
            plist.put(":error", error)?;
            plist.put(":reply", reply)?;
            plist.put(":removed", kind == Kind::Removed)?;
            if let Kind::NeedsUser(need) = kind {
                let reason = match need {
                    Need::Auth => "auth",
                    Need::Tls => "tls",
                    Need::Config => "config",
                };
                plist.put_symbol(":reason", reason)?;
            }
        }
        Event::Progress { id, sent, total } => {
            plist.put_symbol(":event", "progress")?;
            plist.put(":id", id.to_string())?;
            plist.put(":sent", sent as i64)?;
            plist.put(":total", total as i64)?;
        }
        Event::Trace { host, text } => {
            plist.put_symbol(":event", "trace")?;
            plist.put(":host", host)?;
            plist.put(":text", text)?;
        }
        Event::Check {
            request,
            step,
            text,
            is_good,
            is_last,
        } => {
            plist.put_symbol(":event", "check")?;
            plist.put(":request", request as i64)?;
            plist.put(":step", step)?;
            plist.put(":text", text)?;
            plist.put(":ok", is_good)?;
            plist.put(":last", is_last)?;
        }
        Event::Problem(text) => {
            plist.put_symbol(":event", "problem")?;
            plist.put(":text", text)?;
        }
        Event::Credentials {
            request,
            host,
            port,
            user,
            source,
            rejected,
        } => {
            plist.put_symbol(":event", "credentials")?;
            plist.put(":request", request as i64)?;
            plist.put(":host", host)?;
            plist.put(":port", port)?;
            plist.put(":user", user)?;
            plist.put(":source", source)?;
            plist.put(":rejected", rejected)?;
        }
        Event::Token {
            request,
            host,
            user,
        } => {
            plist.put_symbol(":event", "token")?;
            plist.put(":request", request as i64)?;
            plist.put(":host", host)?;
            plist.put(":user", user)?;
        }
        Event::RefreshTokenReplaced { host, user } => {
            plist.put_symbol(":event", "refresh-token-replaced")?;
            plist.put(":host", host)?;
            plist.put(":user", user)?;
        }
        Event::CredentialsAccepted { request } => {
            plist.put_symbol(":event", "credentials-accepted")?;
            plist.put(":request", request as i64)?;
        }
        Event::Passphrase { request, hint } => {
            plist.put_symbol(":event", "passphrase")?;
            plist.put(":request", request as i64)?;
            plist.put(":hint", hint)?;
        }
        Event::Certificate {
            request,
            host,
            port,
            rejected,
        } => {
            plist.put_symbol(":event", "certificate")?;
            plist.put(":request", request as i64)?;
            plist.put(":host", host)?;
            plist.put(":port", port)?;
            put_rejected(&mut plist, &rejected)?;
        }
        Event::ClientCertificate {
            request,
            host,
            port,
        } => {
            plist.put_symbol(":event", "client-certificate")?;
            plist.put(":request", request as i64)?;
            plist.put(":host", host)?;
            plist.put(":port", port)?;
        }
    }
    plist.finish()
}

fn put_rejected(plist: &mut Plist<'_>, rejected: &Rejected) -> emacs::Result<()> {
    let env = plist.env;
    let certificate = &rejected.certificate;
    let problems = list(env, &rejected.problems, |env, problem| {
        env.intern(problem.symbol())
    })?;
    let texts = |texts: &[String]| list(env, texts, |env, text| text.as_str().into_lisp(env));
    plist.put(":endpoint", rejected.endpoint.as_str())?;
    plist.put(":problems", problems)?;
    plist.put(":reasons", texts(&rejected.reasons())?)?;
    plist.put(":subject", certificate.subject.as_str())?;
    plist.put(":issuer", certificate.issuer.as_str())?;
    plist.put(":not-before", certificate.not_before.as_str())?;
    plist.put(":not-after", certificate.not_after.as_str())?;
    plist.put(":names", texts(&certificate.names)?)?;
    plist.put(":fingerprint", certificate.fingerprint.to_string())?;
    plist.put(":key-fingerprint", certificate.key.to_string())?;
    plist.put(":nsm-fingerprint", certificate.nsm_key.as_str())
}
