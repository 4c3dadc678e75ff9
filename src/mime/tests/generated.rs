//! Generated messages.

use mail_parser::{MessageParser, MimeHeaders};
use proptest::prelude::*;

use super::*;
use crate::mime::header::Header;

/// A MIME tree as text; `place` makes boundaries unlike each other.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(usize, usize, Vec<u8>),
    Multipart(usize, Vec<Tree>),
    Message(Box<Tree>),
}

impl Tree {
    fn append(&self, place: &str, out: &mut Vec<u8>) {
        let encodings = ["7bit", "8bit", "binary"];
        match self {
            Tree::Leaf(kind, encoding, body) => {
                let kinds = ["text/plain; charset=utf-8", "text/html", "image/png", "X"];
                let kind = kinds[*kind];
                if kind != "X" {
                    out.extend_from_slice(format!("Content-Type: {kind}\r\n").as_bytes());
                }
                if let Some(encoding) = encodings.get(*encoding) {
                    let field = format!("Content-Transfer-Encoding: {encoding}\r\n");
                    out.extend_from_slice(field.as_bytes());
                }
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(body);
            }
            Tree::Multipart(encoding, children) => {
                let encoding = encodings[encoding % 3];
                let head = format!(
                    "Content-Type: multipart/mixed;\r\n\tboundary=\"={place}=\"\r\n\
                     Content-Transfer-Encoding: {encoding}\r\n\r\n"
                );
                out.extend_from_slice(head.as_bytes());
                for (number, child) in children.iter().enumerate() {
                    out.extend_from_slice(format!("--={place}=\r\n").as_bytes());
                    child.append(&format!("{place}{number}"), out);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(format!("--={place}=--").as_bytes());
            }
            Tree::Message(child) => {
                out.extend_from_slice(b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n");
                child.append(&format!("{place}m"), out);
            }
        }
    }
}

/// Content with what matters to encodings, and lines that are almost delimiters.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[ -~]{0,40}",
        "[ =.\t-]{1,3}",
        "[äöü€]{1,30}",
        Just("\r\n".to_owned()),
        Just("--=r=".to_owned()),
        Just("--=r0=--".to_owned()),
        "[a-z ]{900,1100}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| {
        let text = pieces.concat();
        let lines = text.split("\r\n").map(|line| {
            let is_like_a_delimiter = line.starts_with("--");
            if is_like_a_delimiter {
                format!("x{line}")
            } else {
                line.to_owned()
            }
        });
        lines.collect::<Vec<_>>().join("\r\n").into_bytes()
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = (0..4_usize, 0..4_usize, body())
        .prop_map(|(kind, encoding, body)| Tree::Leaf(kind, encoding, body));
    leaf.prop_recursive(4, 12, 4, |inner| {
        prop_oneof![
            (0..3_usize, proptest::collection::vec(inner.clone(), 1..4))
                .prop_map(|(encoding, children)| Tree::Multipart(encoding, children)),
            inner.prop_map(|child| Tree::Message(Box::new(child))),
        ]
    })
}

proptest! {
    #[test]
    fn no_octets_panic_and_the_result_is_legal(
        octets: Vec<u8>,
        pieces in proptest::collection::vec(
            "(Content-Type: |multipart/mixed; boundary=b|message/rfc822|Subject: |To: |\r\n|\r\n|--b|--|é|\"|\\(|<|>|:|,|\\\\| )",
            0..40,
        ),
    ) {
        for message in [octets, pieces.concat().into_bytes()] {
            for allowed in [SEVEN_BIT, EIGHT_BIT, UTF8_HEADER] {
                if let Ok(result) = downgrade(&message, allowed) {
                    prop_assert_eq!(allowed.header_trouble(&result), None);
                }
            }
        }
    }

    #[test]
    fn another_reader_finds_the_same_content_type(
        kind in "(text|Multipart|message|x-a)/(plain|Mixed|rfc822|x-b\\.c)( \\((a|\\(b;\\)|\")\\))?",
        charset in "(; ?charset=(utf-8|\"us-ascii\"))?",
        boundary in "(;(\r\n)?[ \t]BOUNDARY=([-=a-z_.0-9]{1,9}|\"[-= a-z/;:?()<\\[]{0,9}[a-z]\"|\"a\\\\\"b\"))?",
        end in "(;|; name=\"boundary=b\"| \\(x\\))?",
    ) {
        let field = format!("Content-Type: {kind}{charset}{boundary}{end}\r\n\r\n");
        let header = Header::read(&field.as_bytes()[..field.len() - 2]);
        let message = MessageParser::new().parse(field.as_bytes()).unwrap();
        let other = message.content_type().unwrap();
        let other_type = format!("{}/{}", other.ctype(), other.subtype().unwrap_or_default());
        prop_assert_eq!(header.content_type, other_type.to_ascii_lowercase());
        let other_boundary = other.attribute("boundary");
        prop_assert_eq!(header.boundary.as_deref(), other_boundary.map(str::as_bytes));
        prop_assert!(!header.is_doubtful);
    }

    #[test]
    fn trees_decode_to_what_they_were(tree in tree()) {
        let mut message = b"MIME-Version: 1.0\r\n".to_vec();
        tree.append("r", &mut message);
        message.extend_from_slice(b"\r\n");
        checked(&message, SEVEN_BIT);
        checked(&message, EIGHT_BIT);
    }

    #[test]
    fn encoded_words_are_kept_beside_new_ones(
        words in proptest::collection::vec(
            "[a-z]{1,9}|[äé€]{1,60}|=\\?utf-8\\?Q\\?[a-z_]{0,9}=C3=A9\\?=", 1..12
        ),
    ) {
        let text = words.join(" ");
        let message = crlf(&format!("Subject: ü {}\nTo: {} <a@b>\n\nx\n", text, text));
        let result = checked(&message, SEVEN_BIT);
        let header = String::from_utf8_lossy(&result);
        prop_assert!(words.iter().filter(|word| word.is_ascii()).all(|word| header.contains(word.as_str())));
        let before = MessageParser::new().parse(&message).unwrap();
        let after = MessageParser::new().parse(&result).unwrap();
        prop_assert_eq!(after.subject(), before.subject());
        prop_assert_eq!(after.to().map(|to| format!("{to:?}")), before.to().map(|to| format!("{to:?}")));
    }

    #[test]
    fn subjects_and_names_read_as_they_did(
        words in proptest::collection::vec("[a-zäé€]{1,60}", 1..12),
        is_quoted: bool,
    ) {
        let text = words.join(" ");
        let name = if is_quoted { format!("\"{text}, \\\"x\\\"\"") } else { text.clone() };
        let message = crlf(&format!("Subject: {text}\nTo: {name} <a@b>, c@d\n\nx\n"));
        let result = checked(&message, SEVEN_BIT);
        let header = String::from_utf8_lossy(&result);
        let encoded_words = header.split_whitespace().filter(|word| word.starts_with("=?"));
        prop_assert!(encoded_words.into_iter().all(|word| word.len() <= 75));
        let before = MessageParser::new().parse(&message).unwrap();
        let after = MessageParser::new().parse(&result).unwrap();
        prop_assert_eq!(after.subject(), Some(text.as_str()));
        prop_assert_eq!(after.to().map(|to| format!("{to:?}")), before.to().map(|to| format!("{to:?}")));
    }
}
