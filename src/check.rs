//! Walks to a server as far as sending mail would go, and tells each step in plain
//! words. Nothing is sent.

use std::rc::Rc;
use std::sync::Arc;

use crate::bridge::Event;
use crate::credentials::Credentials;
use crate::mail::Server;
use crate::shared::Shared;
use crate::smtp::{Session, Stage, Trouble};

/// Checks `server`; each step is an event of `request`, the last one marked.
pub async fn check(shared: Rc<Shared>, server: Server, request: u64) {
    let tell = |step: &str, text: String, is_good, is_last| {
        shared.outbox.push(Event::Check {
            request,
            step: step.to_owned(),
            text,
            is_good,
            is_last,
        });
    };
    let good = |step: &str, text: String| tell(step, text, true, false);
    match walk(&shared, &server, &good).await {
        Ok(verdict) => tell("done", verdict.to_owned(), true, true),
        Err(trouble) => tell(&trouble.stage.to_string(), trouble.to_string(), false, true),
    }
}

async fn walk(
    shared: &Shared,
    server: &Server,
    good: &impl Fn(&str, String),
) -> Result<&'static str, Trouble> {
    let settings = Arc::clone(&shared.settings.borrow());
    let mut observe = |stage: Stage, text: String| good(&stage.to_string(), text);
    let mut session = loop {
        let tls = shared.tls_for(server)?;
        let trace = shared.trace(&server.host);
        let opened = Session::open(server, &settings.net, &tls, trace, &mut observe).await;
        if !shared.finds_identity(server, &tls).await? {
            break opened.map_err(|error| error.trouble)?;
        }
    };
    let mut verdict = "mail can be sent";
    if session.offers_auth() {
        let keyring = &shared.keyring;
        let found = keyring
            .find(server, &settings.credentials, &settings.net)
            .await
            .map_err(|why| crate::lane::credentials_trouble(server, why))?;
        match found {
            Some(
                credentials @ Credentials {
                    secret: Some(_), ..
                },
            ) => {
                // It is the user who wants to know.
                shared.logins.try_again(server, None);
                let login = shared
                    .logins
                    .log_in(&mut session, server, &settings.session, &credentials)
                    .await;
                if login.is_err() {
                    keyring.renew(&credentials).await;
                }
                let mechanism = login?;
                let user = credentials.user.unwrap_or_default();
                match mechanism {
                    Some(mechanism) => {
                        good("AUTH", format!("logged in as {user} with {mechanism}"));
                    }
                    None if server.require_auth => return Err(crate::worker::no_auth(server)),
                    None => good("AUTH", "offered, but the server knows none".to_owned()),
                }
            }
            _ => {
                good("AUTH", "offered; no password is stored".to_owned());
                verdict = "the server answers; no password was tried, so nobody knows whether it \
                           takes mail";
            }
        }
    } else {
        good("AUTH", "not offered".to_owned());
    }
    session.quit().await;
    Ok(verdict)
}
