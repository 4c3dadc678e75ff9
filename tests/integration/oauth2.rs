//! OAuth 2: tokens from a token endpoint and from Lisp, and what goes wrong with them.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::common::{Client, MESSAGE, Seen, settings_for, target};
use rs_smtpmail::bridge::{Answer, Event, Kind};
use rs_smtpmail::credentials::{AuthSource, Credentials};
use rs_smtpmail::engine::Settings;
use rs_smtpmail::mail::StreamType;
use rs_smtpmail::spool::Need;
use server::{Authority, Options, Rule, Server, SocksProxy, Stage, Tls};

/// What no output may show.
const SECRETS: [&str; 4] = [
    "cl1ent-s&cret",
    "cl1ent-s%26cret",
    "first-refresh",
    "stale-acc3ss",
];

/// A token endpoint on a thread of its own, until dropped.
struct Endpoint {
    url: String,
    port: u16,
    forms: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Gives these answers in turn, each to one request; over TLS with an authority.
    fn start(answers: &[String], authority: Option<&Authority>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = authority.map(|one| Arc::new(one.server_config(&Options::default()).0));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let forms = Arc::<Mutex<Vec<String>>>::default();
        let is_over = Arc::<AtomicBool>::default();
        let (seen, stop) = (Arc::clone(&forms), Arc::clone(&is_over));
        let mut answers: VecDeque<String> = answers.iter().cloned().collect();
        let thread = std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let answer = answers.pop_front();
                match tls.clone() {
                    None => serve(stream.try_clone().unwrap(), answer.as_deref(), &seen),
                    Some(tls) => {
                        let session = rustls::ServerConnection::new(tls).unwrap();
                        let line = rustls::StreamOwned::new(session, stream.try_clone().unwrap());
                        serve(line, answer.as_deref(), &seen);
                    }
                }
                if answer.is_none() {
                    unanswered.push(stream);
                }
            }
        });
        Endpoint {
            url: format!("{scheme}://127.0.0.1:{port}/token?tenant=x"),
            port,
            forms,
            is_over,
            thread: Some(thread),
        }
    }

    fn plain(answers: &[String]) -> Self {
        Endpoint::start(answers, None)
    }

    fn forms(&self) -> Vec<String> {
        self.forms.lock().unwrap().clone()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().unwrap().join();
    }
}

/// Reads one request, which must be as RFC 6749 says; without an answer, says nothing.
fn serve(line: impl Read + Write, answer: Option<&str>, forms: &Mutex<Vec<String>>) {
    let mut line = BufReader::new(line);
    let mut header = String::new();
    while !header.ends_with("\r\n\r\n") {
        // A client that trusts us not goes away.
        if !matches!(line.read_line(&mut header), Ok(1..)) {
            return;
        }
    }
    let header = header.to_lowercase();
    assert!(
        header.starts_with("post /token?tenant=x http/1.1\r\n"),
        "{header}"
    );
    assert!(header.contains("content-type: application/x-www-form-urlencoded\r\n"));
    let length = header.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut form = vec![0; length];
    line.read_exact(&mut form).unwrap();
    forms.lock().unwrap().push(String::from_utf8(form).unwrap());
    if let Some(answer) = answer {
        let _ = line.get_mut().write_all(answer.as_bytes());
        let _ = line.get_mut().flush();
    }
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A token that is good for so many seconds.
fn token(token: &str, seconds: u32) -> String {
    let body = format!(
        r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{seconds},"scope":"x"}}"#
    );
    http("200 OK", &body)
}

fn smtp(mechanisms: &[&str]) -> Server {
    let options = Options::new(Tls::StartTls).mechanisms(mechanisms);
    Server::start(options.require_auth())
}

/// Settings whose authinfo has a grant for `url`; sessions end with each message.
fn settings(server: &Server, url: &str) -> Settings {
    let authinfo = server.directory().join("authinfo-oauth2");
    let line = format!(
        "machine 127.0.0.1 login user client-id client client-secret \"cl1ent-s&cret\" \
         refresh-token first-refresh token-url {url} scope \"a b\"\n"
    );
    std::fs::write(&authinfo, line).unwrap();
    let mut settings = settings_for(server);
    settings.credentials.auth_sources = vec![AuthSource::Netrc(authinfo)];
    settings.idle_timeout = Duration::ZERO;
    settings.trace = false;
    settings
}

fn send(client: &mut Client, server: &Server) -> Seen {
    let to = target(server.port(), StreamType::Starttls);
    let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
    wait_for_end(server);
    seen
}

/// Waits until the session has ended, so that the next message must log in anew.
fn wait_for_end(server: &Server) {
    server.wait_for("the connection's end", |log| {
        log.connections.iter().all(|one| !one.open)
    });
}

