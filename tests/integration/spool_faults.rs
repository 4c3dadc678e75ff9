//! Every file-system call of the spool fails, or the process is killed there, in turn:
//! no message is lost, none is sent twice, none is kept that was refused to the caller.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Client, MESSAGE, settings_for, target};
use rs_smtpmail::bridge::{Event, Kind};
use rs_smtpmail::engine::{Engine, Settings, World};
use rs_smtpmail::mail::StreamType;
use rs_smtpmail::mail::Timestamp;
use rs_smtpmail::spool::fs::{Call, Fs};
use rs_smtpmail::spool::{Entry, EntryId, Spool, State, Wishes};
use server::{Options, Rule, Server, Stage};

/// A file system on which `act` is done at the `at`-th call, counted from 0.
fn faulty(
    at: usize,
    act: impl Fn(Call) -> io::Result<()> + Send + Sync + 'static,
) -> (Fs, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let hook = move |call: Call, _: &Path| match count.fetch_add(1, Ordering::SeqCst) {
        number if number == at => act(call),
        _ => Ok(()),
    };
    (Fs::with_hook(Arc::new(hook)), calls)
}

/// What the message goes through, so that each way of writing to the spool is seen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scenario {
    /// Accepted at once: commit, mark, settle.
    Accepted,
    /// Put off first: update.
    Deferred,
    /// Kept until a copy is filed.
    Filed,
}

impl Scenario {
    const ALL: [Self; 3] = [Self::Accepted, Self::Deferred, Self::Filed];

    fn server(self) -> Server {
        let rule = Rule::at(Stage::Rcpt).once().reply(451, "4.7.1 Later");
        Server::start(match self {
            Self::Deferred => Options::default().rule(rule),
            Self::Accepted | Self::Filed => Options::default(),
        })
    }

    fn wishes(self) -> Wishes {
        Wishes {
            copy: (self == Self::Filed).then(|| "file it".to_owned()),
            ..Wishes::default()
        }
    }
}

/// Files copies as Lisp does when it is told to.
fn file_copies(engine: &Engine) -> Vec<Event> {
    let events = engine.drain();
    for event in &events {
        if let Event::Outcome { kind, entry, .. } = event
            && entry.wishes.copy.is_some()
            && matches!(kind, Kind::Sent | Kind::Unfiled)
        {
            // What fails here is asked for again later.
            let _ = engine.filed(entry.id, None, None);
        }
    }
    events
}

