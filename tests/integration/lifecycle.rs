//! Starting, stopping, leaving: what an engine does over its life.

use crate::common::{Client, MESSAGE, settings_for, target};
use rs_smtpmail::bridge::Kind;
use rs_smtpmail::engine::Settings;
use rs_smtpmail::mail::StreamType;
use rs_smtpmail::spool::{RecipientState, State};
use server::{Gate, Options, Rule, Server, Stage};
use std::time::{Duration, Instant};

#[test]
fn stopping_waits_for_the_answer_to_what_is_out() {
    let gate = Gate::new("final");
    let server = Server::start(Options::default().rule(Rule::at(Stage::Final).hold(&gate)));
    let client = Client::for_server(&server);
    client.send(&target(server.port(), StreamType::Plain), &["a@b"], MESSAGE);
    gate.wait_reached();
    std::thread::scope(|scope| {
        scope.spawn(|| client.engine.stop(server::deadline()));
        gate.release();
    });
    assert!(client.engine.list().unwrap().is_empty());
    assert_eq!(server.messages().len(), 1);
}

#[test]
fn stopping_waits_no_longer_than_told_and_forgets_nothing() {
    let server = Server::start(Options::default().rule(Rule::at(Stage::Final).hang()));
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Plain);
    let id = client.send(&to, &["a@b"], MESSAGE);
    server.wait_for("the message", |log| !log.messages.is_empty());
    client.engine.stop(Duration::from_millis(50));
    let (entry, state) = client.engine.entry(id).unwrap();
    assert_eq!(state, State::Unconfirmed);
    assert_eq!(entry.recipients[0].state, RecipientState::Unconfirmed);
    // Nothing is in flight any more: it can be dealt with.
    assert_eq!(client.engine.in_flight(), 0);
    server.set_rules(Vec::new());
    client.engine.retry(id).unwrap();
    assert_eq!(client.outcome().kind, Kind::Sent);
}

#[test]
fn an_engine_goes_on_after_a_stop() {
    let server = Server::start(Options::default());
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Plain);
    for _ in 0..3 {
        assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
        client.engine.stop(server::deadline());
    }
    assert_eq!(server.connections().len(), 3);
}

#[test]
fn removed_and_held_messages_stay_unsent() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let mut client = Client::new(Settings::default());
    let to = target(port, StreamType::Plain);
    let (first, second) = (
        client.send(&to, &["a@b"], MESSAGE),
        client.send(&to, &["a@b"], MESSAGE),
    );
    for _ in 0..2 {
        assert_eq!(client.outcome().kind, Kind::Deferred);
    }
    client.engine.remove(first).unwrap();
    assert_eq!(client.outcome().kind, Kind::Removed);
    client.engine.hold(second, true).unwrap();
    assert_eq!(client.outcome().kind, Kind::Cancelled);
    let list = client.engine.list().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].0.id, list[0].1), (second, State::Held));
    assert_eq!(client.engine.flush().unwrap(), 0);
    assert!(client.engine.retry(first).is_err());
}

/// What the process that is stopped does: it sends one message, and tells the outcome.
#[test]
fn stopped_process() {
    let Ok(port) = std::env::var("STOPPED_PROCESS_PORT") else {
        return;
    };
    let mut settings = Settings::default();
    settings.net.reply_timeout = Duration::from_millis(200);
    let mut client = Client::new(settings);
    let to = target(port.parse().unwrap(), StreamType::Plain);
    let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
    assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
}

/// Whether all threads of a process wait for something.
#[cfg(target_os = "linux")]
fn is_asleep(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.into_iter().all(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat"));
        stat.is_ok_and(|stat| stat.rsplit(") ").next().unwrap().starts_with('S'))
    })
}

#[cfg(target_os = "linux")]
#[test]
fn a_reply_that_came_while_the_process_was_stopped_is_read() {
    let gate = Gate::new("final");
    let server = Server::start(Options::default().rule(Rule::at(Stage::Final).hold(&gate)));
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::stopped_process"])
        .env("STOPPED_PROCESS_PORT", server.port().to_string())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let signal = |number| {
        // SAFETY: a child of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, number) }, 0);
    };
    gate.wait_reached();
    let end = Instant::now() + server::deadline();
    while !is_asleep(child.id()) {
        assert!(Instant::now() < end, "the process never waits");
        std::thread::yield_now();
    }
    signal(libc::SIGSTOP);
    let mut status = 0;
    // SAFETY: as above; it reports the stop and does not reap.
    unsafe { libc::waitpid(child.id() as i32, &raw mut status, libc::WUNTRACED) };
    assert!(libc::WIFSTOPPED(status));
    gate.release();
    server.wait_for_messages(1);
    // Only time makes a time-out pass.
    std::thread::sleep(Duration::from_millis(600));
    signal(libc::SIGCONT);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn what_an_engine_left_another_takes_up() {
    let gate = Gate::new("greeting");
    let server = Server::start(Options::default().rule(Rule::at(Stage::Greeting).hold(&gate)));
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("spool");
    let settings = settings_for(&server);
    let start = || {
        let wake = Box::new(std::io::sink());
        rs_smtpmail::engine::Engine::new(spool.clone(), settings.clone(), wake).unwrap()
    };
    let first = start();
    let to = target(server.port(), StreamType::Plain);
    let recipient = rs_smtpmail::mail::Path::parse("a@b", "to").unwrap();
    let sender = rs_smtpmail::mail::Path::null();
    first
        .send(MESSAGE, sender, vec![recipient], to, Default::default())
        .unwrap();
    gate.wait_reached();
    first.stop(Duration::ZERO);
    gate.release();
    let second = start();
    assert_eq!(second.resume().unwrap(), 1);
    server.wait_for_messages(1);
    second.stop(server::deadline());
    assert!(second.list().unwrap().is_empty());
}
