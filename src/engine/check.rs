//! Walks to a server as far as sending mail would go, and tells each step in plain
//! words. Nothing is sent.

use std::rc::Rc;

use super::authentication::{credentials_trouble, no_auth};
use super::context::Context;
use super::login;
use crate::bridge::Event;
use crate::mail::Server;
use crate::smtp::{Stage, Trouble};

/// Checks `server`; each step is an event of `request`, the last one marked.
pub async fn check(context: Rc<Context>, server: Server, request: u64) {
    let tell = |step: &str, text: String, is_good, is_last| {
        context.events.push(Event::Check {
            request,
            step: step.to_owned(),
            text,
            is_good,
            is_last,
        });
    };
    let good = |step: &str, text: String| tell(step, text, true, false);
    match walk(&context, &server, &good).await {
        Ok(verdict) => tell("done", verdict.to_owned(), true, true),
        Err(trouble) => tell(&trouble.stage.to_string(), trouble.to_string(), false, true),
    }
}

async fn walk(
    context: &Context,
    server: &Server,
    good: &impl Fn(&str, String),
) -> Result<&'static str, Trouble> {
    let settings = context.settings();
    let mut observe = |stage: Stage, text: String| good(&stage.to_string(), text);
    let opened = login::open(context, server, &settings, &mut observe).await;
    let mut session = opened.map_err(|error| error.trouble)?;
    let mut verdict = "mail can be sent";
    if session.offers_auth() {
        let lookup = &context.credentials;
        let found = lookup
            .find(server, &settings.credentials, &settings.net)
            .await;
        let found = found.map_err(|why| credentials_trouble(server, why))?;
        match found.filter(|found| found.secret.is_some()) {
            Some(credentials) => {
                let logins = &context.logins;
                // It is the user who wants to know.
                logins.try_again(server, None);
                let options = &settings.session;
                let login = logins.log_in(&mut session, server, options, &credentials);
                let login = login.await;
                if login.is_err() {
                    context.credentials.renew(&credentials).await;
                }
                let user = credentials.user.unwrap_or_default();
                match login? {
                    Some(mechanism) => {
                        good("AUTH", format!("logged in as {user} with {mechanism}"));
                    }
                    None if server.require_auth => return Err(no_auth(server)),
                    None => good("AUTH", "offered, but the server knows none".to_owned()),
                }
            }
            None => {
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
