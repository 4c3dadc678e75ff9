//! What is found in netrc-format files is what Emacs's auth-source finds: generated files
//! and queries, each searched by both.

use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use rs_smtpmail::credentials::{Query, Restriction, netrc, read_source};

const FILES: usize = 1500;
const QUERIES_A_FILE: usize = 7;

/// The same numbers in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let sides = u64::try_from(sides).unwrap();
        usize::try_from((mixed ^ (mixed >> 31)) % sides).unwrap()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.throw(chances) == 0
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.throw(words.len())]
    }
}

const HOSTS: &[&str] = &[
    "mail.example",
    "mail.example",
    "mail.example",
    "smtp.example",
    "MAIL.example",
    "bücher.example",
];
const PORTS: &[&str] = &["587", "smtp", "25", "465", "submission", "0587", "587 "];
const USERS: &[&str] = &["ann", "ben", "ann@mail.example", "jürgen", "default", "Ann"];
const MECHANISMS: &[&str] = &["plain", "login", "cram-md5", "PLAIN", "xoauth2"];

/// Characters a password may have which a reader of the format may stumble over.
const ODD: &[&str] = &[
    "'",
    "\"",
    "#",
    "\\",
    " ",
    "\t",
    "$",
    "=",
    ":",
    "%s",
    "ü",
    "€",
    "\u{1F511}",
    "\u{A0}",
    "\u{2028}",
    "machine",
    "default",
    "e\u{301}",
    "\u{7f}",
];

fn password(dice: &mut Dice) -> String {
    let mut password = String::new();
    for _ in 0..1 + dice.throw(8) {
        match dice.throw(3) {
            0 => password.push_str(dice.pick(ODD)),
            _ => password.push(char::from(b'!' + dice.throw(94) as u8)),
        }
    }
    password
}

/// `value` as somebody would write it, or somebody careless.
fn written(dice: &mut Dice, value: &str) -> String {
    let quote = match dice.throw(8) {
        0..4 if value.contains([' ', '\t']) => "'",
        0 => "'",
        1 => "\"",
        2 if dice.one_in(20) => return format!("'{value}"),
        3 if dice.one_in(20) => return format!("{value}\""),
        _ => "",
    };
    format!("{quote}{value}{quote}")
}

fn blank<'a>(dice: &mut Dice) -> &'a str {
    match dice.throw(30) {
        0 => "  ",
        1 => "\t",
        2 | 3 => "\n",
        4 => "\n    ",
        5 => "\n\n\t ",
        6 => " # machine of 'mine\n",
        7 if dice.one_in(10) => "\u{a0}",
        8 if dice.one_in(10) => "\r",
        _ => " ",
    }
}

fn pair(dice: &mut Dice, key: &str, value: &str) -> String {
    let key = match dice.throw(60) {
        0 => format!("'{key}'"),
        1 => format!("\"{key}\""),
        2 => key.to_uppercase(),
        _ => key.to_owned(),
    };
    let [before, between] = [blank(dice), blank(dice)];
    let value = written(dice, value);
    format!("{key}{between}{value}{before}")
}

fn entry(dice: &mut Dice) -> String {
    let mut pairs = Vec::new();
    match dice.throw(12) {
        0 => pairs.push("default ".to_owned()),
        1 => {
            let host = dice.pick(HOSTS);
            pairs.push(pair(dice, "host", host));
        }
        2 if dice.one_in(3) => {}
        _ => {
            let host = dice.pick(HOSTS);
            pairs.push(pair(dice, "machine", host));
        }
    }
    let first = pairs.len();
    for _ in 0..dice.throw(8) {
        let (key, value) = match dice.throw(16) {
            0..4 => (dice.pick(&["login", "user", "account"]), dice.pick(USERS)),
            4..8 => (dice.pick(&["port", "protocol"]), dice.pick(PORTS)),
            8 => ("smtp-auth", dice.pick(MECHANISMS)),
            9 => ("host", dice.pick(HOSTS)),
            10 => ("force", "yes"),
            _ => {
                let password = password(dice);
                let key = dice.pick(&["password", "password", "password", "secret"]);
                pairs.push(pair(dice, key, &password));
                continue;
            }
        };
        pairs.push(pair(dice, key, value));
    }
    // The order is free; seldom the machine comes late.
    let from = if dice.one_in(20) { 0 } else { first };
    for place in (from + 1..pairs.len()).rev() {
        pairs.swap(place, from + dice.throw(place + 1 - from));
    }
    pairs.concat()
}

