//! DATA and BDAT: the message itself.

use super::envelope::Envelope;
use super::log::Received;
use super::options::{Extension, Support};
use super::reply::Reply;
use super::script::{Action, Point, Rule, Stage};
use super::session::{Session, Stop, answered_code};

/// RFC 5321, section 4.5.3.1.6: with the CRLF, without a dot stuffed in.
const LONGEST_LINE: usize = 1000;

/// What has come of a message.
#[derive(Debug, Default)]
pub(super) struct Content {
    bytes: Vec<u8>,
    /// The octets of `bytes`, also where they are not kept.
    size: u64,
    /// The octets as they came, that is with stuffed dots.
    came: u64,
    eight_bit: bool,
    bare_cr: bool,
    bare_lf: bool,
    long_line: bool,
    unstuffed: bool,
    /// Whether the last octet seen is a CR that waits for its LF.
    after_cr: bool,
    /// A rule has replied in the midst of the content: it counts as not received.
    spoilt: bool,
}

/// A message that comes in BDAT chunks.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    content: Content,
    fault: Option<Rule>,
    /// A chunk was refused: the rest will be too, until RSET.
    failed: bool,
}

impl Content {
    /// Takes a line of DATA, with its LF. `line_start` is false after a bare LF.
    fn add_line(&mut self, line: &[u8], line_start: bool, keep: bool) {
        self.came += line.len() as u64;
        let stuffed = line_start && line[0] == b'.';
        let line = if stuffed { &line[1..] } else { line };
        self.unstuffed |= stuffed && line[0] != b'.';
        let text = line.strip_suffix(b"\r\n");
        self.bare_lf |= text.is_none();
        self.bare_cr |= memchr::memchr(b'\r', text.unwrap_or(line)).is_some();
        self.long_line |= line.len() > LONGEST_LINE;
        self.add(line, keep);
    }

    /// Takes a part of a chunk.
    fn add_chunk(&mut self, part: &[u8], keep: bool) {
        self.came += part.len() as u64;
        let mut last = if self.after_cr { Some(b'\r') } else { None };
        let mut from = 0;
        for at in memchr::memchr2_iter(b'\r', b'\n', part) {
            if at > from {
                self.bare_cr |= last == Some(b'\r');
                last = None;
            }
            match part[at] {
                b'\n' => self.bare_lf |= last != Some(b'\r'),
                _ => self.bare_cr |= last == Some(b'\r'),
            }
            last = Some(part[at]);
            from = at + 1;
        }
        if part.len() > from {
            self.bare_cr |= last == Some(b'\r');
            last = None;
        }
        self.after_cr = last == Some(b'\r');
        self.add(part, keep);
    }

    fn add(&mut self, bytes: &[u8], keep: bool) {
        self.size += bytes.len() as u64;
        self.eight_bit |= !bytes.is_ascii();
        if keep {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// What the client did wrong.
    fn violations(&self, envelope: &Envelope, chunked: bool) -> Vec<&'static str> {
        let binary = envelope.has("BODY=BINARYMIME");
        let eight_bit = binary || envelope.has("BODY=8BITMIME") || envelope.has("SMTPUTF8");
        let all = [
            (self.bare_cr || self.after_cr, "bare CR in the content"),
            (self.bare_lf, "bare LF in the content"),
        ];
        let mut found: Vec<&str> = all
            .into_iter()
            .filter(|(found, _)| *found && !binary)
            .map(|(_, text)| text)
            .collect();
        if self.unstuffed {
            found.push("a line's leading dot was not doubled");
        }
        if self.long_line && !chunked {
            found.push("a line longer than 1000 octets");
        }
        if self.eight_bit && !eight_bit {
            found.push("8-bit content without BODY=8BITMIME");
        }
        found
    }
}

impl Session {
    pub(super) async fn data(&mut self) -> Result<(), Stop> {
        let text = self.envelope.as_ref().map(Envelope::text);
        let recipients = self.envelope.iter().map(|one| one.recipients.len()).sum();
        let own = match (&text, recipients) {
            (None, _) => Reply::with_status(503, "5.5.1", "MAIL first"),
            (_, 0) => Reply::with_status(554, "5.5.1", "No valid recipients"),
            _ if self.chunks.is_some() => {
                self.violation("DATA after BDAT");
                Reply::with_status(503, "5.5.1", "Go on with BDAT")
            }
            _ if self.binary() => Reply::with_status(503, "5.5.1", "BINARYMIME needs BDAT"),
            _ => Reply::new(354, "End data with <CR><LF>.<CR><LF>"),
        };
        let text = text.unwrap_or_default();
        if self.answer(Stage::Data, &text, own).await? != 354 {
            return Ok(());
        }
        let fault = self.content_rule(&text);
        let content = self.read_data(fault).await?;
        if self.site.options.forgets_after_dot {
            self.wire.peek().await;
            let octets = self.wire.buffered().len();
            self.wire.consume(octets);
        }
        self.check_group("the content", false).await;
        self.finish_message(content, false).await
    }

