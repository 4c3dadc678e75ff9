//! Asks Lisp about TLS: whether a certificate is to be trusted all the same, and where
//! the user's own certificate is.

use std::sync::Arc;

use super::events::{Event, Events};
use super::requests::{Answer, Requests};
use crate::credentials::{SingleFlight, Unavailable};
use crate::mail::{Endpoint, Server};
use crate::net::tls::{Fingerprint, IdentityFiles, Rejected};

/// What is asked: once at a time, whoever wants to know.
type Question = (Endpoint, Fingerprint);

/// Whether a certificate is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Trusted,
    /// It is not, perhaps for this reason.
    Refused(Option<String>),
}

/// Questions about TLS, and who waits for their answers.
pub struct Trust {
    events: Arc<Events>,
    requests: Arc<Requests>,
    questions: SingleFlight<Question, Verdict>,
}

impl Trust {
    /// One that asks Lisp through `events`.
    pub fn new(events: Arc<Events>, requests: Arc<Requests>) -> Self {
        Trust {
            events,
            requests,
            questions: SingleFlight::default(),
        }
    }

    /// Asks whether the certificate of `server` is to be trusted.
    pub async fn ask(&self, server: &Server, rejected: &Rejected) -> Verdict {
        let question = (Endpoint::of(server), rejected.certificate.key);
        let ask = self.ask_lisp(server, rejected);
        self.questions.ask(&question, |_| false, ask).await
    }

    async fn ask_lisp(&self, server: &Server, rejected: &Rejected) -> Verdict {
        let (request, answer) = self.requests.open();
        self.events.push(Event::Certificate {
            request,
            host: server.host.clone(),
            port: server.port.to_string(),
            rejected: Box::new(rejected.clone()),
        });
        match answer.await {
            Ok(Answer::Trusted) => Verdict::Trusted,
            Ok(Answer::Error(error) | Answer::Later(error)) => Verdict::Refused(Some(error)),
            _ => Verdict::Refused(None),
        }
    }

    /// Asks for the client certificate for `server`, which wants one.
    pub async fn find_identity(
        &self,
        server: &Server,
    ) -> Result<Option<IdentityFiles>, Unavailable> {
        let (request, answer) = self.requests.open();
        self.events.push(Event::ClientCertificate {
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
