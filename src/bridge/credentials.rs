//! Finding credentials for a server: in the user's `auth-sources`, in their order;
//! else from the user.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::events::{Event, Events};
use super::requests::{Account, Answer, Requests, account};
use crate::credentials::netrc::is_for_token;
use crate::credentials::oauth2::{Tokens, is_sendable};
use crate::credentials::{
    self, AuthSource, Credentials, CredentialsOptions, SingleFlight, Unavailable,
};
use crate::mail::Server;
use crate::net::NetOptions;

/// What the user is asked for is remembered for the process's life, as auth-source
/// does; what files and Lisp's backends hold is looked up anew for each session.
pub struct CredentialLookup {
    events: Arc<Events>,
    requests: Arc<Requests>,
    given: RefCell<HashMap<Account, Credentials>>,
    questions: SingleFlight<Account, Result<Option<Given>, String>>,
    tokens: Tokens,
}

/// Credentials the user gave, and the request to report their success under.
#[derive(Clone, Debug)]
pub struct Given {
    /// What was given.
    pub credentials: Credentials,
    request: u64,
}

impl CredentialLookup {
    /// One that asks Lisp through `events`.
    pub fn new(events: Arc<Events>, requests: Arc<Requests>) -> Self {
        CredentialLookup {
            events,
            requests,
            given: RefCell::default(),
            questions: SingleFlight::default(),
            tokens: Tokens::default(),
        }
    }

    /// What is stored for `server`, if anything; of an entry with an OAuth 2 grant, an
    /// access token.
    pub async fn find(
        &self,
        server: &Server,
        options: &CredentialsOptions,
        net: &NetOptions,
    ) -> Result<Option<Credentials>, Unavailable> {
        let given = self.given.borrow().get(&account(server)).cloned();
        if given.is_some() {
            return Ok(given);
        }
        let query = credentials::Query {
            host: server.host.clone(),
            port: server.port.to_string(),
            user: server.user.clone(),
        };
        if options.lisp_has_tokens
            && let Some(found) = self.token_of_lisp(server).await?
        {
            return Ok(Some(found));
        }
        for source in &options.auth_sources {
            let found = match source {
                AuthSource::RestrictedNetrc(_, only) if !only.admits(&query) => None,
                AuthSource::Netrc(path) | AuthSource::RestrictedNetrc(path, _) => {
                    self.search_file(path.clone(), query.clone(), options)
                        .await?
                }
                AuthSource::Lisp(number) => {
                    match self.ask_lisp(server, Some(*number), None).await {
                        (_, Answer::Credentials(credentials)) => Some(credentials),
                        (_, Answer::Error(error)) => return Err(error.into()),
                        (_, Answer::Later(why)) => return Err(Unavailable::for_now(why)),
                        _ => None,
                    }
                }
            };
            if let Some(found) = found {
                return Ok(Some(self.with_token(found, server, net).await?));
            }
        }
        Ok(None)
    }

    async fn token_of_lisp(&self, server: &Server) -> Result<Option<Credentials>, Unavailable> {
        let (request, answer) = self.requests.open();
        self.events.push(Event::Token {
            request,
            host: server.host.clone(),
            user: server.user.clone(),
        });
        match answer.await.unwrap_or(Answer::Nothing) {
            Answer::Error(error) => Err(error.into()),
            Answer::Later(why) => Err(Unavailable::for_now(why)),
            Answer::Credentials(found) => {
                let secret = found.secret.unwrap_or_default();
                if !is_sendable(&secret) {
                    let what = format!("what was given for {} is no access token", server.host);
                    return Err(what.into());
                }
                Ok(Some(Credentials {
                    secret: Some(secret),
                    is_token: true,
                    ..found
                }))
            }
            _ => Ok(None),
        }
    }

    /// `found` with an access token for a secret, if there is one to be had for it.
    async fn with_token(
        &self,
        mut found: Credentials,
        server: &Server,
        net: &NetOptions,
    ) -> Result<Credentials, Unavailable> {
        let is_wanted = found.mechanism.as_deref().is_none_or(is_for_token);
        let Some(grant) = found.grant.as_ref().filter(|_| is_wanted) else {
            return Ok(found);
        };
        if found.secret.is_some() && !grant.is_complete() {
            // Somebody else makes a token of this entry.
            return Ok(found);
        }
        found.user = found.user.or_else(|| server.user.clone());
        if found.user.is_none() {
            let what = "the entry with token-url names no user, nor does smtpmail-smtp-user";
            return Err(what.to_owned().into());
        }
        let fresh = self.tokens.get(grant, net).await?;
        if fresh.is_replaced {
            self.events.push(Event::RefreshTokenReplaced {
                host: server.host.clone(),
                user: found.user.clone(),
            });
        }
        found.secret = Some(fresh.access);
        found.is_token = true;
        Ok(found)
    }

