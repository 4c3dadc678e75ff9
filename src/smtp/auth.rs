//! AUTH (RFC 4954). The mechanisms are rsasl's; the exchange is ours.

use std::cmp::Ordering;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, Mac};
use md5::Md5;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::external::EXTERNAL;
use rsasl::mechanisms::login::LOGIN;
use rsasl::mechanisms::oauthbearer::OAUTHBEARER;
use rsasl::mechanisms::plain::PLAIN;
use rsasl::mechanisms::scram::{SCRAM_SHA1, SCRAM_SHA1_PLUS, SCRAM_SHA256, SCRAM_SHA256_PLUS};
use rsasl::mechanisms::xoauth2::XOAUTH2;
use rsasl::prelude::{
    ChannelBindingCallback, Mechanism, Mechname, Registry, SASLClient, SASLConfig, Session,
    SessionError, State,
};
use rsasl::property::{AuthId, AuthzId, OAuthBearerToken, Password};
use rsasl::validate::NoValidation;
use zeroize::Zeroizing;

use super::reply::Reply;
use super::wire::{Wire, WireError};
use crate::credentials::Credentials;
use crate::credentials::wiped::{self, Wiped};

/// How an AUTH exchange failed.
#[derive(Debug)]
pub enum AuthError {
    /// The server refused the credentials.
    Refused(Reply),
    /// The server does not know the command or the mechanism, whatever it announced.
    Unknown,
    /// The server can't authenticate anybody now (454), or puts it off.
    Later(Reply),
    /// The mechanism could not be carried out with these credentials or this server, which
    /// says nothing of the credentials.
    Mechanism(String),
    /// The line is of no more use.
    Wire(WireError),
}

/// Mechanisms for a user name and password, the strongest first. Those in `-PLUS`
/// bind the login to the TLS channel.
const BY_PASSWORD: &[&str] = &[
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1",
    "CRAM-MD5",
    "PLAIN",
    "LOGIN",
];
/// Mechanisms used only where the user names them: their secret is no password.
const BY_CHOICE: &[&str] = &["OAUTHBEARER", "XOAUTH2", "EXTERNAL"];

/// Mechanisms whose secret is an access token: first the one that every provider has.
const BY_TOKEN: &[&str] = &["XOAUTH2", "OAUTHBEARER"];

/// The mechanism for an access token, if the server offers any.
pub fn choose_for_token(offered: &[String]) -> Vec<&'static str> {
    let is_offered = |name: &&str| offered.iter().any(|other| other == name);
    BY_TOKEN
        .iter()
        .copied()
        .find(is_offered)
        .into_iter()
        .collect()
}

/// Those of ours that the server offers and the user allows, in the order to try them:
/// the strongest first. `allowed` (`smtpmail-auth-supported`, in any case) says which
/// may be used; its default, as smtpmail's, allows what is stronger as well. The
/// credentials' own mechanism (authinfo's `smtp-auth`) is the only one where given.
pub fn choose(
    offered: &[String],
    allowed: Option<&[String]>,
    own: Option<&str>,
    can_bind: bool,
) -> Vec<&'static str> {
    let known = || BY_PASSWORD.iter().chain(BY_CHOICE).copied();
    let is_usable = |name: &&str| {
        offered.iter().any(|other| other == name) && (can_bind || !name.ends_with("-PLUS"))
    };
    if let Some(own) = own {
        // As in smtpmail, whether or not the server offers it.
        return known()
            .filter(|name| own.eq_ignore_ascii_case(name))
            .collect();
    }
    match allowed {
        None => BY_PASSWORD.iter().copied().filter(is_usable).collect(),
        Some(names) => names
            .iter()
            .filter_map(|name| known().find(|known| name.eq_ignore_ascii_case(known)))
            .filter(is_usable)
            .collect(),
    }
}

/// rsasl's own choice leaves those with channel binding out.
static MECHANISMS: &[Mechanism] = &[
    SCRAM_SHA256_PLUS,
    SCRAM_SHA1_PLUS,
    SCRAM_SHA256,
    SCRAM_SHA1,
    PLAIN,
    LOGIN,
    OAUTHBEARER,
    XOAUTH2,
    EXTERNAL,
];

