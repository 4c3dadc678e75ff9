//! The fault script: every stage, every action.

use super::{Client, End, code};
use smtp_test_server::{Ending, Extension, Gate, Options, Rule, Server, Stage, Tls, parse_script};

/// A whole session against a server with this rule, until it is cut; returns what was reached.
fn session(rule: Rule) -> (Server, Vec<&'static str>, End) {
    let server = Server::start(
        Options::new(Tls::StartTls)
            .without(Extension::Auth)
            .rule(rule),
    );
    let mut client = Client::connect(server.address());
    let mut reached = Vec::new();
    let lines = [
        ("HELO", "HELO x\r\n"),
        ("EHLO", "EHLO x\r\n"),
        ("NOOP", "NOOP\r\n"),
        ("MAIL", "MAIL FROM:<a@x>\r\n"),
        ("RCPT", "RCPT TO:<b@x>\r\n"),
        ("BDAT", "BDAT 3\r\na\r\n"),
        ("RSET", "RSET\r\n"),
        ("MAIL", "MAIL FROM:<a@x>\r\n"),
        ("RCPT", "RCPT TO:<b@x>\r\n"),
        ("DATA", "DATA\r\n"),
        ("content", "text\r\n.\r\n"),
        ("STARTTLS", "STARTTLS\r\n"),
        ("QUIT", "QUIT\r\n"),
    ];
    let mut ahead = "";
    for (name, line) in std::iter::once(("greeting", "")).chain(lines) {
        ahead = name;
        if name == "STARTTLS" {
            client.send(line);
            let Ok(_) = client.line() else { break };
            reached.push(name);
            let Ok(next) = client.start_tls(super::trusting(&server)) else {
                return (server, reached, End::Fin);
            };
            client = next;
            client.send("EHLO x\r\n");
            client.reply();
            continue;
        }
        client.send(line);
        match client.line() {
            Ok(first) if first.as_bytes()[3] == b'-' => drop(client.reply()),
            Ok(_) => {}
            Err(_) => break,
        }
        reached.push(name);
    }
    assert_ne!(ahead, "");
    let end = match client.line() {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => End::Reset,
        _ => End::Fin,
    };
    (server, reached, end)
}

#[test]
fn every_stage_can_be_cut() {
    for stage in Stage::all() {
        // No AUTH in that session.
        if matches!(stage, Stage::Auth | Stage::AuthResponse) {
            continue;
        }
        let rule = Rule::at(stage).close();
        let (server, reached, end) = session(rule.clone());
        assert_eq!((rule.hits(), end), (1, End::Fin), "{stage:?}");
        let last = match stage {
            Stage::Greeting => None,
            Stage::Helo => Some("greeting"),
            Stage::Ehlo => Some("HELO"),
            Stage::Noop => Some("EHLO"),
            Stage::Mail => Some("NOOP"),
            Stage::Rcpt => Some("MAIL"),
            Stage::Bdat => Some("RCPT"),
            Stage::Rset => Some("BDAT"),
            Stage::Data => Some("RCPT"),
            // The BDAT transaction before never comes to its end.
            Stage::Content | Stage::Final => Some("DATA"),
            Stage::StartTls => Some("content"),
            Stage::TlsHandshake => Some("STARTTLS"),
            Stage::Quit => Some("STARTTLS"),
            Stage::Auth | Stage::AuthResponse => unreachable!(),
        };
        assert_eq!(reached.last().copied(), last, "{stage:?}");
        let messages = server.messages();
        match stage {
            Stage::Final => assert!(!messages[0].confirmed),
            Stage::StartTls | Stage::TlsHandshake | Stage::Quit => {
                assert!(messages[0].confirmed);
            }
            _ => assert!(messages.is_empty(), "{stage:?}"),
        }
    }
}

#[test]
fn connections_can_be_reset_and_hang() {
    let rule = Rule::at(Stage::Mail).reset();
    let (_, reached, _) = session(rule);
    assert_eq!(reached.last(), Some(&"NOOP"));
    let server = Server::start(Options::default().rule(Rule::at(Stage::Noop).reset()));
    let mut client = Client::ready(&server);
    client.send("NOOP\r\n");
    assert_eq!(client.end(), End::Reset);

    let hang = Rule::at(Stage::Noop).hang();
    let server = Server::start(Options::default().rule(hang.clone()));
    let mut client = Client::ready(&server);
    client.send("NOOP\r\n");
    server.wait_for("the rule", |_| hang.hits() == 1);
    assert!(server.connections()[0].open);
    drop(client);
    server.wait_for("the end", |log| !log.connections[0].open);
}

