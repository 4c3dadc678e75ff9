//! Messages that wait: for their time, for a file elsewhere to go, for their copy to be
//! filed, for a server to come back, for an Emacs that was killed.

use std::time::Duration;

use crate::common::{Client, MESSAGE, target};
use rs_smtpmail::bridge::Kind;
use rs_smtpmail::engine::Backoff;
use rs_smtpmail::engine::{Settings, World};
use rs_smtpmail::mail::{Clock, StreamType, Timestamp};
use rs_smtpmail::spool::{EntryId, State, Wishes};
use server::{Ending, Options, Rule, Server, Stage};

const HOUR: Duration = Duration::from_secs(3600);

fn in_an_hour() -> Wishes {
    Wishes {
        not_before: Some(Timestamp::now().after(HOUR)),
        ..Wishes::default()
    }
}

/// A greeting that says the server is down.
fn down() -> Rule {
    let rule = Rule::at(Stage::Greeting);
    rule.reply(421, "4.3.2 Down").then(Ending::Close)
}

fn patient(first_pause: Duration) -> Settings {
    Settings {
        backoff: Backoff {
            first_pause,
            longest_pause: HOUR,
            ..Backoff::default()
        },
        ..Settings::default()
    }
}

#[test]
fn a_message_for_later_waits_also_after_a_restart() {
    let server = Server::start(Options::default());
    let to = target(server.port(), StreamType::Plain);
    let mut first = Client::new(Settings::default());
    let id = first.send_with(&to, in_an_hour());
    assert_eq!(first.state(id), State::Scheduled);
    first.engine.flush().unwrap();
    // What was sent after it is there; it is not.
    assert_eq!(first.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    assert_eq!(first.state(id), State::Scheduled);

    let mut second = first.beside(Settings::default());
    drop(first);
    assert_eq!(second.engine.resume().unwrap(), 1);
    assert_eq!(second.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    assert_eq!(second.state(id), State::Scheduled);
    let soon = Timestamp::now().after(Duration::from_millis(20));
    second.engine.schedule_at(id, Some(soon)).unwrap();
    let seen = second.outcome();
    assert_eq!((seen.entry.id, seen.kind), (id, Kind::Sent));
}

#[test]
fn a_message_for_later_can_be_sent_now() {
    let server = Server::start(Options::default());
    let to = target(server.port(), StreamType::Plain);
    let mut client = Client::new(Settings::default());
    let id = client.send_with(&to, in_an_hour());
    client.engine.schedule_at(id, None).unwrap();
    assert_eq!(client.outcome().kind, Kind::Sent);
    let id = client.send_with(&to, in_an_hour());
    client.engine.retry(id).unwrap();
    assert_eq!(client.outcome().kind, Kind::Sent);
}

#[test]
fn the_date_is_that_of_sending_if_so_wished() {
    let old = "Date: Mon, 01 Jan 2001 00:00:00 +0100\n";
    let message = [b"From: me@example.org\n", old.as_bytes(), b"A: b\n\nbody\n"].concat();
    for date_at_sending in [false, true] {
        let server = Server::start(Options::default());
        let to = target(server.port(), StreamType::Plain);
        let mut client = Client::new(Settings::default());
        let path = |text| rs_smtpmail::mail::Path::parse(text, "to").unwrap();
        let wishes = Wishes {
            date_at_sending,
            ..Wishes::default()
        };
        let recipients = vec![path("you@example.com")];
        let engine = &client.engine;
        engine
            .send(
                message.as_slice(),
                path("me@example.org"),
                recipients,
                to,
                wishes,
            )
            .unwrap();
        assert_eq!(client.outcome().kind, Kind::Sent);
        let received = String::from_utf8(server.messages()[0].bytes.clone()).unwrap();
        let is_old = received.contains("Mon, 01 Jan 2001");
        assert_eq!(is_old, !date_at_sending, "{received}");
        assert!(received.contains(" +0100\r\nA: b\r\n\r\nbody\r\n"));
        assert!(server.violations().is_empty());
    }
}

/// A message for which a file elsewhere stands, as with one taken from smtpmail's queue.
#[test]
fn a_message_waits_for_its_origin_whatever_a_maildir_program_calls_it() {
    let server = Server::start(Options::default());
    let to = target(server.port(), StreamType::Plain);
    let mut client = Client::new(Settings::default());
    let maildir = client.directory.path().join("queue");
    for part in ["cur", "new"] {
        std::fs::create_dir_all(maildir.join(part)).unwrap();
    }
    let origin = maildir.join("new/message");
    let mut id = None;
    for name in [
        "new/message",
        "new/message:2,",
        "cur/message:2,S",
        "cur/message;2,RS",
    ] {
        std::fs::write(maildir.join(name), "x").unwrap();
        let wishes = Wishes {
            origin: Some(origin.clone()),
            ..Wishes::default()
        };
        let id = *id.get_or_insert_with(|| client.send_with(&to, wishes));
        client.engine.flush().unwrap();
        assert_eq!(client.state(id), State::Held, "{name}");
        std::fs::remove_file(maildir.join(name)).unwrap();
    }
    // Another message is nobody's origin.
    std::fs::write(maildir.join("cur/message2:2,S"), "x").unwrap();
    client.engine.flush().unwrap();
    let seen = client.outcome();
    assert_eq!((Some(seen.entry.id), seen.kind), (id, Kind::Sent));
}

fn wishing_a_copy() -> Wishes {
    Wishes {
        copy: Some("file it".to_owned()),
        ..Wishes::default()
    }
}

#[test]
fn an_accepted_message_stays_until_its_copy_is_filed() {
    let server = Server::start(Options::default());
    let to = target(server.port(), StreamType::Plain);
    let mut first = Client::new(Settings::default());
    let id = first.send_with(&to, wishing_a_copy());
    let seen = first.outcome();
    assert_eq!(seen.kind, Kind::Sent);
    assert_eq!(seen.entry.wishes.copy.as_deref(), Some("file it"));
    assert_eq!(first.state(id), State::Filing);
    // Only one Emacs is asked to file it.
    let mut second = first.beside(Settings::default());
    assert_eq!(second.engine.resume().unwrap(), 0);
    assert!(second.engine.drain().is_empty());
    // It is killed before it has; the next one is asked, and can't.
    drop(first);
    second.engine.resume().unwrap();
    let seen = second.outcome();
    assert_eq!((seen.entry.id, seen.kind), (id, Kind::Unfiled));
    let problem = "no such folder".to_owned();
    let rest = Some("file the rest".to_owned());
    second.engine.filed(id, Some(problem), rest).unwrap();
    assert_eq!(second.state(id), State::Filing);
    second.engine.flush().unwrap();
    let seen = second.outcome();
    assert_eq!(seen.kind, Kind::Unfiled);
    assert_eq!(seen.entry.error.as_deref(), Some("no such folder"));
    assert_eq!(seen.entry.wishes.copy.as_deref(), Some("file the rest"));
    let problem = "still no such folder".to_owned();
    second.engine.filed(id, Some(problem), None).unwrap();
    second.engine.retry(id).unwrap();
    assert_eq!(second.outcome().kind, Kind::Unfiled);
    second.engine.filed(id, None, None).unwrap();
    assert_eq!(second.outcome().kind, Kind::Filed);
    assert!(second.engine.list().unwrap().is_empty());
    assert_eq!(server.messages().len(), 1);
}

#[test]
fn an_accepted_message_can_be_removed_before_its_copy_is_filed() {
    let server = Server::start(Options::default());
    let to = target(server.port(), StreamType::Plain);
    let mut client = Client::new(Settings::default());
    let id = client.send_with(&to, wishing_a_copy());
    assert_eq!(client.outcome().kind, Kind::Sent);
    client.engine.remove(id).unwrap();
    assert_eq!(client.outcome().kind, Kind::Removed);
    assert!(client.engine.list().unwrap().is_empty());
    // Whoever was filing it is told.
    assert!(client.engine.filed(id, None, None).is_err());
}

#[test]
fn a_message_that_stands_elsewhere_is_not_sent() {
    let server = Server::start(Options::default());
    let to = target(server.port(), StreamType::Plain);
    let mut client = Client::new(Settings::default());
    let file = client.directory.path().join("queued");
    let wishes = || Wishes {
        origin: Some(file.clone()),
        ..Wishes::default()
    };
    std::fs::write(&file, "").unwrap();
    let ids = [
        client.send_with(&to, wishes()),
        client.send_with(&to, wishes()),
    ];
    assert_eq!(client.engine.flush().unwrap(), 0);
    assert_eq!(client.state(ids[0]), State::Held);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(client.engine.flush().unwrap(), 2);
    for _ in ids {
        assert_eq!(client.outcome().kind, Kind::Sent);
    }
    // The other way: what is written elsewhere is not sent from here.
    let id = client.send_with(&to, in_an_hour());
    client.engine.export(id, file.clone()).unwrap();
    let exported = String::from_utf8(std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(
        exported,
        String::from_utf8_lossy(MESSAGE).into_owned() + "\n"
    );
    client.engine.retry(id).unwrap();
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    assert_eq!(client.state(id), State::Held);
}

#[test]
fn what_waits_for_a_server_goes_as_soon_as_it_is_up() {
    let server = Server::start(Options::default().rule(down()));
    let to = target(server.port(), StreamType::Plain);
    let mut client = Client::new(patient(HOUR));
    for _ in 0..5 {
        let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
        assert_eq!(seen.kind, Kind::Deferred);
    }
    server.set_rules(Vec::new());
    // A new message is the probe; the others need not wait for their hour.
    client.send(&to, &["a@b"], MESSAGE);
    for _ in 0..6 {
        assert_eq!(client.outcome().kind, Kind::Sent);
    }
}

#[test]
fn a_server_that_is_down_is_left_alone() {
    let server = Server::start(Options::default().rule(down()));
    let other = Server::start(Options::default());
    let to = target(server.port(), StreamType::Plain);
    let mut client = Client::new(patient(HOUR));
    let id = client.send(&to, &["a@b"], MESSAGE);
    assert_eq!(client.outcome().kind, Kind::Deferred);
    let before = server.connections().len();
    // Due by itself, but its server was found to be down a moment ago.
    let soon = Timestamp::now().after(Duration::from_millis(20));
    client.engine.schedule_at(id, Some(soon)).unwrap();
    let wishes = Wishes {
        not_before: Some(soon.after(Duration::from_millis(1))),
        ..Wishes::default()
    };
    client.send_with(&target(other.port(), StreamType::Plain), wishes);
    assert_eq!(client.outcome().kind, Kind::Sent);
    assert_eq!(server.connections().len(), before);
    // The user's own wish is another matter.
    client.engine.flush().unwrap();
    assert_eq!(client.outcome().kind, Kind::Deferred);
    assert_eq!(server.connections().len(), before + 1);
}

#[test]
fn greylisted_recipients_are_tried_again_and_the_others_not() {
    let rule = Rule::at(Stage::Rcpt).matching("grey@").once();
    let rule = rule.reply(451, "4.7.1 Greylisted, come back later");
    let server = Server::start(Options::default().rule(rule));
    let to = target(server.port(), StreamType::Plain);
    let mut client = Client::new(patient(Duration::from_millis(20)));
    client.send(&to, &["a@b", "grey@b"], MESSAGE);
    let seen = client.outcome();
    assert_eq!(seen.kind, Kind::Deferred, "{seen:?}");
    assert!(seen.error.contains("Greylisted"), "{}", seen.error);
    assert_eq!(client.outcome().kind, Kind::Sent);
    let messages = server.messages();
    assert_eq!(messages[0].addresses(), ["a@b"]);
    assert_eq!(messages[1].addresses(), ["grey@b"]);
}

#[test]
fn trying_ends_after_the_time_allowed() {
    let server = Server::start(Options::default().rule(down()));
    let to = target(server.port(), StreamType::Plain);
    let mut settings = patient(Duration::from_millis(1));
    settings.backoff.give_up_after = Duration::ZERO;
    let mut client = Client::new(settings);
    let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
    assert_eq!(seen.kind, Kind::Failed);
    assert!(
        seen.error.contains("gave up after 0 seconds"),
        "{}",
        seen.error
    );
    assert!(seen.error.contains("4.3.2 Down"), "{}", seen.error);
}

#[test]
fn what_an_emacs_leaves_behind_another_takes_over_at_once() {
    let server = Server::start(Options::default().rule(down()));
    let to = target(server.port(), StreamType::Plain);
    // Whatever waits is due for this one when it hears of it.
    let mut heir = Client::new(Settings {
        backoff: Backoff {
            longest_pause: Duration::from_millis(1),
            ..Backoff::default()
        },
        ..Settings::default()
    });
    let mut owner = heir.beside(patient(HOUR));
    let left = owner.send(&to, &["left@b"], MESSAGE);
    assert_eq!(owner.outcome().kind, Kind::Deferred);
    server.set_rules(Vec::new());
    assert_eq!(heir.try_to_send(&to, &["own@b"], MESSAGE).kind, Kind::Sent);
    drop(owner);
    let seen = heir.outcome();
    assert_eq!((seen.entry.id, seen.kind), (left, Kind::Sent));
}

#[test]
fn the_same_time_and_the_same_ids_give_the_same_pauses() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = target(closed.local_addr().unwrap().port(), StreamType::Plain);
    drop(closed);
    let now = Timestamp(1_700_000_000_000);
    let deferred = |seed: u8| {
        let world = World {
            clock: Clock::new(move || now),
            new_id: Box::new(move || EntryId::made_of(now, [seed; 10])),
            ..World::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let mut client = Client::in_world(directory, Settings::default(), world);
        let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
        assert_eq!(seen.kind, Kind::Deferred);
        (
            seen.entry.id,
            seen.entry.created,
            seen.entry.next_try.unwrap(),
        )
    };
    let (one, other) = (deferred(1), deferred(2));
    assert_eq!(one, deferred(1));
    assert_eq!(one.1, now);
    assert_ne!(one.2, other.2);
    let pause = one.2.since(now);
    assert!(pause >= Duration::from_secs(60) && pause <= Duration::from_secs(75));
}