/// Sends one message; returns whether it was accepted. Waits until it was tried.
fn send_and_wait(
    directory: &Path,
    settings: Settings,
    port: u16,
    fs: Fs,
    scenario: Scenario,
) -> bool {
    let wake = Box::new(io::sink());
    let Ok(engine) = Engine::within(
        directory.to_owned(),
        settings,
        wake,
        World {
            fs,
            ..World::default()
        },
    ) else {
        return false;
    };
    let to = |text| vec![rs_smtpmail::mail::Path::parse(text, "to").unwrap()];
    let accepted = engine.send(
        MESSAGE,
        rs_smtpmail::mail::Path::null(),
        to("you@example.com"),
        target(port, StreamType::Plain),
        scenario.wishes(),
    );
    if accepted.is_ok() {
        wait_until("the message was tried", || !file_copies(&engine).is_empty());
    }
    engine.stop(server::deadline());
    accepted.is_ok()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + server::deadline();
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a new process does with what was left: returns the number of entries that the
/// user is asked about.
fn recover(directory: &Path, settings: Settings) -> usize {
    let wake = Box::new(io::sink());
    let engine = Engine::new(directory.to_owned(), settings, wake).unwrap();
    engine.flush().unwrap();
    let settled = |engine: &Engine| {
        let is_deferred =
            |event: &Event| matches!(event, Event::Outcome { kind, .. } if *kind == Kind::Deferred);
        if file_copies(engine).iter().any(is_deferred) {
            engine.flush().unwrap();
        }
        engine
            .list()
            .unwrap()
            .iter()
            .all(|(_, state)| *state == State::Unconfirmed)
    };
    wait_until("all is sent", || settled(&engine));
    let asked = engine.list().unwrap().len();
    engine.stop(server::deadline());
    asked
}

fn check(what: &str, accepted: bool, asked: usize, server: &Server) {
    let arrived = server.messages().len();
    match (accepted, arrived, asked) {
        // Kept by nobody, or delivered once, or delivered and asked about.
        (false, 0, 0) | (true, 1, 0) | (true, 1, 1) => {}
        // Asked about, without the server having it.
        (true, 0, 1) => {}
        other => panic!("{what}: accepted, arrived, asked about: {other:?}"),
    }
}

#[test]
fn each_failing_call_loses_nothing_and_doubles_nothing() {
    let errors = [
        io::ErrorKind::StorageFull,
        io::ErrorKind::Other,
        io::ErrorKind::PermissionDenied,
    ];
    for (kind, scenario) in errors
        .into_iter()
        .flat_map(|kind| Scenario::ALL.map(|scenario| (kind, scenario)))
    {
        let mut outcomes = (0, 0);
        for at in 0.. {
            let server = scenario.server();
            let directory = tempfile::tempdir().unwrap();
            let spool = directory.path().join("spool");
            let (fs, calls) = faulty(at, move |_| Err(kind.into()));
            let settings = settings_for(&server);
            let accepted = send_and_wait(&spool, settings.clone(), server.port(), fs, scenario);
            let asked = recover(&spool, settings);
            let what = format!("{scenario:?}: {kind:?} at call {at}");
            check(&what, accepted, asked, &server);
            if accepted {
                outcomes.0 += 1
            } else {
                outcomes.1 += 1
            }
            if calls.load(Ordering::SeqCst) <= at {
                break;
            }
        }
        assert!(outcomes.0 > 5 && outcomes.1 > 5, "{kind:?}: {outcomes:?}");
    }
}

/// Not a test of its own: the process that [`each_call_may_be_the_last`] kills.
#[test]
fn process_to_be_killed() {
    let Ok(arguments) = std::env::var("RS_SMTPMAIL_KILL_AT") else {
        return;
    };
    let words: Vec<&str> = arguments.split(' ').collect();
    let directory = Path::new(words[2]);
    let at = words[0].parse().unwrap();
    // SAFETY: it ends the process at once, as a crash would.
    let (fs, _) = faulty(at, |_| unsafe { libc::_exit(77) });
    let accepted = send_and_wait(
        &directory.join("spool"),
        Settings::default(),
        words[1].parse().unwrap(),
        fs,
        Scenario::ALL[words[3].parse::<usize>().unwrap()],
    );
    if accepted {
        std::fs::write(directory.join("done"), "").unwrap();
    }
}

#[test]
fn each_call_may_be_the_last() {
    for (number, scenario) in Scenario::ALL.into_iter().enumerate() {
        kill_at_each_call(number, scenario);
    }
}

fn kill_at_each_call(number: usize, scenario: Scenario) {
    let mut died = 0;
    for at in 0.. {
        let server = scenario.server();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let arguments = format!("{at} {} {path} {number}", server.port());
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "spool_faults::process_to_be_killed", "--quiet"])
            .env("RS_SMTPMAIL_KILL_AT", arguments)
            .output()
            .unwrap()
            .status;
        let was_killed = status.code() == Some(77);
        assert!(was_killed || status.success(), "{status:?}");
        let asked = recover(&directory.path().join("spool"), settings_for(&server));
        // Whether the caller had been told is not known to it any more: what was
        // published is delivered, what was not is not.
        let is_known = directory.path().join("done").exists();
        let arrived = server.messages().len();
        let what =
            format!("{scenario:?}, killed at call {at}: arrived {arrived}, asked about {asked}");
        assert!(arrived <= 1 && asked <= 1, "{what}");
        assert!(!is_known || arrived + asked >= 1, "{what}");
        died += usize::from(was_killed);
        if !was_killed {
            break;
        }
    }
    assert!(died > 15, "{died}");
}

#[test]
fn two_engines_on_one_spool_send_each_message_once() {
    let server = Server::start(Options::default());
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("spool");
    let settings = settings_for(&server);
    let start = || Engine::new(spool.clone(), settings.clone(), Box::new(io::sink())).unwrap();
    let (first, second) = (start(), start());
    let to = target(server.port(), StreamType::Plain);
    server.add_rule(
        server::Rule::at(server::Stage::Mail)
            .times(50)
            .reply(450, "4.3.0 Wait"),
    );
    for number in 0..50 {
        let recipient = format!("u{number}@example.com");
        let recipient = rs_smtpmail::mail::Path::parse(&recipient, "to").unwrap();
        let sender = rs_smtpmail::mail::Path::null();
        first
            .send(
                MESSAGE,
                sender,
                vec![recipient],
                to.clone(),
                Wishes::default(),
            )
            .unwrap();
    }
    wait_until("each was tried", || {
        first
            .list()
            .unwrap()
            .iter()
            .all(|(entry, _)| entry.attempts > 0)
    });
    first.flush().unwrap();
    second.flush().unwrap();
    wait_until("all is sent", || first.list().unwrap().is_empty());
    let mut recipients: Vec<String> = server
        .messages()
        .iter()
        .map(|message| message.addresses().join(","))
        .collect();
    recipients.sort();
    assert_eq!(recipients.len(), 50);
    recipients.dedup();
    assert_eq!(recipients.len(), 50);
    first.stop(server::deadline());
    second.stop(server::deadline());
}

