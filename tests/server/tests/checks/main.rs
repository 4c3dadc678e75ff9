//! The test server's own tests: a raw client talks to it.

mod detours;
mod dialogue;
mod extensions;
mod faults;
mod files;
mod scram;
mod strictness;
mod tls;
mod turns;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use smtp_test_server::{Server, deadline};

/// A client that says what it is told to.
pub struct Client {
    stream: Stream,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// How the server ended a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

impl Client {
    /// Connects, and waits for nothing.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(deadline())).unwrap();
        Self {
            stream: Stream::Plain(stream),
        }
    }

    /// Connects, reads the greeting, says EHLO.
    pub fn ready(server: &Server) -> Self {
        let mut client = Self::connect(server.address());
        assert_eq!(code(&client.reply()), 220);
        assert_eq!(code(&client.ask("EHLO client.example")), 250);
        client
    }

    /// Lays TLS over the connection.
    pub fn start_tls(self, config: Arc<ClientConfig>) -> io::Result<Self> {
        let Stream::Plain(mut stream) = self.stream else {
            panic!("TLS twice");
        };
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(config, name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self {
            stream: Stream::Tls(Box::new(StreamOwned::new(tls, stream))),
        })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes).unwrap(),
            Stream::Tls(stream) => {
                stream.write_all(bytes).unwrap();
                stream.flush().unwrap();
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.read(bytes),
            Stream::Tls(stream) => stream.read(bytes),
        }
    }

    /// The next reply, all lines of it.
    pub fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            let line = self.line().unwrap();
            text.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return text;
            }
        }
    }

    /// The next line, with its end.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut octet = [0];
        while line.last() != Some(&b'\n') {
            if self.read(&mut octet)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            line.push(octet[0]);
        }
        Ok(String::from_utf8(line).unwrap())
    }

    /// Says a line and returns the reply.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    /// Says lines; each is to be answered with that code.
    pub fn dialogue(&mut self, steps: &[(&str, u16)]) {
        for (line, expected) in steps {
            let reply = self.ask(line);
            assert_eq!(code(&reply), *expected, "{line:?}: {reply}");
        }
    }

    /// Sends a message by DATA, the content as it is on the wire before the final dot.
    pub fn message(&mut self, content: &[u8]) -> String {
        self.dialogue(&[
            ("MAIL FROM:<a@example.org>", 250),
            ("RCPT TO:<b@example.org>", 250),
            ("DATA", 354),
        ]);
        self.send(content);
        self.ask(".")
    }

    /// How the connection ends; nothing else may come before.
    pub fn end(&mut self) -> End {
        let mut octet = [0];
        match self.read(&mut octet) {
            Ok(0) => End::Fin,
            Ok(_) => panic!("the server goes on, with {octet:?}"),
            // TLS without close_notify.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => End::Fin,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The code of a reply.
pub fn code(reply: &str) -> u16 {
    reply[..3].parse().unwrap()
}

/// The server's authority.
pub fn roots(server: &Server) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let pem = server.authority().pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    roots
}

/// A TLS client that trusts the server's authority.
pub fn trusting(server: &Server) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_root_certificates(roots(server))
        .with_no_client_auth();
    Arc::new(config)
}