#[test]
fn rules_are_narrowed_down() {
    let server = Server::start(Options::default());
    server.add_rule(
        Rule::at(Stage::Rcpt)
            .matching("bad@")
            .reply(550, "5.1.1 No"),
    );
    server.add_rule(Rule::at(Stage::Rcpt).nth(3).reply(451, "4.3.0 Later\nmuch"));
    server.add_rule(
        Rule::at(Stage::Mail)
            .connection(2)
            .once()
            .reply(452, "Full"),
    );
    let mut client = Client::ready(&server);
    client.dialogue(&[
        ("MAIL FROM:<a@x>", 250),
        ("RCPT TO:<one@x>", 250),
        ("RCPT TO:<bad@x>", 550),
        ("RCPT TO:<bad@x>", 550),
        ("RCPT TO:<two@x>", 250),
    ]);
    assert_eq!(
        client.ask("RCPT TO:<three@x>"),
        "451-4.3.0 Later\r\n451 much\r\n"
    );
    client.dialogue(&[("DATA", 354), (".", 250)]);
    assert_eq!(server.messages()[0].addresses(), ["one@x", "two@x"]);
    let mut client = Client::ready(&server);
    client.dialogue(&[("MAIL FROM:<a@x>", 452), ("MAIL FROM:<a@x>", 250)]);
    server.set_rules(Vec::new());
    client.dialogue(&[("RCPT TO:<bad@x>", 250)]);
}

#[test]
fn final_replies_decide_over_the_message() {
    for (rule, stored, confirmed) in [
        (
            Rule::at(Stage::Final).reply(451, "4.3.0 Later"),
            false,
            false,
        ),
        (Rule::at(Stage::Final).reply(250, "Fine"), true, true),
        (Rule::at(Stage::Final).raw("garbage\r\n"), true, false),
        (Rule::at(Stage::Final).then(Ending::Close), true, true),
    ] {
        let server = Server::start(Options::default().rule(rule));
        let mut client = Client::ready(&server);
        client.dialogue(&[
            ("MAIL FROM:<a@x>", 250),
            ("RCPT TO:<b@x>", 250),
            ("DATA", 354),
        ]);
        client.send("text\r\n.\r\n");
        client.line().unwrap();
        let messages = server.messages();
        assert_eq!(messages.len(), usize::from(stored));
        assert!(messages.iter().all(|one| one.confirmed == confirmed));
    }
}

#[test]
fn content_is_cut_where_it_is_told() {
    let line = [&[b'a'; 98][..], b"\r\n"].concat();
    for (octets, chunked) in [
        (0, false),
        (100, false),
        (5000, false),
        (0, true),
        (5000, true),
    ] {
        let rule = Rule::at(Stage::Content).after_bytes(octets).close();
        let server = Server::start(Options::default().rule(rule.clone()));
        let mut client = Client::ready(&server);
        client.dialogue(&[("MAIL FROM:<a@x>", 250), ("RCPT TO:<b@x>", 250)]);
        if chunked {
            client.send("BDAT 10000 LAST\r\n");
        } else {
            client.dialogue(&[("DATA", 354)]);
        }
        client.send(line.repeat(octets as usize / 100));
        assert_eq!(client.end(), End::Fin, "{octets} {chunked}");
        assert_eq!(rule.hits(), 1);
        assert!(server.messages().is_empty());
    }
}

#[test]
fn a_reply_inside_the_content_takes_the_place_of_the_last() {
    for chunked in [false, true] {
        let rule = Rule::at(Stage::Content).after_bytes(1).once();
        let rule = rule.reply(452, "4.3.1 Disk full");
        let server = Server::start(Options::default().rule(rule));
        let mut client = Client::ready(&server);
        client.dialogue(&[("MAIL FROM:<a@x>", 250), ("RCPT TO:<b@x>", 250)]);
        if chunked {
            client.dialogue(&[("BDAT 6 LAST\r\ntext", 452)]);
        } else {
            client.dialogue(&[("DATA", 354)]);
            client.send("text\r\n.\r\n");
            assert_eq!(code(&client.reply()), 452);
        }
        assert_eq!(code(&client.message(b"text\r\n")), 250);
        assert_eq!(server.messages().len(), 1);
    }
}