fn assert_no_secret(seen: &Seen) {
    let shown = format!("{seen:?}");
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn a_token_is_fetched_and_logs_in() {
    for mechanism in ["XOAUTH2", "OAUTHBEARER"] {
        for has_tls in [true, false] {
            let server = smtp(&["PLAIN", mechanism]);
            let authority = has_tls.then(|| &**server.authority());
            let endpoint = Endpoint::start(&[token("token", 3600)], authority);
            let mut client = Client::new(settings(&server, &endpoint.url));
            let seen = send(&mut client, &server);
            assert_eq!(seen.kind, Kind::Sent, "{mechanism}: {seen:?}");
            let login = &server.connections()[0].logins[0];
            assert_eq!(login.mechanism, mechanism);
            assert_eq!(
                endpoint.forms(),
                [
                    "grant_type=refresh_token&client_id=client&refresh_token=first-refresh\
                  &client_secret=cl1ent-s%26cret&scope=a+b"
                ]
            );
        }
    }
}

#[test]
fn a_token_serves_until_it_ends() {
    let server = smtp(&["XOAUTH2"]);
    let endpoint = Endpoint::plain(&[token("token", 3600)]);
    let mut client = Client::new(settings(&server, &endpoint.url));
    for _ in 0..3 {
        assert_eq!(send(&mut client, &server).kind, Kind::Sent);
    }
    assert_eq!(server.connections().len(), 3);
    assert_eq!(endpoint.forms().len(), 1);

    let endpoint = Endpoint::plain(&[token("token", 59), token("token", 3600)]);
    let mut client = Client::new(settings(&server, &endpoint.url));
    for _ in 0..3 {
        assert_eq!(send(&mut client, &server).kind, Kind::Sent);
    }
    assert_eq!(endpoint.forms().len(), 2);
}

#[test]
fn many_sessions_fetch_one_token() {
    let server = smtp(&["XOAUTH2"]);
    let endpoint = Endpoint::plain(&[token("token", 3600)]);
    let settings = settings(&server, &endpoint.url);
    let mut client = Client::new(Settings {
        max_connections: 4,
        ..settings
    });
    let to = target(server.port(), StreamType::Starttls);
    for _ in 0..20 {
        client.send(&to, &["a@b"], MESSAGE);
    }
    for _ in 0..20 {
        assert_eq!(client.outcome().kind, Kind::Sent);
    }
    assert_eq!(endpoint.forms().len(), 1);
}

#[test]
fn a_refused_token_is_renewed_once() {
    // Refused by an error that comes as a challenge, as the server does by itself, or by a
    // plain 535.
    let plain = Rule::at(Stage::Auth).once().reply(535, "5.7.8 No");
    for rule in [None, Some(plain)] {
        for mechanism in ["XOAUTH2", "OAUTHBEARER"] {
            let server = smtp(&[mechanism]);
            server.set_rules(rule.iter().cloned().collect());
            let answers = [token("stale-acc3ss", 3600), token("token", 3600)];
            let endpoint = Endpoint::plain(&answers);
            let mut client = Client::new(settings(&server, &endpoint.url));
            let seen = send(&mut client, &server);
            assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
            assert_eq!(endpoint.forms().len(), 2);
            assert_eq!(server.connections().len(), 2);
            assert_eq!(server.violations(), []);
        }
    }
}

#[test]
fn a_new_token_that_is_refused_as_well_is_the_users_business() {
    let server = smtp(&["XOAUTH2"]);
    let good = token("token", 3600);
    let answers = [
        token("stale-acc3ss", 3600),
        token("stale-acc3ss-2", 3600),
        good,
    ];
    let endpoint = Endpoint::plain(&answers);
    let mut client = Client::new(settings(&server, &endpoint.url));
    let seen = send(&mut client, &server);
    assert_eq!(seen.kind, Kind::NeedsUser(Need::Auth), "{seen:?}");
    for words in ["access token, a new one as well", "535"] {
        assert!(seen.error.contains(words), "{}", seen.error);
    }
    assert_no_secret(&seen);
    assert_eq!(endpoint.forms().len(), 2);
    // And is not kept.
    assert_eq!(send(&mut client, &server).kind, Kind::Sent);
}

#[test]
fn a_new_refresh_token_is_used_and_told_once() {
    let server = smtp(&["XOAUTH2"]);
    let rotated = |number: u32| {
        let body = format!(
            r#"{{"access_token":"token","expires_in":1,"refresh_token":"refresh-{number}"}}"#
        );
        http("200 OK", &body)
    };
    let endpoint = Endpoint::plain(&[rotated(2), rotated(3), rotated(4)]);
    let mut client = Client::new(settings(&server, &endpoint.url));
    let to = target(server.port(), StreamType::Starttls);
    client.send(&to, &["a@b"], MESSAGE);
    match client.next_event() {
        Event::RefreshTokenReplaced { host, user } => {
            assert_eq!(
                (host.as_str(), user.as_deref()),
                ("127.0.0.1", Some("user"))
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.outcome().kind, Kind::Sent);
    for _ in 0..2 {
        assert_eq!(send(&mut client, &server).kind, Kind::Sent);
    }
    for (form, used) in endpoint
        .forms()
        .iter()
        .zip(["first-refresh", "refresh-2", "refresh-3"])
    {
        assert!(form.contains(&format!("refresh_token={used}&")), "{form}");
    }
}

#[test]
fn each_trouble_has_its_words() {
    let lasting = Kind::NeedsUser(Need::Auth);
    let json = |status: &str, code: &str| {
        let body = format!(r#"{{"error":"{code}","error_description":"said first-refresh"}}"#);
        http(status, &body)
    };
    let endless = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}",
        "x".repeat(1_000_000)
    );
    for (answer, kind, words) in [
        (
            json("400 Bad Request", "invalid_grant"),
            lasting,
            "invalid_grant: the refresh token was revoked or has expired: authorise anew (said …)",
        ),
        (
            json("401 Unauthorized", "invalid_client"),
            lasting,
            "check client-id and client-secret",
        ),
        (
            json("400 Bad Request", "slow_down"),
            Kind::Deferred,
            "not able to now",
        ),
        (
            http("503 Service Unavailable", "first-refresh"),
            Kind::Deferred,
            "HTTP 503 Service Unavailable",
        ),
        (
            http("302 Found", ""),
            lasting,
            "HTTP 302 Found; is token-url right?",
        ),
        (http("200 OK", "<html>"), lasting, "its answer is no JSON"),
        (http("200 OK", "{}"), lasting, "holds no access token"),
        ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), lasting, "is no HTTP"),
        (endless, lasting, "longer than any such answer"),
        (String::new(), Kind::Deferred, "connection closed"),
    ] {
        let server = smtp(&["XOAUTH2"]);
        let endpoint = Endpoint::plain(&[answer]);
        let mut client = Client::new(settings(&server, &endpoint.url));
        let seen = send(&mut client, &server);
        assert_eq!(seen.kind, kind, "{seen:?}");
        let place = format!(
            "AUTH: no access token from http://127.0.0.1:{}/token: ",
            endpoint.port
        );
        assert!(seen.error.contains(&place), "{}", seen.error);
        assert!(seen.error.contains(words), "{words}: {}", seen.error);
        assert_no_secret(&seen);
        assert!(server.connections()[0].logins.is_empty());
    }
}

