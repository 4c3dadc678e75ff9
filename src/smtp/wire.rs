//! Octets out, replies in, at the same time: neither side of the line ever waits for
//! the other to be read.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use zeroize::{Zeroize, Zeroizing};

use super::reply::{Reply, ReplyError, ReplyReader};
use crate::net::Transport;

/// Why the line is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// Neither a reply nor progress in sending.
    #[error("the server did not answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The connection broke.
    #[error("the connection broke ({0})")]
    Io(io::Error),
    /// What came is no reply.
    #[error(transparent)]
    Reply(#[from] ReplyError),
}

/// What [`Wire::step`] saw.
pub enum Step {
    /// A whole reply came in.
    Reply(Reply),
    /// All that was queued has been handed to the system: queue more, if there is.
    Drained,
}

/// Shows the dialogue, line by line without line ends.
pub type Trace = Box<dyn Fn(&str)>;

/// One connection.
pub struct Wire {
    trace: Option<Trace>,
    transport: Box<dyn Transport>,
    replies: ReplyReader,
    outgoing: Zeroizing<Vec<u8>>,
    /// Whether there is something in `outgoing` to be wiped as soon as it is written.
    has_secret: bool,
    written: usize,
    /// Whether TLS may hold octets back that were written.
    unflushed: bool,
}

impl Wire {
    /// A wire over an open connection.
    pub fn new(transport: Box<dyn Transport>, trace: Option<Trace>) -> Self {
        Wire {
            trace,
            transport,
            replies: ReplyReader::default(),
            outgoing: Zeroizing::default(),
            has_secret: false,
            written: 0,
            unflushed: false,
        }
    }

    /// Takes the connection apart, for TLS to be started on it. Whatever the server
    /// sent before is dropped with the wire (RFC 3207 section 4.2); the last result
    /// tells whether there was any.
    pub fn take_apart(self) -> (Box<dyn Transport>, Option<Trace>, bool) {
        let leftover = self.replies.has_more();
        (self.transport, self.trace, leftover)
    }

    /// Queues a command, with its line end.
    pub fn queue(&mut self, command: &str) {
        self.show(command.trim_end());
        self.outgoing.extend_from_slice(command.as_bytes());
    }

    /// Shows a line in the trace, if there is one.
    pub fn show(&self, line: &str) {
        if let Some(trace) = &self.trace {
            trace(line);
        }
    }

    /// The buffer of queued octets, for appending only.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    /// Octets queued and not yet handed to the system.
    pub fn backlog(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// Sends a command and waits for its reply, at most `limit`.
    pub async fn ask(&mut self, command: &str, limit: Duration) -> Result<Reply, WireError> {
        self.queue(command);
        self.reply(limit).await
    }

    /// The same for a command of which only `shown` may be seen in the trace. It holds
    /// `secret` in some form; should the server repeat that, or a word of the command,
    /// its reply is taken without it.
    pub async fn ask_secretly(
        &mut self,
        command: &str,
        shown: &str,
        secret: &str,
        limit: Duration,
    ) -> Result<Reply, WireError> {
        self.show(shown);
        self.outgoing.extend_from_slice(command.as_bytes());
        self.has_secret = true;
        let word = command.split_ascii_whitespace().next_back();
        let word = word.filter(|word| !shown.ends_with(word));
        self.replies.conceal(&[word.unwrap_or_default(), secret]);
        let reply = self.reply(limit).await;
        self.replies.conceal(&[]);
        reply
    }

    /// Sends what is queued and waits for a reply, at most `limit` without progress.
    pub async fn reply(&mut self, limit: Duration) -> Result<Reply, WireError> {
        loop {
            if let Step::Reply(reply) = self.step(limit).await? {
                return Ok(reply);
            }
        }
    }

    /// A reply that has come already.
    pub fn buffered_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        let reply = self.replies.next_reply()?;
        if let Some(reply) = &reply {
            self.show(&reply.to_string());
        }
        Ok(reply)
    }

    /// Reads and writes until a reply is whole or the backlog is gone.
    pub async fn step(&mut self, limit: Duration) -> Result<Step, WireError> {
        loop {
            match timeout(limit, poll_fn(|context| self.poll_step(context))).await {
                Ok(Ok(Some(step))) => return Ok(step),
                Ok(Ok(None)) => {} // some octets went out: the time starts anew
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(WireError::TimedOut(limit)),
            }
        }
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Step>, WireError>> {
        loop {
            if let Some(reply) = self.replies.next_reply()? {
                self.show(&reply.to_string());
                return Poll::Ready(Ok(Some(Step::Reply(reply))));
            }
            match self.poll_read(context) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
        }
        if self.backlog() > 0 {
            return self.poll_write(context);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(context)).map_err(broken)?;
            self.unflushed = false;
        }
        Poll::Pending
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Step>, WireError>> {
        let unwritten = &self.outgoing[self.written..];
        match ready!(Pin::new(&mut self.transport).poll_write(context, unwritten))
            .map_err(broken)?
        {
            0 => return Poll::Ready(Err(WireError::Closed)),
            octets => self.written += octets,
        }
        self.unflushed = true;
        if self.backlog() > 0 {
            return Poll::Ready(Ok(None));
        }
        if std::mem::take(&mut self.has_secret) {
            self.outgoing.zeroize();
        }
        self.outgoing.clear();
        self.written = 0;
        Poll::Ready(Ok(Some(Step::Drained)))
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        let mut space = [0_u8; 4096];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.transport).poll_read(context, &mut buffer)).map_err(broken)?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(WireError::Closed));
        }
        self.replies.feed(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

/// TLS reports a close without close_notify as an error; SMTP's own dialogue tells
/// whether something was cut off.
fn broken(error: io::Error) -> WireError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => WireError::Closed,
        _ => WireError::Io(error),
    }
}
