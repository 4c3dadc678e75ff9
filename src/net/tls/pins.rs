//! Keys of servers that the user trusts by name, whatever their certificates say.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

use crate::mail::{Endpoint, Port};

/// SHA-256 of a public key (SubjectPublicKeyInfo, DER) or of a whole certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of these octets.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Fingerprint(bytes)
    }
}

/// Octets as hexadecimal numbers with colons, as OpenSSL writes them.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    numbers.join(":")
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An element of `rs-smtpmail-tls-pins` that says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Not `HOST:PORT`.
    #[error("rs-smtpmail-tls-pins: {0:?} is not HOST:PORT")]
    Endpoint(String),
    /// Not 64 hexadecimal digits.
    #[error("rs-smtpmail-tls-pins: {0:?} is no SHA-256 fingerprint (64 hexadecimal digits)")]
    Fingerprint(String),
}

impl FromStr for Fingerprint {
    type Err = PinError;

    /// 64 hexadecimal digits, with or without colons, or `sha256:` before them.
    fn from_str(text: &str) -> Result<Self, PinError> {
        let error = || PinError::Fingerprint(text.to_owned());
        let lower = text.to_ascii_lowercase();
        let digits: String = lower
            .strip_prefix("sha256:")
            .unwrap_or(&lower)
            .replace(':', "");
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = &digits[2 * index..2 * index + 2];
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        Ok(Fingerprint(bytes))
    }
}

/// The keys that one server may have (`rs-smtpmail-tls-pins`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Which server.
    pub endpoint: Endpoint,
    /// Its key, and maybe its next one.
    pub keys: Vec<Fingerprint>,
}

impl Pin {
    /// A pin from its texts: `HOST:PORT`, the port by number or service name, and
    /// fingerprints.
    pub fn parse(endpoint: &str, keys: &[String]) -> Result<Self, PinError> {
        let error = || PinError::Endpoint(endpoint.to_owned());
        let (host, port) = endpoint.rsplit_once(':').ok_or_else(error)?;
        let port = Port::parse(port)
            .and_then(|port| port.number())
            .map_err(|_| error())?;
        if host.is_empty() {
            return Err(error());
        }
        Ok(Pin {
            endpoint: Endpoint::new(host, port),
            keys: keys
                .iter()
                .map(|key| key.parse())
                .collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fingerprints_are_read_as_tools_write_them() {
        let one = Fingerprint::of(b"key");
        let text = one.to_string();
        for spelling in [
            text.clone(),
            text.to_lowercase(),
            text.replace(':', ""),
            format!("sha256:{text}"),
            format!("SHA256:{text}"),
        ] {
            assert_eq!(spelling.parse::<Fingerprint>().unwrap(), one, "{spelling}");
        }
        for no in ["", "AB:CD", &text[1..], "zz".repeat(32).as_str(), "é"] {
            assert!(no.parse::<Fingerprint>().is_err(), "{no}");
        }
    }

    #[test]
    fn pins_name_host_and_port() {
        let key = Fingerprint::of(b"key").to_string();
        let pin = |endpoint: &str| Pin::parse(endpoint, std::slice::from_ref(&key));
        let endpoint = pin("Mail.Example.ORG:submission").unwrap().endpoint;
        assert_eq!(endpoint.to_string(), "mail.example.org:587");
        assert_eq!(
            pin("[::1]:465").unwrap().endpoint,
            Endpoint::new("::1", 465)
        );
        for no in ["mail.example.org", ":25", "host:", "host:0", "host:no-such"] {
            assert!(pin(no).is_err(), "{no}");
        }
    }
}
