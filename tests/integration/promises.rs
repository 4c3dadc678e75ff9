//! What was reproduced of broken promises: a yes that does not hold, one message that holds up
//! the others, a wake-up that is lost, sessions that end without a word, panics.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{self, Client, MESSAGE, target};
use rs_smtpmail::bridge::{Event, Kind};
use rs_smtpmail::engine::{Backoff, Engine, EngineError, Settings};
use rs_smtpmail::mail::StreamType;
use rs_smtpmail::spool::fs::{Call, Fs};
use rs_smtpmail::spool::{EntryId, SpoolError, State};
use server::{Gate, Options, Rule, Server, Stage, Tls};

/// A port at which nobody listens.
fn closed_port() -> u16 {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    closed.local_addr().unwrap().port()
}

fn one_session() -> Settings {
    Settings {
        max_connections: 1,
        ..Settings::default()
    }
}

/// Sends to a refused port, stops each message a little later than the one before, and
/// returns those for which the answer was yes.
fn stopped(client: &Client, stop: impl Fn(&Engine, EntryId) -> bool) -> Vec<EntryId> {
    let to = target(closed_port(), StreamType::Plain);
    let mut yes = Vec::new();
    for number in 0..60 {
        let id = client.send(&to, &["a@b"], MESSAGE);
        // From before the session has begun to after it has failed.
        std::thread::sleep(Duration::from_micros(100 * number));
        if stop(&client.engine, id) {
            yes.push(id);
        }
    }
    assert!(yes.len() > 30, "{} of 60", yes.len());
    yes
}

#[test]
fn a_cancellation_that_said_yes_holds() {
    let client = Client::new(Settings::default());
    let yes = stopped(&client, |engine, id| {
        let answer = engine.cancel(id).is_ok_and(|answer| answer);
        // It is said when it is so on disk.
        assert!(!answer || client.state(id) == State::Held);
        answer
    });
    client.engine.flush().unwrap();
    client.engine.stop(server::deadline());
    for id in yes {
        assert_eq!(client.state(id), State::Held);
    }
}

#[test]
fn a_removal_that_said_yes_holds() {
    let client = Client::new(Settings::default());
    let is_gone = |engine: &Engine, id| {
        let gone = engine.entry(id);
        matches!(gone, Err(EngineError::Spool(SpoolError::NoSuchEntry(_))))
    };
    let yes = stopped(&client, |engine, id| {
        let answer = engine.remove(id).is_ok();
        assert!(!answer || is_gone(engine, id));
        answer
    });
    client.engine.stop(server::deadline());
    assert!(yes.into_iter().all(|id| is_gone(&client.engine, id)));
}

#[test]
fn a_message_that_breaks_sessions_holds_up_no_others() {
    for rule in [
        Rule::at(Stage::Rcpt).matching("bad@").reset(),
        Rule::at(Stage::Rcpt).matching("bad@").close(),
        Rule::at(Stage::Mail).matching("bad@").reset(),
    ] {
        let server = Server::start(Options::default().rule(rule));
        let mut client = Client::new(one_session());
        let to = target(server.port(), StreamType::Plain);
        let bad = client.send_from("bad@b", &to, &["bad@b"], MESSAGE);
        assert_ne!(client.outcome().kind, Kind::Sent);
        for _ in 0..2 {
            let good = ["a@b", "b@b", "c@b"].map(|to_whom| client.send(&to, &[to_whom], MESSAGE));
            // The bad one is tried with them, first or not.
            client.engine.flush().unwrap();
            let mut sent = Vec::new();
            while sent.len() < good.len() {
                let seen = client.outcome();
                match seen.kind {
                    Kind::Sent => sent.push(seen.entry.id),
                    _ => assert_eq!(seen.entry.id, bad, "{seen:?}"),
                }
            }
            sent.sort();
            assert_eq!(sent, good);
        }
    }
}

#[test]
fn a_message_behind_one_that_hangs_gets_a_session_of_its_own() {
    let gate = Gate::new("final");
    let rule = Rule::at(Stage::Final).connection(1).hold(&gate);
    let server = Server::start(Options::default().rule(rule));
    let mut client = Client::new(Settings::default());
    let to = target(server.port(), StreamType::Plain);
    let first = client.send(&to, &["a@b"], MESSAGE);
    gate.wait_reached();
    // Nothing comes after it that would wake anybody.
    let second = client.send(&to, &["b@b"], MESSAGE);
    let seen = client.outcome();
    assert_eq!((seen.entry.id, seen.kind), (second, Kind::Sent));
    gate.release();
    let seen = client.outcome();
    assert_eq!((seen.entry.id, seen.kind), (first, Kind::Sent));
}

