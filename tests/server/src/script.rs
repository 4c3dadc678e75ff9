//! The fault script: what the server does instead of its duty, and when.
//!
//! A [`Rule`] names a [`Stage`] of the session, optionally narrows it down (text of the command,
//! number of the connection, how often the stage was reached) and says what happens there. The
//! first rule that applies wins; a [`Action::Hold`] waits and then leaves the stage to the rules
//! after it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use tokio::sync::watch;

use super::deadline;
use super::reply::Reply;

/// A step of the session at which a rule may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Before the 220 greeting.
    Greeting,
    /// EHLO and LHLO; text: the name given.
    Ehlo,
    /// HELO; text: the name given.
    Helo,
    /// The STARTTLS command.
    StartTls,
    /// Before the server answers the TLS hello.
    TlsHandshake,
    /// The AUTH command; text: the mechanism.
    Auth,
    /// Each further line of an AUTH exchange; text: the mechanism.
    AuthResponse,
    /// MAIL; text: the sender.
    Mail,
    /// RCPT; text: the recipient.
    Rcpt,
    /// The DATA command; text: sender and recipients, each followed by a space.
    Data,
    /// Inside the content, see [`Point`]; text as for `Data`.
    Content,
    /// Each BDAT command; text as for `Data`.
    Bdat,
    /// The message's last byte is here, the reply is not given yet; text as for `Data`.
    Final,
    /// The RSET command.
    Rset,
    /// The NOOP command.
    Noop,
    /// The QUIT command.
    Quit,
}

/// The names of the stages in scripts.
const STAGES: &[(&str, Stage)] = &[
    ("greeting", Stage::Greeting),
    ("ehlo", Stage::Ehlo),
    ("helo", Stage::Helo),
    ("starttls", Stage::StartTls),
    ("tls-handshake", Stage::TlsHandshake),
    ("auth", Stage::Auth),
    ("auth-response", Stage::AuthResponse),
    ("mail", Stage::Mail),
    ("rcpt", Stage::Rcpt),
    ("data", Stage::Data),
    ("content", Stage::Content),
    ("bdat", Stage::Bdat),
    ("final", Stage::Final),
    ("rset", Stage::Rset),
    ("noop", Stage::Noop),
    ("quit", Stage::Quit),
];

impl Stage {
    /// Every stage, in the order of a session.
    pub fn all() -> impl Iterator<Item = Stage> {
        STAGES.iter().map(|(_, stage)| *stage)
    }

    /// The stage's name in scripts.
    pub fn name(self) -> &'static str {
        STAGES
            .iter()
            .find(|(_, stage)| *stage == self)
            .map_or("?", |(name, _)| name)
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        STAGES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, stage)| *stage)
    }
}

/// Where inside the content a [`Stage::Content`] rule acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// When that many octets of content have come (0: before the first).
    AfterBytes(u64),
    /// The end of the content (the final dot, or the BDAT LAST chunk) is treated as never received.
    BeforeEnd,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Never answers again, but reads what comes and keeps the connection open.
    Hang,
    /// Neither answers nor reads again: the client's writes come to a stop.
    Stall,
    /// FIN, without TLS's close_notify. What the client still sends is read and thrown away, so
    /// that it sees an end of file, and not a reset.
    Close,
    /// RST.
    Reset,
}

/// What a rule does.
#[derive(Clone, Debug)]
pub enum Action {
    /// The server's own answer; of use with [`Rule::then`].
    Own,
    /// This reply instead of the server's. A positive one has the effects that the server's own would.
    Reply(Reply),
    /// These bytes, that many times, instead of a reply. They count as the reply that they start with.
    Raw(Vec<u8>, usize),
    /// These bytes again and again, until the client goes away.
    Flood(Vec<u8>),
    /// Waits until the gate is released; then the rules after this one apply.
    Hold(Gate),
    /// No answer at all.
    End(Ending),
}

/// One fault. Built from [`Rule::at`]; clones share their counters.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) stage: Stage,
    pub(super) text: Option<String>,
    pub(super) connection: Option<usize>,
    pub(super) nth: Option<usize>,
    pub(super) times: Option<usize>,
    pub(super) point: Point,
    pub(super) action: Action,
    pub(super) then: Option<Ending>,
    /// How often stage, text and connection agreed.
    seen: Arc<AtomicUsize>,
    /// How often the rule acted.
    hits: Arc<AtomicUsize>,
}

impl Rule {
    /// A rule for every time the stage is reached, which does nothing yet.
    pub fn at(stage: Stage) -> Self {
        Self {
            stage,
            text: None,
            connection: None,
            nth: None,
            times: None,
            point: Point::BeforeEnd,
            action: Action::Own,
            then: None,
            seen: Arc::default(),
            hits: Arc::default(),
        }
    }

