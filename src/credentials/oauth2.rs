//! OAuth 2 access tokens for refresh tokens (RFC 6749 section 6).

use std::fmt;
use std::time::Duration;

use form_urlencoded::Serializer;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::error::Unavailable;
use super::single_flight::Slots;
use crate::mail::Timestamp;
use crate::net::{Answer, NetOptions, post_form};

/// A token that ends so soon is not begun with.
const MARGIN: Duration = Duration::from_secs(60);
/// Characters of a provider's own words that are shown.
const LONGEST_DESCRIPTION: usize = 300;

/// What an access token is to be had for: the fields of an authinfo entry under the
/// names that auth-source-xoauth2 has for them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// `token-url`: the provider's token endpoint.
    pub token_url: String,
    /// `client-id`
    pub client_id: Option<String>,
    /// `client-secret`, which clients of some kinds have not.
    pub client_secret: Option<Zeroizing<String>>,
    /// `refresh-token`
    pub refresh_token: Option<Zeroizing<String>>,
    /// `scope`: some providers want it repeated.
    pub scope: Option<String>,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("token_url", &self.shown_url())
            .field("client_id", &self.client_id)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Grant {
    /// A grant from fields of an entry, by name; `None` if it has no `token-url`.
    pub fn from_fields(field: impl Fn(&str) -> Option<String>) -> Option<Self> {
        Some(Grant {
            token_url: field("token-url")?,
            client_id: field("client-id"),
            client_secret: field("client-secret").map(Zeroizing::new),
            refresh_token: field("refresh-token").map(Zeroizing::new),
            scope: field("scope"),
        })
    }

    /// Whether nothing is missing that every provider wants.
    pub fn is_complete(&self) -> bool {
        self.client_id.is_some() && self.refresh_token.is_some()
    }

    /// The URL without its query, for messages.
    fn shown_url(&self) -> &str {
        self.token_url.split(['?', '#']).next().unwrap_or_default()
    }

    fn error(&self, what: impl fmt::Display, is_transient: bool) -> Unavailable {
        Unavailable {
            what: format!("no access token from {}: {what}", self.shown_url()),
            is_transient,
        }
    }

    fn form(&self, refresh_token: &str) -> Zeroizing<String> {
        // Sized at once: a string that grows leaves copies behind. Encoding makes three
        // characters of one at most, and the names are short.
        let optional = [self.client_secret.as_deref(), self.scope.as_ref()];
        let values = optional.iter().flatten().map(|text| text.len());
        let id = self.client_id.as_deref().unwrap_or_default();
        let longest = 3 * (values.sum::<usize>() + id.len() + refresh_token.len()) + 128;
        let mut form = Serializer::new(String::with_capacity(longest));
        form.append_pair("grant_type", "refresh_token")
            .append_pair("client_id", id)
            .append_pair("refresh_token", refresh_token);
        if let Some(secret) = &self.client_secret {
            form.append_pair("client_secret", secret);
        }
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        Zeroizing::new(form.finish())
    }

    /// A provider's own words in one line; should it quote a secret, without that.
    fn tamed(&self, text: &str, refresh_token: &str) -> String {
        let mut text = text.to_owned();
        let secrets = [
            self.client_secret.as_ref().map(|secret| secret.as_str()),
            Some(refresh_token),
        ];
        for secret in secrets
            .into_iter()
            .flatten()
            .filter(|secret| !secret.is_empty())
        {
            text = text.replace(secret, "…");
        }
        let words: Vec<&str> = text
            .split(|c: char| c.is_control() || c.is_whitespace())
            .collect();
        words.join(" ").chars().take(LONGEST_DESCRIPTION).collect()
    }
}

/// An access token, and what came with it.
struct Token {
    access: Zeroizing<String>,
    /// When it ends, if the provider says so.
    expires: Option<Timestamp>,
    /// The refresh token to use from now on, if it is another.
    refresh: Option<Zeroizing<String>>,
}

