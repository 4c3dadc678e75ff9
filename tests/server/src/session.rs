//! One SMTP session, from the greeting to its end: the dialogue and the faults in it. The commands
//! with a life of their own are in [`auth`](super::auth), [`envelope`](super::envelope) and
//! [`content`](super::content).

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;

use super::content::Chunks;
use super::envelope::Envelope;
use super::log::{SharedLog, Turns};
use super::options::{Extension, Options, Support, Tls};
use super::reply::Reply;
use super::script::{Action, Ending, Rule, Script, Stage};
use super::store::Store;
use super::wire::{Line, Wire};

/// What the sessions of a server share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) options: Options,
    pub(super) log: SharedLog,
    pub(super) script: Script,
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// The certificate's hash, for channel binding.
    pub(super) end_point: Option<Vec<u8>>,
    pub(super) store: Option<Store>,
}

/// Why a session is over.
#[derive(Debug)]
pub(super) enum Stop {
    /// As it should be.
    Finished,
    /// A rule says so.
    Fault(Ending),
    /// The client is gone, or the handshake failed.
    Gone,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

pub(super) struct Session {
    pub(super) site: Arc<Site>,
    pub(super) wire: Wire,
    /// The connection's number.
    pub(super) number: usize,
    pub(super) turns: Turns,
    /// The name given with EHLO or HELO.
    pub(super) helo: Option<String>,
    /// Whether that was EHLO (or LHLO), so that extensions are in force.
    pub(super) extended: bool,
    pub(super) user: Option<String>,
    pub(super) envelope: Option<Envelope>,
    pub(super) chunks: Option<Chunks>,
    /// MAIL commands accepted.
    pub(super) mails: usize,
}

impl Session {
    pub(super) fn new(site: Arc<Site>, wire: Wire, number: usize, turns: Turns) -> Self {
        Self {
            site,
            wire,
            number,
            turns,
            helo: None,
            extended: false,
            user: None,
            envelope: None,
            chunks: None,
            mails: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let _entry = OpenEntry(self.site.clone(), self.number);
        let stop = match self.serve().await {
            Ok(()) => Stop::Finished,
            Err(stop) => stop,
        };
        let wire = self.wire;
        // The client may be gone: nobody is left to tell.
        let _ = match stop {
            Stop::Finished => wire.finish().await,
            Stop::Gone => Ok(()),
            Stop::Fault(Ending::Close) => wire.close().await,
            Stop::Fault(Ending::Reset) => wire.reset().await,
            Stop::Fault(Ending::Hang) => wire.drain().await,
            Stop::Fault(Ending::Stall) => std::future::pending().await,
        };
    }

    async fn serve(&mut self) -> Result<(), Stop> {
        if self.site.options.tls == Tls::Implicit {
            self.handshake().await?;
        }
        let rule = self.consult(Stage::Greeting, "").await?;
        self.wire.peek().await;
        if !self.wire.buffered().is_empty() {
            self.violation("spoke before the greeting");
        }
        let name = &self.site.options.name;
        let own = Reply::new(220, format!("{name} ESMTP test server"));
        let code = self.deliver(rule, own).await?;
        if code / 100 != 2 {
            // RFC 5321, section 3.1: only QUIT may follow.
            while let Some(line) = self.wire.line().await? {
                let quit = line.bytes.eq_ignore_ascii_case(b"QUIT");
                self.note_line(&line);
                if quit {
                    return self.quit().await;
                }
                self.wire.write(b"503 5.5.1 No service here\r\n");
            }
            return Err(Stop::Gone);
        }
        while let Some(line) = self.wire.line().await? {
            self.command(line).await?;
        }
        self.wire.flush().await?;
        Err(Stop::Gone)
    }

    async fn command(&mut self, line: Line) -> Result<(), Stop> {
        self.note_line(&line);
        let text = String::from_utf8_lossy(&line.bytes).into_owned();
        let (verb, argument) = text.split_once(' ').unwrap_or((&text, ""));
        let verb = verb.to_ascii_uppercase();
        self.check_line(&verb, &line);
        // RFC 2920, section 3.1.
        let must_be_last = matches!(
            verb.as_str(),
            "EHLO"
                | "HELO"
                | "LHLO"
                | "STARTTLS"
                | "AUTH"
                | "DATA"
                | "VRFY"
                | "EXPN"
                | "NOOP"
                | "QUIT"
        );
        if verb != "BDAT" {
            self.check_group(&verb, must_be_last).await;
            if line.pipelined && self.support(Extension::Pipelining) == Some(Support::Refused) {
                return self.put(Reply::with_status(
                    503,
                    "5.5.1",
                    "Command pipelining refused",
                ));
            }
        }
        match verb.as_str() {
            "EHLO" | "LHLO" | "HELO" => self.hello(&verb, argument).await,
            "STARTTLS" => self.start_tls().await,
            "AUTH" => self.auth(argument).await,
            "MAIL" => self.mail(argument).await,
            "RCPT" => self.rcpt(argument).await,
            "DATA" => self.data().await,
            "BDAT" => self.bdat(argument).await,
            "RSET" => {
                self.reset_mail();
                let own = Reply::with_status(250, "2.0.0", "Ok");
                self.answer(Stage::Rset, "", own).await.map(drop)
            }
            "NOOP" => {
                let own = Reply::with_status(250, "2.0.0", "Ok");
                self.answer(Stage::Noop, "", own).await.map(drop)
            }
            "VRFY" => self.put(Reply::with_status(252, "2.0.0", "Send it and see")),
            "QUIT" => self.quit().await,
            _ => {
                self.violation(format!("unknown command {verb:?}"));
                self.put(Reply::with_status(500, "5.5.2", "Unknown command"))
            }
        }
    }

    async fn hello(&mut self, verb: &str, name: &str) -> Result<(), Stop> {
        let options = &self.site.options;
        let extended = verb != "HELO";
        let known = match verb {
            "LHLO" => options.lmtp,
            "EHLO" => options.ehlo && !options.lmtp,
            _ => !options.lmtp,
        };
        let stage = if extended { Stage::Ehlo } else { Stage::Helo };
        let own = if !known {
            Reply::new(500, "5.5.2 Unknown command")
        } else if name.is_empty() || name.contains(' ') {
            self.violation(format!("{verb} with name {name:?}"));
            Reply::new(501, "5.5.4 A host name, please")
        } else if extended {
            let mut lines = vec![format!("{} greets {name}", self.site.options.name)];
            lines.extend(self.announcements());
            Reply::new(250, lines.join("\n"))
        } else {
            Reply::new(250, format!("{} greets {name}", self.site.options.name))
        };
        let code = self.answer(stage, name, own).await?;
        if code / 100 == 2 {
            self.reset_mail();
            self.helo = Some(name.to_owned());
            self.extended = extended;
            let name = name.to_owned();
            self.note(|entry| entry.helo = name);
        }
        Ok(())
    }

    fn announcements(&self) -> Vec<String> {
        let options = &self.site.options;
        let mut lines = Vec::new();
        for extension in Extension::ALL {
            if self.offered(extension).is_none() {
                continue;
            }
            let keyword = extension.keyword();
            lines.push(match extension {
                Extension::Size if options.size > 0 => format!("{keyword} {}", options.size),
                Extension::Limits => format!("{keyword} {}", options.limits),
                Extension::Auth => format!("{keyword} {}", self.mechanisms().join(" ")),
                _ => keyword.to_owned(),
            });
        }
        lines
    }

    /// The mechanisms announced now, in capitals.
    pub(super) fn mechanisms(&self) -> Vec<String> {
        let options = &self.site.options;
        let under_tls = self.wire.tls().is_some();
        let all = options.mechanisms.iter().chain(&options.refused_mechanisms);
        all.map(|name| name.to_ascii_uppercase())
            .filter(|name| under_tls || !name.ends_with("-PLUS"))
            .collect()
    }

    async fn start_tls(&mut self) -> Result<(), Stop> {
        let own = match self.support(Extension::StartTls) {
            None => Reply::with_status(502, "5.5.1", "STARTTLS is not offered"),
            Some(Support::Refused) => Reply::with_status(454, "4.7.0", "TLS not available"),
            Some(Support::Works) => Reply::with_status(220, "2.0.0", "Go ahead"),
        };
        let code = self.answer(Stage::StartTls, "", own).await?;
        if code == 220 {
            self.handshake().await?;
            // RFC 3207, section 4.2: nothing that was known before is known any more.
            self.helo = None;
            self.extended = false;
            self.user = None;
            self.reset_mail();
        }
        Ok(())
    }

    async fn handshake(&mut self) -> Result<(), Stop> {
        self.wire.flush().await?;
        if let Some(rule) = self.consult(Stage::TlsHandshake, "").await? {
            self.deliver(Some(rule), Reply::new(220, "")).await?;
            self.wire.flush().await?;
        }
        let config = self.site.tls.clone().ok_or(Stop::Gone)?;
        self.wire.start_tls(&config.into()).await?;
        let (version, resumed) = self.wire.tls().ok_or(Stop::Gone)?;
        let client_certificate = self.wire.has_client_certificate();
        self.note(|entry| {
            entry.tls = Some(version);
            entry.resumed = resumed;
            entry.client_certificate = client_certificate;
        });
        Ok(())
    }

    async fn quit(&mut self) -> Result<(), Stop> {
        self.note(|entry| entry.quit = true);
        let own = Reply::with_status(221, "2.0.0", "Bye");
        self.answer(Stage::Quit, "", own).await?;
        Err(Stop::Finished)
    }

    pub(super) fn reset_mail(&mut self) {
        self.envelope = None;
        self.chunks = None;
    }

    /// What becomes of an extension in the session's present state.
    fn offered(&self, extension: Extension) -> Option<Support> {
        let options = &self.site.options;
        let under_tls = self.wire.tls().is_some();
        let now = match extension {
            Extension::StartTls => options.tls == Tls::StartTls && !under_tls,
            Extension::Auth => options.tls != Tls::StartTls || under_tls || options.auth_before_tls,
            Extension::RequireTls => under_tls,
            _ => true,
        };
        options.support(extension).filter(|_| now)
    }

    /// What becomes of an extension that the client has been told of; `None` if it hasn't.
    pub(super) fn support(&self, extension: Extension) -> Option<Support> {
        self.offered(extension).filter(|_| self.extended)
    }

    /// The rule that applies, when every hold is over. An error ends the session.
    pub(super) async fn consult(&mut self, stage: Stage, text: &str) -> Result<Option<Rule>, Stop> {
        let mut from = 0;
        while let Some((at, rule)) = self.site.script.find(from, stage, self.number, text) {
            self.hit(&rule);
            match &rule.action {
                Action::Hold(gate) => {
                    self.wire.flush().await?;
                    self.site.log.gate_reached(gate);
                    gate.pass().await;
                    if let Some(ending) = rule.then {
                        return Err(Stop::Fault(ending));
                    }
                    from = at + 1;
                }
                Action::End(ending) => return Err(Stop::Fault(*ending)),
                _ => return Ok(Some(rule)),
            }
        }
        Ok(None)
    }

    /// Gives the rule's answer, or the server's own; returns its code.
    pub(super) async fn deliver(&mut self, rule: Option<Rule>, own: Reply) -> Result<u16, Stop> {
        let Some(rule) = rule else {
            let code = own.code;
            self.put(own)?;
            return Ok(code);
        };
        let code = answered_code(&rule, &own);
        match rule.action {
            Action::Own => self.put(own)?,
            Action::Reply(reply) => self.put(reply)?,
            Action::Raw(bytes, times) => {
                self.note(|entry| entry.dialogue.push("S: <raw bytes>".to_owned()));
                for _ in 0..times {
                    self.wire.write(&bytes);
                }
            }
            Action::Flood(bytes) => loop {
                self.wire
                    .write(&bytes.repeat(1 + 4096 / bytes.len().max(1)));
                self.wire.flush().await?;
            },
            // `consult` has dealt with them.
            Action::Hold(_) | Action::End(_) => {}
        }
        match rule.then {
            Some(ending) => {
                self.wire.flush().await?;
                Err(Stop::Fault(ending))
            }
            None => Ok(code),
        }
    }

    /// Consults the rules and gives an answer; returns its code.
    pub(super) async fn answer(
        &mut self,
        stage: Stage,
        text: &str,
        own: Reply,
    ) -> Result<u16, Stop> {
        let rule = self.consult(stage, text).await?;
        self.deliver(rule, own).await
    }

    /// Sends a reply with the next flush.
    pub(super) fn put(&mut self, reply: Reply) -> Result<(), Stop> {
        let enhanced = self.support(Extension::EnhancedStatusCodes) == Some(Support::Works);
        let bytes = reply.to_wire(enhanced);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.note(|entry| {
            let lines = text.lines().map(|line| format!("S: {line}"));
            entry.dialogue.extend(lines);
        });
        self.wire.write(&bytes);
        Ok(())
    }

    /// Counts, and wakes who waits for it.
    pub(super) fn hit(&self, rule: &Rule) {
        rule.hit();
        self.site.log.update(|_| {});
    }

    pub(super) fn violation(&self, text: impl Into<String>) {
        self.site.log.violation(self.number, text);
    }

    pub(super) fn note<T>(&self, change: impl FnOnce(&mut super::log::Connection) -> T) -> T {
        self.site.log.connection(self.number, change)
    }

    pub(super) fn note_line(&self, line: &Line) {
        let text = format!("C: {}", String::from_utf8_lossy(&line.bytes));
        self.note(|entry| entry.dialogue.push(text));
    }

    fn check_line(&self, verb: &str, line: &Line) {
        if !line.crlf {
            self.violation(format!("{verb} ended by a bare LF"));
        }
        if line.bytes.contains(&b'\r') {
            self.violation(format!("bare CR in {verb}"));
        }
        let utf8 = self.support(Extension::SmtpUtf8).is_some();
        if !line.bytes.is_ascii() && !utf8 {
            self.violation(format!("{verb} with non-ASCII octets, without SMTPUTF8"));
        }
        let longest = self.longest_command(verb);
        if line.bytes.len() + 2 > longest {
            self.violation(format!("{verb} longer than {longest} octets"));
        }
    }

    /// RFC 5321, section 4.5.3.1.4, and what the extensions add to it.
    fn longest_command(&self, verb: &str) -> usize {
        let announced = |extension| self.support(extension).is_some();
        let growth: &[(Extension, usize)] = match verb {
            "AUTH" => return 12_288, // RFC 4954, section 4
            "MAIL" => &[
                (Extension::Size, 26),
                (Extension::EightBitMime, 17),
                (Extension::SmtpUtf8, 10),
                (Extension::Dsn, 125),
                (Extension::Auth, 500),
                (Extension::RequireTls, 11),
            ],
            "RCPT" => &[(Extension::Dsn, 533), (Extension::SmtpUtf8, 10)],
            _ => &[],
        };
        let more = growth.iter().filter(|(extension, _)| announced(*extension));
        512 + more.map(|(_, octets)| octets).sum::<usize>()
    }

    /// Whether the client waited for the reply where it must.
    pub(super) async fn check_group(&mut self, what: &str, must_be_last: bool) {
        let pipelining = self.support(Extension::Pipelining).is_some();
        if pipelining && !must_be_last {
            return;
        }
        self.wire.peek().await;
        if self.wire.buffered().is_empty() {
            return;
        }
        self.violation(if pipelining {
            format!("did not wait for the reply to {what}")
        } else {
            format!("did not wait for the reply to {what}, without PIPELINING")
        });
    }
}

/// The code of the answer that `deliver` will give.
pub(super) fn answered_code(rule: &Rule, own: &Reply) -> u16 {
    match &rule.action {
        Action::Reply(reply) => reply.code,
        Action::Raw(bytes, _) => {
            let digits = bytes.get(..3).and_then(|code| str::from_utf8(code).ok());
            digits.and_then(|code| code.parse().ok()).unwrap_or(0)
        }
        Action::Flood(_) => 0,
        _ => own.code,
    }
}

/// Marks the connection as closed, also when the session's task is aborted.
struct OpenEntry(Arc<Site>, usize);

impl Drop for OpenEntry {
    fn drop(&mut self) {
        self.0.log.connection(self.1, |entry| entry.open = false);
    }
}
