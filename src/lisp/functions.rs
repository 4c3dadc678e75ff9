//! Every function Lisp can call. Each parses its arguments, hands over to the engine,
//! and returns at once; an error becomes a signal in one place, [`boundary`].

use std::path::PathBuf;
use std::time::Duration;

use emacs::{CallEnv, Env, Value, defun};
use once_cell::sync::OnceCell;

use super::signals::{Failure, boundary};
use super::{from_lisp, to_lisp};
use crate::bridge::Answer;
use crate::engine::{Engine, EngineError};
use crate::mail::{Path, parse_address_list};
use crate::spool::{EntryId, SpoolError, Wishes};

/// The engine of this Emacs process, made by `rs-smtp--start`.
static ENGINE: OnceCell<Engine> = OnceCell::new();

/// The running engine; Lisp is asked to start it if it has not yet.
fn engine(env: &Env) -> Result<&'static Engine, Failure> {
    if ENGINE.get().is_none() {
        env.call("rs-smtpmail--start", &[] as &[Value<'_>])?;
    }
    ENGINE
        .get()
        .ok_or_else(|| Failure::Text("rs-smtpmail--start did not start the engine".to_owned()))
}

/// The running engine, with the settings of now.
fn configured_engine(env: &Env) -> Result<&'static Engine, Failure> {
    let engine = engine(env)?;
    let settings = env.call("rs-smtpmail--settings", &[] as &[Value<'_>])?;
    engine.configure(from_lisp::settings(settings)?)?;
    Ok(engine)
}

fn entry_id(text: &str) -> Result<EntryId, Failure> {
    EntryId::parse(text).ok_or_else(|| Failure::Text(format!("{text:?} is no message id")))
}

fn optional<'e, T: emacs::FromLisp<'e>>(
    env: &'e CallEnv,
    position: usize,
) -> emacs::Result<Option<T>> {
    if position < env.raw_args().len() {
        env.parse_arg(position)
    } else {
        Ok(None)
    }
}

#[emacs::module(
    name = "rs-smtpmail-module",
    defun_prefix = "rs-smtp",
    mod_in_name = false
)]
fn init(env: &Env) -> emacs::Result<()> {
    let error = "rs-smtp-error";
    env.define_error(error, "SMTP error", [env.intern("error")?])?;
    for (symbol, message) in [
        ("rs-smtp-address-error", "Address cannot be parsed"),
        ("rs-smtp-config-error", "Unusable mail setting"),
        ("rs-smtp-spool-error", "Mail spool error"),
        ("rs-smtp-no-such-entry", "No such message"),
    ] {
        env.define_error(symbol, message, [env.intern(error)?])?;
    }
    for (name, function) in [
        ("rs-smtp-send", emacs::lambda!(env, send, 4..6, SEND_DOC)?),
        (
            "rs-smtp-queue-list",
            emacs::lambda!(env, queue_list, 0..1, QUEUE_LIST_DOC)?,
        ),
        (
            "rs-smtp-queue-filed",
            emacs::lambda!(env, queue_filed, 1..3, QUEUE_FILED_DOC)?,
        ),
        (
            "rs-smtp-parse-addresses",
            emacs::lambda!(env, parse_addresses, 1..2, PARSE_ADDRESSES_DOC)?,
        ),
    ] {
        env.call("defalias", (env.intern(name)?, function))?;
    }
    Ok(())
}

/// Return the version of the native module, a string.
#[defun]
fn version() -> emacs::Result<&'static str> {
    Ok(env!("CARGO_PKG_VERSION"))
}

/// Open the spool in SPOOL-DIRECTORY, to be woken through PIPE-PROCESS.
/// SETTINGS is as `rs-smtpmail--settings' returns it.  Nothing is sent,
/// and no thread started, before something is to be sent.
#[defun(name = "-start")]
fn start(
    env: &Env,
    pipe_process: Value<'_>,
    spool_directory: String,
    settings: Value<'_>,
) -> emacs::Result<()> {
    boundary(env, || {
        let settings = from_lisp::settings(settings)?;
        ENGINE.get_or_try_init(|| {
            let wake = Box::new(env.open_channel(pipe_process)?);
            Engine::new(PathBuf::from(spool_directory), settings, wake).map_err(Failure::from)
        })?;
        Ok(())
    })
}

/// Return t if the engine has been started in this Emacs.
#[defun(name = "-started-p")]
fn started_p() -> emacs::Result<bool> {
    Ok(ENGINE.get().is_some())
}

/// Replace the engine's settings by SETTINGS.
#[defun(name = "-configure")]
fn configure(env: &Env, settings: Value<'_>) -> emacs::Result<()> {
    boundary(env, || {
        let settings = from_lisp::settings(settings)?;
        Ok(engine(env)?.configure(settings)?)
    })
}

