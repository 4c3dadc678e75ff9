//! Dialogues with a model of a server that keeps to the protocol, and to nothing else: it
//! refuses what it likes, leaves with 421 when it likes, and the line is cut anywhere.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use super::{Ended, Part, Pipeline, Want};
use crate::mail::{Port, Server as Address, StreamType};
use crate::smtp::capabilities::Capabilities;
use crate::smtp::content::Content;
use crate::smtp::reply::ReplyReader;
use crate::smtp::terms::{Limits, Outgoing, Terms};
use crate::smtp::transaction::Transaction;
use crate::smtp::trouble::{Disposition, Scope, Stage, Trouble};
use crate::spool::{Entry, RecipientState, Wishes};
use std::time::Duration;
use std::time::Instant;

/// A recipient: its message, and its place in it.
type Recipient = (usize, usize);

/// Numbers that look random, the same for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }
}

/// What a server does where it is free to choose.
#[derive(Clone, Copy, PartialEq)]
enum Choice {
    Accept,
    Refuse(&'static str),
    Leave,
}

const REFUSALS: [&str; 5] = [
    "450 no",
    "550 5.1.1 no",
    "452 4.5.3 no",
    "555 no",
    "550 5.7.1 no",
];

enum Reading {
    Commands,
    /// By DATA, until the dot.
    Lines,
    /// By BDAT, so many octets.
    Chunk(usize),
}

/// A server, from commands to replies. Choices come from `choices`, one a reply, and
/// after those from the dice, or are to accept.
struct Server {
    is_lmtp: bool,
    choices: Vec<Choice>,
    replies: usize,
    input: Vec<u8>,
    output: Vec<u8>,
    reading: Reading,
    mail: Option<usize>,
    recipients: Vec<usize>,
    is_chunk_refused: bool,
    is_closed: bool,
    accepted: BTreeSet<Recipient>,
}

impl Server {
    fn new(is_lmtp: bool, choices: Vec<Choice>) -> Self {
        Server {
            is_lmtp,
            choices,
            replies: 0,
            input: Vec::new(),
            output: Vec::new(),
            reading: Reading::Commands,
            mail: None,
            recipients: Vec::new(),
            is_chunk_refused: false,
            is_closed: false,
            accepted: BTreeSet::new(),
        }
    }

    /// Replies, `good` if it so chooses or to a `fault` of the client's with that.
    fn answer(&mut self, good: &str, fault: Option<&str>, dice: Option<&mut Dice>) -> bool {
        if self.replies == self.choices.len() {
            let choice = dice.map_or(Choice::Accept, |dice| match dice.roll(60) {
                0 => Choice::Leave,
                1..8 => Choice::Refuse(REFUSALS[dice.roll(5) as usize]),
                _ => Choice::Accept,
            });
            self.choices.push(choice);
        }
        let choice = self.choices[self.replies];
        self.replies += 1;
        let text = match (choice, fault) {
            (Choice::Leave, _) => "421 bye",
            (_, Some(fault)) => fault,
            (Choice::Refuse(refusal), None) => refusal,
            (Choice::Accept, None) => good,
        };
        self.is_closed |= choice == Choice::Leave;
        self.output.extend(format!("{text}\r\n").bytes());
        choice == Choice::Accept && fault.is_none()
    }

    fn read(&mut self, octets: &[u8], mut dice: Option<&mut Dice>) {
        self.input.extend_from_slice(octets);
        while !self.is_closed {
            if let Reading::Chunk(size) = self.reading {
                if self.input.len() < size {
                    return;
                }
                self.input.drain(..size);
                self.reading = Reading::Commands;
                self.end(true, dice.as_deref_mut());
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', &self.input) else {
                return;
            };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            match self.reading {
                Reading::Lines if line == ".\r\n" => {
                    self.reading = Reading::Commands;
                    self.end(false, dice.as_deref_mut());
                }
                Reading::Lines => {}
                _ => self.command(line.trim_end(), dice.as_deref_mut()),
            }
        }
    }

