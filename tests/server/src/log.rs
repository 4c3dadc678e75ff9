//! What the server has seen: connections, messages, violations of the protocol.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::deadline;
use super::script::Gate;

/// A message that the server has taken in.
#[derive(Clone, Debug)]
pub struct Received {
    /// Counted from 1, or from where the directory's files end.
    pub number: usize,
    /// The number of the connection that it came on.
    pub connection: usize,
    /// The name given with EHLO, HELO or LHLO.
    pub helo: String,
    /// The TLS version, such as "TLSv1_3".
    pub tls: Option<String>,
    /// Who was logged in.
    pub user: Option<String>,
    /// The reverse-path without its angle brackets; "" is the null one.
    pub sender: String,
    /// The words after the reverse-path.
    pub mail_parameters: Vec<String>,
    /// The recipients accepted, in order.
    pub recipients: Vec<Recipient>,
    /// The content, un-stuffed; empty if the server does not store.
    pub bytes: Vec<u8>,
    /// The content's octets.
    pub size: u64,
    /// Whether it came by BDAT.
    pub chunked: bool,
    /// The connection's turns until the last byte was here.
    pub turns: usize,
    /// False if a fault kept the client from getting a positive reply.
    pub confirmed: bool,
}

impl Received {
    /// The recipients' addresses.
    pub fn addresses(&self) -> Vec<&str> {
        let all = self.recipients.iter();
        all.map(|recipient| recipient.address.as_str()).collect()
    }

    /// Everything but the content.
    pub(super) fn to_json(&self) -> Value {
        let recipients: Vec<Value> = self
            .recipients
            .iter()
            .map(|one| json!({"address": one.address, "parameters": one.parameters}))
            .collect();
        json!({
            "number": self.number,
            "connection": self.connection,
            "helo": self.helo,
            "tls": self.tls,
            "user": self.user,
            "sender": self.sender,
            "mail_parameters": self.mail_parameters,
            "recipients": recipients,
            "size": self.size,
            "chunked": self.chunked,
            "turns": self.turns,
            "confirmed": self.confirmed,
        })
    }
}

/// One recipient of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Without angle brackets.
    pub address: String,
    /// The words after it.
    pub parameters: Vec<String>,
}

/// Something that a client must not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The number of the connection.
    pub connection: usize,
    /// What it is.
    pub text: String,
}

/// An attempt to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The mechanism.
    pub mechanism: String,
    /// Whether the AUTH command brought the initial response.
    pub initial_response: bool,
    /// Whether it was made under TLS.
    pub tls: bool,
    /// Whether it was accepted.
    pub accepted: bool,
}

/// A count of how often the client spoke after the server did: each costs a round trip.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    count: Arc<AtomicUsize>,
    server_spoke: Arc<AtomicBool>,
}

impl Turns {
    /// How many there were.
    pub fn get(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// The client has the server's bytes.
    pub(super) fn server_spoke(&self) {
        self.server_spoke.store(true, Ordering::SeqCst);
    }

    /// Bytes of the client have come. They start a turn only where nothing older of it is
    /// `under_way`: a client that keeps streaming waits for nobody.
    pub(super) fn client_speaks(&self, under_way: bool) {
        let first = self.get() == 0;
        let answered = self.server_spoke.swap(false, Ordering::SeqCst);
        if first || (answered && !under_way) {
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// One connection.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// Counted from 1.
    pub number: usize,
    /// Its turns so far.
    pub turns: Turns,
    /// The name given last with EHLO, HELO or LHLO.
    pub helo: String,
    /// The TLS version.
    pub tls: Option<String>,
    /// Whether TLS took up an earlier session.
    pub resumed: bool,
    /// Whether the client showed a certificate of the server's authority.
    pub client_certificate: bool,
    /// Who was logged in last.
    pub user: Option<String>,
    /// The attempts to log in.
    pub logins: Vec<Login>,
    /// Messages taken in.
    pub messages: usize,
    /// Whether QUIT was said.
    pub quit: bool,
    /// Whether it still is.
    pub open: bool,
    /// What was said: lines "C: …" and "S: …"; contents as their size only.
    pub dialogue: Vec<String>,
}

impl Connection {
    /// The client's lines of the dialogue.
    pub fn commands(&self) -> Vec<&str> {
        let lines = self.dialogue.iter();
        lines.filter_map(|line| line.strip_prefix("C: ")).collect()
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// In the order of their start.
    pub connections: Vec<Connection>,
    /// In the order of their end.
    pub messages: Vec<Received>,
    /// In the order of their finding.
    pub violations: Vec<Violation>,
    /// The gates that sessions came to, by name, as often as they did.
    pub gates: Vec<String>,
    /// Set when the server runs no more.
    pub stopped: bool,
}

impl Log {
    /// The turns of all connections.
    pub fn turns(&self) -> usize {
        self.connections.iter().map(|one| one.turns.get()).sum()
    }

    /// The statistics' JSON.
    pub(super) fn statistics(&self, port: u16) -> Value {
        let connections: Vec<Value> = self
            .connections
            .iter()
            .map(|one| {
                json!({
                    "number": one.number,
                    "turns": one.turns.get(),
                    "helo": one.helo,
                    "tls": one.tls,
                    "resumed": one.resumed,
                    "client_certificate": one.client_certificate,
                    "user": one.user,
                    "messages": one.messages,
                    "quit": one.quit,
                    "open": one.open,
                })
            })
            .collect();
        let violations: Vec<Value> = self
            .violations
            .iter()
            .map(|one| json!({"connection": one.connection, "text": one.text}))
            .collect();
        json!({
            "port": port,
            "turns": self.turns(),
            "messages": self.messages.len(),
            "connections": connections,
            "violations": violations,
            "gates": self.gates,
        })
    }
}

/// The log, shared by the sessions and the test.
#[derive(Debug, Default)]
pub(super) struct SharedLog {
    log: Mutex<Log>,
    /// For the test's thread.
    changed: Condvar,
    /// For the writer of the statistics.
    pub(super) touched: Notify,
}

impl SharedLog {
    pub(super) fn read(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// Changes the log and wakes who waits.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let result = change(&mut self.read());
        self.changed.notify_all();
        self.touched.notify_one();
        result
    }

    /// Enters a new connection; returns its number.
    pub(super) fn open(&self, turns: Turns) -> usize {
        self.update(|log| {
            let number = log.connections.len() + 1;
            log.connections.push(Connection {
                number,
                turns,
                open: true,
                ..Connection::default()
            });
            number
        })
    }

    /// Changes a connection's entry.
    pub(super) fn connection<T>(
        &self,
        number: usize,
        change: impl FnOnce(&mut Connection) -> T,
    ) -> T {
        self.update(|log| change(&mut log.connections[number - 1]))
    }

    pub(super) fn violation(&self, connection: usize, text: impl Into<String>) {
        let text = text.into();
        self.update(|log| log.violations.push(Violation { connection, text }));
    }

    pub(super) fn gate_reached(&self, gate: &Gate) {
        gate.note_reached();
        self.update(|log| log.gates.push(gate.name().to_owned()));
    }

    /// Blocks until `condition` holds; false after the deadline.
    pub(super) fn wait_for(&self, mut condition: impl FnMut(&Log) -> bool) -> bool {
        let end = Instant::now() + deadline();
        let mut log = self.read();
        while !condition(&log) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            log = self.changed.wait_timeout(log, left).unwrap().0;
        }
        true
    }
}