/// Return the events since the last call, a list of plists, oldest first.
#[defun(name = "-drain")]
fn drain(env: &Env) -> emacs::Result<Value<'_>> {
    boundary(env, || {
        let events = ENGINE.get().map(Engine::drain).unwrap_or_default();
        Ok(to_lisp::list(env, events, to_lisp::event)?)
    })
}

/// Answer the event that asked by REQUEST with ANSWER.
/// ANSWER is nil, (:user U :secret S :mechanism M) or (:error TEXT).  Instead of S there
/// may be :token-url, :client-id, :client-secret, :refresh-token and :scope, of an OAuth 2
/// access token.  For a certificate it is (:trusted t), for a client's
/// (:key FILE :certificate FILE).
/// Return nil if nobody waits for it any more.
#[defun(name = "-answer")]
fn answer(env: &Env, request: i64, answer: Value<'_>) -> emacs::Result<bool> {
    boundary(env, || {
        let engine = engine(env)?;
        let request = request.unsigned_abs();
        match from_lisp::answer(answer) {
            Ok(answer) => Ok(engine.answer(request, answer)),
            Err(failure) => {
                // Whoever waits must not wait for ever.
                let text = "the answer to a question was malformed";
                engine.answer(request, Answer::Error(text.to_owned()));
                Err(failure)
            }
        }
    })
}

/// Return t if the engine can decrypt files by itself.
#[defun(name = "-can-decrypt-p")]
fn can_decrypt_p() -> emacs::Result<bool> {
    Ok(cfg!(feature = "gpg"))
}

/// Return the number of messages that sessions of this Emacs work on now.
#[defun(name = "-in-flight")]
fn in_flight() -> emacs::Result<i64> {
    Ok(ENGINE.get().map_or(0, Engine::in_flight) as i64)
}

/// Stop sending, waiting at most SECONDS for sessions to end.
/// What has not been sent stays in the spool.
#[defun(name = "-stop")]
fn stop(env: &Env, seconds: Value<'_>) -> emacs::Result<()> {
    boundary(env, || {
        if let Some(engine) = ENGINE.get() {
            engine.stop(duration(env, seconds)?);
        }
        Ok(())
    })
}

/// End the sessions that have nothing to send, waiting at most SECONDS for that.
#[defun(name = "-end-idle")]
fn end_idle(env: &Env, seconds: Value<'_>) -> emacs::Result<()> {
    boundary(env, || {
        if let Some(engine) = ENGINE.get() {
            engine.end_idle(duration(env, seconds)?);
        }
        Ok(())
    })
}

fn duration(env: &Env, seconds: Value<'_>) -> Result<Duration, Failure> {
    let seconds: f64 = env.call("float", (seconds,))?.into_rust()?;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

const SEND_DOC: &str = "\
Accept MESSAGE for sending in the background, and return its id, a string.

MESSAGE is a unibyte string: header, empty line, body, in any line-end
convention; or a list of parts that make it up, each such a string or
(:file NAME) for the contents of a file, which is not needed afterwards.  SENDER is the envelope sender's address, \"\" for none.
RECIPIENTS is a list of addresses (strings as in an RFC 5322 addr-spec, or
a bare local user).  SERVER is a plist:

  :host STRING         name or address of the server (required)
  :port PORT           a number or service name; default \"smtp\"
  :stream-type TYPE    nil, `starttls', `ssl', `tls' or `plain', as in
                       `smtpmail-stream-type'
  :user STRING         only use this user's credentials
  :helo STRING         the name to give with EHLO; default \"localhost\"
  :require-auth BOOL   log in even if the server does not demand it
  :protocol PROTOCOL   `smtp' (default) or `lmtp'

A :host that begins with a slash is the file name of a Unix socket.

When this returns, the message is on disk and will be sent, also after a
crash or restart of Emacs.  If it cannot be accepted, this signals an
`rs-smtp-error' and keeps nothing.

CALLBACK, if non-nil, is called with one argument when it is known what has
become of the message: a plist with :event (`sent', `failed', `deferred',
`needs-user', `unconfirmed' or `cancelled'), :entry (see
`rs-smtp-queue-list'), :error and :reply.  After `deferred' and
`needs-user' it is called again later.  Of trouble it also has

  :stage      where it came up: `lookup', `connect', `tls', `greeting',
              `hello', `starttls', `auth', `mail', `rcpt', `data', `content'
              or `end-of-data'
  :scope      whom it concerns: `site' (the server), `message' or `recipient'
  :class      what becomes of it: `retry', `reject', `needs-user' or
              `unconfirmed'
  :code NUMBER  :enhanced-code STRING  of the reply, such as 550 and \"5.1.1\"
  :text STRING  what happened, without host, stage and reply

OPTIONS is a plist:

  :dsn (:ret RET :notify LIST)  ask for delivery status notifications
                       (RFC 3461), RET being `full' or `hdrs', LIST holding
                       `never' or some of `success', `failure', `delay'
  :require-tls BOOL    send only to a server with REQUIRETLS (RFC 8689)
  :not-before TIME     send it later
  :date-at-sending BOOL  set its Date field when it is sent
  :origin FILE         while FILE exists, it stands for the message, which is
                       not sent: so it can be moved here and not be sent twice
  :copy STRING         keep the message when it has been accepted, until
                       `rs-smtp-queue-filed' is called; STRING is returned
                       in its entry

(fn MESSAGE SENDER RECIPIENTS SERVER &optional CALLBACK OPTIONS)";

fn send(env: &CallEnv) -> emacs::Result<String> {
    boundary(env, || {
        let engine = configured_engine(env)?;
        let message = from_lisp::message(env.get_arg(0))?;
        let sender: String = env.parse_arg(1)?;
        let sender = match sender.as_str() {
            "" => Path::null(),
            text => Path::parse(text, "sender")?,
        };
        let mut recipients = Vec::new();
        for recipient in from_lisp::elements(env.get_arg(2))? {
            let text: String = recipient.into_rust()?;
            recipients.push(Path::parse(&text, "recipient")?);
        }
        let server = from_lisp::server(env.get_arg(3))?;
        let wishes = match optional::<Value<'_>>(env, 5)? {
            Some(options) => from_lisp::wishes(options)?,
            None => Wishes::default(),
        };
        let id = engine
            .send(message, sender, recipients, server, wishes)?
            .to_string();
        if let Some(callback) = optional::<Value<'_>>(env, 4)? {
            env.call("rs-smtpmail--register-callback", (id.as_str(), callback))?;
        }
        Ok(id)
    })
}

