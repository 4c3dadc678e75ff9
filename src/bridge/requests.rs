//! Questions to Lisp, and its answers: an event asks, `rs-smtp--answer` answers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::credentials::Credentials;
use crate::mail::Server;
use crate::net::tls::IdentityFiles;

/// What Lisp answers.
#[derive(Debug)]
pub enum Answer {
    /// There is nothing.
    Nothing,
    /// Credentials found, or given by the user; of a passphrase only the secret.
    Credentials(Credentials),
    /// The certificate asked about is trusted.
    Trusted,
    /// The client certificate asked for.
    Identity(IdentityFiles),
    /// Why there is no answer.
    Error(String),
    /// Why there is no answer now; it is worth asking again by itself.
    Later(String),
}

/// The questions not answered yet.
#[derive(Debug, Default)]
pub struct Requests(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    /// For whose password the user is asked, by the question's number.
    asking: HashMap<u64, Account>,
}

/// What credentials are looked up by: host, port, user.
pub type Account = (String, String, Option<String>);

/// What credentials for `server` are looked up by.
pub fn account(server: &Server) -> Account {
    (
        server.host.clone(),
        server.port.to_string(),
        server.user.clone(),
    )
}

impl Requests {
    /// A new question's number, and where its answer will come.
    pub fn open(&self) -> (u64, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        let number = self.number();
        let mut open = self.lock();
        open.waiting.insert(number, sender);
        (number, receiver)
    }

    /// A number not given before.
    pub fn number(&self) -> u64 {
        let mut open = self.lock();
        open.last += 1;
        open.last
    }

    /// Notes that the question `number` is to the user, for the password of `server`.
    pub fn note_asking(&self, number: u64, server: &Server) {
        self.lock().asking.insert(number, account(server));
    }

    /// Whether the user is being asked for the password of `server`.
    pub fn is_asking_for(&self, server: &Server) -> bool {
        let open = self.lock();
        !open.asking.is_empty() && {
            let account = account(server);
            open.asking.values().any(|asked| *asked == account)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing is left half-done under it by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a question; false if nobody waits for it (any more).
    pub fn answer(&self, number: u64, answer: Answer) -> bool {
        let mut open = self.lock();
        open.asking.remove(&number);
        match open.waiting.remove(&number) {
            Some(sender) => sender.send(answer).is_ok(),
            None => false,
        }
    }
}

impl Answer {
    /// The secret of an answer that gives one.
    pub fn into_secret(self) -> Result<Zeroizing<String>, String> {
        match self {
            Answer::Credentials(Credentials {
                secret: Some(secret),
                ..
            }) => Ok(secret),
            Answer::Error(error) | Answer::Later(error) => Err(error),
            _ => Err("no passphrase was given".to_owned()),
        }
    }
}