fn file(dice: &mut Dice) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..dice.throw(6) {
        match dice.throw(20) {
            0 => text.push_str("# machine mail.example login 'x password y\n"),
            1 => text.push_str("macdef init\ncd /pub\nbin\nquit\n\n"),
            2 => text.push_str("\n\t\n"),
            3 if dice.one_in(3) => text.push_str(dice.pick(&["stray ", "'' ", "machine ", "' "])),
            _ => {}
        }
        text.push_str(&entry(dice));
        if !dice.one_in(10) {
            text.push('\n');
        }
    }
    match dice.throw(20) {
        0..3 => text = text.replace('\n', "\r\n"),
        3 => text = text.replacen('\n', "\r\n", 1),
        4 if dice.one_in(2) => text = text.replace('\n', "\r"),
        5 => text.insert(0, '\u{FEFF}'),
        6 => {
            let latin_1 = |c| u8::try_from(u32::from(c)).ok().filter(|c| *c != 0xFF);
            if let Some(bytes) = text.chars().map(latin_1).collect() {
                return bytes;
            }
        }
        7 => text.truncate(text.trim_end().len()),
        _ => {}
    }
    text.into_bytes()
}

/// Every printable character alone, within, before and after, in each kind of quotes.
fn file_of_passwords(c: char) -> Vec<u8> {
    let mut text = String::new();
    for (number, password) in [
        format!("{c}"),
        format!("a{c}b"),
        format!("{c}b"),
        format!("a{c}"),
    ]
    .iter()
    .enumerate()
    {
        let entry = format!("port {number} login ann password");
        for (user, quote) in [("plain", ""), ("single", "'"), ("double", "\"")] {
            writeln!(text, "machine {user} {entry} {quote}{password}{quote}").unwrap();
        }
    }
    text.into_bytes()
}

struct Case {
    file: PathBuf,
    /// Of the element of `auth-sources` that names the file.
    only: Restriction,
    query: Query,
}

impl fmt::Display for Case {
    /// As Lisp; of the strings only quotes and backslashes need escaping.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let string = |text: &str| {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{escaped}\"")
        };
        let part = |text: &Option<String>| text.as_deref().map_or("nil".to_owned(), string);
        let Query { host, port, user } = &self.query;
        let mut source = string(self.file.to_str().unwrap());
        if self.only != Restriction::default() {
            let Restriction { host, port, user } = &self.only;
            let [host, port, user] = [host, port, user].map(part);
            source = format!("(:source {source} :host {host} :port {port} :user {user})");
        }
        let (host, port, user) = (string(host), string(port), part(user));
        write!(f, "({source} {host} {port} {user})")
    }
}

/// Mostly none; and of the others many that admit `query`.
fn restriction(dice: &mut Dice, query: &Query) -> Restriction {
    let mut only = Restriction::default();
    if dice.one_in(3) {
        let mut part = |words: &[&str], own: Option<&str>| match dice.throw(6) {
            0 => Some(dice.pick(words).to_owned()),
            1..3 => own.map(str::to_owned),
            _ => None,
        };
        only.host = part(HOSTS, Some(&query.host));
        only.port = part(PORTS, Some(&query.port));
        only.user = part(USERS, query.user.as_deref());
    }
    only
}

