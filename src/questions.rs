//! One question to the user at a time for each account, however many sessions want it
//! answered.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Mutex;

use crate::bridge::Account;
use crate::credentials::Credentials;
use crate::keyring::Given;

/// What became of a question; an error is a readable text.
type Answer = Result<Option<Given>, String>;

/// The last answer for each account.
#[derive(Default)]
pub struct Questions(RefCell<HashMap<Account, Rc<Question>>>);

#[derive(Default)]
struct Question {
    /// Held while the user is asked.
    turn: Mutex<()>,
    asked: RefCell<Asked>,
}

#[derive(Default)]
struct Asked {
    times: u64,
    last: Option<Answer>,
}

impl Questions {
    /// What `ask` finds out, or another session's asking has meanwhile. `tried` are the
    /// credentials that were refused.
    pub async fn ask(
        &self,
        account: Account,
        tried: Option<&Credentials>,
        ask: impl Future<Output = Answer>,
    ) -> Answer {
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
    pub fn forget(&self, account: &Account, refused: &Credentials) {
        if let Some(question) = self.0.borrow().get(account) {
            let mut asked = question.asked.borrow_mut();
            if matches!(&asked.last, Some(Ok(Some(given))) if given.credentials == *refused) {
                asked.last = None;
            }
        }
    }
}