    /// Sees to it that the next token is another than this one, which was refused.
    pub async fn renew(&self, refused: &Credentials) {
        if let (Some(grant), Some(secret)) = (&refused.grant, &refused.secret) {
            self.tokens.forget(grant, secret).await;
        }
    }

    /// Asks the user; `rejected` is what the server said to the last ones, and `tried`
    /// which these were. `None` if the user has none to give. `on_answer` hears of what is
    /// given, once, however many sessions get it.
    pub async fn ask(
        &self,
        server: &Server,
        rejected: Option<String>,
        tried: Option<&Credentials>,
        on_answer: impl FnOnce(&Credentials),
    ) -> Result<Option<Given>, String> {
        let ask = async {
            match self.ask_lisp(server, None, rejected).await {
                (_, Answer::Credentials(Credentials { user: None, .. })) => {
                    Err("no user name was given".to_owned())
                }
                (request, Answer::Credentials(credentials)) if credentials.secret.is_some() => {
                    on_answer(&credentials);
                    Ok(Some(Given {
                        credentials,
                        request,
                    }))
                }
                (_, Answer::Error(error) | Answer::Later(error)) => Err(error),
                _ => Ok(None),
            }
        };
        // Given to another session while we tried the one before.
        let is_other = |answer: &Result<Option<Given>, _>| match answer {
            Ok(Some(given)) => Some(&given.credentials) != tried,
            _ => false,
        };
        self.questions.ask(&account(server), is_other, ask).await
    }

    /// Remembers credentials the user gave, which have worked.
    pub fn accept(&self, server: &Server, given: Given) {
        let mut accepted = self.given.borrow_mut();
        let before = accepted.insert(account(server), given.credentials.clone());
        // Told once, however many sessions use them.
        if before.as_ref() != Some(&given.credentials) {
            self.events.push(Event::CredentialsAccepted {
                request: given.request,
            });
        }
    }

    /// Forgets what the server refused.
    pub fn reject(&self, server: &Server, refused: &Credentials) {
        let account = account(server);
        let mut given = self.given.borrow_mut();
        if given.get(&account) == Some(refused) {
            given.remove(&account);
        }
        let is_other = |answer: &Result<Option<Given>, _>| match answer {
            Ok(Some(given)) => given.credentials != *refused,
            _ => true,
        };
        self.questions.forget(&account, is_other);
        credentials::forget();
    }

    async fn search_file(
        &self,
        path: PathBuf,
        query: credentials::Query,
        options: &CredentialsOptions,
    ) -> Result<Option<Credentials>, String> {
        let asker = options
            .loopback_pinentry
            .then(|| (Arc::clone(&self.events), Arc::clone(&self.requests)));
        let search = tokio::task::spawn_blocking(move || match asker {
            None => credentials::search_file(&path, &query, None),
            Some((events, requests)) => {
                let mut ask = |hint: &str| {
                    let (request, answer) = requests.open();
                    events.push(Event::Passphrase {
                        request,
                        hint: hint.to_owned(),
                    });
                    let ended = |_| "Emacs is being left".to_owned();
                    answer.blocking_recv().map_err(ended)?.into_secret()
                };
                credentials::search_file(&path, &query, Some(&mut ask))
            }
        });
        match search.await {
            Ok(found) => found.map_err(|error| error.to_string()),
            Err(panic) => Err(format!("internal error while reading credentials: {panic}")),
        }
    }

    async fn ask_lisp(
        &self,
        server: &Server,
        source: Option<i64>,
        rejected: Option<String>,
    ) -> (u64, Answer) {
        let (request, answer) = self.requests.open();
        if source.is_none() {
            self.requests.note_asking(request, server);
        }
        let (host, port, user) = account(server);
        self.events.push(Event::Credentials {
            request,
            host,
            port,
            user,
            source,
            rejected,
        });
        let answer = answer.await.unwrap_or(Answer::Nothing);
        (request, answer)
    }
}