fn cases(directory: &Path) -> Vec<Case> {
    let mut dice = Dice(7);
    let mut cases = Vec::new();
    for number in 0..FILES {
        let path = directory.join(format!("authinfo-{number}"));
        fs::write(&path, file(&mut dice)).unwrap();
        for _ in 0..QUERIES_A_FILE {
            let query = Query {
                host: dice.pick(HOSTS).to_owned(),
                port: dice.pick(&PORTS[..5]).to_owned(),
                user: dice.one_in(3).then(|| dice.pick(USERS).to_owned()),
            };
            let only = restriction(&mut dice, &query);
            let file = path.clone();
            cases.push(Case { file, only, query });
        }
    }
    for c in (' '..='~').chain(['ß', 'щ', '中']) {
        let path = directory.join(format!("password-{}", u32::from(c)));
        fs::write(&path, file_of_passwords(c)).unwrap();
        for host in ["plain", "single", "double"] {
            for port in 0..4 {
                let query = Query {
                    host: host.to_owned(),
                    port: port.to_string(),
                    user: None,
                };
                cases.push(Case {
                    file: path.clone(),
                    only: Restriction::default(),
                    query,
                });
            }
        }
    }
    cases
}

fn emacs(directory: &Path, cases: &[Case]) -> Vec<String> {
    let queries = directory.join("queries");
    let list: Vec<String> = cases.iter().map(Case::to_string).collect();
    fs::write(&queries, format!("({})", list.join("\n"))).unwrap();
    let emacs = std::env::var("EMACS").unwrap_or_else(|_| "emacs".to_owned());
    let output = Command::new(&emacs)
        .args(["-Q", "--batch", "-l"])
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/integration/netrc-differential.el"
        ))
        .arg(&queries)
        .env("HOME", directory)
        .env("LC_ALL", "C.UTF-8")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("this test needs Emacs on PATH or in $EMACS: {emacs}: {error}")
        });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{emacs}: {}: {errors}",
        output.status
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

/// What is found, in the form Emacs prints it.
fn ours(case: &Case) -> String {
    if !case.only.admits(&case.query) {
        return "none".to_owned();
    }
    let text = read_source(&case.file, None).unwrap().unwrap();
    let encode = |value: Option<&str>| match value {
        None => "-".to_owned(),
        Some(text) => format!(
            "={}",
            base64::engine::general_purpose::STANDARD.encode(text)
        ),
    };
    match netrc::search(&text, &case.query) {
        Err(_) => "error".to_owned(),
        Ok(None) => "none".to_owned(),
        Ok(Some(found)) => {
            let secret = found.secret.as_ref().map(|secret| secret.as_str());
            let parts = [found.user.as_deref(), secret, found.mechanism.as_deref()];
            format!("found {}", parts.map(encode).join(" "))
        }
    }
}

#[test]
fn finds_what_auth_source_finds() {
    let directory = tempfile::tempdir().unwrap();
    let cases = cases(directory.path());
    let expected = emacs(directory.path(), &cases);
    assert_eq!(expected.len(), cases.len(), "Emacs stopped early");
    assert!(cases.len() >= 10_000, "only {} searches", cases.len());
    let mut differing = 0;
    for (case, expected) in cases.iter().zip(&expected) {
        let found = ours(case);
        if found != *expected {
            differing += 1;
            if differing <= 5 {
                let text = fs::read(&case.file).unwrap();
                eprintln!("{}", text.escape_ascii());
                eprintln!("{case}\nEmacs: {expected}\nhere:  {found}\n");
            }
        }
    }
    assert_eq!(differing, 0, "of {} searches", cases.len());
    // The generated cases are worth something: each outcome is there often, also for
    // restricted sources.
    let restricted = |case: &Case| case.only != Restriction::default();
    for outcome in ["none", "found ="] {
        let both = cases.iter().zip(&expected);
        let both = both.filter(|(case, line)| restricted(case) && line.starts_with(outcome));
        let count = both.count();
        assert!(count >= 50, "{outcome} in restricted sources: only {count}");
    }
    for outcome in ["error", "none", "found =", "found -"] {
        let count = expected
            .iter()
            .filter(|line| line.starts_with(outcome))
            .count();
        assert!(count >= 50, "{outcome}: only {count} of {}", cases.len());
    }
}