#[test]
fn an_endpoint_that_cannot_be_reached_defers_the_message() {
    let server = smtp(&["XOAUTH2"]);
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut client = Client::new(settings(&server, &format!("https://{closed}/token")));
    let seen = send(&mut client, &server);
    assert_eq!(seen.kind, Kind::Deferred, "{seen:?}");
    assert!(seen.error.contains("refused"), "{}", seen.error);

    let mute = Endpoint::plain(&[]);
    let mut settings = settings(&server, &mute.url);
    settings.net.reply_timeout = Duration::from_secs(2);
    let mut client = Client::new(settings);
    let seen = send(&mut client, &server);
    assert_eq!(seen.kind, Kind::Deferred, "{seen:?}");
    assert!(seen.error.contains("no answer within 2s"), "{}", seen.error);
}

#[test]
fn an_endpoint_must_be_trusted_or_on_this_machine() {
    let server = smtp(&["XOAUTH2"]);
    let stranger = Authority::new();
    let endpoint = Endpoint::start(&[token("token", 3600)], Some(&stranger));
    let mut client = Client::new(settings(&server, &endpoint.url));
    let seen = send(&mut client, &server);
    assert_eq!(seen.kind, Kind::NeedsUser(Need::Auth), "{seen:?}");
    assert!(
        seen.error.contains("nobody this machine trusts"),
        "{}",
        seen.error
    );
    assert!(endpoint.forms().is_empty());

    let proxy = SocksProxy::start(server.port());
    let mut settings = settings(&server, "http://login.example/token");
    settings.net.proxy = Some(format!("127.0.0.1:{}", proxy.port()));
    let mut client = Client::new(settings);
    let seen = send(&mut client, &server);
    assert_eq!(seen.kind, Kind::NeedsUser(Need::Auth), "{seen:?}");
    assert!(seen.error.contains("use https://"), "{}", seen.error);
    assert_eq!(proxy.calls()[1], ("login.example".to_owned(), 80));
}

