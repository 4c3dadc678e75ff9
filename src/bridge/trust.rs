//! Asks Lisp about TLS: whether a certificate is to be trusted all the same, and where
//! the user's own certificate is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::events::{Event, Outbox};
use super::requests::{Answer, Requests};
use crate::credentials::Unavailable;
use crate::mail::{Endpoint, Server};
use crate::net::tls::{Fingerprint, IdentityFiles, Rejected};

/// What is asked: once at a time, whoever wants to know.
type Question = (Endpoint, Fingerprint);

/// What the answer was; nothing so far.
type Verdict = Option<Result<(), String>>;

/// Questions about TLS, and who waits for their answers.
pub struct Trust {
    outbox: Arc<Outbox>,
    requests: Arc<Requests>,
    open: RefCell<HashMap<Question, watch::Receiver<Verdict>>>,
}

impl Trust {
    /// One that asks Lisp through `outbox`.
    pub fn new(outbox: Arc<Outbox>, requests: Arc<Requests>) -> Self {
        Trust {
            outbox,
            requests,
            open: RefCell::default(),
        }
    }

    /// Asks whether the certificate of `server` is to be trusted. An error says why not,
    /// or is empty if there is no more to say than that it isn't.
    pub async fn ask(&self, server: &Server, rejected: &Rejected) -> Result<(), String> {
        let question = (Endpoint::of(server), rejected.certificate.key);
        let asked_already = self.open.borrow().get(&question).cloned();
        if let Some(mut verdict) = asked_already {
            let verdict = verdict.wait_for(Option::is_some).await;
            return match verdict.as_deref() {
                Ok(Some(verdict)) => verdict.clone(),
                _ => Err(String::new()),
            };
        }
        let (sender, receiver) = watch::channel(None);
        self.open.borrow_mut().insert(question.clone(), receiver);
        let verdict = self.ask_lisp(server, rejected).await;
        self.open.borrow_mut().remove(&question);
        // Without others who wait this fails.
        let _ = sender.send(Some(verdict.clone()));
        verdict
    }

    async fn ask_lisp(&self, server: &Server, rejected: &Rejected) -> Result<(), String> {
        let (request, answer) = self.requests.open();
        self.outbox.push(Event::Certificate {
            request,
            host: server.host.clone(),
            port: server.port.to_string(),
            rejected: Box::new(rejected.clone()),
        });
        match answer.await {
            Ok(Answer::Trusted) => Ok(()),
            Ok(Answer::Error(error) | Answer::Later(error)) => Err(error),
            _ => Err(String::new()),
        }
    }

    /// Asks for the client certificate for `server`, which wants one.
    pub async fn find_identity(
        &self,
        server: &Server,
    ) -> Result<Option<IdentityFiles>, Unavailable> {
        let (request, answer) = self.requests.open();
        self.outbox.push(Event::ClientCertificate {
            request,
            host: server.host.clone(),
            port: server.port.to_string(),
        });
        match answer.await {
            Ok(Answer::Identity(files)) => Ok(Some(files)),
            Ok(Answer::Error(error)) => Err(error.into()),
            Ok(Answer::Later(why)) => Err(Unavailable::for_now(why)),
            _ => Ok(None),
        }
    }
}