/// Runs `build`, which makes a long list, without the garbage collections that its
/// making would set off: they would find nothing, again and again.
fn without_gc<T>(env: &Env, build: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let threshold = env.intern("gc-cons-threshold")?;
    let before = env.call("symbol-value", (threshold,))?;
    let most = env.call("symbol-value", (env.intern("most-positive-fixnum")?,))?;
    env.call("set", (threshold, most))?;
    let built = build();
    env.call("set", (threshold, before))?;
    built
}

const QUEUE_LIST_DOC: &str = "\
Return the messages in the spool, a list of plists, oldest first.
With ID, return only that message's plist, or nil if there is none.

  :id STRING  :created TIME  :sender STRING  :server PLIST
  :state      `pending' (waits for its next try), `sending', `failed' (refused
              for good), `unconfirmed' (the line was cut after the last byte:
              the server may have it), `held', `needs-user',
              `needs-credentials' (you are asked for the password, or will be
              when Emacs is idle), `scheduled' (waits for its :not-before), or
              `filing' (accepted; its copy is still to be filed)
  :recipients a list of (:address STRING :state STATE :reply STRING), STATE
              one of `pending', `accepted', `failed', `unconfirmed'
  :subject STRING  :message-id STRING  :size BYTES  :attempts NUMBER
  :next-try TIME or nil  :not-before TIME or nil  :origin FILE or nil
  :copy STRING or nil, as given to `rs-smtp-send'
  :error      the last trouble: one text with host, port, stage and reply

Times are floats as of `float-time'.

(fn &optional ID)";

fn queue_list(env: &CallEnv) -> emacs::Result<Value<'_>> {
    boundary(env, || {
        let engine = engine(env)?;
        let Some(id) = optional::<String>(env, 0)? else {
            let entries = engine.list()?;
            return without_gc(env, || {
                Ok(to_lisp::list(env, entries, |env, (entry, state)| {
                    let state = engine.state_to_show(&entry, state);
                    to_lisp::entry(env, &entry, state)
                })?)
            });
        };
        match engine.entry(entry_id(&id)?) {
            Ok((entry, state)) => {
                let state = engine.state_to_show(&entry, state);
                Ok(to_lisp::entry(env, &entry, state)?)
            }
            Err(EngineError::Spool(SpoolError::NoSuchEntry(_))) => Ok(env.intern("nil")?),
            Err(error) => Err(error.into()),
        }
    })
}

/// Take up what waits in the spool, each message at its time.
/// Return the number of messages taken up.
#[defun]
fn queue_resume(env: &Env) -> emacs::Result<i64> {
    boundary(env, || Ok(configured_engine(env)?.resume()? as i64))
}

/// Try everything that waits in the spool now.
/// Held, refused and unconfirmed messages are left alone.  Return the number
/// of messages tried.
#[defun]
fn queue_flush(env: &Env) -> emacs::Result<i64> {
    boundary(env, || Ok(configured_engine(env)?.flush()? as i64))
}

