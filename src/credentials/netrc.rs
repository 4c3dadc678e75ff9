//! Searching a netrc-format file as auth-source does.
//!
//! An entry is found if it agrees with the query in machine, user and port, character
//! by character (`587` is not `smtp`); one that doesn't name the machine, the user or
//! the port agrees with any. The first found is taken.
//!
//! Keys have synonyms. In comparing, the first key listed that is there decides; in what
//! is returned, the last in the file. Of one key given twice, the last counts.
//!
//! | for | keys |
//! |---|---|
//! | the machine | `machine`, `host` |
//! | the user | `login`, `account`, `user` |
//! | the port | `port`, `protocol` |
//! | the secret | `password`, `secret` |
//! | the SASL mechanism | `smtp-auth`; `auth`, if that is `xoauth2` or `oauthbearer` |
//! | an OAuth 2 token | `token-url`, `client-id`, `client-secret`, `refresh-token`, `scope` |

use std::fmt::{self, Write};

use netrc_rs::Netrc;
use zeroize::Zeroizing;

use super::lexer::{Entry, UnexpectedMachine, entries};
use super::oauth2::Grant;
use super::text::with_unix_line_ends;

/// What credentials are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The server's name as the user wrote it.
    pub host: String,
    /// The port as the user wrote it: a number or a service name.
    pub port: String,
    /// `None`: any user.
    pub user: Option<String>,
}

/// The queries that an element of `auth-sources` is for, `(:source … :host …)`: `None`
/// stands for any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restriction {
    /// `:host`
    pub host: Option<String>,
    /// `:port`
    pub port: Option<String>,
    /// `:user`; a query for any user is not among them.
    pub user: Option<String>,
}

impl Restriction {
    /// Whether `query` is one of them.
    pub fn admits(&self, query: &Query) -> bool {
        let admits = |only: &Option<String>, wanted| only.is_none() || only.as_deref() == wanted;
        admits(&self.host, Some(query.host.as_str()))
            && admits(&self.port, Some(query.port.as_str()))
            && admits(&self.user, query.user.as_deref())
    }
}

/// What was found; a part that the entry doesn't have is `None`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user to log in as.
    pub user: Option<String>,
    /// The password or token.
    pub secret: Option<Zeroizing<String>>,
    /// The name of the only SASL mechanism to use (`smtp-auth`).
    pub mechanism: Option<String>,
    /// What an access token is to be had for.
    pub grant: Option<Grant>,
    /// Whether the secret is an access token, of which there may be a newer one.
    pub is_token: bool,
}

impl Credentials {
    /// Whether they are enough to log in with.
    pub fn is_complete(&self) -> bool {
        self.is_token || (self.user.is_some() && self.secret.is_some())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("secret", &self.secret.as_ref().map(|_| "…"))
            .field("mechanism", &self.mechanism)
            .field("grant", &self.grant)
            .finish()
    }
}

/// A file that can't be searched. No text of the file is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetrcError {
    /// As auth-source does, nothing of such a file is used.
    #[error("line {line}: the word `machine' where a value is expected")]
    UnexpectedMachine {
        /// The line the word stands on, from 1.
        line: usize,
    },
    /// The grammar refused an entry.
    #[error("an entry that cannot be read: {0}")]
    Grammar(String),
}

impl From<UnexpectedMachine> for NetrcError {
    fn from(UnexpectedMachine { line }: UnexpectedMachine) -> Self {
        NetrcError::UnexpectedMachine { line }
    }
}

/// What `auth-source-search` finds in a file that holds `text`, where at most one entry
/// is asked for. The file is read to its end also after that, for errors.
pub fn search(text: &str, query: &Query) -> Result<Option<Credentials>, NetrcError> {
    let mut found = None;
    for entry in entries(text) {
        let entry = entry?;
        if found.is_none() {
            let fields = Fields::of(&entry)?;
            if fields.agree_with(query) {
                found = Some(fields.credentials(&entry));
            }
        }
    }
    Ok(found)
}

/// An entry's values.
#[derive(Default)]
struct Fields<'t> {
    machine: Field<'t>,
    login: Field<'t>,
    account: Field<'t>,
    user: Field<'t>,
    port: Field<'t>,
    protocol: Field<'t>,
    password: Field<'t>,
    secret: Field<'t>,
    mechanism: Field<'t>,
}

