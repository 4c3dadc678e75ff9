//! Mail addresses: the paths of an SMTP envelope (RFC 5321 section 4.1.2) and the
//! address lists of recipient header fields (RFC 5322 section 3.4).
//!
//! The tokens (comments, quoted strings, atoms, domain literals, encoded words) are
//! parsed by eml-codec. Its address level is not used, because it drops the text
//! after a second `@`; ours accepts what can be delivered and refuses the rest by
//! name, and adds what header fields hold in practice: a bare local user.

use std::fmt;

use eml_codec::imf::mailbox::{domain, local_part};
use eml_codec::text::misc_token::phrase;
use eml_codec::text::whitespace::cfws;
use nom::IResult;
use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::combinator::{map, opt};
use nom::multi::separated_list1;
use nom::sequence::{delimited, pair, terminated, tuple};
use serde::{Deserialize, Serialize};

/// The text between the angle brackets of MAIL or RCPT: `local@domain`, a bare local
/// user (which servers accept for their own users), or empty for the null
/// reverse-path. Holds no control character, no space outside of quotes, no bracket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(String);

/// Why the text of a header field, or of what else `field` names, is no address or
/// address list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct AddressError {
    field: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    /// The list is well formed up to here.
    #[error("cannot parse the address at {0:?}")]
    Syntax(String),
    #[error("missing comma before {0:?}")]
    MissingComma(String),
    /// As some other mail programs separate addresses.
    #[error("semicolon before {0:?}; addresses are separated by commas")]
    Semicolon(String),
    /// `Doe, John <j@x>`: a bare word before a named address is hardly a local user.
    #[error(
        "{word:?} has no domain and is followed by {rest:?}; \
         quote a name that holds a comma, write <{word}> for a local user"
    )]
    UnquotedComma { word: String, rest: String },
    /// Control characters never go into an SMTP command.
    #[error("control character in {0:?}")]
    Control(String),
    /// RFC 5321 section 4.5.3.1.3 allows 256 octets; some servers more, none 1,000.
    #[error("address of {0} octets is too long")]
    TooLong(usize),
}

impl Problem {
    fn of(self, field: &str) -> AddressError {
        AddressError {
            field: field.to_owned(),
            problem: self,
        }
    }
}

const LONGEST_PATH: usize = 900;

impl Path {
    /// The null reverse-path `<>` of notifications (RFC 5321 section 4.5.5).
    pub const fn null() -> Self {
        Path(String::new())
    }

    /// Parses one address, given without brackets and comments; `field` names it in
    /// the error. An empty text is an error: see [`Path::null`].
    pub fn parse(text: &str, field: &str) -> Result<Self, AddressError> {
        if text.contains(char::is_control) {
            return Err(Problem::Control(text.to_owned()).of(field));
        }
        let mut paths = parse_address_list(text, field)?;
        match paths.pop() {
            Some(path) if paths.is_empty() => Ok(path),
            _ => Err(Problem::Syntax(text.to_owned()).of(field)),
        }
    }

    /// The text, as it goes between the brackets if the server takes SMTPUTF8 or the
    /// text is ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the null reverse-path.
    pub fn is_null(&self) -> bool {
        self.0.is_empty()
    }

    /// The part after the `@`, if there is one.
    pub fn domain(&self) -> Option<&str> {
        self.split().1
    }

    fn split(&self) -> (&str, Option<&str>) {
        match self.0.rsplit_once('@') {
            // A quoted local part may hold an `@`; a bare one of a local user ends in a quote.
            Some((local, domain)) if !domain.ends_with('"') => (local, Some(domain)),
            _ => (&self.0, None),
        }
    }

