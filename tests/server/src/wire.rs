//! The bytes of one connection: lines in, replies out, TLS between them when it starts.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::log::Turns;

/// How much is asked of the socket at a time.
const CHUNK: usize = 64 * 1024;

/// A socket that counts turns.
#[derive(Debug)]
pub(super) struct Socket {
    kind: SocketKind,
    turns: Turns,
}

#[derive(Debug)]
enum SocketKind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) fn tcp(stream: TcpStream, turns: Turns) -> Self {
        let kind = SocketKind::Tcp(stream);
        Self { kind, turns }
    }

    pub(super) fn unix(stream: UnixStream, turns: Turns) -> Self {
        let kind = SocketKind::Unix(stream);
        Self { kind, turns }
    }

    /// Makes dropping the socket send RST.
    fn reset_on_drop(&self) -> io::Result<()> {
        match &self.kind {
            SocketKind::Tcp(stream) => stream.set_zero_linger(),
            SocketKind::Unix(_) => Ok(()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = match &mut self.kind {
            SocketKind::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            SocketKind::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if buffer.filled().len() > before {
            self.turns.client_speaks(false);
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.kind {
            SocketKind::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            SocketKind::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        if let Poll::Ready(Ok(1..)) = result {
            self.turns.server_spoke();
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            SocketKind::Tcp(stream) => Pin::new(stream).poll_flush(context),
            SocketKind::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            SocketKind::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            SocketKind::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[derive(Debug)]
enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
    /// While a handshake runs, and after a failed one.
    Gone,
}

/// A line, without its end.
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// False if it ended by a bare LF.
    pub(super) crlf: bool,
    /// Whether it was here before the last reply was: the client did not wait.
    pub(super) pipelined: bool,
}

/// The connection's bytes, both ways buffered.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    input: Vec<u8>,
    /// Bytes of `input` already used.
    used: usize,
    output: Vec<u8>,
    /// Whether the socket was read since the last reply.
    fresh: bool,
}

impl Wire {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            stream: Stream::Plain(socket),
            input: Vec::new(),
            used: 0,
            output: Vec::new(),
            fresh: true,
        }
    }

    /// What has come and is not used yet.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.input[self.used..]
    }

    /// Uses up buffered bytes.
    pub(super) fn consume(&mut self, octets: usize) {
        self.used += octets;
        debug_assert!(self.used <= self.input.len());
    }

    /// Sends what is to be sent and waits for more bytes; false at the end of the stream.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        self.flush().await?;
        self.fresh = true;
        self.input.drain(..self.used);
        self.used = 0;
        self.input.reserve(CHUNK);
        let octets = match &mut self.stream {
            Stream::Plain(stream) => stream.read_buf(&mut self.input).await?,
            Stream::Tls(stream) => stream.read_buf(&mut self.input).await?,
            Stream::Gone => 0,
        };
        Ok(octets > 0)
    }

    /// Takes in what is already here, without waiting.
    pub(super) async fn peek(&mut self) {
        // Lets the runtime look at its sockets, so that readiness is up to date.
        tokio::task::yield_now().await;
        let mut space = [0; 4096];
        let mut buffer = ReadBuf::new(&mut space);
        let stream = &mut self.stream;
        let _ = poll_fn(|context| {
            let result = match stream {
                Stream::Plain(stream) => Pin::new(stream).poll_read(context, &mut buffer),
                Stream::Tls(stream) => Pin::new(stream).poll_read(context, &mut buffer),
                Stream::Gone => Poll::Pending,
            };
            // An error shows again at the next proper read.
            Poll::Ready(result.is_ready())
        })
        .await;
        self.input.extend_from_slice(buffer.filled());
    }

    /// The next line; `None` at the end of the stream.
    pub(super) async fn line(&mut self) -> io::Result<Option<Line>> {
        let mut searched = 0;
        let length = loop {
            match memchr::memchr(b'\n', &self.buffered()[searched..]) {
                Some(at) => break searched + at,
                None => searched = self.buffered().len(),
            }
            if !self.fill().await? {
                return Ok(None);
            }
        };
        let mut bytes = self.buffered()[..length].to_vec();
        self.consume(length + 1);
        let crlf = bytes.last() == Some(&b'\r');
        if crlf {
            bytes.pop();
        }
        let pipelined = !self.fresh;
        Ok(Some(Line {
            bytes,
            crlf,
            pipelined,
        }))
    }

    /// Takes a reply for the next flush.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.fresh = false;
        self.output.extend_from_slice(bytes);
    }

    /// Sends what is to be sent.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(&output).await,
            Stream::Tls(stream) => {
                stream.write_all(&output).await?;
                stream.flush().await
            }
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Lays TLS over the connection. What the client had sent before is thrown away.
    pub(super) async fn start_tls(&mut self, acceptor: &TlsAcceptor) -> io::Result<()> {
        self.flush().await?;
        self.input.clear();
        self.used = 0;
        match std::mem::replace(&mut self.stream, Stream::Gone) {
            Stream::Plain(socket) => {
                self.stream = Stream::Tls(Box::new(acceptor.accept(socket).await?));
                Ok(())
            }
            _ => Err(io::Error::other("TLS twice")),
        }
    }

    /// The TLS version and whether an earlier session was taken up.
    pub(super) fn tls(&self) -> Option<(String, bool)> {
        let Stream::Tls(stream) = &self.stream else {
            return None;
        };
        let state = stream.get_ref().1;
        let version = state
            .protocol_version()
            .map_or_else(|| "TLS".to_owned(), |version| format!("{version:?}"));
        let resumed = state.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        Some((version, resumed))
    }

    /// What both ends of the TLS connection, and nobody else, can compute (RFC 9266).
    pub(super) fn exporter(&self) -> Option<Vec<u8>> {
        let Stream::Tls(stream) = &self.stream else {
            return None;
        };
        let state = stream.get_ref().1;
        let label = b"EXPORTER-Channel-Binding";
        let key = state.export_keying_material([0; 32], label, Some(b""));
        key.ok().map(|key| key.to_vec())
    }

    /// Whether the client has shown a certificate; a wrong one would have ended the handshake.
    pub(super) fn has_client_certificate(&self) -> bool {
        match &self.stream {
            Stream::Tls(stream) => stream.get_ref().1.peer_certificates().is_some(),
            _ => false,
        }
    }

    fn socket(&self) -> Option<&Socket> {
        match &self.stream {
            Stream::Plain(socket) => Some(socket),
            Stream::Tls(stream) => Some(stream.get_ref().0),
            Stream::Gone => None,
        }
    }

    /// Ends the session as it should be: close_notify, FIN.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        self.flush().await?;
        match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await?,
            Stream::Tls(stream) => stream.shutdown().await?,
            Stream::Gone => {}
        }
        self.drain().await
    }

    /// FIN, without close_notify.
    pub(super) async fn close(mut self) -> io::Result<()> {
        self.flush().await?;
        match &mut self.stream {
            Stream::Plain(socket) => socket.shutdown().await?,
            Stream::Tls(stream) => stream.get_mut().0.shutdown().await?,
            Stream::Gone => {}
        }
        self.drain().await
    }

    /// RST.
    pub(super) async fn reset(mut self) -> io::Result<()> {
        self.flush().await?;
        self.socket().map_or(Ok(()), Socket::reset_on_drop)
    }

    /// Reads and forgets until the client is gone. Dropping a socket with unread bytes would send
    /// RST, which may overtake replies.
    pub(super) async fn drain(mut self) -> io::Result<()> {
        self.flush().await?;
        let mut space = vec![0; CHUNK];
        loop {
            let octets = match &mut self.stream {
                Stream::Plain(socket) => socket.read(&mut space).await?,
                Stream::Tls(stream) => stream.get_mut().0.read(&mut space).await?,
                Stream::Gone => 0,
            };
            if octets == 0 {
                return Ok(());
            }
        }
    }
}
