//! Results are read again with eml-codec (structure) and mail-parser (encodings), neither
//! of which has a part in making them.
#![allow(clippy::unwrap_used)]

mod generated;

use std::borrow::Cow;

use eml_codec::mime::mechanism::Mechanism;
use eml_codec::part::MimeBody;
use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;

use super::error::Cause;
use super::*;

const SEVEN_BIT: Allowed = Allowed {
    eight_bit: false,
    eight_bit_header: false,
};
const EIGHT_BIT: Allowed = Allowed {
    eight_bit: true,
    eight_bit_header: false,
};
const UTF8_HEADER: Allowed = Allowed {
    eight_bit: false,
    eight_bit_header: true,
};

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// The decoded content of the leaf parts.
fn leaves(message: &[u8]) -> Vec<Vec<u8>> {
    fn collect(body: &MimeBody<'_>, leaves: &mut Vec<Vec<u8>>) {
        let (octets, encoding) = match body {
            MimeBody::Mult(multipart) => {
                for child in &multipart.children {
                    collect(&child.mime_body, leaves);
                }
                return;
            }
            MimeBody::Msg(message) => return collect(&message.child.mime_body, leaves),
            MimeBody::Txt(text) => (&text.body, &text.mime.fields.transfer_encoding),
            MimeBody::Bin(binary) => (&binary.body, &binary.mime.fields.transfer_encoding),
        };
        leaves.push(match encoding {
            Mechanism::QuotedPrintable => quoted_printable_decode(octets).unwrap(),
            Mechanism::Base64 => base64_decode(octets).unwrap(),
            _ => octets.to_vec(),
        });
    }
    let mut found = Vec::new();
    collect(&eml_codec::parse_message(message).mime_body, &mut found);
    found
}

/// The result, which is legal, holds the same content, and needs no further change.
fn checked(message: &[u8], allowed: Allowed) -> Vec<u8> {
    let result = downgrade(message, allowed).unwrap().into_owned();
    assert_eq!(allowed.header_trouble(&result), None);
    let text = String::from_utf8_lossy(&result);
    assert!(leaves(&result) == leaves(message), "{text}");
    assert!(matches!(downgrade(&result, allowed), Ok(Cow::Borrowed(_))));
    result
}

fn seven_bit(text: &str) -> String {
    let result = String::from_utf8(checked(&crlf(text), SEVEN_BIT)).unwrap();
    result.replace("\r\n", "\n")
}

fn refusal(text: &str) -> String {
    downgrade(&crlf(text), SEVEN_BIT).unwrap_err().to_string()
}

const MIME: &str = "MIME-Version: 1.0\n";

#[test]
fn what_is_legal_stays_as_it_is() {
    let eight_bit_header = "Subject: Grüße\n\nplain\n";
    for (text, allowed) in [
        ("Subject: x\n\nplain\n", SEVEN_BIT),
        ("Subject: x\n\nGrüße\n", EIGHT_BIT),
        (eight_bit_header, EIGHT_BIT),
        (eight_bit_header, UTF8_HEADER),
        ("", SEVEN_BIT),
        ("no header at all", SEVEN_BIT),
        ("Content-Transfer-Encoding: 8bit\n\nplain\n", SEVEN_BIT),
    ] {
        let message = crlf(text);
        let result = downgrade(&message, allowed);
        assert!(matches!(result, Ok(Cow::Borrowed(same)) if same == message));
    }
    let longest = format!("Subject: x\n\n{}\n", "x".repeat(998));
    assert!(matches!(
        downgrade(&crlf(&longest), SEVEN_BIT),
        Ok(Cow::Borrowed(_))
    ));
}

