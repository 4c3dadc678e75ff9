//! Finding credentials for a server: in the user's `auth-sources`, in their order;
//! else from the user.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::events::{Event, Outbox};
use super::requests::{Account, Answer, Requests, account};
use crate::credentials::netrc::is_for_token;
use crate::credentials::oauth2::{Tokens, is_sendable};
use crate::credentials::{self, AuthSource, Credentials, CredentialsOptions, Unavailable};
use crate::mail::Server;
use crate::net::NetOptions;

/// What the user is asked for is remembered for the process's life, as auth-source
/// does; what files and Lisp's backends hold is looked up anew for each session.
pub struct Keyring {
    outbox: Arc<Outbox>,
    requests: Arc<Requests>,
    given: RefCell<HashMap<Account, Credentials>>,
    questions: Questions,
    tokens: Tokens,
}

/// Credentials the user gave, and the request to report their success under.
#[derive(Clone, Debug)]
pub struct Given {
    /// What was given.
    pub credentials: Credentials,
    request: u64,
}

impl Keyring {
    /// A keyring that asks Lisp through `outbox`.
    pub fn new(outbox: Arc<Outbox>, requests: Arc<Requests>) -> Self {
        Keyring {
            outbox,
            requests,
            given: RefCell::default(),
            questions: Questions::default(),
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
        self.outbox.push(Event::Token {
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
            self.outbox.push(Event::RefreshTokenReplaced {
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
        self.questions.ask(account(server), tried, ask).await
    }

    /// Remembers credentials the user gave, which have worked.
    pub fn accept(&self, server: &Server, given: Given) {
        self.outbox.push(Event::CredentialsAccepted {
            request: given.request,
        });
        self.given
            .borrow_mut()
            .insert(account(server), given.credentials);
    }

    /// Forgets what the server refused.
    pub fn reject(&self, server: &Server, refused: &Credentials) {
        let account = account(server);
        let mut given = self.given.borrow_mut();
        if given.get(&account) == Some(refused) {
            given.remove(&account);
        }
        self.questions.forget(&account, refused);
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
            .then(|| (Arc::clone(&self.outbox), Arc::clone(&self.requests)));
        let search = tokio::task::spawn_blocking(move || match asker {
            None => credentials::search_file(&path, &query, None),
            Some((outbox, requests)) => {
                let mut ask = |hint: &str| {
                    let (request, answer) = requests.open();
                    outbox.push(Event::Passphrase {
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
        self.outbox.push(Event::Credentials {
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

/// What became of a question; an error is a readable text.
type Outcome = Result<Option<Given>, String>;

/// One question to the user at a time for each account, however many sessions want it
/// answered; and the last answer.
#[derive(Default)]
struct Questions(RefCell<HashMap<Account, Rc<Question>>>);

#[derive(Default)]
struct Question {
    /// Held while the user is asked.
    turn: Mutex<()>,
    asked: RefCell<Asked>,
}

#[derive(Default)]
struct Asked {
    times: u64,
    last: Option<Outcome>,
}

impl Questions {
    /// What `ask` finds out, or another session's asking has meanwhile. `tried` are the
    /// credentials that were refused.
    async fn ask(
        &self,
        account: Account,
        tried: Option<&Credentials>,
        ask: impl Future<Output = Outcome>,
    ) -> Outcome {
        let question = Rc::clone(self.0.borrow_mut().entry(account).or_default());
        let times = question.asked.borrow().times;
        let _turn = question.turn.lock().await;
        match &question.asked.borrow().last {
            // Given to another session while we tried the one before.
            Some(Ok(Some(given))) if Some(&given.credentials) != tried => {
                return Ok(Some(given.clone()));
            }
            // What the other session was told goes for us as well.
            Some(answer) if question.asked.borrow().times != times => return answer.clone(),
            _ => {}
        }
        let answer = ask.await;
        let mut asked = question.asked.borrow_mut();
        asked.times += 1;
        asked.last = Some(answer.clone());
        answer
    }

    /// Forgets an answer that was refused.
    fn forget(&self, account: &Account, refused: &Credentials) {
        if let Some(question) = self.0.borrow().get(account) {
            let mut asked = question.asked.borrow_mut();
            if matches!(&asked.last, Some(Ok(Some(given))) if given.credentials == *refused) {
                asked.last = None;
            }
        }
    }
}