/// A value, and where in its entry it stands.
type Field<'t> = Option<(usize, &'t str)>;

impl<'t> Fields<'t> {
    /// Reads an entry by netrc-rs's grammar, which takes each key once, after the
    /// machine, and only values without white space that are no keys themselves. So
    /// the last of each key is given to it, with the pair's number for the value.
    fn of(entry: &Entry<'t>) -> Result<Self, NetrcError> {
        let last = |key| entry.iter().rposition(|pair| pair.key == key);
        let mut normalised = match last("machine").or_else(|| last("host")) {
            Some(number) if entry[number].value.is_some() => format!("machine {number}"),
            _ => "default".to_owned(),
        };
        let keys = [
            "login",
            "account",
            "password",
            "user",
            "port",
            "protocol",
            "secret",
            "smtp-auth",
        ];
        for key in keys {
            if let Some(number) = last(key) {
                // Writing to a String cannot fail.
                let _ = write!(normalised, " {key} {number}");
            }
        }
        let netrc = Netrc::parse_borrow(&normalised, true).map_err(grammar)?;
        let [machine] = netrc.machines.as_slice() else {
            return Err(NetrcError::Grammar(normalised));
        };
        let field = |number: Option<&str>| -> Result<Field<'t>, NetrcError> {
            let Some(number) = number else {
                return Ok(None);
            };
            let number: usize = number.parse().map_err(grammar)?;
            let value = entry.get(number).and_then(|pair| pair.value);
            Ok(value.map(|value| (number, value)))
        };
        let other = |key: &str| {
            let mut pairs = netrc.unknown_entries.chunks_exact(2);
            field(
                pairs
                    .find(|pair| pair[0] == key)
                    .map(|pair| pair[1].as_str()),
            )
        };
        Ok(Fields {
            machine: field(machine.name.as_deref())?,
            login: field(machine.login.as_deref())?,
            account: field(machine.account.as_deref())?,
            password: field(machine.password.as_deref())?,
            user: other("user")?,
            port: other("port")?,
            protocol: other("protocol")?,
            secret: other("secret")?,
            mechanism: other("smtp-auth")?,
        })
    }

    fn agree_with(&self, query: &Query) -> bool {
        let agrees = |field: Field, wanted: &str| field.is_none_or(|(_, value)| value == wanted);
        let user = self.login.or(self.account).or(self.user);
        let port = self.port.or(self.protocol);
        agrees(self.machine, &query.host)
            && agrees(port, &query.port)
            && query
                .user
                .as_deref()
                .is_none_or(|wanted| agrees(user, wanted))
    }

    fn credentials(&self, entry: &Entry<'t>) -> Credentials {
        let value = |field: Field<'t>| field.map(|(_, value)| value);
        let user = value(self.login.max(self.account).max(self.user));
        let secret = value(self.password.max(self.secret));
        let last = |key: &str| {
            let pair = entry.iter().rev().find(|pair| pair.key == key)?;
            pair.value.map(str::to_owned)
        };
        Credentials {
            user: user.map(str::to_owned),
            // auth-source keeps secrets encoded, and decodes them once more.
            secret: secret.map(|text| with_unix_line_ends(Zeroizing::new(text.to_owned()))),
            mechanism: value(self.mechanism)
                .map(str::to_owned)
                .or_else(|| last("auth").filter(|name| is_for_token(name))),
            grant: Grant::from_fields(last),
            is_token: false,
        }
    }
}

/// Whether the secret of this SASL mechanism is an access token.
pub fn is_for_token(mechanism: &str) -> bool {
    ["xoauth2", "oauthbearer"]
        .iter()
        .any(|name| mechanism.eq_ignore_ascii_case(name))
}