#[test]
fn text_becomes_quoted_printable_or_base64() {
    let qp = "Content-Transfer-Encoding: quoted-printable";
    for (header, body, new_header, new_body) in [
        (
            "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nSubject: x",
            "Grüße = \n.\n-- \nx\n",
            format!("Content-Type: text/plain; charset=utf-8\n{qp}\nSubject: x"),
            "Gr=C3=BC=C3=9Fe =3D=20\n.\n=2D-=20\nx\n",
        ),
        (
            "content-type: TEXT/x-what\ncontent-transfer-encoding:\n BINARY (x)",
            "naïve\n",
            format!("content-type: TEXT/x-what\n{qp}"),
            "na=C3=AFve\n",
        ),
        (
            "Content-Type: text/plain; charset=utf-8",
            "Καλημέρα κόσμε\n",
            "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64".to_owned(),
            "zprOsc67zrfOvM6tz4HOsSDOus+Mz4POvM61DQo=\n",
        ),
        // RFC 6532: may be encoded, unlike message/rfc822.
        (
            "Content-Type: message/global",
            "Subject: Grüße\n\nHello, world\n",
            format!("Content-Type: message/global\n{qp}"),
            "Subject: Gr=C3=BC=C3=9Fe\n\nHello, world\n",
        ),
        (
            "Content-Type: image/png",
            "é\n",
            "Content-Type: image/png\nContent-Transfer-Encoding: base64".to_owned(),
            "w6kNCg==\n",
        ),
    ] {
        let message = crlf(&format!("{MIME}{header}\n\n{body}"));
        let result = downgrade(&message, SEVEN_BIT).unwrap().into_owned();
        let expected = format!("{MIME}{new_header}\n\n{new_body}");
        assert_eq!(
            String::from_utf8(result).unwrap(),
            expected.replace('\n', "\r\n")
        );
    }
}

#[test]
fn text_without_mime_is_given_it() {
    assert_eq!(
        seven_bit("Subject: x\n\nnaïve text\n"),
        "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
         Content-Transfer-Encoding: quoted-printable\n\nna=C3=AFve text\n"
    );
    assert_eq!(
        seven_bit("\nnaïve text\n"),
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
         Content-Transfer-Encoding: quoted-printable\n\nna=C3=AFve text\n"
    );
    let latin = [crlf("Subject: x\n\nna").as_slice(), b"\xefve text\r\n"].concat();
    let result = String::from_utf8(checked(&latin, SEVEN_BIT)).unwrap();
    assert!(result.contains("charset=unknown-8bit\r\n") && result.contains("na=EFve"));
    let long = format!("Subject: x\n\n{}\n", "word ".repeat(300));
    let result = seven_bit(&long);
    assert!(result.starts_with(
        "Subject: x\nMIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\nword"
    ));
}

#[test]
fn only_the_parts_concerned_are_changed() {
    // The inner boundary starts with the outer one; one delimiter has white space after it.
    let text = "Subject: x\nContent-Type: multipart/mixed; boundary=\"b\"\n\
        Content-Transfer-Encoding: 8bit\n\npreamble\n--b  \n\
        Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\
        Grüße, one, two, three\n--bc\n--b\nContent-Type: text/plain\n\nplain\n--b\n\
        Content-Type: multipart/alternative; boundary=\"b2\"\n\
        Content-Transfer-Encoding: binary\n\n--b2\n\
        Content-Type: text/html; charset=utf-8\n\n<p>schön, four, five, six</p>\n\n--b2--\n\n\
        --b\n\n--b\nContent-Type: application/octet-stream\n\né\n--b--\nepilogue\n--b\n";
    let expected = "Subject: x\nContent-Type: multipart/mixed; boundary=\"b\"\n\
        Content-Transfer-Encoding: 7bit\nMIME-Version: 1.0\n\npreamble\n--b  \n\
        Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n\
        Gr=C3=BC=C3=9Fe, one, two, three\n=2D-bc\n--b\nContent-Type: text/plain\n\nplain\n--b\n\
        Content-Type: multipart/alternative; boundary=\"b2\"\n\
        Content-Transfer-Encoding: 7bit\n\n--b2\n\
        Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n\
        <p>sch=C3=B6n, four, five, six</p>\n\n--b2--\n\n--b\n\n--b\n\
        Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\nw6k=\n\
        --b--\nepilogue\n--b\n";
    let result = downgrade(&crlf(text), SEVEN_BIT).unwrap().into_owned();
    assert_eq!(
        result,
        crlf(expected),
        "{}",
        String::from_utf8_lossy(&result)
    );
}

#[test]
fn a_multipart_says_8bit_while_it_is() {
    let long = "word ".repeat(300);
    let text = format!(
        "{MIME}Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: binary\n\n\
         --b\nContent-Type: text/plain; charset=utf-8\n\nGrüße\n--b\n\n{long}\n--b--\n"
    );
    let result = String::from_utf8(checked(&crlf(&text), EIGHT_BIT)).unwrap();
    assert!(result.contains("boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"));
    assert!(result.contains("Grüße"));
}

