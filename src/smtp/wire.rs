//! Octets out, replies in, at the same time: neither side of the line ever waits for
//! the other to be read.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout_at;
use zeroize::{Zeroize, Zeroizing};

use super::reply::{Reply, ReplyError, ReplyReader};
use super::terms::Outgoing;
use crate::net::Transport;

/// How long a reply is looked for when its time is over: it may lie there since before,
/// for a process that was stopped hears of the time first.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// Octets that are written, before room is made by moving those that are not.
const WRITTEN_KEPT: usize = 64 * 1024;

/// Why the line is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The stage is over, and the reply has not come.
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
    /// Octets were handed to the system: queue more, if there are.
    Written,
}

/// Shows the dialogue, line by line without line ends.
pub type Trace = Box<dyn Fn(&str)>;

/// One connection.
pub struct Wire {
    trace: Option<Trace>,
    transport: Box<dyn Transport>,
    replies: ReplyReader,
    outgoing: Zeroizing<Vec<u8>>,
    /// Octets handed to the system, since the connection came about.
    handed: u64,
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
            handed: 0,
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

    /// Octets queued and not yet handed to the system.
    fn unwritten(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// Octets that have been handed to the system, or may have been.
    pub fn handed(&self) -> u64 {
        self.handed
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

    /// Sends what is queued and waits for a reply, at most `limit`.
    pub async fn reply(&mut self, limit: Duration) -> Result<Reply, WireError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.step(deadline).await? {
                Some(Step::Reply(reply)) => return Ok(reply),
                Some(Step::Written) => {}
                None => return Err(WireError::TimedOut(limit)),
            }
        }
    }

    /// Ends the line properly, with TLS's close_notify.
    pub async fn shut_down(&mut self) {
        let transport = &mut self.transport;
        // The session is over, with or without.
        let _ = poll_fn(|context| Pin::new(&mut *transport).poll_shutdown(context)).await;
    }

    /// A reply that has come already.
    pub fn buffered_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        let reply = self.replies.next_reply()?;
        if let Some(reply) = &reply {
            self.show(&reply.to_string());
        }
        Ok(reply)
    }

    /// Reads and writes until a reply is whole or octets have been written; `None` if
    /// neither is until `deadline`.
    pub async fn step(&mut self, deadline: Instant) -> Result<Option<Step>, WireError> {
        let mut end = deadline;
        for _ in 0..2 {
            let step = poll_fn(|context| self.poll_step(context));
            if let Ok(step) = timeout_at(end.into(), step).await {
                return step.map(Some);
            }
            end = Instant::now() + LAST_LOOK;
        }
        Ok(None)
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<Step, WireError>> {
        loop {
            if let Some(reply) = self.replies.next_reply()? {
                self.show(&reply.to_string());
                return Poll::Ready(Ok(Step::Reply(reply)));
            }
            match self.poll_read(context) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
        }
        if self.unwritten() > 0 {
            return self.poll_write(context);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(context)).map_err(broken)?;
            self.unflushed = false;
        }
        Poll::Pending
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<Step, WireError>> {
        let unwritten = &self.outgoing[self.written..];
        let length = unwritten.len();
        match ready!(Pin::new(&mut self.transport).poll_write(context, unwritten)) {
            Ok(0) => return Poll::Ready(Err(WireError::Closed)),
            Ok(octets) => {
                self.written += octets;
                self.handed += octets as u64;
            }
            Err(error) => {
                // TLS may have sent some of them.
                self.handed += length as u64;
                return Poll::Ready(Err(broken(error)));
            }
        }
        self.unflushed = true;
        if self.unwritten() == 0 {
            if std::mem::take(&mut self.has_secret) {
                self.outgoing.zeroize();
            }
            self.outgoing.clear();
            self.written = 0;
        } else if self.written >= WRITTEN_KEPT {
            self.outgoing.drain(..self.written);
            self.written = 0;
        }
        Poll::Ready(Ok(Step::Written))
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

impl Outgoing for Wire {
    fn command(&mut self, command: &str) {
        self.queue(command);
    }

    fn content(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    fn show(&self, line: &str) {
        Wire::show(self, line);
    }

    fn taken(&self) -> u64 {
        self.handed + self.unwritten() as u64
    }

    fn backlog(&self) -> usize {
        self.unwritten()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A server that says `reply` octet by octet, each a pause after the one before. As
    /// with a process that was stopped, the system tells of it only when asked again.
    struct Slow {
        reply: Vec<u8>,
        pause: Duration,
        next: Instant,
        is_told: bool,
        is_shut: Arc<AtomicBool>,
    }

    impl AsyncRead for Slow {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let slow = self.get_mut();
            if Instant::now() < slow.next || !std::mem::replace(&mut slow.is_told, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let count = if slow.pause.is_zero() {
                slow.reply.len()
            } else {
                1
            };
            buffer.put_slice(&slow.reply.drain(..count).collect::<Vec<_>>());
            slow.next = Instant::now() + slow.pause;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(octets.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.is_shut.store(true, Ordering::SeqCst);
            Poll::Ready(Ok(()))
        }
    }

    fn reply_of(slow: Slow, limit: Duration) -> Result<Reply, WireError> {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        let mut wire = Wire::new(Box::new(slow), None);
        runtime.block_on(wire.ask("NOOP\r\n", limit))
    }

    #[test]
    fn a_reply_that_lies_there_when_the_time_is_over_is_read() {
        let limit = Duration::from_millis(20);
        let slow = Slow {
            reply: b"250 ok\r\n".to_vec(),
            pause: Duration::ZERO,
            next: Instant::now() + limit + Duration::from_millis(5),
            is_told: false,
            is_shut: Arc::default(),
        };
        assert_eq!(reply_of(slow, limit).unwrap().code(), 250);
    }

    #[test]
    fn octets_of_a_reply_give_no_more_time() {
        let slow = Slow {
            reply: b"250 ok\r\n".repeat(1000),
            pause: Duration::from_millis(60),
            next: Instant::now(),
            is_told: true,
            is_shut: Arc::default(),
        };
        let error = reply_of(slow, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, WireError::TimedOut(_)), "{error}");
    }

    #[test]
    fn the_line_is_shut_down_when_a_session_ends() {
        let is_shut = Arc::default();
        let transport = Slow {
            reply: Vec::new(),
            pause: Duration::ZERO,
            next: Instant::now(),
            is_told: true,
            is_shut: Arc::clone(&is_shut),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(Wire::new(Box::new(transport), None).shut_down());
        assert!(is_shut.load(Ordering::SeqCst));
    }
}