#[test]
fn never_giving_up_can_be_asked_for() {
    let mut client = Client::new(Settings {
        backoff: Backoff {
            give_up_after: Duration::from_secs(u64::MAX / 1000),
            ..Backoff::default()
        },
        ..Settings::default()
    });
    let to = target(closed_port(), StreamType::Plain);
    assert_eq!(
        client.try_to_send(&to, &["a@b"], MESSAGE).kind,
        Kind::Deferred
    );
}

#[test]
fn idle_sessions_take_their_leave() {
    let settings = |server: &Server| Settings {
        idle_timeout: Duration::from_secs(3600),
        ..common::settings_for(server)
    };
    let has_quit = |server: &Server| {
        server.wait_for("QUIT", |log| {
            let connections = log.connections.iter();
            connections
                .clone()
                .all(|one| one.commands().last() == Some(&"QUIT"))
                && log.connections.len() == 1
        });
    };
    for tls in [Tls::None, Tls::StartTls, Tls::Implicit] {
        let stream_type = match tls {
            Tls::None => StreamType::Plain,
            Tls::StartTls => StreamType::Starttls,
            Tls::Implicit => StreamType::Ssl,
        };
        // When Emacs leaves.
        let server = Server::start(Options::new(tls));
        let mut client = Client::new(settings(&server));
        let to = target(server.port(), stream_type);
        assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
        client.engine.stop(server::deadline());
        has_quit(&server);
        // When somebody has waited for the outcome.
        let server = Server::start(Options::new(tls));
        let mut client = Client::new(settings(&server));
        let to = target(server.port(), stream_type);
        assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
        client.engine.end_idle(server::deadline());
        has_quit(&server);
    }
}

/// A file system on which a call panics when `at` says so.
fn panicking(at: impl Fn(Call, &Path) -> bool + Send + Sync + 'static) -> Fs {
    Fs::with_hook(Arc::new(move |call, path: &Path| {
        assert!(!at(call, path), "a deliberate panic");
        Ok(())
    }))
}

fn problem(client: &mut Client) -> String {
    loop {
        if let Event::Problem(text) = client.next_event() {
            return text;
        }
    }
}

#[test]
fn a_session_that_panics_leaves_the_others_alone() {
    let gate = Gate::new("final");
    let rule = Rule::at(Stage::Final).connection(1).hold(&gate);
    let server = Server::start(Options::default().rule(rule));
    let is_armed = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&is_armed);
    // When the second message is opened to be sent.
    let fs = panicking(move |call, path| {
        let is_message = call == Call::Open && path.parent().unwrap().ends_with("queue");
        is_message && armed.swap(false, Ordering::SeqCst)
    });
    let directory = tempfile::tempdir().unwrap();
    let mut client = Client::in_directory(directory, Settings::default(), fs);
    let to = target(server.port(), StreamType::Plain);
    let first = client.send(&to, &["a@b"], MESSAGE);
    gate.wait_reached();
    is_armed.store(true, Ordering::SeqCst);
    let second = client.send(&to, &["b@b"], MESSAGE);
    assert!(problem(&mut client).contains("internal error"));
    // Neither is lost, nor what the user wants of them.
    assert!(client.engine.cancel(second).unwrap());
    assert_eq!(client.state(second), State::Held);
    assert!(!client.engine.cancel(first).unwrap());
    gate.release();
    loop {
        let seen = client.outcome();
        if seen.kind == Kind::Sent {
            assert_eq!(seen.entry.id, first);
            break;
        }
    }
}