#[test]
fn an_entry_that_is_not_complete_says_so() {
    let server = smtp(&["XOAUTH2"]);
    let authinfo = server.directory().join("authinfo-incomplete");
    for (line, words) in [
        ("login user client-id x", "lacks client-id or refresh-token"),
        ("refresh-token x client-id y", "names no user"),
    ] {
        let line = format!("machine 127.0.0.1 token-url https://login.invalid/ {line}\n");
        std::fs::write(&authinfo, line).unwrap();
        let mut settings = settings_for(&server);
        settings.credentials.auth_sources = vec![AuthSource::Netrc(authinfo.clone())];
        let mut client = Client::new(settings);
        let seen = send(&mut client, &server);
        assert_eq!(seen.kind, Kind::NeedsUser(Need::Auth), "{seen:?}");
        assert!(seen.error.contains(words), "{}", seen.error);
    }
}

#[test]
fn the_dialogue_shows_no_token() {
    let server = smtp(&["XOAUTH2"]);
    let endpoint = Endpoint::plain(&[token("stale-acc3ss", 3600), token("token", 3600)]);
    let settings = settings(&server, &endpoint.url);
    let mut client = Client::new(Settings {
        trace: true,
        ..settings
    });
    client.send(
        &target(server.port(), StreamType::Starttls),
        &["a@b"],
        MESSAGE,
    );
    let mut shown = String::new();
    loop {
        match client.next_event() {
            Event::Trace { text, .. } => shown.push_str(&text),
            Event::Outcome { kind, .. } => break assert_eq!(kind, Kind::Sent),
            other => panic!("{other:?}"),
        }
    }
    assert!(shown.contains("AUTH XOAUTH2 <omitted>"), "{shown}");
    for secret in SECRETS
        .iter()
        .chain(&["c3RhbGUtYWNjM3Nz", "dG9rZW4", "=Bearer"])
    {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

/// The number of the next event, which must ask for a token.
fn asked_for_token(client: &mut Client) -> u64 {
    match client.next_event() {
        Event::Token { request, host, .. } => {
            assert_eq!(host, "127.0.0.1");
            request
        }
        other => panic!("{other:?}"),
    }
}

fn given(token: &str) -> Answer {
    Answer::Credentials(Credentials {
        user: Some("user".to_owned()),
        secret: Some(token.to_owned().into()),
        ..Default::default()
    })
}

#[test]
fn lisp_is_asked_first_and_once_more_after_a_refusal() {
    let server = smtp(&["PLAIN", "XOAUTH2"]);
    let mut settings = settings_for(&server);
    settings.credentials.lisp_has_tokens = true;
    settings.idle_timeout = Duration::ZERO;
    let to = target(server.port(), StreamType::Starttls);
    let mut client = Client::new(settings.clone());
    client.send(&to, &["a@b"], MESSAGE);
    for token in ["stale-acc3ss", "token"] {
        let request = asked_for_token(&mut client);
        client.engine.answer(request, given(token));
    }
    assert_eq!(client.outcome().kind, Kind::Sent);
    wait_for_end(&server);

    // The same again is not tried again.
    let before = server.with_log(|log| log.connections.len());
    client.send(&to, &["a@b"], MESSAGE);
    for _ in 0..2 {
        let request = asked_for_token(&mut client);
        client.engine.answer(request, given("stale-acc3ss"));
    }
    let seen = client.outcome();
    assert_eq!(seen.kind, Kind::NeedsUser(Need::Auth));
    assert!(seen.error.contains("535"), "{}", seen.error);
    assert_no_secret(&seen);
    let logins = |from: usize| -> usize {
        let connections = server.connections();
        connections[from..].iter().map(|one| one.logins.len()).sum()
    };
    assert_eq!(logins(before), 1);

    for (answer, words) in [
        (
            Answer::Error("the helper failed".to_owned()),
            "the helper failed",
        ),
        (given("two\nlines"), "no access token"),
        (given(""), "no access token"),
    ] {
        client.send(&to, &["a@b"], MESSAGE);
        let request = asked_for_token(&mut client);
        client.engine.answer(request, answer);
        let seen = client.outcome();
        assert_eq!(seen.kind, Kind::NeedsUser(Need::Auth), "{seen:?}");
        assert!(seen.error.contains(words), "{}", seen.error);
    }

    // Nothing: the password in authinfo does.
    client.send(&to, &["a@b"], MESSAGE);
    let request = asked_for_token(&mut client);
    client.engine.answer(request, Answer::Nothing);
    assert_eq!(client.outcome().kind, Kind::Sent);
}