#[test]
fn parts_end_where_they_must() {
    for text in [
        // No last delimiter, and no line end.
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nGrüße, to all",
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nGrüße, to all\n--b--",
        // The inner multipart has no last delimiter.
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\
         Content-Type: multipart/mixed; boundary=c\n\n--c\n\nschön\n--b\n\nGrüße, to all\n--b--\n",
        // A part without a body, and one without a header.
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\n\nGrüße, to all\n--b--\n",
        "Content-Type: multipart/digest; boundary=\"b c\"\n\n--b c\n\n\
         Subject: x\nContent-Type: text/plain; charset=utf-8\n\nGrüße, to all\n--b c--\n",
    ] {
        let result = downgrade(&crlf(text), SEVEN_BIT).unwrap().into_owned();
        let result = String::from_utf8(result).unwrap();
        assert_eq!(result.matches("Gr=C3=BC=C3=9Fe").count(), 1, "{result}");
        let delimiters = |text: &str| text.matches("\n--").count();
        assert_eq!(delimiters(&result), delimiters(text), "{result}");
    }
}

#[test]
fn enclosed_messages_are_treated_alike() {
    let result = seven_bit(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
         Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\n\
         Subject: Grüße\nContent-Type: text/plain; charset=utf-8\n\n\
         schöner Text steht hier\n--b--\n",
    );
    assert!(result.contains(
        "Content-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\n\
         Subject: =?utf-8?B?R3LDvMOfZQ==?=\nContent-Type: text/plain; charset=utf-8\n\
         MIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n\
         sch=C3=B6ner Text steht hier\n--b--\n"
    ));
    // In a digest they need no Content-Type.
    let result = seven_bit(
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: Grüße\n\nplain\n--b--\n",
    );
    assert!(result.contains("--b\n\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\n\nplain\n--b--\n"));
}

#[test]
fn a_soft_line_break_makes_no_boundary() {
    for length in 60..80 {
        let text = format!(
            "{MIME}Content-Type: multipart/mixed; boundary=b\n\n--b\n\
             Content-Type: text/plain; charset=utf-8\n\né{}--b\n--b--\n",
            "x".repeat(length)
        );
        seven_bit(&text);
        let quoted = format!(
            "{MIME}Content-Type: multipart/mixed; boundary=b\n\n--b\n\
             Content-Transfer-Encoding: quoted-printable\n\n{}{}--b\n--b--\n",
            "x".repeat(length),
            "=41--b".repeat(400),
        );
        seven_bit(&quoted);
    }
}

#[test]
fn what_is_encoded_already_is_only_broken_into_lines() {
    let content = "QUJD".repeat(400);
    let result = seven_bit(&format!(
        "{MIME}Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n{content}\nQUJD\n"
    ));
    assert!(result.ends_with("QUJD\n") && result.lines().all(|line| line.len() <= 76));
    let result = seven_bit(&format!(
        "{MIME}Content-Transfer-Encoding: quoted-printable\n\n--b{}=\n\tx\n",
        "=C3=A4".repeat(400)
    ));
    assert!(result.contains("\n\n=2D-b=C3=A4") && result.ends_with("=C3=A4=\n\tx\n"));
    // White space at the end of an encoded line is no content, and must not become any.
    let padded = format!(
        "{MIME}Content-Transfer-Encoding: quoted-printable\n\n{}  \n",
        "x".repeat(1000)
    );
    let result = downgrade(&crlf(&padded), SEVEN_BIT).unwrap().into_owned();
    assert!(result.ends_with(b"x\r\n"));
    assert_eq!(
        refusal("Content-Transfer-Encoding: base64\n\né\n"),
        "it has 8-bit text, and is encoded already (base64)"
    );
}

#[test]
fn what_nobody_is_shown_is_made_legal() {
    let text = format!(
        "Content-Type: multipart/mixed; boundary=b\n\nvoilà\n--b\n\nx\n--b--\n{}\n",
        "-".repeat(1200)
    );
    let result = downgrade(&crlf(&text), SEVEN_BIT).unwrap().into_owned();
    let result = String::from_utf8(result).unwrap();
    assert!(result.contains("\r\nvoil??\r\n--b\r\n\r\nx\r\n--b--\r\n---"));
    assert!(result.contains("-\r\n ---"));
}

