//! AUTH (RFC 4954).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use md5::Md5;

use super::log::Login;
use super::options::{Extension, Support};
use super::reply::Reply;
use super::scram::{self, Exchange};
use super::script::Stage;
use super::session::{Session, Stop};

/// How an exchange came out.
enum Outcome {
    Success,
    Failure,
    /// The exchange ended before it could: this is the reply.
    Broken(Reply),
    /// A rule has already replied.
    Answered,
}

impl Session {
    pub(super) async fn auth(&mut self, argument: &str) -> Result<(), Stop> {
        let (mechanism, initial) = match argument.split_once(' ') {
            Some((mechanism, initial)) => (mechanism, Some(initial.to_owned())),
            None => (argument, None),
        };
        let mechanism = mechanism.to_ascii_uppercase();
        let initial_response = initial.is_some();
        let options = &self.site.options;
        let mut refused = options.refused_mechanisms.iter();
        let refused = refused.any(|one| one.eq_ignore_ascii_case(&mechanism));
        let obstacle = if self.user.is_some() {
            self.violation("AUTH twice");
            Some(Reply::with_status(503, "5.5.1", "Already authenticated"))
        } else if self.envelope.is_some() {
            self.violation("AUTH inside a transaction");
            Some(Reply::with_status(503, "5.5.1", "Not inside a transaction"))
        } else {
            match self.support(Extension::Auth) {
                None => {
                    self.violation("AUTH was not announced");
                    Some(Reply::with_status(502, "5.5.1", "AUTH is not supported"))
                }
                Some(Support::Refused) => {
                    Some(Reply::with_status(502, "5.5.1", "AUTH is switched off"))
                }
                Some(Support::Works) if !self.mechanisms().contains(&mechanism) => {
                    self.violation(format!("AUTH {mechanism} was not announced"));
                    Some(Reply::with_status(504, "5.5.4", "Unknown mechanism"))
                }
                Some(Support::Works) => None,
            }
        };
        let rule = self.consult(Stage::Auth, &mechanism).await?;
        let outcome = if let Some(rule) = rule {
            let code = self.deliver(Some(rule), Reply::new(334, "")).await?;
            if code == 334 {
                self.failure_after_line(&mechanism).await?
            } else {
                if code == 235 {
                    self.user = Some(self.site.options.user.clone());
                }
                Outcome::Answered
            }
        } else if let Some(reply) = obstacle {
            Outcome::Broken(reply)
        } else if refused {
            if initial.is_none() {
                self.put(Reply::new(334, ""))?;
                self.failure_after_line(&mechanism).await?
            } else {
                Outcome::Failure
            }
        } else {
            self.exchange(&mechanism, initial).await?
        };
        let accepted = matches!(outcome, Outcome::Success) || self.user.is_some();
        let login = Login {
            mechanism,
            initial_response,
            tls: self.wire.tls().is_some(),
            accepted,
        };
        self.note(|entry| entry.logins.push(login));
        match outcome {
            Outcome::Success => {
                self.user = Some(self.site.options.user.clone());
                let user = self.user.clone();
                self.note(|entry| entry.user = user);
                self.put(Reply::with_status(
                    235,
                    "2.7.0",
                    "Authentication successful",
                ))
            }
            Outcome::Failure => self.put(Reply::with_status(
                535,
                "5.7.8",
                "Authentication credentials invalid",
            )),
            Outcome::Broken(reply) => self.put(reply),
            Outcome::Answered => Ok(()),
        }
    }

    async fn exchange(
        &mut self,
        mechanism: &str,
        initial: Option<String>,
    ) -> Result<Outcome, Stop> {
        let first = match mechanism {
            "LOGIN" => "Username:",
            "CRAM-MD5" => CRAM_CHALLENGE,
            _ => "",
        };
        let response = match initial {
            Some(text) if text == "=" => Some(String::new()),
            Some(text) => Some(text),
            None => self.challenge(mechanism, first).await?,
        };
        let Some(response) = response else {
            return Ok(Outcome::Answered);
        };
        let response = match decode(&response) {
            Ok(response) => response,
            Err(reply) => return Ok(Outcome::Broken(reply)),
        };
        if let Some((hash, plus)) = scram::mechanism(mechanism) {
            return self.scram(mechanism, hash, plus, &response).await;
        }
        let options = &self.site.options;
        let (user, password) = (options.user.clone(), options.password.clone());
        let right = match mechanism {
            "PLAIN" => {
                let parts: Vec<&str> = response.split('\0').collect();
                matches!(parts[..], [authority, name, secret]
                    if (authority.is_empty() || authority == user)
                        && name == user && secret == password)
            }
            "LOGIN" => {
                let Some(secret) = self.challenge(mechanism, "Password:").await? else {
                    return Ok(Outcome::Answered);
                };
                match decode(&secret) {
                    Ok(secret) => response == user && secret == password,
                    Err(reply) => return Ok(Outcome::Broken(reply)),
                }
            }
            "CRAM-MD5" => response == format!("{user} {}", keyed_md5(&password)),
            "EXTERNAL" => {
                let proven = self.wire.has_client_certificate() || !options.ask_client_certificate;
                proven && (response.is_empty() || response == user)
            }
            "XOAUTH2" | "OAUTHBEARER" => {
                let bearer = format!("Bearer {}", options.token);
                let fields: Vec<&str> = response.split('\x01').collect();
                let named = match mechanism {
                    "XOAUTH2" => fields[0] == format!("user={user}"),
                    _ => ["n,,".to_owned(), format!("n,a={user},")].contains(&fields[0].to_owned()),
                };
                let right = named && fields.contains(&format!("auth={bearer}").as_str());
                if !right {
                    let text = r#"{"status":"invalid_token","schemes":"bearer"}"#;
                    // RFC 7628, section 3.2.3: the client answers the error, and then fails.
                    self.put(Reply::new(334, STANDARD.encode(text)))?;
                    return self.failure_after_line(mechanism).await;
                }
                right
            }
            _ => return Ok(Outcome::Broken(Reply::new(504, "5.5.4 Not implemented"))),
        };
        Ok(if right {
            Outcome::Success
        } else {
            Outcome::Failure
        })
    }