/// Try message ID now, whatever has become of it before.
/// Refused and unconfirmed recipients are tried again, accepted ones are not.
#[defun]
fn queue_retry(env: &Env, id: String) -> emacs::Result<()> {
    boundary(env, || Ok(configured_engine(env)?.retry(entry_id(&id)?)?))
}

/// Hold message ID back if HOLD is non-nil, else let it go again.
#[defun]
fn queue_hold(env: &Env, id: String, hold: Value<'_>) -> emacs::Result<()> {
    boundary(env, || {
        let engine = configured_engine(env)?;
        Ok(engine.hold(entry_id(&id)?, hold.is_not_nil())?)
    })
}

/// Send message ID at TIME, or now if TIME is nil.
#[defun]
fn queue_schedule(env: &Env, id: String, time: Value<'_>) -> emacs::Result<()> {
    boundary(env, || {
        let engine = configured_engine(env)?;
        let not_before = match time.is_not_nil() {
            true => Some(from_lisp::timestamp(time)?),
            false => None,
        };
        Ok(engine.schedule_at(entry_id(&id)?, not_before)?)
    })
}

/// Write message ID to FILE, with LF line ends.
/// While FILE exists, it stands for the message, which is not sent.
#[defun]
fn queue_export(env: &Env, id: String, file: String) -> emacs::Result<()> {
    boundary(env, || {
        Ok(engine(env)?.export(entry_id(&id)?, PathBuf::from(file))?)
    })
}

const QUEUE_FILED_DOC: &str = "\
Take note that the copy of message ID has been filed, so that it can go.
If PROBLEM is a string, it could not be filed for that reason; it is asked
for again, by an event `unfiled', when the spool is next resumed or flushed.
If COPY is a string, too, it replaces the entry's :copy: a part is done.

(fn ID &optional PROBLEM COPY)";

fn queue_filed(env: &CallEnv) -> emacs::Result<()> {
    boundary(env, || {
        let id: String = env.parse_arg(0)?;
        let (problem, copy) = (optional(env, 1)?, optional(env, 2)?);
        Ok(engine(env)?.filed(entry_id(&id)?, problem, copy)?)
    })
}

/// Delete message ID from the spool, stopping it first if it is being sent.
#[defun]
fn queue_remove(env: &Env, id: String) -> emacs::Result<()> {
    boundary(env, || Ok(engine(env)?.remove(entry_id(&id)?)?))
}

/// Return the stored bytes of message ID, a unibyte string with CRLF line ends.
#[defun]
fn queue_message(env: &Env, id: String) -> emacs::Result<Vec<u8>> {
    boundary(env, || Ok(engine(env)?.message(entry_id(&id)?)?))
}

/// Check whether mail could be sent to SERVER, a plist as for `rs-smtp-send'.
/// Nothing is sent.  Return a number; each step comes as an event `check'
/// with that number as :request, and :step, :text, :ok, and :last for the
/// last one.
#[defun]
fn check_server(env: &Env, server: Value<'_>) -> emacs::Result<i64> {
    boundary(env, || {
        let server = from_lisp::server(server)?;
        Ok(configured_engine(env)?.check(server)? as i64)
    })
}

/// Forget what was learnt of the TLS of SERVER, a plist as for `rs-smtp-send'.
/// That is the certificate trusted for this session, and that it has offered
/// STARTTLS.
#[defun(name = "-forget-tls")]
fn forget_tls(env: &Env, server: Value<'_>) -> emacs::Result<()> {
    boundary(env, || {
        let server = from_lisp::server(server)?;
        Ok(engine(env)?.forget_tls(&server)?)
    })
}

/// Stop sending message ID; it stays in the spool, held.
/// Return nil if it is too late: the server already has the last byte.
#[defun]
fn cancel(env: &Env, id: String) -> emacs::Result<bool> {
    boundary(env, || Ok(engine(env)?.cancel(entry_id(&id)?)?))
}

const PARSE_ADDRESSES_DOC: &str = "\
Return the addresses of TEXT, an RFC 5322 address-list, as a list of strings.
Groups are flattened, comments and names dropped, quoted local parts stay
quoted.  Signal `rs-smtp-address-error' if TEXT cannot be parsed; FIELD,
by default \"address\", names it in the error.

(fn TEXT &optional FIELD)";

fn parse_addresses(env: &CallEnv) -> emacs::Result<Value<'_>> {
    boundary(env, || {
        let text: String = env.parse_arg(0)?;
        let field: Option<String> = optional(env, 1)?;
        let paths = parse_address_list(&text, field.as_deref().unwrap_or("address"))?;
        Ok(to_lisp::list(env, paths, |env, path| {
            emacs::IntoLisp::into_lisp(path.as_str(), env)
        })?)
    })
}
