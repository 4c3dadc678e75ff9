//! Finds out what a server speaks that has nothing in common with us: greets it as an
//! old client would, and reads which version and cipher suite it chooses (RFC 5246
//! section 7.4.1). Nothing else is ever said on such a connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::net::transport::Transport;

/// Suites of all kinds, best first, and what is known of a server that chooses one.
#[rustfmt::skip]
const SUITES: &[(Old, &[u16])] = &[
    // AES-GCM and ChaCha20
    (Old::Tls12, &[0xc02c, 0xc02b, 0xcca9, 0xc030, 0xc02f, 0xcca8]),
    (Old::KeyExchange("CBC ciphers"),
        &[0xc024, 0xc023, 0xc028, 0xc027, 0xc00a, 0xc009, 0xc014, 0xc013]),
    (Old::KeyExchange("finite-field Diffie-Hellman key exchange"),
        &[0xccaa, 0x009f, 0x009e, 0x006b, 0x0067, 0x0039, 0x0033, 0x0016]),
    // AES and Camellia, then 3DES and RC4
    (Old::KeyExchange("RSA key exchange"),
        &[0x009d, 0x009c, 0x003d, 0x003c, 0x0035, 0x002f, 0x0041, 0x000a, 0x0005, 0x0004]),
];

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const SERVER_HELLO: u8 = 2;

/// What a server speaks, in words, if it answers an old client at all. The connection
/// must be at the point where TLS begins.
pub(super) async fn probe(
    host: &str,
    mut transport: Box<dyn Transport>,
    limit: Duration,
) -> Option<Old> {
    let exchange = async {
        transport.write_all(&client_hello(host)).await.ok()?;
        transport.flush().await.ok()?;
        let mut header = [0; 5];
        transport.read_exact(&mut header).await.ok()?;
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let mut record = vec![0; length];
        transport.read_exact(&mut record).await.ok()?;
        Some(match header[0] {
            HANDSHAKE => server_hello(&record)?,
            ALERT => Old::Refused,
            _ => return None,
        })
    };
    timeout(limit, exchange).await.ok().flatten()
}

/// What a server made of an old client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// It takes no such client.
    Refused,
    /// It speaks at most this version: SSL 3.0, TLS 1.0 or TLS 1.1.
    Version(&'static str),
    /// It speaks TLS 1.2, with no better key exchange or cipher than this.
    KeyExchange(&'static str),
    /// It speaks TLS 1.2 as we do.
    Tls12,
}

impl Old {
    fn of(version: u16, suite: u16) -> Option<Self> {
        match version {
            0x0303 => {}
            0x0302 => return Some(Old::Version("TLS 1.1")),
            0x0301 => return Some(Old::Version("TLS 1.0")),
            _ => return Some(Old::Version("SSL 3.0")),
        }
        let chosen = SUITES.iter().find(|(_, suites)| suites.contains(&suite));
        chosen.map(|(old, _)| *old)
    }
}

fn extension(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    out.extend(kind.to_be_bytes());
    with_length(out, body);
}

/// Octets after their number, in two octets. What we send is far shorter than 64 KiB.
fn with_length(out: &mut Vec<u8>, body: &[u8]) {
    out.extend((body.len() as u16).to_be_bytes());
    out.extend(body);
}

fn list(items: &[u16]) -> Vec<u8> {
    let octets: Vec<u8> = items.iter().flat_map(|item| item.to_be_bytes()).collect();
    let mut out = Vec::new();
    with_length(&mut out, &octets);
    out
}

fn client_hello(host: &str) -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([0x52; 32]); // random, but nothing is ever encrypted with it
    hello.push(0); // no session
    let suites: Vec<u16> = SUITES.iter().flat_map(|(_, some)| *some).copied().collect();
    hello.extend(list(&suites));
    hello.extend([1, 0]); // no compression
    let mut extensions = Vec::new();
    if host.parse::<std::net::IpAddr>().is_err() {
        let mut name = vec![0];
        with_length(&mut name, host.as_bytes());
        let mut names = Vec::new();
        with_length(&mut names, &name);
        extension(&mut extensions, 0, &names);
    }
    extension(&mut extensions, 10, &list(&[29, 23, 24, 25])); // x25519, P-256, 384, 521
    extension(&mut extensions, 11, &[1, 0]); // uncompressed points
    let signatures = [
        0x0401, 0x0403, 0x0501, 0x0503, 0x0601, 0x0603, 0x0804, 0x0805, 0x0806, 0x0201, 0x0203,
    ];
    extension(&mut extensions, 13, &list(&signatures));
    with_length(&mut hello, &extensions);

    let mut handshake = vec![1, 0]; // ClientHello, and the first octet of its length
    with_length(&mut handshake, &hello);
    let mut record = vec![HANDSHAKE, 3, 1];
    with_length(&mut record, &handshake);
    record
}

/// What the choice in a record that begins with a ServerHello stands for.
fn server_hello(record: &[u8]) -> Option<Old> {
    let body = record.strip_prefix(&[SERVER_HELLO])?.get(3..)?;
    let pair = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let session = usize::from(*body.get(34)?);
    Old::of(pair(0)?, pair(35 + session)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_choice_is_read_from_its_octets() {
        let mut record = vec![SERVER_HELLO, 0, 0, 40, 3, 1];
        record.extend([7; 32]);
        record.extend([2, 9, 9, 0x00, 0x2f, 0]);
        assert_eq!(server_hello(&record), Some(Old::Version("TLS 1.0")));
        record[5] = 3;
        let rsa = Old::KeyExchange("RSA key exchange");
        assert_eq!(server_hello(&record), Some(rsa));
        for length in 0..42 {
            assert_eq!(server_hello(&record[..length]), None);
        }
    }

    #[test]
    fn choices_have_names() {
        let name = |version, suite| Old::of(version, suite).unwrap();
        assert_eq!(name(0x0300, 0x000a), Old::Version("SSL 3.0"));
        assert_eq!(name(0x0303, 0xc02f), Old::Tls12);
        assert_eq!(name(0x0303, 0xc014), Old::KeyExchange("CBC ciphers"));
        assert_eq!(name(0x0303, 0x0004), Old::KeyExchange("RSA key exchange"));
        let dhe = Old::KeyExchange("finite-field Diffie-Hellman key exchange");
        assert_eq!((name(0x0303, 0xccaa), name(0x0303, 0x0016)), (dhe, dhe));
    }
}