/// What a token endpoint says (RFC 6749 sections 5.1 and 5.2).
#[derive(Deserialize)]
struct Said {
    access_token: Option<String>,
    /// A number; some providers make a string of it.
    expires_in: Option<Value>,
    refresh_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

async fn fetch(
    grant: &Grant,
    refresh_token: &str,
    options: &NetOptions,
) -> Result<Token, Unavailable> {
    let form = grant.form(refresh_token);
    let asked = Timestamp::now();
    let answer = post_form(&grant.token_url, form, options)
        .await
        .map_err(|error| grant.error(&error.what, error.is_transient))?;
    understand(grant, refresh_token, &answer, asked)
}

fn understand(
    grant: &Grant,
    refresh_token: &str,
    answer: &Answer,
    asked: Timestamp,
) -> Result<Token, Unavailable> {
    let status = answer.status;
    if is_passing(status) {
        return Err(grant.error(format!("HTTP {status}"), true));
    }
    // serde's error may quote the answer, which may hold a token.
    let said: Option<Said> = serde_json::from_slice(&answer.body).ok();
    match said {
        Some(Said {
            error: Some(error),
            error_description: description,
            ..
        }) => {
            let (what, is_transient) = explain(&error);
            let error = grant.tamed(&error, refresh_token);
            let description = description.unwrap_or_default();
            let mut text = format!("{error}: {what}");
            if !description.is_empty() {
                let description = grant.tamed(&description, refresh_token);
                text = format!("{text} ({description})");
            }
            Err(grant.error(text, is_transient))
        }
        Some(Said {
            access_token: Some(access),
            expires_in,
            refresh_token: new,
            ..
        }) if status.is_success() => {
            let access = Zeroizing::new(access);
            if !is_sendable(&access) {
                return Err(grant.error("what it gave is no access token", false));
            }
            Ok(Token {
                access,
                expires: expires_in
                    .and_then(|lifetime| seconds(&lifetime))
                    .map(|lifetime| asked.after(lifetime)),
                refresh: new
                    .map(Zeroizing::new)
                    .filter(|new| !new.is_empty() && new.as_str() != refresh_token),
            })
        }
        Some(_) if status.is_success() => Err(grant.error(
            "its answer holds no access token; is token-url right?",
            false,
        )),
        None if status.is_success() => {
            Err(grant.error("its answer is no JSON; is token-url right?", false))
        }
        _ => Err(grant.error(format!("HTTP {status}; is token-url right?"), false)),
    }
}

fn is_passing(status: StatusCode) -> bool {
    let also = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || also.contains(&status)
}

/// What an error code means to the user, and whether it may pass by itself.
fn explain(error: &str) -> (&'static str, bool) {
    match error {
        "invalid_grant" => (
            "the refresh token was revoked or has expired: authorise anew",
            false,
        ),
        "invalid_client" | "unauthorized_client" => (
            "the provider does not accept this client: check client-id and client-secret",
            false,
        ),
        "invalid_scope" => ("the provider does not know this scope", false),
        "interaction_required" | "consent_required" => {
            ("the provider wants to see you: authorise anew", false)
        }
        "temporarily_unavailable" | "server_error" | "slow_down" => {
            ("the provider is not able to now", true)
        }
        _ => ("the provider refuses", false),
    }
}

fn seconds(lifetime: &Value) -> Option<Duration> {
    let number = match lifetime {
        Value::String(text) => text.trim().parse().ok()?,
        other => other.as_f64()?,
    };
    Duration::try_from_secs_f64(number).ok()
}

/// Whether a token is one by its characters (RFC 6750 section 2.1, and some more): it
/// goes between control characters.
pub fn is_sendable(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|octet| octet.is_ascii_graphic())
}

/// The access tokens of this process, each kept until it ends or is refused.
#[derive(Default)]
pub struct Tokens(Slots<Grant, Mutex<Kept>>);

/// What is known for a grant.
#[derive(Default)]
struct Kept {
    token: Option<Token>,
    /// Instead of the grant's own.
    refresh: Option<Zeroizing<String>>,
    /// Whether the user knows that there is another.
    is_told: bool,
}

/// An access token to use now.
pub struct Fresh {
    /// The token.
    pub access: Zeroizing<String>,
    /// Whether the user is to be told, for the first time, that the provider has given
    /// a refresh token in place of the stored one.
    pub is_replaced: bool,
}

