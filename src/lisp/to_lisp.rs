//! From our types to Lisp values.

use emacs::{Env, IntoLisp, Value};

use crate::bridge::{Event, Kind};
use crate::mail::{Port, Server, StreamType, Timestamp};
use crate::net::tls::Rejected;
use crate::spool::{Entry, Need, Recipient, RecipientState, State};

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

fn float_time(time: Timestamp) -> f64 {
    time.0 as f64 / 1000.0
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
    plist.put(":next-try", entry.next_try.map(float_time))?;
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
            cause,
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
            if let Some(cause) = cause {
                plist.put_symbol(":stage", cause.stage)?;
                plist.put_symbol(":scope", cause.scope)?;
                plist.put_symbol(":class", cause.class)?;
                plist.put(":code", cause.code.map(i64::from))?;
                plist.put(":enhanced-code", cause.enhanced_code)?;
                plist.put(":text", cause.text)?;
            }
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
        Event::Changed => plist.put_symbol(":event", "changed")?,
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