    fn command(&mut self, line: &str, dice: Option<&mut Dice>) {
        let digits = |text: &str| -> usize {
            let digits = text.chars().skip_while(|c| !c.is_ascii_digit());
            let digits = digits.take_while(char::is_ascii_digit);
            digits.collect::<String>().parse().unwrap()
        };
        let no_mail = self.mail.is_none().then_some("503 MAIL first");
        match line.split(' ').next().unwrap() {
            "MAIL" => {
                let is_open = self.mail.is_some() || self.is_chunk_refused;
                if self.answer("250 ok", is_open.then_some("503 RSET first"), dice) {
                    self.mail = Some(digits(line));
                }
            }
            "RCPT" => {
                if self.answer("250 ok", no_mail, dice) {
                    self.recipients.push(digits(line));
                }
            }
            "DATA" => {
                let nobody = self.recipients.is_empty().then_some("554 nobody");
                if self.answer("354 go on", no_mail.or(nobody), dice) {
                    self.reading = Reading::Lines;
                }
            }
            "BDAT" => self.reading = Reading::Chunk(digits(line)),
            "RSET" => {
                self.mail = None;
                self.recipients.clear();
                self.is_chunk_refused = false;
                self.answer("250 ok", Some("250 ok"), dice);
            }
            other => panic!("{other}"),
        }
    }