impl Tokens {
    /// A token for `grant`: a kept one, or else a new one. Who comes while it is fetched
    /// waits for it, for some providers take each refresh token once.
    pub async fn get(&self, grant: &Grant, options: &NetOptions) -> Result<Fresh, Unavailable> {
        let Some(stored) = grant.refresh_token.as_ref().filter(|_| grant.is_complete()) else {
            let what = "the entry lacks client-id or refresh-token";
            return Err(grant.error(what, false));
        };
        let slot = self.0.slot(grant);
        let mut kept = slot.lock().await;
        let soon = Timestamp::now().after(MARGIN);
        let is_good = |token: &&Token| token.expires.is_none_or(|end| end > soon);
        if let Some(token) = kept.token.as_ref().filter(is_good) {
            return Ok(Fresh {
                access: token.access.clone(),
                is_replaced: false,
            });
        }
        kept.token = None;
        let refresh = kept.refresh.clone().unwrap_or_else(|| stored.clone());
        let mut token = match fetch(grant, &refresh, options).await {
            Ok(token) => token,
            Err(error) => {
                if !error.is_transient {
                    // The stored one may be good yet.
                    kept.refresh = None;
                }
                return Err(error);
            }
        };
        let new = token.refresh.take();
        let is_replaced = new.is_some() && !kept.is_told;
        if new.is_some() {
            kept.refresh = new;
            kept.is_told = true;
        }
        let access = token.access.clone();
        kept.token = Some(token);
        Ok(Fresh {
            access,
            is_replaced,
        })
    }

    /// Forgets the token that a server has refused, unless there is another by now.
    pub async fn forget(&self, grant: &Grant, refused: &str) {
        let slot = self.0.slot(grant);
        let mut kept = slot.lock().await;
        kept.token.take_if(|token| token.access.as_str() == refused);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn grant() -> Grant {
        let field = |name: &str| match name {
            "token-url" => Some("https://login.example/token?tenant=x".to_owned()),
            "client-id" => Some("id".to_owned()),
            "client-secret" => Some("s&cret".to_owned()),
            "refresh-token" => Some("1//refresh".to_owned()),
            _ => None,
        };
        Grant::from_fields(field).unwrap()
    }

    fn answer(status: u16, body: &str) -> Result<Token, Unavailable> {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        };
        understand(&grant(), "1//refresh", &answer, Timestamp(1000))
    }

    #[test]
    fn the_form_is_encoded() {
        let form = grant().form("1//refresh");
        let wanted = "grant_type=refresh_token&client_id=id&refresh_token=1%2F%2Frefresh\
                      &client_secret=s%26cret";
        assert_eq!(*form, wanted);
    }

    #[test]
    fn lifetimes_are_numbers_in_any_dress() {
        for (text, expires) in [
            ("3600", Some(3_601_000)),
            ("\"3600\"", Some(3_601_000)),
            ("1.5", Some(2500)),
            ("null", None),
            ("-1", None),
            ("\"soon\"", None),
            ("1e300", None),
        ] {
            let body = format!(r#"{{"access_token":"a","expires_in":{text}}}"#);
            let token = answer(200, &body).ok().unwrap();
            assert_eq!(token.expires, expires.map(Timestamp), "{text}");
        }
    }

    #[test]
    fn only_another_refresh_token_is_news() {
        for (text, news) in [
            ("\"1//refresh\"", false),
            ("\"2//\"", true),
            ("\"\"", false),
        ] {
            let body = format!(r#"{{"access_token":"a","refresh_token":{text}}}"#);
            assert_eq!(answer(200, &body).ok().unwrap().refresh.is_some(), news);
        }
    }

    #[test]
    fn errors_say_what_to_do_and_hold_no_secret() {
        let quoting = r#"{"error":"invalid_grant","error_description":"1//refresh and\ns&cret"}"#;
        for (status, body, words, is_transient) in [
            (400, quoting, "authorise anew (… and …)", false),
            (401, r#"{"error":"invalid_client"}"#, "client-secret", false),
            (
                400,
                r#"{"error":"odd"}"#,
                "odd: the provider refuses",
                false,
            ),
            (503, "<html>", "HTTP 503", true),
            (429, r#"{"error":"odd"}"#, "HTTP 429", true),
            (400, r#"{"error":"slow_down"}"#, "not able to now", true),
            (
                404,
                "<html>",
                "HTTP 404 Not Found; is token-url right?",
                false,
            ),
            (302, "", "HTTP 302 Found", false),
            (200, "<html>", "no JSON", false),
            (200, "{}", "no access token", false),
            (
                200,
                r#"{"access_token":"a\u0001b"}"#,
                "no access token",
                false,
            ),
        ] {
            let error = answer(status, body).err().unwrap();
            assert!(error.what.contains(words), "{}", error.what);
            assert!(error.what.contains("https://login.example/token: "));
            assert!(!error.what.contains("1//") && !error.what.contains("s&cret"));
            assert_eq!(error.is_transient, is_transient, "{body}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", grant());
        assert!(!shown.contains("1//") && !shown.contains("cret"), "{shown}");
    }
}