    async fn scram(
        &mut self,
        mechanism: &str,
        hash: scram::Hash,
        plus: bool,
        first: &str,
    ) -> Result<Outcome, Stop> {
        let bindings = scram::Bindings {
            exporter: self.wire.exporter(),
            server_end_point: self.site.end_point.clone(),
        };
        let options = &self.site.options;
        let credentials = (options.user.as_str(), options.password.as_str());
        let with_plus = format!("{}-PLUS", mechanism.trim_end_matches("-PLUS"));
        let offered = self.mechanisms().contains(&with_plus);
        let exchange = Exchange::start(hash, plus, offered, first, credentials, &bindings);
        let exchange = match exchange {
            Ok(exchange) => exchange,
            Err(reason) => return Ok(self.failure(reason)),
        };
        let Some(last) = self.challenge(mechanism, exchange.server_first()).await? else {
            return Ok(Outcome::Answered);
        };
        let verdict = match decode(&last) {
            Ok(last) => exchange.finish(&last),
            Err(reply) => return Ok(Outcome::Broken(reply)),
        };
        let server_last = match verdict {
            Ok(server_last) => server_last,
            Err(reason) => return Ok(self.failure(reason)),
        };
        Ok(match self.challenge(mechanism, &server_last).await? {
            Some(nothing) if nothing.is_empty() => Outcome::Success,
            Some(_) => self.failure("text after the server's last message"),
            None => Outcome::Answered,
        })
    }

    /// A failure whose reason is of interest to who reads the dialogue.
    fn failure(&self, reason: &str) -> Outcome {
        let text = format!("S: ({reason})");
        self.note(|entry| entry.dialogue.push(text));
        Outcome::Failure
    }

    /// Sends a challenge and reads the response; `None` when a rule has ended the exchange.
    async fn challenge(&mut self, mechanism: &str, text: &str) -> Result<Option<String>, Stop> {
        self.put(Reply::new(334, STANDARD.encode(text)))?;
        self.auth_line(mechanism).await
    }

    async fn failure_after_line(&mut self, mechanism: &str) -> Result<Outcome, Stop> {
        Ok(match self.auth_line(mechanism).await? {
            Some(_) => Outcome::Failure,
            None => Outcome::Answered,
        })
    }

    async fn auth_line(&mut self, mechanism: &str) -> Result<Option<String>, Stop> {
        let line = self.wire.line().await?.ok_or(Stop::Gone)?;
        self.note_line(&line);
        if !line.crlf || line.bytes.contains(&b'\r') {
            self.violation("bare CR or LF in an AUTH exchange");
        }
        self.check_group("an AUTH response", true).await;
        if let Some(rule) = self.consult(Stage::AuthResponse, mechanism).await? {
            let code = self
                .deliver(Some(rule), Reply::new(535, "5.7.8 No"))
                .await?;
            if code == 235 {
                self.user = Some(self.site.options.user.clone());
            }
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line.bytes).into_owned()))
    }
}

/// Always the same: nobody replays anything here.
const CRAM_CHALLENGE: &str = "<1896.697170952@localhost>";

/// The answer to the challenge (RFC 2195), in hexadecimal.
fn keyed_md5(password: &str) -> String {
    let mut keyed = Hmac::<Md5>::new_from_slice(password.as_bytes()).unwrap();
    keyed.update(CRAM_CHALLENGE.as_bytes());
    let digest = keyed.finalize().into_bytes();
    digest.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn decode(response: &str) -> Result<String, Reply> {
    if response == "*" {
        return Err(Reply::with_status(501, "5.7.0", "Authentication cancelled"));
    }
    let bytes = STANDARD.decode(response);
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| Reply::with_status(501, "5.5.2", "Cannot decode response"))
}