fn grammar(error: impl fmt::Display) -> NetrcError {
    NetrcError::Grammar(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn query(user: Option<&str>) -> Query {
        Query {
            host: "mail.example".to_owned(),
            port: "587".to_owned(),
            user: user.map(str::to_owned),
        }
    }

    /// User, secret and mechanism of what is found.
    fn find(text: &str, user: Option<&str>) -> Option<[Option<String>; 3]> {
        search(text, &query(user)).unwrap().map(|found| {
            let secret = found.secret.map(|secret| secret.to_string());
            [found.user, secret, found.mechanism]
        })
    }

    fn secret(text: &str) -> Option<String> {
        find(text, None).and_then(|[_, secret, _]| secret)
    }

    #[test]
    fn the_first_agreeing_entry_is_taken() {
        let text = "machine other.example login a password 1
            machine mail.example port 25 login b password 2
            machine mail.example port 587 login c password 3 smtp-auth login
            machine mail.example login d password 4";
        let taken = |parts: [&str; 2]| parts.map(|part| Some(part.to_owned()));
        let [c, three] = taken(["c", "3"]);
        let found = Some([c, three, Some("login".to_owned())]);
        assert_eq!(find(text, None), found);
        assert_eq!(find(text, Some("c")), found);
        let [d, four] = taken(["d", "4"]);
        assert_eq!(find(text, Some("d")), Some([d, four, None]));
        assert_eq!(find(text, Some("b")), None);
    }

    #[test]
    fn ports_are_compared_as_they_are_written() {
        assert_eq!(secret("machine mail.example port smtp password a"), None);
        assert_eq!(
            secret("machine mail.example protocol 0587 password a"),
            None
        );
        let text = "machine mail.example protocol 587 password a";
        assert_eq!(secret(text).as_deref(), Some("a"));
    }

    #[test]
    fn what_is_not_named_agrees_with_anything() {
        assert_eq!(secret("default password a").as_deref(), Some("a"));
        assert_eq!(secret("password a").as_deref(), Some("a"));
        assert_eq!(
            secret("default host other.example password a").as_deref(),
            Some("a")
        );
        assert_eq!(secret("login x host other.example password a"), None);
        let nothing = Some([None, None, None]);
        assert_eq!(find("machine mail.example", Some("u")), nothing);
    }

    #[test]
    fn of_synonyms_one_is_compared_and_the_last_returned() {
        let text = "machine mail.example user a login b account c login d secret s password p";
        let found = find(text, Some("d")).unwrap();
        assert_eq!(found[0].as_deref(), Some("d"));
        assert_eq!(found[1].as_deref(), Some("p"));
        let text = "machine mail.example login b user a password p secret s";
        let found = find(text, Some("b")).unwrap();
        assert_eq!(found[0].as_deref(), Some("a"));
        assert_eq!(found[1].as_deref(), Some("s"));
        assert_eq!(find(text, Some("a")), None);
    }

    #[test]
    fn values_may_be_keys_of_the_grammar() {
        for value in ["default", "login", "password", "macdef", "account"] {
            let text = format!("machine mail.example login {value} password {value}");
            assert_eq!(find(&text, Some(value)).unwrap()[1].as_deref(), Some(value));
        }
        assert_eq!(
            secret("machine mail.example password 'a \"b'").unwrap(),
            "a \"b"
        );
        assert_eq!(
            secret("machine mail.example 'pass word' x password ''").unwrap(),
            ""
        );
    }

    #[test]
    fn a_malformed_file_is_an_error_even_after_the_entry() {
        let text = "machine mail.example password a\nmachine x login machine";
        let error = search(text, &query(None)).unwrap_err();
        assert_eq!(error, NetrcError::UnexpectedMachine { line: 2 });
    }

    #[test]
    fn an_entry_may_hold_what_a_token_is_had_for() {
        let text = "machine mail.example login a token-url https://login.example/x
            client-id 'i d' refresh-token 1//r scope \"s t\" auth xoauth2 smtp-auth login
            machine mail.example login b auth oauthbearer password p
            machine mail.example login c auth plain password p";
        let find = |user| search(text, &query(Some(user))).unwrap().unwrap();
        let a = find("a");
        assert_eq!(a.mechanism.as_deref(), Some("login"));
        let grant = a.grant.unwrap();
        assert!(grant.is_complete());
        assert_eq!(grant.token_url, "https://login.example/x");
        assert_eq!(grant.client_id.as_deref(), Some("i d"));
        assert_eq!(grant.client_secret, None);
        assert_eq!(grant.scope.as_deref(), Some("s t"));
        let b = find("b");
        assert_eq!(
            (b.mechanism.as_deref(), b.grant),
            (Some("oauthbearer"), None)
        );
        assert_eq!(find("c").mechanism, None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = "password hunter2 token-url u refresh-token hunter2 client-secret hunter2";
        let found = search(text, &query(None)).unwrap();
        assert!(!format!("{found:?}").contains("hunter2"));
    }
}