#[test]
fn what_is_damaged_is_set_aside_and_reported() {
    let mut client = Client::new(Settings::default());
    let spool = client.directory.path().join("spool");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let to = target(port, StreamType::Plain);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(client.send(&to, &["a@b"], MESSAGE));
    }
    for _ in 0..4 {
        client.outcome();
    }
    client.engine.stop(server::deadline());
    let queue = spool.join("queue");
    let file = |part: &str, number: usize| spool.join(part).join(ids[number].to_string());
    std::fs::write(file("state", 0), "{\"version\": 1").unwrap();
    std::fs::write(file("queue", 1), "short").unwrap();
    let whole = std::fs::read(file("queue", 2)).unwrap();
    std::fs::write(file("queue", 2), &whole[1..]).unwrap();
    std::fs::write(queue.join("stray"), "").unwrap();
    let engine = Engine::new(spool.clone(), Settings::default(), Box::new(io::sink())).unwrap();
    let left = engine.list().unwrap();
    let problems = engine.drain();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].0.id, ids[3]);
    // Each with its state, but for the stray one.
    assert_eq!(std::fs::read_dir(spool.join("corrupt")).unwrap().count(), 7);
    assert_eq!(std::fs::read_dir(spool.join("state")).unwrap().count(), 1);
}

#[test]
fn a_message_is_accepted_at_the_cost_of_two_flushes() {
    let flushes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&flushes);
    let hook = move |call: Call, _: &Path| {
        let is_flush = matches!(call, Call::SyncFile | Call::SyncDirectory);
        count.fetch_add(usize::from(is_flush), Ordering::SeqCst);
        Ok(())
    };
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path().join("a/b"), Fs::with_hook(Arc::new(hook))).unwrap();
    // The directories: those of the spool, and the two that lead to it.
    assert_eq!(flushes.swap(0, Ordering::SeqCst), 7 + 2);
    for message in [MESSAGE.to_vec(), MESSAGE.repeat(100_000)] {
        let to = rs_smtpmail::mail::Path::parse("you@example.com", "to").unwrap();
        let server = target(25, StreamType::Plain);
        let sender = rs_smtpmail::mail::Path::null();
        let mut entry = Entry::new(
            EntryId::new(),
            sender,
            vec![to],
            server,
            Wishes::default(),
            Timestamp(1),
        );
        spool.commit(&mut entry, &message.into()).unwrap();
        assert_eq!(flushes.swap(0, Ordering::SeqCst), 2);
        assert_eq!(spool.load(entry.id).unwrap(), entry);
    }
}

#[test]
fn an_entry_of_any_length_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path().join("spool"), Fs::default()).unwrap();
    // Around the number of octets that are read at once from the end of a file.
    for length in (0..60)
        .chain(3_300..4_100)
        .step_by(3)
        .chain([10_000, 100_000])
    {
        let to = rs_smtpmail::mail::Path::parse("you@example.com", "to").unwrap();
        let server = target(25, StreamType::Plain);
        let sender = rs_smtpmail::mail::Path::null();
        let wishes = Wishes {
            copy: Some("x".repeat(length)),
            ..Wishes::default()
        };
        let mut entry = Entry::new(
            EntryId::new(),
            sender,
            vec![to],
            server,
            wishes,
            Timestamp(1),
        );
        spool
            .commit(&mut entry, &b"A: b\n\nc\n"[..].into())
            .unwrap();
        assert_eq!(spool.load(entry.id).unwrap(), entry);
        assert_eq!(spool.message(entry.id).unwrap(), b"A: b\r\n\r\nc\r\n");
        let claim = spool.claim(entry.id).unwrap().unwrap();
        assert!(spool.claim(entry.id).unwrap().is_none());
        spool.settle(&claim).unwrap();
        drop(claim);
        for part in ["queue", "state", "lock", "tmp", "sending"] {
            let mut left = std::fs::read_dir(spool.directory().join(part)).unwrap();
            assert!(left.next().is_none(), "{part}");
        }
    }
}
