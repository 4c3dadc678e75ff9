//! What the server writes for other processes, and its command line.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Client, code, trusting};
use smtp_test_server::command_line::{Command, parse};
use smtp_test_server::{Authority, Extension, Leaf, Options, Server, Support, Tls};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn messages_become_files_that_are_numbered_on() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        directory: Some(directory.path().to_owned()),
        statistics: Some(directory.path().join("stats.json")),
        ..Options::default()
    };
    for number in 1..=2 {
        let mut server = Server::start(options());
        let mut client = Client::ready(&server);
        let content = format!("message {number}\r\n");
        assert_eq!(code(&client.message(content.as_bytes())), 250);
        let base = directory.path().join(format!("{number:04}"));
        assert_eq!(
            fs::read(base.with_extension("eml")).unwrap(),
            content.as_bytes()
        );
        let envelope = json(&base.with_extension("json"));
        assert_eq!(envelope["sender"], "a@example.org");
        assert_eq!(envelope["recipients"][0]["address"], "b@example.org");
        assert_eq!(envelope["tls"], Value::Null);
        assert_eq!(envelope["confirmed"], true);
        client.send("NONSENSE\n");
        client.reply();
        client.ask("QUIT");
        server.stop();
        let statistics = json(&directory.path().join("stats.json"));
        assert_eq!(statistics["messages"], 1);
        assert_eq!(statistics["connections"][0]["quit"], true);
        assert_eq!(statistics["turns"], 7);
        assert_eq!(statistics["violations"].as_array().unwrap().len(), 2);
        assert_eq!(statistics["port"], server.port());
    }
}

#[test]
fn the_authority_outlives_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let first =
        Server::start(Options::new(Tls::Implicit).authority(&Authority::at(&file).unwrap().into()));
    let config = trusting(&first);
    let trusted = fs::read(&file).unwrap();
    assert_eq!(trusted, first.authority().pem().as_bytes());
    drop(first);
    let second =
        Server::start(Options::new(Tls::Implicit).authority(&Authority::at(&file).unwrap().into()));
    assert_eq!(fs::read(&file).unwrap(), trusted);
    let client = Client::connect(second.address());
    assert_eq!(code(&client.start_tls(config).unwrap().reply()), 220);
}

#[test]
fn the_command_line_makes_options() {
    let line = "--port 2525 --tls starttls --cert expired --dir d --no-ext CHUNKING --refuse-ext dsn \
                --ext LIMITS --mech LOGIN --require-auth --no-ehlo --rtt-ms 0.5 --no-stdin";
    let Ok(Command::Serve { options, stdin }) = parse(words(line)) else {
        panic!();
    };
    assert!(!stdin);
    assert_eq!((options.port, options.tls), (2525, Tls::StartTls));
    assert_eq!(options.leaf, Leaf::Expired);
    assert_eq!(
        options.statistics.as_deref(),
        Some(Path::new("d/stats.json"))
    );
    assert_eq!(options.extensions.get(&Extension::Chunking), None);
    assert_eq!(
        options.extensions.get(&Extension::Dsn),
        Some(&Support::Refused)
    );
    assert!(options.extensions.contains_key(&Extension::Limits));
    assert_eq!(options.mechanisms, ["LOGIN"]);
    assert!(options.require_auth && !options.ehlo);
    assert_eq!(options.round_trip, Some(Duration::from_micros(500)));
    assert_eq!(options.password, "pass word");
}

#[test]
fn the_command_line_knows_the_relay_and_its_limits() {
    let Ok(Command::Relay { to, round_trip, .. }) = parse(words("relay --to 25 --rtt-ms 50"))
    else {
        panic!();
    };
    assert_eq!((to, round_trip), (25, Duration::from_millis(50)));
    for wrong in [
        "--port",
        "--port x",
        "--tls maybe",
        "--no-ext FOO",
        "--what",
        "relay",
    ] {
        assert!(parse(words(wrong)).is_err(), "{wrong}");
    }
}