    /// The content is here.
    fn end(&mut self, is_chunk: bool, mut dice: Option<&mut Dice>) {
        let recipients = std::mem::take(&mut self.recipients);
        let fault = recipients.is_empty().then_some("503 nobody");
        let mail = self.mail.take();
        if self.is_lmtp && !is_chunk {
            for recipient in recipients {
                if !self.is_closed && self.answer("250 ok", None, dice.as_deref_mut()) {
                    self.accepted.insert((mail.unwrap(), recipient));
                }
            }
        } else if self.answer("250 ok", fault, dice) {
            let all = recipients.into_iter().map(|one| (mail.unwrap(), one));
            self.accepted.extend(all);
        } else if is_chunk {
            self.is_chunk_refused = true;
        }
    }
}

/// What waits to be handed to the system.
#[derive(Default)]
struct Line {
    octets: Vec<u8>,
    handed: u64,
}

impl Outgoing for Line {
    fn command(&mut self, command: &str) {
        self.octets.extend(command.bytes());
    }
    fn content(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }
    fn show(&self, _: &str) {}
    fn taken(&self) -> u64 {
        self.handed + self.octets.len() as u64
    }
    fn backlog(&self) -> usize {
        self.octets.len()
    }
}

fn terms(dice: &mut Dice) -> Terms {
    let offered = Capabilities {
        pipelining: !dice.once_in(4),
        chunking: !dice.once_in(3),
        size: Some(0),
        mail_max: dice.once_in(8).then_some(4),
        ..Capabilities::default()
    };
    let accepted = dice.roll(3) as usize;
    Terms {
        endpoint: "server:25".to_owned(),
        offered,
        limits: Limits {
            reply: Duration::from_secs(60),
        },
        is_lmtp: dice.once_in(5),
        is_encrypted: false,
        can_log_in: false,
        begun: accepted,
        accepted,
        needs_reset: false,
    }
}

const MOST_MESSAGES: usize = 24;
const MOST_RECIPIENTS: usize = 3;

/// An entry for each number of a message, with all recipients.
fn entries() -> Vec<Entry> {
    (0..MOST_MESSAGES).map(entry).collect()
}

fn entry(number: usize) -> Entry {
    let path = |text: String| crate::mail::Path::parse(&text, "field").unwrap();
    let to = (0..MOST_RECIPIENTS).map(|one| path(format!("r{one}@x")));
    let to = to.collect();
    let port = Port::Number(25);
    let (host, helo) = ("server".to_owned(), "client".to_owned());
    let server = Address::new(host, port, StreamType::Plain, None, helo, false).unwrap();
    Entry::new(
        crate::spool::EntryId::new(),
        path(format!("m{number}@x")),
        to,
        server,
        Wishes::default(),
        crate::mail::Timestamp(1),
    )
}

fn transaction(terms: &Terms, entry: &Entry, size: usize) -> Transaction {
    let bytes = [".".repeat(size.min(900)), "\r\n".to_owned()].concat();
    let bytes = bytes.repeat(size.div_ceil(900)).into_bytes();
    let size = bytes.len() as u64;
    let content = Content {
        source: Box::new(Cursor::new(bytes)),
        size,
        needs_eight_bit: false,
    };
    Transaction::prepare(terms, entry, None, Ok(content)).unwrap_or_else(|_| panic!("refused"))
}

fn trouble() -> Trouble {
    Trouble {
        endpoint: "server:25".to_owned(),
        stage: Stage::Content,
        disposition: Disposition::Retry,
        scope: Scope::Site,
        what: "the connection broke".to_owned(),
        reply: None,
    }
}

#[derive(Default)]
struct Seen {
    states: BTreeMap<Recipient, RecipientState>,
    cancelled: BTreeSet<usize>,
    released: BTreeSet<usize>,
    given: BTreeMap<usize, usize>,
}

impl Seen {
    fn take(&mut self, ended: Vec<(usize, Ended)>) {
        for (number, ended) in ended {
            for recipient in 0..self.given[&number] {
                let state = match &ended {
                    Ended::Decided(verdict) => verdict.outcomes[recipient].state,
                    Ended::Untouched | Ended::Again { .. } => RecipientState::Pending,
                };
                let before = self.states.insert((number, recipient), state);
                assert_eq!(before, None, "{number} was decided twice");
            }
        }
    }
}

/// One session. Returns how many recipients were left unconfirmed.
fn dialogue(seed: u64, entries: &[Entry]) -> usize {
    let mut dice = Dice(seed);
    let mut pipeline = Pipeline::new(terms(&mut dice), Instant::now());
    let mut server = Server::new(pipeline.terms.is_lmtp, Vec::new());
    let (mut line, mut seen, mut replies) =
        (Line::default(), Seen::default(), ReplyReader::default());
    let now = Instant::now();
    let messages = 1 + dice.roll(MOST_MESSAGES as u64) as usize;
    let cuts = 20 + dice.roll(400);
    // Handed to the system, and of those what the server has read.
    let (mut stream, mut read) = (Vec::new(), 0);
    // Octets of replies, and replies, that have come.
    let (mut delivered, mut received) = (0, 0);
    loop {
        let mut permits = |number: &usize, part: Part| {
            if part == Part::Last && !seen.cancelled.contains(number) {
                seen.released.insert(*number);
            }
            !seen.cancelled.contains(number)
        };
        pipeline.write(&mut line, &mut permits, now);
        seen.take(pipeline.take_ended());
        match pipeline.wants() {
            Want::Over(_) => break,
            Want::Messages(most) => {
                let left = messages - seen.given.len();
                let count = left.min(1 + dice.roll(most as u64) as usize);
                assert!(most <= 16);
                if count == 0 || dice.once_in(20) {
                    pipeline.is_dry();
                    continue;
                }
                for _ in 0..count {
                    let number = seen.given.len();
                    let recipients = 1 + dice.roll(MOST_RECIPIENTS as u64) as usize;
                    let mut entry = entries[number].clone();
                    entry.recipients.truncate(recipients);
                    let size = [10, 100, 40_000, 80_000][dice.roll(40).saturating_sub(36) as usize];
                    let transaction = transaction(pipeline.terms(), &entry, size);
                    seen.given.insert(number, recipients);
                    pipeline.add(number, transaction, now);
                }
            }
            Want::Mark => {
                assert!(!pipeline.unmarked().is_empty());
                pipeline.marked(Ok(()));
            }
            Want::Reply(_) => {
                let is_stuck = line.octets.is_empty()
                    && (server.is_closed || read == stream.len())
                    && delivered == server.output.len();
                assert!(!is_stuck || server.is_closed, "{seed}: waits for ever");
                if is_stuck || dice.once_in(cuts) {
                    // What the server still reads, the client never hears of.
                    let last = read + dice.roll((stream.len() - read) as u64 + 1) as usize;
                    server.read(&stream[read..last], Some(&mut dice));
                    pipeline.cut(trouble());
                    continue;
                }
                let some = |dice: &mut Dice, octets: usize| {
                    octets.min(1 + dice.roll(if octets > 2000 { 50_000 } else { 90 }) as usize)
                };
                match dice.roll(16) {
                    0..5 => {
                        let count = some(&mut dice, line.octets.len());
                        stream.extend(line.octets.drain(..count));
                        line.handed += count as u64;
                        pipeline.handed(line.handed, now);
                    }
                    5..10 => {
                        let count = some(&mut dice, stream.len() - read);
                        server.read(&stream[read..read + count], Some(&mut dice));
                        read += count;
                    }
                    10..15 => {
                        let count = some(&mut dice, server.output.len() - delivered);
                        replies.feed(&server.output[delivered..delivered + count]);
                        delivered += count;
                        while let Some(reply) = replies.next_reply().unwrap() {
                            received += 1;
                            pipeline.reply(reply, now);
                        }
                    }
                    _ => {
                        let number = dice.roll(60) as usize;
                        if number < seen.given.len() && !seen.released.contains(&number) {
                            seen.cancelled.insert(number);
                        }
                    }
                }
            }
        }
    }
    let is_lmtp = server.is_lmtp;
    let (_, ended) = pipeline.close();
    seen.take(ended);
    // The server that accepts all that it can, having replied as it did.
    server.choices.truncate(received);
    let mut willing = Server::new(is_lmtp, server.choices.clone());
    willing.read(&stream, None);
    for (&(number, recipient), &state) in &seen.states {
        let key = &(number, recipient);
        let (is_accepted, may_be) = (
            server.accepted.contains(key),
            willing.accepted.contains(key),
        );
        let is_right = match state {
            RecipientState::Accepted => is_accepted,
            RecipientState::Unconfirmed => may_be,
            RecipientState::Pending | RecipientState::Failed => !is_accepted && !may_be,
        };
        assert!(
            is_right
                && !(is_accepted
                    && seen.cancelled.contains(&number)
                    && !seen.released.contains(&number)),
            "seed {seed}: {key:?} is {state:?}, accepted: {is_accepted}, can be: {may_be}"
        );
    }
    assert_eq!(seen.states.len(), seen.given.values().sum::<usize>());
    let unconfirmed = |state: &&RecipientState| **state == RecipientState::Unconfirmed;
    seen.states.values().filter(unconfirmed).count()
}

#[test]
fn whatever_a_true_server_does_each_recipient_is_accounted_for() {
    let entries = entries();
    let unconfirmed: usize = (0..20_000).map(|seed| dialogue(seed, &entries)).sum();
    assert!(
        unconfirmed > 100,
        "{unconfirmed}: the line was hardly ever cut"
    );
}

#[test]
fn a_stage_has_one_deadline_which_only_progress_with_content_renews() {
    let mut terms = terms(&mut Dice(0));
    terms.is_lmtp = false;
    terms.accepted = 0;
    terms.offered.chunking = true;
    terms.offered.pipelining = true;
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut pipeline = Pipeline::new(terms, start);
    let mut line = Line::default();
    let permits = &mut |_: &usize, _| true;
    let transaction = transaction(&pipeline.terms, &entry(0), 80_000);
    pipeline.add(0, transaction, start);
    let until = |pipeline: &mut Pipeline<usize>| match pipeline.wants() {
        Want::Reply(until) => until.saturating_duration_since(start).as_secs(),
        other => panic!("{other:?}"),
    };
    let hand = |line: &mut Line, pipeline: &mut Pipeline<usize>, octets: usize, seconds| {
        line.octets.drain(..octets);
        line.handed += octets as u64;
        pipeline.handed(line.handed, at(seconds));
    };
    pipeline.write(&mut line, permits, start);
    // Not by octets of commands, nor by looking.
    hand(&mut line, &mut pipeline, 10, 20);
    pipeline.write(&mut line, permits, at(20));
    assert_eq!(until(&mut pipeline), 60);
    let mut replies = ReplyReader::default();
    replies.feed(&b"250 ok\r\n".repeat(1 + MOST_RECIPIENTS));
    while let Some(reply) = replies.next_reply().unwrap() {
        pipeline.reply(reply, at(30));
    }
    pipeline.write(&mut line, permits, at(30));
    assert_eq!(until(&mut pipeline), 90);
    hand(&mut line, &mut pipeline, 40_000, 50);
    pipeline.write(&mut line, permits, at(50));
    assert!(matches!(pipeline.wants(), Want::Mark));
    pipeline.marked(Ok(()));
    pipeline.write(&mut line, permits, at(50));
    assert_eq!(
        (pipeline.stage(), until(&mut pipeline)),
        (Stage::Content, 110)
    );
    // The last octets: the server has twice the time to say what becomes of them.
    let rest = line.octets.len();
    hand(&mut line, &mut pipeline, rest - 1, 60);
    assert_eq!(
        (pipeline.stage(), until(&mut pipeline)),
        (Stage::Content, 120)
    );
    hand(&mut line, &mut pipeline, 1, 70);
    assert_eq!(
        (pipeline.stage(), until(&mut pipeline)),
        (Stage::EndOfData, 190)
    );
}