    /// Only where the stage's text (see [`Stage`]) contains this.
    pub fn matching(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Only on this connection, counted from 1.
    pub fn connection(mut self, number: usize) -> Self {
        self.connection = Some(number);
        self
    }

    /// Only the nth time, counted from 1, that the stage is reached (and the text and connection
    /// agree), on all connections together.
    pub fn nth(mut self, nth: usize) -> Self {
        self.nth = Some(nth);
        self
    }

    /// At most so many times.
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// One time only.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// [`Stage::Content`]: acts when so many octets have come; a shorter message passes unharmed.
    pub fn after_bytes(mut self, octets: u64) -> Self {
        self.point = Point::AfterBytes(octets);
        self
    }

    /// Gives this action to the rule.
    pub fn action(mut self, action: Action) -> Self {
        self.action = action;
        self
    }

    /// Replies so, with a line for each line of `text`.
    pub fn reply(self, code: u16, text: impl AsRef<str>) -> Self {
        self.action(Action::Reply(Reply::new(code, text)))
    }

    /// Sends these bytes instead of a reply.
    pub fn raw(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.action(Action::Raw(bytes.into(), 1))
    }

    /// Sends these bytes until the client goes away.
    pub fn flood(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.action(Action::Flood(bytes.into()))
    }

    /// Waits for the gate.
    pub fn hold(self, gate: &Gate) -> Self {
        self.action(Action::Hold(gate.clone()))
    }

    /// Stops answering, keeps the connection.
    pub fn hang(self) -> Self {
        self.action(Action::End(Ending::Hang))
    }

    /// Stops answering and reading, keeps the connection.
    pub fn stall(self) -> Self {
        self.action(Action::End(Ending::Stall))
    }

    /// Closes the connection.
    pub fn close(self) -> Self {
        self.action(Action::End(Ending::Close))
    }

    /// Resets the connection.
    pub fn reset(self) -> Self {
        self.action(Action::End(Ending::Reset))
    }

    /// After the answer (the rule's or, without one, the server's own) the connection ends so.
    pub fn then(mut self, ending: Ending) -> Self {
        self.then = Some(ending);
        self
    }

    /// How often the rule has acted.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// Counts that the rule acts.
    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the rule is to act here.
    fn applies(&self, stage: Stage, connection: usize, text: &str) -> bool {
        let here = self.stage == stage
            && self.connection.is_none_or(|number| number == connection)
            && self.text.as_ref().is_none_or(|part| text.contains(part));
        if !here {
            return false;
        }
        let seen = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        self.nth.is_none_or(|nth| nth == seen) && self.times.is_none_or(|times| self.hits() < times)
    }
}

/// The rules in force.
#[derive(Debug, Default)]
pub(super) struct Script {
    rules: Mutex<Vec<Rule>>,
}

impl Script {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules: Mutex::new(rules),
        }
    }

    pub(super) fn set(&self, rules: Vec<Rule>) {
        *self.rules.lock().unwrap() = rules;
    }

    pub(super) fn add(&self, rule: Rule) {
        self.rules.lock().unwrap().push(rule);
    }

    /// The first rule from index `from` on that is to act here, with its index.
    pub(super) fn find(
        &self,
        from: usize,
        stage: Stage,
        connection: usize,
        text: &str,
    ) -> Option<(usize, Rule)> {
        let rules = self.rules.lock().unwrap();
        let mut rest = rules.iter().enumerate().skip(from);
        rest.find(|(_, rule)| rule.applies(stage, connection, text))
            .map(|(at, rule)| (at, rule.clone()))
    }

    /// Releases every gate of that name; false if no rule has one.
    pub(super) fn release(&self, name: &str) -> bool {
        let rules = self.rules.lock().unwrap();
        let mut found = false;
        for rule in rules.iter() {
            if let Action::Hold(gate) = &rule.action
                && gate.name() == name
            {
                gate.release();
                found = true;
            }
        }
        found
    }
}

/// Where sessions wait until the test lets them go on. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    name: String,
    released: watch::Sender<bool>,
    reached: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    /// A closed gate.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Arc::new(GateState {
            name: name.into(),
            released: watch::Sender::new(false),
            reached: Mutex::new(0),
            changed: Condvar::new(),
        }))
    }

    /// The gate's name in scripts and statistics.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Lets go on who waits and who comes later.
    pub fn release(&self) {
        self.0.released.send_replace(true);
    }

    /// How often a session has come to the gate.
    pub fn reached(&self) -> usize {
        *self.0.reached.lock().unwrap()
    }

    /// Blocks until a session has come to the gate; panics after the deadline.
    pub fn wait_reached(&self) {
        let end = Instant::now() + deadline();
        let mut reached = self.0.reached.lock().unwrap();
        while *reached == 0 {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no session came to gate {:?}", self.name());
            reached = self.0.changed.wait_timeout(reached, left).unwrap().0;
        }
    }

    /// Notes that a session has come.
    pub(super) fn note_reached(&self) {
        *self.0.reached.lock().unwrap() += 1;
        self.0.changed.notify_all();
    }

    /// Waits for the release.
    pub(super) async fn pass(&self) {
        let mut released = self.0.released.subscribe();
        // The sender lives as long as `self`, so that the wait can't fail.
        let _ = released.wait_for(|released| *released).await;
    }
}
