//! One small HTTP request: a form is posted over TLS, or to this machine, and a short
//! answer comes back. Redirections are not followed: the form holds secrets.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::connect::connect_to;
use super::options::NetOptions;
use super::tls::{Connectors, TlsError};
use super::transport::Transport;
use crate::mail::{Port, Server, StreamType};

/// Octets of an answer's body; those of token endpoints have two or three thousand.
const LONGEST_BODY: usize = 64 * 1024;
/// Octets of an answer's header.
const LONGEST_HEADER: usize = 64 * 1024;
/// For the answer, handshake included.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came back.
pub struct Answer {
    /// The status, whatever it says.
    pub status: StatusCode,
    /// The body; it may hold secrets.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why nothing came back, in words.
#[derive(Debug)]
pub struct HttpError {
    /// What happened.
    pub what: String,
    /// Whether it may pass by itself.
    pub is_transient: bool,
}

fn lasting(what: impl Into<String>) -> HttpError {
    HttpError {
        what: what.into(),
        is_transient: false,
    }
}

fn transient(what: impl Into<String>) -> HttpError {
    HttpError {
        what: what.into(),
        is_transient: true,
    }
}

/// Posts `form`, which is URL-encoded, to `url`.
pub async fn post_form(
    url: &str,
    form: Zeroizing<String>,
    options: &NetOptions,
) -> Result<Answer, HttpError> {
    let target = Target::parse(url)?;
    let connection = connect_to(&target.host, target.port, options)
        .await
        .map_err(|error| HttpError {
            is_transient: error.is_transient(),
            what: error.to_string(),
        })?;
    if !target.is_encrypted && !connection.is_local {
        return Err(lasting(
            "http:// would show the secrets to the network: use https://",
        ));
    }
    let limit = options.reply_timeout.min(PATIENCE);
    let exchange = async {
        let transport = if target.is_encrypted {
            encrypt(&target, connection.transport, options).await?
        } else {
            connection.transport
        };
        exchange(target.request(form)?, transport).await
    };
    timeout(limit, exchange)
        .await
        .unwrap_or_else(|_| Err(transient(format!("no answer within {limit:?}"))))
}

/// A URL taken apart.
struct Target {
    uri: Uri,
    host: String,
    port: u16,
    is_encrypted: bool,
}

impl Target {
    fn parse(url: &str) -> Result<Self, HttpError> {
        let bad = |why: &str| lasting(format!("the URL {why}"));
        let uri: Uri = url.parse().map_err(|_| bad("cannot be read"))?;
        let (is_encrypted, usual_port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(bad("begins neither with https:// nor with http://")),
        };
        let has_userinfo = uri.authority().is_some_and(|it| it.as_str().contains('@'));
        match uri.host() {
            Some(host) if !host.is_empty() && !has_userinfo => Ok(Target {
                host: host.to_owned(),
                port: uri.port_u16().unwrap_or(usual_port),
                is_encrypted,
                uri,
            }),
            _ => Err(bad("names no host, or a user")),
        }
    }

    fn request(&self, form: Zeroizing<String>) -> Result<Request<Full<Bytes>>, HttpError> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |host| host.as_str());
        Request::post(path)
            .header(HOST, host)
            .header(
                USER_AGENT,
                concat!("rs-smtpmail/", env!("CARGO_PKG_VERSION")),
            )
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from_owner(WipedForm(form))))
            .map_err(|error| lasting(error.to_string()))
    }
}

/// A form that hyper reads where it is, and that is wiped after that.
struct WipedForm(Zeroizing<String>);

impl AsRef<[u8]> for WipedForm {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

async fn encrypt(
    target: &Target,
    transport: Box<dyn Transport>,
    options: &NetOptions,
) -> Result<Box<dyn Transport>, HttpError> {
    let (host, port) = (target.host.clone(), Port::Number(target.port));
    let server = Server::new(
        host,
        port,
        StreamType::Ssl,
        None,
        "localhost".to_owned(),
        false,
    )
    .map_err(|error| lasting(error.to_string()))?;
    // A user's pins and policy hold here, too.
    let made = Connectors::default().tls_for(&server, &options.tls).await;
    let (tls, _) = made.map_err(|error| lasting(error.to_string()))?;
    match tls.start(&target.host, transport).await {
        Ok((transport, _)) => Ok(transport),
        Err(error @ TlsError::Handshake(_)) => Err(transient(error.to_string())),
        Err(error) => Err(lasting(error.to_string())),
    }
}

async fn exchange(
    request: Request<Full<Bytes>>,
    transport: Box<dyn Transport>,
) -> Result<Answer, HttpError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LONGEST_HEADER)
        .handshake(TokioIo::new(transport))
        .await
        .map_err(|error| explain(&error))?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| explain(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_BODY)
            .collect()
            .await
            .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => lasting("the answer is longer than any such answer"),
                None => transient(format!("the answer broke off ({error})")),
            })?;
        Ok(Answer {
            status,
            body: Zeroizing::new(body.to_bytes().to_vec()),
        })
    };
    let mut answer = pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // What it has read is still to be taken.
        _ = connection => answer.await,
    }
}

fn explain(error: &hyper::Error) -> HttpError {
    let cause = error.source().map(|cause| format!(": {cause}"));
    let text = format!("{error}{}", cause.unwrap_or_default());
    if error.is_parse() {
        return lasting(format!("the answer is no HTTP ({text})"));
    }
    transient(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("https://login.example/a/token?x=1").unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.is_encrypted),
            ("login.example", 443, true)
        );
        let target = Target::parse("http://[::1]:8080").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("[::1]", 8080));
        for url in [
            "",
            "/token",
            "login.example",
            "ftp://a/",
            "https://u:p@a/",
            "https://a b/",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