#[test]
fn long_text_is_encoded_without_a_seam() {
    for length in [32_764, 32_765, 32_766, 32_767, 40_000] {
        seven_bit(&format!("{MIME}\né{}\nx", " x-".repeat(30_000)));
        let line = "x".repeat(length);
        seven_bit(&format!("{MIME}\né{line}\n{line} \n\n{line}"));
    }
}

#[test]
fn header_fields_are_encoded() {
    for (field, expected) in [
        (
            "Subject: Re: Grüße",
            "Subject: Re: =?utf-8?B?R3LDvMOfZQ==?=",
        ),
        ("Subject:é", "Subject: =?utf-8?B?w6k=?="),
        ("Foo: é x", "Foo: =?utf-8?B?w6k=?= x"),
        (
            "X-A: é  è x",
            "X-A: =?utf-8?B?w6k=?= =?utf-8?B?ICDDqA==?= x",
        ),
        (
            "Subject: =?utf-8?Q?a?= é =?utf-8?Q?a?=",
            "Subject: =?utf-8?Q?a?= =?utf-8?B?IMOp?= =?utf-8?B?IA==?= =?utf-8?Q?a?=",
        ),
        ("To: Jürgen <a@b>", "To: =?utf-8?B?SsO8cmdlbg==?= <a@b>"),
        (
            "From: \"Groß, J. \\\"X\\\"\"<a@b> (é)",
            "From: =?utf-8?B?R3Jvw58sIEouICJYIg==?= <a@b> (=?utf-8?B?w6k=?=)",
        ),
        (
            "Resent-Cc: c@d, é é (x (è\\))) <\"a,b\"@[IPv6:::1]>,\n \"A\" e <a@b>",
            "Resent-Cc: c@d, =?utf-8?B?w6k=?= =?utf-8?B?IMOp?= (x (=?utf-8?B?w6gp?=))\n \
             <\"a,b\"@[IPv6:::1]>, \"A\" e <a@b>",
        ),
        ("To: \"é\"x<a@b>", "To: =?utf-8?B?w6k=?= x<a@b>"),
        ("To: é<a@b>", "To: =?utf-8?B?w6k=?= <a@b>"),
        ("To: Büro: a@b, c@d;", "To: =?utf-8?B?QsO8cm8=?=: a@b, c@d;"),
        ("Keywords: é, b", "Keywords: =?utf-8?B?w6k=?=, b"),
        (
            "Date: Thu, 1 Jan 2026 00:00:00 +0100 (für)",
            "Date: Thu, 1 Jan 2026 00:00:00 +0100 (=?utf-8?B?ZsO8cg==?=)",
        ),
    ] {
        assert_eq!(
            seven_bit(&format!("{field}\nX: y\n\nx\n")),
            format!("{expected}\nX: y\n\nx\n")
        );
    }
    let latin = [b"Subject: \xe9\r\n\r\n".as_slice(), b"x\r\n"].concat();
    let result = checked(&latin, SEVEN_BIT);
    assert!(result.starts_with(b"Subject: =?unknown-8bit?B?6Q==?=\r\n"));
}

#[test]
fn long_header_lines_are_folded() {
    let addresses = "To: ".to_owned() + &"a@example.org, ".repeat(100) + "b@c";
    let token = "x".repeat(995);
    for (field, allowed) in [
        (addresses.clone(), SEVEN_BIT),
        (addresses.replacen("a@", "é@", 1), EIGHT_BIT),
        (format!("References: {token}\t{token}"), SEVEN_BIT),
        // As Emacs made them.
        (
            "Subject:".to_owned() + &" =?utf-8?Q?J=C3=BCrgen?=".repeat(50),
            SEVEN_BIT,
        ),
        (
            format!("Subject: a{}b{}c", " ".repeat(900), " ".repeat(900)),
            SEVEN_BIT,
        ),
    ] {
        let message = crlf(&format!("X: y\n{field}\n\nx\n"));
        let result = checked(&message, allowed);
        let unfolded = String::from_utf8(result).unwrap();
        let unfolded = unfolded.replace("\r\n ", " ").replace("\r\n\t", "\t");
        assert_eq!(unfolded.into_bytes(), message);
    }
}