#[test]
fn gates_hold_until_released() {
    let gate = Gate::new("final");
    let server = Server::start(Options::default().rule(Rule::at(Stage::Final).hold(&gate)));
    let mut client = Client::ready(&server);
    client.dialogue(&[
        ("MAIL FROM:<a@x>", 250),
        ("RCPT TO:<b@x>", 250),
        ("DATA", 354),
    ]);
    client.send("text\r\n.\r\n");
    gate.wait_reached();
    assert!(server.messages().is_empty());
    assert!(server.release("final") && !server.release("other"));
    assert_eq!(code(&client.reply()), 250);
    assert_eq!(server.with_log(|log| log.gates.clone()), ["final"]);
}

#[test]
fn floods_last_until_the_client_goes() {
    let rule = Rule::at(Stage::Ehlo).flood("250-x\r\n");
    let server = Server::start(Options::default().rule(rule));
    let mut client = Client::connect(server.address());
    client.reply();
    client.send("EHLO x\r\n");
    for _ in 0..1000 {
        assert_eq!(client.line().unwrap(), "250-x\r\n");
    }
    drop(client);
    server.wait_for("the end", |log| !log.connections[0].open);
}

#[test]
fn auth_can_be_disturbed() {
    let server = Server::start(Options::default());
    let mut client = Client::ready(&server);
    server.set_rules(vec![Rule::at(Stage::Auth).reply(454, "4.7.0 Later")]);
    client.dialogue(&[("AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk", 454)]);
    server.set_rules(vec![Rule::at(Stage::AuthResponse).nth(2).reply(535, "No")]);
    client.dialogue(&[
        ("AUTH LOGIN", 334),
        ("dXNlcg==", 334),
        ("cGFzcyB3b3Jk", 535),
    ]);
    server.set_rules(vec![Rule::at(Stage::Auth).reply(334, "!!")]);
    client.dialogue(&[("AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk", 334), ("*", 535)]);
    server.set_rules(vec![Rule::at(Stage::Auth).reply(235, "Whoever you are")]);
    client.dialogue(&[("AUTH PLAIN", 235)]);
    let logins = server.connections()[0].logins.clone();
    let accepted: Vec<bool> = logins.iter().map(|login| login.accepted).collect();
    assert_eq!(accepted, [false, false, false, true]);
}

#[test]
fn scripts_are_read() {
    let rules = parse_script(
        r#"[{"stage": "rcpt", "match": "bad@", "reply": ["550 5.1.1 No", "never"], "times": 2},
            {"stage": "ehlo", "raw": "250-x\r\n", "repeat": 3, "times": "once"},
            {"stage": "quit", "then": "reset", "times": "always"},
            {"stage": "noop", "raw_base64": "MjUwIP8NCg=="},
            {"stage": "content", "after_bytes": 5, "end": "stall", "connection": 9},
            {"stage": "final", "hold": "gate", "nth": 2}]"#,
    )
    .unwrap();
    let server = Server::start(Options {
        rules,
        ..Options::default()
    });
    let mut client = Client::connect(server.address());
    client.reply();
    client.send("EHLO x\r\n");
    for _ in 0..3 {
        assert_eq!(client.line().unwrap(), "250-x\r\n");
    }
    client.dialogue(&[("EHLO x", 250), ("MAIL FROM:<a@x>", 250)]);
    assert_eq!(
        client.ask("RCPT TO:<bad@x>"),
        "550-5.1.1 No\r\n550 never\r\n"
    );
    client.dialogue(&[("RCPT TO:<bad@x>", 550), ("RCPT TO:<bad@x>", 250)]);
    client.dialogue(&[("QUIT", 221)]);
    assert_eq!(client.end(), End::Reset);
}

#[test]
fn bad_scripts_are_explained() {
    for (script, reason) in [
        ("{}", "fault script"),
        (r#"[{"stage": "nowhere", "end": "close"}]"#, "nowhere"),
        (r#"[{"stage": "mail"}]"#, "rule 1: no action"),
        (
            r#"[{"stage": "mail", "end": "close", "raw": "x"}]"#,
            "more than one",
        ),
        (r#"[{"stage": "mail", "reply": "hello"}]"#, "three digits"),
        (r#"[{"stage": "mail", "ending": "close"}]"#, "ending"),
    ] {
        let error = parse_script(script).unwrap_err();
        assert!(error.contains(reason), "{script}: {error}");
    }
}