/// Carries out one mechanism; `limit` is for each reply.
pub async fn authenticate(
    wire: &mut Wire,
    mechanism: &'static str,
    credentials: &Credentials,
    channel: Option<[u8; 32]>,
    limit: Duration,
) -> Result<(), AuthError> {
    let mut session = Exchange::start(mechanism, credentials, channel)?;
    let mut command = wiped::concat(&["AUTH ", mechanism, "\r\n"]);
    let mut is_running = true;
    let mut shown = format!("AUTH {mechanism}");
    if session.are_we_first() {
        shown.push_str(" <omitted>");
        let (response, running) = session.respond(None)?;
        is_running = running;
        let response = if response.is_empty() { "=" } else { &response };
        command = wiped::concat(&["AUTH ", mechanism, " ", response, "\r\n"]);
    }
    let secret = credentials.secret.as_deref().map_or("", String::as_str);
    loop {
        let reply = wire
            .ask_secretly(&command, &shown, secret, limit)
            .await
            .map_err(AuthError::Wire)?;
        shown = "<omitted>".to_owned();
        match reply.code() {
            // Nothing else is success: a server that goes on otherwise has not checked.
            235 if is_running && mechanism.starts_with("SCRAM") => {
                let what = "the server did not prove that it knows the password";
                return Err(AuthError::Mechanism(what.to_owned()));
            }
            235 => return Ok(()),
            334 if is_running => {}
            334 => return Err(AuthError::Refused(reply)),
            _ if reply.is_transient() => return Err(AuthError::Later(reply)),
            500 | 502..=504 => return Err(AuthError::Unknown),
            // A syntax error; Cyrus says so where the channel binding fails.
            501 if !reply.lines().any(|line| line.starts_with("5.7.8")) => {
                let what = format!("the server cannot carry out {mechanism}: {reply}");
                return Err(AuthError::Mechanism(what));
            }
            _ => return Err(AuthError::Refused(reply)),
        }
        if BY_TOKEN.contains(&mechanism) {
            // Their errors come as a challenge; it gets a response that says nothing (RFC
            // 7628 section 3.2.3), and then we are refused properly.
            is_running = false;
            let nothing = match mechanism {
                "OAUTHBEARER" => "AQ==\r\n",
                _ => "\r\n",
            };
            command = wiped::concat(&[nothing]);
            continue;
        }
        let challenge = reply.lines().next().unwrap_or_default().trim();
        let challenge = match BASE64_STANDARD.decode(challenge) {
            Ok(challenge) => challenge,
            // LOGIN's prompts are only for show, and some servers send plain text.
            Err(_) if mechanism == "LOGIN" => Vec::new(),
            Err(_) => {
                let what = format!("the server's {mechanism} challenge is no base64");
                return Err(AuthError::Mechanism(what));
            }
        };
        match session.respond(Some(&challenge)) {
            Ok((response, running)) => {
                is_running = running;
                command = wiped::concat(&[&response, "\r\n"]);
            }
            Err(error) => {
                // RFC 4954 section 4: a lone asterisk takes the exchange back.
                let _ = wire.ask("*\r\n", limit).await;
                return Err(error);
            }
        }
    }
}

/// One run of a mechanism.
enum Exchange {
    Sasl(Box<Session<NoValidation, ChannelBinding>>),
    /// CRAM-MD5 (RFC 2195), which rsasl leaves out.
    CramMd5(Answers),
}

/// The tls-exporter data of the line, if it has any.
struct ChannelBinding(Option<[u8; 32]>);

impl ChannelBindingCallback for ChannelBinding {
    fn get_cb_data(&self, name: &str) -> Option<&[u8]> {
        let data = self.0.as_ref().filter(|_| name == "tls-exporter");
        data.map(|data| data.as_slice())
    }
}

impl Exchange {
    fn start(
        mechanism: &'static str,
        credentials: &Credentials,
        channel: Option<[u8; 32]>,
    ) -> Result<Self, AuthError> {
        let answers = Answers::new(mechanism, credentials);
        if mechanism == "CRAM-MD5" {
            return Ok(Exchange::CramMd5(answers));
        }
        let unusable = |error: String| AuthError::Mechanism(format!("{mechanism}: {error}"));
        let config = SASLConfig::builder()
            .with_registry(Registry::with_mechanisms(MECHANISMS))
            .with_callback(answers)
            .map_err(|error| unusable(error.to_string()))?;
        let name =
            Mechname::parse(mechanism.as_bytes()).map_err(|error| unusable(error.to_string()))?;
        let client = SASLClient::with_cb(config, ChannelBinding(channel));
        let session = client
            .start_suggested(&[name])
            .map_err(|error| unusable(error.to_string()))?;
        if session.get_mechname().as_str() != mechanism {
            return Err(unusable("it cannot be had".to_owned()));
        }
        Ok(Exchange::Sasl(Box::new(session)))
    }

    fn are_we_first(&self) -> bool {
        match self {
            Exchange::Sasl(session) => session.are_we_first(),
            Exchange::CramMd5(_) => false,
        }
    }