    fn binary(&self) -> bool {
        let mut envelope = self.envelope.iter();
        envelope.any(|one| one.has("BODY=BINARYMIME"))
    }

    fn content_rule(&self, text: &str) -> Option<Rule> {
        let found = self.site.script.find(0, Stage::Content, self.number, text);
        found.map(|(_, rule)| rule)
    }

    async fn read_data(&mut self, mut fault: Option<Rule>) -> Result<Content, Stop> {
        let keep = self.site.options.store;
        let mut content = Content::default();
        let mut line_start = true;
        let mut searched = 0;
        loop {
            let buffer = self.wire.buffered();
            let here = content.came + searched as u64;
            if due(&fault, here) {
                self.content_fault(&mut fault, &mut content).await?;
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', &buffer[searched..]) else {
                searched = buffer.len();
                if due(&fault, content.came + searched as u64) {
                    continue;
                }
                if !self.wire.fill().await? {
                    return Err(Stop::Gone);
                }
                continue;
            };
            let end = searched + end + 1;
            searched = 0;
            let line = &buffer[..end];
            if line_start && line == b".\r\n" {
                break;
            }
            content.add_line(line, line_start, keep);
            line_start = line.ends_with(b"\r\n");
            self.wire.consume(end);
        }
        if matches!(&fault, Some(rule) if rule.point == Point::BeforeEnd) {
            self.content_fault(&mut fault, &mut content).await?;
        }
        self.wire.consume(b".\r\n".len());
        let size = content.came;
        self.note(|entry| entry.dialogue.push(format!("C: <{size} octets>")));
        Ok(content)
    }

    /// Carries out a rule in the midst of the content.
    async fn content_fault(
        &mut self,
        fault: &mut Option<Rule>,
        content: &mut Content,
    ) -> Result<(), Stop> {
        let Some(rule) = fault.take() else {
            return Ok(());
        };
        self.hit(&rule);
        match &rule.action {
            Action::End(ending) => return Err(Stop::Fault(*ending)),
            Action::Hold(gate) => {
                self.wire.flush().await?;
                self.site.log.gate_reached(gate);
                gate.pass().await;
                return rule.then.map_or(Ok(()), |ending| Err(Stop::Fault(ending)));
            }
            Action::Own => {}
            Action::Reply(_) | Action::Raw(..) | Action::Flood(_) => {
                content.spoilt = true;
                self.deliver(Some(rule), Reply::new(250, "")).await?;
                self.wire.flush().await?;
                return Ok(());
            }
        }
        rule.then.map_or(Ok(()), |ending| Err(Stop::Fault(ending)))
    }

    pub(super) async fn bdat(&mut self, argument: &str) -> Result<(), Stop> {
        let (size, last) = match argument.split_once(' ') {
            Some((size, word)) => (size, word.eq_ignore_ascii_case("LAST")),
            None => (argument, false),
        };
        let Ok(size) = size.parse::<u64>() else {
            self.violation(format!("BDAT {argument:?}"));
            return self.put(Reply::with_status(501, "5.5.4", "BDAT size [LAST]"));
        };
        let text = self
            .envelope
            .as_ref()
            .map_or_else(String::new, Envelope::text);
        let mut chunks = match self.chunks.take() {
            Some(chunks) => chunks,
            None => Chunks {
                fault: self.content_rule(&text),
                ..Chunks::default()
            },
        };
        let rule = self.consult(Stage::Bdat, &text).await?;
        let spoilt = chunks.content.spoilt;
        self.read_chunk(&mut chunks, size, last).await?;
        self.check_group("BDAT", false).await;
        if chunks.content.spoilt && !spoilt {
            // The content's rule has replied to this chunk.
            chunks.failed = true;
            self.chunks = Some(chunks);
            if last {
                self.reset_mail();
            }
            return Ok(());
        }
        if self.support(Extension::Chunking).is_none() {
            self.violation("BDAT was not announced");
        }
        let recipients: usize = self.envelope.iter().map(|one| one.recipients.len()).sum();
        let own = if self.support(Extension::Chunking) != Some(Support::Works) {
            Reply::with_status(502, "5.5.1", "BDAT is not supported")
        } else if self.envelope.is_none() || chunks.failed {
            Reply::with_status(503, "5.5.1", "MAIL first")
        } else if recipients == 0 {
            Reply::with_status(554, "5.5.1", "No valid recipients")
        } else if last && rule.is_none() {
            return self.finish_message(chunks.content, true).await;
        } else {
            Reply::with_status(250, "2.0.0", format!("{size} octets received"))
        };
        let positive = self.deliver(rule, own).await? / 100 == 2;
        if positive && last {
            return self.finish_message(chunks.content, true).await;
        }
        chunks.failed |= !positive;
        self.chunks = Some(chunks);
        if last {
            self.reset_mail();
        }
        Ok(())
    }