#[test]
fn what_cannot_be_helped_is_named() {
    let part = |header: &str| {
        format!("{MIME}Content-Type: multipart/mixed; boundary=b\n\n--b\n{header}\n\né\n--b--\n")
    };
    let long_token = "x".repeat(1000);
    for (text, expected) in [
        (
            part("Content-Type: multipart/signed; boundary=c\n\n--c\n\né\n--c--"),
            "its part 1.1 has 8-bit text, and is signed, so it must not be changed",
        ),
        (
            part("Content-Type: message/partial"),
            "its part 1 has 8-bit text, and a type (message/partial) that cannot be encoded",
        ),
        (
            part("Content-Type: multipart/mixed"),
            "its part 1 has 8-bit text, and a type (multipart/mixed) that cannot be encoded",
        ),
        // A boundary used twice, one that never comes, one that is not ASCII.
        (
            part("Content-Type: multipart/mixed; boundary=b"),
            "its part 1 has 8-bit text, and a type (multipart/mixed) that cannot be encoded",
        ),
        (
            part("Content-Type: multipart/mixed; boundary=c"),
            "its part 1 has 8-bit text, and a type (multipart/mixed) that cannot be encoded",
        ),
        (
            part("Content-Type: text/plain\nContent-Type: text/html"),
            "its part 1 has 8-bit text, and a header that can be read in more than one way",
        ),
        (
            part("Content-Transfer-Encoding: x-uuencode"),
            "its part 1 has 8-bit text, and is encoded already (x-uuencode)",
        ),
        (
            "To: jürgen@b, <a@b>\n\nx\n".to_owned(),
            "it has 8-bit text in its field To, which cannot be encoded or folded",
        ),
        (
            "Cc: é@[IPv6:::1]\n\nx\n".to_owned(),
            "it has 8-bit text in its field Cc, which cannot be encoded or folded",
        ),
        (
            "To: \"é\n\nx\n".to_owned(),
            "it has 8-bit text in its field To, which cannot be encoded or folded",
        ),
        (
            "List-Post: <é>\n\nx\n".to_owned(),
            "it has 8-bit text in its field List-Post, which cannot be encoded or folded",
        ),
        (
            format!("Subject: {long_token}\n\nx\n"),
            "it has a line of more than 998 octets in its field Subject, \
             which cannot be encoded or folded",
        ),
    ] {
        assert_eq!(refusal(&text), expected, "{text}");
    }
    let cause = |text: &str| {
        downgrade(&crlf(text), SEVEN_BIT)
            .unwrap_err()
            .cause()
            .clone()
    };
    assert_eq!(cause("é\n\nx\n"), Cause::Header);
    let padding = " ".repeat(1000);
    let text = format!("Content-Type: multipart/mixed; boundary=b\n\n--b{padding}\n\nx\n--b--\n");
    assert_eq!(cause(&text), Cause::Rest);
}

#[test]
fn a_signature_stays_valid() {
    let signed = "--c\nContent-Type: text/plain\n\nplain\n--c\n\
        Content-Type: application/pgp-signature\n\nx\n--c--";
    let text = format!(
        "Subject: Grüße\n{MIME}Content-Type: multipart/mixed; boundary=b\n\n--b\n\
         Content-Type: multipart/signed; boundary=c\nContent-Transfer-Encoding: 8bit\n\n{signed}\n\
         --b\nContent-Type: text/plain; charset=utf-8\n\nschön\n--b--\n"
    );
    let result = seven_bit(&text);
    assert!(result.contains(signed) && result.contains("sch=C3=B6n"));
}

#[test]
fn nesting_has_an_end() {
    let mut text = MIME.to_owned();
    for level in 0..20_000 {
        text += &format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n");
    }
    let multiparts = crlf(&(text + "\né\n"));
    let error = downgrade(&multiparts, SEVEN_BIT).unwrap_err();
    assert!(matches!(error.cause(), Cause::Type(_)));
    let messages = MIME.to_owned() + &"Content-Type: message/rfc822\n\n".repeat(20_000) + "é\n";
    assert!(downgrade(&crlf(&messages), SEVEN_BIT).is_err());
}