    /// The path with its domain as A-labels (RFC 5891), which every server
    /// understands; `None` if the local part is not ASCII (only SMTPUTF8 can carry
    /// it) or the domain has no A-label form.
    pub fn to_ascii(&self) -> Option<String> {
        let (local, domain) = self.split();
        if !local.is_ascii() {
            return None;
        }
        match domain {
            Some(domain) if !domain.is_ascii() => {
                let ascii = idna::domain_to_ascii(domain).ok()?;
                Some(format!("{local}@{ascii}"))
            }
            _ => Some(self.0.clone()),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Path> for String {
    fn from(path: Path) -> String {
        path.0
    }
}

impl TryFrom<String> for Path {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        // For what a large spool holds most of, the grammar need not be asked.
        if text.is_empty() || is_plain(&text) {
            return Ok(Path(text));
        }
        Path::parse(&text, "address")
    }
}

/// Whether `text` is an addr-spec of dot-atoms in ASCII (RFC 5322 section 3.4.1).
fn is_plain(text: &str) -> bool {
    let is_dot_atom = |part: &str| {
        part.split('.').all(|atom| {
            !atom.is_empty()
                && atom.bytes().all(|octet| {
                    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet)
                })
        })
    };
    text.split_once('@')
        .is_some_and(|(local, domain)| is_dot_atom(local) && is_dot_atom(domain))
}

/// Parses an RFC 5322 address-list, the value of a recipient field (folded or not),
/// into its addresses in order, duplicates included. Groups are flattened, names and
/// comments dropped, source routes dropped as RFC 5321 section 3.6.1 says. `field`
/// names the source in errors. An empty list or empty group gives no addresses.
pub fn parse_address_list(text: &str, field: &str) -> Result<Vec<Path>, AddressError> {
    addresses(text).map_err(|problem| problem.of(field))
}

fn addresses(text: &str) -> Result<Vec<Path>, Problem> {
    let unfolded = text.replace("\r\n", " ").replace(['\n', '\t'], " ");
    if unfolded.contains(char::is_control) {
        return Err(Problem::Control(text.to_owned()));
    }
    let mut rest = skip_separators(unfolded.as_bytes());
    let mut paths = Vec::new();
    let mut bare_word: Option<String> = None;
    while !rest.is_empty() {
        let Ok((after, Element { addresses, form })) = element(rest) else {
            return Err(Problem::Syntax(excerpt(rest)));
        };
        if let (Form::Named, Some(word)) = (form, bare_word.take()) {
            let rest = excerpt(rest);
            return Err(Problem::UnquotedComma { word, rest });
        }
        if form == Form::Bare {
            bare_word = addresses.first().cloned();
        }
        if !after.is_empty() && after[0] != b',' {
            return Err(unexpected(rest, after));
        }
        paths.extend(addresses);
        rest = skip_separators(after);
    }
    match paths.iter().find(|path| path.len() > LONGEST_PATH) {
        Some(path) => Err(Problem::TooLong(path.len())),
        None => Ok(paths.into_iter().map(Path).collect()),
    }
}

/// The problem with text that follows an address where only a comma may.
fn unexpected(address: &[u8], after: &[u8]) -> Problem {
    match after.strip_prefix(b";") {
        _ if element(after).is_ok() => Problem::MissingComma(excerpt(after)),
        Some(next) if element(next).is_ok() => Problem::Semicolon(excerpt(next)),
        _ => Problem::Syntax(excerpt(address)),
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Skips white space, comments and empty list elements (obs-addr-list).
fn skip_separators(mut input: &[u8]) -> &[u8] {
    loop {
        let rest = match cfws(input) {
            Ok((rest, ())) => rest,
            Err(_) => input,
        };
        match rest.strip_prefix(b",") {
            Some(after) => input = after,
            None => return rest,
        }
    }
}

/// How an element of an address list was written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A local user without brackets.
    Bare,
    /// An address in brackets, after a display name.
    Named,
    Other,
}

/// One element of an address list.
struct Element {
    addresses: Vec<String>,
    form: Form,
}

/// address = mailbox / group
fn element(input: &[u8]) -> IResult<&[u8], Element> {
    let one = |address, form| Element {
        addresses: vec![address],
        form,
    };
    terminated(
        alt((
            map(name_addr, move |(named, address)| {
                one(address, if named { Form::Named } else { Form::Other })
            }),
            map(addr_spec, move |address| one(address, Form::Other)),
            map(bare_user, move |user| one(user, Form::Bare)),
            map(group, |addresses| Element {
                addresses,
                form: Form::Other,
            }),
        )),
        opt(cfws),
    )(input)
}

/// name-addr = [display-name] angle-addr; the first result tells whether it is named.
fn name_addr(input: &[u8]) -> IResult<&[u8], (bool, String)> {
    pair(
        map(opt(phrase), |name| name.is_some()),
        delimited(
            tuple((opt(cfws), tag("<"), opt(route))),
            alt((addr_spec, local_user)),
            tuple((opt(cfws), tag(">"), opt(cfws))),
        ),
    )(input)
}

/// obs-route = obs-domain-list ":"
fn route(input: &[u8]) -> IResult<&[u8], ()> {
    let hop = opt(tuple((opt(cfws), tag("@"), domain)));
    map(tuple((separated_list1(tag(","), hop), tag(":"))), |_| ())(input)
}

fn addr_spec(input: &[u8]) -> IResult<&[u8], String> {
    map(
        tuple((local_part, tag("@"), domain)),
        |(local, _, domain)| format!("{}@{}", local.to_string(), domain.to_string()),
    )(input)
}

fn local_user(input: &[u8]) -> IResult<&[u8], String> {
    map(local_part, |local| local.to_string())(input)
}

/// A local user without brackets, where the element ends with it.
fn bare_user(input: &[u8]) -> IResult<&[u8], String> {
    let (input, user) = local_user(input)?;
    match input.first() {
        None | Some(b',' | b';') => Ok((input, user)),
        Some(_) => Err(nom::Err::Error(nom::error::Error::new(
            input,
            nom::error::ErrorKind::Eof,
        ))),
    }
}

/// group = display-name ":" [group-list] ";"
fn group(input: &[u8]) -> IResult<&[u8], Vec<String>> {
    let member = alt((
        map(name_addr, |(_, address)| Some(address)),
        map(addr_spec, Some),
        map(bare_user, Some),
        map(opt(cfws), |_| None),
    ));
    map(
        delimited(
            pair(phrase, tag(":")),
            separated_list1(tag(","), terminated(member, opt(cfws))),
            tag(";"),
        ),
        |members| members.into_iter().flatten().collect(),
    )(input)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn list(text: &str) -> Result<Vec<String>, String> {
        parse_address_list(text, "To")
            .map(|paths| paths.into_iter().map(String::from).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn address_lists_give_their_addresses_in_order() {
        for (text, expected) in [
            ("Friends: a@x, Bob <b@x>;", &["a@x", "b@x"][..]),
            ("undisclosed-recipients:;", &[]),
            ("", &[]),
            (" , ,", &[]),
            ("\"john doe\"@x", &["\"john doe\"@x"]),
            ("<\"a,b\"@x>", &["\"a,b\"@x"]),
            ("a@x (c (n) \\) e)", &["a@x"]),
            ("(c) a (c) @ (c) x (c), b@y", &["a@x", "b@y"]),
            ("=?utf-8?q?J=C3=BC?= <j@x>", &["j@x"]),
            ("a@[127.0.0.1]", &["a@[127.0.0.1]"]),
            ("a@[IPv6:::1]", &["a@[IPv6:::1]"]),
            ("\n a@x,\n\tb@y\n", &["a@x", "b@y"]),
            ("<@r1,@r2:a@x>", &["a@x"]),
            ("jü@exämple.de", &["jü@exämple.de"]),
            ("root", &["root"]),
            ("<root>, a@x", &["root", "a@x"]),
            ("Root <root>", &["root"]),
            ("a@x, , b@x,", &["a@x", "b@x"]),
            ("John Q. Public <j@x>", &["j@x"]),
            ("a@x, a@x", &["a@x", "a@x"]),
            ("g: a@x, , root;, b@y", &["a@x", "root", "b@y"]),
            ("a..b@x", &["\"a..b\"@x"]),
            ("\"a@b\"@x", &["\"a@b\"@x"]),
        ] {
            let expected: Vec<String> = expected.iter().map(|&s| s.to_owned()).collect();
            assert_eq!(list(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_parsed_is_named() {
        for (text, named) in [
            ("a@x b@y", "missing comma before \"b@y\""),
            ("a@x <b@y>", "missing comma before \"<b@y>\""),
            ("a@x;b@x", "semicolon before \"b@x\""),
            ("a@x;", "\"a@x;\""),
            ("c@x, Foo <a@x", "\"Foo <a@x\""),
            ("a@x>", "\"a@x>\""),
            ("a@@x", "\"a@@x\""),
            ("a@b@c", "\"a@b@c\""),
            ("\"unterminated <a@x>", "\"unterminated <a@x>"),
            ("A B C <a@x> D", "missing comma before \"D\""),
            ("a@x (unterminated", "(unterminated"),
            ("grp: a@x", "\"grp: a@x\""),
            (";", "\";\""),
            ("Peter <>", "\"Peter <>\""),
            (
                "Doe, John <j@x>",
                "\"Doe\" has no domain and is followed by \"John <j@x>\"",
            ),
            ("Peter Pan", "\"Peter Pan\""),
            ("x: y: a@x;;", "\"x: y: a@x;;\""),
            ("a\u{1}@x", "control character"),
            ("a\r@x", "control character"),
        ] {
            let error = list(text).unwrap_err();
            assert!(error.starts_with("To: "), "{error}");
            assert!(error.contains(named), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn a_path_is_exactly_one_address() {
        assert_eq!(Path::parse("a@x", "sender").unwrap().as_str(), "a@x");
        for text in ["", "a@x, b@x", "g:;", "a@x\r\nRCPT TO:<b@x>", "a b@x"] {
            assert!(Path::parse(text, "sender").is_err(), "{text:?}");
        }
    }

    #[test]
    fn domains_become_a_labels() {
        let ascii = |text| Path::parse(text, "to").unwrap().to_ascii();
        assert_eq!(
            ascii("a@exämple.de").as_deref(),
            Some("a@xn--exmple-cua.de")
        );
        assert_eq!(ascii("jü@example.de"), None);
        assert_eq!(ascii("\"a@ü\"@x"), None);
        assert_eq!(ascii("root").as_deref(), Some("root"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_path_breaks_a_command(text in "\\PC*|[ -~\r\n\t]*") {
            if let Ok(paths) = parse_address_list(&text, "To") {
                for path in paths {
                    prop_assert!(!path.as_str().contains(['\r', '\n', '\0']));
                    prop_assert_eq!(Path::parse(path.as_str(), "again"), Ok(path));
                }
            }
        }
    }
}
