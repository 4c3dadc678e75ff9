//! SCRAM (RFC 5802, RFC 7677), the server's side, with channel binding. Written from the RFCs and
//! apart from any library that a client may use.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Fixed, so that a failure can be looked into.
const SALT: &[u8] = b"salt of the test";
const ITERATIONS: u32 = 4096;
const NONCE: &str = "TestServerNonce";

/// One of the hash functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// 160 bits.
    Sha1,
    /// 256 bits.
    Sha256,
}

/// What the TLS connection can be bound by.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// RFC 9266.
    pub exporter: Option<Vec<u8>>,
    /// RFC 5929, section 4.
    pub server_end_point: Option<Vec<u8>>,
}

/// The exchange after the client's first message.
#[derive(Debug)]
pub struct Exchange {
    /// The mechanism's.
    pub hash: Hash,
    /// The user's.
    pub password: String,
    /// The password's.
    pub salt: Vec<u8>,
    /// What the client's final message has to say in "c=".
    pub binding: Vec<u8>,
    /// The client's and the server's, one after the other.
    pub nonce: String,
    /// The client's first message without what is about channel binding.
    pub first_bare: String,
    /// The server's first message.
    pub server_first: String,
}

/// The mechanism's hash and whether it is a -PLUS one.
pub fn mechanism(name: &str) -> Option<(Hash, bool)> {
    match name {
        "SCRAM-SHA-1" => Some((Hash::Sha1, false)),
        "SCRAM-SHA-1-PLUS" => Some((Hash::Sha1, true)),
        "SCRAM-SHA-256" => Some((Hash::Sha256, false)),
        "SCRAM-SHA-256-PLUS" => Some((Hash::Sha256, true)),
        _ => None,
    }
}

impl Exchange {
    /// Takes the client's first message. `plus`: whether the mechanism is a -PLUS one; `offered`:
    /// whether one is announced (a client that says it could bind then has met a downgrade).
    pub fn start(
        hash: Hash,
        plus: bool,
        offered: bool,
        first: &str,
        (user, password): (&str, &str),
        bindings: &Bindings,
    ) -> Result<Self, &'static str> {
        let mut parts = first.splitn(3, ',');
        let (flag, authority) = (parts.next(), parts.next());
        let (Some(flag), Some(authority), Some(bare)) = (flag, authority, parts.next()) else {
            return Err("not a SCRAM message");
        };
        if !authority.is_empty() && authority != format!("a={user}") {
            return Err("another authorisation identity");
        }
        let mut binding = format!("{flag},{authority},").into_bytes();
        match (flag, plus) {
            ("n", false) => {}
            ("y", false) if !offered => {}
            ("p=tls-exporter", true) => {
                binding.extend(bindings.exporter.as_ref().ok_or("no exporter")?);
            }
            ("p=tls-server-end-point", true) => {
                let end_point = bindings.server_end_point.as_ref();
                binding.extend(end_point.ok_or("no end point")?);
            }
            _ => return Err("wrong channel binding flag"),
        }
        let (name, nonce) = bare.split_once(",r=").ok_or("no nonce")?;
        let name = name.strip_prefix("n=").ok_or("no user")?;
        if name.replace("=2C", ",").replace("=3D", "=") != user {
            return Err("another user");
        }
        let nonce = format!("{nonce}{NONCE}");
        let salt = STANDARD.encode(SALT);
        Ok(Self {
            hash,
            password: password.to_owned(),
            salt: SALT.to_vec(),
            binding,
            server_first: format!("r={nonce},s={salt},i={ITERATIONS}"),
            nonce,
            first_bare: bare.to_owned(),
        })
    }

    /// The server's first message.
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Takes the client's final message; the server's own, if all is right.
    pub fn finish(&self, last: &str) -> Result<String, &'static str> {
        let (without_proof, proof) = last.split_once(",p=").ok_or("no proof")?;
        let binding = STANDARD.encode(&self.binding);
        if without_proof != format!("c={binding},r={}", self.nonce) {
            return Err("wrong channel binding or nonce");
        }
        let hash = self.hash;
        let salted = hash.pbkdf2(self.password.as_bytes(), &self.salt, ITERATIONS);
        let client_key = hash.hmac(&salted, b"Client Key");
        let stored_key = hash.digest(&client_key);
        let messages = [&self.first_bare, &self.server_first, without_proof].join(",");
        let signature = hash.hmac(&stored_key, messages.as_bytes());
        let expected: Vec<u8> = std::iter::zip(client_key, signature)
            .map(|(key, signature)| key ^ signature)
            .collect();
        if proof != STANDARD.encode(expected) {
            return Err("wrong proof");
        }
        let server_key = hash.hmac(&salted, b"Server Key");
        let verifier = hash.hmac(&server_key, messages.as_bytes());
        Ok(format!("v={}", STANDARD.encode(verifier)))
    }
}

impl Hash {
    /// The hash itself.
    pub fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => sha1(bytes).to_vec(),
            Self::Sha256 => {
                let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
                let suite = suite.tls13().unwrap();
                suite.common.hash_provider.hash(bytes).as_ref().to_vec()
            }
        }
    }

    /// RFC 2104; no key here is longer than a block.
    pub fn hmac(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        let pad = |with: u8| {
            let mut block = [with; 64];
            std::iter::zip(&mut block, key).for_each(|(octet, key)| *octet ^= key);
            block
        };
        let inner = self.digest(&[&pad(0x36), text].concat());
        self.digest(&[&pad(0x5c)[..], &inner].concat())
    }

    /// RFC 8018, section 5.2, for one block.
    pub fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut step = self.hmac(password, &[salt, &[0, 0, 0, 1]].concat());
        let mut sum = step.clone();
        for _ in 1..iterations {
            step = self.hmac(password, &step);
            std::iter::zip(&mut sum, &step).for_each(|(sum, step)| *sum ^= step);
        }
        sum
    }
}

/// RFC 3174, method 1.
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend((bytes.len() as u64 * 8).to_be_bytes());
    let mut state: [u32; 5] = [
        0x6745_2301,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, octets) in std::iter::zip(&mut words, block.chunks_exact(4)) {
            *word = octets
                .iter()
                .fold(0, |sum, &octet| sum << 8 | u32::from(octet));
        }
        for at in 16..80 {
            let mix = words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16];
            words[at] = mix.rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.into_iter().enumerate() {
            let (function, constant) = match at {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc_u32),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = [function, e, constant, word]
                .into_iter()
                .fold(a.rotate_left(5), u32::wrapping_add);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (sum, part) in std::iter::zip(&mut state, [a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (octets, word) in std::iter::zip(digest.chunks_exact_mut(4), state) {
        octets.copy_from_slice(&word.to_be_bytes());
    }
    digest
}