    /// The base64 response to a challenge, and whether the mechanism wants to go on.
    fn respond(
        &mut self,
        challenge: Option<&[u8]>,
    ) -> Result<(Zeroizing<String>, bool), AuthError> {
        let (response, is_running) = match self {
            Exchange::Sasl(session) => {
                let mut response = Wiped::default();
                let state = session
                    .step(challenge, &mut response)
                    .map_err(|error| AuthError::Mechanism(describe(&error)))?;
                (response.into_bytes(), matches!(state, State::Running))
            }
            Exchange::CramMd5(answers) => {
                let response = answers.cram_md5(challenge.unwrap_or_default());
                (Zeroizing::new(response), false)
            }
        };
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(&*response));
        Ok((encoded, is_running))
    }
}

fn describe(error: &SessionError) -> String {
    format!("the authentication exchange failed: {error}")
}

/// What the mechanisms ask for.
struct Answers {
    mechanism: &'static str,
    user: String,
    secret: Zeroizing<String>,
}

impl Answers {
    fn new(mechanism: &'static str, credentials: &Credentials) -> Self {
        Answers {
            mechanism,
            user: credentials.user.clone().unwrap_or_default(),
            secret: credentials.secret.clone().unwrap_or_default(),
        }
    }
}

impl Answers {
    /// The user name and the keyed MD5 of the challenge in hexadecimal.
    fn cram_md5(&self, challenge: &[u8]) -> Vec<u8> {
        // HMAC takes keys of any length.
        let Ok(mut keyed) = Hmac::<Md5>::new_from_slice(self.secret.as_bytes()) else {
            return Vec::new();
        };
        keyed.update(challenge);
        let digest = keyed.finalize().into_bytes();
        let digest: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("{} {digest}", self.user).into_bytes()
    }
}

impl SessionCallback for Answers {
    fn enable_channel_binding(&self) -> bool {
        self.mechanism.ends_with("-PLUS")
    }

    /// Of what fits, rsasl would choose by its own priorities: only ours counts.
    fn prefer<'a>(&self, _best: Option<&'a Mechanism>, other: &'a Mechanism) -> Ordering {
        if other.to_string() == self.mechanism {
            Ordering::Less
        } else {
            Ordering::Greater
        }
    }

    fn callback(
        &self,
        _session: &SessionData,
        _context: &Context,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        request
            .satisfy::<AuthId>(&self.user)?
            .satisfy::<Password>(self.secret.as_bytes())?
            .satisfy::<OAuthBearerToken>(&self.secret)?;
        if self.mechanism == "OAUTHBEARER" {
            // There the token alone does not say whose it is; for a password the user
            // whom we act for is the one who logs in.
            request.satisfy::<AuthzId>(&self.user)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_strongest_mechanism_comes_first() {
        let offered = names("LOGIN PLAIN SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS XOAUTH2");
        let strongest = ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"];
        assert_eq!(choose(&offered, None, None, false), strongest);
        assert_eq!(choose(&offered, None, None, true)[0], "SCRAM-SHA-256-PLUS");
        let allowed = names("login plain");
        assert_eq!(
            choose(&offered, Some(&allowed), None, true),
            ["LOGIN", "PLAIN"]
        );
        assert_eq!(choose(&offered, None, Some("xoauth2"), true), ["XOAUTH2"]);
        assert!(choose(&[], None, None, true).is_empty());
    }

    #[test]
    fn cram_md5_answers_as_in_rfc_2195() {
        let credentials = Credentials {
            user: Some("tim".to_owned()),
            secret: Some("tanstaaftanstaaf".to_owned().into()),
            ..Credentials::default()
        };
        let answer = Answers::new("CRAM-MD5", &credentials)
            .cram_md5(b"<1896.697170952@postoffice.reston.mci.net>");
        assert_eq!(answer, b"tim b913a602c7eda7a495b4e6e7334d3890");
    }

    #[test]
    fn every_mechanism_can_be_started() {
        let credentials = Credentials {
            user: Some("user".to_owned()),
            secret: Some("secret".to_owned().into()),
            ..Credentials::default()
        };
        for mechanism in BY_PASSWORD.iter().chain(BY_CHOICE) {
            let mut exchange = Exchange::start(mechanism, &credentials, Some([7; 32])).unwrap();
            if exchange.are_we_first() {
                let (response, _) = exchange.respond(None).unwrap();
                let response = BASE64_STANDARD.decode(&*response).unwrap();
                let binds = response.starts_with(b"p=tls-exporter,");
                assert_eq!(binds, mechanism.ends_with("-PLUS"), "{mechanism}");
            }
        }
    }
}
