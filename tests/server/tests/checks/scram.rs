//! SCRAM against the examples of the RFCs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use smtp_test_server::scram::{Bindings, Exchange, Hash, sha1};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn exchanges_are_those_of_the_rfcs() {
    // RFC 5802, section 5, and RFC 7677, section 3
    for (hash, client, server, salt, proof, verifier) in [
        (
            Hash::Sha1,
            "fyko+d2lbbFgONRv9qkxdawL",
            "3rfcNHYJY1ZVvWVs7j",
            "QSXCR+Q6sek8bf92",
            "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            Hash::Sha256,
            "rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ] {
        let nonce = format!("{client}{server}");
        let exchange = Exchange {
            hash,
            password: "pencil".to_owned(),
            salt: STANDARD.decode(salt).unwrap(),
            binding: b"n,,".to_vec(),
            nonce: nonce.clone(),
            first_bare: format!("n=user,r={client}"),
            server_first: format!("r={nonce},s={salt},i=4096"),
        };
        let last = format!("c=biws,r={nonce},p={proof}");
        assert_eq!(exchange.finish(&last), Ok(format!("v={verifier}")));
        let wrong = format!("c=biws,r={nonce},p={verifier}");
        assert_eq!(exchange.finish(&wrong), Err("wrong proof"));
        let unbound = format!("c=eSws,r={nonce},p={proof}");
        assert_eq!(
            exchange.finish(&unbound),
            Err("wrong channel binding or nonce")
        );
    }
}

#[test]
fn the_first_message_has_to_fit() {
    let bindings = Bindings {
        exporter: Some(b"key".to_vec()),
        server_end_point: None,
    };
    let start = |first: &str, plus, offered| {
        let known = ("user", "pass word");
        Exchange::start(Hash::Sha256, plus, offered, first, known, &bindings).map(|_| ())
    };
    assert_eq!(start("n,,n=user,r=x", false, false), Ok(()));
    assert_eq!(start("y,,n=user,r=x", false, false), Ok(()));
    assert_eq!(start("p=tls-exporter,,n=user,r=x", true, true), Ok(()));
    for (wrong, plus, offered) in [
        // Somebody has removed -PLUS from what the client saw.
        ("y,,n=user,r=x", false, true),
        ("n,,n=user,r=x", true, true),
        ("p=tls-server-end-point,,n=user,r=x", true, true),
        ("n,,n=other,r=x", false, false),
        ("n,a=other,n=user,r=x", false, false),
        ("n,,n=user", false, false),
        ("", false, false),
    ] {
        assert!(start(wrong, plus, offered).is_err(), "{wrong}");
    }
}

#[test]
fn hashes_are_those_of_the_rfcs() {
    // RFC 3174, section 7.3
    assert_eq!(
        hex(&sha1(b"abc")),
        "a9993e364706816aba3e25717850c26c9cd0d89d"
    );
    assert_eq!(
        hex(&sha1(&b"01234567".repeat(80))),
        "dea356a2cddd90c7a7ecedc5ebb563934f460452"
    );
    // RFC 2202, section 3, and RFC 4231, section 4.3
    let text = b"what do ya want for nothing?";
    assert_eq!(
        hex(&Hash::Sha1.hmac(b"Jefe", text)),
        "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
    );
    assert!(hex(&Hash::Sha256.hmac(b"Jefe", text)).starts_with("5bdcc146bf60754e6a042426"));
    // RFC 6070
    assert_eq!(
        hex(&Hash::Sha1.pbkdf2(b"password", b"salt", 4096)),
        "4b007901b765489abead49d926f721d065a429c1"
    );
}