#[test]
fn a_thread_that_panics_leaves_nothing_in_flight() {
    let server = Server::start(Options::default().rule(Rule::at(Stage::Rcpt).hang()));
    let is_armed = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&is_armed);
    // When the scheduler looks for other processes.
    let fs = panicking(move |call, path| {
        let is_look = call == Call::ListDirectory && path.ends_with("owners");
        is_look && armed.swap(false, Ordering::SeqCst)
    });
    let directory = tempfile::tempdir().unwrap();
    let mut client = Client::in_directory(directory, one_session(), fs);
    let to = target(server.port(), StreamType::Plain);
    let first = client.send(&to, &["a@b"], MESSAGE);
    server.wait_for("RCPT", |log| {
        let commands = log.connections.iter().flat_map(|one| one.commands());
        commands.clone().any(|line| line.starts_with("RCPT"))
    });
    is_armed.store(true, Ordering::SeqCst);
    let second = client.send(&to, &["b@b"], MESSAGE);
    assert!(problem(&mut client).contains("internal error"));
    for id in [first, second] {
        assert!(client.engine.cancel(id).unwrap());
        assert_eq!(client.state(id), State::Held);
    }
    assert_eq!(client.engine.in_flight(), 0);
}

#[test]
fn what_other_processes_change_is_told() {
    let server = Server::start(Options::default());
    let to = target(server.port(), StreamType::Plain);
    let mut one = Client::new(Settings::default());
    let mut other = one.beside(Settings::default());
    for client in [&mut one, &mut other] {
        assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    }
    let closed = target(closed_port(), StreamType::Plain);
    let id = one.send(&closed, &["a@b"], MESSAGE);
    let is_changed = |event| matches!(event, Event::Changed);
    while !is_changed(other.next_event()) {}
    one.engine.cancel(id).unwrap();
    while !is_changed(other.next_event()) {}
}

#[test]
fn the_network_thread_never_waits_for_the_disk() {
    let flushes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&flushes);
    let hook = move |call: Call, _: &Path| {
        if matches!(call, Call::SyncFile | Call::SyncDirectory) {
            let thread = std::thread::current();
            assert_ne!(thread.name(), Some("rs-smtpmail"), "it waits for {call:?}");
            count.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    };
    let later = Rule::at(Stage::Rcpt).matching("later@");
    let never = Rule::at(Stage::Rcpt).matching("never@");
    let options = Options::new(Tls::StartTls)
        .rule(later.reply(451, "4.2.0 Later"))
        .rule(never.reply(550, "5.1.1 Never"));
    let server = Server::start(options);
    let directory = tempfile::tempdir().unwrap();
    let fs = Fs::with_hook(Arc::new(hook));
    let mut client = Client::in_directory(directory, common::settings_for(&server), fs);
    let to = target(server.port(), StreamType::Starttls);
    let kinds = ["now@b", "later@b", "never@b", "now@b"]
        .map(|whom| client.try_to_send(&to, &[whom], MESSAGE).kind);
    use Kind::{Deferred, Failed, Sent};
    assert_eq!(kinds, [Sent, Deferred, Failed, Sent]);
    let held = client.send(&target(closed_port(), StreamType::Plain), &["a@b"], MESSAGE);
    client.engine.cancel(held).unwrap();
    assert!(flushes.load(Ordering::SeqCst) > 10);
}

#[test]
fn a_cancellation_that_cannot_be_written_is_no_yes_and_is_made_up_for() {
    let gate = Gate::new("rcpt");
    let server = Server::start(Options::default().rule(Rule::at(Stage::Rcpt).hold(&gate)));
    let is_full = Arc::new(AtomicBool::new(false));
    let full = Arc::clone(&is_full);
    let hook = move |call: Call, path: &Path| {
        let is_state = path
            .extension()
            .is_some_and(|extension| extension == "state");
        match call == Call::Create && is_state && full.load(Ordering::SeqCst) {
            true => Err(std::io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    };
    let directory = tempfile::tempdir().unwrap();
    let fs = Fs::with_hook(Arc::new(hook));
    let client = Client::in_directory(directory, Settings::default(), fs);
    let id = client.send(&target(server.port(), StreamType::Plain), &["a@b"], MESSAGE);
    gate.wait_reached();
    is_full.store(true, Ordering::SeqCst);
    let answer = client.engine.cancel(id);
    assert!(
        matches!(answer, Err(EngineError::Stopping(_))),
        "{answer:?}"
    );
    gate.release();
    // It is not sent meanwhile, and stopping makes up for it.
    client.engine.flush().unwrap();
    is_full.store(false, Ordering::SeqCst);
    client.engine.stop(server::deadline());
    assert_eq!(client.state(id), State::Held);
    assert!(server.messages().is_empty());
}
