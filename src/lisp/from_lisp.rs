//! From Lisp values to our types. The shapes are those of the docstrings in `functions`.

use std::path::PathBuf;
use std::time::Duration;

use emacs::{FromLisp, Value};
use zeroize::Zeroizing;

use super::signals::Failure;
use crate::bridge::Answer;
use crate::credentials::{AuthSource, Credentials, CredentialsOptions, Grant, Restriction};
use crate::engine::Backoff;
use crate::engine::{ConfigError, Settings, Unconfirmed};
use crate::mail::{Part, Port, Raw, Server, StreamType, Timestamp};
use crate::net::NetOptions;
use crate::net::tls::{IdentityFiles, Pin, TlsOptions};
use crate::smtp::SessionOptions;
use crate::spool::{Dsn, Wishes};

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
    let parts = match is(value, "stringp")? {
        true => vec![value],
        false => elements(value)?,
    };
    let parts: Result<Vec<Part>, Failure> = parts.into_iter().map(part).collect();
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
    let tls = TlsOptions {
        trust_files: paths(":trust-files")?,
        crl_files: paths(":crl-files")?,
        priority: get(plist, ":tls-priority")?,
        pins,
    };
    let max_connections: Option<i64> = get(plist, ":max-connections")?;
    Ok(Settings {
        net: NetOptions {
            connect_timeout: seconds(":connect-timeout", defaults.net.connect_timeout)?,
            reply_timeout: seconds(":reply-timeout", defaults.net.reply_timeout)?,
            proxy: get(plist, ":proxy")?,
            tls,
        },
        credentials: CredentialsOptions {
            auth_sources,
            lisp_has_tokens: get::<Value<'_>>(plist, ":oauth2-tokens")?.is_some(),
            loopback_pinentry: get::<Value<'_>>(plist, ":loopback-pinentry")?.is_some(),
        },
        session: SessionOptions {
            auth_mechanisms: mechanisms,
            cleartext_auth_hosts: strings(":cleartext-auth-hosts")?.unwrap_or_default(),
        },
        max_connections: max_connections
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(defaults.max_connections),
        idle_timeout: seconds(":idle-timeout", defaults.idle_timeout)?,
        trace: get::<Value<'_>>(plist, ":trace")?.is_some(),
        unconfirmed,
        backoff: Backoff {
            first_pause: seconds(":retry-first-pause", defaults.backoff.first_pause)?,
            longest_pause: seconds(":retry-longest-pause", defaults.backoff.longest_pause)?,
            give_up_after: seconds(":retry-give-up", defaults.backoff.give_up_after)?,
        },
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
    if let Some(why) = get(value, ":later")? {
        return Ok(Answer::Later(why));
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

/// A time in any form that Lisp has for it.
pub fn timestamp(time: Value<'_>) -> Result<Timestamp, Failure> {
    let seconds: f64 = time.env.call("float-time", (time,))?.into_rust()?;
    Ok(Timestamp((seconds * 1000.0).max(0.0) as u64))
}