    async fn read_chunk(&mut self, chunks: &mut Chunks, size: u64, last: bool) -> Result<(), Stop> {
        let keep = self.site.options.store;
        let mut left = size;
        loop {
            if due(&chunks.fault, chunks.content.came) {
                self.content_fault(&mut chunks.fault, &mut chunks.content)
                    .await?;
            }
            if left == 0 {
                break;
            }
            let buffer = self.wire.buffered();
            if buffer.is_empty() {
                if !self.wire.fill().await? {
                    return Err(Stop::Gone);
                }
                continue;
            }
            let part = left.min(buffer.len() as u64) as usize;
            chunks.content.add_chunk(&buffer[..part], keep);
            self.wire.consume(part);
            left -= part as u64;
        }
        if last && matches!(&chunks.fault, Some(rule) if rule.point == Point::BeforeEnd) {
            self.content_fault(&mut chunks.fault, &mut chunks.content)
                .await?;
        }
        self.note(|entry| entry.dialogue.push(format!("C: <{size} octets>")));
        Ok(())
    }

    /// The last byte is here.
    async fn finish_message(&mut self, content: Content, chunked: bool) -> Result<(), Stop> {
        let Some(mut envelope) = self.envelope.take() else {
            return Ok(());
        };
        self.reset_mail();
        if content.spoilt {
            return Ok(());
        }
        for text in content.violations(&envelope, chunked) {
            self.violation(text);
        }
        let limit = self.site.options.size;
        let too_big = limit > 0 && content.size > limit;
        let mut own = if too_big {
            Reply::with_status(552, "5.3.4", "Message size exceeds fixed limit")
        } else {
            Reply::with_status(250, "2.0.0", "Ok")
        };
        // LMTP (RFC 2033, section 4.2) replies for each recipient.
        let texts: Vec<String> = if self.site.options.lmtp {
            let all = envelope.recipients.iter();
            all.map(|one| one.address.clone()).collect()
        } else {
            vec![envelope.text()]
        };
        let mut answers = Vec::new();
        let mut stop = None;
        for text in &texts {
            match self.consult(Stage::Final, text).await {
                Ok(rule) => answers.push(rule),
                Err(reason) => {
                    stop = Some(reason);
                    break;
                }
            }
        }
        // A server that is cut off has the message all the same: it has to be a duplicate if it
        // comes again.
        let verdicts: Vec<bool> = answers.iter().map(|rule| accepts(rule, &own)).collect();
        if self.site.options.lmtp {
            let mut verdicts = verdicts.iter().chain(std::iter::repeat(&true));
            envelope.recipients.retain(|_| *verdicts.next().unwrap());
        }
        let accepted = verdicts.iter().any(|accepted| *accepted) || stop.is_some();
        if accepted && !too_big {
            let confirmed = answers.iter().any(|rule| match rule {
                Some(rule) => answered_code(rule, &own) / 100 == 2,
                None => true,
            });
            let number = self.next_number();
            own.lines = vec![format!("Ok: queued as {number}")];
            self.take_in(number, envelope, content, chunked, confirmed);
        }
        for rule in answers {
            self.deliver(rule, own.clone()).await?;
        }
        stop.map_or(Ok(()), Err)
    }

    fn next_number(&self) -> usize {
        match &self.site.store {
            Some(store) => store.next(),
            None => self.site.log.read().messages.len() + 1,
        }
    }

    fn take_in(
        &mut self,
        number: usize,
        envelope: Envelope,
        content: Content,
        chunked: bool,
        confirmed: bool,
    ) {
        let message = Received {
            number,
            connection: self.number,
            helo: self.helo.clone().unwrap_or_default(),
            tls: self.wire.tls().map(|(version, _)| version),
            user: self.user.clone(),
            sender: envelope.sender,
            mail_parameters: envelope.parameters,
            recipients: envelope.recipients,
            bytes: content.bytes,
            size: content.size,
            chunked,
            turns: self.turns.get(),
            confirmed,
        };
        let connection = self.number;
        if let Some(store) = &self.site.store {
            store.write(&message).unwrap();
        }
        self.site.log.update(|log| {
            log.connections[connection - 1].messages += 1;
            log.messages.push(message);
        });
    }
}

/// Whether a rule inside the content acts when so many octets have come.
fn due(fault: &Option<Rule>, came: u64) -> bool {
    matches!(fault, Some(Rule { point: Point::AfterBytes(octets), .. }) if came >= *octets)
}

/// Whether the server keeps a message that it answers so. Only a proper refusal says that it
/// doesn't.
fn accepts(rule: &Option<Rule>, own: &Reply) -> bool {
    match rule.as_ref().map(|rule| &rule.action) {
        Some(Action::Reply(reply)) => reply.is_positive(),
        _ => own.is_positive(),
    }
}
